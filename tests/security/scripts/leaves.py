"""Leaves processes behind in every way there is, and files in everybody's directories. Each lives for a minute at most."""

import os
import signal
import sys
import time


def linger():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)
    os._exit(0)


def daemon(note):
    """Away from its parent, its session, its directory and its environment."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    with open(note, "a") as file:
        file.write("%d\n" % os.getpid())
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 100)
    program = (
        "import signal, time\n"
        "for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "time.sleep(60)\n"
    )
    os.execve(sys.executable, ["kworker/u4:2", "-c", program], {})


note = sys.argv[1]
for _ in range(3):
    daemon(note)
if os.fork() == 0:
    linger()
for directory in sys.argv[2].split(":"):
    os.makedirs("%s/left-by-%d/deeper" % (directory, os.getuid()))
while len(open(note).readlines() if os.path.exists(note) else []) < 3:
    time.sleep(0.01)
print(os.getuid(), flush=True)
if len(sys.argv) > 3:
    time.sleep(60)

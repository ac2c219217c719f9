"""Starts a child, and a daemon that forked twice and has a session of its own; notes all of them.

After the file to note them in: `stay` to run on, `leave` to end at once; `stubborn` if nobody heeds TERM.
"""
import os
import signal
import sys
import time

notes, then, *rest = sys.argv[1:]
if "stubborn" in rest:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
family = [os.getpid()]


def note(pid):
    with open(notes + ".part", "a") as file:
        file.write("%d\n" % pid)


def live():
    while True:
        time.sleep(600)


child = os.fork()
if child == 0:
    live()
note(os.getpid())
note(child)
between = os.fork()
if between == 0:
    os.setsid()
    if os.fork() == 0:
        note(os.getpid())
        os.rename(notes + ".part", notes)
        live()
    os._exit(0)
os.waitpid(between, 0)
while not os.path.exists(notes):
    time.sleep(0.01)
if then == "stay":
    live()

"""Tries to get at everything that is not its own, and writes down what it got."""

import ctypes
import glob
import json
import os
import signal
import socket
import sys

told = json.loads(sys.argv[1])
data = told["data_dir"]
got = []


def try_to(what, act):
    try:
        answer = act()
    except OSError:
        return
    got.append("%s: %r" % (what, answer))


def read(path):
    with open(path, "rb") as file:
        content = file.read(64)
    # Threads of the kernel have nothing to read.
    if not content and path.startswith("/proc/"):
        raise OSError("nothing")
    return content


def write(path):
    with open(path, "ab") as file:
        file.write(b"")
    return "opened to write"


def make(directory):
    path = os.path.join(directory, "made-by-a-run")
    with open(path, "w"):
        return path


# What is the service's, and what is another run's.
other = os.path.join(data, "runs", told["other"], "1")
own = os.path.dirname(os.getcwd())
private = [os.path.join(data, name) for name in told["private"]]
private += [os.path.join(other, name) for name in told["attempt"]]
private += [os.path.join(own, name) for name in ("launch.json", "supervisor.lock", "supervisor.log", "user")]
for path in private:
    try_to("read " + path, lambda: read(path))
    try_to("write " + path, lambda: write(path))
    try_to("list " + path, lambda: os.listdir(path))
    try_to("make in " + path, lambda: make(path))
    try_to("remove " + path, lambda: os.rename(path, path + ".gone"))
    # Landlock has no say in it.
    if told["service_user"] != os.getuid():
        try_to("own " + path, lambda: os.chmod(path, 0o777))
for path in [data, os.path.join(data, "runs"), os.path.dirname(other), other, own, "/run/estimatord"]:
    try_to("list " + path, lambda: os.listdir(path))
    try_to("make in " + path, lambda: make(path))
# What runs read and must not write.
for top in ("tools", "environments", "cache"):
    for directory, _, files in os.walk(os.path.join(data, top)):
        try_to("make in " + directory, lambda: make(directory))
        for name in files:
            path = os.path.join(directory, name)
            try_to("write " + path, lambda: write(path))
            if not name.endswith((".py", ".pyc")):
                try_to("read " + path, lambda: read(path))

# Processes: of the service, its database, its supervisors, the other run.
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
mine = os.getuid()
for entry in os.listdir("/proc"):
    if not entry.isdigit():
        continue
    pid = int(entry)
    try:
        uids = [line for line in open("/proc/%d/status" % pid) if line.startswith("Uid:")][0].split()[1:]
        command = open("/proc/%d/cmdline" % pid, "rb").read()
    except (OSError, IndexError):
        continue
    if str(mine) in uids:
        continue
    if told["secret"].encode() in command:
        got.append("a secret in the command line of %d" % pid)
    for name in ("environ", "mem", "maps", "auxv"):
        try_to("read %s of %d" % (name, pid), lambda: read("/proc/%d/%s" % (pid, name)))
    for name in ("fd", "cwd/.", "root/."):
        try_to("list %s of %d" % (name, pid), lambda: os.listdir("/proc/%d/%s" % (pid, name)))
    if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0:
        got.append("traced %d" % pid)
    if pid in told["kill"] + [os.getppid()]:
        for number in (0, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
            try_to("signal %d to %d" % (number, pid), lambda: os.kill(pid, number))
try_to("signal all", lambda: os.kill(-1, signal.SIGCONT) or "all") if mine == 0 else None

# The database.
for path in glob.glob(os.path.join(data, "pg.sock", "*")) + told["sockets"]:
    connection = socket.socket(socket.AF_UNIX)
    try_to("connect to " + path, lambda: connection.connect(path) or "connected")

# Privileges.
for line in open("/proc/self/status"):
    name, _, value = line.partition(":")
    if name in ("CapPrm", "CapEff", "CapAmb") and int(value, 16) != 0:
        got.append("capabilities %s" % line)
    if name == "NoNewPrivs" and value.strip() != "1":
        got.append("may get new privileges")
if os.getgroups() not in ([], [os.getgid()]) or os.getgid() != mine:
    got.append("groups %r" % os.getgroups())
with os.popen(told["setuid"] + " -u") as output:
    # Landlock does not even let it start.
    answer = output.read().strip() or ("" if told["service_user"] != mine else str(mine))
    if answer != str(mine):
        got.append("became user %s by a program of root's" % answer)
for number in (0, told["service_user"]):
    try_to("become %d" % number, lambda: os.setuid(number) if number != mine else os.stat("/nowhere"))
if any(told["secret"] in value for value in os.environ.values()):
    got.append("a secret in the environment")

# What a library needs: a home, and a place for temporary files.
import tempfile

cache = os.path.join(os.path.expanduser("~"), ".cache", "library")
os.makedirs(cache)
with tempfile.NamedTemporaryFile(dir=cache), tempfile.NamedTemporaryFile() as temporary:
    assert temporary.name.startswith(own + os.sep), temporary.name
with open("/dev/stdout", "a") as output, open("/dev/null", "w"):
    output.write("output that was opened anew\n")
with open("outputs/got.json", "w") as file:
    json.dump({"got": got, "user": mine}, file)

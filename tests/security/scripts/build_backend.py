"""Builds a package, and tries meanwhile to get at everything that is not the run's own."""

import base64
import hashlib
import json
import os
import zipfile

SERVICE = json.loads(r'''@TOLD@''')
DATA = SERVICE["data_dir"]


def look():
    got = []

    def try_to(what, act):
        try:
            answer = act()
        except OSError:
            return
        got.append("%s: %r" % (what, answer))

    def make(directory):
        path = os.path.join(directory, "made-while-building")
        with open(path, "w"):
            return path

    for name in ("secret.key", "service.lock", "postgres.log"):
        try_to("read " + name, lambda: open(os.path.join(DATA, name), "rb").read(8))
    for name in ("", "artifacts", "uploads", "pg", "runs", "environments", "cache", "cache/tmp", "tools"):
        try_to("list " + name, lambda: os.listdir(os.path.join(DATA, name)))
        try_to("write in " + name, lambda: make(os.path.join(DATA, name)))
    try_to("read the environment of the service", lambda: open("/proc/%d/environ" % SERVICE["service"], "rb").read(8))
    try_to("signal the service", lambda: os.kill(SERVICE["service"], 0))
    try_to("become root", lambda: os.setuid(0))
    try_to("read /etc/shadow", lambda: open("/etc/shadow", "rb").read(8))
    with open(os.path.join(SERVICE["notes"], "got"), "a") as file:
        print(json.dumps({"user": os.getuid(), "got": got}), file=file)


def get_requires_for_build_wheel(config_settings=None):
    look()
    return []


def build_wheel(directory, config_settings=None, metadata_directory=None):
    look()
    name = "spied-1.0-py3-none-any.whl"
    files = {
        "spied.py": "WORD = 'built'\n",
        "spied-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: spied\nVersion: 1.0\n",
        "spied-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: spy\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += "%s,sha256=%s,%d\n" % (path, digest, len(text))
        wheel.writestr("spied-1.0.dist-info/RECORD", record + "spied-1.0.dist-info/RECORD,,\n")
    return name

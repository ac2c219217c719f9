"""Lines of JSON in a file of this process, which the service takes over."""
import binascii
import json
import math
import os
import sys
import threading
import time

# The service takes no longer line.
MAX_LINE_BYTES = 1024 * 1024
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")


def rank():
    """The rank of this process; 0 where no launcher gave it one."""
    for variable in RANK_VARIABLES:
        try:
            return max(0, int(os.environ[variable]))
        except (KeyError, ValueError):
            continue
    return 0


def plain(value):
    """The value as JSON has it. Arrays and numbers of other libraries say themselves what they are."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return plain_float(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    for method in ("tolist", "item"):
        convert = getattr(value, method, None)
        if callable(convert):
            converted = convert()
            if converted is not value:
                return plain(converted)
    # Variables of chainer and the like hold an array.
    for attribute in ("array", "data"):
        held = getattr(value, attribute, None)
        if held is not None and held is not value and hasattr(held, "tolist"):
            return plain(held.tolist())
    for kind in (int, float):
        if hasattr(value, "__{}__".format(kind.__name__)):
            return plain(kind(value)) if kind(value) == value else plain(float(value))
    raise TypeError("a value of type {} cannot be recorded".format(type(value).__name__))


def plain_float(value):
    """JSON has no such numbers."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


class Recorder(object):
    """Appends records. A failing record is said once per reason and never ends the script."""

    def __init__(self, directory):
        self._directory = directory
        self._lock = threading.RLock()
        self._file = None
        self._process = None
        self._sequence = 0
        self._said = set()

    @property
    def is_recording(self):
        """Whether there is anybody who reads it."""
        return bool(self._directory)

    def warn(self, message):
        """Says something on standard error, once."""
        with self._lock:
            if message in self._said:
                return
            self._said.add(message)
        try:
            sys.stderr.write("azureml: {}\n".format(message))
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            pass  # There is no standard error to say it on.

    def record(self, record_type, name, **members):
        """Appends one record; whether it was written."""
        what = "`{}`".format(name) if name is not None else record_type
        if name is not None and not (isinstance(name, str) and 0 < len(name) <= 255 and "\0" not in name):
            self.warn("{!r} was not recorded: a name is a text of 1 to 255 characters".format(name))
            return False
        line = {"type": record_type, "time": time.time()}
        if name is not None:
            line["name"] = name
        line.update(members)
        try:
            with self._lock:
                self._write(line, what)
        except (OSError, TypeError, ValueError, OverflowError, RecursionError) as error:
            self.warn("{} was not recorded: {}".format(what, error))
            return False
        return True

    def _write(self, line, what):
        if not self._directory:
            return
        if self._process != os.getpid():
            # Never the parent's file after a fork.
            self._file = self._open()
            self._process = os.getpid()
            self._sequence = 0
        line["sequence"] = self._sequence
        text = (json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")
        if len(text) > MAX_LINE_BYTES:
            raise ValueError(
                "it has {} bytes as JSON, and {} are taken at once: log less of it, or upload_file() it".format(
                    len(text), MAX_LINE_BYTES))
        # Without a buffer: what was logged is there also when the process is killed right after.
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(self._file, rest):]
        self._sequence += 1

    def _open(self):
        token = binascii.hexlify(os.urandom(4)).decode("ascii")
        name = "{}-{}-{}.jsonl".format(rank(), os.getpid(), token)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        return os.open(os.path.join(self._directory, name), flags, 0o644)

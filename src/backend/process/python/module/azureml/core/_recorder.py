"""Lines of JSON in a file of this process, which the service takes over."""
import binascii
import json
import os
import sys
import threading
import time

from azureml.core._values import plain_text

# The service takes no longer line, its end included.
MAX_LINE_BYTES = 1024 * 1024
MAX_NAME_LENGTH = 255
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")


def rank():
    """The rank of this process; 0 where no launcher gave it one."""
    for variable in RANK_VARIABLES:
        try:
            return max(0, int(os.environ[variable]))
        except (KeyError, ValueError):
            continue
    return 0


class _Warnings(object):
    """Says each thing once on standard error, and never ends the script."""

    def __init__(self):
        self._said = set()

    def warn(self, about, message):
        """Says it unless something was said about this already."""
        if about in self._said:
            return
        self._said.add(about)
        try:
            sys.stderr.write("azureml: {}\n".format(message))
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            pass  # There is no standard error to say it on.

    def is_name(self, name):
        """Whether something can have this name; says it where not."""
        if isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH and "\0" not in name:
            return True
        shown = repr(name)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        message = "{} was not recorded: a name is a text of 1 to {} characters"
        self.warn(("name", shown), message.format(shown, MAX_NAME_LENGTH))
        return False


class Printer(_Warnings):
    """Stands in for the recorder where there is no service: it prints."""

    def record(self, record_type, name=None, **members):
        """Prints one record; whether that could be done."""
        if name is not None and not self.is_name(name):
            return False
        said = ["offline run:", record_type] + ([] if name is None else [repr(name)])
        try:
            print(" ".join(said + ["{}={!r}".format(key, members[key]) for key in sorted(members)]))
        except (OSError, ValueError) as error:
            self.warn("print", "what is logged cannot be printed: {}".format(error))
        return True


class Recorder(_Warnings):
    """Appends records, from any thread and any process that was forked."""

    def __init__(self, directory):
        super(Recorder, self).__init__()
        self._directory = directory
        # By process: after a fork neither the parent's file nor a lock that one of its threads held is touched.
        self._files = {}

    def record(self, record_type, name=None, **members):
        """Appends one record; whether it was written."""
        line = {"type": record_type, "time": time.time()}
        if name is not None:
            if not self.is_name(name):
                return False
            line["name"] = name
        line.update(members)
        line = {key: plain_text(value) if isinstance(value, str) else value for key, value in line.items()}
        what = record_type if name is None else "`{}`".format(line["name"])
        try:
            self._file().append(line)
        except OSError as error:
            self.warn("write", "{} was not recorded, nor is what follows until this is mended: {}".format(what, error))
            return False
        except Exception as error:  # Logging must not end a training, whatever it was given.
            self.warn(name, "{} was not recorded: {}".format(what, error))
            return False
        return True

    def _file(self):
        process = os.getpid()
        file = self._files.get(process)
        # Only one of several threads can set it.
        return file or self._files.setdefault(process, _File(self._directory))


class _File(object):
    def __init__(self, directory):
        self._directory = directory
        # Taken again by a signal handler that logs while its thread does.
        self._lock = threading.RLock()
        self._descriptor = None
        self._identity = None
        self._length = 0
        self._sequence = 0

    def append(self, line):
        with self._lock:
            if not self._is_open():
                self._open()
            line["sequence"] = self._sequence
            text = (json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")
            if len(text) > MAX_LINE_BYTES:
                message = "it has {} bytes as JSON, and {} are taken at once: log less of it, or upload_file() it"
                raise ValueError(message.format(len(text), MAX_LINE_BYTES))
            self._write(text)
            self._length += len(text)
            self._sequence += 1

    def _write(self, text):
        # Without a buffer: what was logged is there also when the process is killed right after.
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest):]
        except BaseException:
            if len(rest) < len(text):
                self._take_back()
            raise

    def _take_back(self):
        """Removes a part of a line, which would spoil the next one."""
        try:
            os.ftruncate(self._descriptor, self._length)
        except OSError:
            os.close(self._descriptor)
            self._identity = None

    def _is_open(self):
        """Whether the descriptor is still our file: scripts close what they do not know, or remove it."""
        if self._identity is None:
            return False
        try:
            status = os.fstat(self._descriptor)
        except OSError:
            return False
        return status.st_nlink > 0 and (status.st_dev, status.st_ino) == self._identity

    def _open(self):
        token = binascii.hexlify(os.urandom(4)).decode("ascii")
        name = "{}-{}-{}.jsonl".format(rank(), os.getpid(), token)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(os.path.join(self._directory, name), flags, 0o644)
        # Whatever the script's umask: in a container the service may be another user.
        os.fchmod(self._descriptor, 0o644)
        status = os.fstat(self._descriptor)
        self._identity = status.st_dev, status.st_ino
        self._length = 0
        self._sequence = 0


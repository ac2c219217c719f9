"""Copying what scripts upload to where the service collects outputs."""
import os
import re
import shutil
import tempfile
import time

# Copies that are not whole yet; the service leaves them out.
PARTIAL_PREFIX = ".estimatord-"


def below_outputs(name):
    """The path below the outputs directory that an artifact of this name has: `outputs/x` and `x` are the same."""
    path = str(name).replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if parts and parts[0] == "outputs":
        parts = parts[1:]
    if path.startswith("/") or ".." in parts or not parts or "\0" in path:
        raise ValueError("{!r} is no name for an output: it must be a relative path without `..`".format(name))
    if any(part.startswith(PARTIAL_PREFIX) for part in parts):
        message = "{!r} is no name for an output: names that begin with {!r} are left out"
        raise ValueError(message.format(name, PARTIAL_PREFIX))
    return os.path.join(*parts)


def file_name(text):
    """A name for a file that reads like the text."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:100] or "_"


class Outputs(object):
    """The directory that is collected at the end of the run, or the part of it `below` which a child run writes."""

    def __init__(self, root, below=""):
        self._root = root
        self._below = below

    def of_child(self, child):
        """The part for a child run: several of them may each have a `model.npz`."""
        return Outputs(self._root, os.path.join("children", file_name(child)))

    def put(self, name, source):
        """Copies a file or a stream; its path below outputs."""
        path = os.path.join(self._below, below_outputs(name))
        target = os.path.join(self._root, path)
        is_stream = hasattr(source, "read")
        if not is_stream:
            source = os.fspath(source) if hasattr(os, "fspath") else str(source)
            if not os.path.isfile(source):
                raise FileNotFoundError("there is no file {!r} to upload as {!r}".format(source, name))
            if os.path.exists(target) and os.path.samefile(source, target):
                return path
        if os.path.lexists(target):
            raise FileExistsError("the run has an output {!r} already".format(path))
        directory = os.path.dirname(target)
        os.makedirs(directory, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=PARTIAL_PREFIX, dir=directory)
        try:
            with os.fdopen(handle, "wb") as copy:
                if is_stream:
                    _copy_stream(source, copy)
                else:
                    with open(source, "rb") as original:
                        shutil.copyfileobj(original, copy)
            os.chmod(partial, 0o644)
            # Whole or not at all: the run may end at any moment.
            os.rename(partial, target)
        except BaseException:
            os.unlink(partial)
            raise
        return path

    def put_folder(self, name, folder):
        """Copies every file of a folder; their paths below outputs."""
        folder = str(folder)
        if not os.path.isdir(folder):
            raise FileNotFoundError("there is no folder {!r} to upload as {!r}".format(folder, name))
        paths = []
        # The whole list first: the outputs may lie in the folder.
        for directory, _, files in sorted(os.walk(folder)):
            for file in sorted(files):
                source = os.path.join(directory, file)
                relative = os.path.relpath(source, folder)
                if not file.startswith(PARTIAL_PREFIX):
                    paths.append(self.put("/".join([str(name).rstrip("/"), relative]), source))
        return paths

    def put_image(self, name, path, plot):
        """Copies an image file, or saves a plot of matplotlib; its path below outputs."""
        ending = ".png" if path is None else os.path.splitext(str(path))[1]
        stem = "images/{}_{}".format(file_name(name), int(time.time() * 1000))
        artifact, number = stem + ending, 1
        while os.path.lexists(os.path.join(self._root, self._below, artifact)):
            artifact, number = "{}_{}{}".format(stem, number, ending), number + 1
        if path is not None:
            return self.put(artifact, path)
        with tempfile.TemporaryDirectory() as directory:
            saved = os.path.join(directory, "plot.png")
            plot.savefig(saved, format="png")
            return self.put(artifact, saved)


def _copy_stream(stream, copy):
    while True:
        part = stream.read(1024 * 1024)
        if not part:
            return
        copy.write(part.encode("utf-8") if isinstance(part, str) else part)

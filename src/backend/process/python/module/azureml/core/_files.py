"""Copying what scripts upload to where the service collects outputs."""
import os
import re
import shutil
import tempfile
import time


def below_outputs(name):
    """The path below the outputs directory that an artifact of this name has: `outputs/x` and `x` are the same."""
    path = str(name).replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if parts and parts[0] == "outputs":
        parts = parts[1:]
    if path.startswith("/") or ".." in parts or not parts or "\0" in path:
        raise ValueError("{!r} is no name for an output: it must be a relative path without `..`".format(name))
    return os.path.join(*parts)


class Outputs(object):
    """The directory that is collected at the end of the run."""

    def __init__(self, root):
        self.root = root

    def put(self, name, source):
        """Copies a file or a stream; the path below outputs."""
        path = below_outputs(name)
        target = os.path.join(self.root, path)
        is_stream = hasattr(source, "read")
        if not is_stream:
            source = os.fspath(source) if hasattr(os, "fspath") else str(source)
            if not os.path.isfile(source):
                raise FileNotFoundError("there is no file {!r} to upload as {!r}".format(source, name))
            if os.path.exists(target) and os.path.samefile(source, target):
                return path
        if os.path.exists(target):
            raise FileExistsError("the run has an output {!r} already".format(path))
        directory = os.path.dirname(target)
        os.makedirs(directory, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=".estimatord-", dir=directory)
        try:
            with os.fdopen(handle, "wb") as copy:
                if is_stream:
                    content = source.read()
                    copy.write(content.encode("utf-8") if isinstance(content, str) else content)
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
        """Copies every file of a folder; the paths below outputs."""
        if not os.path.isdir(folder):
            raise FileNotFoundError("there is no folder {!r} to upload as {!r}".format(folder, name))
        paths = []
        for directory, _, files in sorted(os.walk(folder)):
            for file in sorted(files):
                source = os.path.join(directory, file)
                relative = os.path.relpath(source, folder)
                paths.append(self.put("/".join([str(name).rstrip("/"), relative]), source))
        return paths

    def put_image(self, name, path, plot):
        """Copies an image file, or saves a plot of matplotlib; the path below outputs."""
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name) or "image"
        ending = os.path.splitext(str(path))[1] if plot is None else ".png"
        stem = "images/{}_{}".format(safe, int(time.time() * 1000))
        artifact, number = stem + ending, 1
        while os.path.exists(os.path.join(self.root, artifact)):
            artifact, number = "{}_{}{}".format(stem, number, ending), number + 1
        if plot is None:
            return self.put(artifact, path)
        with tempfile.TemporaryDirectory() as directory:
            saved = os.path.join(directory, "plot.png")
            plot.savefig(saved, format="png")
            return self.put(artifact, saved)

"""What Schemathesis cannot know by the document: how archives are made, and which texts only the service can make."""
import gzip
import io
import json
import tarfile
import zipfile

import schemathesis
from hypothesis import strategies as st

# Names of files as source directories have them, and what is in them.
NAMES = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}\.(py|txt)", fullmatch=True)
TREES = st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=4)


def as_tar(tree):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in tree.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def as_zip(tree):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return packed.getvalue()


schemathesis.openapi.media_type("application/x-tar", TREES.map(as_tar))
schemathesis.openapi.media_type("application/gzip", TREES.map(as_tar).map(lambda tar: gzip.compress(tar, mtime=0)))
schemathesis.openapi.media_type("application/zip", TREES.map(as_zip))


@schemathesis.deserializer("application/octet-stream")
def octets(_context, response):
    """An output of a run is bytes; its schema, a text of bytes, is held against each byte as a character."""
    return response.content.decode("latin-1")


@schemathesis.hook
def filter_failure(_context, failure, case, response):
    """Lets through what the document cannot say of a text in a query.

    A cursor is what a list answered before; a made-up one is refused by a problem of its own, whatever it looks like. And no
    text that is looked for may hold a NUL, because none that is stored does.
    """
    if type(failure).__name__ != "RejectedPositiveData" or response.status_code != 400:
        return True
    has_nul = any("\0" in str(value) for value in (case.query or {}).values())
    return not has_nul and json.loads(response.content)["type"] != "/problems/invalid-cursor"

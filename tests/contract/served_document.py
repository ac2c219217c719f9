"""Whether the service answers with the committed document: `served_document.py <document>`."""
import json
import os
import pathlib
import sys
import urllib.request


def difference(committed, served, place="#"):
    """The JSON Pointer of the first place where the two differ, or None. Order of members is no difference, type is one."""
    if type(committed) is not type(served):
        return place
    if isinstance(committed, dict):
        for key in sorted(committed.keys() | served.keys()):
            below = f"{place}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in committed or key not in served:
                return below
            if found := difference(committed[key], served[key], below):
                return found
        return None
    if isinstance(committed, list):
        if len(committed) != len(served):
            return place
        return next((d for i, (a, b) in enumerate(zip(committed, served)) if (d := difference(a, b, f"{place}/{i}"))), None)
    return None if committed == served else place


with urllib.request.urlopen(os.environ["ESTIMATORD_URL"] + "/openapi.json", timeout=30) as answer:
    kind = answer.headers["Content-Type"]
    served_document = json.load(answer)
if kind != "application/json":
    sys.exit(f"served_document: its type is {kind}")
if found := difference(json.loads(pathlib.Path(sys.argv[1]).read_text()), served_document):
    sys.exit(f"served_document: {sys.argv[1]} is not what the service answers; the first difference is at {found}")
print(f"served_document: {len(served_document['paths'])} paths, the same as the service's")

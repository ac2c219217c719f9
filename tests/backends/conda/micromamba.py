#!/usr/bin/env python3
"""Stands in for micromamba, which cannot be had where these tests run: understands the command line that the service writes,
and installs from `file://` channels whose `noarch/repodata.json` lists packages with the files that they hold. A Python it takes from
the machine."""
import json
import os
import subprocess
import sys

if sys.argv[1:] == ["--version"]:
    print("2.0.5")
    sys.exit()
arguments = sys.argv[2:]
assert sys.argv[1] == "create" and "--yes" in arguments and "--override-channels" in arguments, sys.argv
prefix, channels, specs = None, [], []
while arguments:
    word = arguments.pop(0)
    if word == "--prefix":
        prefix = arguments.pop(0)
    elif word == "--channel":
        channels.append(arguments.pop(0))
    elif not word.startswith("-"):
        specs.append(word)
alias = os.environ.get("CONDA_CHANNEL_ALIAS", "https://conda.invalid")
with open(os.environ["CONDARC"]) as configuration:
    assert configuration.read() == ""
packages = {}
for channel in reversed(channels):
    url = channel if "://" in channel else alias.rstrip("/") + "/" + channel
    if not url.startswith("file://"):
        sys.exit("error    libmamba Could not resolve host of {}".format(url))
    with open(url[len("file://"):] + "/noarch/repodata.json") as repodata:
        packages.update({record["name"]: record for record in json.load(repodata)["packages"].values()})
wanted = [spec.split("::")[-1].replace("=", " ").replace(">", " ").replace("<", " ").split()[0] for spec in specs]
for name in wanted:
    if name != "python" and name not in packages:
        sys.exit("error    libmamba Could not solve for environment specs\n    The following package is missing: {}".format(name))
subprocess.check_call(["python3", "-m", "venv", "--without-pip", prefix])
meta = os.path.join(prefix, "conda-meta")
os.mkdir(meta)
site = subprocess.check_output(
    [prefix + "/bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], universal_newlines=True).strip()
for name in wanted:
    record = packages.get(name, {"name": "python", "version": "3.11.0", "files": {}})
    with open(os.path.join(meta, name + ".json"), "w") as file:
        json.dump(record, file)
    for path, text in record["files"].items():
        with open(os.path.join(site, path), "w") as file:
            file.write(text)

#!/usr/bin/env python3
"""The bill of materials of the service (CycloneDX 1.5, JSON), for the machine that it is built on:

    sbom.py write FILE
    sbom.py check FILE

`write` has `cargo-cyclonedx` make it (CARGO_CYCLONEDX, else the one on PATH; SOURCE_DATE_EPOCH makes the same file again) and takes
out what is locked for features that nobody asked for: it has what is compiled in, and no more. `check` holds a file to what Cargo
says is compiled in, and every hash to Cargo.lock.
"""

import json
import os
import pathlib
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
Package = tuple[str, str]


def cargo(*words: str) -> str:
    return subprocess.run(["cargo", *words], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def compiled(target: str) -> set[Package]:
    """What is compiled into the binary, the service itself and the macros of its packages among it."""
    tree = cargo("tree", "--locked", "--edges", "normal", "--target", target, "--prefix", "none", "--format", "{p}")
    # `name v1.2.3`, and behind it `(proc-macro)`, a path or `(*)`.
    return {(words[0], words[1].removeprefix("v")) for words in map(str.split, tree.splitlines()) if words}


def package(component: dict) -> Package:
    return component["name"], component["version"]


def target_of(bom: dict) -> str:
    [target] = [p["value"] for p in bom["metadata"]["properties"] if p["name"] == "cdx:rustc:sbom:target:triple"]
    return target


def write(path: pathlib.Path) -> None:
    tool = os.environ.get("CARGO_CYCLONEDX", "cargo-cyclonedx")
    # The tool writes beside Cargo.toml and nowhere else.
    name = f"sbom-{os.getpid()}.cdx"
    options = ["--quiet", "--format", "json", "--spec-version", "1.5", "--no-build-deps", "--override-filename", name]
    made = ROOT / f"{name}.json"
    try:
        subprocess.run([tool, "cyclonedx", *options], check=True, cwd=ROOT)
        bom = json.loads(made.read_text(encoding="utf-8"))
    finally:
        made.unlink(missing_ok=True)
    inside = compiled(target_of(bom))
    bom["components"] = [c for c in bom["components"] if package(c) in inside]
    known = {c["bom-ref"] for c in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    bom["dependencies"] = [
        d | ({"dependsOn": [ref for ref in d["dependsOn"] if ref in known]} if "dependsOn" in d else {})
        for d in bom["dependencies"]
        if d["ref"] in known
    ]
    path.write_text(json.dumps(bom, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def faults_of(bom: dict) -> list[str]:
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))["package"]
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in locked}
    faults = []
    if (bom.get("bomFormat"), bom.get("specVersion")) != ("CycloneDX", "1.5"):
        faults.append("it is no CycloneDX 1.5")
    itself = package(bom["metadata"]["component"])
    inside = compiled(target_of(bom))
    if itself not in inside:
        faults.append(f"it is about {itself}, which is not what is built here")
    listed = [package(component) for component in bom["components"]]
    if len(listed) != len(set(listed)):
        faults.append("a package is listed twice")
    faults += [f"left out: {name} {version}" for name, version in sorted(inside - {itself} - set(listed))]
    faults += [f"not compiled in: {name} {version}" for name, version in sorted(set(listed) - inside)]
    for component in bom["components"]:
        hashes = {h["alg"]: h["content"] for h in component.get("hashes", [])}
        if not hashes or hashes.get("SHA-256") != checksums.get(package(component)):
            faults.append(f"{package(component)} has another hash than in Cargo.lock: {hashes}")
        if not component.get("licenses"):
            faults.append(f"{package(component)} has no licence")
        if not component.get("purl", "").startswith("pkg:cargo/"):
            faults.append(f"{package(component)} has no package URL")
    refs = {c["bom-ref"] for c in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    pointed_at = {ref for d in bom["dependencies"] for ref in [d["ref"], *d.get("dependsOn", [])]}
    faults += [f"a dependency on what is not listed: {ref}" for ref in sorted(pointed_at - refs)]
    return faults


def main(words: list[str]) -> int:
    match words:
        case ["write", path]:
            write(pathlib.Path(path).absolute())
            return 0
        case ["check", path]:
            bom = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            faults = faults_of(bom)
            for fault in faults:
                print(f"sbom: {fault}", file=sys.stderr)
            if not faults:
                count = len(bom["components"])
                print(f"the bill of materials has all {count} packages that are compiled in, for {target_of(bom)}")
            return 1 if faults else 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

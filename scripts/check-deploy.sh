#!/usr/bin/env bash
# Holds what deploy/ renders to against the schemas of Kubernetes, strictly: a member that no schema has is a fault.
# Kinds of other APIs (ServiceMonitor) have no schema here and are named.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/python"
"$work/python/bin/python" -m pip install --quiet --disable-pip-version-check kubernetes-validate==1.36.0 PyYAML==6.0.4
for overlay in deploy/overlays/*/ deploy/runs/; do
    kubectl kustomize "$overlay" >"$work/$(basename "$overlay").yaml"
done
# The objects of runs too, as the golden files have them: behind the header of each.
for snapshot in src/domain/render/snapshots/kubernetes_service/*.snap; do
    awk 'body { print } /^---$/ && ++rules == 2 { body = 1 }' "$snapshot" >"$work/run-$(basename "$snapshot" .snap).yaml"
done
"$work/python/bin/python" - "$work"/*.yaml <<'PYTHON'
import pathlib
import sys

import kubernetes_validate
import yaml

OTHERS = {"monitoring.coreos.com/v1", "kubeflow.org/v2beta1"}
faults = 0
for path in map(pathlib.Path, sys.argv[1:]):
    for document in yaml.safe_load_all(path.read_text()):
        name = f"{path.stem}: {document['kind']} {document['metadata']['name']}"
        if document["apiVersion"] in OTHERS:
            print(f"{name}: not checked, {document['apiVersion']} is no API of Kubernetes itself")
            continue
        try:
            kubernetes_validate.validate(document, "1.36", strict=True)
            print(f"{name}: fits")
        except kubernetes_validate.ValidationError as error:
            faults += 1
            print(f"{name}: {error}")
sys.exit(faults > 0)
PYTHON

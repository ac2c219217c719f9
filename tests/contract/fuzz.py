"""Puts one thing of each kind into the service, then lets Schemathesis ask for them, and for everything else.

$SCHEMATHESIS_EXAMPLES is how many cases there are for each operation and phase, $SCHEMATHESIS_SEED which ones.
"""
import json
import os
import pathlib
import string
import subprocess
import sys
import tempfile

import requests

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASE = os.environ["ESTIMATORD_URL"]
ENDED = {"Completed", "Failed", "Canceled"}
SECONDS_OF_ALL = 1800


def call(method, path, status=(200, 201), **request):
    headers = {"Authorization": "Bearer " + os.environ["ESTIMATORD_TOKEN"], **request.pop("headers", {})}
    answer = requests.request(method, BASE + path, headers=headers, timeout=90, **request)
    if answer.status_code not in status:
        sys.exit(f"fuzz: {method} {path} was answered {answer.status_code}: {answer.text}")
    return answer.json()


def put_things():
    """One of each, by the examples of the document; answers their ids."""
    schemas = json.loads((ROOT / "openapi" / "openapi.json").read_text())["components"]["schemas"]
    archive = pathlib.Path(os.environ["CONTRACT_ARCHIVE"]).read_bytes()
    snapshot = call("POST", "/v1/snapshots", data=archive, headers={"Content-Type": "application/gzip"})
    call("PUT", "/v1/compute-targets/cpu-cluster", json={"type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 2})
    call("PUT", "/v1/datastores/training_data", json={"url": "file:///srv/datasets"})
    call("PUT", "/v1/webhooks/ci", json=schemas["WebhookBody"]["example"])
    estimator = call("POST", "/v1/estimators", json=schemas["EstimatorDefinition"]["example"])
    run = call("POST", "/v1/runs", json=schemas["RunBody"]["example"])
    while run["status"] not in ENDED:
        run = call("GET", f"/v1/runs/{run['id']}", headers={"Prefer": "wait=30"})
    if run["status"] != "Completed":
        sys.exit(f"fuzz: the run to ask for is {run['status']}: {run['detail']}")
    environment = call("GET", "/v1/environments")["items"][0]["key"]
    delivery = call("GET", "/v1/webhooks/ci/deliveries")["items"][0]["id"]
    return {
        "snapshot": snapshot["id"], "estimator": estimator["id"], "run": run["id"], "environment": environment,
        "delivery": delivery,
    }


def main():
    # Schemathesis reads variables in most of its settings, but not in dictionaries.
    settings = string.Template((HERE / "schemathesis.toml").read_text()).safe_substitute(put_things())
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(settings)
        file.flush()
        asked = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "--config-file", file.name, "--no-color",
                "run", ROOT / "openapi" / "openapi.json",
                "--seed", os.environ.get("SCHEMATHESIS_SEED", "1"),
                "--max-examples", os.environ.get("SCHEMATHESIS_EXAMPLES", "20"),
            ],
            cwd=ROOT, timeout=SECONDS_OF_ALL, check=False,
        )
    sys.exit(asked.returncode)


if __name__ == "__main__":
    main()

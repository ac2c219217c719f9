"""What somebody does who has the document and a generator: upload, submit, follow, read. The client is in `estimatord_client`."""
import importlib.util
import io
import json
import os
import pathlib
import tarfile

from estimatord_client import AuthenticatedClient
from estimatord_client.api.estimators import validate_estimator
from estimatord_client.api.runs import create_run, get_run, get_run_log, list_run_logs, list_run_outputs, list_runs
from estimatord_client.api.snapshots import create_snapshot, get_snapshot
from estimatord_client.models import EstimatorDefinition, Problem, RunBody, Status
from estimatord_client.types import File

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCUMENT = json.loads((ROOT / "openapi" / "openapi.json").read_text())
ENDED = {Status.COMPLETED, Status.FAILED, Status.CANCELED}
LOG = "user_logs/std_log.txt"
# More changes of status than a run can make.
MOST_WAITS = 60

# What the generator leaves out: it does not send a tar.
NOT_GENERATED = {"put_attempt_returned"}


def example_of(operation_id):
    """The example of an operation's JSON body."""
    operation = next(o for item in DOCUMENT["paths"].values() for o in item.values() if o["operationId"] == operation_id)
    media = operation["requestBody"]["content"]["application/json"]
    if "example" in media:
        return media["example"]
    return DOCUMENT["components"]["schemas"][media["schema"]["$ref"].rsplit("/", 1)[1]]["example"]


def archive():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(ROOT / "examples" / "digits" / "train.py", "train.py")
    return packed.getvalue()


def check_completeness():
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    modules = {o["operationId"]: f"estimatord_client.api.{o['tags'][0].replace('-', '_')}.{o['operationId']}" for o in operations}
    left_out = {name for name, module in modules.items() if not importlib.util.find_spec(module)}
    assert left_out == NOT_GENERATED, f"the generator left out {sorted(left_out)}, expected {sorted(NOT_GENERATED)}"


def check_token(base):
    refused = list_runs.sync_detailed(client=AuthenticatedClient(base_url=base, token="not-the-token-of-this-one"))
    assert refused.status_code == 401, refused.status_code
    assert isinstance(refused.parsed, Problem) and refused.parsed.status == 401, refused.parsed


def check_refusal(client):
    definition = EstimatorDefinition.from_dict({"source_directory": ".", "node_count": 2})
    verdict = validate_estimator.sync(client=client, body=definition)
    assert verdict.valid is False
    found = {finding.rule: finding.pointer for finding in verdict.findings}
    assert found.get("distributed-requires-mpi") == "/distributed_training", found


def upload(client, wanted):
    packed = archive()
    answer = create_snapshot.sync_detailed(client=client, body=File(payload=io.BytesIO(packed)))
    assert answer.status_code in (200, 201), answer.content
    assert answer.parsed.id == wanted, f"the example names {wanted}, the folder is {answer.parsed.id}"
    assert answer.parsed.files == 1
    again = create_snapshot.sync_detailed(client=client, body=File(payload=io.BytesIO(packed)))
    assert again.status_code == 200 and again.parsed == answer.parsed, again.content
    assert get_snapshot.sync(id=answer.parsed.id, client=client) == answer.parsed


def follow(client, run_id):
    seen = []
    for _ in range(MOST_WAITS):
        run = get_run.sync(id=run_id, client=client, prefer="wait=30")
        if not seen or seen[-1] != run.status:
            seen.append(run.status)
        if run.status in ENDED:
            return run, seen
    raise AssertionError(f"the run is still {seen[-1]} after {MOST_WAITS} waits: {run.detail}")


def main():
    base = os.environ["ESTIMATORD_URL"]
    client = AuthenticatedClient(base_url=base, token=os.environ["ESTIMATORD_TOKEN"], timeout=90, raise_on_unexpected_status=True)
    check_completeness()
    check_token(base)
    check_refusal(client)

    example = example_of("create_run")
    upload(client, example["estimator"]["source_directory"])
    submitted = create_run.sync_detailed(client=client, body=RunBody.from_dict(example))
    assert submitted.status_code == 201, submitted.content
    assert submitted.headers["Location"].endswith(f"/v1/runs/{submitted.parsed.id}"), submitted.headers["Location"]

    run, seen = follow(client, submitted.parsed.id)
    assert run.status == Status.COMPLETED, f"{run.status}: {run.cause}: {run.detail}"
    assert run.exit_code == 0 and run.attempt == 1 and len(run.attempts) == 1
    assert run.started_at < run.finished_at
    assert run.tags.to_dict() == example["tags"]
    merged = {**example["estimator"]["script_params"], **example["script_params"]}
    assert run.definition.script_params.to_dict() == merged, run.definition.script_params

    log = get_run_log.sync(id=run.id, path=LOG, client=client)
    assert isinstance(log, str) and "validation accuracy: " in log, log
    accuracy = float(log.rsplit("validation accuracy: ", 1)[1].split()[0])
    assert accuracy > 0.9, accuracy
    size = len(log.encode())
    sizes = {file.path: file.bytes_ for file in list_run_logs.sync(id=run.id, client=client).items}
    assert sizes[LOG] == size, (sizes, size)
    outputs = {file.path for file in list_run_outputs.sync(id=run.id, client=client).items}
    assert {"model.npz", "metrics.json"} <= outputs, outputs
    assert run.id in {listed.id for listed in list_runs.sync(client=client, experiment_name="digits").items}
    print(f"client.py: run {run.id} went {' > '.join(seen)}, validation accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()

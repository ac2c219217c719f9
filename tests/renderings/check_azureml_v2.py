"""Loads every `<case>.yml` of a directory as Azure ML v2 does and compares the job with `<case>.plan.json`.

The command is also given to a shell, which has to see the plan's arguments.
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys

from azure.ai.ml import load_job
from azure.ai.ml._version import VERSION
from azure.ai.ml.entities import Command

MODES = {"mount": "ro_mount", "download": "download", "upload": "upload", "direct": "direct"}


def address(place):
    return f"azureml://datastores/{place['datastore']}/paths/{place['path'].lstrip('/')}"


def checkpoint(plan):
    """A name for the checkpoint that no input has."""
    name = "resume_from"
    while any(item["name"] == name for item in plan["data"].get("inputs", [])):
        name += "_"
    return name


def wanted_arguments(plan):
    """The arguments, with what Azure ML fills in at the places of data."""
    data = plan.get("data", {})
    inputs = {item["name"]: item for item in data.get("inputs", [])}
    arguments = list(plan["arguments"])
    for place in data.get("arguments", []):
        name = place["input"]
        side = "outputs" if name and inputs[name]["mode"] == "upload" else "inputs"
        arguments[place["index"]] = "${{%s.%s}}" % (side, name or checkpoint(plan))
    return arguments


def check_command(job, plan):
    environment = plan["environment"]
    interpreter = environment["interpreter_path"] if environment["kind"] == "user_managed" else None
    wanted = [interpreter or "python", plan["entry_script"], *wanted_arguments(plan)]
    assert shlex.split(job.command) == wanted, job.command
    # Azure ML fills in before the shell reads the command.
    known = {a for i, a in enumerate(wanted_arguments(plan)) if a != plan["arguments"][i]}
    command = job.command
    for place in known:
        command = command.replace(f'"{place}"', '"/data/' + place.strip("${}") + '"')
    assert "${{" not in command, command
    program = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
    shell = shlex.join(program) + " " + command
    seen = json.loads(subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True).stdout)
    filled = ["/data/" + a.strip("${}") if a in known else a for a in wanted]
    assert seen == filled, (seen, filled)


def check_environment(job, plan):
    wanted, environment = plan["environment"], job.environment
    container = wanted.get("container", {})
    if container.get("base_dockerfile"):
        assert environment.build.dockerfile_path == "Dockerfile"
        return
    if wanted["image"]:
        assert environment.image == wanted["image"]
    else:
        assert environment.image.startswith("mcr.microsoft.com/azureml/base")
    if wanted["kind"] == "user_managed":
        assert environment.conda_file is None
        return
    conda = json.loads(json.dumps(environment.conda_file))
    packages = [p for p in conda["dependencies"] if isinstance(p, str)]
    version = wanted["python_version"]
    if version is None:
        python = "python"
    else:
        python = "python" + ("" if version[0] in "<>!~" else "=") + version
    assert packages == [python, *wanted["conda_packages"]], packages
    assert sum((p["pip"] for p in conda["dependencies"] if isinstance(p, dict)), []) == wanted["pip_packages"]
    assert conda.get("channels", []) == wanted["conda_channels"]


def check_data(job, plan):
    data = plan.get("data", {})
    inputs, outputs = {}, {}
    for item in data.get("inputs", []):
        if item["mode"] == "upload":
            outputs[item["name"]] = (address(item), "upload")
        else:
            inputs[item["name"]] = (address(item), MODES[item["mode"]])
    if data.get("resume_from"):
        inputs[checkpoint(plan)] = (address(data["resume_from"]), "ro_mount")

    def found(side):
        for value in side.values():
            assert value.type == "uri_folder"
        return {n: (v.path, v.mode) for n, v in side.items()}

    assert found(job.inputs) == inputs, (found(job.inputs), inputs)
    assert found(job.outputs) == outputs, (found(job.outputs), outputs)


def check(path, plan):
    job = load_job(path)
    assert type(job) is Command, type(job)
    check_command(job, plan)
    check_environment(job, plan)
    check_data(job, plan)
    wanted = plan["environment"]
    variables = {v["name"]: v["value"] for v in wanted["environment_variables"]}
    assert job.environment_variables == variables, job.environment_variables
    assert os.path.samefile(pathlib.Path(path).parent / job.code, path.parent)

    one_off = plan.get("one_off_target")
    assert job.resources.instance_count == plan["node_count"]
    assert job.resources.shm_size == wanted["shm_size"]
    assert (job.resources.docker_args or []) == wanted.get("container", {}).get("arguments", [])
    if one_off:
        assert job.compute is None
        assert job.resources.instance_type == one_off["vm_size"]
        tier = job.queue_settings.job_tier.lower() if job.queue_settings else None
        assert tier == ("spot" if one_off["vm_priority"] == "lowpriority" else None)
    else:
        assert job.compute == plan["compute_target"], job.compute
    if plan["launcher"] == "mpi":
        assert job.distribution.type.lower() == "mpi"
        assert job.distribution.process_count_per_instance == plan["process_count_per_node"]
    else:
        assert job.distribution is None
    timeout = job.limits.timeout if job.limits else None
    assert timeout == plan["max_run_duration_seconds"]
    # What the client would send has to be makeable, too.
    if not plan.get("data"):
        job._validate(raise_error=True)


def main():
    directory = pathlib.Path(sys.argv[1])
    cases = sorted(directory.glob("*.yml"))
    assert cases, "there are no renderings"
    for path in cases:
        plan = json.loads(path.with_suffix(".plan.json").read_text(encoding="utf-8"))
        try:
            check(path, plan)
        except Exception:
            print(f"azureml-v2: {path.stem} differs", file=sys.stderr)
            raise
    print(f"azureml-v2: {len(cases)} renderings are what azure-ai-ml {VERSION} understands")


if __name__ == "__main__":
    main()

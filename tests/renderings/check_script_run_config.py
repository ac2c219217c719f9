"""Runs every `<case>.py` of a directory under SDK v1 and compares what the SDK made of it with `<case>.plan.json`.

No network and no workspace: where a text asks for data, stand-ins take the place of the workspace's datastores.
"""

import json
import logging
import pathlib
import sys

import azureml.core
from azureml.core import ScriptRunConfig
from azureml.data.dataset_consumption_config import DatasetConsumptionConfig

logging.disable(logging.WARNING)


class StandIn:
    """A datastore or dataset that has nothing but what a text says of it."""

    def __init__(self, name, path=None):
        self.name = name
        self.path = path


class Datastores:
    @staticmethod
    def get(workspace, name):
        assert workspace == "the workspace"
        return StandIn(name)


class Datasets:
    class File:
        @staticmethod
        def from_files(path, validate):
            assert validate is False
            return StandIn(path[0].name, path[1])


def made(text, path):
    """The configuration that a text makes, and its data."""
    azureml.core.Datastore, azureml.core.Dataset = Datastores, Datasets
    names = {"__name__": "text"}
    exec(compile(text, str(path), "exec"), names)
    if "configuration" in names:
        assert "config" not in names
        return names["configuration"]("the workspace")
    return names["config"]


def place(path):
    return path or None


def checkpoint(plan):
    """What the checkpoint is called: as the SDK does, unless an input is."""
    name = "MODEL_LOCATION"
    while any(item["name"] == name for item in plan["data"].get("inputs", [])):
        name += "_"
    return name


def check_data(config, plan):
    data = plan.get("data", {})
    given = config.run_config
    wanted = {}
    for item in data.get("inputs", []):
        if item["kind"] == "data_reference":
            # The SDK writes "normalised" paths: what a path means stays.
            wanted[item["name"]] = (
                item["datastore"], place(item["path"]), item["mode"], item["path_on_compute"], item["overwrite"])
    if data.get("resume_from"):
        resume = data["resume_from"]
        wanted[checkpoint(plan)] = (resume["datastore"], resume["path"], "mount", None, False)
    found = {
        name: (r.data_store_name, r.path_on_data_store, r.mode, r.path_on_compute, r.overwrite)
        for name, r in given.data_references.items()
    }
    assert found == wanted, (found, wanted)
    wanted = {
        item["name"]: (item["datastore"], item["path"], item["mode"], item["path_on_compute"])
        for item in data.get("inputs", []) if item["kind"] == "dataset"
    }
    found = {
        name: (d.dataset.name, d.dataset.path, d.mode, d.path_on_compute)
        for name, d in given.data.items() if isinstance(d, DatasetConsumptionConfig) and d.name == name
    }
    assert found == wanted, (found, wanted)
    assert given.source_directory_data_store == data.get("source_datastore")


def arguments(config, plan):
    """The arguments as the plan writes them."""
    shown = []
    resumed = "$AZUREML_DATAREFERENCE_" + checkpoint(plan) if plan.get("data", {}).get("resume_from") else None
    for argument in config.arguments or []:
        if isinstance(argument, DatasetConsumptionConfig):
            argument = "$" + argument.name
        shown.append("$RESUME_FROM" if argument == resumed else argument)
    return shown


def check_packages(python, wanted):
    conda = json.loads(json.dumps(python.conda_dependencies.as_dict()))
    packages = [p for p in conda["dependencies"] if isinstance(p, str)]
    pip = [p["pip"] for p in conda["dependencies"] if isinstance(p, dict)]
    version = wanted["python_version"]
    pins = [p for p in packages if p.strip().startswith("python") and p.strip()[6:7] in ("=", "<", ">", "!", "~")]
    if version is None:
        assert pins == ["python=*"], pins
    elif version[0] not in "<>!~":
        assert pins == ["python=" + version], pins
    else:
        assert [p.strip() for p in pins] == ["python=*", "python" + version], pins
    assert [p for p in packages if p not in pins] == wanted["conda_packages"], packages
    assert pip == [wanted["pip_packages"]], pip
    assert conda.get("channels", []) == wanted["conda_channels"], conda


def check(path, plan):
    config = made(path.read_text(encoding="ascii"), path)
    assert type(config) is ScriptRunConfig
    run, environment, wanted = config.run_config, config.run_config.environment, plan["environment"]
    assert (config.source_directory, config.script) == (".", plan["entry_script"])
    assert arguments(config, plan) == plan["arguments"], config.arguments
    assert run.max_run_duration_seconds == plan["max_run_duration_seconds"]

    assert run.node_count == plan["node_count"]
    if plan["launcher"] == "mpi":
        assert (run.mpi.node_count, run.mpi.process_count_per_node) == (
            plan["node_count"], plan["process_count_per_node"])
        assert (run.framework, run.communicator) == ("Python", "IntelMpi")
    else:
        assert run.communicator == "None", run.communicator

    one_off = plan.get("one_off_target")
    assert run.target == ("amlcompute" if one_off else plan["compute_target"])
    if one_off:
        cluster = run.amlcompute
        assert (cluster.vm_size, cluster.vm_priority, cluster._cluster_max_node_count) == (
            one_off["vm_size"], one_off["vm_priority"], plan["node_count"])

    container = wanted.get("container", {})
    assert run.docker.use_docker == wanted["docker"]
    if wanted["docker"]:
        assert run.docker.shm_size == wanted["shm_size"]
        assert run.docker.arguments == container.get("arguments", [])
    assert environment.docker.base_image == wanted["image"]
    assert environment.docker.base_dockerfile == container.get("base_dockerfile")
    registry = environment.docker.base_image_registry
    assert (registry.address, registry.username) == (
        container.get("registry_address"), container.get("registry_username"))
    assert registry.password is None

    variables = {v["name"]: v["value"] for v in wanted["environment_variables"]}
    assert environment.environment_variables == variables
    assert run.environment_variables == variables
    assert environment.python.user_managed_dependencies == (wanted["kind"] == "user_managed")
    if wanted["kind"] == "managed":
        check_packages(environment.python, wanted)
    elif wanted["interpreter_path"]:
        assert environment.python.interpreter_path == wanted["interpreter_path"]
    check_data(config, plan)


def main():
    directory = pathlib.Path(sys.argv[1])
    cases = sorted(directory.glob("*.py"))
    assert cases, "there are no renderings"
    for path in cases:
        plan = json.loads(path.with_suffix(".plan.json").read_text(encoding="utf-8"))
        try:
            check(path, plan)
        except Exception:
            print(f"script-run-config: {path.stem} differs", file=sys.stderr)
            raise
    print(f"script-run-config: {len(cases)} renderings are what the SDK {azureml.core.VERSION} understands")


if __name__ == "__main__":
    main()

"""Holds rendered manifests against the schemas of Kubernetes, and what they start against the plan.

    check_kubernetes.py DIR [MPIJOB_CRD]

DIR holds <case>.yaml and <case>.plan.json. MPIJOB_CRD is the MPI operator's CustomResourceDefinition; without it MPIJobs are
compared with their plans only. Needs kubernetes-validate.
"""
import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import kubernetes_validate
import yaml

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SIZES = {"k": "Ki", "m": "Mi", "g": "Gi", "b": "", "": ""}
POD_OF = {"Job": lambda d: [d["spec"]["template"]],
          "MPIJob": lambda d: [r["template"] for r in d["spec"]["mpiReplicaSpecs"].values()]}


class Faults(list):
    def expect(self, found, wanted, what):
        if found != wanted:
            self.append(f"{what}\n    wanted {wanted!r}\n    found  {found!r}")

    def ensure(self, holds, what):
        if not holds:
            self.append(what)


def expanded(text, variables):
    """What Kubernetes makes of a text in command, args and env."""
    out, at = "", 0
    while at < len(text):
        if text[at] == "$" and at + 1 < len(text):
            following = text[at + 1]
            if following == "$":
                out, at = out + "$", at + 2
                continue
            end = text.find(")", at + 2)
            if following == "(" and end >= 0:
                name = text[at + 2:end]
                out += variables.get(name, f"$({name})")
                at = end + 1
                continue
        out, at = out + text[at], at + 1
    return out


def started(container):
    """The environment and the command of a container, as its process gets them."""
    variables = {}
    for entry in container.get("env", []):
        variables[entry["name"]] = expanded(entry["value"], variables)
    words = container.get("command", []) + container.get("args", [])
    return variables, [expanded(word, variables) for word in words]


def strict(schema):
    """A schema of a CustomResourceDefinition that refuses what it does not name, as fieldValidation=Strict does."""
    if isinstance(schema, dict):
        schema = {key: strict(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema \
                and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
        if schema.pop("x-kubernetes-int-or-string", False):
            schema = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
        return schema
    return [strict(item) for item in schema] if isinstance(schema, list) else schema


def check_schema(document, crd, faults):
    if document["kind"] == "Job":
        try:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        except Exception as error:
            faults.append(f"schema: {error}")
        return
    # A pod of an MPIJob is a pod: the operator's schema is thinner than that of Kubernetes.
    for template in POD_OF["MPIJob"](document):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"} | template["metadata"], "spec": template["spec"]}
        try:
            kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        except Exception as error:
            faults.append(f"schema of its pod: {error}")
    if crd:
        version = next(v for v in crd["spec"]["versions"] if v["name"] == "v2beta1")
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        for error in jsonschema.Draft7Validator(schema).iter_errors(document):
            faults.append(f"schema: {list(error.absolute_path)}: {error.message}")


def check_security(document, faults):
    """The Pod Security standard `restricted`."""
    for template in POD_OF[document["kind"]](document):
        pod = template["spec"]
        context = pod["securityContext"]
        faults.ensure(context["runAsNonRoot"] and context["runAsUser"] > 0, "may run as root")
        faults.expect(context["seccompProfile"]["type"], "RuntimeDefault", "seccomp")
        for container in pod["containers"] + pod.get("initContainers", []):
            own = container["securityContext"]
            faults.ensure(not own["allowPrivilegeEscalation"] and own["capabilities"]["drop"] == ["ALL"],
                          f"{container['name']} keeps privileges")
        kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
        faults.ensure(kinds <= {"emptyDir", "persistentVolumeClaim"}, f"volumes: {kinds}")
        mounted = {m["name"] for c in pod["containers"] + pod.get("initContainers", []) for m in c.get("volumeMounts", [])}
        faults.expect(mounted, {volume["name"] for volume in pod.get("volumes", [])}, "what is mounted")
        for container in pod["containers"]:
            paths = [m["mountPath"] for m in container.get("volumeMounts", [])]
            faults.ensure(len(paths) == len(set(paths)), f"two mounts in one place: {paths}")


def data_paths(document):
    """Where each datastore is mounted, by the comments and the claims."""
    pod = POD_OF[document["kind"]](document)[-1]["spec"]
    claims = {v["name"]: v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    mounts = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] in claims]
    parts = {m["mountPath"]: (claims[m["name"]]["claimName"], m.get("subPath", ""), m["readOnly"]) for m in mounts}
    return {claims[m["name"]]["claimName"]: m for m in mounts if m["mountPath"].startswith("/data-claims/")}, parts


def check_plan(document, text, plan, faults):
    data = plan.get("data", {})
    environment = plan["environment"]
    mounts, parts = data_paths(document)
    claim_of = dict(reversed(pair) for pair in re.findall(r"# The claim (\S+) has to hold what datastore (\S+) holds", text))

    def path(datastore, inside):
        mount = mounts[claim_of[datastore]]["mountPath"]
        return f"{mount}/{inside}" if inside else mount

    def input_path(given):
        place = given["path_on_compute"] or ""
        if not place.startswith("/") or "*" in given["path"]:
            return path(given["datastore"], given["path"])
        wanted = (claim_of[given["datastore"]], given["path"], given["mode"] != "upload")
        faults.expect(parts.get(place), wanted, f"what is mounted at {place}")
        return place

    arguments = list(plan["arguments"])
    inputs = {i["name"]: i for i in data.get("inputs", [])}
    for argument in data.get("arguments", []):
        arguments[argument["index"]] = input_path(inputs[argument["input"]]) if argument["input"] \
            else path(data["resume_from"]["datastore"], data["resume_from"]["path"])
    script = [plan["entry_script"], *arguments]
    wanted = {v["name"]: v["value"] for v in environment["environment_variables"]}
    wanted |= {i["variable"]: input_path(i) for i in inputs.values()}
    for i in inputs.values():
        if i["mode"] == "upload":
            faults.ensure(not mounts[claim_of[i["datastore"]]]["readOnly"], f"{i['name']} cannot be written")
    interpreter = "/environment/python/bin/python" if environment["kind"] == "managed" \
        else environment["interpreter_path"] or "python3"

    spec = document["spec"]
    pods = POD_OF[document["kind"]](document)
    worker = pods[-1]["spec"]
    if document["kind"] == "Job":
        faults.expect(plan["launcher"], "single", "launcher")
        variables, command = started(worker["containers"][0])
        faults.expect(command, [interpreter, *script], "command")
        deadline = spec.get("activeDeadlineSeconds")
    else:
        faults.expect(plan["launcher"], "mpi", "launcher")
        roles = spec["mpiReplicaSpecs"]
        faults.expect(roles["Launcher"]["replicas"], 1, "launchers")
        faults.expect(roles["Worker"]["replicas"], plan["node_count"], "workers")
        faults.expect(spec["slotsPerWorker"], plan["process_count_per_node"], "ranks of a worker")
        variables, command = started(roles["Launcher"]["template"]["spec"]["containers"][0])
        expected = [interpreter, "-m", "mpi4py", *script]
        faults.expect(command[-len(expected):], expected, "command")
        faults.expect(command[:3], ["mpirun", "-n", str(plan["node_count"] * plan["process_count_per_node"])], "mpirun")
        front = command[:-len(expected)]
        passed = {front[at + 1] for at, word in enumerate(front) if word == "-x"}
        faults.expect(passed, set(variables), "variables that mpirun passes on")
        variables |= dict(word.split("=", 1) for word in front if "=" in word)
        deadline = spec["runPolicy"].get("activeDeadlineSeconds")
        longest = f"{document['metadata']['name']}-worker-{plan['node_count'] - 1}"
        faults.ensure(len(longest) <= 63, f"{longest} is too long")
    for name, value in wanted.items():
        faults.expect(variables.get(name), value, name)
    faults.ensure({"AZUREML_RUN_ID", "AZUREML_ARM_PROJECT_NAME"} <= set(variables), "the run's own variables")
    faults.expect(deadline, plan["max_run_duration_seconds"], "activeDeadlineSeconds")
    faults.ensure(NAME.fullmatch(document["metadata"]["name"]) and len(document["metadata"]["name"]) <= 40, "name")

    if environment["image"]:
        faults.expect({c["image"] for p in pods for c in p["spec"]["containers"]}, {environment["image"]}, "image")
    shm = [v["emptyDir"]["sizeLimit"] for v in worker["volumes"] if v["name"] == "shm"]
    size = environment["shm_size"]
    faults.expect(shm, [size[:-1] + SIZES[size[-1].lower()]] if size else [], "/dev/shm")
    gpus = worker["containers"][0].get("resources", {}).get("limits", {}).get("nvidia.com/gpu")
    faults.ensure((gpus is not None) == plan["use_gpu"], f"GPUs: {gpus}")
    registry = environment.get("container", {}).get("registry_username")
    for pod in pods:
        faults.expect("imagePullSecrets" in pod["spec"], bool(registry), "imagePullSecrets")
    spot = "nodeSelector" in worker and "tolerations" in worker
    faults.expect(spot, (plan.get("one_off_target") or {}).get("vm_priority") == "lowpriority", "nodes of low priority")
    first = {c["name"] for c in worker["initContainers"]}
    faults.expect(first, {"source", "packages"} if environment["kind"] == "managed" else {"source"}, "init containers")
    for container in worker["initContainers"]:
        _, command = started(container)
        answer = subprocess.run(["sh", "-n", "-c", command[2]], capture_output=True, text=True)
        faults.ensure(answer.returncode == 0, f"{container['name']}: {answer.stderr}")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.yaml"))
    crd = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text()) if len(sys.argv) == 3 else None
    if not files:
        sys.exit(f"there is no .yaml in {sys.argv[1]}")
    bad = 0
    for file in files:
        text = file.read_text()
        plan = json.loads(file.with_name(f"{file.stem}.plan.json").read_text())
        document = yaml.safe_load(text)
        faults = Faults()
        check_schema(document, crd, faults)
        check_security(document, faults)
        check_plan(document, text, plan, faults)
        bad += bool(faults)
        print(f"{'FAULT' if faults else 'ok   '} {file.stem} ({document['kind']})", *faults, sep="\n  ")
    if bad:
        sys.exit(f"{bad} of {len(files)} manifests have faults")


main()

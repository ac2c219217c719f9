"""Submits rendered batch scripts to a real Slurm and compares what the script was given with the plan.

    check_sbatch.py DIR [--mpi-python PYTHON]

DIR holds <case>.sbatch and <case>.plan.json. Slurm is the one that SLURM_CONF points to. PYTHON has mpi4py and an MPI.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

# Everything a process can know of how it was started, one file for each rank.
PROBE = """
import json, os, pathlib, sys
rank, size = 0, 1
if "mpi4py" in sys.modules:
    from mpi4py import MPI
    rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
seen = {"argv": sys.argv, "rank": rank, "size": size, "environment": dict(os.environ), "cwd": os.getcwd(),
        "node": os.environ.get("SLURMD_NODENAME"), "folders": sorted(p.name for p in pathlib.Path(".").iterdir() if p.is_dir())}
pathlib.Path(os.environ["PROBE_DIRECTORY"], f"{rank}.json").write_text(json.dumps(seen))
"""
EXITS = "import sys; sys.exit(3)"
STOPS = """
import os, pathlib, signal, sys, time
here = pathlib.Path(os.environ["PROBE_DIRECTORY"])
seen = []
def stopped(*_):
    seen.append(1)
    if len(seen) > 1:
        os._exit(8)
    # A second one in here would be an error, and end it in another way.
    time.sleep(1)
    (here / "stopped").write_text("TERM")
    os._exit(7)
signal.signal(signal.SIGTERM, stopped)
if "mpi4py" in sys.modules:
    from mpi4py import MPI
    MPI.COMM_WORLD.barrier()
(here / "started").write_text("")
time.sleep(120)
"""
FAILS = """
from mpi4py import MPI
if MPI.COMM_WORLD.rank == 1:
    raise RuntimeError("rank 1")
MPI.COMM_WORLD.barrier()
"""
# What a small test cluster may have none of: left out where Slurm refuses the script because of it.
SCARCE = ("#SBATCH --gpus-per-node=", "#SBATCH --mem=")
REFUSALS = ("Invalid generic resource", "Memory specification can not be satisfied")


class Check:
    def __init__(self, folder, mpi_python):
        self.folder = pathlib.Path(folder)
        self.mpi_python = mpi_python
        self.faults = []

    def fault(self, case, text):
        self.faults.append(f"{case}: {text}")
        print(f"FAULT {case}: {text}", flush=True)

    def submit(self, case, script, directory, plan, options=(), environment=None, may_refuse=False):
        """The job's id; nothing where Slurm refused it, and "" where it did so for want of resources."""
        interpreter = self.mpi_python if plan["launcher"] == "mpi" else sys.executable
        variables = {name: os.environ[name] for name in ("PATH", "HOME", "SLURM_CONF") if name in os.environ}
        variables |= {"PYTHON": interpreter, "PROBE_DIRECTORY": str(directory / "probe")}
        variables |= data_variables(plan) | (environment or {})
        (directory / "probe").mkdir(exist_ok=True)
        answer = subprocess.run(["sbatch", "--parsable", *options, str(script)], cwd=directory, env=variables,
                                capture_output=True, text=True)
        if may_refuse and any(refusal in answer.stderr for refusal in REFUSALS):
            return ""
        if answer.returncode != 0:
            self.fault(case, f"sbatch: {answer.stderr.strip()}")
            return None
        return answer.stdout.strip()

    def source(self, directory, plan, probe):
        script = directory / plan["entry_script"]
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(probe)

    def log(self, directory):
        return "".join(path.read_text(errors="replace") for path in sorted(directory.glob("*.log")))

    def case(self, script):
        case = script.stem
        plan = json.loads(script.with_name(f"{case}.plan.json").read_text())
        # As bytes: reading text would mend line ends.
        text, note, before = script.read_bytes(), "", len(self.faults)
        with tempfile.TemporaryDirectory(prefix="check-sbatch-") as directory:
            directory = pathlib.Path(directory)
            (directory / "job.sbatch").write_bytes(text)
            self.source(directory, plan, PROBE)
            job = self.submit(case, directory / "job.sbatch", directory, plan, may_refuse=True)
            if job == "":
                kept = [line for line in text.splitlines(True) if not line.decode().startswith(SCARCE)]
                (directory / "job.sbatch").write_bytes(b"".join(kept))
                note = " (without GPUs and memory, which this cluster has not enough of)"
                job = self.submit(case, directory / "job.sbatch", directory, plan)
            if job is None:
                return
            state, code = finished(job)
            if (state, code) != ("COMPLETED", "0:0"):
                self.fault(case, f"{state} {code}\n{self.log(directory)}")
                return
            self.compare(case, plan, directory)
        if len(self.faults) == before:
            print(f"ok    {case}{note}", flush=True)

    def compare(self, case, plan, directory):
        ranks = [json.loads(path.read_text()) for path in (directory / "probe").glob("*.json")]
        size = plan["node_count"] * plan["process_count_per_node"]
        if sorted(rank["rank"] for rank in ranks) != list(range(size)) or {rank["size"] for rank in ranks} != {size}:
            self.fault(case, f"{size} ranks are in the plan, these came: {[(r['rank'], r['size']) for r in ranks]}")
        if len({rank["node"] for rank in ranks}) != plan["node_count"]:
            self.fault(case, f"{plan['node_count']} nodes are in the plan, these came: {[r['node'] for r in ranks]}")
        expected = arguments(plan)
        for rank in ranks:
            if rank["argv"][1:] != expected:
                self.fault(case, f"arguments\n  plan   {expected!r}\n  script {rank['argv'][1:]!r}")
            for variable in plan["environment"]["environment_variables"]:
                if rank["environment"].get(variable["name"]) != variable["value"]:
                    self.fault(case, f"{variable} is {rank['environment'].get(variable['name'])!r}")
            for name, value in data_variables(plan).items():
                if rank["environment"].get(name) != value:
                    self.fault(case, f"{name} is {rank['environment'].get(name)!r}")
            for name in ("AZUREML_RUN_ID", "AZUREML_ARM_PROJECT_NAME"):
                if not rank["environment"].get(name):
                    self.fault(case, f"{name} is not set")
            if not {"outputs", "logs"} <= set(rank["folders"]):
                self.fault(case, f"folders: {rank['folders']}")

    def ending(self, case, what, probe, expected, options=(), cancel=None, environment=None):
        """Runs a case with another script, and looks at how it ends."""
        script = self.folder / f"{case}.sbatch"
        plan = json.loads((self.folder / f"{case}.plan.json").read_text())
        name = f"{case}, {what}"
        with tempfile.TemporaryDirectory(prefix="check-sbatch-") as directory:
            directory = pathlib.Path(directory)
            if probe is not None:
                self.source(directory, plan, probe)
            job = self.submit(name, script, directory, plan, options, environment)
            if job is None:
                return
            if cancel:
                waited(lambda: (directory / "probe/started").exists())
                command(*cancel, job)
            state, code = finished(job)
            if (state, code) not in expected:
                self.fault(name, f"{state} {code}, not one of {expected}\n{self.log(directory)}")
            elif cancel and not (directory / "probe/stopped").exists():
                self.fault(name, f"TERM did not reach the script\n{self.log(directory)}")
            else:
                print(f"ok    {name}: {state} {code}", flush=True)


def data_variables(plan):
    data = plan.get("data", {})
    variables = {i["variable"]: f"/data/{i['name']} é" for i in data.get("inputs", [])}
    if data.get("resume_from"):
        variables["RESUME_FROM"] = "/data/check point"
    return variables


def arguments(plan):
    data = plan.get("data", {})
    found = list(plan["arguments"])
    variables = data_variables(plan)
    names = {i["name"]: i["variable"] for i in data.get("inputs", [])}
    for argument in data.get("arguments", []):
        variable = names[argument["input"]] if argument["input"] else "RESUME_FROM"
        found[argument["index"]] = variables[variable]
    return found


def command(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def waited(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def finished(job):
    """State and exit code of a job that has ended."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        words = dict(word.split("=", 1) for word in command("scontrol", "show", "job", "-o", job).split() if "=" in word)
        if words["JobState"] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
            return words["JobState"], words["ExitCode"]
        time.sleep(0.2)
    subprocess.run(["scancel", job], check=False)
    return f"{words['JobState']} ({words.get('Reason')})", "?"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--mpi-python", default=sys.executable)
    parser.add_argument("--case", action="append", help="these only, without the checks of how jobs end")
    options = parser.parse_args()
    check = Check(options.folder, options.mpi_python)
    scripts = [s for s in sorted(check.folder.glob("*.sbatch")) if not options.case or s.stem in options.case]
    if not scripts:
        sys.exit(f"there is no .sbatch in {check.folder}")
    for script in scripts:
        check.case(script)
    if not options.case:
        check.ending("minimal", "exit status 3", EXITS, {("FAILED", "3:0")})
        check.ending("minimal", "no script", None, {("FAILED", "1:0")})
        check.ending("minimal", "no such folder", EXITS, {("FAILED", "1:0")}, environment={"SOURCE_DIRECTORY": "/none"})
        # To the batch shell alone, as it comes before the time is over.
        notice = ("scancel", "--batch", "--signal=USR1")
        check.ending("minimal", "notice", STOPS, {("FAILED", "7:0")}, cancel=notice)
        check.ending("minimal", "scancel", STOPS, {("CANCELLED", "7:0")}, cancel=("scancel",))
        check.ending("minimal", "time is over", STOPS, {("FAILED", "7:0")}, ("--time=1",), cancel=("true",))
        check.ending("mpi", "a rank raises", FAILS, {("FAILED", "1:0")})
        check.ending("mpi", "notice", STOPS, {("FAILED", "7:0")}, cancel=notice)
        # With no variables of the caller's but those that the job needs.
        check.ending("mpi", "--export", EXITS, {("FAILED", "3:0")}, ("--export=PYTHON,PATH,HOME",))
    if check.faults:
        sys.exit(f"{len(check.faults)} faults")


main()

#!/usr/bin/env python3
"""Chaos: the service as several processes under load, and somebody who kills them and the database at random.

Two APIs, three workers with directories of their own, the embedded database by itself; runs on this machine and, where SLURM_CONF
names a cluster, there as well. Clients post with an Idempotency-Key until they are answered, and cancel some runs. After the given
number of kills everything is started again, and then the books are compared: what clients were told, what the database says, what
the scripts themselves wrote down, and which processes are left. Anything but zeros is a failure.

Needs nothing but Python's standard library, a built `estimatord` and PostgreSQL's binaries.
"""
import argparse
import collections
import concurrent.futures
import http.client
import io
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
TERMINAL = {"Completed", "Failed", "Canceled"}
# As long as a lease lasts, and as long as processes have between TERM and KILL.
LEASE_SECONDS = 15
GRACE_SECONDS = 2
# How many runs are under way at once, and how many of the machine's own the scripts of which run at once.
OPEN_RUNS = 40
PLACES = 12
# Retries wait 2, then 4 seconds; a cluster's word is looked for every second; a busy machine needs its time.
SETTLE_SECONDS = LEASE_SECONDS + GRACE_SECONDS + 90

# Every start of an attempt leaves a line, and so does an end that nothing stopped.
SCRIPT = """
import os, sys, time
marks, seconds, code = sys.argv[2], float(sys.argv[4]), int(sys.argv[6])
name = os.path.join(marks, os.environ['ESTIMATORD_ATTEMPT'])
def mark(word):
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(file, (word + '\\n').encode())
    os.close(file)
mark('started')
end = time.monotonic() + seconds
while time.monotonic() < end:
    print('working', flush=True)
    time.sleep(0.2)
mark('ended %d' % code)
sys.exit(code)
"""


class Process:
    """A part of the service: started, killed, and started again."""

    def __init__(self, name, command, environment, folder):
        self.name, self.command, self.environment = name, command, environment
        self.log = folder / f"{name}.log"
        self.process = None

    def start(self, output=None):
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output or sink, stderr=sink,
                env=self.environment, start_new_session=True,
            )

    def signal(self, number):
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, seconds):
        return self.process.wait(timeout=seconds)

    def is_over(self):
        return self.process is None or self.process.poll() is not None


class Database(Process):
    """The embedded database alone."""

    def begin(self):
        for _ in range(40):
            self.start(output=subprocess.PIPE)
            line = self.process.stdout.readline().decode()
            if line.startswith("ready "):
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return line.split(" ", 1)[1].strip()
            # Its predecessor may still be going.
            self.process.wait()
            time.sleep(0.25)
        sys.exit(f"chaos: the database does not start: {self.log}")

    def postmaster(self):
        for pid in children(self.process.pid):
            return pid
        return None


def children(pid):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Books:
    """What clients were told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.keys = {}  # idempotency key: id
        self.code = {}  # id: the exit code of its script
        self.canceled = set()  # ids whose cancel was accepted
        self.ended = {}  # id: status that was seen first after its end
        self.wrong = []  # answers that no client should get

    def open(self):
        with self.lock:
            return [run for run in self.code if run not in self.ended]


class Clients:
    """Those who post and cancel, as clients that keep to the conventions do."""

    def __init__(self, books, ports, dice):
        self.books, self.ports, self.dice = books, ports, dice
        self.stopped = threading.Event()

    def ask(self, method, path, body=None, key=None, port=None):
        """An answer: status and JSON; none when there was none, or one that asks to come again."""
        url = f"http://127.0.0.1:{port or self.dice.choice(self.ports)}{path}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/x-tar" if isinstance(body, bytes) else "application/json")
        if key:
            request.add_header("Idempotency-Key", key)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            try:
                text = error.read()
            except (OSError, http.client.HTTPException):
                return None
            again = error.code in (429, 503) and error.headers.get("Retry-After")
            if again or (error.code == 409 and b"idempotency-in-progress" in text):
                return None
            try:
                return error.code, json.loads(text)
            except ValueError:
                return error.code, {"text": text.decode(errors="replace")}
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def until_answered(self, *args, seconds=300, **kwargs):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = self.ask(*args, **kwargs)
            if answer is not None:
                return answer
            time.sleep(0.1)
        sys.exit(f"chaos: no answer within {seconds} s: {args}")

    def post_forever(self, number, snapshot, marks, targets):
        count = 0
        while not self.stopped.is_set():
            if len(self.books.open()) >= OPEN_RUNS:
                time.sleep(0.05)
                continue
            count += 1
            code = self.dice.choice([0, 0, 0, 0, 3])
            definition = {
                "source_directory": snapshot, "compute_target": self.dice.choice(targets), "entry_script": "train.py",
                "user_managed": True, "use_docker": False,
                "script_params": {"--marks": str(marks), "--seconds": f"{self.dice.uniform(0, 3):.2f}", "--code": str(code)},
            }
            key = f"client-{number}-{count}"
            body = {"experiment_name": "chaos", "estimator": definition, "max_attempts": self.dice.randint(1, 3),
                    "tags": {"key": key}, "priority": self.dice.randint(-2, 2)}
            status, answer = self.until_answered("POST", "/v1/runs", body, key)
            with self.books.lock:
                if status != 201:
                    self.books.wrong.append(f"POST /v1/runs with {key}: {status} {answer}")
                    continue
                self.books.keys[key] = answer["id"]
                self.books.code[answer["id"]] = code
            if self.dice.random() < 0.2:
                threading.Timer(self.dice.uniform(0, 5), self.cancel, [answer["id"]]).start()

    def cancel(self, run):
        status, answer = self.until_answered("POST", f"/v1/runs/{run}/cancel", b"")
        with self.books.lock:
            if status == 202:
                self.books.canceled.add(run)
            elif status != 409:
                self.books.wrong.append(f"cancel of {run}: {status} {answer}")

    def watch_forever(self):
        while not self.stopped.is_set():
            for run in self.books.open():
                self.look(run)
            time.sleep(0.2)

    def look(self, run):
        answer = self.ask("GET", f"/v1/runs/{run}")
        if answer is None:
            return
        status, view = answer
        with self.books.lock:
            if status != 200:
                self.books.wrong.append(f"GET of {run}: {status} {view}")
            elif view["status"] in TERMINAL:
                self.books.ended[run] = view["status"]


class Killer:
    """Kills, stops and starts again."""

    def __init__(self, dice, database, apis, workers, folder):
        self.dice, self.database, self.apis, self.workers, self.folder = dice, database, apis, workers, folder
        self.lost = set()  # attempts whose supervisors were killed
        self.kinds = collections.Counter()
        self.dishonest = []
        self.standing = []  # (until, process)

    def strike(self):
        kind = self.dice.choices(
            ["worker killed", "worker stopped for a while", "worker told to end", "API killed", "API stopped for a while",
             "API told to end", "database killed", "database told to end", "supervisor killed"],
            [38, 12, 10, 15, 5, 5, 8, 4, 3])[0]
        who, what = kind.split(" ", 1)
        if who == "supervisor" and not self.strike_supervisor():
            return False
        self.kinds[kind] += 1
        if who == "database":
            self.strike_database(what)
        elif who in ("worker", "API"):
            self.strike_process(who, what)
        return True

    def strike_supervisor(self):
        """The system's own fault, after which another attempt is due. Whether there was one to kill."""
        for pid, attempt in self.dice.sample(found := supervisors(self.folder), len(found)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.lost.add(attempt)
            return True
        return False

    def strike_process(self, who, what):
        process = self.dice.choice(self.apis if who == "API" else self.workers)
        if any(process is standing for _, standing in self.standing):
            process.signal(signal.SIGCONT)
            self.standing = [one for one in self.standing if one[1] is not process]
        if what == "stopped for a while":
            process.signal(signal.SIGSTOP)
            # Some longer than a lease lasts: others take the runs, and then it goes on.
            pause = self.dice.choice([1, 3, LEASE_SECONDS + 2])
            self.standing.append((time.monotonic() + pause, process))
            return
        if what == "killed":
            process.signal(signal.SIGKILL)
            process.wait(20)
        else:
            process.signal(signal.SIGTERM)
            code = process.wait(60)
            if code not in (0, -signal.SIGTERM):
                self.dishonest.append(f"{process.name} told to end: exit code {code}")
        process.start()

    def strike_database(self, what):
        if what == "killed":
            victim = self.database.postmaster() if self.dice.random() < 0.5 else self.database.process.pid
            if victim:
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        else:
            self.database.signal(signal.SIGTERM)
        self.database.wait(60)
        self.database.begin()

    def let_go(self, all_of_them=False):
        now = time.monotonic()
        for until, process in list(self.standing):
            if all_of_them or until <= now:
                process.signal(signal.SIGCONT)
                self.standing.remove((until, process))
        # What ended by itself, e.g. because there was no database at its start, somebody starts again: Kubernetes would.
        for process in self.apis + self.workers:
            if process.is_over():
                process.start()


def supervisors(folder):
    """Process ids of supervisors below this folder, with `<run>.<attempt>`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if len(command) > 2 and command[1] == "supervise" and any(str(folder) in part for part in command):
            for part in command[2:]:
                parts = part.split("/")
                if "runs" in parts and len(parts) > parts.index("runs") + 2:
                    at = parts.index("runs")
                    found.append((int(entry.name), f"{parts[at + 1]}.{parts[at + 2]}"))
                    break
    return found


def snapshot_of(script):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("train.py")
        info.size, info.mode = len(script), 0o644
        archive.addfile(info, io.BytesIO(script.encode()))
    return buffer.getvalue()


def left_over(folder):
    """Processes of runs, told by their environment, whose marks are in this folder's tree."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        is_run = any(variable.startswith(b"ESTIMATORD_ATTEMPT=") for variable in environment)
        is_ours = str(folder).encode() in command or any(str(folder).encode() in variable for variable in environment)
        if is_run and is_ours:
            found.append(f"{entry.name} {command.decode(errors='replace')}")
    return found


def jobs_left(runs):
    """Jobs of these runs that Slurm still has."""
    output = subprocess.run(["squeue", "--noheader", "--format=%j"], capture_output=True, text=True, check=True).stdout
    return [name for name in output.split() if any(run in name for run in runs)]


def lines_of(folder):
    return {file.name: file.read_text().split("\n")[:-1] for file in folder.iterdir()}


def compare(clients, books, marks, folder, has_slurm, sacrificed):
    """What of all books does not agree."""
    found = collections.defaultdict(list)
    runs, cursor = {}, ""
    while cursor is not None:
        _, page = clients.until_answered("GET", f"/v1/runs?experiment_name=chaos&limit=200{cursor}")
        runs.update((run["id"], run) for run in page["items"])
        following = page.get("next_cursor")
        cursor = f"&cursor={following}" if following else None
    lines = lines_of(marks)
    for key, run in books.keys.items():
        if run not in runs:
            found["lost"].append(f"{run} was answered to {key} and is not there")
    keys = collections.Counter(run["tags"]["key"] for run in runs.values())
    for key, count in keys.items():
        if count > 1:
            found["doubled"].append(f"{count} runs of the key {key}")
    for name, marked in lines.items():
        if marked.count("started") > 1:
            found["doubled"].append(f"attempt {name} was started {marked.count('started')} times")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        views = list(pool.map(lambda run: clients.until_answered("GET", f"/v1/runs/{run}")[1], runs))
    for run in views:
        name, status = run["id"], run["status"]
        attempts = [attempt["number"] for attempt in run["attempts"]]
        ends = {number: [line for line in lines.get(f"{name}.{number}", []) if line.startswith("ended")] for number in attempts}
        if status not in TERMINAL:
            found["stuck"].append(f"{name} is {status}: {run['detail']}")
            continue
        if books.ended.get(name, status) != status:
            found["lost"].append(f"{name} was {books.ended[name]} and is {status}")
        if attempts != list(range(1, len(attempts) + 1)):
            found["lost"].append(f"{name} has the attempts {attempts}")
        if any(ends[number] == ["ended 0"] and f"{name}.{number}" not in sacrificed for number in attempts[:-1]):
            found["doubled"].append(f"{name} had completed and was tried again")
        last = ends[attempts[-1]] if attempts else []
        if status == "Completed" and last != ["ended 0"]:
            found["lost"].append(f"{name} is Completed, and its script wrote {last}")
        # Of an attempt whose supervisor was killed nobody knows how it ended; one killed early had not begun.
        used_up = f"{name}.{attempts[-1] if attempts else 0}" in sacrificed and len(attempts) == run["max_attempts"]
        if used_up and (status, run["cause"]) == ("Failed", "compute_lost"):
            continue
        if used_up and (status, run["cause"], last) == ("Failed", "dispatch_failed", []):
            continue
        if status == "Failed" and (run["cause"], last) != ("script_failed", ["ended 3"]):
            found["lost"].append(f"{name} is Failed ({run['cause']}: {run['detail']}), and its script wrote {last}")
        if status == "Canceled" and run["cancel_requested_at"] is None:
            found["lost"].append(f"{name} is Canceled, and nobody asked: {run['detail']}")
        if name in books.canceled and status != "Canceled":
            found["lost"].append(f"the cancel of {name} was accepted, and it is {status}")
    found["orphans"] = left_over(folder)
    if has_slurm:
        found["orphans"] += jobs_left(runs)
    return views, found


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--kills", type=int, default=int(os.environ.get("KILLS", "60")))
    options.add_argument("--seed", type=int, default=int(os.environ.get("SEED", str(random.randrange(1 << 32)))))
    options.add_argument("--binary", type=pathlib.Path, default=TARGET / "release" / "estimatord")
    options.add_argument("--keep", action="store_true", help="keep the directory with logs and data")
    options = options.parse_args()
    if not options.binary.exists():
        sys.exit("chaos: build the service first: cargo build --release --locked")
    dice = random.Random(options.seed)
    has_slurm = bool(os.environ.get("SLURM_CONF"))
    # As root the database runs under another account, which must get there.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="estimatord-chaos-"))
    folder.chmod(0o755)
    marks, shared = folder / "marks", folder / "shared"
    for made in (marks, shared):
        made.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ESTIMATORD_") and k != "DATABASE_URL"}
    # Scripts leave their marks as whoever this is.
    environment["ESTIMATORD_RUN_UIDS"] = "none"
    database = Database("database", [options.binary, "serve-postgres-only", "--data-dir", folder / "database"], environment, folder)
    common = [options.binary, "serve", "--artifacts-dir", folder / "artifacts", "--no-migrate", "--max-concurrent-runs", str(PLACES),
              "--cancel-grace-seconds", str(GRACE_SECONDS), "--cluster-interval-seconds", "1"]
    ports = [free_port() for _ in range(2)]
    apis = [Process(f"api-{n}", [*common, "--role", "api", "--listen", f"127.0.0.1:{port}", "--data-dir", folder / f"api-{n}"],
                    environment, folder) for n, port in enumerate(ports)]
    workers = [Process(f"worker-{n}", [*common, "--role", "worker", "--data-dir", folder / f"worker-{n}"], environment, folder)
               for n in range(3)]
    everything = [*apis, *workers]
    books = Books()
    clients = Clients(books, ports, dice)
    killer = Killer(dice, database, apis, workers, folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"chaos: {options.kills} kills, seed {options.seed}, Slurm: {'yes' if has_slurm else 'no'}, logs in {folder}", flush=True)
    began = time.monotonic()
    try:
        # Shared with the processes above, which get it when they start.
        environment["DATABASE_URL"] = f"postgres://estimatord@localhost/estimatord?host={database.begin()}"
        subprocess.run([options.binary, "migrate"], env=environment, check=True)
        for process in everything:
            process.start()
        snapshot = clients.until_answered("POST", "/v1/snapshots", snapshot_of(SCRIPT))[1]["id"]
        targets = ["local"]
        if has_slurm:
            backend = {"kind": "slurm", "shared_dir": str(shared), "partition": "main", "max_concurrent_runs": PLACES}
            clients.until_answered("PUT", "/v1/compute-targets/cluster", {"type": "AmlCompute", "max_nodes": 1, "backend": backend})
            targets.append("cluster")
        threads = [threading.Thread(target=clients.post_forever, args=(n, snapshot, marks, targets), daemon=True) for n in range(3)]
        threads.append(threading.Thread(target=clients.watch_forever, daemon=True))
        for thread in threads:
            thread.start()
        done = 0
        while done < options.kills:
            time.sleep(dice.uniform(0.05, 1.0))
            struck = killer.strike()
            done += struck
            killer.let_go()
            if struck and done % 50 == 0:
                ended, posted = len(books.ended), len(books.code)
                print(f"chaos: {done} kills, {posted} runs posted, {ended} seen ended, {time.monotonic() - began:.0f} s", flush=True)
        clients.stopped.set()
        killer.let_go(all_of_them=True)
        quiet = time.monotonic()
        for thread in threads:
            thread.join()
        # Cancels that are under way still come.
        time.sleep(5)
        while books.open() and time.monotonic() - quiet < SETTLE_SECONDS:
            for run in books.open():
                clients.look(run)
            killer.let_go()
            time.sleep(0.5)
        settled = time.monotonic() - quiet
        # What ended runs left is swept once a minute; processes go at once.
        views, found = compare(clients, books, marks, folder, has_slurm, killer.lost)
        for process in everything:
            process.signal(signal.SIGTERM)
        for process in everything:
            if process.wait(60) != 0:
                killer.dishonest.append(f"{process.name}: exit code {process.process.returncode} at the end")
    finally:
        for process in [*everything, database]:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        for process in [*everything, database]:
            if process.process:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.signal(signal.SIGKILL)

    print("\n=== what was done ===")
    for kind, count in sorted(killer.kinds.items()):
        print(f"{count:6} {kind}")
    statuses = collections.Counter(run["status"] for run in views)
    wrong = books.wrong + killer.dishonest
    counts = {
        "submitted": len(books.code),
        "terminal": sum(statuses[status] for status in TERMINAL),
        "lost": len(found["lost"]), "doubled": len(found["doubled"]), "stuck": len(found["stuck"]),
        "orphans": len(found["orphans"]), "wrong answers": len(wrong),
    }
    print("\n=== what came of it ===")
    for status, count in sorted(statuses.items()):
        print(f"{count:6} {status}")
    again = sum(len(run["attempts"]) > 1 for run in views)
    print(f"{len(books.canceled):6} cancels accepted\n{again:6} runs with more than one attempt")
    print(f"{time.monotonic() - began:6.0f} s in all; everything was over {settled:.0f} s after the last kill")
    print("\n" + ", ".join(f"{name} {count}" for name, count in counts.items()), flush=True)
    for kind, them in [*found.items(), ("wrong answers", wrong)]:
        for one in them[:20]:
            print(f"{kind}: {one}")
    is_clean = all(counts[name] == 0 for name in ("lost", "doubled", "stuck", "orphans", "wrong answers"))
    is_clean = is_clean and counts["terminal"] >= counts["submitted"]
    if is_clean and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"chaos: the logs are in {folder}")
    sys.exit(0 if is_clean else 1)


if __name__ == "__main__":
    main()

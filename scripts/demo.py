#!/usr/bin/env python3
"""The demonstration: starts the service with its own database, trains both examples, shows what came out, stops.

Needs nothing but Python's standard library and target/release/estimatord.
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BINARY = TARGET / "release" / "estimatord"
EXAMPLES = ROOT / "examples" / "digits"
RESULTS = TARGET / "demo"
WANTED_ACCURACY = 0.9


def free_port():
    """8080 when nobody has it, else any."""
    for port in (8080, 0):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return s.getsockname()[1]
            except OSError:
                continue
    sys.exit("demo: no free port on 127.0.0.1")


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    if data is not None:
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def wait_until_ready(base, service, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if service.poll() is not None:
            sys.exit("demo: the service did not start:\n" + log.read_text())
        try:
            call("GET", base + "/readyz")
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("demo: the service did not become ready:\n" + log.read_text())


def train(base, definition):
    """Submits one example, follows it to its end, fetches its outputs; answers its summary."""
    print(f"\n=== {definition} ===", flush=True)
    command = [BINARY, "submit", EXAMPLES / definition, "--source", EXAMPLES, "--experiment", "digits", "--follow", "--url", base]
    ended = subprocess.run(command, check=False)
    run = json.loads(call("GET", base + "/v1/runs?limit=1"))["items"][0]
    if ended.returncode != 0 or run["status"] != "Completed":
        sys.exit(f"demo: {definition} ended {run['status']} ({run['cause']}): {run['detail']}")
    folder = RESULTS / pathlib.Path(definition).stem
    folder.mkdir(parents=True, exist_ok=True)
    outputs = json.loads(call("GET", f"{base}/v1/runs/{run['id']}/outputs"))["items"]
    for output in outputs:
        file = folder / output["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(call("GET", f"{base}/v1/runs/{run['id']}/outputs/{output['path']}"))
    accuracy = json.loads((folder / "metrics.json").read_text())["validation_accuracy"]
    return {"definition": definition, "run": run["id"], "accuracy": accuracy, "outputs": outputs, "folder": folder}


def main():
    if not BINARY.exists():
        sys.exit("demo: build the service first: cargo build --release")
    # Not below the home directory: as root the database runs under another account, which must get there.
    data = pathlib.Path(tempfile.mkdtemp(prefix="estimatord-demo-"))
    data.chmod(0o755)
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    log = RESULTS / "service.log"
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ESTIMATORD_") and k != "DATABASE_URL"}
    with log.open("wb") as sink:
        service = subprocess.Popen(
            [BINARY, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", data],
            stderr=sink, stdout=sink, stdin=subprocess.DEVNULL, env=environment,
        )
    # Stopped by a signal the demonstration cleans up too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        wait_until_ready(base, service, log)
        print(f"demo: the service is ready: {base}/docs/ (its log: {log})", flush=True)
        target = {"type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 2}
        call("PUT", base + "/v1/compute-targets/cpu-cluster", target)
        results = [train(base, "digits.json"), train(base, "digits-mpi.json")]
        document = json.loads(call("GET", base + "/openapi.json"))
        call("GET", base + "/docs/")
    finally:
        service.terminate()
        try:
            service.wait(timeout=60)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait()
        shutil.rmtree(data, ignore_errors=True)

    print("\n=== what came out ===")
    for result in results:
        print(f"{result['definition']}: Completed, validation accuracy {result['accuracy']:.4f} (run {result['run']})")
        for output in result["outputs"]:
            print(f"    {result['folder'] / output['path']}  {output['bytes']} bytes")
    print(f"Swagger UI ({len(document['paths'])} paths) was at {base}/docs/ ; `make serve` starts the service to stay: "
          "http://127.0.0.1:8080/docs/")
    low = [r["definition"] for r in results if r["accuracy"] <= WANTED_ACCURACY]
    if low:
        sys.exit(f"demo: validation accuracy not above {WANTED_ACCURACY}: {', '.join(low)}")


if __name__ == "__main__":
    main()

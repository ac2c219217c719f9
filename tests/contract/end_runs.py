"""Cancels every run that lives and waits until it has ended, so that no process of one outlives the service."""
import json
import os
import sys
import time
import urllib.error
import urllib.request

BASE = os.environ["ESTIMATORD_URL"]
ENDED = {"Completed", "Failed", "Canceled"}
SECONDS = 60


def call(method, path, **headers):
    request = urllib.request.Request(BASE + path, method=method)
    request.add_header("Authorization", "Bearer " + os.environ["ESTIMATORD_TOKEN"])
    for name, value in headers.items():
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=90) as answer:
        return json.load(answer)


def living():
    cursor = ""
    while True:
        page = call("GET", "/v1/runs?limit=200" + cursor)
        yield from (run for run in page["items"] if run["status"] not in ENDED)
        if page["next_cursor"] is None:
            return
        cursor = "&cursor=" + page["next_cursor"]


def cancel(run):
    try:
        call("POST", f"/v1/runs/{run['id']}/cancel")
    except urllib.error.HTTPError as error:
        # It has ended meanwhile.
        if error.code != 409:
            raise
    return run["id"]


deadline = time.monotonic() + SECONDS
# All are told before one is waited for.
left = [cancel(run) for run in list(living())]
while left and time.monotonic() < deadline:
    run = call("GET", f"/v1/runs/{left[-1]}", Prefer="wait=10")
    if run["status"] in ENDED:
        left.pop()
if left:
    sys.exit(f"end_runs: {len(left)} runs still live {SECONDS} s after their cancel, e.g. {left[0]}")

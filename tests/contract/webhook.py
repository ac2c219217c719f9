"""A receiver of webhooks that believes nobody: every message is checked with the specification's own library.

It listens where the service may send ($CONTRACT_RECEIVER_PORT), turns the first message away, and wants to be told of every status of
a run of the example, each once as far as its id goes.
"""
import http.server
import json
import os
import pathlib
import queue
import sys
import threading
import time

import requests
from standardwebhooks import Webhook

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASE = os.environ["ESTIMATORD_URL"]
PORT = int(os.environ["CONTRACT_RECEIVER_PORT"])
ENDED = {"Completed", "Failed", "Canceled"}
SECONDS = 120
messages = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    turned_away = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self.turned_away:
            # It comes again, under the same id.
            self.turned_away.append(self.headers["webhook-id"])
            self.send_response(500)
        else:
            messages.put((dict(self.headers), body))
            self.send_response(204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def call(method, path, status=(200, 201, 202), **request):
    headers = {"Authorization": "Bearer " + os.environ["ESTIMATORD_TOKEN"]}
    answer = requests.request(method, BASE + path, headers=headers, timeout=90, **request)
    assert answer.status_code in status, f"{method} {path} was answered {answer.status_code}: {answer.text}"
    return answer


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = call("PUT", "/v1/webhooks/checked", json={"url": f"http://127.0.0.1:{PORT}/hook", "experiment_name": "webhooks"}).json()
    library = Webhook(made["secret"])
    archive = pathlib.Path(os.environ["CONTRACT_ARCHIVE"]).read_bytes()
    requests.post(BASE + "/v1/snapshots", data=archive, timeout=90, headers={
        "Authorization": "Bearer " + os.environ["ESTIMATORD_TOKEN"], "Content-Type": "application/gzip"}).raise_for_status()
    schemas = json.loads((ROOT / "openapi" / "openapi.json").read_text())["components"]["schemas"]
    # Its interpreter is the machine's and it fails at once: all that counts here is that it ends.
    definition = {**schemas["EstimatorDefinition"]["example"], "user_managed": True, "pip_packages": None, "use_docker": False}
    run = call("POST", "/v1/runs", json={"experiment_name": "webhooks", "estimator": definition}).json()
    events = {}
    deadline = time.monotonic() + SECONDS
    wanted = None
    while wanted is None or set(events) != wanted:
        headers, body = messages.get(timeout=max(0.1, deadline - time.monotonic()))
        told = library.verify(body, headers)
        assert told["type"] == "run.status_changed" and told["data"]["run_id"] == run["id"], told
        assert json.loads(body) == told
        events[told["data"]["sequence"]] = told["data"]["status"]
        if wanted is None and told["data"]["status"] in ENDED:
            all_events = call("GET", f"/v1/runs/{run['id']}/events").json()["items"]
            wanted = {event["sequence"] for event in all_events if event["kind"] == "status"}
    forged = dict(headers)
    forged["webhook-signature"] = "v1," + "A" * 43 + "="
    try:
        library.verify(body, forged)
    except Exception as error:
        assert "signature" in str(error).lower(), error
    else:
        sys.exit("webhook: the library takes anything")
    deliveries = call("GET", "/v1/webhooks/checked/deliveries").json()["items"]
    again = next(one for one in deliveries if one["id"] == Receiver.turned_away[0])
    codes = [attempt["status_code"] for attempt in again["attempts"]]
    assert codes == [500, 204] and {one["status"] for one in deliveries} == {"delivered"}, deliveries
    assert "whsec_" not in call("GET", "/v1/webhooks").text
    call("DELETE", "/v1/webhooks/checked", status=(204,))
    print(f"webhook.py: {len(events)} messages, {' > '.join(events[number] for number in sorted(events))}")


if __name__ == "__main__":
    main()

// The same with types that are generated from the document: what does not fit them is refused before it runs.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, operations, paths } from "./generated/schema.js";

type Run = components["schemas"]["Run"];
type RunBody = components["schemas"]["RunBody"];
type Status = components["schemas"]["Status"];
type LogPath = operations["get_run_log"]["parameters"]["path"]["path"];

const ENDED: readonly Status[] = ["Completed", "Failed", "Canceled"];
const LOG: LogPath = "user_logs/std_log.txt";
// More changes of status than a run can make.
const MOST_WAITS = 60;

function variable(name: string): string {
  const value = process.env[name];
  assert(value, `${name} is not set`);
  return value;
}

const baseUrl = variable("ESTIMATORD_URL");
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${variable("ESTIMATORD_TOKEN")}` } });

/** The document's example of a run; that it has the type of a body is for the service to say. */
async function example(): Promise<RunBody> {
  const { data } = await client.GET("/openapi.json");
  const document = data as { components: { schemas: { RunBody: { example: RunBody } } } };
  return document.components.schemas.RunBody.example;
}

async function checkToken(): Promise<void> {
  const stranger = createClient<paths>({ baseUrl, headers: { Authorization: "Bearer not-the-token-of-this-one" } });
  const { data, error, response } = await stranger.GET("/v1/runs");
  assert.equal(response.status, 401);
  assert.equal(data, undefined);
  assert.equal(error?.status, 401);
}

async function checkRefusal(): Promise<void> {
  const { error, response } = await client.POST("/v1/estimators", {
    body: { source_directory: ".", compute_target: "local", entry_script: "train.py" },
  });
  assert.equal(response.status, 422);
  assert.match(response.headers.get("Content-Type") ?? "", /^application\/problem\+json/);
  const rules = error?.findings?.map((finding) => finding.rule);
  assert(rules?.includes("source-directory-not-found"), `findings: ${rules}`);
}

async function upload(wanted: string): Promise<void> {
  const archive = await readFile(variable("CONTRACT_ARCHIVE"));
  const { data, error, response } = await client.POST("/v1/snapshots", {
    headers: { "Content-Type": "application/gzip" },
    // The types know bytes only as text.
    body: archive as unknown as string,
    bodySerializer: (bytes) => bytes,
  });
  assert(data, `the upload was answered ${response.status}: ${error?.detail}`);
  assert.equal(data.id, wanted);
  assert.equal(data.files, 1);
}

async function follow(id: string): Promise<{ run: Run; seen: Status[] }> {
  const seen: Status[] = [];
  for (let wait = 0; wait < MOST_WAITS; wait += 1) {
    const params = { path: { id }, header: { Prefer: "wait=30" } };
    const { data: run, error } = await client.GET("/v1/runs/{id}", { params });
    assert(run, error?.detail ?? "no run");
    if (seen.at(-1) !== run.status) seen.push(run.status);
    if (ENDED.includes(run.status)) return { run, seen };
  }
  throw new Error(`the run is still ${seen.at(-1)} after ${MOST_WAITS} waits`);
}

await checkToken();
await checkRefusal();
const body = await example();
assert(body.estimator, "the example has its definition inline");
await upload(body.estimator.source_directory);

// A key of its own: the same request again makes no second run.
const idempotencyKey = crypto.randomUUID();
const submit = () => client.POST("/v1/runs", { body, params: { header: { "Idempotency-Key": idempotencyKey } } });
const submitted = await submit();
assert(submitted.data, `the run was answered ${submitted.response.status}: ${submitted.error?.detail}`);
assert.equal(submitted.response.status, 201);
const again = await submit();
assert.equal(again.data?.id, submitted.data.id);
assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");

const { run, seen } = await follow(submitted.data.id);
assert.equal(run.status, "Completed", `${run.cause}: ${run.detail}`);
assert.equal(run.exit_code, 0);
assert.deepEqual(run.tags, body.tags);
assert.deepEqual(run.definition.script_params, { ...body.estimator.script_params, ...body.script_params });

const path = { id: run.id, path: LOG };
const { data: log } = await client.GET("/v1/runs/{id}/logs/{path}", { params: { path }, parseAs: "text" });
const accuracy = Number(/validation accuracy: ([0-9.]+)/.exec(log ?? "")?.[1]);
assert(accuracy > 0.9, `validation accuracy: ${accuracy}`);
const part = { path, header: { Range: "bytes=0-9" } };
const ranged = await client.GET("/v1/runs/{id}/logs/{path}", { params: part, parseAs: "text" });
assert.equal(ranged.response.status, 206);
assert.equal(ranged.data, log?.slice(0, 10));
const { data: outputs } = await client.GET("/v1/runs/{id}/outputs", { params: { path: { id: run.id } } });
assert(outputs?.items.some((file) => file.path === "model.npz" && file.bytes > 0));
console.log(`client.ts: run ${run.id} went ${seen.join(" > ")}, validation accuracy ${accuracy}`);

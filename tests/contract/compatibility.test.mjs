// That the comparison tells what breaks clients from what does not.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { breakingPaths } from "./compatibility.mjs";

const DOCUMENT = readFileSync(new URL("../../openapi/openapi.json", import.meta.url), "utf8");
// Comparing resolves every reference, so it is done with the part that has both a list and a body.
const small = () => {
  const { openapi, info, paths, components } = JSON.parse(DOCUMENT);
  return { openapi, info, paths: { "/v1/runs": paths["/v1/runs"], "/v1/rules": paths["/v1/rules"] }, components };
};
const brokenBy = (change) => {
  const after = small();
  change(after);
  return breakingPaths(small(), after);
};
const schema = (document, name) => document.components.schemas[name];
const without = (list, one) => list.filter((other) => other !== one);

const BREAKS = {
  "a path that is gone": [(d) => delete d.paths["/v1/rules"], /^remove paths\/\/v1\/rules\/get$/],
  "an operation that is gone": [(d) => delete d.paths["/v1/runs"].post, /^remove paths\/\/v1\/runs\/post$/],
  "a parameter that is gone": [(d) => d.paths["/v1/runs"].get.parameters.shift(),
    /^remove paths\/\/v1\/runs\/get\/parameters\/0$/],
  "a required member of an answer that is gone": [(d) => {
    delete schema(d, "Run").properties.status;
    schema(d, "Run").required = without(schema(d, "Run").required, "status");
  }, /^remove paths\/\/v1\/runs\/post\/responses\/201\/.*\/properties\/status$/],
  "a member of an answer that may be missing now": [(d) => {
    schema(d, "Run").required = without(schema(d, "Run").required, "status");
  }, /^remove paths\/\/v1\/runs\/post\/responses\/201\/.*\/required\/\d+$/],
  "another type in an answer": [(d) => { schema(d, "Run").properties.exit_code.type = "string"; },
    /^replace paths.*\/exit_code\/type$/],
  "a new required member of a body": [(d) => {
    schema(d, "RunBody").properties.owner = { type: "string" };
    schema(d, "RunBody").required.push("owner");
  }, /^add paths\/\/v1\/runs\/post\/requestBody\/.*\/properties\/owner$/],
  "a member of a body that is refused now": [(d) => delete schema(d, "RunBody").properties.priority,
    /^remove paths\/\/v1\/runs\/post\/requestBody\/.*\/properties\/priority$/],
  "a word more in an answer": [(d) => schema(d, "Status").enum.push("Paused"),
    /^add paths\/\/v1\/runs\/post\/responses\/201\/.*\/enum\/\d+$/],
  "a word less in a parameter": [(d) => schema(d, "Status").enum.pop(),
    /^remove paths\/\/v1\/runs\/get\/parameters\/\d+\/.*\/enum\/\d+$/],
  "a lower limit in a body": [(d) => { schema(d, "RunBody").properties.max_attempts.maximum = 5; },
    /^replace paths.*\/max_attempts\/maximum$/],
};
const BREAKS_NOTHING = {
  "no change": () => {},
  "a new path": (d) => { d.paths["/v1/new"] = structuredClone(d.paths["/v1/rules"]); },
  "a new member of an answer": (d) => { schema(d, "Run").properties.owner = { type: "string" }; },
  "a new optional member of a body": (d) => { schema(d, "RunBody").properties.owner = { type: "string" }; },
  "a new optional parameter": (d) =>
    d.paths["/v1/runs"].get.parameters.unshift({ name: "owner", in: "query", schema: { type: "string" } }),
  "a body that may say null too": (d) => { schema(d, "RunBody").properties.priority.type = ["integer", "null"]; },
  "a text of an answer that is one of a named list now": (d) => {
    d.components.schemas.Experiment = { type: "string", enum: ["digits"] };
    schema(d, "Run").properties.experiment_name = { $ref: "#/components/schemas/Experiment", description: "The experiment." };
  },
  "other words": (d) => { schema(d, "Run").description = "Said otherwise."; },
};

for (const [name, [change, place]] of Object.entries(BREAKS)) {
  test(`${name} breaks clients`, () => {
    const broken = brokenBy(change);
    assert(broken.some((path) => place.test(path)), `found only: ${broken.join(", ") || "nothing"}`);
    assert(broken.every((path) => / paths\//.test(path)));
  });
}
for (const [name, change] of Object.entries(BREAKS_NOTHING)) {
  test(`${name} breaks nobody`, () => assert.deepEqual(brokenBy(change), []));
}

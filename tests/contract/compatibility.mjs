// Says whether openapi/openapi.json breaks clients of an earlier version, and where: `compatibility.mjs [--strict]`.
//
// The earlier version is that of the commit in $OPENAPI_BASE; else what was committed last, where the file has been changed
// since; else what it was before the last commit that changed it. With --strict a break is a failure.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { apiDiff } from "api-smart-diff";

const FILE = "openapi/openapi.json";
// A change of one schema is one of every operation that uses it.
const SHOWN = 40;
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

const typesOf = (type) => new Set([type].flat());
const within = (some, all) => [...some].every((one) => all.has(one) || (one === "integer" && all.has("number")));

/** What is at a place of a document; references are followed, as the library does. */
function at(document, path) {
  let value = document;
  for (const step of path) {
    while (value?.$ref) value = at(document, value.$ref.slice(2).split("/"));
    value = value?.[step];
  }
  return value;
}

/** What the difference means here; where the library's word does not fit, ours. */
function isBreaking({ action, type, path, before, after }, document) {
  const isRequest = path.includes("requestBody") || path.includes("parameters");
  // Members that it does not know the service refuses, so one that was known must stay.
  if (isRequest && action === "remove" && path.at(-2) === "properties") return true;
  // A type is a name or a list of them, which the library does not compare: more is sent than before, or less is taken.
  if (action === "replace" && path.at(-1) === "type") {
    return isRequest ? !within(typesOf(before), typesOf(after)) : !within(typesOf(after), typesOf(before));
  }
  // A text that is one of a list from now on is no new one in that list: less is sent than before, or less is taken.
  if (action === "add" && path.at(-2) === "enum" && !at(document, path.slice(0, -1))) return isRequest;
  return type === "breaking";
}

// A reference with a description of its own: the library would take it for one schema of several, and miss what it refers to.
const ANNOTATIONS = ["description", "summary", "example", "deprecated"];
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  const dropped = typeof value.$ref === "string" ? ANNOTATIONS : [];
  const kept = Object.entries(value).filter(([name]) => !dropped.includes(name));
  return Object.fromEntries(kept.map(([name, member]) => [name, plain(member)]));
}

/** The places of what breaks clients; of each once, where it is used, and not again where it is defined. */
export function breakingPaths(earlier, later) {
  const before = plain(earlier);
  return apiDiff(before, plain(later))
    .filter((difference) => difference.path[0] === "paths" && isBreaking(difference, before))
    .map(({ action, path }) => `${action} ${path.join("/")}`);
}

function git(...words) {
  return execFileSync("git", words, { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 28 }).trim();
}

function earlierCommit() {
  if (process.env.OPENAPI_BASE) return process.env.OPENAPI_BASE;
  if (git("status", "--porcelain", "--", FILE)) return "HEAD";
  return git("log", "--max-count=2", "--format=%H", "--", FILE).split("\n")[1];
}

function main() {
  const commit = earlierCommit();
  if (!commit) {
    console.log("compatibility: there is no earlier version");
    return;
  }
  const name = git("log", "--max-count=1", "--format=%h of %cs", commit);
  const before = JSON.parse(git("show", `${commit}:${FILE}`));
  const broken = breakingPaths(before, JSON.parse(readFileSync(`${ROOT}/${FILE}`, "utf8")));
  if (broken.length === 0) {
    console.log(`compatibility: nothing that clients of ${name} rely on has changed`);
    return;
  }
  console.log(`compatibility: BREAKING for clients of ${name}, in ${broken.length} places:`);
  for (const path of broken.slice(0, SHOWN)) console.log(`    ${path}`);
  if (broken.length > SHOWN) console.log(`    … and ${broken.length - SHOWN} more`);
  if (process.argv.includes("--strict")) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();

// What somebody does by hand in Swagger UI: authorize, upload, store, start, look until the run is through.
//
// A screenshot of every step goes to $CONTRACT_SCREENSHOTS. What the page complains of, asks elsewhere for, or is kept from by
// its Content-Security-Policy is a failure.
import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { chromium } from "playwright-core";

const { ESTIMATORD_URL: base, ESTIMATORD_TOKEN: token, CONTRACT_ARCHIVE: archive } = process.env;
const { CONTRACT_SCREENSHOTS: screenshots, CONTRACT_PROFILE: profile } = process.env;
assert(base && token && archive && screenshots && profile, "scripts/check-contract.sh starts this");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const ENDED = ["Completed", "Failed", "Canceled"];
// More changes of status than a run can make.
const MOST_LOOKS = 60;
const LONGEST_WAIT = 90_000;

const complaints = [];
let steps = 0;

function watch(page) {
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(`${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  page.on("requestfailed", (request) => complaints.push(`no answer: ${request.url()}`));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== new URL(base).origin && !["data:", "blob:"].includes(protocol)) complaints.push(`elsewhere: ${request.url()}`);
  });
}

/** Takes a picture of what `locator` shows, or of the page. The UI repeats the token as part of a command line: not there. */
async function picture(page, name, locator = page) {
  await page.evaluate((secret) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const { data } = texts.currentNode;
      if (data.includes(secret)) texts.currentNode.data = data.replaceAll(secret, "…");
    }
    for (const input of document.querySelectorAll("input")) if (input.value.includes(secret)) input.type = "password";
  }, token);
  steps += 1;
  await locator.screenshot({ path: `${screenshots}/${String(steps).padStart(2, "0")}-${name}.png` });
}

/** The block of an operation, unfolded and ready to be tried. */
async function open(page, tag, operation) {
  const block = page.locator(`#operations-${tag}-${operation}`);
  await block.locator(".opblock-summary-control").click();
  const tryOut = block.locator(".try-out__btn");
  await tryOut.waitFor();
  if ((await tryOut.innerText()) !== "Cancel") await tryOut.click();
  await block.locator("button.execute").waitFor();
  return block;
}

/** Presses Execute and answers what the page then shows. */
async function execute(block) {
  // What an earlier press brought goes first, so that what is read belongs to this one.
  const clear = block.locator("button.btn-clear");
  if (await clear.isVisible()) await clear.click();
  await block.locator("button.execute").click();
  const shown = block.locator(".live-responses-table .response");
  await shown.waitFor({ timeout: LONGEST_WAIT });
  const status = Number.parseInt(await shown.locator(".response-col_status").innerText(), 10);
  const text = await shown.locator(".response-col_description pre.microlight").first().innerText();
  return { status, body: JSON.parse(text) };
}

async function refusedWithoutToken(page) {
  const block = await open(page, "frameworks", "list_frameworks");
  const { status } = await execute(block);
  assert.equal(status, 401);
  await picture(page, "without-a-token", block.locator(".responses-inner > div").first());
  await block.locator(".opblock-summary-control").click();
  // The browser itself reports an answer like that; it is the only complaint so far.
  assert.equal(complaints.length, 1, complaints.join("\n"));
  assert.match(complaints.pop(), /401/);
}

async function authorize(page) {
  await page.locator(".auth-wrapper button.authorize").click();
  const form = page.locator(".modal-ux .auth-container", { has: page.locator("h4 code", { hasText: /^bearer$/ }) });
  await form.locator("input").fill(token);
  await picture(page, "authorize");
  await form.locator("button[type=submit]").click();
  await form.getByText("Logout").waitFor();
  await picture(page, "authorized");
  await form.locator("button.btn-done").click();
}

async function upload(page) {
  const block = await open(page, "snapshots", "create_snapshot");
  const chosen = page.waitForEvent("filechooser");
  await block.locator("input[type=file]").click();
  await (await chosen).setFiles(archive);
  const { status, body } = await execute(block);
  assert([200, 201].includes(status), JSON.stringify(body));
  await picture(page, "create_snapshot", block.locator(".responses-inner > div").first());
  return body.id;
}

/** Sends the example of an operation's body as the page offers it. */
async function createByExample(page, tag, operation) {
  const block = await open(page, tag, operation);
  await picture(page, `${operation}-example`, block.locator(".opblock-section-request-body"));
  const { status, body } = await execute(block);
  await picture(page, operation, block.locator(".responses-inner > div").first());
  assert.equal(status, 201, JSON.stringify(body));
  return body;
}

async function lookUntilEnded(page, id) {
  const block = await open(page, "runs", "get_run");
  await block.locator('tr[data-param-name="id"] input').fill(id);
  await block.locator('tr[data-param-name="Prefer"] input').fill("wait=30");
  await picture(page, "get_run-parameters", block.locator(".parameters-container"));
  for (let look = 0; look < MOST_LOOKS; look += 1) {
    const { status, body } = await execute(block);
    assert.equal(status, 200, JSON.stringify(body));
    if (ENDED.includes(body.status)) {
      await picture(page, "get_run", block.locator(".responses-inner > div").first());
      return body;
    }
  }
  throw new Error(`the run has not ended after ${MOST_LOOKS} looks`);
}

async function main() {
  rmSync(screenshots, { recursive: true, force: true });
  mkdirSync(screenshots, { recursive: true });
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    headless: true,
    viewport: { width: 1280, height: 900 },
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  try {
    const page = browser.pages()[0] ?? await browser.newPage();
    watch(page);
    // A violation is an event of the page; as an error in the console it is seen from here, whatever the browser itself says.
    await page.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) =>
      console.error(`Content-Security-Policy: ${event.violatedDirective} kept out ${event.blockedURI}`)));
    await page.goto(`${base}/docs/`);
    await page.locator(".opblock").first().waitFor();
    await picture(page, "docs");
    await refusedWithoutToken(page);
    await authorize(page);
    const snapshot = await upload(page);
    const estimator = await createByExample(page, "estimators", "create_estimator");
    assert.equal(estimator.definition.source_directory, snapshot);
    const submitted = await createByExample(page, "runs", "create_run");
    const run = await lookUntilEnded(page, submitted.id);
    assert.equal(run.status, "Completed", `${run.cause}: ${run.detail}`);
    assert.deepEqual(complaints, []);
    console.log(`browser.mjs: run ${run.id} Completed; ${steps} screenshots`);
  } finally {
    await browser.close();
  }
}

// A step that fails says what it typed.
await main().catch((error) => {
  console.error(String(error.stack).replaceAll(token, "…"));
  process.exitCode = 1;
});

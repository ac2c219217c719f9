// graphile-worker: drains jobs that do nothing. Usage: graphile.mjs DATABASE_URL JOBS
// The settings are those that its documentation measured its own figures with.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { report } from "./until.mjs";

const [url, jobs] = [process.argv[2], Number(process.argv[3])];
const quiet = new Logger(() => () => {});

const utils = await makeWorkerUtils({ connectionString: url, logger: quiet });
await utils.migrate();
await utils.addJobs(Array.from({ length: jobs }, () => ({ identifier: "nothing", payload: {} })));
await utils.withPgClient((client) => client.query("VACUUM (ANALYZE)"));
await utils.release();

let left = jobs;
let done;
const allRan = new Promise((resolve) => (done = resolve));
const nothing = () => {
  left -= 1;
  if (left === 0) done();
};
const began = performance.now();
const runner = await run({
  preset: {
    worker: {
      connectionString: url,
      concurrentJobs: 24,
      maxPoolSize: 25,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      logger: quiet,
    },
  },
  noHandleSignals: true,
  taskList: { nothing },
});
await allRan;
await report(url, began, "SELECT NOT EXISTS (SELECT FROM graphile_worker._private_jobs) AS over");
await runner.stop();

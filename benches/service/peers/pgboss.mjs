// pg-boss: drains jobs that do nothing. Usage: pgboss.mjs DATABASE_URL JOBS
// Batches, fetched without a pause while they are full, are its way to a high throughput.
import { PgBoss } from "pg-boss";
import pg from "pg";
import { report } from "./until.mjs";

const [url, jobs] = [process.argv[2], Number(process.argv[3])];
const queue = "nothing";

const boss = new PgBoss({ connectionString: url });
boss.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
await boss.start();
await boss.createQueue(queue);
await boss.insert(queue, Array.from({ length: jobs }, () => ({ data: {} })));
const client = new pg.Client({ connectionString: url });
await client.connect();
await client.query("VACUUM (ANALYZE)");
await client.end();

let left = jobs;
let done;
const allRan = new Promise((resolve) => (done = resolve));
const began = performance.now();
await boss.work(queue, { batchSize: 1000, localConcurrency: 2, burstWhenBatchFull: true }, async (batch) => {
  left -= batch.length;
  if (left === 0) done();
});
await allRan;
await report(url, began, "SELECT NOT EXISTS (SELECT FROM pgboss.job WHERE state < 'completed') AS over");
await boss.stop({ graceful: false });

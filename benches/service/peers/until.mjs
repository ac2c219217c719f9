// Waits until what is asked of the database is so, and says how long it took since the worker began.
import pg from "pg";

export async function report(url, began, isOver) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  while (!(await client.query(isOver)).rows[0].over) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000 }));
  await client.end();
}

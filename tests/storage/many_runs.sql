-- As many runs as wanted (`:runs`, at least 1,000), all made of the one that is stored already, which goes. Benchmarks and tests of plans read this.
--
-- A run a minute, of fifty experiments on three targets, every tenth with one tag and every thousandth with others. The newest 300 are
-- queued, 300 before them are running, a few of the rest have failed.
BEGIN;
-- Nothing that triggers and foreign keys would say is new.
SET LOCAL session_replication_role = replica;

INSERT INTO compute_targets (name, type, backend, max_nodes, gpus_per_node, created_at, updated_at)
SELECT others.name, type, backend, max_nodes, gpus_per_node, created_at, updated_at
FROM compute_targets, (VALUES ('gpu'), ('batch')) AS others (name) WHERE compute_targets.name = 'local';

CREATE TEMPORARY TABLE stored ON COMMIT DROP AS SELECT * FROM runs LIMIT 1;
DELETE FROM runs;
DELETE FROM run_events;

CREATE TEMPORARY TABLE numbered ON COMMIT DROP AS
SELECT n, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id,
       timestamptz '2024-01-01' + n * interval '1 minute' AS created_at,
       CASE WHEN n > :runs - 300 THEN 'Queued' WHEN n > :runs - 600 THEN 'Running' WHEN n % 97 = 0 THEN 'Failed' ELSE 'Completed' END AS status
FROM generate_series(1, :runs) AS n;

INSERT INTO runs (id, experiment_name, display_name, estimator_id, compute_target, backend, definition, findings, plan, tags,
                  max_attempts, status, cause, exit_code, attempt, created_at, started_at, finished_at, event_count, next_step_at,
                  queued_at, node, caller, lease_token, lease_owner, lease_expires_at)
SELECT numbered.id, 'experiment-' || n % 50, display_name, estimator_id,
       CASE WHEN n % 10 < 7 THEN 'local' WHEN n % 10 < 9 THEN 'gpu' ELSE 'batch' END,
       backend, definition, findings, plan,
       CASE WHEN n % 1000 = 0 THEN jsonb_build_object('sweep', n::text, 'owner', 'ada')
            WHEN n % 10 = 0 THEN jsonb_build_object('team', 'vision') ELSE '{}' END,
       1, numbered.status, CASE WHEN numbered.status = 'Failed' THEN 'script_failed' END,
       CASE numbered.status WHEN 'Failed' THEN 1 WHEN 'Completed' THEN 0 END,
       CASE WHEN numbered.status = 'Queued' THEN 0 ELSE 1 END,
       numbered.created_at,
       CASE WHEN numbered.status <> 'Queued' THEN numbered.created_at + interval '2 seconds' END,
       CASE WHEN numbered.status IN ('Completed', 'Failed') THEN numbered.created_at + interval '50 seconds' END,
       CASE WHEN numbered.status = 'Queued' THEN 1 ELSE 2 END, '-infinity', numbered.created_at,
       CASE WHEN numbered.status = 'Running' THEN 'node' END, '',
       CASE WHEN numbered.status = 'Running' THEN gen_random_uuid() END,
       CASE WHEN numbered.status = 'Running' THEN 'node' END,
       CASE WHEN numbered.status = 'Running' THEN now() + interval '1 day' ELSE '-infinity' END
FROM numbered, stored;

INSERT INTO run_attempts (run_id, number, node, host, created_at, started_at, finished_at, cause, exit_code)
SELECT id, 1, 'node', 'host', created_at + interval '1 second', created_at + interval '2 seconds',
       CASE WHEN status <> 'Running' THEN created_at + interval '50 seconds' END,
       CASE WHEN status = 'Failed' THEN 'script_failed' END,
       CASE status WHEN 'Failed' THEN 1 WHEN 'Completed' THEN 0 END
FROM numbered WHERE status <> 'Queued';

INSERT INTO run_events (run_id, sequence, occurred_at, attempt, kind, status)
SELECT id, 1, created_at, 0, 'status', 'Queued' FROM numbered
UNION ALL
SELECT id, 2, created_at + interval '50 seconds', 1, 'status', status FROM numbered WHERE status <> 'Queued';
COMMIT;

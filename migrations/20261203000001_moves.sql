-- Moves of many runs, and several of one run, are written at once: what looks at each row is as short as it can be.

-- Which status may be written after which: the moves of `domain::run::Status::may_become` (the table `run_status_transitions` is the
-- same, for people), and those of a short run, whose `Finalizing` is written together with its end. A test compares.
CREATE FUNCTION run_may_become(former text, next text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE former
        WHEN 'Queued' THEN next IN ('Provisioning', 'Preparing', 'CancelRequested', 'Canceled', 'Failed')
        WHEN 'Preparing' THEN next IN ('Queued', 'Starting', 'CancelRequested', 'Failed')
        WHEN 'Starting' THEN next IN ('Queued', 'Running', 'Finalizing', 'NotResponding', 'CancelRequested', 'Failed', 'Completed', 'Canceled')
        WHEN 'Running' THEN next IN ('Queued', 'Finalizing', 'NotResponding', 'CancelRequested', 'Failed', 'Completed', 'Canceled')
        WHEN 'Finalizing' THEN next IN ('Queued', 'Completed', 'Failed', 'Canceled', 'CancelRequested')
        WHEN 'Provisioning' THEN next IN ('Queued', 'Preparing', 'CancelRequested', 'Failed')
        WHEN 'NotResponding' THEN next IN ('Queued', 'Starting', 'Running', 'Finalizing', 'CancelRequested', 'Failed', 'Completed', 'Canceled')
        WHEN 'CancelRequested' THEN next = 'Canceled'
        WHEN 'NotStarted' THEN next IN ('Queued', 'Canceled')
        ELSE false
    END
$$;

-- Every condition is an expression that PL/pgSQL evaluates without a query.
CREATE OR REPLACE FUNCTION guard_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status <> OLD.status AND NOT run_may_become(OLD.status, NEW.status) THEN
        RAISE EXCEPTION 'run % cannot go from % to %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'run_status_transitions';
    END IF;
    IF OLD.status IN ('Completed', 'Failed', 'Canceled')
        AND (NEW.status, NEW.cause, NEW.detail, NEW.exit_code, NEW.signal, NEW.attempt, NEW.started_at, NEW.finished_at,
             NEW.cancel_requested_at, NEW.stop_sent_at, NEW.cancel_evidence, NEW.plan::text, NEW.definition::text,
             NEW.actual_environment::text, NEW.max_attempts, NEW.lease_token, NEW.event_count)
            IS DISTINCT FROM
            (OLD.status, OLD.cause, OLD.detail, OLD.exit_code, OLD.signal, OLD.attempt, OLD.started_at, OLD.finished_at,
             OLD.cancel_requested_at, OLD.stop_sent_at, OLD.cancel_evidence, OLD.plan::text, OLD.definition::text,
             OLD.actual_environment::text, OLD.max_attempts, OLD.lease_token, OLD.event_count)
    THEN
        RAISE EXCEPTION 'run % has ended; its end is not rewritten', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'terminal_runs_are_immutable';
    END IF;
    IF NEW.attempt < OLD.attempt THEN
        RAISE EXCEPTION 'run %: attempts never go backwards', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'attempts_never_go_backwards';
    END IF;
    NEW.version := OLD.version + 1;
    RETURN NEW;
END $$;

-- Once for all events of a statement, and not at all where there are no webhooks.
CREATE OR REPLACE FUNCTION tell_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhooks WHERE enabled) THEN
        RETURN NULL;
    END IF;
    INSERT INTO webhook_deliveries (id, webhook, run_id, sequence, status, tries_left, created_at, next_attempt_at)
    SELECT uuid_v7(), webhooks.name, told.run_id, told.sequence, 'pending', 10, told.occurred_at, now()
    FROM told JOIN runs ON runs.id = told.run_id JOIN webhooks ON webhooks.project = runs.project
    WHERE told.kind = 'status' AND webhooks.enabled
      AND (webhooks.statuses = '{}' OR told.status = ANY (webhooks.statuses))
      AND (webhooks.experiment_name IS NULL OR webhooks.experiment_name = runs.experiment_name)
    ORDER BY told.run_id, told.sequence;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER tell_webhooks AFTER INSERT ON run_events REFERENCING NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION tell_webhooks();

-- Targets of one run have names that begin so (`domain::one_off_target`); an end on another target has nothing to remove.
CREATE OR REPLACE TRIGGER remove_one_off_target AFTER UPDATE OF status ON runs FOR EACH ROW
    WHEN (NEW.status IN ('Completed', 'Failed', 'Canceled') AND starts_with(NEW.compute_target, 'one-off-'))
    EXECUTE FUNCTION remove_one_off_target();

-- The same names as before, by an expression that costs a tenth: every move of a run checks it.
ALTER TABLE runs DROP CONSTRAINT runs_experiment_name_check;
ALTER TABLE runs ADD CONSTRAINT runs_experiment_name_check
    CHECK (experiment_name ~ '^[a-zA-Z0-9][a-zA-Z0-9_-]*$' AND length(experiment_name) <= 255);

-- The oldest of a target's queue, whatever their priority: now and then they go first.
CREATE INDEX runs_queue_by_age ON runs (compute_target, created_at, id) WHERE status = 'Queued';
-- Every index costs each move of a run: those who hold places are found by `runs_due`, whoever's they are by `runs_live_of_target`.
DROP INDEX runs_live_of_caller;

-- What a run is made of, so that no index has to read it out of the plan at each move. Runs from before have none.
ALTER TABLE runs ADD COLUMN snapshot_id text COLLATE "C";
CREATE INDEX runs_made_of_snapshot ON runs (snapshot_id) WHERE snapshot_id IS NOT NULL;
CREATE INDEX runs_made_of_snapshot_before ON runs ((plan ->> 'snapshot_id')) WHERE snapshot_id IS NULL;
DROP INDEX runs_of_snapshot;

CREATE OR REPLACE FUNCTION hold_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted text;
BEGIN
    IF TG_TABLE_NAME = 'runs' THEN
        NEW.snapshot_id := NEW.plan ->> 'snapshot_id';
        wanted := NEW.snapshot_id;
    ELSE
        wanted := NEW.definition ->> 'source_directory';
    END IF;
    IF NEW.project <> 'default' THEN
        wanted := NEW.project || '/' || wanted;
    END IF;
    PERFORM FROM snapshots WHERE id = wanted FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the snapshot % is not there', wanted
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'the_snapshot_is_there';
    END IF;
    RETURN NEW;
END $$;

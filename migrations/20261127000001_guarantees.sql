-- What the guarantees of a run's life need: by what a cancel is known to be carried out, after what a run is tried again, how long
-- it may wait, whose it is, and what it repeats.
ALTER TABLE runs
    -- When the backend took the order to end the run, and what it answered when nothing of it was left.
    ADD COLUMN stop_sent_at timestamptz,
    ADD COLUMN cancel_evidence text,
    -- Causes besides the system's own after which another attempt is made.
    ADD COLUMN retry_on text[] NOT NULL DEFAULT '{}' CHECK (retry_on <@ ARRAY['script_failed']),
    -- Since when the run has been in the queue, this time; and since when it waits on the cluster.
    ADD COLUMN queued_at timestamptz,
    ADD COLUMN waits_since timestamptz,
    ADD COLUMN max_queue_duration_seconds bigint CHECK (max_queue_duration_seconds >= 1),
    -- Until when it may be queued, by the database's clock.
    ADD COLUMN queue_deadline timestamptz,
    -- Who posted it: the name of the token.
    ADD COLUMN caller text COLLATE "C" NOT NULL DEFAULT '',
    -- The run that this one repeats.
    ADD COLUMN rerun_of uuid REFERENCES runs,
    -- SHA-256 of the body under which a client put the run at an id of its own making.
    ADD COLUMN put_hash bytea CHECK (octet_length(put_hash) = 32);
-- When a worker that serves the target was last heard of.
ALTER TABLE compute_targets ADD COLUMN worker_seen_at timestamptz;
UPDATE runs SET queued_at = created_at WHERE status = 'Queued';
UPDATE runs SET waits_for = NULL WHERE status <> 'Starting' AND waits_for IS NOT NULL;
CREATE INDEX runs_queue_deadlines ON runs (queue_deadline) WHERE status = 'Queued' AND queue_deadline IS NOT NULL;
CREATE INDEX runs_live_of_caller ON runs (caller) WHERE status NOT IN ('Completed', 'Failed', 'Canceled');

-- A run that waited too long ends without an attempt.
ALTER TABLE runs DROP CONSTRAINT runs_cause_check;
ALTER TABLE runs ADD CONSTRAINT runs_cause_check CHECK (cause IN ('script_failed', 'canceled_by_user', 'max_run_duration_exceeded',
    'preempted', 'compute_lost', 'environment_build_failed', 'dispatch_failed', 'internal', 'max_queue_duration_exceeded'));

-- Impossible rows are kept out, whoever writes them.
ALTER TABLE runs
    ADD CONSTRAINT a_cancel_was_asked_for CHECK (status <> 'CancelRequested' OR cancel_requested_at IS NOT NULL),
    ADD CONSTRAINT what_waits_on_a_cluster_is_starting CHECK (waits_for IS NULL OR status = 'Starting'),
    ADD CONSTRAINT what_was_started_has_an_attempt CHECK (attempt >= 1 OR status IN ('Queued', 'Canceled', 'Failed')),
    ADD CONSTRAINT a_completed_script_ended_with_zero CHECK (status <> 'Completed' OR exit_code = 0),
    ADD CONSTRAINT attempts_are_limited CHECK (attempt <= max_attempts);

-- The end of a run is written once: nothing of what it says changes afterwards, and the row does not go.
CREATE OR REPLACE FUNCTION guard_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status <> OLD.status AND NOT EXISTS (
        SELECT FROM run_status_transitions WHERE from_status = OLD.status AND to_status = NEW.status
    ) THEN
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

-- The same for attempts that have ended.
CREATE FUNCTION guard_run_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.finished_at, NEW.cause, NEW.exit_code, NEW.signal, NEW.node)
        IS DISTINCT FROM (OLD.finished_at, OLD.cause, OLD.exit_code, OLD.signal, OLD.node)
    THEN
        RAISE EXCEPTION 'attempt % of run % has ended; its end is not rewritten', OLD.number, OLD.run_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ended_attempts_are_immutable';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_run_attempt BEFORE UPDATE ON run_attempts FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL)
    EXECUTE FUNCTION guard_run_attempt();

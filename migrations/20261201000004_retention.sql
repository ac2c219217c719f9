-- Old runs may go, with what only they needed; and a run says by which trace it came.

-- W3C Trace Context of the request that the run was accepted from.
ALTER TABLE runs ADD COLUMN trace_parent text CHECK (trace_parent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$');

-- What is old, and what refers to what: for nobody else's queries.
CREATE INDEX runs_oldest_ended ON runs (finished_at, id) WHERE finished_at IS NOT NULL;
CREATE INDEX runs_of_estimator ON runs (estimator_id);
CREATE INDEX runs_of_snapshot ON runs ((plan ->> 'snapshot_id'));
CREATE INDEX estimators_of_snapshot ON estimators ((definition ->> 'source_directory'));
CREATE INDEX webhook_deliveries_of_run ON webhook_deliveries (run_id, sequence);

-- A run keeps the id of the one that it repeats, whether that one is there still or not.
ALTER TABLE runs DROP CONSTRAINT runs_rerun_of_fkey;

-- What webhooks were told of a run goes with it.
ALTER TABLE webhook_deliveries DROP CONSTRAINT webhook_deliveries_run_id_sequence_fkey,
    ADD FOREIGN KEY (run_id, sequence) REFERENCES run_events (run_id, sequence) ON DELETE CASCADE;

-- Estimators that came with a run, which nobody stored for later: they go with the last run that is made of them.
ALTER TABLE estimators ADD COLUMN came_with_run boolean NOT NULL DEFAULT false;

-- When it was last uploaded, by whomever and by the database's clock: whoever uploads a tree is about to use it. Whose it is, and what
-- its bytes are kept under, which several projects may share.
ALTER TABLE snapshots
    ADD COLUMN uploaded_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN project text COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (CASE WHEN strpos(id, '/') > 0 THEN split_part(id, '/', 1) ELSE 'default' END) STORED,
    ADD COLUMN digest text COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (CASE WHEN strpos(id, '/') > 0 THEN split_part(id, '/', 2) ELSE id END) STORED;
CREATE INDEX snapshots_of_digest ON snapshots (digest);

-- Files that nothing refers to any more, written in the transaction that removes the rows: whoever dies before the files are
-- gone leaves it to the next.
CREATE TABLE artifact_deletions (
    kind   text NOT NULL CHECK (kind IN ('run', 'snapshot')),
    id     text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    -- Of a run once more after the first time: what was being written meanwhile is found then.
    last   boolean NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX artifact_deletions_due ON artifact_deletions (due_at);

-- Only what has ended goes, whoever deletes it.
CREATE FUNCTION guard_run_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status NOT IN ('Completed', 'Failed', 'Canceled') THEN
        RAISE EXCEPTION 'run % has not ended', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'only_ended_runs_are_deleted';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER guard_run_deletion BEFORE DELETE ON runs FOR EACH ROW EXECUTE FUNCTION guard_run_deletion();

-- Nothing is made of a snapshot that is gone. The lock is what a foreign key takes: a snapshot that is being deleted is waited for,
-- and one that is being used cannot be deleted until the use can be seen.
CREATE FUNCTION hold_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted text;
BEGIN
    IF TG_TABLE_NAME = 'runs' THEN
        wanted := NEW.plan ->> 'snapshot_id';
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
CREATE TRIGGER hold_snapshot BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION hold_snapshot();
CREATE TRIGGER hold_snapshot BEFORE INSERT ON estimators FOR EACH ROW EXECUTE FUNCTION hold_snapshot();

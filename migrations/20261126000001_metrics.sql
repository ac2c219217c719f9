-- What scripts record about their runs.

-- How far each process's file of records has been taken over: moved in the transaction that writes what was read.
CREATE TABLE run_record_files (
    run_id  uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    attempt integer NOT NULL,
    name    text COLLATE "C" NOT NULL,
    bytes   bigint NOT NULL CHECK (bytes >= 0),
    -- Why the rest of it is not read.
    fault   text,
    PRIMARY KEY (run_id, attempt, name)
);

-- `json` keeps numbers as they were spelled.
CREATE TABLE run_metrics (
    run_id      uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    attempt     integer NOT NULL,
    sequence    bigint NOT NULL CHECK (sequence >= 1),
    name        text COLLATE "C" NOT NULL,
    kind        text NOT NULL,
    value       json NOT NULL,
    step        bigint,
    rank        integer NOT NULL CHECK (rank >= 0),
    recorded_at timestamptz NOT NULL,
    description text,
    child       text,
    PRIMARY KEY (run_id, attempt, sequence)
);
CREATE INDEX run_metrics_by_name ON run_metrics (run_id, attempt, name, sequence);

ALTER TABLE runs ADD COLUMN properties jsonb NOT NULL DEFAULT '{}';
-- What the script said when it called itself failed.
ALTER TABLE run_attempts ADD COLUMN reported_failure text;

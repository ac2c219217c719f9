-- The first schema. Migrations run forwards only; a later one may add, never rewrite.

-- Source trees, addressed by their content. The bytes lie in the artifact store.
CREATE TABLE snapshots (
    id          text PRIMARY KEY CHECK (id ~ '^sha256:[0-9a-f]{64}$'),
    file_count  bigint NOT NULL CHECK (file_count >= 0),
    bytes       bigint NOT NULL CHECK (bytes >= 0),
    created_at  timestamptz NOT NULL
);

CREATE TABLE snapshot_files (
    snapshot_id text NOT NULL REFERENCES snapshots ON DELETE CASCADE,
    path        text COLLATE "C" NOT NULL,
    bytes       bigint NOT NULL CHECK (bytes >= 0),
    executable  boolean NOT NULL,
    PRIMARY KEY (snapshot_id, path)
);

CREATE TABLE compute_targets (
    name           text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$'),
    type           text NOT NULL,
    backend        json NOT NULL,
    max_nodes      integer NOT NULL CHECK (max_nodes >= 1),
    vm_size        text,
    vm_priority    text,
    gpus_per_node  integer NOT NULL CHECK (gpus_per_node >= 0),
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    -- What the last worker that looked found; null until one has.
    reachable      boolean,
    health_since   timestamptz,
    health_detail  text,
    -- How many active runs that worker admits where the backend sets no limit of its own.
    default_limit  integer
);

-- `local` exists from the start; its limits may be changed, its type not.
INSERT INTO compute_targets (name, type, backend, max_nodes, gpus_per_node, created_at, updated_at)
VALUES ('local', 'local', '{"kind":"process"}', 1, 0, now(), now());

-- `json`, not `jsonb`: jsonb reorders keys, and the order of script_params is argv.
CREATE TABLE estimators (
    id          uuid PRIMARY KEY,
    framework   text NOT NULL,
    definition  json NOT NULL,
    findings    json NOT NULL,
    environment json NOT NULL,
    created_at  timestamptz NOT NULL,
    archived_at timestamptz
);
CREATE INDEX estimators_newest ON estimators (created_at DESC, id DESC) WHERE archived_at IS NULL;

-- Which status may follow which: the table of `domain::run::Status::may_become`, compared by a test.
CREATE TABLE run_status_transitions (
    from_status text NOT NULL,
    to_status   text NOT NULL,
    PRIMARY KEY (from_status, to_status)
);
INSERT INTO run_status_transitions VALUES
    ('NotStarted', 'Queued'), ('NotStarted', 'Canceled'),
    ('Queued', 'Provisioning'), ('Queued', 'Preparing'), ('Queued', 'CancelRequested'), ('Queued', 'Canceled'), ('Queued', 'Failed'),
    ('Provisioning', 'Queued'), ('Provisioning', 'Preparing'), ('Provisioning', 'CancelRequested'), ('Provisioning', 'Failed'),
    ('Preparing', 'Queued'), ('Preparing', 'Starting'), ('Preparing', 'CancelRequested'), ('Preparing', 'Failed'),
    ('Starting', 'Queued'), ('Starting', 'Running'), ('Starting', 'Finalizing'), ('Starting', 'NotResponding'), ('Starting', 'CancelRequested'), ('Starting', 'Failed'),
    ('Running', 'Queued'), ('Running', 'Finalizing'), ('Running', 'NotResponding'), ('Running', 'CancelRequested'), ('Running', 'Failed'),
    ('NotResponding', 'Queued'), ('NotResponding', 'Starting'), ('NotResponding', 'Running'), ('NotResponding', 'Finalizing'), ('NotResponding', 'CancelRequested'), ('NotResponding', 'Failed'),
    ('Finalizing', 'Queued'), ('Finalizing', 'Completed'), ('Finalizing', 'Failed'), ('Finalizing', 'Canceled'), ('Finalizing', 'CancelRequested'),
    ('CancelRequested', 'Canceled');

-- A run is its own queue entry: there is no second place that could disagree.
CREATE TABLE runs (
    id                  uuid PRIMARY KEY,
    experiment_name     text COLLATE "C" NOT NULL CHECK (experiment_name ~ '^[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}$'),
    display_name        text,
    estimator_id        uuid NOT NULL REFERENCES estimators,
    compute_target      text COLLATE "C" NOT NULL,
    -- The target's backend as it was when the run was accepted: changing a target does not lose its runs.
    backend             json NOT NULL,
    definition          json NOT NULL,
    findings            json NOT NULL,
    plan                json NOT NULL,
    actual_environment  json,
    tags                jsonb NOT NULL DEFAULT '{}',
    priority            integer NOT NULL DEFAULT 0,
    max_attempts        integer NOT NULL DEFAULT 1 CHECK (max_attempts >= 1),

    status              text NOT NULL CHECK (status IN ('Queued', 'Provisioning', 'Preparing', 'Starting', 'Running',
                            'NotResponding', 'Finalizing', 'CancelRequested', 'Completed', 'Failed', 'Canceled')),
    cause               text CHECK (cause IN ('script_failed', 'canceled_by_user', 'max_run_duration_exceeded', 'preempted',
                            'compute_lost', 'environment_build_failed', 'dispatch_failed', 'internal')),
    detail              text,
    exit_code           integer,
    signal              integer,
    attempt             integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    created_at          timestamptz NOT NULL,
    started_at          timestamptz,
    finished_at         timestamptz,
    cancel_requested_at timestamptz,
    event_count         bigint NOT NULL DEFAULT 0,
    version             bigint NOT NULL DEFAULT 0,

    -- The lease. '-infinity' instead of null, so that "free" needs no special case; the database's clock decides.
    lease_token         uuid,
    lease_owner         text,
    lease_expires_at    timestamptz NOT NULL DEFAULT '-infinity',
    next_step_at        timestamptz NOT NULL,
    -- The worker node that holds the run's processes, where only that node can reach them.
    node                text,

    CONSTRAINT finished_means_terminal CHECK ((finished_at IS NOT NULL) = (status IN ('Completed', 'Failed', 'Canceled'))),
    CONSTRAINT ends_have_causes CHECK (CASE status WHEN 'Completed' THEN cause IS NULL WHEN 'Failed' THEN cause IS NOT NULL
                                       WHEN 'Canceled' THEN cause IS NOT NULL ELSE cause IS NULL END),
    CONSTRAINT lease_is_whole CHECK ((lease_token IS NULL) = (lease_expires_at = '-infinity')),
    CONSTRAINT queued_and_ended_runs_have_no_lease
        CHECK (status NOT IN ('Queued', 'Completed', 'Failed', 'Canceled') OR lease_token IS NULL)
);
CREATE INDEX runs_newest ON runs (created_at DESC, id DESC);
CREATE INDEX runs_newest_of_experiment ON runs (experiment_name, created_at DESC, id DESC);
CREATE INDEX runs_queue ON runs (compute_target, priority DESC, created_at, id) WHERE status = 'Queued';
CREATE INDEX runs_due ON runs (next_step_at)
    WHERE status IN ('Provisioning', 'Preparing', 'Starting', 'Running', 'NotResponding', 'Finalizing', 'CancelRequested');
CREATE INDEX runs_live_of_target ON runs (compute_target) WHERE status NOT IN ('Completed', 'Failed', 'Canceled');
CREATE INDEX runs_tags ON runs USING gin (tags jsonb_path_ops);

-- Impossible moves are refused here too, whoever asks.
CREATE FUNCTION guard_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status <> OLD.status AND NOT EXISTS (
        SELECT FROM run_status_transitions WHERE from_status = OLD.status AND to_status = NEW.status
    ) THEN
        RAISE EXCEPTION 'run % cannot go from % to %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'run_status_transitions';
    END IF;
    IF OLD.status IN ('Completed', 'Failed', 'Canceled')
        AND (NEW.cause, NEW.exit_code, NEW.signal, NEW.attempt, NEW.started_at, NEW.finished_at)
            IS DISTINCT FROM (OLD.cause, OLD.exit_code, OLD.signal, OLD.attempt, OLD.started_at, OLD.finished_at)
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
CREATE TRIGGER guard_run BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION guard_run();

-- Attempts are rows, never a counter that is reset.
CREATE TABLE run_attempts (
    run_id            uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    number            integer NOT NULL CHECK (number >= 1),
    node              text NOT NULL,
    created_at        timestamptz NOT NULL,
    started_at        timestamptz,
    finished_at       timestamptz,
    cause             text,
    detail            text,
    exit_code         integer,
    signal            integer,
    cpu_seconds       double precision,
    peak_memory_bytes bigint,
    PRIMARY KEY (run_id, number)
);

-- Append-only history.
CREATE TABLE run_events (
    run_id      uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    sequence    bigint NOT NULL CHECK (sequence >= 1),
    occurred_at timestamptz NOT NULL,
    attempt     integer NOT NULL,
    kind        text NOT NULL,
    status      text NOT NULL,
    cause       text,
    detail      text,
    PRIMARY KEY (run_id, sequence)
);

-- How many bytes of each log file are in the artifact store. Their content lies there in segments of fixed size.
CREATE TABLE run_logs (
    run_id   uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    attempt  integer NOT NULL,
    name     text COLLATE "C" NOT NULL,
    bytes    bigint NOT NULL CHECK (bytes >= 0),
    complete boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run_id, attempt, name)
);

CREATE TABLE run_outputs (
    run_id   uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    attempt  integer NOT NULL,
    name     text COLLATE "C" NOT NULL,
    bytes    bigint NOT NULL CHECK (bytes >= 0),
    sha256   text NOT NULL,
    PRIMARY KEY (run_id, attempt, name)
);

-- Answers to creating requests that carried an Idempotency-Key, written in the transaction of the work itself.
CREATE TABLE idempotency_keys (
    scope      text NOT NULL,
    key        text NOT NULL,
    body_hash  bytea NOT NULL,
    status     integer NOT NULL,
    location   text,
    response   json NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_oldest ON idempotency_keys (created_at);

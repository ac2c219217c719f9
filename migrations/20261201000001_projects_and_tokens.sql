-- Projects: whose a resource is. The version before this one goes on serving while this runs and after: everything it makes is the
-- project `default`'s.

-- Kept names are bare in the project `default`, and `<project>/<name>` in any other; no name has a `/` in it.
ALTER TABLE datastores DROP CONSTRAINT datastores_name_check;
ALTER TABLE datastores
    ADD CONSTRAINT datastores_name_check CHECK (name ~ '^([a-z0-9-]{1,63}/)?[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$'),
    ADD COLUMN project text COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (CASE WHEN strpos(name, '/') > 0 THEN split_part(name, '/', 1) ELSE 'default' END) STORED;
CREATE INDEX datastores_of_project ON datastores (project, name);

ALTER TABLE webhooks DROP CONSTRAINT webhooks_name_check;
ALTER TABLE webhooks
    ADD CONSTRAINT webhooks_name_check CHECK (name ~ '^([a-z0-9-]{1,63}/)?[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$'),
    ADD COLUMN project text COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (CASE WHEN strpos(name, '/') > 0 THEN split_part(name, '/', 1) ELSE 'default' END) STORED;
CREATE INDEX webhooks_of_project ON webhooks (project, name);

-- A tree is the same bytes for everybody; that it is there is known to the projects that sent it.
ALTER TABLE snapshots DROP CONSTRAINT snapshots_id_check;
ALTER TABLE snapshots ADD CONSTRAINT snapshots_id_check CHECK (id ~ '^([a-z0-9-]{1,63}/)?sha256:[0-9a-f]{64}$');

ALTER TABLE estimators ADD COLUMN project text COLLATE "C" NOT NULL DEFAULT 'default';
CREATE INDEX estimators_newest_of_project ON estimators (project, created_at DESC, id DESC) WHERE archived_at IS NULL;

ALTER TABLE runs ADD COLUMN project text COLLATE "C" NOT NULL DEFAULT 'default';
CREATE INDEX runs_newest_of_project ON runs (project, created_at DESC, id DESC);
CREATE INDEX runs_newest_of_project_experiment ON runs (project, experiment_name, created_at DESC, id DESC);
-- Nobody lists runs across projects.
DROP INDEX runs_newest, runs_newest_of_experiment, estimators_newest;

-- Who may use a target: everybody when nobody is named.
ALTER TABLE compute_targets ADD COLUMN projects text[] NOT NULL DEFAULT '{}';

-- A webhook is told of its own project's runs.
CREATE OR REPLACE FUNCTION tell_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (id, webhook, run_id, sequence, status, tries_left, created_at, next_attempt_at)
    SELECT uuid_v7(), webhooks.name, NEW.run_id, NEW.sequence, 'pending', 10, NEW.occurred_at, now()
    FROM webhooks, runs
    WHERE runs.id = NEW.run_id AND webhooks.enabled AND webhooks.project = runs.project
      AND (webhooks.statuses = '{}' OR NEW.status = ANY (webhooks.statuses))
      AND (webhooks.experiment_name IS NULL OR webhooks.experiment_name = runs.experiment_name);
    RETURN NULL;
END $$;

-- Bearer tokens: their digests only.
CREATE TABLE api_tokens (
    id             uuid PRIMARY KEY,
    digest         bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    name           text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    project        text COLLATE "C" NOT NULL CHECK (project ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    scope          text NOT NULL CHECK (scope IN ('read', 'submit', 'operate', 'admin')),
    created_at     timestamptz NOT NULL,
    -- Who made it: a caller, or nobody for one that was made at the database.
    created_by     text NOT NULL,
    expires_at     timestamptz,
    revoked_at     timestamptz,
    last_used_at   timestamptz,
    last_used_from text
);
CREATE INDEX api_tokens_newest ON api_tokens (created_at DESC, id DESC);

-- Who did what, when, from where, and what came of it. Rows are added and never changed.
CREATE TABLE audit_events (
    id          uuid PRIMARY KEY,
    occurred_at timestamptz NOT NULL,
    -- The caller's name within its project; empty for one that was not known.
    caller      text COLLATE "C" NOT NULL,
    project     text COLLATE "C" NOT NULL,
    credential  text NOT NULL,
    token_id    uuid,
    address     text,
    operation   text NOT NULL,
    method      text NOT NULL,
    path        text NOT NULL,
    status      integer NOT NULL,
    request_id  text NOT NULL
);
CREATE INDEX audit_events_newest ON audit_events (occurred_at DESC, id DESC);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is not rewritten'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'the_audit_trail_is_append_only';
END $$;
CREATE TRIGGER the_audit_trail_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

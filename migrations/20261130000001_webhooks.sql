-- A key is its caller's own.
ALTER TABLE idempotency_keys ADD COLUMN caller text NOT NULL DEFAULT '';
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey, ADD PRIMARY KEY (scope, caller, key);

-- The machine that an attempt ran on, by the name that people know it by; a cluster chooses its own.
ALTER TABLE run_attempts ADD COLUMN host text;

-- Webhooks: who wants to be told of runs, and what they were told.
CREATE TABLE webhooks (
    name            text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$'),
    url             text NOT NULL,
    -- The statuses of which it is told; of all when there are none.
    statuses        text[] NOT NULL,
    -- The one experiment of whose runs it is told; of all when null.
    experiment_name text COLLATE "C",
    -- What deliveries are signed with, encrypted; and what they are signed with besides, until then.
    secret          bytea NOT NULL,
    previous_secrets bytea[] NOT NULL DEFAULT '{}',
    previous_until  timestamptz,
    enabled         boolean NOT NULL,
    disabled_reason text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT an_old_secret_ends CHECK ((previous_secrets = '{}') = (previous_until IS NULL)),
    CONSTRAINT a_webhook_that_works_has_no_reason_not_to CHECK (NOT enabled OR disabled_reason IS NULL)
);

CREATE TABLE webhook_deliveries (
    id              uuid PRIMARY KEY,
    webhook         text COLLATE "C" NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    run_id          uuid NOT NULL,
    sequence        bigint NOT NULL,
    status          text NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
    -- How often it was tried, and how often it still is before it is given up.
    attempts        integer NOT NULL DEFAULT 0,
    tries_left      integer NOT NULL CHECK (tries_left >= 0),
    created_at      timestamptz NOT NULL,
    -- When it is due, by the database's clock.
    next_attempt_at timestamptz,
    finished_at     timestamptz,
    FOREIGN KEY (run_id, sequence) REFERENCES run_events (run_id, sequence),
    CONSTRAINT what_is_pending_is_due_once CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT what_is_pending_has_no_end CHECK ((status = 'pending') = (finished_at IS NULL))
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_newest ON webhook_deliveries (webhook, created_at DESC, id DESC);
CREATE INDEX webhook_deliveries_oldest ON webhook_deliveries (finished_at) WHERE status <> 'pending';

CREATE TABLE webhook_attempts (
    delivery_id           uuid NOT NULL REFERENCES webhook_deliveries ON DELETE CASCADE,
    number                integer NOT NULL,
    started_at            timestamptz NOT NULL,
    duration_milliseconds bigint NOT NULL,
    status_code           integer,
    error                 text,
    PRIMARY KEY (delivery_id, number)
);

-- A UUIDv7 (RFC 9562): a random one with the milliseconds in its first 48 bits.
CREATE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(
        overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$$;

-- In the transaction that changes the status, whoever changes it: what is told is exactly what happened, and nothing is left out.
CREATE FUNCTION tell_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (id, webhook, run_id, sequence, status, tries_left, created_at, next_attempt_at)
    SELECT uuid_v7(), webhooks.name, NEW.run_id, NEW.sequence, 'pending', 10, NEW.occurred_at, now()
    FROM webhooks, runs
    WHERE runs.id = NEW.run_id AND webhooks.enabled
      AND (webhooks.statuses = '{}' OR NEW.status = ANY (webhooks.statuses))
      AND (webhooks.experiment_name IS NULL OR webhooks.experiment_name = runs.experiment_name);
    RETURN NULL;
END $$;
CREATE TRIGGER tell_webhooks AFTER INSERT ON run_events FOR EACH ROW WHEN (NEW.kind = 'status') EXECUTE FUNCTION tell_webhooks();

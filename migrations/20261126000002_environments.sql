-- Built environments, and the worker nodes that keep them. What is on a node's disk decides: rows follow it.
CREATE TABLE environments (
    key            text COLLATE "C" NOT NULL CHECK (key ~ '^[0-9a-f]{64}$'),
    node           text COLLATE "C" NOT NULL,
    kind           text NOT NULL,
    python_version text NOT NULL,
    packages       text[] NOT NULL,
    bytes          bigint NOT NULL CHECK (bytes >= 0),
    created_at     timestamptz NOT NULL,
    last_used_at   timestamptz NOT NULL,
    -- How many runs found it there, and how many had it built.
    hits           bigint NOT NULL DEFAULT 0 CHECK (hits >= 0),
    misses         bigint NOT NULL DEFAULT 0 CHECK (misses >= 0),
    PRIMARY KEY (key, node)
);

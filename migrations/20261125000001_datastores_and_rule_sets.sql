-- What definitions refer to besides targets: datastores.
CREATE TABLE datastores (
    name       text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$'),
    url        text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- What a target says it has.
ALTER TABLE compute_targets
    ADD COLUMN containers text NOT NULL DEFAULT 'auto' CHECK (containers IN ('auto', 'docker', 'podman', 'never')),
    ADD COLUMN conda      text NOT NULL DEFAULT 'auto' CHECK (conda IN ('auto', 'never'));

-- The rules that an estimator was accepted under. Those that are there already were accepted under the first set.
ALTER TABLE estimators ADD COLUMN rule_set_version text NOT NULL DEFAULT '1';
ALTER TABLE estimators ALTER COLUMN rule_set_version DROP DEFAULT;

-- A target that is made for one run, and is gone when the run has ended. All of them share one limit, that of the pool ''.
ALTER TABLE compute_targets
    ADD COLUMN one_off_run uuid UNIQUE REFERENCES runs ON DELETE CASCADE,
    ADD COLUMN pool text COLLATE "C" NOT NULL GENERATED ALWAYS AS (CASE WHEN one_off_run IS NULL THEN name ELSE '' END) STORED;

-- In the same transaction as the end, whoever writes it.
CREATE FUNCTION remove_one_off_target() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM compute_targets WHERE one_off_run = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER remove_one_off_target AFTER UPDATE OF status ON runs FOR EACH ROW
    WHEN (NEW.status IN ('Completed', 'Failed', 'Canceled')) EXECUTE FUNCTION remove_one_off_target();

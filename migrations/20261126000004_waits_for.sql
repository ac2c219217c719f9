-- What a run that was handed to a cluster waits for there, in the cluster's words; null when it does not wait. Shown as `Queued`.
ALTER TABLE runs ADD COLUMN waits_for text;

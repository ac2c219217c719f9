-- The audit trail is not rewritten in a session that takes itself for a replica's either (session_replication_role), where ordinary
-- triggers are silent. Who owns the table can still take the trigger away, which `estimatord doctor` sees.
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER the_audit_trail_is_append_only;

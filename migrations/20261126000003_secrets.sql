-- What is kept encrypted, under a key that is not in the database. Never shown.
ALTER TABLE datastores
    ADD COLUMN options     json NOT NULL DEFAULT '{}',
    ADD COLUMN credentials bytea;
ALTER TABLE estimators ADD COLUMN registry_password bytea;

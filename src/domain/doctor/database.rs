//! The database, and what is kept in it.

use chrono::{DateTime, TimeDelta, Utc};

use super::Finding;
use crate::domain::schema::SchemaState;

/// As `server_version_num` counts: the oldest version that the service's SQL runs on.
const OLDEST: i32 = 130_000;
/// Leases end by the database's clock and stamps are the service's: beyond this people read one before the other.
const CLOCKS_APART: TimeDelta = TimeDelta::seconds(2);
/// Signed requests to clouds and Slurm's authentication fail beyond this.
const CLOCKS_FAR_APART: TimeDelta = TimeDelta::minutes(5);

/// What a database server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// `server_version_num`.
    pub version: i32,
    /// Whether what is written is forced to the disk.
    pub fsync: bool,
    /// Whether pages are written whole after a checkpoint.
    pub full_page_writes: bool,
    /// `synchronous_commit`, for this user and database.
    pub synchronous_commit: String,
    /// How many connections ordinary users may have.
    pub connections: i64,
    /// Whether it only follows another server.
    pub is_standby: bool,
    /// Its clock.
    pub now: DateTime<Utc>,
}

/// What is to be said of a server, of which each replica takes as many connections as `pool`. `now` is this machine's clock.
#[must_use]
pub fn database(facts: &DatabaseFacts, pool: u32, now: DateTime<Utc>) -> Vec<Finding> {
    let mut findings = vec![version(facts)];
    if facts.is_standby {
        findings.push(Finding::error(
            "database",
            "it only follows another server, and takes no writes",
            "name the primary in DATABASE_URL, or promote this one",
        ));
    }
    findings.push(durability(facts));
    findings.push(connections(facts, pool));
    findings.push(clock(facts.now - now));
    findings
}

fn version(facts: &DatabaseFacts) -> Finding {
    let (major, minor) = (facts.version / 10_000, facts.version % 10_000);
    let message = format!("PostgreSQL {major}.{minor} answers");
    if facts.version < OLDEST {
        return Finding::error("database", message, "upgrade it: 13 is the oldest that works");
    }
    Finding::ok("database", message)
}

fn durability(facts: &DatabaseFacts) -> Finding {
    let mut off = Vec::new();
    if !facts.fsync {
        off.push("fsync = off");
    }
    if !facts.full_page_writes {
        off.push("full_page_writes = off");
    }
    // `local` and the remote ones wait for this server's disk at least.
    if facts.synchronous_commit == "off" {
        off.push("synchronous_commit = off");
    }
    if off.is_empty() {
        return Finding::ok("durability", "what is answered is on the disk");
    }
    Finding::error(
        "durability",
        format!("{}: a crash loses what was answered already", off.join(", ")),
        "set it to `on` in postgresql.conf, or by ALTER ROLE and ALTER DATABASE, and reload",
    )
}

fn connections(facts: &DatabaseFacts, pool: u32) -> Finding {
    // One more listens, and `migrate`, backups and people want some, too.
    let each = i64::from(pool) + 1;
    let replicas = facts.connections / each;
    let message = format!("{} connections are allowed, and a replica takes up to {each}", facts.connections);
    match replicas {
        0 => Finding::error("connections", message, "raise max_connections, or put a PgBouncer in front"),
        1 => Finding::warning(
            "connections",
            format!("{message}: there is no room for a second one, not even for a while"),
            "raise max_connections before you replace a running replica or add one",
        ),
        _ => Finding::ok("connections", format!("{message}: enough for {replicas}")),
    }
}

fn clock(ahead: TimeDelta) -> Finding {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let seconds = ahead.num_milliseconds() as f64 / 1000.0;
    let message = format!(
        "the database's is {:.1} s {}",
        seconds.abs(),
        if seconds < 0.0 { "behind" } else { "ahead" }
    );
    let mend = "let NTP (chrony, systemd-timesyncd) set the clocks of both machines";
    match ahead.abs() {
        apart if apart > CLOCKS_FAR_APART => Finding::error("clock", message, mend),
        apart if apart > CLOCKS_APART => Finding::warning("clock", message, mend),
        _ => Finding::ok("clock", "this machine and the database agree"),
    }
}

/// Whether notifications arrive; `listens` is whether the service waits for them.
#[must_use]
pub fn notifications(arrive: bool, listens: bool) -> Finding {
    match (arrive, listens) {
        (true, true) => Finding::ok("notifications", "they arrive: workers learn of work at once"),
        (true, false) => {
            Finding::ok("notifications", "they would arrive, and --no-database-listen leaves them alone")
        }
        (false, false) => {
            Finding::ok("notifications", "they do not arrive, and workers look for work every two seconds")
        }
        (false, true) => Finding::error(
            "notifications",
            "what is notified does not arrive, as behind a PgBouncer in transaction mode",
            "start the service with --no-database-listen, and PgBouncer (1.21 or newer) with max_prepared_statements; or use its \
             session mode, or the server itself",
        ),
    }
}

/// What a schema is; `migrates` is whether the service brings it up to date at its start.
#[must_use]
pub fn schema(state: &SchemaState, migrates: bool) -> Finding {
    match state {
        SchemaState::Current => Finding::ok("schema", "it is the one that this version knows"),
        SchemaState::Missing | SchemaState::Older { .. } if migrates => {
            Finding::warning("schema", state.to_string(), "the service does it at its next start")
        }
        SchemaState::Missing | SchemaState::Older { .. } => Finding::error(
            "schema",
            state.to_string(),
            "run `estimatord migrate`: with --no-migrate the service does not",
        ),
        SchemaState::Newer { .. } | SchemaState::Apart { .. } => Finding::error(
            "schema",
            state.to_string(),
            "see docs/operating.md, Upgrade; replicas of the older version that run already go on",
        ),
    }
}

/// What is to be said of the tables and triggers that the migrations made: `wrong` says of each that is not as they made it why.
#[must_use]
pub fn schema_objects(wrong: &[String]) -> Finding {
    let check = "schema objects";
    if wrong.is_empty() {
        return Finding::ok(check, "every table and trigger of the migrations is there");
    }
    Finding::error(
        check,
        wrong.join("; "),
        "the service does not take them away: find out who did. A trigger that is off is put back by its table's owner with ALTER \
         TABLE … ENABLE TRIGGER (ENABLE ALWAYS TRIGGER for the audit trail's); what is gone comes back with a restored backup",
    )
}

/// What is kept encrypted, and whether it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There is no key.
    NoKey {
        /// How many rows have something encrypted.
        rows: u64,
    },
    /// The key cannot be used.
    Unusable {
        /// Why.
        why: String,
    },
    /// There is a key.
    Key {
        /// How many rows have something encrypted.
        rows: u64,
        /// Those that are under another of the given keys.
        under_others: u64,
        /// What cannot be opened, and why.
        locked: Vec<String>,
    },
}

/// What is to be said of the key.
#[must_use]
pub fn secrets(kept: &Kept) -> Finding {
    let check = "secret key";
    match kept {
        Kept::NoKey { rows: 0 } => Finding::warning(
            check,
            "there is none: passwords of registries, credentials of datastores and webhooks are refused",
            "make one (`openssl rand -hex 32`) and name it with --secret-key-file, if you want them",
        ),
        Kept::NoKey { rows } => Finding::error(
            check,
            format!("there is none, and {rows} row(s) are encrypted"),
            "name the key that they were encrypted with by --secret-key-file",
        ),
        Kept::Unusable { why } => Finding::error(
            check,
            why.clone(),
            "name a file of mode 600 with 64 hexadecimal digits that the service's account may read",
        ),
        Kept::Key { rows, locked, .. } if !locked.is_empty() => Finding::error(
            check,
            format!("{} of {rows} row(s) do not open, the first: {}", locked.len(), locked[0]),
            "name the key that they are under with --other-secret-key-files, or send what is lost anew",
        ),
        Kept::Key { rows, under_others, .. } if *under_others > 0 => Finding::warning(
            check,
            format!(
                "{under_others} of {rows} row(s) are under another of the given keys: a rotation is not finished"
            ),
            "run `estimatord rotate-secret-key`",
        ),
        Kept::Key { rows, .. } => {
            Finding::ok(check, format!("it opens all that is encrypted: {rows} row(s)"))
        }
    }
}

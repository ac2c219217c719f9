//! Migrations run while the version before still serves: they only add.
//!
//! What is looked for are words, so a rule is stricter than it must be here and there; what is meant all the same is listed below with
//! the reason why the version before does not mind.

use std::{fs, path::Path};

/// The last migration from before anybody had to be upgraded.
const BASELINE: &str = "20261130000001_webhooks.sql";

/// A migration, the words in it that look as if they took something away, and why they do not.
const EXCEPTIONS: [(&str, &str, &str); 7] = [
    (PROJECTS, "datastores_name_check", WIDER),
    (PROJECTS, "webhooks_name_check", WIDER),
    (PROJECTS, "snapshots_id_check", WIDER),
    (MOVES, "runs_experiment_name_check", "the same names, written in another way"),
    (RETENTION, "runs_rerun_of_fkey", FREER),
    (RETENTION, "webhook_deliveries_run_id_sequence_fkey", FREER),
    (
        RETENTION,
        "FOREIGN KEY (run_id, sequence) REFERENCES run_events (run_id, sequence) ON DELETE CASCADE",
        FREER,
    ),
];
const MOVES: &str = "20261203000001_moves.sql";
const RETENTION: &str = "20261201000004_retention.sql";
const FREER: &str =
    "whatever the version before writes is taken as it was; it deletes no runs, and so sees none deleted";
const PROJECTS: &str = "20261201000001_projects_and_tokens.sql";
const WIDER: &str =
    "it takes all that it took; projects are used once every replica knows them (docs/operating.md)";

/// The statements of a migration in capitals, without comments, texts and the bodies of functions, and with single spaces.
fn statements(sql: &str) -> Vec<String> {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap_or(""));
    let mut text = lines.collect::<Vec<_>>().join(" ");
    for mark in ["$$", "'"] {
        // What stands between two marks is every second part.
        text = text.split(mark).step_by(2).collect::<Vec<_>>().join(" ? ");
    }
    let one_line =
        |statement: &str| statement.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
    text.split(';').map(one_line).filter(|statement| !statement.is_empty()).collect()
}

/// The parts of a statement between commas that are in no brackets.
fn parts(statement: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in statement.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().expect("one").push(c),
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

/// What the version before would notice of a migration.
fn takes_away(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    let statements = statements(sql);
    let makes = |kind: &str, name: &str| {
        let name = name.trim_end_matches('(').to_owned();
        statements.iter().any(|other| {
            other
                .strip_prefix(kind)
                .is_some_and(|rest| rest.trim_start_matches(" IF NOT EXISTS").trim().starts_with(&name))
        })
    };
    for statement in &statements {
        let words: Vec<&str> = statement.split(' ').collect();
        let gone =
            ["DROP TABLE", "DROP VIEW", "DROP TYPE", "DROP FUNCTION", "TRUNCATE", "DELETE FROM", "REVOKE"];
        if gone.iter().any(|start| statement.starts_with(start)) {
            found.push(statement.clone());
        }
        // A new table may have what it likes.
        if statement.starts_with("CREATE UNIQUE INDEX") {
            let table = words.iter().skip_while(|word| **word != "ON").nth(1).unwrap_or(&"");
            if !makes("CREATE TABLE", table.split('(').next().unwrap_or("")) {
                found.push(statement.clone());
            }
        }
        if !statement.starts_with("ALTER TABLE")
            || words.get(2).is_some_and(|name| makes("CREATE TABLE", name))
        {
            continue;
        }
        for part in parts(statement) {
            let part = match part.strip_prefix("ALTER TABLE ") {
                Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest).to_owned(),
                None => part,
            };
            let adds = part.starts_with("ADD COLUMN");
            let is_required =
                part.contains("NOT NULL") && !part.contains("DEFAULT") && !part.contains("GENERATED");
            let is_stricter = [
                "ADD CONSTRAINT",
                "ADD PRIMARY KEY",
                "ADD CHECK",
                "ADD UNIQUE",
                "ADD FOREIGN KEY",
                "ADD EXCLUDE",
            ]
            .iter()
            .any(|start| part.starts_with(start));
            let is_unique = adds && (part.contains(" UNIQUE") || part.contains("PRIMARY KEY"));
            let is_less =
                part.starts_with("DROP ") || part.contains("RENAME ") || part.contains(" SET NOT NULL");
            let is_other = part.starts_with("ALTER COLUMN")
                && [" TYPE ", "DROP DEFAULT", "DROP NOT NULL"].iter().any(|less| part.contains(less));
            if (adds && is_required) || is_stricter || is_unique || is_less || is_other {
                found.push(format!("{}: {part}", words[2]));
            }
        }
    }
    found
}

#[test]
fn migrations_only_add() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut names: Vec<String> = fs::read_dir(directory.clone())
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert!(names.iter().any(|name| name == BASELINE));
    for name in names.iter().filter(|name| name.as_str() > BASELINE) {
        let sql = fs::read_to_string(directory.join(name)).expect("read");
        let found: Vec<String> = takes_away(&sql)
            .into_iter()
            .filter(|taken| {
                !EXCEPTIONS
                    .iter()
                    .any(|(file, words, _)| file == name && taken.contains(&words.to_uppercase()))
            })
            .collect();
        assert!(
            found.is_empty(),
            "{name}: the version before serves meanwhile, and would notice: {found:#?}"
        );
    }
}

#[test]
fn what_takes_something_away_is_seen() {
    for sql in [
        "DROP TABLE runs",
        "alter table runs drop column tags",
        "ALTER TABLE runs ADD COLUMN a text, ADD COLUMN b text NOT NULL",
        "ALTER TABLE runs RENAME COLUMN a TO b",
        "ALTER TABLE runs RENAME TO jobs",
        "ALTER TABLE runs ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE runs ALTER COLUMN a TYPE bigint",
        "ALTER TABLE runs ALTER COLUMN a DROP NOT NULL",
        "ALTER TABLE runs ADD CONSTRAINT c CHECK (a > 0)",
        "ALTER TABLE runs DROP CONSTRAINT c, ADD PRIMARY KEY (id, project)",
        "ALTER TABLE runs ADD COLUMN a uuid UNIQUE",
        "CREATE UNIQUE INDEX i ON runs (name)",
        "DELETE FROM runs",
    ] {
        assert!(!takes_away(sql).is_empty(), "{sql}");
    }
    for sql in [
        "CREATE TABLE new (id uuid PRIMARY KEY, a text NOT NULL UNIQUE); CREATE UNIQUE INDEX i ON new (a)",
        "ALTER TABLE runs ADD COLUMN a text, ADD COLUMN b text NOT NULL DEFAULT 'drop column', ADD COLUMN c bigint CHECK (c > 0)",
        "ALTER TABLE runs ALTER COLUMN a SET DEFAULT 1",
        "CREATE INDEX i ON runs (name); -- DROP TABLE runs",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM waiting; RETURN NULL; END $$",
        "INSERT INTO projects VALUES ('default')",
    ] {
        assert_eq!(takes_away(sql), Vec::<String>::new(), "{sql}");
    }
}

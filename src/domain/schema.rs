//! Whether a program and a database's schema fit.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// How the migrations that a database has differ from those that a program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Not at all.
    Current,
    /// The database has none.
    Missing,
    /// The program knows more: the database is an older version's, and `estimatord migrate` brings it up to date.
    Older {
        /// Those that the database lacks.
        lacking: BTreeSet<i64>,
    },
    /// The database has more: a newer version has migrated it.
    Newer {
        /// Those that the program does not know.
        unknown: BTreeSet<i64>,
    },
    /// Each has some that the other does not.
    Apart {
        /// Those that the database lacks.
        lacking: BTreeSet<i64>,
        /// Those that the program does not know.
        unknown: BTreeSet<i64>,
    },
}

impl SchemaState {
    /// What `applied` is to a program that knows `known`; no table of migrations is `None`.
    #[must_use]
    pub fn of(applied: Option<&BTreeSet<i64>>, known: &BTreeSet<i64>) -> Self {
        let Some(applied) = applied else { return Self::Missing };
        let lacking: BTreeSet<i64> = known.difference(applied).copied().collect();
        let unknown: BTreeSet<i64> = applied.difference(known).copied().collect();
        match (lacking.is_empty(), unknown.is_empty()) {
            (true, true) => Self::Current,
            (false, true) => Self::Older { lacking },
            (true, false) => Self::Newer { unknown },
            (false, false) => Self::Apart { lacking, unknown },
        }
    }
}

impl fmt::Display for SchemaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("the database's schema is the one that this version knows"),
            Self::Missing => f.write_str("the database has no schema yet: run `estimatord migrate` first"),
            Self::Older { lacking } => write!(
                f,
                "the database's schema is an older version's (it lacks {}): run `estimatord migrate`",
                List(lacking)
            ),
            Self::Newer { unknown } => write!(
                f,
                "a newer version of estimatord has migrated the database (this one does not know {}): start that version, or \
                 restore the backup that was made before",
                List(unknown)
            ),
            Self::Apart { lacking, unknown } => write!(
                f,
                "another version of estimatord has migrated the database (this one does not know {}, and it lacks {}): run \
                 `estimatord migrate` with the newest version, and start that",
                List(unknown),
                List(lacking)
            ),
        }
    }
}

struct List<'a>(&'a BTreeSet<i64>);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, version) in self.0.iter().enumerate() {
            write!(f, "{}{version}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A table's name, and that of a trigger of it.
pub type TriggerName = (String, String);

/// The tables that there are, and the triggers, with how they are switched on (`tgenabled` of `pg_trigger`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// The tables.
    pub tables: BTreeSet<String>,
    /// The triggers.
    pub triggers: BTreeMap<TriggerName, char>,
}

/// A trigger that fires in ordinary sessions.
const ORDINARY: char = 'O';
/// A trigger that fires in every session.
const ALWAYS: char = 'A';

impl Objects {
    /// Those that migrations make. Of SQL it knows what the migrations are written with: `CREATE TABLE`, `CREATE TRIGGER … ON` and
    /// `ALTER TABLE … ENABLE ALWAYS TRIGGER`, in capitals.
    pub fn made_by<'a>(migrations: impl IntoIterator<Item = &'a str>) -> Self {
        let mut made = Self::default();
        for sql in migrations {
            let words: Vec<&str> = sql.split([' ', '\n', ';', '(']).filter(|word| !word.is_empty()).collect();
            for at in 0..words.len() {
                match &words[at..] {
                    ["CREATE", "TABLE", table, ..] => {
                        made.tables.insert((*table).to_owned());
                    }
                    ["CREATE", "TRIGGER", name, rest @ ..] => {
                        let table = rest.iter().skip_while(|word| **word != "ON").nth(1);
                        let table = table.copied().unwrap_or_default();
                        made.triggers.insert((table.to_owned(), (*name).to_owned()), ORDINARY);
                    }
                    ["ALTER", "TABLE", table, "ENABLE", "ALWAYS", "TRIGGER", name, ..] => {
                        made.triggers.insert(((*table).to_owned(), (*name).to_owned()), ALWAYS);
                    }
                    _ => {}
                }
            }
        }
        made
    }

    /// What of these a database with `found` lacks, each in words.
    #[must_use]
    pub fn lacking_in(&self, found: &Self) -> Vec<String> {
        let tables =
            self.tables.difference(&found.tables).map(|table| format!("the table {table} is not there"));
        let of_there = self.triggers.iter().filter(|((table, _), _)| found.tables.contains(table));
        let triggers = of_there.filter_map(|(key @ (table, name), wanted)| {
            let what = match found.triggers.get(key) {
                None => "is not there",
                Some(state) if state == wanted || *state == ALWAYS => return None,
                Some(&ORDINARY) => "is silent in sessions of a replica: it is to fire always",
                Some(_) => "is off",
            };
            Some(format!("the trigger {name} of {table} {what}"))
        });
        tables.chain(triggers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_migrations_make_is_looked_for() {
        let made = Objects::made_by([
            "CREATE TABLE a (\n    id uuid\n);\nCREATE TABLE b(id uuid);",
            "CREATE TRIGGER guard BEFORE UPDATE OF x ON a FOR EACH ROW EXECUTE FUNCTION guard();\n\
             CREATE TRIGGER keep BEFORE DELETE ON b\n    FOR EACH STATEMENT EXECUTE FUNCTION refuse();",
            "ALTER TABLE b ENABLE ALWAYS TRIGGER keep;",
        ]);
        let key = |table: &str, name: &str| (table.to_owned(), name.to_owned());
        assert_eq!(
            made,
            Objects {
                tables: ["a", "b"].map(str::to_owned).into(),
                triggers: [(key("a", "guard"), 'O'), (key("b", "keep"), 'A')].into(),
            }
        );
        assert_eq!(made.lacking_in(&made), Vec::<String>::new());
        let without = |change: fn(&mut Objects)| {
            let mut found = made.clone();
            change(&mut found);
            made.lacking_in(&found)
        };
        // Its triggers are not there by then, which goes without saying.
        let table = without(|found| {
            found.tables.remove("b");
            found.triggers.retain(|(table, _), _| table != "b");
        });
        assert_eq!(table, ["the table b is not there"]);
        let gone = without(|found| found.triggers.retain(|(table, _), _| table != "a"));
        assert_eq!(gone, ["the trigger guard of a is not there"]);
        let off = without(|found| found.triggers.values_mut().for_each(|state| *state = 'D'));
        assert_eq!(off, ["the trigger guard of a is off", "the trigger keep of b is off"]);
        let ordinary = without(|found| found.triggers.values_mut().for_each(|state| *state = 'O'));
        assert_eq!(
            ordinary,
            ["the trigger keep of b is silent in sessions of a replica: it is to fire always"]
        );
    }

    #[test]
    fn versions_are_told_apart() {
        let set = |versions: &[i64]| versions.iter().copied().collect::<BTreeSet<i64>>();
        let of = |applied: &[i64]| SchemaState::of(Some(&set(applied)), &set(&[1, 2, 3]));
        assert_eq!(of(&[1, 2, 3]), SchemaState::Current);
        assert_eq!(of(&[1]), SchemaState::Older { lacking: set(&[2, 3]) });
        assert_eq!(of(&[]), SchemaState::Older { lacking: set(&[1, 2, 3]) });
        assert_eq!(of(&[1, 2, 3, 4]), SchemaState::Newer { unknown: set(&[4]) });
        assert_eq!(of(&[1, 2, 4]), SchemaState::Apart { lacking: set(&[3]), unknown: set(&[4]) });
        assert_eq!(SchemaState::of(None, &set(&[1])), SchemaState::Missing);
        assert!(of(&[1]).to_string().contains("it lacks 2, 3): run `estimatord migrate`"));
        assert!(of(&[1, 2, 3, 4]).to_string().contains("a newer version"));
    }
}

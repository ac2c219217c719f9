//! Whether a program and a database's schema fit.

use std::{collections::BTreeSet, fmt};

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

#[cfg(test)]
mod tests {
    use super::*;

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

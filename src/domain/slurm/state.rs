//! Slurm's words for the state of a job, and what they mean here.

use std::fmt;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// With exit code 0.
    Completed,
    /// With another one, by a signal, or without having been launched.
    Failed,
    /// At its `--time`.
    Timeout,
    /// At a deadline that the cluster set.
    Deadline,
    /// By `scancel`.
    Cancelled,
    /// For another job.
    Preempted,
    /// With its node.
    NodeFail,
    /// Its node could not be started.
    BootFail,
    /// It took more memory than it had.
    OutOfMemory,
    /// Another cluster of the federation took it.
    Revoked,
}

/// What a state means for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// Waits for its nodes: `Queued`, with Slurm's reason.
    Waits,
    /// Has its nodes; they are being made ready: `Starting`.
    Begins,
    /// Runs, perhaps halted for a while: `Running`.
    Runs,
    /// Its script has ended, its nodes are not free yet: nothing is concluded before they are.
    Leaves,
    /// Nothing of it is left.
    Ended(End),
}

/// The state of a job, in Slurm's own word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobState {
    word: String,
    meaning: Meaning,
    /// Who called `scancel`, where accounting says it.
    cancelled_by: Option<u32>,
}

/// Every word of `squeue`'s and `sacct`'s manuals (Slurm 22.05 to 25.05), and what it means here. `docs/slurm.md` shows it.
pub(crate) const TABLE: [(&str, Meaning); 24] = [
    ("PENDING", Meaning::Waits),
    ("REQUEUED", Meaning::Waits),
    ("REQUEUE_FED", Meaning::Waits),
    ("REQUEUE_HOLD", Meaning::Waits),
    ("RESV_DEL_HOLD", Meaning::Waits),
    ("SPECIAL_EXIT", Meaning::Waits),
    ("CONFIGURING", Meaning::Begins),
    ("RUNNING", Meaning::Runs),
    ("RESIZING", Meaning::Runs),
    ("SIGNALING", Meaning::Runs),
    ("STOPPED", Meaning::Runs),
    ("SUSPENDED", Meaning::Runs),
    ("COMPLETING", Meaning::Leaves),
    ("STAGE_OUT", Meaning::Leaves),
    ("COMPLETED", Meaning::Ended(End::Completed)),
    ("FAILED", Meaning::Ended(End::Failed)),
    ("TIMEOUT", Meaning::Ended(End::Timeout)),
    ("DEADLINE", Meaning::Ended(End::Deadline)),
    ("CANCELLED", Meaning::Ended(End::Cancelled)),
    ("PREEMPTED", Meaning::Ended(End::Preempted)),
    ("NODE_FAIL", Meaning::Ended(End::NodeFail)),
    ("BOOT_FAIL", Meaning::Ended(End::BootFail)),
    ("OUT_OF_MEMORY", Meaning::Ended(End::OutOfMemory)),
    ("REVOKED", Meaning::Ended(End::Revoked)),
];

impl JobState {
    /// Reads a state as `squeue`, `scontrol` or `sacct` (`CANCELLED by 1000`) writes it; none when the word is not known.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        // A column that is too narrow ends in `+`.
        let word = word.trim_end_matches('+');
        let (known, meaning) = TABLE.into_iter().find(|(known, _)| {
            *known == word || (text.trim().ends_with('+') && word.len() >= 4 && known.starts_with(word))
        })?;
        let cancelled_by = rest.strip_prefix("by ").and_then(|uid| uid.trim().parse().ok());
        Some(Self { word: known.to_owned(), meaning, cancelled_by })
    }

    /// What it means.
    #[must_use]
    pub const fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// The user number of who called `scancel`, where it is known.
    #[must_use]
    pub const fn cancelled_by(&self) -> Option<u32> {
        self.cancelled_by
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_known_once() {
        for (index, (word, meaning)) in TABLE.into_iter().enumerate() {
            assert_eq!(JobState::parse(word).unwrap().meaning(), meaning);
            assert!(TABLE[..index].iter().all(|(other, _)| *other != word), "{word} stands there twice");
        }
        assert_eq!(JobState::parse("GONE FISHING"), None);
        assert_eq!(JobState::parse(""), None);
    }

    #[test]
    fn accounting_says_who_cancelled() {
        let state = JobState::parse("CANCELLED by 1000").unwrap();
        assert_eq!((state.meaning(), state.cancelled_by()), (Meaning::Ended(End::Cancelled), Some(1000)));
        // sacct's default column of ten characters.
        assert_eq!(JobState::parse("CANCELLED+").unwrap().meaning(), Meaning::Ended(End::Cancelled));
        assert_eq!(JobState::parse("OUT_OF_ME+").unwrap().meaning(), Meaning::Ended(End::OutOfMemory));
        assert_eq!(JobState::parse("RUNN"), None);
    }
}

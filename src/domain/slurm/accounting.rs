//! What `sacct` remembers of jobs that the controller has forgotten.

use super::JobState;
use super::job::{Job, JobExit, time};

/// `--format` of `sacct`: the name is last, because it alone may have a `|` in it.
pub const ACCOUNTING_FIELDS: &str = "JobIDRaw,State,ExitCode,Start,End,JobName";

/// Reads what `sacct --noheader --allocations --parsable2 --format=`[`ACCOUNTING_FIELDS`] printed. A line that cannot be read
/// costs that line.
#[must_use]
pub fn parse_accounting(text: &str) -> Vec<Job> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Job> {
    let mut fields = line.splitn(6, '|').map(str::trim);
    let mut next = || fields.next();
    let (id, state, exit, started, ended, name) = (next()?, next()?, next()?, next()?, next()?, next()?);
    Some(Job {
        id: id.parse().ok()?,
        name: name.to_owned(),
        state: JobState::parse(state)?,
        reason: String::new(),
        exit: JobExit::parse(exit),
        started_at: time(started),
        ended_at: time(ended),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::slurm::{End, Meaning};

    #[test]
    fn the_recorded_accounting_is_read() {
        let text = include_str!("recorded/sacct.txt");
        let jobs = parse_accounting(text);
        assert_eq!(jobs.len(), text.lines().count());
        let failed = jobs.iter().find(|job| job.state.meaning() == Meaning::Ended(End::Failed)).unwrap();
        assert_eq!(failed.exit, Some(JobExit { code: 7, signal: 0 }));
        assert!(failed.ended_at.is_some());
        let cancelled =
            jobs.iter().find(|job| job.state.meaning() == Meaning::Ended(End::Cancelled)).unwrap();
        assert_eq!(cancelled.state.cancelled_by(), Some(0));
    }

    #[test]
    fn one_odd_line_costs_one_line() {
        let jobs = parse_accounting(
            "what?\n5|COMPLETED|0:0|1795693433|1795693435|a|b\n5.batch|COMPLETED|0:0|1|2|batch\n",
        );
        assert_eq!(jobs.iter().map(|job| (job.id, job.name.as_str())).collect::<Vec<_>>(), [(5, "a|b")]);
    }
}

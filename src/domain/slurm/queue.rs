//! What `squeue` says of all jobs of a user at once.

use super::JobState;
use super::job::{Job, JobExit, reason, time};

/// `--Format` of `squeue`: the name is last, because it alone may have a `|` in it.
pub const QUEUE_FORMAT: &str = "JobID:|,State:|,Reason:|,exit_code:|,StartTime:|,EndTime:|,Name:256|";

/// What one call of `squeue` said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Lines that could not be read: they are said, and the others count.
    pub odd: Vec<String>,
}

/// Reads what `squeue --noheader --states=all --Format=`[`QUEUE_FORMAT`] printed. A line that cannot be read costs that line.
#[must_use]
pub fn parse_queue(text: &str) -> Queue {
    let mut queue = Queue::default();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match parse_line(line) {
            Some(job) => queue.jobs.push(job),
            None => queue.odd.push(line.trim_end().to_owned()),
        }
    }
    queue
}

fn parse_line(line: &str) -> Option<Job> {
    let mut fields = line.splitn(7, '|').map(str::trim);
    let mut next = || fields.next();
    let (id, state, why, exit, started, ended) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let name = next()?.trim_end_matches('|').trim_end();
    Some(Job {
        id: id.parse().ok()?,
        name: name.to_owned(),
        state: JobState::parse(state)?,
        reason: reason(why),
        exit: JobExit::of_wait_status(exit),
        started_at: time(started),
        ended_at: time(ended),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::slurm::{End, Meaning};

    #[test]
    fn the_recorded_queue_is_read() {
        let queue = parse_queue(include_str!("recorded/squeue.txt"));
        assert_eq!(queue.odd, Vec::<String>::new());
        let states: Vec<String> = queue.jobs.iter().map(|job| job.state.to_string()).collect();
        for state in ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"] {
            assert!(states.iter().any(|word| word == state), "{state} is not in {states:?}");
        }
        let failed =
            queue.jobs.iter().find(|job| job.state.meaning() == Meaning::Ended(End::Failed)).unwrap();
        assert_eq!(failed.exit, Some(JobExit { code: 7, signal: 0 }));
        let waiting = queue.jobs.iter().find(|job| job.state.meaning() == Meaning::Waits).unwrap();
        assert!(!waiting.reason.is_empty());
    }

    #[test]
    fn one_odd_line_costs_one_line() {
        let text = "1|RUNNING|None|0|1795693433|N/A|a\nslurm_load_jobs: what?\n2|DANCING|None|0|1|N/A|b\n\n\
                    3|PENDING|Resources|0|N/A|N/A|c|d  |\n";
        let queue = parse_queue(text);
        let names: Vec<&str> = queue.jobs.iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names, ["a", "c|d"]);
        assert_eq!(queue.odd, ["slurm_load_jobs: what?", "2|DANCING|None|0|1|N/A|b"]);
    }

    proptest! {
        #[test]
        fn nothing_that_is_printed_is_too_much(text in any::<String>()) {
            let queue = parse_queue(&text);
            let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
            prop_assert_eq!(queue.jobs.len() + queue.odd.len(), lines);
        }

        #[test]
        fn lines_around_an_odd_one_are_read(odd in "[^\n\r]*") {
            let text = format!("1|RUNNING|None|0|5|N/A|a\n{odd}\n2|RUNNING|None|0|5|N/A|b\n");
            let queue = parse_queue(&text);
            prop_assert!(queue.jobs.iter().any(|job| job.name == "a") && queue.jobs.iter().any(|job| job.name == "b"));
        }
    }
}

//! What has become of an attempt: Slurm's word for its job, and what the job's script wrote, put together.

use chrono::{DateTime, Utc};

use super::{End, Job, Meaning};
use crate::domain::run::{Exit, ExitReason, Observation};

/// That the script of a job has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Which job; none for the moment between claiming the start and writing this.
    pub job: Option<u64>,
    /// When.
    pub at: DateTime<Utc>,
}

/// What lies in an attempt's directory on the shared file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Whether `sbatch` was, or was about to be, called for it.
    pub intended: bool,
    /// The job that `sbatch` answered with.
    pub submitted: Option<u64>,
    /// When it answered.
    pub submitted_at: Option<DateTime<Utc>>,
    /// Whether the start was taken before any job could: none of its jobs will do anything.
    pub barred: bool,
    /// The one job that has begun.
    pub begun: Option<Begun>,
    /// How its script ended: exit code, and when.
    pub ended: Option<(i32, DateTime<Utc>)>,
    /// Whether it was told to end by this service.
    pub cancel_requested: bool,
    /// Whether it was told to end because it ran too long.
    pub over_time: bool,
    /// Whether it was killed, because its grace was over.
    pub killed: bool,
    /// Whether it has a `max_run_duration_seconds`.
    pub has_limit: bool,
    /// Why its script could not begin, where the job found out.
    pub start_error: Option<String>,
}

/// Whether a look at the queue that began then is older than the attempt's job, of which nothing else is known: that it lacks the job
/// says nothing, and the next look will have it.
#[must_use]
pub fn is_still_unseen(witness: &Witness, looked_at: DateTime<Utc>) -> bool {
    let is_told_to_end = witness.barred || witness.cancel_requested || witness.over_time;
    let is_heard_of = witness.begun.is_some() || witness.ended.is_some() || is_told_to_end;
    !is_heard_of && witness.submitted_at.is_some_and(|submitted| submitted >= looked_at)
}

/// What has become of an attempt by the jobs of its name that the controller has. None where it has none of an attempt that
/// was handed in: what accounting remembers then has to be asked ([`remembered`]).
#[must_use]
pub fn found(witness: &Witness, queued: &[Job], now: DateTime<Utc>) -> Option<Observation> {
    if let Some(job) = pick(witness, queued) {
        return Some(match job.state.meaning() {
            Meaning::Waits if witness.begun.is_none() => Observation::Queued { reason: waiting(job) },
            // A look at the queue may be a little older than what the script wrote.
            Meaning::Waits | Meaning::Begins | Meaning::Runs | Meaning::Leaves => match witness.begun {
                Some(begun) => Observation::Running { started_at: begun.at },
                None => Observation::Starting,
            },
            Meaning::Ended(end) => conclude(end, job, witness, now),
        });
    }
    if witness.barred {
        return Some(Observation::Exited(exit(ExitReason::Canceled, witness, None, now)));
    }
    (!witness.intended).then_some(Observation::NotFound)
}

/// What has become of an attempt that was handed in and that the controller has forgotten, by the jobs of its name that
/// accounting remembers.
#[must_use]
pub fn remembered(witness: &Witness, jobs: &[Job], now: DateTime<Utc>) -> Observation {
    match pick(witness, jobs) {
        Some(job) => match job.state.meaning() {
            Meaning::Ended(end) => conclude(end, job, witness, now),
            // The controller answered and does not have it: what accounting was told last is not true any more.
            _ => forgotten(witness, now, &format!("accounting still calls it {}", job.state)),
        },
        None => forgotten(witness, now, "nothing else is recorded of it"),
    }
}

/// The job that counts, of those with an attempt's name: the one that has begun; before that, one that still may.
fn pick<'a>(witness: &Witness, jobs: &'a [Job]) -> Option<&'a Job> {
    if let Some(id) = witness.begun.and_then(|begun| begun.job) {
        return jobs.iter().find(|job| job.id == id);
    }
    let may_begin = jobs.iter().filter(|job| !matches!(job.state.meaning(), Meaning::Ended(_)));
    may_begin.max_by_key(|job| job.id).or_else(|| {
        // Nothing is concluded from jobs of an attempt that nobody submitted, or that was barred: they did nothing.
        let ended = jobs.iter().filter(|_| witness.intended && !witness.barred);
        ended.max_by_key(|job| (witness.submitted == Some(job.id), job.id))
    })
}

fn waiting(job: &Job) -> String {
    let reason = if job.reason.is_empty() { "not considered yet" } else { &job.reason };
    format!("job {} is {} in Slurm: {reason}", job.id, job.state)
}

/// What there is to say when Slurm has nothing.
fn forgotten(witness: &Witness, now: DateTime<Utc>, but: &str) -> Observation {
    if let Some((code, _)) = witness.ended {
        // It came to its end by itself and said how.
        return Observation::Exited(by_code(code, None, witness, now));
    }
    let Some(id) = witness.begun.and_then(|begun| begun.job).or(witness.submitted) else {
        // It was on its way to `sbatch` and did not arrive.
        return Observation::NotFound;
    };
    if witness.begun.is_none() && witness.cancel_requested {
        return Observation::Exited(exit(ExitReason::Canceled, witness, None, now));
    }
    let state = if witness.begun.is_some() { "left no exit status" } else { "never began" };
    Observation::Lost { detail: format!("Slurm no longer knows job {id}, which {state}; {but}") }
}

fn conclude(end: End, job: &Job, witness: &Witness, now: DateTime<Utc>) -> Observation {
    let id = job.id;
    let state = &job.state;
    let because = if job.reason.is_empty() { String::new() } else { format!(" ({})", job.reason) };
    let with = |reason: ExitReason, remark: String| {
        Observation::Exited(Exit { remark: Some(remark), ..exit(reason, witness, Some(job), now) })
    };
    if witness.over_time && !matches!(end, End::NodeFail | End::BootFail | End::Preempted) {
        return with(ExitReason::MaxRunDurationExceeded, format!("Slurm's job {id}: {state}"));
    }
    match end {
        // The state decides: it is there when the last process is gone.
        End::Completed => Observation::Exited(by_code(0, Some(job), witness, now)),
        End::Failed => match (witness.ended, job.exit) {
            _ if witness.begun.is_none() && !witness.cancel_requested => {
                let found = witness.start_error.as_ref().map_or_else(
                    || {
                        job.exit.map_or_else(String::new, |exit| {
                            format!(": ExitCode {}:{}", exit.code, exit.signal)
                        })
                    },
                    |error| format!(": {error}"),
                );
                Observation::Exited(Exit {
                    start_error: Some(format!(
                        "Slurm's job {id} is {state}{because} before its script began{found}"
                    )),
                    ..exit(ExitReason::Exited, witness, Some(job), now)
                })
            }
            (Some((code, _)), _) if code != 0 => Observation::Exited(by_code(code, Some(job), witness, now)),
            (_, Some(told)) if told.signal != 0 => Observation::Exited(Exit {
                signal: Some(told.signal),
                ..exit(ExitReason::Exited, witness, Some(job), now)
            }),
            (_, told) => {
                let code = told.map_or(1, |told| told.code);
                Observation::Exited(by_code(code, Some(job), witness, now))
            }
        },
        End::Timeout | End::Deadline if witness.has_limit => {
            with(ExitReason::MaxRunDurationExceeded, format!("Slurm's job {id}: {state}"))
        }
        End::Timeout | End::Deadline => with(
            ExitReason::MaxRunDurationExceeded,
            format!("Slurm's job {id}: {state}, by a limit of the cluster's own: the definition has none"),
        ),
        End::Cancelled if witness.cancel_requested => Observation::Exited(match (witness.ended, job.exit) {
            (Some((code, _)), _) => by_code(code, Some(job), witness, now),
            (None, Some(told)) if told.signal != 0 && !witness.killed => {
                Exit { signal: Some(told.signal), ..exit(ExitReason::Canceled, witness, Some(job), now) }
            }
            (None, _) => exit(ExitReason::Canceled, witness, Some(job), now),
        }),
        End::Cancelled => {
            let who = state.cancelled_by().map_or_else(|| "somebody".to_owned(), |uid| format!("user {uid}"));
            with(
                ExitReason::CanceledElsewhere,
                format!(
                    "Slurm's job {id} was cancelled on the cluster by {who}, not through this service{because}"
                ),
            )
        }
        End::Preempted => Observation::Preempted {
            detail: format!("Slurm's job {id} had to make room for another{because}"),
        },
        End::NodeFail | End::BootFail | End::Revoked => {
            Observation::Lost { detail: format!("Slurm's job {id} is {state}{because}") }
        }
        End::OutOfMemory => Observation::Exited(Exit {
            signal: Some(9),
            remark: Some(format!("Slurm's job {id} is {state}: it took more memory than it had")),
            ..exit(ExitReason::Exited, witness, Some(job), now)
        }),
    }
}

fn by_code(code: i32, job: Option<&Job>, witness: &Witness, now: DateTime<Utc>) -> Exit {
    let reason = match code {
        _ if witness.over_time => ExitReason::MaxRunDurationExceeded,
        0 => ExitReason::Exited,
        _ if witness.cancel_requested => ExitReason::Canceled,
        _ => ExitReason::Exited,
    };
    // A shell adds 128 to the number of the signal that ended a program; there are 64.
    let signal = (128 < code && code <= 192).then_some(code - 128);
    let exit_code = if signal.is_none() { Some(code) } else { None };
    Exit { exit_code, signal, ..exit(reason, witness, job, now) }
}

fn exit(reason: ExitReason, witness: &Witness, job: Option<&Job>, now: DateTime<Utc>) -> Exit {
    let started_at = witness.begun.map(|begun| begun.at);
    let told = witness.ended.map(|(_, at)| at).or_else(|| job?.ended_at);
    Exit { signal: witness.killed.then_some(9), ..Exit::new(reason, started_at, told.unwrap_or(now)) }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::slurm::{JobExit, JobState, state::TABLE};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn job(id: u64, state: &str) -> Job {
        Job {
            id,
            name: "n".into(),
            state: JobState::parse(state).unwrap(),
            reason: String::new(),
            exit: Some(JobExit { code: 1, signal: 0 }),
            started_at: Some(at(10)),
            ended_at: Some(at(20)),
        }
    }

    /// Submitted and begun as job 5.
    fn witness() -> Witness {
        Witness {
            intended: true,
            submitted: Some(5),
            begun: Some(Begun { job: Some(5), at: at(11) }),
            ..Witness::default()
        }
    }

    fn known(witness: &Witness, queued: &[Job], remembered: Option<&[Job]>) -> Observation {
        match (found(witness, queued, at(100)), remembered) {
            (Some(observation), None) => observation,
            (None, Some(jobs)) => super::remembered(witness, jobs, at(100)),
            (found, _) => panic!("{found:?}"),
        }
    }

    fn exited(observation: Observation) -> Exit {
        match observation {
            Observation::Exited(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_attempt_that_nobody_submitted_is_not_found_and_slurm_is_not_asked() {
        assert_eq!(known(&Witness::default(), &[], None), Observation::NotFound);
    }

    #[test]
    fn a_look_from_before_the_job_says_nothing_of_it() {
        let submitted = Witness { begun: None, submitted_at: Some(at(10)), ..witness() };
        assert!(is_still_unseen(&submitted, at(9)) && is_still_unseen(&submitted, at(10)));
        assert!(!is_still_unseen(&submitted, at(11)), "it should have been there");
        let heard_of = [
            Witness { begun: Some(Begun { job: Some(5), at: at(10) }), ..submitted.clone() },
            Witness { ended: Some((0, at(10))), ..submitted.clone() },
            Witness { cancel_requested: true, ..submitted.clone() },
            Witness { over_time: true, ..submitted.clone() },
            Witness { barred: true, ..submitted.clone() },
            // Found in the queue by somebody: then it is gone from there.
            Witness { submitted_at: None, ..submitted },
        ];
        assert!(heard_of.iter().all(|witness| !is_still_unseen(witness, at(9))));
    }

    #[test]
    fn a_job_that_waits_says_why() {
        let waits = Job { reason: "Resources".into(), ..job(5, "PENDING") };
        let submitted = Witness { begun: None, ..witness() };
        assert_eq!(
            known(&submitted, &[waits], None),
            Observation::Queued { reason: "job 5 is PENDING in Slurm: Resources".into() }
        );
    }

    #[test]
    fn a_job_runs_once_its_script_has_begun_and_until_its_nodes_are_free() {
        let submitted = Witness { begun: None, ..witness() };
        assert_eq!(known(&submitted, &[job(5, "RUNNING")], None), Observation::Starting);
        for state in ["RUNNING", "COMPLETING", "SUSPENDED"] {
            assert_eq!(
                known(&witness(), &[job(5, state)], None),
                Observation::Running { started_at: at(11) },
                "{state}"
            );
        }
    }

    #[test]
    fn the_state_decides_and_not_the_exit_code() {
        let told_nonzero = Witness { ended: Some((3, at(19))), ..witness() };
        assert_eq!(exited(known(&told_nonzero, &[job(5, "COMPLETED")], None)).exit_code, Some(0));
        assert_eq!(exited(known(&told_nonzero, &[job(5, "FAILED")], None)).exit_code, Some(3));
        let zero = Job { exit: Some(JobExit::default()), ..job(5, "TIMEOUT") };
        let limited = Witness { has_limit: true, ..witness() };
        assert_eq!(
            exited(known(&limited, std::slice::from_ref(&zero), None)).reason,
            ExitReason::MaxRunDurationExceeded
        );
        let foreign = exited(known(&witness(), &[zero], None));
        assert!(foreign.remark.unwrap().contains("limit of the cluster"));
    }

    #[test]
    fn every_end_is_an_observation_of_its_own_kind() {
        for (word, meaning) in TABLE {
            let Meaning::Ended(end) = meaning else { continue };
            let seen = known(&witness(), &[job(5, word)], None);
            match end {
                End::Completed
                | End::Failed
                | End::Timeout
                | End::Deadline
                | End::Cancelled
                | End::OutOfMemory => {
                    exited(seen);
                }
                End::Preempted => assert!(matches!(seen, Observation::Preempted { .. })),
                End::NodeFail | End::BootFail | End::Revoked => {
                    let Observation::Lost { detail } = seen else { panic!("{seen:?}") };
                    assert!(detail.contains(word));
                }
            }
        }
    }

    #[test]
    fn who_cancelled_is_said() {
        let ours = Witness { cancel_requested: true, ..witness() };
        assert_eq!(exited(known(&ours, &[job(5, "CANCELLED")], None)).reason, ExitReason::Canceled);
        let theirs = exited(known(&witness(), &[], Some(&[job(5, "CANCELLED by 1000")])));
        assert_eq!(theirs.reason, ExitReason::CanceledElsewhere);
        assert!(theirs.remark.unwrap().contains("by user 1000"));
    }

    #[test]
    fn a_job_that_failed_before_its_script_began_says_so() {
        let submitted = Witness { begun: None, ..witness() };
        let failed = Job {
            reason: "JobLaunchFailure".into(),
            exit: Some(JobExit { code: 0, signal: 53 }),
            ..job(5, "FAILED")
        };
        let error = exited(known(&submitted, &[failed], None)).start_error.unwrap();
        assert!(error.contains("JobLaunchFailure") && error.contains("0:53"), "{error}");
    }

    #[test]
    fn a_job_that_the_controller_forgot_has_what_its_script_wrote() {
        assert_eq!(found(&witness(), &[], at(100)), None);
        let wrote = Witness { ended: Some((7, at(19))), ..witness() };
        let exit = exited(known(&wrote, &[], Some(&[])));
        assert_eq!((exit.exit_code, exit.finished_at), (Some(7), at(19)));
        let Observation::Lost { detail } = known(&witness(), &[], Some(&[])) else { panic!("it is lost") };
        assert!(detail.contains("job 5") && detail.contains("exit status"), "{detail}");
        let Observation::Lost { detail } = known(&witness(), &[], Some(&[job(5, "RUNNING")])) else {
            panic!("lost")
        };
        assert!(detail.contains("RUNNING"), "{detail}");
    }

    #[test]
    fn of_two_jobs_of_one_name_the_one_that_began_counts() {
        let second = job(6, "COMPLETED");
        assert!(matches!(
            known(&witness(), &[second.clone(), job(5, "RUNNING")], None),
            Observation::Running { .. }
        ));
        assert_eq!(found(&witness(), &[second], at(100)), None);
        let neither = Witness { begun: None, ..witness() };
        assert!(matches!(
            known(&neither, &[job(5, "FAILED"), job(6, "PENDING")], None),
            Observation::Queued { .. }
        ));
    }

    #[test]
    fn a_barred_attempt_has_ended_when_no_job_of_it_is_left() {
        let barred = Witness { barred: true, cancel_requested: true, intended: true, ..Witness::default() };
        assert_eq!(exited(known(&barred, &[], None)).reason, ExitReason::Canceled);
        assert_eq!(exited(known(&barred, &[job(5, "FAILED")], None)).reason, ExitReason::Canceled);
        assert!(matches!(known(&barred, &[job(5, "PENDING")], None), Observation::Queued { .. }));
    }

    #[test]
    fn a_submission_that_did_not_arrive_is_not_found() {
        let intended = Witness { intended: true, ..Witness::default() };
        assert_eq!(found(&intended, &[], at(1)), None);
        assert_eq!(known(&intended, &[], Some(&[])), Observation::NotFound);
    }

    #[test]
    fn a_shell_s_code_for_a_signal_is_the_signal() {
        let killed = Witness { ended: Some((137, at(19))), ..witness() };
        let exit = exited(known(&killed, &[job(5, "FAILED")], None));
        assert_eq!((exit.exit_code, exit.signal), (None, Some(9)));
    }

    #[test]
    fn an_end_is_never_before_the_beginning() {
        let short = Job { ended_at: Some(at(10)), ..job(5, "COMPLETED") };
        assert_eq!(exited(known(&witness(), &[short], None)).finished_at, at(11));
    }

    #[test]
    fn what_ran_too_long_says_so_whatever_its_script_did_then() {
        let over = Witness { over_time: true, ..witness() };
        for state in ["COMPLETED", "FAILED", "CANCELLED"] {
            let exit = exited(known(&over, &[job(5, state)], None));
            assert_eq!(exit.reason, ExitReason::MaxRunDurationExceeded, "{state}");
        }
    }
}

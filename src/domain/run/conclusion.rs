//! From how an attempt ended to what becomes of the run.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{Cause, Exit, ExitReason, Status};

/// How an attempt ended, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ending {
    /// Why; null for an ordinary completion.
    pub cause: Option<Cause>,
    /// In words.
    pub detail: Option<String>,
    /// Of the script.
    pub exit_code: Option<i32>,
    /// Of the script.
    pub signal: Option<i32>,
    /// When its script started, if it did.
    pub started_at: Option<DateTime<Utc>>,
    /// When its last process was gone, if somebody saw it; nobody may have looked for hours.
    pub finished_at: Option<DateTime<Utc>>,
    /// User and system time of all its processes.
    pub cpu_seconds: Option<f64>,
    /// The largest resident set of any one process.
    pub peak_memory_bytes: Option<u64>,
    /// What the backend answered, by which a cancel that was asked for is known to be carried out.
    pub evidence: Option<String>,
}

/// What a worker wants written.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// To another status of the same attempt.
    To {
        /// The status.
        status: Status,
        /// In words, for the event.
        detail: Option<String>,
        /// When the script started, for `Running`.
        started_at: Option<DateTime<Utc>>,
        /// What the backend reported of the environment, once it is known.
        actual_environment: Option<Value>,
    },
    /// The run has ended: status, and how.
    End {
        /// `Completed`, `Failed` or `Canceled`.
        status: Status,
        /// How.
        ending: Ending,
    },
    /// The attempt has ended by a fault of the system; the run goes back to the queue.
    Requeue {
        /// How.
        ending: Ending,
        /// Not before so long from now has passed, by the database's clock.
        delay: TimeDelta,
    },
}

impl Move {
    /// To another status, with nothing more to say.
    #[must_use]
    pub const fn to(status: Status) -> Self {
        Self::To { status, detail: None, started_at: None, actual_environment: None }
    }

    /// To another status, and why.
    #[must_use]
    pub const fn because(status: Status, detail: String) -> Self {
        Self::To { status, detail: Some(detail), started_at: None, actual_environment: None }
    }

    /// To `Running`, since when the script runs.
    #[must_use]
    pub const fn running(started_at: DateTime<Utc>) -> Self {
        Self::To {
            status: Status::Running,
            detail: None,
            started_at: Some(started_at),
            actual_environment: None,
        }
    }

    /// The status that it leads to.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::To { status, .. } | Self::End { status, .. } => *status,
            Self::Requeue { .. } => Status::Queued,
        }
    }
}

/// How often a run may be tried, and after what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How many attempts it may have.
    pub max_attempts: u32,
    /// Whether an attempt whose script failed is followed by another too. Faults of the system always are.
    pub on_script_failure: bool,
}

/// What else bears on the conclusion.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Whether somebody asked for the end, and was told that it would come.
    pub cancel_requested: bool,
    /// The number of the attempt that ended.
    pub attempt: u32,
    /// How many it may have.
    pub retries: Retries,
    /// 0 to 1, random: spreads retries.
    pub jitter: f64,
    /// What the script said when it called its run failed; it may have gone on and ended with exit code 0.
    pub reported_failure: Option<String>,
    /// Why not all that the run was to send to datastores is there.
    pub unsent: Option<String>,
}

/// The longest pause before another attempt.
const RETRY_CAP_SECONDS: f64 = 300.0;

/// How long to wait before the attempt after number `attempt`: doubles from two seconds, capped, spread by a fifth.
#[must_use]
pub fn retry_delay(attempt: u32, jitter: f64) -> TimeDelta {
    let doubled = 2.0 * 2.0_f64.powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
    let seconds = doubled.min(RETRY_CAP_SECONDS) * (0.8 + 0.4 * jitter.clamp(0.0, 1.0));
    // At most 360 seconds: fits.
    #[expect(clippy::cast_possible_truncation, reason = "360,000 at most")]
    let millis = (seconds * 1000.0) as i64;
    TimeDelta::milliseconds(millis)
}

/// What becomes of a run whose processes are gone and told how they ended.
#[must_use]
pub fn conclude_exit(exit: &Exit, circumstances: &Circumstances) -> Move {
    let ending = Ending {
        cause: None,
        detail: None,
        exit_code: exit.exit_code,
        signal: exit.signal,
        started_at: exit.started_at,
        finished_at: Some(exit.finished_at),
        cpu_seconds: exit.cpu_seconds,
        peak_memory_bytes: exit.peak_memory_bytes,
        evidence: None,
    };
    // The promise that was made comes first: an acknowledged cancel ends as Canceled, whatever the script still did.
    if circumstances.cancel_requested {
        return canceled(exit.in_words(), ending);
    }
    if let Some(error) = &exit.build_error {
        return retry_or_fail(
            Cause::EnvironmentBuildFailed,
            format!("environment build failed: {error}"),
            ending,
            circumstances,
        );
    }
    if let Some(error) = &exit.start_error {
        return retry_or_fail(
            Cause::DispatchFailed,
            format!("the script could not be started: {error}"),
            ending,
            circumstances,
        );
    }
    match exit.reason {
        ExitReason::MaxRunDurationExceeded => {
            let detail = "ran longer than max_run_duration_seconds allows and was stopped".to_owned();
            end(Status::Canceled, Cause::MaxRunDurationExceeded, remarked(detail, exit), ending)
        }
        // What it writes it would write again.
        ExitReason::DiskLimitExceeded => {
            let detail = "wrote more than a run may and was stopped".to_owned();
            end(Status::Failed, Cause::ScriptFailed, remarked(detail, exit), ending)
        }
        // Who stops it there wants it stopped: another attempt would be against their will.
        ExitReason::CanceledElsewhere => {
            let detail = "stopped on the compute".to_owned();
            end(Status::Canceled, Cause::CanceledByUser, remarked(detail, exit), ending)
        }
        // A worker that gives an attempt up stops it first, and may die before it has written why.
        ExitReason::Canceled if exit.started_at.is_none() => retry_or_fail(
            Cause::DispatchFailed,
            "the attempt was given up before its script began, by a worker that did not live to say why"
                .to_owned(),
            ending,
            circumstances,
        ),
        ExitReason::Canceled => retry_or_fail(
            Cause::ComputeLost,
            "it was told to stop, though nobody had asked for the end of the run".to_owned(),
            ending,
            circumstances,
        ),
        ExitReason::Exited => match (exit.exit_code, exit.signal) {
            (Some(0), None) => match (&circumstances.reported_failure, &circumstances.unsent) {
                (None, None) => Move::End { status: Status::Completed, ending },
                (Some(said), _) => retry_or_fail(
                    Cause::ScriptFailed,
                    format!("the script called its run failed: {said}"),
                    ending,
                    circumstances,
                ),
                // Its work is done: doing all of it again would not send anything sooner.
                (None, Some(why)) => end(
                    Status::Failed,
                    Cause::Internal,
                    format!("the script ended with exit code 0, but its data could not be sent: {why}"),
                    ending,
                ),
            },
            (Some(code), _) => retry_or_fail(
                Cause::ScriptFailed,
                remarked(format!("the script ended with exit code {code}"), exit),
                ending,
                circumstances,
            ),
            (None, Some(signal)) => retry_or_fail(
                Cause::ScriptFailed,
                remarked(format!("the script was ended by signal {signal}"), exit),
                ending,
                circumstances,
            ),
            (None, None) => end(
                Status::Failed,
                Cause::Internal,
                remarked("the backend did not say how it ended".to_owned(), exit),
                ending,
            ),
        },
    }
}

/// A sentence, and what the compute adds to it.
fn remarked(detail: String, exit: &Exit) -> String {
    match &exit.remark {
        Some(remark) => format!("{detail} ({remark})"),
        None => detail,
    }
}

/// What becomes of a run whose attempt failed without an exit of its own: lost, not to be started, not to be prepared.
#[must_use]
pub fn conclude_failure(cause: Cause, detail: String, circumstances: &Circumstances) -> Move {
    if circumstances.cancel_requested {
        return canceled(format!("nothing of it runs: {detail}"), Ending::default());
    }
    retry_or_fail(cause, detail, Ending::default(), circumstances)
}

/// What becomes of a run that cannot be prepared or started as it is defined: trying again would not help.
#[must_use]
pub fn conclude_refusal(cause: Cause, detail: String, circumstances: &Circumstances) -> Move {
    let never_again = Retries { max_attempts: 0, ..circumstances.retries };
    conclude_failure(cause, detail, &Circumstances { retries: never_again, ..circumstances.clone() })
}

fn canceled(evidence: String, ending: Ending) -> Move {
    let detail = format!("canceled by request; {evidence}");
    end(Status::Canceled, Cause::CanceledByUser, detail, Ending { evidence: Some(evidence), ..ending })
}

fn end(status: Status, cause: Cause, detail: String, ending: Ending) -> Move {
    Move::End { status, ending: Ending { cause: Some(cause), detail: Some(detail), ..ending } }
}

/// Faults of the system are tried again while attempts are left, those of the script where it was asked for, and those of the
/// definition never.
fn retry_or_fail(cause: Cause, detail: String, ending: Ending, circumstances: &Circumstances) -> Move {
    let Retries { max_attempts, on_script_failure } = circumstances.retries;
    let may_help = cause.is_systems_fault() || (on_script_failure && cause == Cause::ScriptFailed);
    if !may_help || circumstances.attempt >= max_attempts {
        return end(Status::Failed, cause, detail, ending);
    }
    Move::Requeue {
        ending: Ending { cause: Some(cause), detail: Some(detail), ..ending },
        delay: retry_delay(circumstances.attempt, circumstances.jitter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [ExitReason; 5] = [
        ExitReason::Exited,
        ExitReason::Canceled,
        ExitReason::CanceledElsewhere,
        ExitReason::MaxRunDurationExceeded,
        ExitReason::DiskLimitExceeded,
    ];

    fn exit(reason: ExitReason, exit_code: Option<i32>, signal: Option<i32>) -> Exit {
        Exit {
            reason,
            exit_code,
            signal,
            started_at: None,
            finished_at: DateTime::UNIX_EPOCH,
            cpu_seconds: None,
            peak_memory_bytes: None,
            start_error: None,
            build_error: None,
            remark: None,
        }
    }

    fn circumstances(cancel_requested: bool, attempt: u32, max_attempts: u32) -> Circumstances {
        Circumstances {
            cancel_requested,
            attempt,
            retries: Retries { max_attempts, on_script_failure: false },
            jitter: 0.5,
            reported_failure: None,
            unsent: None,
        }
    }

    fn cause_of(step: &Move) -> Option<Cause> {
        match step {
            Move::To { .. } => None,
            Move::End { ending, .. } | Move::Requeue { ending, .. } => ending.cause,
        }
    }

    #[test]
    fn exit_code_zero_completes_without_a_cause() {
        let step = conclude_exit(&exit(ExitReason::Exited, Some(0), None), &circumstances(false, 1, 1));
        assert_eq!((step.status(), cause_of(&step)), (Status::Completed, None));
    }

    #[test]
    fn the_end_is_when_the_processes_were_gone_and_not_when_somebody_looked() {
        let exit = exit(ExitReason::Exited, Some(0), None);
        let Move::End { ending, .. } = conclude_exit(&exit, &circumstances(false, 1, 1)) else {
            panic!("it has ended");
        };
        assert_eq!(ending.finished_at, Some(DateTime::UNIX_EPOCH));
    }

    #[test]
    fn a_failing_script_is_final_even_with_attempts_left() {
        for end in [exit(ExitReason::Exited, Some(3), None), exit(ExitReason::Exited, None, Some(11))] {
            let step = conclude_exit(&end, &circumstances(false, 1, 5));
            assert_eq!((step.status(), cause_of(&step)), (Status::Failed, Some(Cause::ScriptFailed)));
        }
    }

    #[test]
    fn a_failing_script_is_tried_again_where_that_was_asked_for() {
        let asked = |attempt| Circumstances {
            retries: Retries { max_attempts: 2, on_script_failure: true },
            ..circumstances(false, attempt, 2)
        };
        let failed = exit(ExitReason::Exited, Some(3), None);
        assert_eq!(conclude_exit(&failed, &asked(1)).status(), Status::Queued);
        assert_eq!(conclude_exit(&failed, &asked(2)).status(), Status::Failed);
        let over = exit(ExitReason::MaxRunDurationExceeded, None, Some(15));
        assert_eq!(
            conclude_exit(&over, &asked(1)).status(),
            Status::Canceled,
            "its time is over, not its luck"
        );
        let canceled = Circumstances { cancel_requested: true, ..asked(1) };
        assert_eq!(conclude_exit(&failed, &canceled).status(), Status::Canceled);
    }

    #[test]
    fn a_cancel_says_by_what_it_is_known_to_be_carried_out() {
        let stopped = exit(ExitReason::Canceled, None, Some(15));
        let Move::End { ending, .. } = conclude_exit(&stopped, &circumstances(true, 1, 1)) else {
            panic!("it has ended");
        };
        let evidence = "every process was gone at 1970-01-01T00:00:00Z; the script was ended by signal 15";
        assert_eq!(ending.evidence.as_deref(), Some(evidence));
    }

    #[test]
    fn a_script_that_calls_its_run_failed_is_believed() {
        let reported =
            Circumstances { reported_failure: Some("diverged".to_owned()), ..circumstances(false, 1, 5) };
        let Move::End { status, ending } = conclude_exit(&exit(ExitReason::Exited, Some(0), None), &reported)
        else {
            panic!("it has ended");
        };
        assert_eq!(
            (status, ending.cause, ending.exit_code),
            (Status::Failed, Some(Cause::ScriptFailed), Some(0))
        );
        assert_eq!(ending.detail.as_deref(), Some("the script called its run failed: diverged"));
        let canceled = Circumstances { cancel_requested: true, ..reported };
        let step = conclude_exit(&exit(ExitReason::Exited, Some(0), None), &canceled);
        assert_eq!(step.status(), Status::Canceled);
    }

    #[test]
    fn a_run_whose_data_could_not_be_sent_has_not_completed_and_is_not_done_again() {
        let unsent = Circumstances { unsent: Some("no space".to_owned()), ..circumstances(false, 1, 5) };
        let step = conclude_exit(&exit(ExitReason::Exited, Some(0), None), &unsent);
        assert_eq!((step.status(), cause_of(&step)), (Status::Failed, Some(Cause::Internal)));
        let step = conclude_exit(&exit(ExitReason::Exited, Some(3), None), &unsent);
        assert_eq!(cause_of(&step), Some(Cause::ScriptFailed));
    }

    #[test]
    fn what_is_refused_is_not_tried_again_and_a_cancel_is_still_one() {
        let refused = |c: &Circumstances| conclude_refusal(Cause::DispatchFailed, "no data".to_owned(), c);
        let step = refused(&circumstances(false, 1, 5));
        assert_eq!((step.status(), cause_of(&step)), (Status::Failed, Some(Cause::DispatchFailed)));
        assert_eq!(refused(&circumstances(true, 1, 5)).status(), Status::Canceled);
    }

    #[test]
    fn an_acknowledged_cancel_wins_over_every_exit() {
        for reason in REASONS {
            let step = conclude_exit(&exit(reason, Some(0), None), &circumstances(true, 1, 5));
            assert_eq!((step.status(), cause_of(&step)), (Status::Canceled, Some(Cause::CanceledByUser)));
        }
        let step = conclude_failure(Cause::ComputeLost, "gone".to_owned(), &circumstances(true, 1, 5));
        assert_eq!(step.status(), Status::Canceled);
    }

    #[test]
    fn a_run_over_its_time_is_canceled_and_says_why() {
        let over = exit(ExitReason::MaxRunDurationExceeded, None, Some(15));
        let step = conclude_exit(&over, &circumstances(false, 1, 5));
        assert_eq!((step.status(), cause_of(&step)), (Status::Canceled, Some(Cause::MaxRunDurationExceeded)));
    }

    #[test]
    fn a_run_that_wrote_too_much_has_failed_and_is_not_tried_again() {
        let over =
            Exit { remark: Some("9 bytes".into()), ..exit(ExitReason::DiskLimitExceeded, None, Some(15)) };
        let again = Circumstances {
            retries: Retries { max_attempts: 5, on_script_failure: true },
            ..circumstances(false, 1, 5)
        };
        let Move::End { status, ending } = conclude_exit(&over, &again) else { panic!("it has ended") };
        assert_eq!((status, ending.cause), (Status::Failed, Some(Cause::ScriptFailed)));
        assert_eq!(ending.detail.as_deref(), Some("wrote more than a run may and was stopped (9 bytes)"));
    }

    #[test]
    fn a_run_that_somebody_stopped_on_the_compute_is_canceled_and_not_tried_again() {
        let stopped =
            Exit { remark: Some("by user 7".into()), ..exit(ExitReason::CanceledElsewhere, None, Some(15)) };
        let Move::End { status, ending } = conclude_exit(&stopped, &circumstances(false, 1, 5)) else {
            panic!("it has ended");
        };
        assert_eq!((status, ending.cause), (Status::Canceled, Some(Cause::CanceledByUser)));
        assert!(ending.detail.unwrap().contains("by user 7"));
    }

    #[test]
    fn a_lost_attempt_is_tried_again_while_attempts_are_left() {
        let again = conclude_failure(Cause::ComputeLost, "gone".to_owned(), &circumstances(false, 1, 2));
        let Move::Requeue { delay, .. } = again else { panic!("{again:?}") };
        assert_eq!(delay, TimeDelta::seconds(2));
        let over = conclude_failure(Cause::ComputeLost, "gone".to_owned(), &circumstances(false, 2, 2));
        assert_eq!((over.status(), cause_of(&over)), (Status::Failed, Some(Cause::ComputeLost)));
    }

    #[test]
    fn a_failed_build_is_never_tried_again() {
        let step = conclude_failure(
            Cause::EnvironmentBuildFailed,
            "no such package".to_owned(),
            &circumstances(false, 1, 9),
        );
        assert_eq!(step.status(), Status::Failed);
    }

    /// Found by the simulation: a worker bars a failed attempt and dies before it has written why.
    #[test]
    fn an_attempt_that_was_given_up_before_it_began_is_not_lost_compute() {
        let barred = exit(ExitReason::Canceled, None, None);
        assert_eq!(
            cause_of(&conclude_exit(&barred, &circumstances(false, 1, 1))),
            Some(Cause::DispatchFailed)
        );
        assert_eq!(conclude_exit(&barred, &circumstances(false, 1, 2)).status(), Status::Queued);
        let stopped = Exit { started_at: Some(DateTime::UNIX_EPOCH), ..barred };
        assert_eq!(cause_of(&conclude_exit(&stopped, &circumstances(false, 1, 1))), Some(Cause::ComputeLost));
    }

    #[test]
    fn pauses_grow_to_a_cap() {
        let pauses: Vec<i64> = [1, 2, 3, 20, u32::MAX].map(|n| retry_delay(n, 0.5).num_seconds()).to_vec();
        assert_eq!(pauses, [2, 4, 8, 300, 300]);
        assert!(retry_delay(1, 0.0) < retry_delay(1, 1.0));
    }

    #[test]
    fn every_conclusion_is_a_move_that_the_table_allows() {
        for cancel in [false, true] {
            let from = if cancel { Status::CancelRequested } else { Status::Finalizing };
            for attempt in [1, 2] {
                for reason in REASONS {
                    for (code, signal) in [(Some(0), None), (Some(1), None), (None, Some(9)), (None, None)] {
                        let step =
                            conclude_exit(&exit(reason, code, signal), &circumstances(cancel, attempt, 2));
                        assert!(from.may_become(step.status()), "{from} to {}", step.status());
                    }
                }
            }
        }
    }
}

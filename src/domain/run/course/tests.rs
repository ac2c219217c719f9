//! The course of a run, one act after the other.

use super::*;
use crate::domain::run::ExitReason;
use chrono::DateTime;

const TWICE: Retries = Retries { max_attempts: 2, on_script_failure: false };

fn in_status(status: Status) -> Course {
    Course::new(status, 1, TWICE)
}

fn exited(reason: ExitReason, exit_code: Option<i32>) -> Observation {
    let started_at = Some(DateTime::UNIX_EPOCH);
    Observation::Exited(Exit { exit_code, ..Exit::new(reason, started_at, DateTime::UNIX_EPOCH) })
}

/// The status that the next act writes.
fn writes(course: &Course) -> Status {
    match course.act() {
        Act::Write { from, steps } => steps.iter().fold(from, |from, step| {
            assert!(from.may_become(step.status()), "{from} to {}", step.status());
            step.status()
        }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_status_begins_with_what_it_asks_for() {
    for status in Status::ALL {
        let act = in_status(status).act();
        if status.is_active() {
            assert!(!matches!(act, Act::Leave(_) | Act::Wait(_)), "{status}: {act:?}");
        } else {
            assert_eq!(act, Act::Leave(status));
        }
    }
}

#[test]
fn a_run_goes_straight_from_its_place_to_its_end() {
    let mut course = in_status(Status::Preparing);
    course.prepared(Prepared::Ready(serde_json::Value::Null));
    assert_eq!(writes(&course), Status::Starting);
    course.written(Status::Starting);
    assert_eq!(course.act(), Act::Submit);
    course.submitted(Submitted::Accepted);
    course.observed(Ok(Observation::Running { started_at: DateTime::UNIX_EPOCH }), 0.5);
    assert_eq!(writes(&course), Status::Running);
    course.written(Status::Running);
    course.observed(Ok(exited(ExitReason::Exited, Some(0))), 0.5);
    assert_eq!(course.act(), Act::Gather);
    let unwritten = course.unwritten();
    let finalizing = Act::Write { from: Status::Running, steps: vec![Move::to(Status::Finalizing)] };
    assert_eq!(unwritten, Some(finalizing), "for as long as gathering takes it may be written");
    course.written(Status::Finalizing);
    assert_eq!((course.act(), course.unwritten()), (Act::Gather, None));
    course.gathered(None, 0.5);
    assert_eq!(course.act(), Act::Verify);
    course.observed(Ok(exited(ExitReason::Exited, Some(0))), 0.5);
    assert_eq!(course.act(), Act::Send);
    course.sent(None, 0.5);
    assert_eq!(writes(&course), Status::Completed);
    course.written(Status::Completed);
    assert_eq!(course.act(), Act::Leave(Status::Completed));
}

#[test]
fn a_short_run_is_written_with_its_end() {
    let mut course = in_status(Status::Starting);
    course.submitted(Submitted::Accepted);
    course.observed(Ok(exited(ExitReason::Exited, Some(0))), 0.5);
    course.gathered(None, 0.5);
    course.observed(Ok(exited(ExitReason::Exited, Some(0))), 0.5);
    course.sent(None, 0.5);
    let Act::Write { from, steps } = course.act() else { panic!("{:?}", course.act()) };
    let statuses: Vec<Status> = steps.iter().map(Move::status).collect();
    let whole = vec![Status::Running, Status::Finalizing, Status::Completed];
    assert_eq!((from, statuses), (Status::Starting, whole));
    course.written(Status::Completed);
    assert_eq!((course.act(), course.unwritten()), (Act::Leave(Status::Completed), None));
}

#[test]
fn what_is_not_written_yet_is_written_before_anything_is_waited_for() {
    let mut course = in_status(Status::Running);
    course.observed(Ok(exited(ExitReason::Exited, Some(0))), 0.5);
    course.gathered(None, 0.5);
    course.observed(Err("no route".to_owned()), 0.5);
    assert_eq!(writes(&course), Status::Finalizing);
    course.written(Status::Finalizing);
    assert_eq!(course.act(), Act::Wait(Pause::Retry));
    course.waited();
    assert_eq!(course.act(), Act::Verify);
}

#[test]
fn a_cancel_drops_what_is_not_written_yet() {
    for overtaken in [
        |course: &mut Course| course.cancel_requested(),
        |course: &mut Course| {
            course.written(Status::CancelRequested);
        },
    ] {
        let mut course = in_status(Status::Starting);
        course.observed(Ok(exited(ExitReason::Exited, Some(0))), 0.5);
        assert_eq!(course.act(), Act::Gather);
        overtaken(&mut course);
        assert_eq!((course.act(), course.unwritten()), (Act::Stop, None));
    }
}

#[test]
fn nothing_is_concluded_before_the_backend_has_heard_that_nothing_may_start() {
    let mut course = in_status(Status::Starting);
    let failure =
        Failure { cause: Cause::DispatchFailed, detail: "it would not".to_owned(), is_permanent: false };
    course.submitted(Submitted::Failed(failure));
    assert_eq!(course.act(), Act::Stop);
    course.stopped(Err("no answer".to_owned()));
    assert_eq!(course.act(), Act::Wait(Pause::Retry));
    course.waited();
    assert_eq!(course.act(), Act::Stop, "until it is heard");
    course.stopped(Ok(()));
    course.observed(Ok(Observation::Running { started_at: DateTime::UNIX_EPOCH }), 0.5);
    assert_eq!(course.act(), Act::Wait(Pause::Interval), "something of it is left");
    course.waited();
    course.observed(Ok(Observation::NotFound), 0.5);
    course.gathered(None, 0.5);
    assert_eq!(writes(&course), Status::Queued, "a second attempt is allowed");
}

#[test]
fn a_cancel_interrupts_whatever_is_done() {
    for status in Status::ALL.into_iter().filter(|status| status.is_active()) {
        let mut course = in_status(status);
        course.cancel_requested();
        assert_eq!((course.act(), course.status()), (Act::Stop, Status::CancelRequested));
        course.stopped(Ok(()));
        course.observed(Ok(exited(ExitReason::Exited, Some(0))), 0.5);
        course.gathered(None, 0.5);
        course.observed(Ok(exited(ExitReason::Exited, Some(0))), 0.5);
        assert_eq!(writes(&course), Status::Canceled, "the script was faster, the promise counts");
    }
    let mut ended = in_status(Status::Completed);
    ended.cancel_requested();
    assert_eq!(ended.act(), Act::Leave(Status::Completed));
}

#[test]
fn silent_compute_keeps_what_it_has() {
    let mut course = in_status(Status::Running);
    course.observed(Err("no route".to_owned()), 0.5);
    assert_eq!(writes(&course), Status::NotResponding);
    course.written(Status::NotResponding);
    for _ in 0..3 {
        course.observed(Err("no route".to_owned()), 0.5);
        assert_eq!(course.act(), Act::Wait(Pause::Silence));
        course.waited();
    }
    course.observed(Ok(Observation::NotFound), 0.5);
    assert_eq!(course.act(), Act::Submit, "it had not got there before the silence");
    course.submitted(Submitted::Accepted);
    assert_eq!(writes(&course), Status::Starting);
}

#[test]
fn a_run_that_another_status_was_found_of_goes_on_from_there() {
    let mut course = in_status(Status::Preparing);
    course.prepared(Prepared::Ready(serde_json::Value::Null));
    course.written(Status::CancelRequested);
    assert_eq!(course.act(), Act::Stop);
}

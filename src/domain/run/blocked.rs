//! Why a run is not running, and what would change that.

use std::fmt;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Status;

/// A worker says every minute that it lives; of none heard for so long there is none.
pub const WORKER_SILENCE: TimeDelta = TimeDelta::seconds(180);

/// What a run waits for. The words label metrics too, and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockCode {
    /// The compute target has as many active runs as it takes.
    ComputeTargetAtLimit,
    /// Its caller has as many active runs as one caller may have.
    CallerAtLimit,
    /// Other queued runs go first.
    BehindOtherRuns,
    /// An attempt failed, and the next one is made a little later.
    RetryDelay,
    /// Nothing stands in its way: a worker with room will take it.
    WaitingForWorker,
    /// No worker has been heard of for minutes.
    NoWorker,
    /// The target that is made for this run alone is being made.
    ComputeTargetProvisioning,
    /// Its source tree, data and environment are being made ready.
    EnvironmentBuilding,
    /// It was handed to a cluster, which has not begun it.
    ClusterQueue,
    /// The cluster says that it has nothing that the run could ever run on, as it is now.
    NoSuchHardware,
    /// The compute does not answer.
    ComputeTargetUnreachable,
    /// Its processes can only be reached by one worker node, which is away.
    WorkerNodeAway,
}

impl BlockCode {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ComputeTargetAtLimit,
        Self::CallerAtLimit,
        Self::BehindOtherRuns,
        Self::RetryDelay,
        Self::WaitingForWorker,
        Self::NoWorker,
        Self::ComputeTargetProvisioning,
        Self::EnvironmentBuilding,
        Self::ClusterQueue,
        Self::NoSuchHardware,
        Self::ComputeTargetUnreachable,
        Self::WorkerNodeAway,
    ];

    /// The word of the API and of the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ComputeTargetAtLimit => "compute_target_at_limit",
            Self::CallerAtLimit => "caller_at_limit",
            Self::BehindOtherRuns => "behind_other_runs",
            Self::RetryDelay => "retry_delay",
            Self::WaitingForWorker => "waiting_for_worker",
            Self::NoWorker => "no_worker",
            Self::ComputeTargetProvisioning => "compute_target_provisioning",
            Self::EnvironmentBuilding => "environment_building",
            Self::ClusterQueue => "cluster_queue",
            Self::NoSuchHardware => "no_such_hardware",
            Self::ComputeTargetUnreachable => "compute_target_unreachable",
            Self::WorkerNodeAway => "worker_node_away",
        }
    }
}

impl fmt::Display for BlockCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One reason why a run does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BlockedBy {
    /// What it waits for.
    pub code: BlockCode,
    /// Since when the run is where this can be in its way; null where nobody noted it.
    pub since: Option<DateTime<Utc>>,
    /// The same in words.
    #[schema(example = "2 run(s) are active on `local`, which takes 2 at once")]
    pub detail: String,
    /// What would change it.
    #[schema(example = "one of them ends, or the target's `max_concurrent_runs` is raised")]
    pub unblocked_by: String,
}

/// Somebody's word, and since when it holds.
pub type Since = (String, DateTime<Utc>);

/// Everything that bears on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where the run is.
    pub status: Status,
    /// When that was written.
    pub status_since: Option<DateTime<Utc>>,
    /// Where it is to run.
    pub compute_target: String,
    /// Runs that hold a place there.
    pub active: u64,
    /// How many may; null before a worker has said so.
    pub limit: Option<u32>,
    /// Queued runs that go first.
    pub ahead: u64,
    /// Whose it is, and how many active runs that caller has.
    pub caller: (String, u64),
    /// How many one caller may have; null for any number.
    pub caller_limit: Option<u32>,
    /// Since when it has been in the queue.
    pub queued_at: Option<DateTime<Utc>>,
    /// When its next attempt is due, if that is still to come.
    pub not_before: Option<DateTime<Utc>>,
    /// What it waits for on a cluster, in its words.
    pub waits_for: Option<Since>,
    /// Why its target cannot be reached, if that is so.
    pub unreachable: Option<Since>,
    /// The worker node that alone can reach its processes, if nobody has the run there.
    pub node_away: Option<Since>,
    /// When a worker that serves the target was last heard of.
    pub worker_seen_at: Option<DateTime<Utc>>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

/// Whether anything may keep a run in this status from running; `is_unheld`: no worker has it on the node that alone can reach it.
#[must_use]
pub const fn may_be_blocked(status: Status, is_unheld: bool) -> bool {
    match status {
        Status::Queued
        | Status::Provisioning
        | Status::Preparing
        | Status::Starting
        | Status::NotResponding => true,
        Status::NotStarted | Status::Running | Status::Finalizing | Status::CancelRequested => is_unheld,
        Status::Completed | Status::Failed | Status::Canceled => false,
    }
}

/// Every reason, what weighs most first. Empty for a run that runs, is being brought home, or has ended.
#[must_use]
pub fn blocked_by(waiting: &Waiting) -> Vec<BlockedBy> {
    let mut reasons = Vec::new();
    if let Some((node, since)) = &waiting.node_away {
        reasons.push(BlockedBy {
            code: BlockCode::WorkerNodeAway,
            since: Some(*since),
            detail: format!("its processes are on worker node `{node}`, and no worker has the run there"),
            unblocked_by: "a worker starts on that node's data directory".to_owned(),
        });
    }
    match waiting.status {
        Status::Queued => reasons.extend(in_the_queue(waiting)),
        Status::Provisioning => reasons.push(BlockedBy {
            code: BlockCode::ComputeTargetProvisioning,
            since: waiting.status_since,
            detail: format!("`{}` is being made for this run alone", waiting.compute_target),
            unblocked_by: "the target is there".to_owned(),
        }),
        Status::Preparing => reasons.push(BlockedBy {
            code: BlockCode::EnvironmentBuilding,
            since: waiting.status_since,
            detail: "its source tree, its data and its environment are being made ready".to_owned(),
            unblocked_by: "they are; the build log `azureml-logs/20_image_build_log.txt` says how far the environment is".to_owned(),
        }),
        Status::Starting => reasons.extend(on_a_cluster(waiting)),
        Status::NotResponding => {
            let word = waiting.unreachable.clone();
            reasons.push(unreachable(waiting, word, waiting.status_since));
        }
        Status::NotStarted
        | Status::Running
        | Status::Finalizing
        | Status::CancelRequested
        | Status::Completed
        | Status::Failed
        | Status::Canceled => {}
    }
    reasons
}

fn in_the_queue(waiting: &Waiting) -> Vec<BlockedBy> {
    let Waiting { compute_target: target, active, ahead, queued_at: since, .. } = waiting;
    let mut reasons = Vec::new();
    let mut add = |code, since, detail, unblocked_by: &str| {
        reasons.push(BlockedBy { code, since, detail, unblocked_by: unblocked_by.to_owned() });
    };
    if let Some(due) = waiting.not_before {
        let due = due.to_rfc3339_opts(SecondsFormat::Secs, true);
        let detail = format!("the attempt before failed; the next one is made after {due}");
        add(BlockCode::RetryDelay, *since, detail, "time");
    }
    if let Some(limit) = waiting.limit
        && *active >= u64::from(limit)
    {
        let detail = format!("{active} run(s) are active on `{target}`, which takes {limit} at once");
        let fix = "one of them ends, or the target's `max_concurrent_runs` is raised";
        add(BlockCode::ComputeTargetAtLimit, *since, detail, fix);
    }
    let (caller, of_caller) = &waiting.caller;
    if let Some(limit) = waiting.caller_limit
        && *of_caller >= u64::from(limit)
    {
        let whose = if caller.is_empty() { "its caller".to_owned() } else { format!("caller `{caller}`") };
        let detail = format!("{of_caller} run(s) of {whose} are active, and one caller may have {limit}");
        let fix = "one of them ends, or the operator raises --max-active-runs-per-caller";
        add(BlockCode::CallerAtLimit, *since, detail, fix);
    }
    if *ahead > 0 {
        let detail =
            format!("{ahead} queued run(s) on `{target}` go first: of higher priority, or as high and older");
        let fix = "they get their places; one round in five gives places by age, whatever the priority";
        add(BlockCode::BehindOtherRuns, *since, detail, fix);
    }
    if let Some((why, since)) = &waiting.unreachable {
        let detail = format!("`{target}` cannot be reached: {why}");
        add(
            BlockCode::ComputeTargetUnreachable,
            Some(*since),
            detail,
            "it answers again; nothing is lost meanwhile",
        );
    }
    let is_silent = waiting.worker_seen_at.is_none_or(|seen| waiting.now - seen > WORKER_SILENCE);
    if is_silent {
        let detail = match waiting.worker_seen_at {
            Some(seen) => {
                let seen = seen.to_rfc3339_opts(SecondsFormat::Secs, true);
                format!("no worker that serves `{target}` has been heard of since {seen}")
            }
            None => format!("no worker that serves `{target}` has been heard of yet"),
        };
        add(
            BlockCode::NoWorker,
            waiting.worker_seen_at,
            detail,
            "a worker starts: `estimatord serve --role worker`",
        );
    }
    if reasons.is_empty() {
        let detail =
            format!("next on `{target}`, where {active} run(s) are active; a worker with room will take it");
        let fix = "a worker looks at the queue, which each does every two seconds; or another worker, when all have as many \
                   runs as --worker-slots";
        reasons.push(BlockedBy {
            code: BlockCode::WaitingForWorker,
            since: *since,
            detail,
            unblocked_by: fix.to_owned(),
        });
    }
    reasons
}

fn on_a_cluster(waiting: &Waiting) -> Vec<BlockedBy> {
    if let Some((why, since)) = &waiting.unreachable {
        return vec![unreachable(waiting, Some((why.clone(), *since)), Some(*since))];
    }
    let Some((words, since)) = &waiting.waits_for else { return Vec::new() };
    let (code, unblocked_by) = if can_never_start(words) {
        let fix = "the cluster gets such nodes, or the run is canceled and started again with what there is";
        (BlockCode::NoSuchHardware, fix)
    } else {
        (BlockCode::ClusterQueue, "the cluster's scheduler gives it a place")
    };
    vec![BlockedBy {
        code,
        since: Some(*since),
        detail: words.clone(),
        unblocked_by: unblocked_by.to_owned(),
    }]
}

fn unreachable(waiting: &Waiting, word: Option<Since>, since: Option<DateTime<Utc>>) -> BlockedBy {
    let target = &waiting.compute_target;
    let detail = match word {
        Some((why, _)) => format!("`{target}` cannot be reached: {why}"),
        None => format!("`{target}` does not answer"),
    };
    BlockedBy {
        code: BlockCode::ComputeTargetUnreachable,
        since,
        detail,
        unblocked_by: "it answers again; the run keeps what it has".to_owned(),
    }
}

/// Whether a scheduler's words say that nothing it has would do. Slurm: those reasons of `squeue` that a job waits for without
/// end; Kubernetes: what `FailedScheduling` says where no node matches, as against matching ones that are full.
fn can_never_start(words: &str) -> bool {
    const SLURM: [&str; 5] =
        ["BadConstraints", "PartitionNodeLimit", "PartitionTimeLimit", "InvalidAccount", "InvalidQOS"];
    let nothing_matches =
        words.contains("node(s) didn't match") || words.contains("no nodes available to schedule");
    SLURM.iter().any(|sign| words.contains(sign)) || (nothing_matches && !words.contains("Insufficient"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(status: Status) -> Waiting {
        Waiting {
            status,
            status_since: Some(DateTime::UNIX_EPOCH),
            compute_target: "local".to_owned(),
            active: 0,
            limit: None,
            ahead: 0,
            caller: (String::new(), 0),
            caller_limit: None,
            queued_at: Some(DateTime::UNIX_EPOCH),
            not_before: None,
            waits_for: None,
            unreachable: None,
            node_away: None,
            worker_seen_at: Some(DateTime::UNIX_EPOCH),
            now: DateTime::UNIX_EPOCH,
        }
    }

    fn codes(waiting: &Waiting) -> Vec<&'static str> {
        blocked_by(waiting).into_iter().map(|reason| reason.code.as_str()).collect()
    }

    fn since(word: &str) -> Option<Since> {
        Some((word.to_owned(), DateTime::UNIX_EPOCH))
    }

    #[test]
    fn a_queued_run_always_says_what_it_waits_for() {
        let queued = waiting(Status::Queued);
        assert_eq!(codes(&queued), ["waiting_for_worker"]);
        let full = Waiting { active: 2, limit: Some(2), ..queued.clone() };
        assert_eq!(codes(&full), ["compute_target_at_limit"]);
        assert_eq!(codes(&Waiting { ahead: 3, ..full }), ["compute_target_at_limit", "behind_other_runs"]);
        let greedy = Waiting { caller: ("ci".to_owned(), 4), caller_limit: Some(4), ..queued.clone() };
        assert_eq!(codes(&greedy), ["caller_at_limit"]);
        assert_eq!(
            codes(&Waiting { not_before: Some(DateTime::UNIX_EPOCH), ..queued.clone() }),
            ["retry_delay"]
        );
        assert_eq!(
            codes(&Waiting { unreachable: since("no route"), ..queued }),
            ["compute_target_unreachable"]
        );
    }

    #[test]
    fn a_queue_that_nobody_serves_says_so() {
        let queued = waiting(Status::Queued);
        assert_eq!(codes(&Waiting { worker_seen_at: None, ..queued.clone() }), ["no_worker"]);
        let later = DateTime::UNIX_EPOCH + WORKER_SILENCE;
        assert_eq!(codes(&Waiting { now: later, ..queued.clone() }), ["waiting_for_worker"]);
        assert_eq!(codes(&Waiting { now: later + TimeDelta::seconds(1), ..queued }), ["no_worker"]);
    }

    #[test]
    fn what_was_handed_over_says_what_the_engine_says() {
        let starting = waiting(Status::Starting);
        assert_eq!(codes(&starting), Vec::<&str>::new());
        for (words, code) in [
            ("Resources", "cluster_queue"),
            ("Priority", "cluster_queue"),
            ("BadConstraints", "no_such_hardware"),
            ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "cluster_queue"),
            (
                "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
                "no_such_hardware",
            ),
            (
                "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector.",
                "cluster_queue",
            ),
        ] {
            let one = Waiting { waits_for: since(words), ..starting.clone() };
            assert_eq!(codes(&one), [code], "{words}");
            assert_eq!(blocked_by(&one)[0].detail, words);
        }
    }

    #[test]
    fn who_is_away_is_said_wherever_the_run_is() {
        for status in Status::ALL.into_iter().filter(|status| status.is_active()) {
            let away = Waiting { node_away: since("node-1"), ..waiting(status) };
            assert_eq!(codes(&away)[0], "worker_node_away", "{status}");
            assert!(may_be_blocked(status, true), "{status}");
        }
        assert_eq!(codes(&waiting(Status::NotResponding)), ["compute_target_unreachable"]);
        assert_eq!(codes(&waiting(Status::Preparing)), ["environment_building"]);
    }

    #[test]
    fn what_runs_or_has_ended_waits_for_nothing() {
        for status in
            [Status::Running, Status::Finalizing, Status::Completed, Status::Failed, Status::Canceled]
        {
            assert!(blocked_by(&waiting(status)).is_empty(), "{status}");
        }
    }

    #[test]
    fn every_code_has_its_word_in_json_too() {
        for code in BlockCode::ALL {
            assert_eq!(serde_json::to_value(code).expect("JSON"), code.as_str());
        }
    }
}

//! Looking at an attempt, and ending it.

use chrono::{DateTime, TimeDelta, Utc};
use tracing::warn;

use super::{
    super::{Attempt, BackendError, Observation},
    KubernetesBackend, Reached, kind,
    submit::is_of,
    watch::Known,
};
use crate::{
    clock::{Clock as _, SystemClock},
    domain::kubernetes::{ATTEMPT_LABEL, Kind, RUN_LABEL, Seen, Stop, Workload, judge, object_name},
};

impl KubernetesBackend {
    /// Everything that is known of an attempt; asked for anew where the view is not up to date, or `certain` is wanted.
    pub(super) async fn known(&self, attempt: &Attempt, certain: bool) -> Result<Known, BackendError> {
        let (kind, name) = (kind(attempt), object_name(attempt.run_id, attempt.number));
        let Reached { cluster, watch } = self.reached().await?;
        if kind == Kind::MpiJob {
            watch.with_mpi_jobs();
        }
        let (known, is_current) = watch.known(&name, kind == Kind::MpiJob);
        if is_current && known.object.is_some() && !certain {
            return Ok(known);
        }
        let object = cluster.get(kind, &name).await?;
        let selector = format!("{RUN_LABEL}={},{ATTEMPT_LABEL}={}", attempt.run_id, attempt.number);
        let pods = cluster.pods(&selector).await?;
        let known = if is_current { watch.caught_up(&name, &pods).await } else { known };
        Ok(known.with(object, pods))
    }

    pub(super) async fn look(&self, attempt: &Attempt) -> Result<Observation, BackendError> {
        let notes = self.notes(attempt);
        let (submission, stop) = (notes.submission().await?, notes.stop().await?);
        if submission.is_none() {
            let at = stop.as_ref().map(|stop| stop.at);
            return Ok(at.map_or(Observation::NotFound, |at| never_made(stop.as_ref(), at)));
        }
        let uid = submission.and_then(|submission| submission.uid);
        let kind = kind(attempt);
        let verdict = |known: &Known| {
            let pods = known.pods();
            // An object of the name with another uid is not the attempt's.
            let is_same = |object: &&Workload| uid.as_ref().is_none_or(|uid| *uid == object.metadata.uid);
            let seen = Seen {
                kind,
                object: known.object.as_ref().filter(is_same),
                pods: &pods,
                events: &known.events,
                created: uid.is_some(),
                stop: stop.as_ref(),
                limit: attempt.plan.max_run_duration_seconds,
                patience: TimeDelta::seconds(i64::from(self.target.pending_timeout())),
                build_limit: TimeDelta::from_std(self.files.settings().build_timeout)
                    .unwrap_or(TimeDelta::MAX),
            };
            judge(&seen, SystemClock.now())
        };
        let mut known = self.known(attempt, false).await?;
        let mut judged = verdict(&known);
        if judged.observation.is_final() || judged.stop.is_some() {
            // What cannot be taken back is not concluded from a view that may be a moment old.
            known = self.known(attempt, true).await?;
            judged = verdict(&known);
        }
        let is_there = known.object.as_ref().filter(|object| object.metadata.deletion_timestamp.is_none());
        if let (Some(_), Some(object)) = (&stop, is_there) {
            // Whoever noted that it is to end did not get to it.
            self.delete(attempt, Some(object.metadata.uid.clone())).await?;
        }
        if let Some(reason) = judged.stop {
            warn!("{}: ending it: {reason:?}", object_name(attempt.run_id, attempt.number));
            let started_at = match &judged.observation {
                Observation::Running { started_at } => Some(*started_at),
                _ => None,
            };
            self.stop(attempt, Stop { reason, at: SystemClock.now(), started_at }).await?;
        }
        Ok(judged.observation)
    }

    /// Ends an attempt, and remembers why.
    pub(super) async fn stop(&self, attempt: &Attempt, stop: Stop) -> Result<(), BackendError> {
        let notes = self.notes(attempt);
        notes.write_stop(&stop).await?;
        match notes.submission().await? {
            Some(submission) => self.delete(attempt, submission.uid).await,
            None => Ok(()),
        }
    }

    /// Asks for the end of the attempt's object, and of no other one that has its name.
    pub(super) async fn delete(&self, attempt: &Attempt, uid: Option<String>) -> Result<(), BackendError> {
        let (kind, name) = (kind(attempt), object_name(attempt.run_id, attempt.number));
        let Reached { cluster, .. } = self.reached().await?;
        let uid = match uid {
            Some(uid) => uid,
            // It was about to be made: perhaps it was.
            None => match cluster.get(kind, &name).await? {
                Some(object) if is_of(&object, attempt) => object.metadata.uid,
                _ => return Ok(()),
            },
        };
        Ok(cluster.delete(kind, &name, &uid).await?)
    }
}

/// An attempt that was stopped before there was anything of it.
fn never_made(stop: Option<&Stop>, now: DateTime<Utc>) -> Observation {
    let seen = Seen {
        kind: Kind::Job,
        object: None,
        pods: &[],
        events: &[],
        created: false,
        stop,
        limit: None,
        patience: TimeDelta::MAX,
        build_limit: TimeDelta::MAX,
    };
    judge(&seen, now).observation
}

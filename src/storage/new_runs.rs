//! Accepting runs, as many in one transaction as are waiting to be accepted: a commit costs what it costs, however many share it.

use std::sync::Arc;

use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    Storage, StorageError, audit, compute_targets,
    error::json_text,
    estimators::{self, Estimator},
    events,
    idempotency::{self, Idempotency, Keyed, Recorded},
    runs::Run,
    shown_runs::RunJson,
};
use crate::domain::{
    audit::AuditEvent, one_off_target::one_off_target, run::Status, trace_parent::TraceParent,
};

/// A run that is to be accepted, and what is stored with it.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// The run.
    pub run: Run,
    /// What is kept of it as JSON.
    pub json: RunJson,
    /// Its estimator, when it came inline.
    pub estimator: Option<Estimator>,
    /// The key that makes the request safe to repeat, if it has one.
    pub idempotency: Option<Idempotency>,
    /// The body's hash, where the client chose the run's id.
    pub put_hash: Option<[u8; 32]>,
    /// Where in its trace the request is that the run comes by.
    pub trace_parent: Option<TraceParent>,
    /// The row of the audit trail, where the request is about this run alone.
    pub audit: Option<AuditEvent>,
}

/// What became of a request to accept a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Insertion {
    /// It is accepted.
    Accepted,
    /// The same of one whose request had a key, or what became of that key's request before.
    Keyed(Keyed),
    /// The target was deleted since the definition was judged.
    TargetGone,
    /// As many runs are queued as may be.
    QueueFull,
    /// There is a run with this id.
    Exists,
}

/// What became of several.
#[derive(Clone, Debug, PartialEq)]
pub struct Inserted {
    /// Of each, in their order. None: they could not be accepted together, and nothing was; each has to be tried by itself.
    pub each: Option<Vec<Insertion>>,
    /// How many runs were queued before, where that was counted, and no more than may be.
    pub queued: Option<u32>,
}

/// How many runs other transactions may be adding at this moment: as far from its limit the queue is counted without a lock.
pub const UNDER_WAY: u32 = 256;

/// What the lock is called under which the queue is counted when it is nearly full: "queue", in ASCII.
const QUEUE_LOCK: i64 = 0x71_75_65_75_65;

/// How many runs are queued, counted up to the limit. Near it one transaction counts at a time, and the next when it has ended.
async fn queued(connection: &mut PgConnection, limit: u32) -> Result<u32, StorageError> {
    let queued = count(connection, limit).await?;
    if queued.saturating_add(UNDER_WAY) < limit {
        return Ok(queued);
    }
    sqlx::query!(r#"SELECT pg_advisory_xact_lock($1) AS "done: ()""#, QUEUE_LOCK)
        .execute(&mut *connection)
        .await?;
    count(connection, limit).await
}

async fn count(connection: &mut PgConnection, limit: u32) -> Result<u32, StorageError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "queued!" FROM (SELECT FROM runs WHERE status = 'Queued' LIMIT $1) AS queued"#,
        i64::from(limit),
    );
    Ok(u32::try_from(count.fetch_one(connection).await?).unwrap_or(u32::MAX))
}

/// Which of the targets that the runs are for are there, and may be used by them: held until the transaction ends.
async fn hold_targets(
    connection: &mut PgConnection,
    runs: &[&NewRun],
) -> Result<Vec<(String, String)>, StorageError> {
    let mut wanted: Vec<(&str, &str)> =
        runs.iter().map(|new| (new.run.compute_target.as_str(), new.run.project.as_str())).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let (names, projects): (Vec<String>, Vec<String>) =
        wanted.into_iter().map(|(name, project)| (name.to_owned(), project.to_owned())).unzip();
    let held = sqlx::query!(
        r#"SELECT wanted.name AS "name!", wanted.project AS "project!"
           FROM unnest($1::text[], $2::text[]) AS wanted (name, project)
           JOIN compute_targets ON compute_targets.name = wanted.name
           WHERE projects = '{}' OR wanted.project = ANY (projects)
           FOR SHARE OF compute_targets"#,
        &names,
        &projects,
    )
    .fetch_all(connection)
    .await?;
    Ok(held.into_iter().map(|row| (row.name, row.project)).collect())
}

fn is_one_off(new: &NewRun) -> bool {
    one_off_target(new.run.id, &new.run.plan, &new.run.backend).is_some()
}

impl Storage {
    /// Accepts runs: of each its estimator (when it came inline), the run, its first event, its row of the audit trail and the answer to
    /// an idempotent request (`answers`, in their order), all in one transaction. `max_queued` is how many may be queued; without it
    /// that is not looked at.
    ///
    /// # Errors
    /// When an estimator or a snapshot has been deleted since it was judged ([`StorageError::is_about_what_is_gone`]), or the
    /// database fails. Nothing is accepted then.
    pub async fn insert_runs(
        &self,
        runs: &[Arc<NewRun>],
        answers: &[Option<Recorded>],
        max_queued: Option<u32>,
    ) -> Result<Inserted, StorageError> {
        let mut tx = self.pool.begin().await?;
        let keys: Vec<Option<&Idempotency>> = runs.iter().map(|new| new.idempotency.as_ref()).collect();
        let mut each: Vec<Option<Insertion>> = idempotency::begin_all(&mut tx, &keys)
            .await?
            .into_iter()
            .map(|earlier| earlier.map(Insertion::Keyed))
            .collect();
        let mut counted = None;
        if let Some(limit) = max_queued.filter(|_| each.contains(&None)) {
            let queued = queued(&mut tx, limit).await?;
            counted = Some(queued);
            let room = usize::try_from(limit.saturating_sub(queued)).unwrap_or(usize::MAX);
            each.iter_mut()
                .filter(|one| one.is_none())
                .skip(room)
                .for_each(|one| *one = Some(Insertion::QueueFull));
        }
        let open = |each: &[Option<Insertion>]| -> Vec<usize> {
            each.iter().enumerate().filter(|(_, one)| one.is_none()).map(|(place, _)| place).collect()
        };
        let on_targets: Vec<usize> =
            open(&each).into_iter().filter(|&place| !is_one_off(&runs[place])).collect();
        if !on_targets.is_empty() {
            let wanting: Vec<&NewRun> = on_targets.iter().map(|&place| &*runs[place]).collect();
            let held = hold_targets(&mut tx, &wanting).await?;
            for place in on_targets {
                let Run { compute_target, project, .. } = &runs[place].run;
                if !held.iter().any(|(name, of)| name == compute_target && of == project.as_str()) {
                    each[place] = Some(Insertion::TargetGone);
                }
            }
        }
        let accepted = open(&each);
        if accepted.is_empty() {
            // Explicitly, so that the locks of keys are gone when the client asks again.
            tx.rollback().await?;
        } else {
            let new: Vec<&NewRun> = accepted.iter().map(|&place| &*runs[place]).collect();
            let keyed = accepted.iter().filter_map(|&place| {
                Some((runs[place].idempotency.as_ref()?, answers.get(place)?.as_ref()?))
            });
            if !store(&mut tx, &new, &keyed.collect::<Vec<_>>()).await? {
                tx.rollback().await?;
                let each = (runs.len() == 1).then(|| vec![Insertion::Exists]);
                return Ok(Inserted { each, queued: counted });
            }
            tx.commit().await?;
            self.tell_of_work();
        }
        let answer = |place: usize| answers.get(place).cloned().flatten();
        let accepted =
            |place| answer(place).map_or(Insertion::Accepted, |answer| Insertion::Keyed(Keyed::Done(answer)));
        let done = |(place, one): (usize, Option<Insertion>)| one.unwrap_or_else(|| accepted(place));
        Ok(Inserted { each: Some(each.into_iter().enumerate().map(done).collect()), queued: counted })
    }
}

/// Stores all that belongs to the runs; false when one of their ids or of their own targets' names is taken.
async fn store(
    tx: &mut Transaction<'static, Postgres>,
    new: &[&NewRun],
    keyed: &[(&Idempotency, &Recorded)],
) -> Result<bool, StorageError> {
    let estimators: Vec<_> =
        new.iter().filter_map(|new| Some((&new.run.project, new.estimator.as_ref()?))).collect();
    if !estimators.is_empty() {
        estimators::insert_all(tx, &estimators, true).await?;
    }
    if !insert(tx, new).await? {
        return Ok(false);
    }
    for NewRun { run, .. } in new {
        if let Some(target) = one_off_target(run.id, &run.plan, &run.backend)
            && !compute_targets::insert_one_off(tx, &target, run).await?
        {
            return Ok(false);
        }
    }
    let first =
        |new: &&NewRun| events::NewEvent::status(new.run.id, 1, new.run.created_at, 0, Status::Queued);
    events::append_all(tx, &new.iter().map(first).collect::<Vec<_>>()).await?;
    let trail: Vec<&AuditEvent> = new.iter().filter_map(|new| new.audit.as_ref()).collect();
    if !trail.is_empty() {
        audit::append_all(tx, &trail).await?;
    }
    if !keyed.is_empty() {
        idempotency::record_all(tx, keyed).await?;
    }
    Ok(true)
}

fn column<T>(new: &[&NewRun], of: impl Fn(&NewRun) -> T) -> Vec<T> {
    new.iter().map(|new| of(new)).collect()
}

fn json_column<T: serde::Serialize>(
    new: &[&NewRun],
    of: impl Fn(&Run) -> &T,
) -> Result<Vec<String>, StorageError> {
    new.iter().map(|new| json_text(of(&new.run))).collect()
}

/// Inserts the rows of runs; whether none of their ids was taken.
async fn insert(connection: &mut PgConnection, new: &[&NewRun]) -> Result<bool, StorageError> {
    let retry_on =
        |new: &NewRun| new.run.retry_on.iter().map(|cause| cause.as_str()).collect::<Vec<_>>().join(" ");
    let inserted = sqlx::query!(
        "INSERT INTO runs (id, experiment_name, display_name, estimator_id, compute_target, backend, definition,
                           findings, plan, tags, priority, max_attempts, status, created_at, next_step_at, event_count,
                           retry_on, queued_at, max_queue_duration_seconds, queue_deadline, caller, rerun_of, put_hash, project,
                           trace_parent)
         SELECT id, experiment_name, display_name, estimator_id, compute_target, backend::json, definition::json,
                findings::json, plan::json, tags::jsonb, priority, max_attempts, 'Queued', created_at, '-infinity', 1,
                -- Words without spaces, in one text: arrays of arrays have all the same length.
                CASE retry_on WHEN '' THEN '{}' ELSE string_to_array(retry_on, ' ') END,
                created_at, max_queue_duration_seconds, now() + make_interval(secs => max_queue_duration_seconds::float8),
                caller, rerun_of, put_hash, project, trace_parent
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                     $10::text[], $11::integer[], $12::integer[], $13::timestamptz[], $14::text[], $15::bigint[], $16::text[],
                     $17::uuid[], $18::bytea[], $19::text[], $20::text[])
              AS new (id, experiment_name, display_name, estimator_id, compute_target, backend, definition, findings, plan, tags,
                      priority, max_attempts, created_at, retry_on, max_queue_duration_seconds, caller, rerun_of, put_hash,
                      project, trace_parent)
         ON CONFLICT (id) DO NOTHING",
        &column(new, |new| new.run.id.as_uuid()),
        &column(new, |new| new.run.experiment_name.clone()),
        &column(new, |new| new.run.display_name.clone()) as _,
        &column(new, |new| new.run.estimator_id.as_uuid()),
        &column(new, |new| new.run.compute_target.clone()),
        &json_column(new, |run| &run.backend)?,
        &column(new, |new| new.json.definition.get().to_owned()),
        &column(new, |new| new.json.findings.get().to_owned()),
        &column(new, |new| new.json.plan.get().to_owned()),
        &json_column(new, |run| &run.tags)?,
        &column(new, |new| new.run.priority),
        &column(new, |new| i32::try_from(new.run.max_attempts).unwrap_or(i32::MAX)),
        &column(new, |new| new.run.created_at),
        &column(new, retry_on),
        &column(new, |new| new.run.max_queue_duration_seconds.map(i64::from)) as _,
        &column(new, |new| new.run.caller.clone()),
        &column(new, |new| new.run.rerun_of.map(|id| id.as_uuid())) as _,
        &column(new, |new| new.put_hash.map(Vec::from)) as _,
        &column(new, |new| new.run.project.as_str().to_owned()),
        &column(new, |new| new.trace_parent.map(|place| place.to_string())) as _,
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == new.len() as u64)
}

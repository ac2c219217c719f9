//! Moves of runs from one status to the next, as many in one transaction as are waiting to be written.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Storage, StorageError, error::json_text, events, leases::Lease, snapshots::to_i64, transitions::Written,
};
use crate::domain::{
    ids::RunId,
    run::{Cause, Ending, Move, Status},
};

/// Moves of one run that a worker wants to write, all at once.
#[derive(Clone, Debug)]
pub struct Transition {
    /// By what right.
    pub lease: Lease,
    /// The status that the first starts from.
    pub from: Status,
    /// Where to, in their order.
    pub steps: Vec<Move>,
    /// When.
    pub now: DateTime<Utc>,
}

const fn ending(step: &Move) -> Option<&Ending> {
    match step {
        Move::To { .. } => None,
        Move::End { ending, .. } | Move::Requeue { ending, .. } => Some(ending),
    }
}

fn detail(step: &Move) -> Option<String> {
    match step {
        Move::To { detail, .. } => detail.clone(),
        Move::End { ending, .. } | Move::Requeue { ending, .. } => ending.detail.clone(),
    }
}

impl Transition {
    /// The status that they lead to.
    fn status(&self) -> Status {
        self.steps.last().map_or(self.from, Move::status)
    }

    fn ending(&self) -> Option<&Ending> {
        self.steps.last().and_then(ending)
    }

    fn detail(&self) -> Option<String> {
        self.steps.last().and_then(detail)
    }

    fn started_at(&self) -> Option<DateTime<Utc>> {
        self.steps.iter().find_map(|step| match step {
            Move::To { started_at, .. } => *started_at,
            Move::End { ending, .. } | Move::Requeue { ending, .. } => ending.started_at,
        })
    }

    fn environment(&self) -> Result<Option<String>, StorageError> {
        let environment = self.steps.iter().rev().find_map(|step| match step {
            Move::To { actual_environment, .. } => actual_environment.as_ref(),
            Move::End { .. } | Move::Requeue { .. } => None,
        });
        environment.map(json_text).transpose()
    }

    /// In seconds.
    fn delay(&self) -> f64 {
        match self.steps.last() {
            Some(Move::Requeue { delay, .. }) => delay.to_std().unwrap_or_default().as_secs_f64(),
            Some(Move::To { .. } | Move::End { .. }) | None => 0.0,
        }
    }

    /// A requeued run carries no cause: it has not ended. Its attempt does.
    fn run_cause(&self) -> Option<&'static str> {
        let ending = self.ending().filter(|_| self.status().is_terminal())?;
        ending.cause.map(Cause::as_str)
    }

    /// The backend's word, where it has one: the service may have been away when the processes ended.
    fn finished_at(&self) -> DateTime<Utc> {
        self.ending().and_then(|ending| ending.finished_at).unwrap_or(self.now)
    }

    /// One for each move.
    fn events(&self, moved: Moved) -> impl Iterator<Item = events::NewEvent> {
        let first = moved.event_count - count(&self.steps) + 1;
        self.steps.iter().zip(first..).map(move |(step, sequence)| {
            let attempt = u32::try_from(moved.attempt).unwrap_or(0);
            events::NewEvent {
                cause: ending(step).and_then(|ending| ending.cause),
                detail: detail(step),
                ..events::NewEvent::status(self.lease.run_id, sequence, self.now, attempt, step.status())
            }
        })
    }
}

fn count(steps: &[Move]) -> i64 {
    i64::try_from(steps.len()).unwrap_or(i64::MAX)
}

/// What a run has become.
#[derive(Clone, Copy, Debug)]
struct Moved {
    event_count: i64,
    attempt: i32,
}

fn column<T>(steps: &[Transition], of: impl Fn(&Transition) -> T) -> Vec<T> {
    steps.iter().map(of).collect()
}

impl Storage {
    /// Writes moves, of different runs, all in one transaction; answers in their order.
    ///
    /// # Errors
    /// When the database fails. Whether they were written is then not known; the same moves can be tried again.
    pub async fn move_runs(&self, steps: &[Transition]) -> Result<Vec<Written>, StorageError> {
        let mut tx = self.pool.begin().await?;
        if steps.len() > 1 {
            lock(&mut tx, steps).await?;
        }
        let moved = update(&mut tx, steps).await?;
        let written: Vec<(&Transition, Moved)> =
            steps.iter().filter_map(|step| Some((step, *moved.get(&step.lease.run_id)?))).collect();
        if !written.is_empty() {
            let events: Vec<_> = written.iter().flat_map(|(step, moved)| step.events(*moved)).collect();
            events::append_all(&mut tx, &events).await?;
            note_starts(&mut tx, &written).await?;
            note_ends(&mut tx, &written).await?;
        }
        let others =
            if written.len() < steps.len() { statuses(&mut tx, steps).await? } else { HashMap::new() };
        let frees_places = written.iter().any(|(step, _)| step.ending().is_some());
        tx.commit().await?;
        if frees_places {
            self.tell_of_work();
        }
        let outcome = |step: &Transition| {
            let run = step.lease.run_id;
            match (moved.contains_key(&run), others.get(&run)) {
                (true, _) => Ok(Written::Done),
                (false, None) => Ok(Written::LeaseLost),
                (false, Some(word)) => {
                    let status =
                        word.parse().map_err(|e| StorageError::inconsistent("runs", "status", run, e))?;
                    Ok(Written::StatusIs(status))
                }
            }
        };
        steps.iter().map(outcome).collect()
    }
}

/// Whoever locks several rows does so in this order, so that nobody waits for whom he keeps waiting.
async fn lock(connection: &mut PgConnection, steps: &[Transition]) -> Result<(), StorageError> {
    sqlx::query!(
        r#"SELECT 1 AS "one!" FROM runs WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"#,
        &column(steps, |step| step.lease.run_id.as_uuid()),
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}

async fn update(
    connection: &mut PgConnection,
    steps: &[Transition],
) -> Result<HashMap<RunId, Moved>, StorageError> {
    let environments: Result<Vec<Option<String>>, _> = steps.iter().map(Transition::environment).collect();
    let rows = sqlx::query!(
        r#"UPDATE runs SET
               status = step.status, cause = step.cause, waits_for = NULL, waits_since = NULL,
               -- What was said of an earlier status is not true of this one.
               detail = step.detail,
               exit_code = CASE WHEN step.ends THEN step.exit_code ELSE runs.exit_code END,
               signal = CASE WHEN step.ends THEN step.signal ELSE runs.signal END,
               started_at = coalesce(runs.started_at, step.started_at),
               finished_at = CASE WHEN step.is_terminal THEN step.finished_at END,
               actual_environment = coalesce(step.environment::json, runs.actual_environment),
               -- Clocks of workers differ; when something is due is decided by one.
               next_step_at = now() + make_interval(secs => step.delay),
               queued_at = CASE WHEN step.status = 'Queued' THEN step.at ELSE runs.queued_at END,
               -- Before its delay is over nothing could have started it.
               queue_deadline = CASE WHEN step.status = 'Queued' THEN now() + make_interval(secs => step.delay + max_queue_duration_seconds::float8)
                                     ELSE queue_deadline END,
               cancel_evidence = coalesce(step.evidence, runs.cancel_evidence),
               lease_token = CASE WHEN step.ends THEN NULL ELSE lease_token END,
               lease_owner = CASE WHEN step.ends THEN NULL ELSE lease_owner END,
               lease_expires_at = CASE WHEN step.ends THEN '-infinity' ELSE lease_expires_at END,
               node = CASE WHEN step.status = 'Queued' THEN NULL ELSE node END,
               event_count = event_count + step.moves
           FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::integer[],
                       $9::timestamptz[], $10::boolean[], $11::timestamptz[], $12::text[], $13::float8[], $14::boolean[],
                       $15::timestamptz[], $16::text[], $17::bigint[])
                AS step (id, token, former, status, cause, detail, exit_code, signal, started_at, is_terminal, finished_at,
                         environment, delay, ends, at, evidence, moves)
           WHERE runs.id = step.id AND runs.lease_token = step.token AND runs.status = step.former
           RETURNING runs.id AS "id!", event_count AS "event_count!", attempt AS "attempt!""#,
        &column(steps, |step| step.lease.run_id.as_uuid()),
        &column(steps, |step| step.lease.token),
        &column(steps, |step| step.from.as_str().to_owned()),
        &column(steps, |step| step.status().as_str().to_owned()),
        &column(steps, |step| step.run_cause().map(str::to_owned)) as _,
        &column(steps, Transition::detail) as _,
        &column(steps, |step| step.ending().and_then(|ending| ending.exit_code)) as _,
        &column(steps, |step| step.ending().and_then(|ending| ending.signal)) as _,
        &column(steps, Transition::started_at) as _,
        &column(steps, |step| step.status().is_terminal()),
        &column(steps, Transition::finished_at),
        &environments? as _,
        &column(steps, Transition::delay),
        &column(steps, |step| step.ending().is_some()),
        &column(steps, |step| step.now),
        &column(steps, |step| step.ending().and_then(|ending| ending.evidence.clone())) as _,
        &column(steps, |step| count(&step.steps)),
    )
    .fetch_all(connection)
    .await?;
    let moved = rows
        .into_iter()
        .map(|row| (RunId::from_uuid(row.id), Moved { event_count: row.event_count, attempt: row.attempt }));
    Ok(moved.collect())
}

async fn note_starts(
    connection: &mut PgConnection,
    written: &[(&Transition, Moved)],
) -> Result<(), StorageError> {
    let started: Vec<(Uuid, i32, DateTime<Utc>)> = written
        .iter()
        .filter(|(step, _)| step.ending().is_none())
        .filter_map(|(step, moved)| Some((step.lease.run_id.as_uuid(), moved.attempt, step.started_at()?)))
        .collect();
    if started.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE run_attempts SET started_at = coalesce(run_attempts.started_at, step.started_at)
         FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[]) AS step (run_id, number, started_at)
         WHERE run_attempts.run_id = step.run_id AND run_attempts.number = step.number",
        &started.iter().map(|one| one.0).collect::<Vec<_>>(),
        &started.iter().map(|one| one.1).collect::<Vec<_>>(),
        &started.iter().map(|one| one.2).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn note_ends(
    connection: &mut PgConnection,
    written: &[(&Transition, Moved)],
) -> Result<(), StorageError> {
    let ended: Vec<(&Transition, Moved, &Ending)> =
        written.iter().filter_map(|(step, moved)| Some((*step, *moved, step.ending()?))).collect();
    if ended.is_empty() {
        return Ok(());
    }
    fn column<T>(
        ended: &[(&Transition, Moved, &Ending)],
        of: impl Fn(&Transition, Moved, &Ending) -> T,
    ) -> Vec<T> {
        ended.iter().map(|(step, moved, ending)| of(step, *moved, ending)).collect()
    }
    sqlx::query!(
        "UPDATE run_attempts SET started_at = coalesce(run_attempts.started_at, step.started_at),
                                 finished_at = step.finished_at, cause = step.cause, detail = step.detail,
                                 exit_code = step.exit_code, signal = step.signal, cpu_seconds = step.cpu_seconds,
                                 peak_memory_bytes = step.peak_memory_bytes
         FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::text[], $5::text[], $6::integer[], $7::integer[],
                     $8::float8[], $9::bigint[], $10::timestamptz[])
              AS step (run_id, number, finished_at, cause, detail, exit_code, signal, cpu_seconds, peak_memory_bytes, started_at)
         WHERE run_attempts.run_id = step.run_id AND run_attempts.number = step.number",
        &column(&ended, |step, _, _| step.lease.run_id.as_uuid()),
        &column(&ended, |_, moved, _| moved.attempt),
        &column(&ended, |step, _, _| step.finished_at()),
        &column(&ended, |_, _, ending| ending.cause.map(|cause| cause.as_str().to_owned())) as _,
        &column(&ended, |_, _, ending| ending.detail.clone()) as _,
        &column(&ended, |_, _, ending| ending.exit_code) as _,
        &column(&ended, |_, _, ending| ending.signal) as _,
        &column(&ended, |_, _, ending| ending.cpu_seconds) as _,
        &column(&ended, |_, _, ending| ending.peak_memory_bytes.map(to_i64)) as _,
        &column(&ended, |step, _, _| step.started_at()) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The statuses of those runs whose leases still hold. An end takes the lease with it: one that is there already was written by whoever
/// writes it again, and the answer did not come.
async fn statuses(
    connection: &mut PgConnection,
    steps: &[Transition],
) -> Result<HashMap<RunId, String>, StorageError> {
    let rows = sqlx::query!(
        r#"SELECT runs.id AS "id!", runs.status AS "status!" FROM runs
           JOIN unnest($1::uuid[], $2::uuid[], $3::text[]) AS step (id, token, ended) ON runs.id = step.id
               AND (runs.lease_token = step.token OR (runs.lease_token IS NULL AND runs.status = step.ended))"#,
        &column(steps, |step| step.lease.run_id.as_uuid()),
        &column(steps, |step| step.lease.token),
        &column(steps, |step| step.status().is_terminal().then(|| step.status().as_str().to_owned())) as _,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (RunId::from_uuid(row.id), row.status)).collect())
}

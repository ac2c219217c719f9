//! What scripts recorded about their runs: metrics, tags, properties, and that they call themselves failed.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};

use super::{
    Storage, StorageError,
    error::json_text,
    events,
    leases::{Lease, attempt_number},
    snapshots::{to_i64, to_u64},
    transitions::Written,
};
use crate::domain::{
    ids::RunId,
    record::{Metric, Record},
};

/// How far a file of records was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFile {
    /// Its name, `<rank>-<pid>-<random>.jsonl`.
    pub name: String,
    /// How many bytes of it.
    pub bytes: u64,
    /// Why the rest of it is not read.
    pub fault: Option<String>,
}

/// A part of a file of records, to be taken over.
#[derive(Clone, Debug)]
pub struct RecordPart<'a> {
    /// The attempt.
    pub attempt: u32,
    /// The file as it is after this part.
    pub file: &'a RecordFile,
    /// The rank of the process that wrote it.
    pub rank: i32,
    /// What stands in it, in order.
    pub records: &'a [Record],
}

/// A value of a metric, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RunMetric {
    /// 1 for the first of its attempt, without gaps.
    pub sequence: u64,
    /// The rank of the process that logged it.
    pub rank: u32,
    /// What was logged.
    pub metric: Metric,
}

/// Which metrics are asked for.
#[derive(Clone, Copy, Debug)]
pub struct MetricFilter<'a> {
    /// The attempt.
    pub attempt: u32,
    /// Only these of this name.
    pub name: Option<&'a str>,
    /// Only those of this rank.
    pub rank: Option<u32>,
    /// Only those after this sequence number.
    pub after: u64,
    /// At most so many.
    pub limit: u32,
    /// No more values than fit into so many bytes; one in any case. More than 0.
    pub bytes: u64,
}

impl Storage {
    /// Takes over a part of a file of records: everything in it and how far the file has been read, or nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_records(
        &self,
        lease: &Lease,
        part: &RecordPart<'_>,
        now: DateTime<Utc>,
    ) -> Result<Written, StorageError> {
        let mut tx = self.pool.begin().await?;
        let held = sqlx::query_scalar!(
            "SELECT status FROM runs WHERE id = $1 AND lease_token = $2 FOR UPDATE",
            lease.run_id.as_uuid(),
            lease.token,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(status) = held else { return Ok(Written::LeaseLost) };
        insert_metrics(&mut tx, lease.run_id, part).await?;
        for record in part.records {
            apply(&mut tx, lease.run_id, part.attempt, record).await?;
        }
        sqlx::query!(
            "INSERT INTO run_record_files (run_id, attempt, name, bytes, fault) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (run_id, attempt, name) DO UPDATE SET bytes = excluded.bytes, fault = excluded.fault",
            lease.run_id.as_uuid(),
            attempt_number(part.attempt),
            part.file.name,
            to_i64(part.file.bytes),
            part.file.fault,
        )
        .execute(&mut *tx)
        .await?;
        if let Some(fault) = &part.file.fault {
            let bad = |e| StorageError::inconsistent("runs", "status", lease.run_id, e);
            let status = status.parse().map_err(bad)?;
            let sequence = sqlx::query_scalar!(
                "UPDATE runs SET event_count = event_count + 1 WHERE id = $1 RETURNING event_count",
                lease.run_id.as_uuid(),
            )
            .fetch_one(&mut *tx)
            .await?;
            let event = events::NewEvent {
                kind: "metrics",
                detail: Some(format!("records of rank {} were left out: {fault}", part.rank)),
                ..events::NewEvent::status(lease.run_id, sequence, now, part.attempt, status)
            };
            events::append(&mut tx, &event).await?;
        }
        tx.commit().await?;
        Ok(Written::Done)
    }

    /// How far each file of records of an attempt was taken over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_record_files(&self, run: RunId, attempt: u32) -> Result<Vec<RecordFile>, StorageError> {
        let rows = sqlx::query!(
            "SELECT name, bytes, fault FROM run_record_files WHERE run_id = $1 AND attempt = $2",
            run.as_uuid(),
            attempt_number(attempt),
        )
        .fetch_all(&self.pool)
        .await?;
        let files = rows.into_iter().map(|row| RecordFile {
            name: row.name,
            bytes: to_u64(row.bytes),
            fault: row.fault,
        });
        Ok(files.collect())
    }

    /// What the script of an attempt said when it called itself failed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reported_failure(&self, run: RunId, attempt: u32) -> Result<Option<String>, StorageError> {
        let said = sqlx::query_scalar!(
            "SELECT reported_failure FROM run_attempts WHERE run_id = $1 AND number = $2",
            run.as_uuid(),
            attempt_number(attempt),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(said.flatten())
    }

    /// The metrics of an attempt in the order in which they arrived, and whether there are more.
    ///
    /// # Errors
    /// When the database fails, or holds what it cannot.
    pub async fn list_run_metrics(
        &self,
        run: RunId,
        filter: &MetricFilter<'_>,
    ) -> Result<(Vec<RunMetric>, bool), StorageError> {
        let rows = sqlx::query!(
            r#"SELECT sequence AS "sequence!", name AS "name!", kind AS "kind!", value AS "value!: Json<Value>", step,
                      rank AS "rank!", recorded_at AS "recorded_at!", description, child, before + size < $7 AS "more_fits!"
               FROM (
                   SELECT *, (sum(size) OVER (ORDER BY sequence) - size)::bigint AS before FROM (
                       SELECT *, octet_length(value::text)::bigint AS size FROM run_metrics
                       WHERE run_id = $1 AND attempt = $2 AND ($3::text IS NULL OR name = $3)
                           AND ($4::integer IS NULL OR rank = $4) AND sequence > $5
                       ORDER BY sequence LIMIT $6
                   ) AS found
               ) AS sized WHERE before < $7 ORDER BY sequence"#,
            run.as_uuid(),
            attempt_number(filter.attempt),
            filter.name,
            filter.rank.map(attempt_number),
            to_i64(filter.after),
            i64::from(filter.limit) + 1,
            to_i64(filter.bytes),
        )
        .fetch_all(&self.pool)
        .await?;
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        // The last one that was read may have been the last one that fitted.
        let more = rows.len() > limit || rows.last().is_some_and(|row| !row.more_fits);
        let mut metrics = Vec::with_capacity(rows.len().min(limit));
        for row in rows.into_iter().take(limit) {
            let bad = |e| StorageError::inconsistent("run_metrics", "kind", run, e);
            metrics.push(RunMetric {
                sequence: to_u64(row.sequence),
                rank: u32::try_from(row.rank).unwrap_or(0),
                metric: Metric {
                    name: row.name,
                    kind: row.kind.parse().map_err(bad)?,
                    value: row.value.0,
                    step: row.step,
                    recorded_at: row.recorded_at,
                    description: row.description,
                    child: row.child,
                },
            });
        }
        Ok((metrics, more))
    }
}

/// The metrics of a part, in one statement: a script may log thousands between two looks.
async fn insert_metrics(
    connection: &mut PgConnection,
    run: RunId,
    part: &RecordPart<'_>,
) -> Result<(), StorageError> {
    let metrics: Vec<&Metric> = part
        .records
        .iter()
        .filter_map(|record| if let Record::Metric(metric) = record { Some(metric) } else { None })
        .collect();
    if metrics.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&Metric) -> &str| metrics.iter().map(|m| of(m).to_owned()).collect::<Vec<_>>();
    let option =
        |of: fn(&Metric) -> Option<&String>| metrics.iter().map(|m| of(m).cloned()).collect::<Vec<_>>();
    let values = metrics.iter().map(|m| json_text(&m.value)).collect::<Result<Vec<_>, _>>()?;
    let steps: Vec<Option<i64>> = metrics.iter().map(|m| m.step).collect();
    let times: Vec<DateTime<Utc>> = metrics.iter().map(|m| m.recorded_at).collect();
    sqlx::query!(
        "INSERT INTO run_metrics (run_id, attempt, sequence, name, kind, value, step, rank, recorded_at, description, child)
         SELECT $1, $2, (SELECT coalesce(max(sequence), 0) FROM run_metrics WHERE run_id = $1 AND attempt = $2) + place,
                name, kind, value::json, step, $3, recorded_at, description, child
         FROM unnest($4::text[], $5::text[], $6::text[], $7::bigint[], $8::timestamptz[], $9::text[], $10::text[])
             WITH ORDINALITY AS logged (name, kind, value, step, recorded_at, description, child, place)",
        run.as_uuid(),
        attempt_number(part.attempt),
        part.rank,
        &column(|m| &m.name),
        &column(|m| m.kind.as_str()),
        &values,
        &steps as &[Option<i64>],
        &times,
        &option(|m| m.description.as_ref()) as &[Option<String>],
        &option(|m| m.child.as_ref()) as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What a record changes about the run itself.
async fn apply(
    connection: &mut PgConnection,
    run: RunId,
    attempt: u32,
    record: &Record,
) -> Result<(), StorageError> {
    let id = run.as_uuid();
    match record {
        Record::Metric(_) | Record::Completed => return Ok(()),
        Record::Tag(name, value) => {
            sqlx::query!(
                "UPDATE runs SET tags = tags || jsonb_build_object($2::text, $3::text) WHERE id = $1",
                id,
                name,
                value
            )
        }
        Record::TagRemoved(name) => {
            sqlx::query!("UPDATE runs SET tags = tags - $2::text WHERE id = $1", id, name)
        }
        Record::Property(name, value) => {
            sqlx::query!(
                "UPDATE runs SET properties = properties || jsonb_build_object($2::text, $3::text) WHERE id = $1",
                id,
                name,
                value
            )
        }
        Record::Failed(said) => {
            sqlx::query!(
                "UPDATE run_attempts SET reported_failure = $3 WHERE run_id = $1 AND number = $2",
                id,
                attempt_number(attempt),
                said
            )
        }
    }
    .execute(connection)
    .await?;
    Ok(())
}

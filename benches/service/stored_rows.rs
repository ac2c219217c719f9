//! What the service stored for a run, as a statement that stores the same again: the peer of accepting a run.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, types::Uuid};

use crate::database::Database;

/// A table that something of a run is stored in.
struct Table {
    name: &'static str,
    /// By what its row is found.
    key: &'static str,
    /// Whether that is the estimator's id, and not the run's.
    is_of_estimator: bool,
    /// The columns that are other in every run, each with the id that it has.
    ids: &'static [(&'static str, &'static str)],
}

/// The tables that a run with an inline definition is stored in.
const TABLES: [Table; 3] = [
    Table { name: "estimators", key: "id", is_of_estimator: true, ids: &[("id", "estimator")] },
    Table {
        name: "runs",
        key: "id",
        is_of_estimator: false,
        ids: &[("id", "run"), ("estimator_id", "estimator")],
    },
    Table { name: "run_events", key: "run_id", is_of_estimator: false, ids: &[("run_id", "run")] },
];

/// A column: its name, its type, and what is in it.
type Column = (String, String, Option<String>);

/// One statement, and so one transaction, with every row of the given run under new ids. What the service sent as a parameter is one:
/// the second part has their names and values.
///
/// # Errors
/// When the rows cannot be read.
pub fn insertion(
    database: &Database,
    name: &str,
    run: Uuid,
) -> anyhow::Result<(String, Vec<(String, String)>)> {
    let estimator: Uuid = database.ask(name, async |connection| {
        sqlx::query_scalar("SELECT estimator_id FROM runs WHERE id = $1")
            .bind(run)
            .fetch_one(connection)
            .await
    })?;
    let mut statement = String::from(
        "WITH ids AS MATERIALIZED (SELECT gen_random_uuid() AS run, gen_random_uuid() AS estimator)",
    );
    let mut variables = Vec::new();
    for Table { name: table, key, is_of_estimator, ids } in TABLES {
        let columns = columns(database, name, table, key, if is_of_estimator { estimator } else { run })?;
        let mut names = Vec::new();
        let mut values = Vec::new();
        for (column, kind, value) in columns {
            let own = ids.iter().find(|(id, _)| *id == column);
            values.push(match (own, value) {
                (Some((_, id)), _) => format!("ids.{id}"),
                (None, None) => "NULL".to_owned(),
                // Which no variable of `pgbench` can be.
                (None, Some(value)) if value.is_empty() => "''".to_owned(),
                (None, Some(value)) if kind.starts_with("timestamp") && value != "-infinity" => {
                    "now()".to_owned()
                }
                (None, Some(value)) => {
                    let variable = format!("{table}_{column}");
                    let parameter = format!("CAST(:{variable} AS {kind})");
                    variables.push((variable, value));
                    parameter
                }
            });
            names.push(column);
        }
        let insert =
            format!("INSERT INTO {table} ({}) SELECT {} FROM ids", names.join(", "), values.join(", "));
        if table == "run_events" {
            write!(statement, " {insert};")?;
        } else {
            write!(statement, ", new_{table} AS ({insert})")?;
        }
    }
    Ok((statement, variables))
}

/// The columns of one row that somebody writes.
fn columns(database: &Database, name: &str, table: &str, key: &str, id: Uuid) -> anyhow::Result<Vec<Column>> {
    database.ask(name, async |connection| {
        let described: Vec<(String, String)> = sqlx::query_as(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
             WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        )
        .bind(table)
        .fetch_all(&mut *connection)
        .await?;
        let texts: Vec<String> = described.iter().map(|(column, _)| format!("{column}::text")).collect();
        let row = format!("SELECT ARRAY[{}] FROM {table} WHERE {key} = $1", texts.join(", "));
        let values: Vec<Option<String>> =
            sqlx::query_scalar(AssertSqlSafe(row)).bind(id).fetch_one(&mut *connection).await?;
        Ok(described.into_iter().zip(values).map(|((column, kind), value)| (column, kind, value)).collect())
    })
}

//! The database says the same as the domain.

use estimatord::{
    domain::{
        run::Status,
        schema::{Objects, SchemaState},
    },
    storage::{MIGRATOR, SchemaError, Storage},
};
use sqlx::PgPool;

#[sqlx::test]
async fn the_table_of_transitions_is_the_domains(pool: PgPool) {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT from_status, to_status FROM run_status_transitions")
            .fetch_all(&pool)
            .await
            .expect("read");
    for from in Status::ALL {
        for to in Status::ALL {
            let in_database = rows.contains(&(from.to_string(), to.to_string()));
            assert_eq!(in_database, from.may_become(to), "{from} to {to}");
        }
    }
}

#[sqlx::test]
async fn the_trigger_refuses_what_the_domain_does(pool: PgPool) {
    for from in Status::ALL {
        for to in Status::ALL {
            let allowed: bool = sqlx::query_scalar("SELECT run_may_become($1, $2)")
                .bind(from.as_str())
                .bind(to.as_str())
                .fetch_one(&pool)
                .await
                .expect("asked");
            assert_eq!(allowed, from.may_be_written_as(to), "{from} to {to}");
        }
    }
}

#[sqlx::test]
async fn what_the_migrations_make_is_what_is_there(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    assert_eq!(storage.wrong_schema_objects().await.expect("asked"), Vec::<String>::new());
    // And it knows of all that is there: a table or trigger that is made in other words would be missed.
    let made = Objects::made_by(MIGRATOR.iter().map(|migration| migration.sql.as_str()));
    let mut found = storage.schema_objects().await.expect("asked");
    found.tables.remove("_sqlx_migrations");
    assert_eq!(made, found);
}

#[sqlx::test]
async fn the_audit_trail_is_not_rewritten_as_a_replica(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("connected");
    for statement in ["SET session_replication_role = replica", "DELETE FROM audit_events"] {
        let done = sqlx::raw_sql(statement).execute(&mut *connection).await;
        assert_eq!(done.is_err(), statement.starts_with("DELETE"), "{statement}: {done:?}");
    }
    connection.detach();
}

#[sqlx::test]
async fn a_migrated_schema_is_known(pool: PgPool) {
    Storage::from_pool(pool).check_schema().await.expect("the newest schema");
}

#[sqlx::test(migrations = false)]
async fn a_missing_schema_is_told(pool: PgPool) {
    let error = Storage::from_pool(pool).check_schema().await.expect_err("there is none");
    assert!(matches!(error, SchemaError::Unfit(SchemaState::Missing)), "{error}");
}

#[sqlx::test]
async fn a_newer_schema_is_refused(pool: PgPool) {
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99999999999999, 'from the future', true, ''::bytea, 0)",
    )
    .execute(&pool)
    .await
    .expect("inserted");
    let storage = Storage::from_pool(pool);
    assert!(matches!(storage.check_schema().await, Err(SchemaError::Unfit(SchemaState::Newer { .. }))));
    let refused = storage.migrate().await.expect_err("an older program must not touch a newer schema");
    assert!(matches!(refused, SchemaError::Unfit(SchemaState::Newer { .. })), "{refused}");
    assert!(refused.to_string().contains("99999999999999"), "{refused}");
}

#[sqlx::test]
async fn the_database_answers(pool: PgPool) {
    Storage::from_pool(pool).ping().await.expect("it does");
}

#[sqlx::test]
async fn names_of_experiments_are_what_the_domain_says(pool: PgPool) {
    let longest = "x".repeat(255);
    let too_long = "x".repeat(256);
    for (name, is_one) in [
        ("a", true),
        ("0-_Z", true),
        (longest.as_str(), true),
        (too_long.as_str(), false),
        ("", false),
        ("-a", false),
        ("_a", false),
        ("a b", false),
        ("a\n", false),
        ("\na", false),
        ("ä", false),
    ] {
        let check: String = sqlx::query_scalar(
            "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conname = 'runs_experiment_name_check'",
        )
        .fetch_one(&pool)
        .await
        .expect("there");
        let asked = format!("SELECT {check} FROM (SELECT $1::text COLLATE \"C\" AS experiment_name) AS run");
        let allowed: bool =
            sqlx::query_scalar(sqlx::AssertSqlSafe(asked)).bind(name).fetch_one(&pool).await.expect("asked");
        assert_eq!(allowed, is_one, "{name:?}");
    }
}

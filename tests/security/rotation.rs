//! The secret key is changed while the service runs, and nobody stands before a closed door at any moment.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use estimatord::{
    operate::rotate::{Survey, survey},
    storage::{MIGRATOR, Storage},
    vault::Vault,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

use crate::{
    own_database::{Database, replica},
    service::{Service, data_dir},
};

/// A key in a file of its own.
fn key_file(dir: &Path, name: &str, digit: char) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, digit.to_string().repeat(64)).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed to others");
    path
}

fn vault(path: &Path) -> Vault {
    Vault::from_file(path).expect("a key")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn execute(database: &Database, statement: String) {
    block_on(async {
        let mut connection = PgConnection::connect(&database.url).await.expect("connected");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.expect("executed");
    });
}

/// What is encrypted in the database, seen with some keys.
fn seen(database: &Database, vault: &Vault) -> Survey {
    block_on(async {
        let pool = PgPool::connect(&database.url).await.expect("connected");
        let seen = survey(&Storage::from_pool(pool.clone()), vault).await.expect("read");
        pool.close().await;
        seen
    })
}

fn command(database: &Database, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
    command.arg("rotate-secret-key").args(arguments).env("DATABASE_URL", &database.url);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn put(service: &Service, path: &str, body: &Value) {
    let answer = service.call("PUT", path, Some(body));
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
}

/// Secrets of every kind: `count` datastores, estimators and webhooks, one of these with two secrets.
fn plant(service: &Service, count: usize) {
    for index in 0..count {
        let credentials = json!({"access_key_id": "AKIA1", "secret_access_key": format!("s3cret-{index}")});
        put(
            service,
            &format!("/v1/datastores/d{index:02}"),
            &json!({"url": "s3://bucket", "credentials": credentials}),
        );
        put(service, &format!("/v1/webhooks/w{index:02}"), &json!({"url": "https://hooks.example.com/x"}));
        let mut definition = service.definition("print('hello')");
        definition["use_docker"] = json!(true);
        definition["custom_docker_image"] = json!("registry.example.com/own:1");
        definition["image_registry_details"] = json!({"address": "registry.example.com", "username": "robot", "password": format!("pw-{index}")});
        let answer = service.call("POST", "/v1/estimators", Some(&definition));
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let rotated = service.call("POST", "/v1/webhooks/w00/rotate-secret", None);
    assert_eq!(rotated.status, 200, "{}", rotated.text());
}

const RECEIVERS: [&str; 2] = ["--webhook-allow", "hooks.example.com"];

#[test]
fn a_rotation_that_is_killed_at_any_row_goes_on_and_everything_opens_meanwhile() {
    const EACH: usize = 4;
    let dir = data_dir();
    let database = Database::start(dir.path());
    let (old, new) = (key_file(dir.path(), "old.key", 'a'), key_file(dir.path(), "new.key", 'b'));
    let with = |options: &[&str], key: &Path, other: &Path| {
        let keys = ["--secret-key-file", text(key), "--other-secret-key-files", text(other)];
        replica(&database, dir.path(), "one", &[&keys[..], &RECEIVERS[..], options].concat())
    };
    // First everybody can read what is encrypted with the new key, then somebody encrypts with it.
    let service = with(&[], &old, &new);
    plant(&service, EACH);
    let before = service.call("GET", "/v1/webhooks/w00", None).json();
    assert!(service.stop().success());
    let service = with(&[], &new, &old);
    let both = vault(&new).opening_also([vault(&old)]);
    let rows = 3 * EACH as u64;
    assert_eq!(seen(&database, &both), Survey { rows, under_others: rows, locked: vec![] });

    let arguments = ["--new-key-file", text(&new), "--secret-key-file", text(&old)];
    execute(
        &database,
        "CREATE TABLE held (place text); \
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF to_jsonb(NEW)->>'name' = (SELECT place FROM held) OR \
                (TG_TABLE_NAME = 'estimators' AND (SELECT place FROM held) = 'estimator') THEN \
                 PERFORM pg_advisory_xact_lock(4711); \
             END IF; RETURN NEW; END $$; \
         CREATE TRIGGER hold BEFORE UPDATE ON datastores FOR EACH ROW EXECUTE FUNCTION hold(); \
         CREATE TRIGGER hold BEFORE UPDATE ON webhooks FOR EACH ROW EXECUTE FUNCTION hold(); \
         CREATE TRIGGER hold BEFORE UPDATE ON estimators FOR EACH ROW EXECUTE FUNCTION hold()"
            .to_owned(),
    );
    let mut left = rows;
    for place in ["estimator", "d00", "d02", "w00", "w02"] {
        execute(&database, format!("DELETE FROM held; INSERT INTO held VALUES ('{place}')"));
        block_on(async {
            let mut holder = PgConnection::connect(&database.url).await.expect("connected");
            sqlx::query("SELECT pg_advisory_lock(4711)").execute(&mut holder).await.expect("held");
            let mut rotation = command(&database, &arguments).spawn().expect("started");
            loop {
                let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
                let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut holder).await.expect("read");
                if waiting == 1 {
                    break;
                }
                assert!(rotation.try_wait().expect("asked").is_none(), "it ended before it came to {place}");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            rotation.kill().expect("killed");
            rotation.wait().expect("waited");
            holder.close().await.expect("closed");
        });
        let now = seen(&database, &both);
        assert_eq!((now.rows, &now.locked), (rows, &vec![]), "killed at {place}");
        assert!(
            now.under_others <= left && now.under_others > 0,
            "{} of {left} at {place}",
            now.under_others
        );
        left = now.under_others;
    }
    execute(&database, "DROP FUNCTION hold CASCADE; DROP TABLE held".to_owned());

    // What the service writes meanwhile is under the new key already.
    let credentials = json!({"access_key_id": "AKIA1", "secret_access_key": "late"});
    put(&service, "/v1/datastores/late", &json!({"url": "s3://bucket", "credentials": credentials}));
    let output = command(&database, &arguments).output().expect("started");
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains(&format!("of {} rows", rows + 1)), "{}", said(&output));
    assert_eq!(seen(&database, &vault(&new)), Survey { rows: rows + 1, under_others: 0, locked: vec![] });
    assert_eq!(service.call("GET", "/v1/webhooks/w00", None).json(), before, "nobody's ETag changes");
    // Once more there is nothing to do; and by then the key can be the service's own.
    let keys = ["--secret-key-file", text(&new), "--other-secret-key-files", text(&old)];
    let output = command(&database, &keys).output().expect("started");
    assert!(said(&output).starts_with("0 of "), "{}", said(&output));
}

#[test]
fn what_opens_with_neither_key_is_named_and_nothing_is_changed() {
    let dir = data_dir();
    let database = Database::start(dir.path());
    let [old, new, lost] =
        [('a', "old"), ('b', "new"), ('c', "lost")].map(|(digit, name)| key_file(dir.path(), name, digit));
    let start = |key: &Path| {
        let options = [&["--secret-key-file", text(key)], &RECEIVERS[..]].concat();
        replica(&database, dir.path(), "one", &options)
    };
    let service = start(&old);
    plant(&service, 2);
    service.stop();
    let service = start(&lost);
    put(
        &service,
        "/v1/datastores/foreign",
        &json!({"url": "s3://bucket", "credentials": {
        "access_key_id": "AKIA1", "secret_access_key": "x"}}),
    );
    service.stop();
    let before = seen(&database, &vault(&old));
    assert_eq!((before.rows, before.locked.len()), (7, 1));
    let arguments = ["--new-key-file", text(&new), "--secret-key-file", text(&old)];
    let output = command(&database, &arguments).output().expect("started");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for word in ["nothing was changed", "datastore foreign", "--other-secret-key-files"] {
        assert!(said(&output).contains(word), "{}", said(&output));
    }
    assert_eq!(seen(&database, &vault(&old)), before);
    let named = [&arguments[..], &["--other-secret-key-files", text(&lost)]].concat();
    let output = command(&database, &named).output().expect("started");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(seen(&database, &vault(&new)), Survey { rows: 7, under_others: 0, locked: vec![] });
}

#[test]
fn somebody_who_writes_with_the_old_key_is_found_out() {
    let dir = data_dir();
    let database = Database::start(dir.path());
    let (old, new) = (key_file(dir.path(), "old.key", 'a'), key_file(dir.path(), "new.key", 'b'));
    let keys = [&["--secret-key-file", text(&old)], &RECEIVERS[..]].concat();
    let service = replica(&database, dir.path(), "one", &keys);
    plant(&service, 1);
    // Whatever is written, somebody has written the old again.
    execute(
        &database,
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN NEW.credentials := OLD.credentials; RETURN NEW; END $$; \
         CREATE TRIGGER again BEFORE UPDATE ON datastores FOR EACH ROW EXECUTE FUNCTION again()"
            .to_owned(),
    );
    let arguments = ["--new-key-file", text(&new), "--secret-key-file", text(&old)];
    let output = command(&database, &arguments).output().expect("started");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("still encrypts with"), "{}", said(&output));
}

#[test]
fn the_key_of_a_data_directory_is_changed_while_its_service_runs() {
    let dir = data_dir();
    let service = Service::start_with(dir.path(), &RECEIVERS);
    plant(&service, 1);
    service.stop();
    let new = key_file(dir.path(), "new.key", 'b');
    let own = dir.path().join("secret.key");
    let keys = ["--secret-key-file", text(&new), "--other-secret-key-files", text(&own)];
    let service = Service::start_with(dir.path(), &[&keys, &RECEIVERS[..]].concat());
    let rotate = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
        command.args(["rotate-secret-key", "--data-dir"]).arg(dir.path()).args(arguments);
        command.env_remove("DATABASE_URL").output().expect("started")
    };
    let output = rotate(&["--new-key-file", text(&new)]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("3 of 3 rows were encrypted anew"), "{}", said(&output));
    service.stop();
    fs::rename(&new, &own).expect("put in its place");
    // Without a service the command runs the database itself.
    let output = rotate(&[]);
    assert!(said(&output).contains("0 of 3 rows"), "{}", said(&output));
    let service = Service::start_with(dir.path(), &RECEIVERS);
    assert_eq!(service.call("GET", "/v1/datastores/d00", None).json()["has_credentials"], true);
}

/// A column that is encrypted and not rotated would be found when its key is gone. What is no secret is listed here.
#[sqlx::test(migrator = "MIGRATOR")]
async fn every_column_of_bytes_is_rotated_or_no_secret(pool: PgPool) {
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT table_name || '.' || column_name FROM information_schema.columns
         WHERE table_schema = 'public' AND (data_type = 'bytea' OR udt_name = '_bytea')
           AND table_name <> '_sqlx_migrations' ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .expect("the columns");
    let rotated = [
        "datastores.credentials",
        "estimators.registry_password",
        "webhooks.previous_secrets",
        "webhooks.secret",
    ];
    let hashes = ["api_tokens.digest", "idempotency_keys.body_hash", "runs.put_hash"];
    let unknown: Vec<_> = columns
        .iter()
        .filter(|column| !rotated.contains(&&***column) && !hashes.contains(&&***column))
        .collect();
    assert!(unknown.is_empty(), "encrypted, and not known to `storage::sealed`? {unknown:?}");
    assert!(rotated.iter().all(|column| columns.contains(&(*column).to_owned())), "{columns:?}");
}

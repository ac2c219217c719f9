//! `estimatord doctor`: what it says of an installation that is well, and of one that is not.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    own_database::{Database, replica},
    service::{Service, data_dir},
};

struct Doctor<'a> {
    data_dir: &'a Path,
    database_url: Option<&'a str>,
}

impl Doctor<'_> {
    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
        command.args(["doctor", "--data-dir"]).arg(self.data_dir).args(arguments).env_remove("DATABASE_URL");
        command.envs(self.database_url.map(|url| ("DATABASE_URL", url))).output().expect("started")
    }

    /// The findings, once the exit code has been held to them.
    fn findings(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.ask(&[&["--output", "json"], arguments].concat());
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let findings = report["findings"].as_array().expect("findings").clone();
        let errors = findings.iter().filter(|finding| finding["severity"] == "error").count();
        assert_eq!(
            (report["errors"].as_u64(), output.status.code()),
            (Some(errors as u64), Some(i32::from(errors > 0)))
        );
        for finding in &findings {
            assert_eq!(finding["severity"] == "ok", finding["mend"].is_null(), "{finding}");
        }
        findings
    }
}

/// The severity of a check's worst finding, and what all of them say.
fn of(findings: &[Value], check: &str) -> (String, String) {
    let own = findings.iter().filter(|finding| finding["check"] == check);
    let rank = |severity: &str| ["ok", "warning", "error"].iter().position(|one| *one == severity);
    let worst =
        own.clone().map(|finding| finding["severity"].as_str().expect("one")).max_by_key(|one| rank(one));
    let said: String = own.map(ToString::to_string).collect();
    (worst.unwrap_or_else(|| panic!("{check} was not looked at: {findings:?}")).to_owned(), said)
}

#[track_caller]
fn says(findings: &[Value], check: &str, severity: &str, word: &str) {
    let (worst, said) = of(findings, check);
    assert!(worst == severity && said.contains(word), "{check}, {severity}, {word}: {said}");
}

const CHECKS: [&str; 17] = [
    "account",
    "data directory",
    "artifacts",
    "open files",
    "authentication",
    "service",
    "database",
    "durability",
    "connections",
    "clock",
    "notifications",
    "schema",
    "secret key",
    "python",
    "uv",
    "conda",
    "containers",
];

#[test]
fn an_embedded_installation_is_looked_at_before_while_and_after_it_runs() {
    let dir = data_dir();
    let doctor = Doctor { data_dir: &dir.path().join("data"), database_url: None };
    // Nothing is there, and nothing is made by looking.
    let findings = doctor.findings(&[]);
    says(&findings, "data directory", "warning", "is not there yet");
    says(&findings, "database", "warning", "there is none yet");
    says(&findings, "service", "warning", "none is running");
    assert!(!doctor.data_dir.exists());

    fs::create_dir(doctor.data_dir).expect("made");
    fs::set_permissions(doctor.data_dir, fs::Permissions::from_mode(0o711)).expect("as the service makes it");
    let service = Service::start_with(doctor.data_dir, &["--webhook-allow", "hooks.example.com"]);
    assert_eq!(
        service.call("PUT", "/v1/webhooks/ci", Some(&json!({"url": "https://hooks.example.com/x"}))).status,
        201
    );
    let address = service.base.trim_start_matches("http://").to_owned();
    let findings = doctor.findings(&["--listen", &address]);
    for check in CHECKS {
        of(&findings, check);
    }
    for check in
        ["data directory", "authentication", "database", "durability", "connections", "clock", "schema"]
    {
        says(&findings, check, "ok", check);
    }
    says(&findings, "service", "ok", "is ready");
    says(&findings, "notifications", "ok", "they arrive");
    says(&findings, "secret key", "ok", "1 row(s)");
    // Somewhere else nobody answers, or somebody who is somebody else.
    let findings = doctor.findings(&["--listen", "127.0.0.1:9"]);
    says(&findings, "service", "error", &format!("it runs and listens on {address}"));
    says(&findings, "service", "error", "nobody answers at");
    let other = data_dir();
    let elsewhere = Doctor { data_dir: &other.path().join("data"), database_url: None };
    says(&elsewhere.findings(&["--listen", &address]), "service", "error", "another installation's service");
    let program = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = program.local_addr().expect("an address").to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = program.accept().expect("accepted");
        stream.write_all(b"220 smtp.example.com\r\n").expect("sent");
    });
    says(&elsewhere.findings(&["--listen", &taken]), "service", "error", "another program has");
    serving.join().expect("it was asked");
    says(&doctor.findings(&["--listen", "0.0.0.0:9"]), "authentication", "error", "without a token");
    assert!(service.stop().success());

    // It starts the database itself, and ends it.
    let findings = doctor.findings(&[]);
    says(&findings, "schema", "ok", "schema");
    says(&findings, "service", "warning", "none is running");
    let other = doctor.data_dir.join("other.key");
    fs::write(&other, "c".repeat(64)).expect("written");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("closed to others");
    let other = other.to_str().expect("UTF-8");
    says(&doctor.findings(&["--secret-key-file", other]), "secret key", "error", "the secrets of webhook ci");
    let own = doctor.data_dir.join("secret.key").display().to_string();
    let both = ["--secret-key-file", other, "--other-secret-key-files", &own];
    says(&doctor.findings(&both), "secret key", "warning", "rotate-secret-key");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o644)).expect("opened");
    says(&doctor.findings(&[]), "secret key", "error", "can be read by others");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).expect("closed to others");
    if nix::unistd::Uid::effective().is_root() {
        the_users_of_runs_are_kept_out(&doctor);
    }
    fs::set_permissions(doctor.data_dir, fs::Permissions::from_mode(0o777)).expect("opened");
    says(&doctor.findings(&[]), "data directory", "error", "can be written by others");
    let text = String::from_utf8(doctor.ask(&[]).stdout).expect("UTF-8");
    assert!(
        text.contains("\nerror    data directory: ") && text.contains("         -> chmod go-w "),
        "{text}"
    );
}

/// What `serve` refuses because of what the users of runs would reach is said.
fn the_users_of_runs_are_kept_out(doctor: &Doctor<'_>) {
    let tokens = doctor.data_dir.join("tokens");
    fs::write(&tokens, "ci 0123456789abcdef read\n").expect("written");
    let artifacts = doctor.data_dir.join("artifacts");
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    let with_file = ["--api-token-file", tokens.to_str().expect("UTF-8")];
    mode(&tokens, 0o600);
    says(&doctor.findings(&with_file), "isolation", "ok", "users of their own");
    for (path, closed) in [(&tokens, 0o600), (&artifacts, 0o700)] {
        mode(path, 0o755);
        let said = format!("the users of runs would get at {}", path.display());
        says(&doctor.findings(&with_file), "isolation", "error", &said);
        let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(doctor.data_dir).args(with_file);
        let output = command.env_remove("DATABASE_URL").output().expect("started");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&said), "{output:?}");
        says(
            &doctor.findings(&[&with_file[..], &["--run-uids", "none"]].concat()),
            "isolation",
            "ok",
            "own user",
        );
        mode(path, closed);
    }
}

#[test]
fn an_issuer_is_asked() {
    let dir = data_dir();
    let doctor = Doctor { data_dir: &dir.path().join("data"), database_url: None };
    let issuer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let name = format!("http://{}", issuer.local_addr().expect("an address"));
    let keys = format!("{name}/keys");
    let options = [
        "--oidc-issuer",
        &name,
        "--oidc-audience",
        "estimatord",
        "--oidc-jwks-url",
        &keys,
        "--listen",
        "127.0.0.1:9",
    ];
    let key = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "AAAA"}]}"#;
    let answers = ["{\"keys\": []}", key, "no JSON"];
    let serving = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = issuer.accept().expect("accepted");
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).expect("a request") > 0);
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all(format!("{head}{answer}").as_bytes()).expect("sent");
        }
    });
    says(&doctor.findings(&options), "issuer", "warning", "no key that signatures are verified with");
    says(&doctor.findings(&options), "issuer", "ok", "1 key(s)");
    says(&doctor.findings(&options), "issuer", "warning", "cannot be asked for its keys");
    serving.join().expect("it was asked");
    // It is gone.
    says(&doctor.findings(&options), "issuer", "warning", "cannot be asked for its keys");
}

#[test]
fn a_database_of_the_operators_is_looked_at() {
    let dir = data_dir();
    let database = Database::start(dir.path());
    let own = dir.path().join("one");
    let doctor = Doctor { data_dir: &own, database_url: Some(&database.url) };
    says(&doctor.findings(&["--no-migrate"]), "schema", "error", "estimatord migrate");
    says(&doctor.findings(&[]), "schema", "warning", "at its next start");
    let service = replica(&database, dir.path(), "one", &[]);
    let findings =
        doctor.findings(&["--artifacts-dir", dir.path().join("artifacts").to_str().expect("UTF-8")]);
    says(&findings, "schema", "ok", "schema");
    says(&findings, "secret key", "warning", "there is none");
    says(&findings, "artifacts", "ok", "artifacts");
    says(&doctor.findings(&[]), "artifacts", "warning", "every replica");
    let slurm = json!({"type": "AmlCompute", "backend": {"kind": "slurm", "partition": "cpu",
        "shared_dir": dir.path().join("shared").display().to_string()}});
    let put = service.call("PUT", "/v1/compute-targets/cluster", Some(&slurm));
    assert_eq!(put.status, 201, "{}", put.text());
    says(&doctor.findings(&[]), "compute target cluster", "error", "");
    database.execute(&["ALTER ROLE estimatord SET synchronous_commit = off"]);
    says(&doctor.findings(&[]), "durability", "error", "synchronous_commit = off");
    for (statement, said) in [
        ("ALTER TABLE audit_events DISABLE TRIGGER the_audit_trail_is_append_only", "of audit_events is off"),
        (
            "ALTER TABLE audit_events ENABLE TRIGGER the_audit_trail_is_append_only",
            "is silent in sessions of a replica",
        ),
        ("ALTER TABLE audit_events ENABLE ALWAYS TRIGGER the_audit_trail_is_append_only", ""),
        ("DROP TRIGGER guard_run_deletion ON runs", "guard_run_deletion of runs is not there"),
        ("DROP TABLE webhook_attempts", "the table webhook_attempts is not there"),
    ] {
        database.execute(&[statement]);
        says(&doctor.findings(&[]), "schema objects", if said.is_empty() { "ok" } else { "error" }, said);
    }
    database.execute(&[
        "ALTER ROLE estimatord RESET synchronous_commit",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99999999999999, 'from the future', true, '', 0)",
    ]);
    says(&doctor.findings(&[]), "schema", "error", "a newer version");
    // Who serves goes on; who starts is refused.
    assert_eq!(service.call("GET", "/v1/runs", None).status, 200);
    let id = service.submit(&service.definition("print('hello')"));
    service.until_status(&id, &["Completed"]);
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["serve", "--no-migrate"], &["migrate"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
        command.args(arguments).args(["--data-dir"]).arg(dir.path().join("late"));
        let output = command.env("DATABASE_URL", &database.url).output().expect("started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("a newer version of estimatord") && said.contains("99999999999999"), "{said}");
    }
}

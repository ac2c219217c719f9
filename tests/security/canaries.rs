//! A text that is found nowhere else in the place of every secret there is, and then a look at everything that comes out: logs at
//! their most talkative, every answer of every route, files, the database's dump, command lines, what programs print, `Debug`.

mod caller;
mod planted;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Parser as _;
use estimatord::{
    api::FileTokens,
    config::Cli,
    domain::{datastore::DatastoreKind, datastore_access::Credentials},
    vault::Vault,
};
use serde_json::{Value, json};

use self::{
    caller::{Caller, NOBODY, read_everything, speak, with_registry},
    planted::{
        ACCESS_KEY, ACCOUNT_KEY, Canaries, DATABASE, KEY, OTHER_KEY, REGISTRY, SESSION, TOKEN, VARIABLE,
        WRONG_TOKEN,
    },
};
use crate::{
    collector::Collector,
    own_database::Database,
    service::{Service, data_dir, until},
};

fn private_file(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed to others");
    path
}

/// A receiver of webhooks that wants none of them, and keeps what it was sent.
fn receiver() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&kept);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (mut stream, mut bytes) = (stream, vec![0; 16_384]);
            let read = stream.read(&mut bytes).unwrap_or(0);
            sink.lock().expect("kept").extend_from_slice(&bytes[..read]);
            let _ = stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (port, kept)
}

/// Looks around, says it all, and waits.
const SPY: &str = "\
import json, os, sys, time
for base, _, names in os.walk('.'):
    for name in names: print(os.path.join(base, name))
json.dump(dict(os.environ), open('outputs/environment.json', 'w'))
print(dict(os.environ), flush=True)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
";

fn files_below(directory: &Path, look: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            files_below(&path, look);
        } else if kind.is_file()
            && let Ok(bytes) = fs::read(&path)
        {
            look(&path, &bytes);
        }
    }
}

/// What is to be seen of every process of the machine without asking it.
fn command_lines() -> Vec<u8> {
    let processes = fs::read_dir("/proc").expect("listed").flatten();
    processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok()).collect::<Vec<_>>().concat()
}

fn program(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ESTIMATORD_")) {
        command.env_remove(name);
    }
    command.env_remove("DATABASE_URL").args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    let output = command.output().expect("started");
    [output.stdout, output.stderr].concat()
}

/// What the commands say, when all is well and when it is not.
fn commands_are_discreet(service: &Service, work: &Path, options: &[&str], url: &str, canaries: &Canaries) {
    let snapshot = work.join("source");
    fs::create_dir_all(&snapshot).expect("made");
    fs::write(snapshot.join("train.py"), "print('hello')").expect("written");
    let definition = json!({"compute_target": "local", "entry_script": "train.py", "user_managed": true});
    let file = work.join("definition.json");
    fs::write(&file, with_registry(definition, &json!(REGISTRY)).to_string()).expect("written");
    let (file, source) = (file.to_str().expect("UTF-8"), snapshot.to_str().expect("UTF-8"));
    for token in [TOKEN, WRONG_TOKEN] {
        let variables = [("ESTIMATORD_URL", &*service.base), ("ESTIMATORD_TOKEN", token)];
        for arguments in [
            &["submit", file, "--source", source][..],
            &["validate", file, "--source", source],
            &["render", file, "--as", "kubernetes"],
            &["runs"],
            &["targets"],
            &["healthcheck"],
            &["submit", "--help"],
        ] {
            canaries.are_not_in(&format!("what `{arguments:?}` says"), &program(arguments, &variables));
        }
    }
    let nowhere = format!("postgres://estimatord:{DATABASE}@127.0.0.1:9/estimatord");
    let no_url = format!("postgres://estimatord:{DATABASE}@[::/estimatord");
    let bad_key = private_file(work.join("bad.key"), &format!("{KEY}0"));
    let bad_tokens = private_file(work.join("bad.tokens"), &format!("a {TOKEN}\nb {TOKEN}\nshort"));
    let own = work.join("other").display().to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &own];
    let path = |path: &PathBuf| path.display().to_string();
    for (arguments, url) in [
        (vec!["migrate"], &*nowhere),
        (vec!["migrate"], &no_url),
        (serve.to_vec(), &nowhere),
        ([&serve[..], &["--secret-key-file", &path(&bad_key)]].concat(), url),
        ([&serve[..], &["--api-token-file", &path(&bad_tokens)]].concat(), url),
        ([&["doctor"][..], options].concat(), url),
        ([&["doctor", "--output", "json"][..], options].concat(), url),
        (vec!["doctor", "--data-dir", &own], &nowhere),
        (
            vec![
                "rotate-secret-key",
                "--new-key-file",
                &path(&bad_key),
                "--secret-key-file",
                &path(&bad_key),
            ],
            url,
        ),
        (vec!["serve", "--help"], url),
        (vec!["serve", "--no-such-option"], url),
    ] {
        let said = program(&arguments, &[("DATABASE_URL", url), ("ESTIMATORD_SECRET_KEY", KEY)]);
        canaries.are_not_in(&format!("what `{arguments:?}` says"), &said);
    }
}

fn dump(url: &str) -> Vec<u8> {
    let mut programs: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin/pg_dump"))
        .filter(|path| path.exists())
        .collect();
    programs.sort();
    let program = programs.pop().unwrap_or_else(|| "pg_dump".into());
    let output = Command::new(program).arg(url).output().expect("pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn nothing_leaks(format: &str) {
    let canaries = Canaries::new();
    let (dir, work) = (data_dir(), data_dir());
    let database = Database::start(work.path());
    // The server lets everybody in who comes through its socket, whatever password they bring.
    let url = database.url.replace("estimatord@", &format!("estimatord:{DATABASE}@"));
    let file = |name: &str, text: &str| private_file(work.path().join(name), text).display().to_string();
    let (key, other) = (file("secret.key", KEY), file("other.key", OTHER_KEY));
    let tokens = file("tokens", &format!("alice {TOKEN}\n"));
    let (port, received) = receiver();
    let collector = Collector::start();
    let allowed = format!("http://127.0.0.1:{port}");
    let place = dir.path().display().to_string();
    let options = [
        "--data-dir",
        &place,
        "--api-token-file",
        &tokens,
        "--secret-key-file",
        &key,
        "--other-secret-key-files",
        &other,
        "--webhook-allow",
        &allowed,
        "--datastore-allow",
        NOBODY,
        "--otlp-endpoint",
        &collector.address,
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--cancel-grace-seconds", "1", "--log", "trace"]);
    command.args(["--log-format", format]).args(options);
    command
        .env("DATABASE_URL", &url)
        .env("AWS_SECRET_ACCESS_KEY", VARIABLE)
        .env("SERVICE_PASSWORD", VARIABLE)
        // The spy looks at what the service's own user could: more than a run of its own user.
        .env("ESTIMATORD_RUN_UIDS", "none");
    command.stdin(Stdio::null());
    let service = Service::started(command, dir.path());
    let caller = Caller::new(&service, TOKEN, &canaries);
    for stranger in [WRONG_TOKEN, ""] {
        let stranger = Caller::new(&service, stranger, &canaries);
        assert_eq!(stranger.send("GET", "/v1/runs", "application/json", b"").0, 401);
    }

    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(SPY.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "train.py", SPY.as_bytes()).expect("packed");
    let (status, answer) =
        caller.send("POST", "/v1/snapshots", "application/x-tar", &archive.into_inner().expect("packed"));
    assert_eq!(status, 201);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let snapshot: Value = serde_json::from_str(answer.split_once('\n').expect("headers").1).expect("JSON");
    let snapshot = snapshot["id"].as_str().expect("an id").to_owned();

    let ids = speak(&caller, port, &snapshot);
    let [_, with_registry, first, second, made, reading] = &ids[..] else { panic!("{ids:?}") };
    let gate = work.path().join("go");
    let spy = json!({"source_directory": snapshot, "compute_target": "local", "entry_script": "train.py",
        "user_managed": true, "use_docker": false, "script_params": {gate.display().to_string(): ""}});
    let (status, run) =
        caller.json("POST", "/v1/runs", &json!({"experiment_name": "canaries", "estimator": spy}));
    assert_eq!(status, 201, "{run}");
    let spy = run["id"].as_str().expect("an id").to_owned();
    until("the spy looks around", || {
        (caller.get(&format!("/v1/runs/{spy}"))["status"] == "Running").then_some(())
    });
    canaries.are_not_in("the command lines", &command_lines());
    fs::write(&gate, "").expect("written");
    for id in [&spy, reading, with_registry] {
        until("the runs have ended", || {
            let run = caller.get(&format!("/v1/runs/{id}"));
            (!run["finished_at"].is_null()).then_some(())
        });
    }
    until("the receiver has been told", || (!received.lock().expect("kept").is_empty()).then_some(()));

    let mut all = canaries.clone();
    all.0.insert("first secret of the webhook", first.clone());
    all.0.insert("second secret of the webhook", second.clone());
    all.0.insert("token that was made", made.clone());
    let caller = Caller::new(&service, TOKEN, &all);
    read_everything(&caller);
    // And those answers that are kept for who asks again.
    all.are_not_in("what the receiver was sent", &received.lock().expect("kept"));
    all.are_not_in("the database's dump", &dump(&database.url));
    commands_are_discreet(&service, work.path(), &options, &url, &all);
    let log = service.read_log();
    // Of libraries nothing more is written, whatever the filter says.
    assert!(log.contains("DEBUG"), "it was as talkative as it can be");
    all.are_not_in("the log", log.as_bytes());
    assert!(service.stop().success());
    let spans = collector.spans();
    assert!(spans.iter().any(|span| span.name == "run collect"), "runs were traced");
    all.are_not_in("what the collector of traces was sent", &format!("{spans:?}").into_bytes());
    let mut files = 0;
    files_below(dir.path(), &mut |path, bytes| {
        files += 1;
        all.are_not_in(&path.display().to_string(), bytes);
    });
    files_below(&work.path().join("database"), &mut |path, bytes| {
        files += 1;
        all.are_not_in(&path.display().to_string(), bytes);
    });
    assert!(files > 100, "{files}");
}

#[test]
fn no_secret_comes_out_with_logs_as_text() {
    nothing_leaks("text");
}

#[test]
fn no_secret_comes_out_with_logs_as_json() {
    nothing_leaks("json");
}

#[test]
fn debug_shows_none() {
    let canaries = Canaries::new();
    let cli = |words: &[&str]| format!("{:?}", Cli::try_parse_from(words).expect("understood"));
    let url = format!("postgres://u:{DATABASE}@h/d");
    for shown in [
        cli(&["estimatord", "serve", "--database-url", &url]),
        cli(&["estimatord", "migrate", "--database-url", &url]),
        cli(&["estimatord", "doctor", "--database-url", &url]),
        cli(&["estimatord", "rotate-secret-key", "--database-url", &url]),
        cli(&["estimatord", "runs", "--token", TOKEN]),
        cli(&["estimatord", "submit", "d.json", "--source", ".", "--token", TOKEN]),
        format!("{:?}", Vault::from_text(KEY).expect("a key")),
        format!("{:?}", FileTokens::parse(&format!("alice {TOKEN}")).err()),
        format!("{:?}", FileTokens::parse(&format!("alice {TOKEN}\nbob {TOKEN}")).err()),
        format!("{:?}", Vault::from_text(&format!("{KEY}0")).err()),
        format!(
            "{:?}",
            Credentials::read(
                DatastoreKind::S3,
                json!({"access_key_id": "AKIA1", "secret_access_key": ACCESS_KEY, "session_token": SESSION})
                    .as_object()
                    .expect("one"),
            )
        ),
        format!(
            "{:?}",
            Credentials::read(
                DatastoreKind::Az,
                json!({"account_key": ACCOUNT_KEY, "sas_token": SESSION}).as_object().expect("one"),
            )
        ),
    ] {
        canaries.are_not_in("a `Debug` output", shown.as_bytes());
    }
}

/// A test that finds nothing has to be able to find something.
#[test]
fn canaries_are_found_in_every_form() {
    let canaries = Canaries::new();
    let hex: String = REGISTRY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let forms = [
        format!("x{REGISTRY}y"),
        format!("\\x{hex}"),
        BASE64_STANDARD.encode(format!("robot:{REGISTRY}")),
        BASE64_STANDARD.encode(format!("robot1:{REGISTRY}")),
        BASE64_STANDARD.encode(format!("robot12:{REGISTRY}!")),
    ];
    for form in forms {
        let found = std::panic::catch_unwind(|| canaries.are_not_in("a text", form.as_bytes()));
        assert!(found.is_err(), "{form}");
    }
    canaries.are_not_in("a text", b"nothing of the kind");
}

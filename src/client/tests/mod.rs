//! The commands against a service that plays a script.

mod fake;

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use self::fake::{RUN, SNAPSHOT, Script, serve, serve_on};
use crate::domain::secret::Secret;

use super::{Cancel, Connection, Logs, Output, Submit, commands, screen::Screen};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

/// One command: its exit code and what it wrote.
#[derive(Debug)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

async fn ran(command: impl AsyncFnOnce(&Screen) -> commands::Outcome) -> Ran {
    let (out, err) = (Captured::default(), Captured::default());
    let screen = Screen::to(out.clone(), err.clone());
    let outcome = tokio::time::timeout(Duration::from_secs(30), command(&screen)).await.expect("in time");
    Ran { code: outcome.code(&screen), out: out.text(), err: err.text() }
}

fn connection(url: &str) -> Connection {
    Connection { url: url.to_owned(), token: Some(Secret::new("secret".to_owned())), retry_for: Some(5) }
}

/// A source directory and a definition beside it.
fn project(definition: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("my project");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("train.py"), "print()").expect("written");
    fs::write(directory.path().join("definition.json"), definition).expect("written");
    directory
}

fn submit_args(url: &str, project: &Path, follow: bool) -> Submit {
    Submit {
        definition: project.join("definition.json"),
        source: project.join("my project"),
        experiment: None,
        follow,
        output: Output::Text,
        connection: connection(url),
    }
}

async fn submit(args: &Submit) -> Ran {
    ran(async |screen| commands::submit(args, screen, std::future::pending()).await).await
}

async fn logs(url: &str, follow: bool, path: Option<&str>) -> Ran {
    let args =
        Logs { run: RUN.to_owned(), follow, path: path.map(str::to_owned), connection: connection(url) };
    ran(async |screen| commands::logs(&args, screen, std::future::pending()).await).await
}

async fn cancel(url: &str, wait: bool) -> Ran {
    let args = Cancel { run: RUN.to_owned(), wait, output: Output::Text, connection: connection(url) };
    ran(async |screen| commands::cancel(&args, screen, std::future::pending()).await).await
}

const LOG: &str = "epoch 1\n\u{1b}[Jepoch 2 größer\r\nlast line without end";

fn script(statuses: &[&'static str]) -> Script {
    let mut script = Script { statuses: statuses.to_vec(), run: json!({}), ..Script::default() };
    script.logs.insert("user_logs/std_log.txt", LOG.as_bytes().to_vec());
    script.logs.insert("azureml-logs/build.txt", b"not asked for".to_vec());
    script
}

#[tokio::test]
async fn a_run_is_submitted_with_the_definition_as_it_is_written() {
    let (url, shared) = serve(script(&["Queued"])).await;
    let text = r#"{"entry_script":"train.py","source_directory":"elsewhere","script_params":{"--z":1e-3,"--a":1.50}}"#;
    let project = project(text);
    fs::write(project.path().join("my project/.amlignore"), "*.log\n").expect("written");
    fs::write(project.path().join("my project/big.log"), "x").expect("written");
    let ran = submit(&submit_args(&url, project.path(), false)).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, format!("{RUN}\n").as_str()), "{ran:?}");
    assert!(ran.err.contains("2 files") && ran.err.contains(".amlignore"), "{ran:?}");
    assert!(ran.err.contains("`elsewhere` is replaced"), "{ran:?}");
    assert!(ran.err.contains("warning /framework_version: 5.1.0 is used."), "{ran:?}");

    let script = shared.lock().expect("no panic");
    let (key, body) = &script.created[0];
    assert_eq!(key.len(), 36);
    assert_eq!(body["experiment_name"], "my-project");
    assert_eq!(body["estimator"].to_string(), text.replace("elsewhere", SNAPSHOT));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(script.uploads[0].as_slice()));
    let entries = archive.entries().expect("an archive");
    let names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").path().expect("a path").display().to_string()).collect();
    assert_eq!(names, [".amlignore", "train.py"]);
}

#[tokio::test]
async fn a_followed_run_shows_its_log_and_its_end() {
    let mut script = script(&["Queued", "Preparing", "Running", "Running", "Completed"]);
    script.run = json!({"exit_code": 0, "started_at": "2024-05-01T10:00:00Z", "finished_at": "2024-05-01T10:00:12.5Z"});
    let (url, _) = serve(script).await;
    let project = project("{}");
    let ran = submit(&submit_args(&url, project.path(), true)).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, LOG), "{ran:?}");
    for expected in
        ["Queued", "Preparing", "Running\n", "Completed", "exit code  0", "12.5 s", "model.npz  2.0 KiB"]
    {
        assert!(ran.err.contains(expected), "{expected} in {}", ran.err);
    }
    assert_eq!(ran.err.matches("Running").count(), 1, "{}", ran.err);
    assert!(ran.err.contains(&format!("{url}/v1/runs/{RUN}/outputs/model.npz")), "{}", ran.err);
}

#[tokio::test]
async fn a_waiting_run_says_why_and_again_when_that_changes() {
    let mut script = script(&["Queued", "Queued", "Queued", "Running", "Completed"]);
    script.waits = vec!["2 queued run(s) go first", "2 queued run(s) go first", "1 queued run(s) go first"];
    let (url, _) = serve(script).await;
    let ran = logs(&url, true, None).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, LOG), "{ran:?}");
    let lines: Vec<_> = ran.err.lines().take(3).collect();
    let expected = ["Queued: 2 queued run(s) go first", "Queued: 1 queued run(s) go first", "Running"];
    assert_eq!(lines, expected, "{}", ran.err);
}

#[tokio::test]
async fn a_cut_connection_neither_repeats_nor_loses_a_byte() {
    for cuts in [vec![1], vec![3, 20, 21], vec![0, 0, LOG.len() - 1, LOG.len()]] {
        let mut script = script(&["Running", "Running", "Completed"]);
        script.cuts = cuts;
        let (url, shared) = serve(script).await;
        let ran = logs(&url, true, None).await;
        assert_eq!((ran.code, ran.out.as_str()), (0, LOG), "{ran:?}");
        assert!(ran.err.contains("broke off"), "{ran:?}");
        let requests = shared.lock().expect("no panic").requests.clone();
        // Whether it still follows depends on how far the run is by then.
        let goes_on = |line: &&String| line.contains("offset=") && !line.contains("offset=0");
        assert!(requests.iter().any(|line| goes_on(&line)), "{requests:?}");
    }
}

#[tokio::test]
async fn the_exit_code_tells_what_became_of_the_run() {
    for (status, members, code, said) in [
        (
            "Failed",
            json!({"cause": "script_failed", "exit_code": 7}),
            1,
            "Failed: script_failed\n  exit code  7",
        ),
        ("Failed", json!({"cause": "script_failed", "signal": 9}), 1, "signal     9"),
        ("Canceled", json!({"cause": "canceled_by_user"}), 3, "Canceled: canceled_by_user"),
        ("Completed", json!({"exit_code": 0}), 0, "Completed"),
    ] {
        let mut script = script(&["Running", status]);
        script.run = members;
        let (url, _) = serve(script).await;
        let ran = logs(&url, true, None).await;
        assert_eq!((ran.code, ran.out.as_str()), (code, LOG), "{ran:?}");
        assert!(ran.err.contains(said), "{said} in {}", ran.err);
    }
}

#[tokio::test]
async fn every_rank_is_followed_with_its_number() {
    let mut script = script(&["Running", "Running", "Completed"]);
    script.logs.clear();
    script.logs.insert("user_logs/std_log_0.txt", b"one\ntwo\n".to_vec());
    script.logs.insert("user_logs/std_log_1.txt", b"three\nfour".to_vec());
    let (url, _) = serve(script).await;
    let ran = logs(&url, true, None).await;
    let of = |rank: &str| -> Vec<_> { ran.out.lines().filter_map(|line| line.strip_prefix(rank)).collect() };
    assert_eq!((of("[0] "), of("[1] ")), (vec!["one", "two"], vec!["three", "four"]), "{ran:?}");
    assert_eq!(ran.out.lines().count(), 4);
}

#[tokio::test]
async fn a_refused_definition_is_explained_and_exits_with_2() {
    let finding = json!({"rule": "entry-script-not-found", "severity": "error", "pointer": "/estimator/entry_script",
        "message": "`trian.py` is not in the source directory.", "parameters": ["entry_script"],
        "fix": {"description": "Did you mean `train.py`?"}, "doc": {"text": "", "url": "https://example.org/doc"}});
    let mut script = script(&["Queued"]);
    script.refusals =
        vec![(422, json!({"title": "Invalid definition", "status": 422, "findings": [finding]}))];
    let (url, _) = serve(script).await;
    let project = project("{}");
    let ran = submit(&submit_args(&url, project.path(), true)).await;
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran:?}");
    for expected in
        ["/estimator/entry_script", "`trian.py` is not", "fix: Did you mean", "[entry-script-not-found]"]
    {
        assert!(ran.err.contains(expected), "{expected} in {}", ran.err);
    }
}

#[tokio::test]
async fn a_busy_service_is_asked_again_with_the_same_key() {
    let mut script = script(&["Queued"]);
    script.refusals = vec![(503, json!({"title": "Busy"})), (429, Value::Null), (502, Value::Null)];
    let (url, shared) = serve(script).await;
    let project = project("{}");
    let ran = submit(&submit_args(&url, project.path(), false)).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("answers 503 Busy; trying again"), "{ran:?}");
    let created = &shared.lock().expect("no panic").created;
    assert_eq!(created.len(), 4);
    assert!(created.iter().all(|one| *one == created[0]), "{created:?}");
}

#[tokio::test]
async fn a_service_that_comes_up_is_waited_for_and_one_that_does_not_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let url = format!("http://{address}");
    let started = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(600)).await;
        serve_on(tokio::net::TcpListener::bind(address).await.expect("the same port"), script(&["Completed"]))
    });
    let ran_late = logs(&url, true, None).await;
    assert_eq!((ran_late.code, ran_late.out.as_str()), (0, LOG), "{ran_late:?}");
    started.await.expect("started");

    let args = Logs {
        run: RUN.to_owned(),
        follow: true,
        path: None,
        connection: Connection { retry_for: Some(0), ..connection("http://127.0.0.1:1") },
    };
    let given_up = ran(async |screen| commands::logs(&args, screen, std::future::pending()).await).await;
    assert_eq!(given_up.code, 4, "{given_up:?}");
    assert!(given_up.err.contains("cannot be reached"), "{given_up:?}");
    let nonsense = logs("ftp://x", false, None).await;
    assert_eq!(nonsense.code, 4, "{nonsense:?}");
}

#[tokio::test]
async fn an_interrupt_leaves_the_run_alone() {
    let (url, shared) =
        serve(script(&["Running", "Running", "Running", "Running", "Running", "Completed"])).await;
    let args = Logs { run: RUN.to_owned(), follow: true, path: None, connection: connection(&url) };
    let interrupt = tokio::time::sleep(Duration::from_millis(300));
    let ran = ran(async |screen| commands::logs(&args, screen, interrupt).await).await;
    assert_eq!((ran.code, ran.out.as_str()), (130, LOG), "{ran:?}");
    assert!(ran.err.contains(&format!("estimatord cancel {RUN}")), "{ran:?}");
    assert!(shared.lock().expect("no panic").requests.iter().all(|line| !line.contains("cancel")));
}

#[tokio::test]
async fn logs_are_printed_as_they_are_now() {
    let (url, _) = serve(script(&["Running", "Running"])).await;
    let all = logs(&url, false, None).await;
    assert_eq!((all.code, all.out.as_str(), all.err.as_str()), (0, LOG, ""));
    let one = logs(&url, false, Some("azureml-logs/build.txt")).await;
    assert_eq!((one.code, one.out.as_str()), (0, "not asked for"));
    let none = logs(&url, false, Some("other")).await;
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains("user_logs/std_log.txt; the run is Running"), "{none:?}");
}

#[tokio::test]
async fn cancel_waits_for_the_end_when_asked() {
    let (url, _) = serve(script(&["CancelRequested", "CancelRequested", "Canceled"])).await;
    let asked = cancel(&url, false).await;
    assert_eq!((asked.code, asked.err.trim()), (0, format!("Run {RUN} is CancelRequested.").as_str()));
    let waited = cancel(&url, true).await;
    assert_eq!(waited.code, 0, "{waited:?}");
    assert!(waited.err.contains("Canceled"), "{waited:?}");

    let mut late = script(&["Completed"]);
    late.cancel =
        Some((409, json!({"title": "The run has ended", "status": 409, "detail": "It is Completed."})));
    let (url, _) = serve(late).await;
    let late = cancel(&url, false).await;
    assert_eq!(late.code, 4, "{late:?}");
    assert!(late.err.contains("It is Completed."), "{late:?}");
}

#[tokio::test]
async fn an_unusable_source_or_definition_exits_with_2_before_anything_is_sent() {
    let (url, shared) = serve(script(&["Queued"])).await;
    let broken = project("{");
    assert_eq!(submit(&submit_args(&url, broken.path(), false)).await.code, 2);
    let project = project("{}");
    std::os::unix::fs::symlink("/etc/hosts", project.path().join("my project/link")).expect("linked");
    let ran = submit(&submit_args(&url, project.path(), false)).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("leads to /etc/hosts, outside"), "{ran:?}");
    assert_eq!(shared.lock().expect("no panic").requests, Vec::<String>::new());
}

#[tokio::test]
async fn an_upload_that_is_refused_while_it_is_sent_is_explained() {
    let mut script = script(&["Queued"]);
    script.full = true;
    let (url, _) = serve(script).await;
    let project = project("{}");
    let noise: Vec<u8> = (0..4 << 20).map(|_| rand::random()).collect();
    fs::write(project.path().join("my project/noise"), noise).expect("written");
    let ran = submit(&submit_args(&url, project.path(), false)).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("413 Too large") && ran.err.contains("Send less."), "{ran:?}");
}

#[test]
fn the_command_line_is_well_formed() {
    #[derive(clap::Parser)]
    enum Cli {
        Submit(Submit),
        Logs(Logs),
        Cancel(Cancel),
    }
    use clap::{CommandFactory as _, Parser as _};
    Cli::command().debug_assert();
    let parsed = Cli::try_parse_from([
        "estimatord",
        "submit",
        "d.json",
        "--source",
        "src",
        "--follow",
        "--token",
        "t",
    ]);
    let Ok(Cli::Submit(args)) = parsed else { panic!("it is submit") };
    assert!(args.follow && args.connection.token == Some(Secret::new("t".to_owned())));
    let help =
        Cli::command().find_subcommand_mut("submit").expect("it is there").render_long_help().to_string();
    assert!(help.contains(".git") && help.contains("130  interrupted"), "{help}");
}

//! Several replicas on one database.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    own_database::{Database, replica},
    service::{Service, data_dir, number, until},
};

/// As long as something happens there is patience.
fn until_all_is_over(service: &Service, runs: usize) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let figures = service.call("GET", "/metrics", None).text();
        let completed =
            figures.lines().find_map(|line| line.strip_prefix("estimatord_runs{status=\"Completed\"} "));
        let completed: usize = completed.map_or(0, |count| count.parse().expect("a number"));
        if completed == runs {
            return;
        }
        if completed > last {
            (last, since) = (completed, Instant::now());
        }
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{completed} of {runs} have completed:\n{figures}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn all_runs(service: &Service) -> Vec<Value> {
    let (mut runs, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.call("GET", &format!("/v1/runs?limit=200{cursor}"), None).json();
        runs.extend(page["items"].as_array().expect("items").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return runs,
        }
    }
}

/// The long form has 5,000 runs: `make check-replicas`.
#[test]
fn two_replicas_start_each_of_many_runs_once() {
    let runs = number("ESTIMATORD_TEST_SHORT_RUNS", 60);
    let dir = data_dir();
    let marks = dir.path().join("marks");
    std::fs::create_dir(&marks).expect("made");
    let database = Database::start(dir.path());
    let options = ["--max-concurrent-runs", "12"];
    let replicas = ["one", "two"].map(|name| replica(&database, dir.path(), name, &options));
    let script = "import os, sys\n\
                  mark = os.open(sys.argv[1] + '/' + os.environ['ESTIMATORD_ATTEMPT'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n\
                  os.write(mark, b'started\\n')\n";
    let mut definition = replicas[0].definition(script);
    definition["script_params"] = json!({marks.to_str().expect("UTF-8"): ""});
    let mut ids = BTreeSet::new();
    for place in 0..runs {
        ids.insert(replicas[place % 2].submit(&definition));
    }
    until_all_is_over(&replicas[0], runs);
    let shown = all_runs(&replicas[1]);
    assert_eq!(
        shown.iter().map(|run| run["id"].as_str().expect("an id").to_owned()).collect::<BTreeSet<_>>(),
        ids
    );
    let mut nodes = BTreeSet::new();
    for run in &shown {
        let attempts = run["attempts"].as_array().expect("attempts");
        assert_eq!((attempts.len(), &run["status"]), (1, &json!("Completed")), "{run:#}");
        nodes.insert(attempts[0]["node"].as_str().expect("a node").to_owned());
    }
    let started: Vec<_> = std::fs::read_dir(&marks).expect("listed").flatten().collect();
    assert_eq!(started.len(), runs, "one attempt each");
    for mark in started {
        assert_eq!(
            std::fs::read_to_string(mark.path()).expect("read"),
            "started\n",
            "{:?}",
            mark.file_name()
        );
    }
    assert_eq!(nodes.len(), 2, "both had their part");
}

/// Sends runs until it is told to stop, as a client does that keeps to the conventions: with a key, and again, somewhere else, when
/// there was no answer or one that says so. What it got: an id for each key.
fn client(bases: &[String], definition: &Value, name: usize, stop: &AtomicBool) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
        let mut ids = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let body = json!({"experiment_name": "tests", "estimator": definition, "tags": {"client": name.to_string()}});
            let key = format!("{name}-{}", ids.len());
            let mut tries = 0;
            let id = loop {
                assert!(tries < 200, "{key} was not taken");
                let url = format!("{}/v1/runs", bases[(name + tries) % bases.len()]);
                tries += 1;
                let sent = http.post(&url).header("idempotency-key", &key).json(&body).send().await;
                match sent {
                    Ok(answer) if answer.status() == 201 => match answer.json::<Value>().await {
                        Ok(run) => break run["id"].as_str().expect("an id").to_owned(),
                        Err(_) => continue,
                    },
                    Ok(answer) => {
                        let again = answer.headers().contains_key("retry-after");
                        assert!(again, "{}: {}", answer.status(), answer.text().await.unwrap_or_default());
                    }
                    // Nobody is there: the next one is.
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            ids.push(id);
        }
        ids
    })
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").port()
}

fn api(database: &Database, dir: &Path, name: &str, port: u16) -> Service {
    let listen = format!("127.0.0.1:{port}");
    let options =
        ["--role", "api", "--listen", &listen, "--drain-delay-seconds", "1", "--max-queued-runs", "100000"];
    replica(database, dir, name, &options)
}

#[test]
fn replicas_are_replaced_in_the_middle_of_load_and_no_client_loses_a_run() {
    let dir = data_dir();
    let database = Database::start(dir.path());
    let ports = [free_port(), free_port()];
    let mut apis: Vec<Option<Service>> = ["a", "b"]
        .into_iter()
        .zip(ports)
        .map(|(name, port)| Some(api(&database, dir.path(), name, port)))
        .collect();
    let definition = apis[0].as_ref().expect("it runs").definition("print('hello')");
    let bases: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|name| {
            let (bases, definition, stop) = (bases.clone(), definition.clone(), Arc::clone(&stop));
            thread::spawn(move || client(&bases, &definition, name, &stop))
        })
        .collect();
    for round in 0..number("ESTIMATORD_TEST_ROUNDS", 2) {
        for (place, name) in ["a", "b"].into_iter().enumerate() {
            let ended = apis[place].take().expect("it runs").stop();
            assert!(ended.success(), "round {round}: {ended}");
            apis[place] = Some(api(&database, dir.path(), name, ports[place]));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let told: Vec<String> =
        clients.into_iter().flat_map(|client| client.join().expect("no client failed")).collect();
    let there = all_runs(apis[0].as_ref().expect("it runs"));
    let there: BTreeSet<_> = there.iter().map(|run| run["id"].as_str().expect("an id").to_owned()).collect();
    let distinct: BTreeSet<_> = told.iter().cloned().collect();
    assert_eq!(distinct.len(), told.len(), "one run for each key");
    assert_eq!(there, distinct, "every run that was promised, and no other");
}

#[test]
fn a_service_that_is_told_to_end_is_first_not_ready_and_then_gone() {
    let dir = data_dir();
    let database = Database::start(dir.path());
    let service = api(&database, dir.path(), "a", free_port());
    assert_eq!(service.call("GET", "/readyz", None).status, 200);
    service.signal(nix::sys::signal::Signal::SIGTERM);
    let answer = until("it is not ready", || {
        Some(service.call("GET", "/readyz", None)).filter(|answer| answer.status == 503)
    });
    assert_eq!(answer.json()["type"], "/problems/shutting-down");
    assert_eq!(service.call("GET", "/v1/runs", None).status, 200, "requests are taken still");
    assert!(service.end().success());
}

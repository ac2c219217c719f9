//! What may go wrong with a database beside the service.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::{
    own_database::{Database, replica},
    service::{Answer, Service, data_dir, until},
};

const PATIENT: &str = "import os, sys, time\n\
                       open(sys.argv[1] + '/started', 'a').write('x')\n\
                       while not os.path.exists(sys.argv[1] + '/go'): time.sleep(0.01)\n";

fn patient_run(service: &Service, dir: &Path) -> String {
    let mut definition = service.definition(PATIENT);
    definition["script_params"] = json!({dir.to_str().expect("UTF-8"): ""});
    let id = service.submit(&definition);
    service.until_status(&id, &["Running"]);
    id
}

fn post(service: &Service, definition: &Value) -> Answer {
    service.call("POST", "/v1/runs", Some(&json!({"experiment_name": "tests", "estimator": definition})))
}

fn is_told_to_come_again(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["type"], "/problems/database-unavailable");
}

/// Whatever happened: the run that was under way completes, it was started once, and new ones are taken.
fn goes_on(service: &Service, dir: &Path, id: &str, definition: &Value) {
    std::fs::write(dir.join("go"), "").expect("opened");
    let run = service.until_status(id, &["Completed"]);
    assert_eq!(run["attempts"].as_array().map(Vec::len), Some(1), "{run:#}");
    assert_eq!(std::fs::read_to_string(dir.join("started")).expect("read"), "x", "started once");
    let next = until("runs are taken again", || {
        Some(post(service, definition)).filter(|answer| answer.status == 201)
    });
    service.until_status(next.json()["id"].as_str().expect("an id"), &["Completed"]);
}

#[test]
fn a_database_that_goes_and_comes_back_costs_nothing_but_time() {
    let dir = data_dir();
    let mut database = Database::start(dir.path());
    let service = replica(&database, dir.path(), "one", &[]);
    let definition = service.definition("print('hello')");
    let id = patient_run(&service, dir.path());
    database.kill();
    is_told_to_come_again(&post(&service, &definition));
    assert_eq!(
        service.call("GET", "/healthz", None).status,
        200,
        "the service is not to be restarted for it"
    );
    assert_eq!(service.call("GET", "/readyz", None).status, 503);
    database.begin_again();
    until("ready again", || (service.call("GET", "/readyz", None).status == 200).then_some(()));
    goes_on(&service, dir.path(), &id, &definition);
}

/// What is left of a primary after a fail-over: it answers, and takes no writes (25006).
#[test]
fn a_database_that_only_reads_is_waited_for() {
    let dir = data_dir();
    let database = Database::start(dir.path());
    let service = replica(&database, dir.path(), "one", &[]);
    let definition = service.definition("print('hello')");
    let id = patient_run(&service, dir.path());
    database.execute(&["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"]);
    until("nothing is written", || Some(post(&service, &definition)).filter(|answer| answer.status == 503));
    is_told_to_come_again(&post(&service, &definition));
    assert_eq!(service.run(&id)["status"], "Running", "what can be read is shown");
    // In the middle of it the script ends: nobody can write that.
    std::fs::write(dir.path().join("go"), "").expect("opened");
    database.execute(&[
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    ]);
    goes_on(&service, dir.path(), &id, &definition);
}

/// A full disk (53100), and transactions that lost a race (40001, 40P01): the database says them of its own accord, here by a
/// trigger.
#[test]
fn what_the_database_cannot_do_now_is_asked_again_later() {
    let dir = data_dir();
    let database = Database::start(dir.path());
    let service = replica(&database, dir.path(), "one", &[]);
    let definition = service.definition("print('hello')");
    let id = patient_run(&service, dir.path());
    for code in ["53100", "40001", "40P01"] {
        let refuse = match code {
            "53100" => include_str!("refuse_53100.sql"),
            "40001" => include_str!("refuse_40001.sql"),
            _ => include_str!("refuse_40P01.sql"),
        };
        database.execute(&[refuse]);
        is_told_to_come_again(&post(&service, &definition));
        let canceled = service.call("POST", &format!("/v1/runs/{id}/cancel"), None);
        is_told_to_come_again(&canceled);
        database.execute(&["DROP TRIGGER refuse ON runs"]);
    }
    assert!(service.run(&id)["cancel_requested_at"].is_null(), "what was not accepted is not done");
    goes_on(&service, dir.path(), &id, &definition);
}

#[test]
fn requests_that_get_no_connection_are_told_so_and_those_that_wait_are_answered() {
    let dir = data_dir();
    let database = Database::start(dir.path());
    let service = replica(&database, dir.path(), "one", &[]);
    let definition = service.definition("print('hello')");
    let id = patient_run(&service, dir.path());
    database.with(async |connection| {
        let mut lock = connection.begin().await.expect("begun");
        sqlx::raw_sql("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("locked");
        let client = reqwest::Client::new();
        let url = format!("{}/v1/runs/{id}", service.base);
        let began = Instant::now();
        let asked: Vec<_> = (0..40).map(|_| tokio::spawn(client.get(&url).send())).collect();
        let mut refused = 0;
        // There are 16 connections: the others are told within the 5 seconds for which they wait for one.
        while refused < 24 - 1 {
            assert!(began.elapsed() < Duration::from_secs(25), "{refused} were told");
            tokio::time::sleep(Duration::from_millis(100)).await;
            refused = asked.iter().filter(|one| one.is_finished()).count();
        }
        lock.rollback().await.expect("let go");
        let mut statuses = Vec::new();
        for one in asked {
            let answer = one.await.expect("joined").expect("an answer");
            if answer.status() == 503 {
                assert_eq!(answer.headers()["retry-after"], "5");
            }
            statuses.push(answer.status().as_u16());
        }
        assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    });
    goes_on(&service, dir.path(), &id, &definition);
}

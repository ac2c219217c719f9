//! What the service refuses, and how.

use serde_json::{Value, json};

use crate::service::{Service, command, data_dir};

fn errors(answer: &Value) -> Vec<(String, String)> {
    let findings = answer["findings"].as_array().expect("findings");
    findings
        .iter()
        .filter(|f| f["severity"] == "error")
        .map(|f| {
            (
                f["rule"].as_str().expect("a rule").to_owned(),
                f["pointer"].as_str().expect("a pointer").to_owned(),
            )
        })
        .collect()
}

fn pair(rule: &str, pointer: &str) -> (String, String) {
    (rule.to_owned(), pointer.to_owned())
}

#[test]
fn the_rules_answer_as_the_contract_says() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let definition = service.definition("print('x')\n");
    let with = |changes: &[(&str, Value)]| {
        let mut definition = definition.clone();
        for (key, value) in changes {
            definition[*key] = value.clone();
        }
        service.call("POST", "/v1/estimators/validate", Some(&definition)).json()
    };
    let two_nodes = with(&[("node_count", json!(2))]);
    assert!(
        errors(&two_nodes).contains(&pair("distributed-requires-mpi", "/distributed_training")),
        "{two_nodes:#}"
    );
    let mpi = json!({"type": "Mpi", "process_count_per_node": 2});
    let on_local = with(&[("distributed_training", mpi)]);
    assert_eq!(errors(&on_local), [pair("distributed-requires-amlcompute", "/compute_target")]);
    let deprecated = with(&[("distributed_backend", json!("mpi"))]);
    assert_eq!(deprecated["valid"], true);
    let warned = deprecated["findings"].as_array().expect("findings").iter().any(|f| {
        f["rule"] == "deprecated-parameter" && f["severity"] == "warning" && f["fix"]["patch"].is_array()
    });
    assert!(warned, "{deprecated:#}");
    let misspelt = with(&[("entry_scrip", json!("x.py"))]);
    assert_eq!(errors(&misspelt), [pair("unknown-parameter", "/entry_scrip")]);
    let four = with(&[
        ("node_count", json!("2")),
        ("entry_script", json!("../train.py")),
        ("max_run_duration_seconds", json!(0)),
        ("nodecount", json!(2)),
    ]);
    let expected = [
        pair("path-escapes-source-directory", "/entry_script"),
        pair("wrong-type", "/node_count"),
        pair("max-run-duration-not-positive", "/max_run_duration_seconds"),
        pair("unknown-parameter", "/nodecount"),
    ];
    assert_eq!(errors(&four), expected);
}

#[test]
fn a_second_service_on_the_same_directory_is_refused_in_one_clear_line() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let second = command(dir.path()).output().expect("ended");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    assert!(said.contains(dir.path().to_str().expect("UTF-8")) && said.contains("another"), "{said}");
    assert_eq!(service.call("GET", "/readyz", None).status, 200);
}

#[test]
fn an_open_address_without_a_token_is_refused() {
    let dir = data_dir();
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_estimatord"))
        .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("ended");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("--api-token-file"), "{said}");
}

#[test]
fn a_database_that_is_not_there_is_told_in_one_line() {
    let dir = data_dir();
    let refused = command(dir.path())
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .output()
        .expect("ended");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("cannot connect to DATABASE_URL (127.0.0.1:1)") && said.contains("refused"),
        "{said}"
    );
}

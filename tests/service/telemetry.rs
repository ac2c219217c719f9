//! What the service says of itself: log lines and spans.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{common::v1::any_value, trace::v1::Span};
use serde_json::{Value, json};

use crate::{
    collector::Collector,
    service::{Service, data_dir, until},
};

const SECRET: &str = "a-secret-that-nobody-may-see";

/// The lines of a JSON log, each an object without a key twice.
fn lines(log: &str) -> Vec<serde_json::Map<String, Value>> {
    let read = |line: &str| {
        estimatord::domain::json::parse_object(line.as_bytes()).unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    log.lines().map(read).collect()
}

#[test]
fn every_line_of_a_runs_life_is_an_object_that_says_of_what_it_is() {
    let dir = data_dir();
    let service = Service::start_with(dir.path(), &["--log-format", "json", "--log", "debug,sqlx=warn"]);
    let mut definition = service.definition("print('what a script prints is no business of the log')");
    definition["environment_variables"] = json!({"TOKEN": SECRET});
    let run = service.submit(&definition);
    service.until_status(&run, &["Completed"]);
    let path = "/v1/runs?experiment_name=in-a-query";
    assert_eq!(service.call("GET", path, None).status, 200);
    assert_eq!(service.call("GET", "/v1/runs/not-an-id", None).status, 400);
    until("the end is logged", || {
        service.read_log().contains(&format!("run {run}: Completed")).then_some(())
    });
    let log = service.read_log();
    for hidden in [SECRET, "in-a-query", "what a script prints"] {
        assert!(!log.contains(hidden), "{hidden}");
    }
    let (mut of_run, mut of_requests) = (0, 0);
    for line in lines(&log) {
        for field in ["timestamp", "level", "target", "message"] {
            let text = line.get(field).and_then(Value::as_str).unwrap_or_default();
            assert!(!text.is_empty(), "{field} of {line:?}");
        }
        let message = line["message"].as_str().expect("a text");
        assert!(!line["target"].as_str().expect("a text").contains("traces"), "{line:?}");
        if line["target"].as_str().is_some_and(|target| target.starts_with("estimatord::worker::drive")) {
            assert_eq!(line["run.id"], json!(run), "{line:?}");
            assert_eq!(line["run.attempt"], 1, "{line:?}");
            assert_eq!(line["run.target"], "local", "{line:?}");
            assert!(message.contains(&run), "{line:?}");
            of_run += 1;
        }
        if message.contains(" answered ") {
            for field in ["request_id", "http.method", "http.route", "status", "elapsed_milliseconds"] {
                assert!(line.contains_key(field), "{field} of {line:?}");
            }
            assert!(line["elapsed_milliseconds"].is_u64() && line["status"].is_u64(), "numbers: {line:?}");
            of_requests += 1;
        }
    }
    assert!(of_run >= 2 && of_requests >= 4, "{of_run} {of_requests}\n{log}");
}

#[test]
fn what_is_logged_changes_while_the_service_runs() {
    let dir = data_dir();
    let service = Service::start_with(dir.path(), &["--log", "info,sqlx=warn"]);
    let ask = || assert_eq!(service.call("GET", "/healthz", None).status, 200);
    let says = || service.read_log().matches("GET /healthz answered").count();
    ask();
    assert_eq!(says(), 0, "that all is well is logged at debug");
    service.signal(Signal::SIGUSR1);
    let changed = |filter: &str| {
        let line = format!("log filter changed to `{filter}`");
        until(&line.clone(), || service.read_log().contains(&line).then_some(()));
    };
    changed("info,sqlx=warn,estimatord=debug");
    ask();
    until("a line of a probe", || (says() == 1).then_some(()));
    service.signal(Signal::SIGUSR2);
    changed("info,sqlx=warn");
    ask();
    let body = json!({"filter": "debug", "for_seconds": 1});
    let put = service.call("PUT", "/v1/service/log-filter", Some(&body));
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(says(), 1);
    until("it is as configured again", || {
        let state = service.call("GET", "/v1/service/log-filter", None).json();
        (state["filter"] == "info,sqlx=warn" && state["until"].is_null()).then_some(())
    });
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &any_value::Value| match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |one: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        one.value.as_ref().and_then(|value| value.value.as_ref()).map(text).unwrap_or_default()
    };
    span.attributes.iter().map(|one| (one.key.clone(), value(one))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn one_trace_leads_from_the_request_to_the_backends_calls() {
    let collector = Collector::start();
    let dir = data_dir();
    let service = Service::start_with(dir.path(), &["--otlp-endpoint", &collector.address]);
    let mut definition = service.definition("print(1)");
    definition["environment_variables"] = json!({"TOKEN": SECRET});
    let run = service.submit(&definition);
    service.until_status(&run, &["Completed"]);
    let of_run = |span: &Span| attributes(span).get("run.id") == Some(&run);
    until("the last step is traced", || {
        collector.spans().iter().any(|span| of_run(span) && span.name == "run collect").then_some(())
    });
    assert!(service.stop().success());
    let spans = collector.spans();
    let request = spans.iter().find(|span| span.name == "POST /v1/runs").expect("the request");
    assert_eq!(attributes(request)["http.response.status_code"], "201");
    let of_trace: Vec<&Span> = spans.iter().filter(|span| span.trace_id == request.trace_id).collect();
    let names: BTreeSet<&str> = of_trace.iter().map(|span| span.name.as_str()).collect();
    for name in ["run claim", "run prepare", "run submit", "run collect", "process prepare", "process submit"]
    {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    for step in of_trace.iter().filter(|span| span.name.starts_with("run ")) {
        assert_eq!(step.parent_span_id, request.span_id, "{}", step.name);
    }
    let submit = of_trace.iter().find(|span| span.name == "run submit").expect("there");
    let call = of_trace.iter().find(|span| span.name == "process submit").expect("there");
    assert_eq!(call.parent_span_id, submit.span_id);
    assert_eq!(attributes(submit)["outcome"], "ok");
    assert!(!format!("{spans:?}").contains(SECRET));
    assert!(spans.iter().all(|span| span.name != "GET /healthz" && span.name != "GET /readyz"));
}

#[test]
fn a_trace_goes_on_from_the_callers_and_a_collector_that_is_away_is_not_felt() {
    let collector = Collector::start();
    let dir = data_dir();
    let service = Service::start_with(dir.path(), &["--otlp-endpoint", &collector.address]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let given = format!("00-{trace}-b7ad6b7169203331-01");
    let answer = service.call_with("GET", "/v1/runs", &[("traceparent", &given)]);
    assert_eq!(answer.status, 200);
    assert!(service.stop().success(), "what is left is sent at the end");
    let spans = collector.spans();
    let request = spans.iter().find(|span| span.name == "GET /v1/runs").expect("the request");
    assert_eq!(
        (hex(&request.trace_id), hex(&request.parent_span_id)),
        (trace.to_owned(), "b7ad6b7169203331".to_owned())
    );

    // Nobody listens there.
    let dir = data_dir();
    let service = Service::start_with(dir.path(), &["--otlp-endpoint", "http://127.0.0.1:9"]);
    let warned = || service.read_log().matches("spans cannot be sent").count();
    for round in 0..3 {
        let run = service.submit(&service.definition("print(1)"));
        service.until_status(&run, &["Completed"]);
        until("it is said", || (warned() == 1).then_some(()));
        assert_eq!(warned(), 1, "round {round}: said once");
    }
    assert!(service.stop().success());
}

/// The value of a series in the text of `/metrics`.
fn figure(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn figures_tell_what_was_done_for_a_run() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let run = service.submit(&service.definition("print(1)"));
    service.until_status(&run, &["Completed"]);
    let of_steps =
        |step: &str| format!("estimatord_run_step_duration_seconds_count{{step=\"{step}\",outcome=\"ok\"}} ");
    let text = until("the run is let go of", || {
        let text = service.call("GET", "/metrics", None).text();
        (figure(&text, "estimatord_leases_held ") == Some(0.0)).then_some(text)
    });
    for step in ["prepare", "submit", "collect"] {
        assert_eq!(figure(&text, &of_steps(step)), Some(1.0), "{step}\n{text}");
    }
    assert!(figure(&text, &of_steps("observe")) >= Some(1.0), "{text}");
    for (series, value) in [
        ("estimatord_leases_claimed_total{how=\"admitted\"} ", 1.0),
        ("estimatord_leases_claimed_total{how=\"adopted\"} ", 0.0),
        ("estimatord_leases_lost_total ", 0.0),
        ("estimatord_runs_ended_total{target=\"local\",status=\"Completed\",cause=\"\"} ", 1.0),
        ("estimatord_runs{status=\"Completed\"} ", 1.0),
        ("estimatord_database_up ", 1.0),
        ("estimatord_database_connections_max ", 16.0),
        ("estimatord_target_reachable{target=\"local\"} ", 1.0),
        ("estimatord_retention_deleted_total{what=\"runs\"} ", 0.0),
        ("estimatord_webhook_deliveries_pending ", 0.0),
    ] {
        assert_eq!(figure(&text, series), Some(value), "{series}\n{text}");
    }
    for series in [
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_cpu_seconds_total ",
        "process_start_time_seconds ",
        "estimatord_artifacts_disk_free_bytes ",
        "estimatord_run_dispatch_latency_seconds_count{target=\"local\"} ",
    ] {
        assert!(figure(&text, series) > Some(0.0), "{series}\n{text}");
    }
}

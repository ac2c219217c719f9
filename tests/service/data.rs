//! Data, checkpoints, metrics and secrets of a run, seen by its script and by its user.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::service::{Service, data_dir, until};

/// Says everything that it was given.
const SHOWS: &str = "\
import os, sys
from azureml.core import Run
run = Run.get_context()
print('arguments', sys.argv[1:])
for name in ('AZUREML_DATAREFERENCE_linked', 'AZUREML_DATAREFERENCE_copied', 'AZUREML_DATAREFERENCE_mystore', 'set'):
    place = os.environ[name]
    print(name, os.path.islink(place), sorted(os.listdir(place)))
print('dataset', os.path.basename(run.input_datasets['set']), list(run.input_datasets))
print('relative', open('given/a.csv').read())
out = os.environ['AZUREML_DATAREFERENCE_out']
open(os.path.join(out, 'model.txt'), 'w').write('weights of ' + run.id)
";

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, content).expect("written");
}

fn register(service: &Service, name: &str, folder: &Path) {
    let body = json!({"url": format!("file://{}", folder.display())});
    assert_eq!(service.call("PUT", &format!("/v1/datastores/{name}"), Some(&body)).status, 201);
}

fn reference(name: &str, path: &str, more: &Value) -> Value {
    let mut reference = json!({"type": "DataReference", "datastore": "mystore", "data_reference_name": name,
        "path_on_datastore": path});
    for (key, value) in more.as_object().into_iter().flatten() {
        reference[key] = value.clone();
    }
    reference
}

#[test]
fn a_script_reads_and_writes_datastores() {
    let (dir, store) = (data_dir(), data_dir());
    write(store.path(), "sets/2026/a.csv", "1,2");
    write(store.path(), "sets/2026/b.json", "{}");
    let service = Service::start(dir.path());
    register(&service, "mystore", store.path());
    let mut definition = service.definition(SHOWS);
    let given = reference("given", "sets/2026", &json!({"path_on_compute": "given"}));
    definition["inputs"] = json!([
        "mystore",
        reference("linked", "sets/2026", &json!({})),
        reference("copied", "sets/2026", &json!({"mode": "download"})),
        given,
        reference("out", "results", &json!({"mode": "upload"})),
        {"type": "DatasetConsumptionConfig", "name": "set", "dataset": {"datastore": "mystore", "path": "sets/2026/*.csv"}},
    ]);
    definition["script_params"] =
        json!({"--data": reference("linked", "sets/2026", &json!({})), "--epochs": 2});
    definition["source_directory_data_store"] = json!("mystore");
    let id = service.submit(&definition);
    let run = service.until_status(&id, &["Completed", "Failed"]);
    let log = service.log_text(&id);
    assert_eq!(run["status"], "Completed", "{run}\n{log}");
    let runs = dir.path().join("runs").join(&id).join("1/data/inputs/linked/2026");
    assert!(log.contains(&format!("arguments ['--data', '{}', '--epochs', '2']", runs.display())), "{log}");
    assert!(log.contains("AZUREML_DATAREFERENCE_linked True ['a.csv', 'b.json']"), "{log}");
    assert!(log.contains("AZUREML_DATAREFERENCE_copied False ['a.csv', 'b.json']"), "{log}");
    assert!(log.contains("AZUREML_DATAREFERENCE_mystore True ['estimatord', 'sets']"), "{log}");
    assert!(log.contains("set False ['a.csv']") && log.contains("dataset 2026 ['set']"), "{log}");
    assert!(log.contains("relative 1,2"), "{log}");
    let sent = fs::read_to_string(store.path().join("results/model.txt")).expect("sent");
    assert_eq!(sent, format!("weights of {id}"));
    let snapshots =
        fs::read_dir(store.path().join("estimatord/snapshots")).expect("the source tree is there");
    assert_eq!(snapshots.count(), 1);
    assert_eq!(fs::read_to_string(store.path().join("sets/2026/a.csv")).expect("there"), "1,2");
}

#[test]
fn a_run_goes_on_from_the_checkpoint_of_another() {
    let (dir, store) = (data_dir(), data_dir());
    let script = "\
import argparse, os
from azureml.core import Run
parser = argparse.ArgumentParser()
parser.add_argument('--resume-from')
start = int(open(parser.parse_args().resume_from).read()) if parser.parse_args().resume_from else 0
run = Run.get_context()
for epoch in range(start, start + 3):
    run.log('epoch', epoch, step=epoch)
open(os.path.join(os.environ['AZUREML_DATAREFERENCE_out'], 'checkpoint'), 'w').write(str(start + 3))
";
    let service = Service::start(dir.path());
    register(&service, "mystore", store.path());
    let mut definition = service.definition(script);
    definition["inputs"] = json!([reference("out", "first", &json!({"mode": "upload"}))]);
    service.until_status(&service.submit(&definition), &["Completed"]);
    definition["inputs"] = json!([reference("out", "second", &json!({"mode": "upload"}))]);
    definition["resume_from"] =
        json!({"type": "DataPath", "datastore": "mystore", "path_on_datastore": "first/checkpoint"});
    let id = service.submit(&definition);
    service.until_status(&id, &["Completed"]);
    assert_eq!(fs::read_to_string(store.path().join("second/checkpoint")).expect("sent"), "6");
    let metrics = service.call("GET", &format!("/v1/runs/{id}/metrics?name=epoch"), None).json();
    let values = metrics["items"].as_array().expect("items").iter();
    assert_eq!(values.map(|item| item["value"].clone()).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn missing_data_is_named_and_nothing_is_started() {
    let (dir, store) = (data_dir(), data_dir());
    let service = Service::start(dir.path());
    register(&service, "mystore", store.path());
    let mut definition = service.definition("print('never')");
    definition["inputs"] = json!([reference("d", "sets/2027", &json!({}))]);
    let id = service.submit(&definition);
    let run = service.until_status(&id, &["Failed"]);
    assert_eq!(run["cause"], "dispatch_failed");
    assert_eq!(run["detail"], "the datastore `mystore` has nothing at `sets/2027`");
    assert_eq!(run["started_at"], Value::Null);
}

#[test]
fn metrics_of_a_running_script_are_there_at_once() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let script = "import time\nfrom azureml.core.run import Run\nrun = Run.get_context()\n\
                  run.log('loss', 0.5)\nrun.tag('stage', 'waiting')\ntime.sleep(600)\n";
    let id = service.submit(&service.definition(script));
    let item = until("the metric is there", || {
        let metrics = service.call("GET", &format!("/v1/runs/{id}/metrics"), None).json();
        metrics["items"].as_array()?.first().cloned()
    });
    assert_eq!((&item["name"], &item["value"], &item["rank"]), (&json!("loss"), &json!(0.5), &json!(0)));
    until("the tag is there", || {
        let run = service.call("GET", &format!("/v1/runs/{id}"), None).json();
        (run["tags"]["stage"] == "waiting").then_some(())
    });
    assert_eq!(service.call("POST", &format!("/v1/runs/{id}/cancel"), None).status, 202);
    service.until_status(&id, &["Canceled"]);
}

#[test]
fn a_secret_is_in_no_file_of_the_service() {
    const CANARY: &str = "canary-b81f-sings";
    let dir = data_dir();
    let service = Service::start(dir.path());
    let store = json!({"url": "s3://bucket", "options": {"endpoint": "http://127.0.0.1:9"},
        "credentials": {"access_key_id": "AKIA1", "secret_access_key": CANARY}});
    assert_eq!(service.call("PUT", "/v1/datastores/remote", Some(&store)).status, 201);
    let mut definition = service.definition("print('never')");
    definition["use_docker"] = json!(true);
    definition["custom_docker_image"] = json!("127.0.0.1:9/own:1");
    definition["image_registry_details"] =
        json!({"address": "127.0.0.1:9", "username": "robot", "password": CANARY});
    let id = service.submit(&definition);
    service.until_status(&id, &["Failed"]);
    assert!(service.stop().success(), "the database has written everything");
    let found = Command::new("grep").args(["-rlaF", CANARY]).arg(dir.path()).output().expect("grep is there");
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

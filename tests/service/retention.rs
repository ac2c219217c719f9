//! Old runs go, with everything that they left, whatever happens meanwhile.

use std::{fs, path::Path};

use serde_json::json;

use crate::service::{Service, data_dir, until};

/// Leaves files enough that deleting them takes a while.
const WRITES: &str = "\
import os
print('so it was')
for number in range(200):
    open(f'outputs/{number}.txt', 'w').write(str(number))
";

/// What is left of a run in the artifact store.
fn files(data_dir: &Path, run: &str) -> usize {
    fn count(directory: &Path) -> usize {
        let Ok(entries) = fs::read_dir(directory) else { return 0 };
        let entries = entries.map(|entry| entry.expect("an entry").path());
        entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
    }
    count(&data_dir.join("artifacts/runs").join(run))
}

fn is_there(service: &Service, run: &str) -> bool {
    match service.call("GET", &format!("/v1/runs/{run}"), None).status {
        200 => true,
        404 => false,
        other => panic!("{other}"),
    }
}

#[test]
fn a_run_is_kept_for_as_long_as_is_said_and_nothing_of_it_longer() {
    let dir = data_dir();
    let service = Service::start_with(dir.path(), &["--keep-runs", "2s"]);
    let mut definition = service.definition("print('so it was')");
    let id = service.submit(&definition);
    let run = service.until_status(&id, &["Completed"]);
    let estimator = run["estimator_id"].as_str().expect("an id").to_owned();
    until("the run is gone", || (!is_there(&service, &id)).then_some(()));
    let paths = ["logs", "outputs", "metrics", "events", "logs/user_logs/std_log.txt", "outputs/x"];
    for path in paths {
        assert_eq!(service.call("GET", &format!("/v1/runs/{id}/{path}"), None).status, 404, "{path}");
    }
    until("its files are gone", || (files(dir.path(), &id) == 0).then_some(()));
    until("its estimator is gone", || {
        (service.call("GET", &format!("/v1/estimators/{estimator}"), None).status == 404).then_some(())
    });
    // Its snapshot was uploaded today.
    definition["entry_script"] = json!("train.py");
    let again = service.submit(&definition);
    service.until_status(&again, &["Completed"]);
}

/// Runs of which the deletion was killed before the last file was gone.
fn cut_off(dir: &Path) -> Vec<String> {
    // A machine that is busy with something else may be too late for the kill.
    for _ in 0..10 {
        let service = Service::start(dir);
        let definition = service.definition(WRITES);
        let runs: Vec<String> = (0..6).map(|_| service.submit(&definition)).collect();
        for run in &runs {
            service.until_status(run, &["Completed"]);
            assert!(files(dir, run) > 200);
        }
        assert!(service.stop().success());

        let service = Service::start_with(dir, &["--keep-runs", "1s"]);
        until("a deletion has begun", || runs.iter().any(|run| !is_there(&service, run)).then_some(()));
        service.kill();
        if runs.iter().any(|run| files(dir, run) > 0) {
            return runs;
        }
    }
    panic!("killed too late each time");
}

#[test]
fn a_deletion_that_is_cut_off_is_finished_by_the_next() {
    let dir = data_dir();
    let runs = cut_off(dir.path());

    // Nothing is to be deleted any more, but for what was begun.
    let service = Service::start(dir.path());
    for run in &runs {
        if is_there(&service, run) {
            is_whole(&service, run);
        } else {
            until("what was begun is finished", || (files(dir.path(), run) == 0).then_some(()));
        }
    }
    let fresh = service.submit(&service.definition(WRITES));
    service.until_status(&fresh, &["Completed"]);
    is_whole(&service, &fresh);
    assert!(service.stop().success());

    let service = Service::start_with(dir.path(), &["--keep-runs", "1s"]);
    for run in runs.iter().chain([&fresh]) {
        until("the rest is gone", || (!is_there(&service, run) && files(dir.path(), run) == 0).then_some(()));
    }
}

/// Everything that [`WRITES`] left can be had.
fn is_whole(service: &Service, run: &str) {
    let listed = service.call("GET", &format!("/v1/runs/{run}/outputs"), None).json();
    let outputs = listed["items"].as_array().unwrap_or_else(|| panic!("a list: {listed}"));
    assert_eq!(outputs.len(), 200);
    for output in outputs {
        let path = format!("/v1/runs/{run}/outputs/{}", output["path"].as_str().expect("a path"));
        assert_eq!(service.call("GET", &path, None).status, 200, "{path}");
    }
    assert_eq!(service.log_text(run), "so it was\n");
}

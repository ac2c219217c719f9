//! The whole service with a real Slurm cluster (`tests/slurm/cluster.sh run`), one test at a time: some of them stop the
//! controller, or take a node's power.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::service::{Service, data_dir, number, until};

/// A service with a target on the cluster, and a directory that all of them see.
struct Stage {
    service: Option<Service>,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        assert!(std::env::var_os("SLURM_CONF").is_some(), "these tests want tests/slurm/cluster.sh run");
        let dir = data_dir();
        std::fs::create_dir(dir.path().join("shared")).expect("made");
        let stage = Self { service: Some(start(dir.path())), dir };
        stage.put_target(&json!({}));
        stage
    }

    fn service(&self) -> &Service {
        self.service.as_ref().expect("it runs")
    }

    fn shared(&self) -> String {
        self.dir.path().join("shared").to_str().expect("UTF-8").to_owned()
    }

    fn put_target(&self, more: &Value) {
        let mut backend = json!({"kind": "slurm", "shared_dir": self.shared(), "partition": "main"});
        for (name, value) in more.as_object().expect("an object") {
            backend[name] = value.clone();
        }
        let body = json!({"type": "AmlCompute", "max_nodes": 4, "backend": backend});
        let answer = self.service().call("PUT", "/v1/compute-targets/cluster", Some(&body));
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    }

    /// A definition that runs a script on the cluster with the interpreter that is there.
    fn definition(&self, script: &str, argument: &str) -> Value {
        let mut definition = self.service().definition(script);
        definition["compute_target"] = json!("cluster");
        definition["script_params"] = json!({argument: ""});
        definition
    }

    /// `kill -9` of the service, and another one.
    fn kill(&mut self) {
        self.service.take().expect("it runs").kill();
        self.service = Some(start(self.dir.path()));
    }
}

fn start(dir: &Path) -> Service {
    Service::start_with(dir, &["--cluster-interval-seconds", "1", "--one-off-target", "cluster"])
}

fn cluster(arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm/cluster.sh");
    assert!(Command::new(script).args(arguments).status().expect("run").success(), "{arguments:?}");
}

/// What `squeue` says of the job of a run's first attempt.
fn job(id: &str, format: &str) -> String {
    let name = format!("estimatord-{id}-1");
    let format = format!("--format={format}");
    let arguments = ["--noheader", "--states=all", &format, "--name", &name];
    let output = Command::new("squeue").args(arguments).output().expect("run");
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// How many lines each run has left in a file that all of them add to.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits, longer than others do: a node that is gone is noticed after half a minute.
fn patiently(stage: &Stage, id: &str, wanted: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(240);
    loop {
        let run = stage.service().run(id);
        if run["status"] == wanted {
            return run;
        }
        assert!(Instant::now() < deadline, "not {wanted} in time: {run:#}\n{}", stage.service().read_log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Adds a line with the run's id to a file, in one write.
const NOTES_ITS_START: &str = "import os, sys\n\
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
    os.write(file, (os.environ['AZUREML_RUN_ID'] + '\\n').encode())\n\
    print('done')\n";

#[test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
fn many_runs_are_each_dispatched_once_though_service_and_controller_die() {
    let (runs, kills) = (number("ESTIMATORD_TEST_RUNS", 24), number("ESTIMATORD_TEST_KILLS", 3));
    let pause = Duration::from_secs(number("ESTIMATORD_TEST_PAUSE_SECONDS", 3) as u64);
    let mut stage = Stage::new();
    let notes = stage.dir.path().join("starts");
    let definition = stage.definition(NOTES_ITS_START, notes.to_str().expect("UTF-8"));
    let ids: Vec<String> = (0..runs).map(|_| stage.service().submit(&definition)).collect();
    for kill in 0..kills {
        // At moments that nobody chose.
        let random = u64::from_le_bytes(estimatord::clock::entropy());
        std::thread::sleep(Duration::from_millis(random % 2500));
        stage.kill();
        if kill == kills / 2 {
            cluster(&["controller", "stop"]);
            std::thread::sleep(pause);
            cluster(&["controller", "start"]);
        }
    }
    for id in &ids {
        let run = patiently(&stage, id, "Completed");
        assert_eq!(run["attempts"].as_array().expect("attempts").len(), 1, "{run:#}");
    }
    let mut started = lines(&notes);
    started.sort();
    let mut expected = ids;
    expected.sort();
    assert_eq!(started, expected, "each script was started once");
}

#[test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
fn a_controller_that_is_down_is_said_and_the_run_goes_on_when_it_is_back() {
    let stage = Stage::new();
    let go = stage.dir.path().join("go");
    let script = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.05)\n";
    let id = stage.service().submit(&stage.definition(script, go.to_str().expect("UTF-8")));
    stage.service().until_status(&id, &["Running"]);
    cluster(&["controller", "stop"]);
    let run = stage.service().until_status(&id, &["NotResponding"]);
    assert!(run["detail"].as_str().expect("why").contains("Unable to contact slurm controller"), "{run:#}");
    // Accepted while nobody can take it.
    let later = stage.service().submit(&stage.definition("print('later')", "x"));
    stage.service().until_status(&later, &["NotResponding"]);
    std::fs::write(&go, "").expect("written");
    cluster(&["controller", "start"]);
    for id in [&id, &later] {
        let run = patiently(&stage, id, "Completed");
        assert_eq!(run["attempt"], 1, "{run:#}");
    }
}

#[test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
fn a_node_that_dies_costs_an_attempt_and_not_the_run() {
    let stage = Stage::new();
    let notes = stage.dir.path().join("starts");
    // The first attempt never ends by itself.
    let script = format!(
        "{NOTES_ITS_START}import time\nwhile len(open(sys.argv[1]).readlines()) == 1: time.sleep(0.1)\n"
    );
    let mut definition = stage.definition(&script, notes.to_str().expect("UTF-8"));
    definition["node_count"] = json!(1);
    let body = json!({"experiment_name": "tests", "estimator": definition, "max_attempts": 2});
    let answer = stage.service().call("POST", "/v1/runs", Some(&body));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    stage.service().until_status(&id, &["Running"]);
    until("the script has started", || notes.exists().then_some(()));
    let node = job(&id, "%N");
    cluster(&["node", "stop", &node]);
    let run = patiently(&stage, &id, "Completed");
    cluster(&["node", "start", &node]);
    assert_eq!(run["attempts"][0]["cause"], "compute_lost", "{run:#}");
    assert!(run["attempts"][0]["detail"].as_str().expect("why").contains("NODE_FAIL"), "{run:#}");
    assert_eq!((run["attempt"].clone(), lines(&notes).len()), (json!(2), 2));
}

#[test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
fn a_run_that_waits_on_the_cluster_is_queued_and_says_why() {
    let stage = Stage::new();
    let mut definition = stage.definition("print('never')", "x");
    definition["node_count"] = json!(4);
    definition["distributed_training"] = json!({"type": "Mpi"});
    let id = stage.service().submit(&definition);
    let run = until("the reason", || {
        let run = stage.service().run(&id);
        (run["blocked_by"][0]["code"] == "no_such_hardware"
            && run["blocked_by"][0]["detail"].as_str().is_some_and(|text| text.contains("NodeLimit")))
        .then_some(run)
    });
    assert_eq!(run["status"], "Queued", "{run:#}");
    let listed = stage.service().call("GET", "/v1/runs?status=Queued", None).json();
    assert_eq!(listed["items"][0]["id"], run["id"]);
    assert_eq!(stage.service().call("GET", "/v1/runs?status=Starting", None).json()["items"], json!([]));
    assert_eq!(stage.service().call("POST", &format!("/v1/runs/{id}/cancel"), None).status, 202);
    assert_eq!(stage.service().until_status(&id, &["Canceled"])["cause"], "canceled_by_user");
}

#[test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
fn a_run_over_its_time_says_so() {
    let stage = Stage::new();
    let mut definition = stage.definition("import time\ntime.sleep(600)", "x");
    definition["max_run_duration_seconds"] = json!(2);
    let id = stage.service().submit(&definition);
    let run = stage.service().until_status(&id, &["Canceled"]);
    assert_eq!(run["cause"], "max_run_duration_exceeded", "{run:#}");
}

#[test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
fn what_the_cluster_refuses_is_told_in_its_words_and_the_target_s_health_is_known() {
    let stage = Stage::new();
    stage.put_target(&json!({"partition": "nowhere"}));
    let id = stage.service().submit(&stage.definition("print('x')", "x"));
    let run = stage.service().until_status(&id, &["Failed"]);
    assert_eq!(run["cause"], "dispatch_failed");
    assert!(run["detail"].as_str().expect("why").contains("nowhere"), "{run:#}");
}

#[test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
fn a_size_is_what_the_job_asks_of_its_nodes_and_low_priority_a_qos() {
    let stage = Stage::new();
    // Without accounting a cluster knows no QOS.
    let has_accounting = std::env::var("ESTIMATORD_TEST_SLURM_ACCOUNTING").is_ok_and(|on| on == "1");
    let mut more = json!({"vm_sizes": {"Standard_D2_v2": {"memory_mib": 300, "constraint": "fast"}}});
    if has_accounting {
        more["low_priority_qos"] = json!("scavenger");
    }
    stage.put_target(&more);
    let script = "import json, os\n\
        names = ['SLURM_JOB_NODELIST', 'SLURM_CPUS_PER_TASK', 'SLURM_MEM_PER_NODE', 'SLURM_JOB_QOS']\n\
        os.makedirs('outputs', exist_ok=True)\n\
        json.dump([os.environ.get(name) for name in names], open('outputs/seen.json', 'w'))\n";
    let mut definition = stage.definition(script, "x");
    definition["compute_target"] = Value::Null;
    definition["vm_size"] = json!("STANDARD_D2_V2");
    if has_accounting {
        definition["vm_priority"] = json!("lowpriority");
    }
    let id = stage.service().submit(&definition);
    let run = patiently(&stage, &id, "Completed");
    let seen = stage.service().call("GET", &format!("/v1/runs/{id}/outputs/seen.json"), None).json();
    assert_eq!((&seen[0], &seen[1], &seen[2]), (&json!("node2"), &json!("2"), &json!("300")), "{seen}");
    if has_accounting {
        assert_eq!(seen[3], "scavenger", "{seen}");
    }
    let events = stage.service().call("GET", &format!("/v1/runs/{id}/events"), None).text();
    assert!(events.contains("made for this run: a STANDARD_D2_V2 is a node of partition main"), "{events}");
    let name = run["compute_target"].as_str().expect("a name");
    assert_eq!(stage.service().call("GET", &format!("/v1/compute-targets/{name}"), None).status, 404);

    // A size that no node has is refused by the cluster, in its words.
    stage.put_target(&json!({"vm_sizes": {"Standard_D2_v2": {"constraint": "slow"}}}));
    definition["vm_priority"] = Value::Null;
    let id = stage.service().submit(&definition);
    let run = patiently(&stage, &id, "Failed");
    assert_eq!(run["cause"], "dispatch_failed", "{run:#}");
    assert!(run["detail"].as_str().expect("why").contains("feature"), "{run:#}");
}

/// Slow: it builds an environment.
#[test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
fn slow_the_example_trains_on_two_nodes_and_a_canceled_one_leaves_no_process() {
    let stage = Stage::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits");
    let text = std::fs::read_to_string(example.join("digits-mpi.json")).expect("read");
    let mut definition: Value = serde_json::from_str(&text).expect("JSON");
    let script = std::fs::read_to_string(example.join("train.py")).expect("read");
    definition["source_directory"] = json!(stage.service().upload(&[("train.py", &script)]));
    definition["compute_target"] = json!("cluster");
    definition["use_docker"] = json!(false);
    let id = stage.service().submit(&definition);
    let run = patiently(&stage, &id, "Completed");
    assert_eq!(job(&id, "%D %T"), "2 COMPLETED");
    let log =
        stage.service().call("GET", &format!("/v1/runs/{id}/logs/user_logs/std_log_0.txt"), None).text();
    let metrics = stage.service().call("GET", &format!("/v1/runs/{id}/metrics"), None).json();
    println!("{log}\n{metrics:#}\n{}", run["environment"]["actual"]["packages"]);
    let accuracy = log
        .lines()
        .filter_map(|line| line.split("accuracy").nth(1))
        .filter_map(|rest| {
            rest.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| word.parse::<f64>().ok())
        })
        .next_back();
    assert!(accuracy.is_some_and(|accuracy| accuracy > 0.9), "{log}");

    definition["script_params"]["--epochs"] = json!(100_000);
    let id = stage.service().submit(&definition);
    stage.service().until_status(&id, &["Running"]);
    let marker = format!("ESTIMATORD_ATTEMPT={id}.1");
    until("both ranks run", || (processes(&marker) >= 2).then_some(()));
    assert_eq!(stage.service().call("POST", &format!("/v1/runs/{id}/cancel"), None).status, 202);
    stage.service().until_status(&id, &["Canceled"]);
    assert_eq!(processes(&marker), 0, "a process is left");
}

/// Pythons of an attempt. The nodes are on this machine.
fn processes(marker: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let environments = entries.map(|entry| std::fs::read(entry.path().join("environ")).unwrap_or_default());
    environments.filter(|text| text.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes())).count()
}

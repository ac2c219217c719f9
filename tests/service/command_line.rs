//! The commands, as scripts and people use them, against a running service.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::service::{Service, data_dir};

struct Shell<'a> {
    service: &'a Service,
    dir: &'a std::path::Path,
}

impl Shell<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
        command.args(arguments).env("ESTIMATORD_URL", &self.service.base).current_dir(self.dir);
        command.env_remove("ESTIMATORD_TOKEN").output().expect("started")
    }

    /// What is on standard output, when the exit code is as it should be.
    #[track_caller]
    fn out(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    #[track_caller]
    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let out = self.out(code, arguments);
        assert_eq!(out.lines().count(), 1, "one object: {out}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

#[test]
fn a_script_can_do_everything_with_the_command_line() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let work = tempfile::tempdir().expect("a directory");
    let shell = Shell { service: &service, dir: work.path() };
    let write = |name: &str, text: &str| {
        let path = work.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write(
        "src/train.py",
        "import sys\nprint('hello')\nopen('outputs/a.txt', 'w').write('A')\nsys.exit(int(sys.argv[2]))\n",
    );
    let definition = |code: u32| {
        json!({"source_directory": "src", "compute_target": "local", "entry_script": "train.py", "user_managed": true,
               "use_docker": false, "script_params": {"--code": code}}).to_string()
    };
    write("good.json", &definition(0));
    write("bad.json", &definition(3));
    write("wrong.json", r#"{"compute_target": "local", "node_count": 0}"#);

    // A definition is judged and rendered before anything is stored.
    assert!(shell.out(0, &["validate", "good.json", "--source", "src"]).ends_with("valid\n"));
    let refused = shell.out(2, &["validate", "wrong.json"]);
    assert!(refused.contains("/node_count") && refused.ends_with("refused\n"), "{refused}");
    assert_eq!(shell.json(2, &["validate", "wrong.json", "--output", "json"])["valid"], false);
    let rendered = shell.out(0, &["render", "good.json", "--source", "src", "--format", "sbatch"]);
    assert!(rendered.starts_with("#!") && rendered.contains("#SBATCH"), "{rendered}");
    shell.out(2, &["render", "good.json", "--format", "cwl"]);
    shell.out(2, &["render", "wrong.json", "--format", "sbatch"]);

    // A run is started, waited for, looked at.
    let id =
        shell.out(0, &["submit", "good.json", "--source", "src", "--experiment", "cli"]).trim().to_owned();
    let run = shell.json(0, &["run", &id, "--wait", "--output", "json"]);
    assert_eq!((&run["id"], &run["status"]), (&json!(id), &json!("Completed")));
    let shown = shell.out(0, &["run", &id]);
    assert!(
        shown.contains(&id) && shown.contains("Completed") && shown.contains("attempt     1 on"),
        "{shown}"
    );
    assert_eq!(shell.out(0, &["logs", "-f", &id]), "hello\n");
    let list = shell.out(0, &["outputs", &id]);
    assert!(list.starts_with("PATH") && list.contains("a.txt") && list.contains("1 bytes"), "{list}");
    let downloaded = shell.json(0, &["outputs", &id, "a.txt", "-d", "here/there", "--output", "json"]);
    assert_eq!(downloaded["items"][0]["path"], "a.txt");
    assert_eq!(std::fs::read_to_string(work.path().join("here/there/a.txt")).expect("downloaded"), "A");
    let none = shell.run(&["outputs", &id, "b.txt"]);
    assert_eq!(none.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no output `b.txt`"));

    // How a run ended is in the exit code.
    let failed =
        shell.json(0, &["submit", "bad.json", "--source", "src", "--experiment", "cli", "--output", "json"]);
    let failed = failed["id"].as_str().expect("an id").to_owned();
    shell.out(1, &["run", &failed, "--wait"]);
    shell.out(1, &["logs", "-f", &failed]);
    shell.out(4, &["cancel", &failed]);
    shell.out(0, &["run", &failed]);

    // Lists can be narrowed, and are whole however long their pages are.
    let runs = shell.json(0, &["runs", "--experiment", "cli", "--output", "json"]);
    let ids: Vec<_> = runs["items"].as_array().expect("items").iter().map(|run| run["id"].clone()).collect();
    assert_eq!(ids, [json!(failed), json!(id)]);
    let runs = shell.out(0, &["runs", "--status", "Failed"]);
    assert!(runs.contains(&failed) && !runs.contains(&id) && runs.starts_with("ID"), "{runs}");
    assert_eq!(
        shell.json(0, &["runs", "-n", "1", "--output", "json"])["items"].as_array().map(Vec::len),
        Some(1)
    );
    shell.out(2, &["runs", "--status", "Done"]);
    shell.out(2, &["runs", "--tag", "x"]);
    let targets = shell.out(0, &["targets"]);
    assert!(targets.contains("local") && targets.contains("process"), "{targets}");
    assert_eq!(shell.json(0, &["targets", "--output", "json"])["items"][0]["name"], "local");

    // Canceled is 3 for who waits, and 0 for who wanted it.
    write("src/train.py", "import time\ntime.sleep(600)\n");
    let id = shell.out(0, &["submit", "good.json", "--source", "src"]).trim().to_owned();
    assert_eq!(shell.json(0, &["cancel", &id, "--wait", "--output", "json"])["status"], "Canceled");
    shell.out(3, &["run", &id, "--wait"]);
    let bash = shell.out(0, &["completion", "bash"]);
    assert!(bash.contains("complete -F") && bash.contains("outputs"), "{}", &bash[..200]);
    assert!(service.stop().success());
}

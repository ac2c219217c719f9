//! The batch script of a definition, run by bash as Slurm runs it: with a stand-in for the interpreter that writes down
//! what it was given.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use estimatord::domain::{
    compute_target::{Backend, ComputeTarget, ComputeTargetType, Conda, Containers},
    facts::{Facts, SnapshotFacts, SourceLimits},
    judge,
    render::{Format, Subject, render},
};
use serde_json::{Value, json};

/// What stands in for an interpreter.
const PROBE: &str =
    "#!/bin/sh\nprintf '%s\\0' \"$@\" >argv.out\nenv -0 >env.out\nexit \"${PROBE_STATUS:-0}\"\n";

/// What stands in for uv: an environment with the probe for an interpreter, made slowly, and a line for each.
const UV: &str = "#!/bin/sh\n\
    if [ \"$1\" = venv ]; then\n\
    for last; do :; done\n\
    mkdir -p \"$last/bin\" && cp \"$PROBE\" \"$last/bin/python\"\n\
    else\n\
    sleep 0.3\necho built >>\"$BUILDS\"\nexit \"${UV_STATUS:-0}\"\n\
    fi\n";

/// What stands in for srun, which begins another job at `:`.
const SRUN: &str = "#!/bin/sh\nshift\nfor word; do\n[ \"$word\" != : ] || exit 9\ndone\nexec \"$@\"\n";

/// The batch script of a definition with these members.
fn script(members: &Value) -> String {
    let mut body = json!({
        "source_directory": format!("sha256:{}", "7".repeat(64)), "compute_target": "cluster", "entry_script": "train.py",
        "framework_version": "7.0.0",
    });
    for (key, value) in members.as_object().unwrap() {
        body[key] = value.clone();
    }
    let mut files = SnapshotFacts::default();
    files.files.insert("train.py".to_owned(), 0);
    let target = ComputeTarget {
        name: "cluster".parse().unwrap(),
        kind: ComputeTargetType::AmlCompute,
        backend: Backend::process(),
        max_nodes: 2,
        vm_size: None,
        vm_priority: None,
        gpus_per_node: 0,
        containers: Containers::Auto,
        conda: Conda::Auto,
        projects: Vec::new(),
    };
    let facts = Facts {
        limits: SourceLimits::default(),
        snapshot: Some(Arc::new(files)),
        targets: Arc::new(vec![target]),
        one_off_target: None,
        datastores: ["store".to_owned()].into(),
    };
    let verdict = judge::judge(body.as_object().unwrap(), &facts);
    let accepted = verdict.accepted.unwrap_or_else(|| panic!("{:#?}", verdict.findings));
    let plan = judge::plan(&accepted);
    let subject = Subject { plan: &plan, definition: Some(&accepted.definition) };
    render(Format::Sbatch, &subject).text
}

fn program(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// A folder to submit from, with the stand-ins beside it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(script: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("bin")).unwrap();
        fs::create_dir(folder.path("source")).unwrap();
        fs::write(folder.path("source/train.py"), "").unwrap();
        fs::write(folder.path("job.sbatch"), script).unwrap();
        program(&folder.path("probe"), PROBE);
        program(&folder.path("bin/uv"), UV);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(self.path("job.sbatch"))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.0.path())
            .env("SLURM_SUBMIT_DIR", self.path("source"))
            .env("SLURM_JOB_NAME", "train")
            .env("SLURM_JOB_ID", "7")
            .env("PROBE", self.path("probe"))
            .env("BUILDS", self.path("builds"))
            .env("ENVIRONMENTS_DIR", self.path("environments"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the script with the probe for an interpreter.
    fn run(&self, variables: &[(&str, &str)]) -> Output {
        self.command().env("PYTHON", self.path("probe")).envs(variables.iter().copied()).output().unwrap()
    }

    fn written(&self, name: &str) -> Vec<String> {
        let bytes = fs::read(self.path("source").join(name)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        text.split_terminator('\0').map(ToOwned::to_owned).collect()
    }

    fn arguments(&self) -> Vec<String> {
        self.written("argv.out")
    }

    fn environment(&self) -> BTreeMap<String, String> {
        self.written("env.out")
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn builds(&self) -> usize {
        fs::read_to_string(self.path("builds")).map_or(0, |text| text.lines().count())
    }
}

/// Texts that a shell would like to read something into.
fn hostile_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "$(touch broken)",
        "`touch broken`",
        "'; touch broken; '",
        "\" && touch broken \"",
        "$HOME",
        "${HOME}",
        "$((1+1))",
        "~",
        "a\nb\n",
        "one\r\ntwo\r",
        "-n",
        "--",
        "!!",
        "{a,b}",
        "*",
        "[a]",
        "\\",
        "\\'",
        "'\\''",
        "a  b ",
        " ",
        "\t",
        "#x",
        "é 漢 😀",
        "%j",
        "$'x'",
        "<(id)",
        "a=b",
        "[0]=x",
        ")",
        "(",
        "if",
        "EOF",
    ]
    .map(ToOwned::to_owned)
    .into();
    for c in (1..128).filter_map(char::from_u32) {
        texts.extend([format!("{c}"), format!("a{c}{c}b{c}")]);
    }
    texts
}

#[test]
fn every_text_arrives_as_it_is() {
    let texts = hostile_texts();
    let mut variables = serde_json::Map::new();
    for (number, text) in texts.iter().enumerate() {
        variables.insert(format!("V{number}"), json!(text));
    }
    let members = json!({"script_params": {"--all": texts}, "environment_variables": variables});
    let folder = Folder::new(&script(&members));
    let output = folder.run(&[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let mut expected = vec!["train.py".to_owned(), "--all".to_owned()];
    expected.extend(texts.iter().cloned());
    assert_eq!(folder.arguments(), expected);
    let environment = folder.environment();
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(environment.get(&format!("V{number}")), Some(text));
    }
    assert!(!folder.path("source/broken").exists());
    assert!(folder.path("source/outputs").is_dir() && folder.path("source/logs").is_dir());
}

#[test]
fn variables_that_bash_keeps_for_itself_reach_the_script() {
    let given = [("UID", "7"), ("SECONDS", "z"), ("PATH", "/own"), ("PYTHON", "p"), ("LD_OWN", "l")];
    let members: serde_json::Map<_, _> =
        given.map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect();
    let text = script(&json!({"environment_variables": members}));
    let folder = Folder::new(&text);
    // The probe cannot find `env` on such a path.
    program(&folder.path("probe"), &PROBE.replace("env -0", "/usr/bin/env -0"));
    assert!(folder.run(&[]).status.success());
    let environment = folder.environment();
    for (name, value) in given.into_iter() {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[test]
fn how_the_script_ends_is_how_the_job_ends() {
    let folder = Folder::new(&script(&json!({})));
    assert_eq!(folder.run(&[("PROBE_STATUS", "3")]).status.code(), Some(3));
    fs::remove_file(folder.path("source/train.py")).unwrap();
    let output = folder.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("train.py is not in"), "{output:?}");
    assert_eq!(folder.run(&[("SOURCE_DIRECTORY", "/nowhere")]).status.code(), Some(1));
}

/// bash forgets how a process ended that ends at the very moment at which bash catches a signal.
#[test]
fn how_a_script_ended_that_was_told_to_is_not_lost() {
    let folder = Folder::new(&script(&json!({})));
    let waits = program(&folder.path("waits"), "#!/bin/sh\necho $$ >pid\nexec sleep 600\n");
    for (round, signals) in
        ["kill -TERM $1 $2; kill -TERM $1 $2", "kill -TERM $1; kill -USR1 $2", "kill -USR1 $2"]
            .iter()
            .cycle()
            .take(60)
            .enumerate()
    {
        let _ = fs::remove_file(folder.path("source/pid"));
        let mut shell = folder.command().env("PYTHON", &waits).spawn().unwrap();
        let waiting = || {
            // The last thing that the shell does before it waits is to catch USR1, which is bit 9.
            let status = fs::read_to_string(format!("/proc/{}/status", shell.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            let catches = u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 9) != 0;
            catches && fs::read_to_string(folder.path("source/pid")).is_ok_and(|pid| pid.ends_with('\n'))
        };
        while !waiting() {
            std::thread::yield_now();
        }
        let pid = fs::read_to_string(folder.path("source/pid")).unwrap();
        let told = Command::new("bash")
            .args(["-c", signals, "bash", pid.trim(), &shell.id().to_string()])
            .output()
            .unwrap();
        let ended = shell.wait().unwrap();
        assert_eq!(ended.code(), Some(143), "round {round}: {told:?}");
    }
}

#[test]
fn data_has_to_be_somewhere() {
    let folder = Folder::new(&script(&json!({
        "inputs": [{"type": "DataReference", "datastore": "store", "data_reference_name": "d", "path_on_datastore": "it's `id`"}],
        "script_params": {"--data": {"type": "DataReference", "datastore": "store", "data_reference_name": "d",
            "path_on_datastore": "it's `id`"}},
        "resume_from": {"type": "DataPath", "datastore": "store", "path_on_datastore": "m"},
    })));
    let output = folder.run(&[("RESUME_FROM", "/m")]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("it's `id` of datastore store"), "{output:?}");
    let variables = [("AZUREML_DATAREFERENCE_d", "/da ta/$(id)"), ("RESUME_FROM", "/m")];
    assert!(folder.run(&variables).status.success());
    assert_eq!(folder.arguments(), ["train.py", "--data", "/da ta/$(id)", "--resume-from", "/m"]);
}

#[test]
fn an_environment_is_built_once_even_by_two_jobs_at_a_time() {
    let folder = Folder::new(&script(&json!({})));
    let jobs: Vec<_> = (0..3).map(|_| folder.command().spawn().unwrap()).collect();
    for job in jobs {
        let output = job.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert!(folder.command().status().unwrap().success());
    assert_eq!(folder.builds(), 1);
    assert_eq!(folder.arguments(), ["train.py"]);
    let environment = folder.environment();
    assert!(environment["PATH"].starts_with(&format!("{}/bin:", environment["VIRTUAL_ENV"])));
}

#[test]
fn a_build_that_fails_says_so_and_leaves_nothing() {
    let folder = Folder::new(&script(&json!({})));
    let output = folder.command().env("UV_STATUS", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not be built"), "{output:?}");
    let left: Vec<_> = fs::read_dir(folder.path("environments"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(folder.command().status().unwrap().success());
}

#[test]
fn conda_packages_need_a_conda() {
    let folder = Folder::new(&script(&json!({"conda_packages": ["scipy>=1.2", "python=3.7"]})));
    let output = folder.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no conda, mamba or micromamba"), "{output:?}");
    let text = "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$BUILDS.conda\"\nmkdir -p \"$4/bin\" && cp \"$PROBE\" \"$4/bin/python\"\n";
    program(&folder.path("bin/mamba"), text);
    let output = folder.command().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let asked = fs::read_to_string(folder.path("builds.conda")).unwrap();
    assert!(
        asked.contains("\npython=3.7\npip\nscipy>=1.2\n") && asked.contains("--channel\nconda-forge\n"),
        "{asked}"
    );
}

#[test]
fn an_environment_with_files_of_the_source_is_the_job_s_own() {
    let folder = Folder::new(&script(&json!({"pip_packages": ["-e ./pkg"]})));
    for _ in 0..2 {
        assert!(folder.command().status().unwrap().success());
    }
    assert_eq!(folder.builds(), 2);
    assert_eq!(fs::read_dir(folder.path("environments")).unwrap().count(), 0);
    let hidden = |name: &str| name.starts_with(".estimatord");
    let names = fs::read_dir(folder.path("source")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !hidden(name.to_str().unwrap())));
}

#[test]
fn variables_of_the_batch_script_itself_are_the_script_s_too() {
    let given = [
        ("estimatord_command", "c"),
        ("estimatord_process", "p"),
        ("SLURM_JOB_ID", "9"),
        ("SLURM_CONF", "/none"),
        ("SRUN_CPUS_PER_TASK", "x"),
        ("BASH_COMPAT", "x"),
        ("PYTHON", "p"),
    ];
    let members: serde_json::Map<_, _> =
        given.map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect();
    let folder = Folder::new(&script(&json!({"environment_variables": members})));
    let output = folder.run(&[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let environment = folder.environment();
    for (name, value) in given {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(environment["AZUREML_RUN_ID"], "train-7");
    assert_eq!(folder.arguments(), ["train.py"]);
}

#[test]
fn a_dataset_may_have_the_name_of_a_variable_that_something_else_is_read_from() {
    let names = ["PYTHON", "UID", "RANDOM", "RESUME_FROM", "SLURM_JOB_ID", "SRUN_MPI", "plain"];
    let dataset = |name: &str| {
        json!({"type": "DatasetConsumptionConfig", "name": name, "dataset": {"datastore": "store", "path": name},
            "mode": "mount"})
    };
    let text = script(&json!({
        "inputs": names.map(dataset), "script_params": {"--data": names.map(dataset)},
        "resume_from": {"type": "DataPath", "datastore": "store", "path_on_datastore": "m"},
    }));
    let folder = Folder::new(&text);
    let told = |name: &str| if name == "plain" { name.to_owned() } else { format!("ESTIMATORD_DATA_{name}") };
    let output = folder.run(&[("RESUME_FROM", "/m"), ("plain", "/data/plain")]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("ESTIMATORD_DATA_PYTHON"), "{output:?}");
    let variables: Vec<_> = names.map(|name| (told(name), format!("/data/{name} $(id)"))).into();
    let mut variables: Vec<_> = variables.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
    variables.push(("RESUME_FROM", "/m"));
    let output = folder.run(&variables);
    assert!(output.status.success(), "{output:?}");
    let mut expected = vec!["train.py".to_owned(), "--data".to_owned()];
    expected.extend(names.map(|name| format!("/data/{name} $(id)")));
    expected.extend(["--resume-from".to_owned(), "/m".to_owned()]);
    assert_eq!(folder.arguments(), expected);
    let environment = folder.environment();
    for name in names {
        assert_eq!(environment[name], format!("/data/{name} $(id)"));
    }
}

#[test]
fn an_argument_that_srun_would_take_for_its_own_arrives_as_it_is() {
    let text = script(&json!({
        "distributed_training": {"type": "Mpi"}, "script_params": {"--a": [":", "it's $(id)", "a\nb", "é", "::"]},
        "environment_variables": {"LD_OWN": "x y"},
    }));
    let folder = Folder::new(&text);
    program(&folder.path("bin/srun"), SRUN);
    let output = folder.run(&[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let expected = ["-m", "mpi4py", "train.py", "--a", ":", "it's $(id)", "a\nb", "é", "::"];
    assert_eq!(folder.arguments(), expected);
    assert_eq!(folder.environment()["LD_OWN"], "x y");
}

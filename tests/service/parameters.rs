//! Each of the 34 parameters, by what it does to a run: seen from inside the script, or, where a script can see nothing, by the user.
//!
//! What only a container can show is in `containers.rs`; the table below says which parameter is shown where, and is complete.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use estimatord::domain::definition::SIGNATURE;
use serde_json::{Map, Value, json};

use crate::service::{Service, data_dir};

/// Writes down all that a script can see of what was asked for.
pub const SHOWS: &str = "\
import importlib.metadata, json, os, sys
seen = {
    'argv': sys.argv, 'executable': sys.executable, 'prefix': sys.prefix, 'pid': os.getpid(),
    'python': '.'.join(map(str, sys.version_info[:2])), 'files': sorted(os.listdir('.')),
    'environment': dict(os.environ),
    'packages': {d.metadata['Name'].lower(): d.version for d in importlib.metadata.distributions()},
    'rank': os.environ.get('OMPI_COMM_WORLD_RANK'), 'ranks': os.environ.get('OMPI_COMM_WORLD_SIZE'),
}
shm = os.statvfs('/dev/shm')
seen['shm'] = shm.f_blocks * shm.f_frsize
place = 'outputs/seen%s.json' % (seen['rank'] or '')
json.dump(seen, open(place, 'w'))
";

/// Which test shows what a parameter does.
const SHOWN: [(&str, &str); 34] = [
    ("source_directory", "words_and_variables_arrive"),
    ("compute_target", "the_target_decides_where_it_runs"),
    ("vm_size", "a_size_makes_a_target"),
    ("vm_priority", "a_size_makes_a_target"),
    ("entry_script", "words_and_variables_arrive"),
    ("script_params", "words_and_variables_arrive"),
    ("node_count", "ranks_are_started"),
    ("process_count_per_node", "ranks_are_started"),
    ("distributed_backend", "ranks_are_started"),
    ("distributed_training", "ranks_are_started"),
    ("use_gpu", "containers::gpus_are_asked_for"),
    ("use_docker", "containers::images_and_memory"),
    ("custom_docker_base_image", "containers::images_and_memory"),
    ("custom_docker_image", "containers::images_and_memory"),
    ("image_registry_details", "containers::images_and_memory"),
    ("user_managed", "the_target_decides_where_it_runs"),
    ("conda_packages", "conda_installs"),
    ("pip_packages", "packages_are_installed"),
    ("conda_dependencies_file_path", "packages_are_installed"),
    ("pip_requirements_file_path", "packages_are_installed"),
    ("conda_dependencies_file", "conda_installs"),
    ("pip_requirements_file", "packages_are_installed"),
    ("environment_variables", "words_and_variables_arrive"),
    ("environment_definition", "an_environment_of_its_own"),
    ("inputs", "data::a_script_reads_and_writes_datastores"),
    ("source_directory_data_store", "data::a_script_reads_and_writes_datastores"),
    ("shm_size", "containers::images_and_memory"),
    ("resume_from", "data::a_run_goes_on_from_the_checkpoint_of_another"),
    ("max_run_duration_seconds", "too_long_a_run_is_canceled"),
    ("framework_version", "packages_are_installed"),
    ("_enable_optimized_mode", "ranks_are_started"),
    ("_disable_validation", "scripts_are_looked_at"),
    ("_show_lint_warnings", "scripts_are_looked_at"),
    ("_show_package_warnings", "scripts_are_looked_at"),
];

#[test]
fn no_parameter_is_left_out() {
    let shown: Vec<&str> = SHOWN.iter().map(|(parameter, _)| *parameter).collect();
    assert_eq!(shown, SIGNATURE.iter().map(|parameter| parameter.name).collect::<Vec<_>>());
    let sources = [
        ("", include_str!("parameters.rs")),
        ("containers", include_str!("containers.rs")),
        ("data", include_str!("data.rs")),
    ];
    for (_, test) in SHOWN {
        let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
        let source = sources.iter().find(|(known, _)| *known == module).expect("a module").1;
        assert!(source.contains(&format!("\nfn {name}()")), "there is no test {test}");
    }
}

/// A definition of these members, over one that runs [`SHOWS`] on the machine.
pub fn definition(service: &Service, files: &[(&str, &str)], members: &Value) -> Value {
    let mut sent = vec![("train.py", SHOWS)];
    sent.extend_from_slice(files);
    let mut definition = json!({"source_directory": service.upload(&sent), "compute_target": "local",
        "entry_script": "train.py", "framework_version": "7.0.0", "use_docker": false});
    for (name, value) in members.as_object().into_iter().flatten() {
        definition[name] = value.clone();
    }
    definition.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    definition
}

/// Runs a definition and answers the run and what its script saw, that of rank 0 where there are ranks.
pub fn seen(service: &Service, definition: &Value) -> (Value, Value) {
    let id = service.submit(definition);
    let run = service.until_status(&id, &["Completed"]);
    let place = if run["plan"]["launcher"] == "mpi" { "seen0.json" } else { "seen.json" };
    let answer = service.call("GET", &format!("/v1/runs/{id}/outputs/{place}"), None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    (run, answer.json())
}

fn packages(seen: &Value) -> &Map<String, Value> {
    seen["packages"].as_object().expect("an object")
}

fn rules(run: &Value) -> BTreeSet<String> {
    let findings = run["findings"].as_array().expect("findings").iter();
    findings.map(|finding| finding["rule"].as_str().expect("a rule").to_owned()).collect()
}

fn substituted(run: &Value, asked: &str) -> Value {
    let told = run["environment"]["actual"]["substitutions"].as_array().expect("substitutions");
    let found = told.iter().find(|told| told["asked"].as_str().is_some_and(|text| text.contains(asked)));
    found.unwrap_or_else(|| panic!("{asked}: {told:?}"))["used"].clone()
}

#[test]
fn words_and_variables_arrive() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let members = json!({"user_managed": true, "entry_script": "sub/again.py",
        "script_params": {"--rate": 0.5, "--list": [1, null, "a b"], "--flag": "", "positional": null},
        "environment_variables": {"OMP_NUM_THREADS": 2, "SWITCH": true, "TEXT": "ä 'quoted' $HOME"}});
    let files = [("sub/again.py", SHOWS), ("beside.txt", "")];
    let (_, seen) = seen(&service, &definition(&service, &files, &members));
    let argv = seen["argv"].as_array().expect("words");
    assert_eq!(argv[0], "sub/again.py");
    assert_eq!(
        argv[1..],
        ["--rate", "0.5", "--list", "1", "a b", "--flag", "positional"],
        "lists are expanded, and what says nothing disappears"
    );
    let files = seen["files"].as_array().expect("names");
    assert!(["beside.txt", "outputs", "sub", "train.py"].iter().all(|name| files.contains(&json!(name))));
    let environment = &seen["environment"];
    assert_eq!(
        [&environment["OMP_NUM_THREADS"], &environment["SWITCH"], &environment["TEXT"]],
        ["2", "True", "ä 'quoted' $HOME"]
    );
}

#[test]
fn the_target_decides_where_it_runs() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let own = dir.path().join("own");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&own).status();
    assert!(made.expect("started").success());
    let python = own.join("bin/python");
    let target = json!({"type": "AmlCompute", "backend": {"kind": "process", "python": python}, "containers": "never"});
    assert_eq!(service.call("PUT", "/v1/compute-targets/bench", Some(&target)).status, 201);
    let members = json!({"user_managed": true, "compute_target": "bench", "use_docker": null});
    let (run, seen) = seen(&service, &definition(&service, &[], &members));
    assert_eq!(seen["executable"], json!(python), "nothing is built: the interpreter that the target names");
    assert_eq!(
        (&run["compute_target"], &run["environment"]["actual"]["build_key"]),
        (&json!("bench"), &Value::Null)
    );
    // A container is asked for by default; where the target has none, that is told.
    assert_eq!(substituted(&run, "image mcr.microsoft.com/azureml/base:"), "an interpreter of this machine");
}

#[test]
fn a_size_makes_a_target() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let members = json!({"user_managed": true, "compute_target": null, "vm_size": "STANDARD_D2_V2",
        "vm_priority": "lowpriority"});
    let (run, _) = seen(&service, &definition(&service, &[], &members));
    assert!(run["compute_target"].as_str().is_some_and(|name| name.starts_with("one-off-")), "{run}");
    let expected = json!({"vm_size": "STANDARD_D2_V2", "vm_priority": "lowpriority"});
    assert_eq!(run["plan"]["one_off_target"], expected);
    let id = run["id"].as_str().expect("an id");
    let events = service.call("GET", &format!("/v1/runs/{id}/events"), None).text();
    assert!(events.contains("Provisioning") && events.contains("STANDARD_D2_V2"), "{events}");
    let gone = service.call(
        "GET",
        &format!("/v1/compute-targets/{}", run["compute_target"].as_str().unwrap()),
        None,
    );
    assert_eq!(gone.status, 404);
}

#[test]
fn ranks_are_started() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let target =
        json!({"type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 2, "containers": "never"});
    assert_eq!(service.call("PUT", "/v1/compute-targets/bench", Some(&target)).status, 201);
    let own = json!({"dependencies": [{"pip": ["mpi4py==4.1.1"]}]});
    let training = json!({"compute_target": "bench", "node_count": 2, "use_docker": null,
        "distributed_training": {"type": "Mpi", "process_count_per_node": 2},
        "environment_definition": {"python": {"conda_dependencies": own}}});
    let (_, of_four) = seen(&service, &definition(&service, &[], &training));
    assert_eq!((&of_four["rank"], &of_four["ranks"]), (&json!("0"), &json!("4")));
    let backend = json!({"compute_target": "bench", "process_count_per_node": 2, "distributed_backend": "mpi",
        "_enable_optimized_mode": true, "pip_packages": ["six==1.16.0"], "use_docker": null});
    let (run, of_two) = seen(&service, &definition(&service, &[], &backend));
    assert_eq!((&of_two["rank"], &of_two["ranks"]), (&json!("0"), &json!("2")));
    // The optimized mode: only the user's package is added to what the framework's image would have.
    assert_eq!(run["plan"]["environment"]["pip_packages"], json!(["six==1.16.0"]));
    assert_eq!(
        (&packages(&of_two)["six"], &packages(&of_two)["chainer"]),
        (&json!("1.16.0"), &json!("7.0.0"))
    );
    assert!(substituted(&run, "prebuilt framework image").is_string());
}

#[test]
fn packages_are_installed() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let files = [
        ("req.txt", "six==1.15.0\n"),
        ("pip-only.yml", "dependencies:\n  - python=3.11\n  - pip:\n    - six==1.14.0\n"),
    ];
    let of = |members: Value| seen(&service, &definition(&service, &files, &members));
    let (run, framework) = of(json!({"framework_version": "5.1.0", "pip_packages": ["Six==1.16.0"]}));
    let installed = packages(&framework);
    assert_eq!((&installed["chainer"], &installed["six"]), (&json!("5.1.0"), &json!("1.16.0")));
    assert!(installed.contains_key("mpi4py") && framework["prefix"] != framework["executable"]);
    assert_eq!(substituted(&run, "azureml-defaults"), Value::Null);
    // A package of the user's takes the place of the framework's.
    let (_, replaced) = of(json!({"pip_packages": ["chainer==7.8.1"], "pip_requirements_file": "req.txt"}));
    assert_eq!(
        (&packages(&replaced)["chainer"], &packages(&replaced)["six"]),
        (&json!("7.8.1"), &json!("1.15.0"))
    );
    let (run, old_name) = of(json!({"pip_requirements_file_path": "req.txt", "framework_version": "5.1.0"}));
    assert_eq!(packages(&old_name)["six"], "1.15.0");
    assert!(rules(&run).contains("deprecated-parameter"));
    let (run, conda_file) = of(json!({"conda_dependencies_file_path": "pip-only.yml"}));
    assert_eq!(packages(&conda_file)["six"], "1.14.0");
    assert!(
        !packages(&conda_file).contains_key("chainer")
            && rules(&run).contains("framework-packages-not-installed")
    );
    assert_eq!(conda_file["python"], "3.11");
}

#[test]
fn conda_installs() {
    let dir = data_dir();
    let channel = data_dir();
    let package =
        json!({"name": "greeting", "version": "1.2", "files": {"greeting.py": "TEXT = 'from conda'"}});
    let noarch = channel.path().join("own/noarch");
    fs::create_dir_all(&noarch).expect("made");
    let repodata = json!({"packages": {"greeting-1.2-0.tar.bz2": package}}).to_string();
    fs::write(noarch.join("repodata.json"), &repodata).expect("written");
    for name in ["anaconda", "conda-forge"] {
        fs::create_dir_all(channel.path().join(name).join("noarch")).expect("made");
        fs::write(channel.path().join(name).join("noarch/repodata.json"), &repodata).expect("written");
    }
    let alias = format!("file://{}", channel.path().display());
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backends/conda/micromamba.py");
    let options = ["--conda", stand_in.to_str().expect("UTF-8"), "--conda-channel-alias", &alias];
    let service = Service::start_with(dir.path(), &options);
    let script =
        "import greeting, os\nassert greeting.TEXT == 'from conda'\nassert 'CONDA_PREFIX' in os.environ\n";
    let files = [
        ("uses.py", &*format!("{script}{SHOWS}")),
        ("conda.yml", "channels:\n  - own\ndependencies:\n  - python\n  - greeting=1.2\n"),
    ]
    .map(|(name, text)| (name, text.to_owned()));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let (run, _) = seen(
        &service,
        &definition(
            &service,
            &files,
            &json!({"entry_script": "uses.py", "conda_packages": ["greeting"],
            "pip_packages": ["six==1.16.0"]}),
        ),
    );
    let installed = run["environment"]["actual"]["packages"].to_string();
    assert!(installed.contains("greeting==1.2") && installed.contains("chainer==7.0.0"), "{installed}");
    let (run, seen) = seen(
        &service,
        &definition(
            &service,
            &files,
            &json!({"entry_script": "uses.py", "conda_dependencies_file": "conda.yml"}),
        ),
    );
    assert_eq!(run["environment"]["actual"]["kind"], "conda");
    assert!(!packages(&seen).contains_key("chainer"));
}

#[test]
fn an_environment_of_its_own() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let environment = json!({"name": "mine", "environment_variables": {"FROM": "the environment"},
        "python": {"conda_dependencies": {"dependencies": ["python=3.11", {"pip": ["six==1.16.0"]}]}}});
    let members = json!({"environment_definition": environment});
    let (run, seen) = seen(&service, &definition(&service, &[], &members));
    assert_eq!(seen["environment"]["FROM"], "the environment");
    assert_eq!((&packages(&seen)["six"], packages(&seen).len()), (&json!("1.16.0"), 1));
    assert_eq!(seen["python"], "3.11");
    assert!(rules(&run).contains("overridden-by-environment-definition"), "`use_docker` beside it is told");
}

#[test]
fn too_long_a_run_is_canceled() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let files = [("forever.py", "import time\nprint('begun', flush=True)\ntime.sleep(600)\n")];
    let members = json!({"user_managed": true, "entry_script": "forever.py", "max_run_duration_seconds": 1});
    let id = service.submit(&definition(&service, &files, &members));
    let run = service.until_status(&id, &["Canceled"]);
    assert_eq!(run["cause"], "max_run_duration_exceeded");
    assert_eq!(service.log_text(&id), "begun\n");
}

#[test]
fn scripts_are_looked_at() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let files = [("broken.py", "import torch\nprint(\n")];
    let found = |members: Value| {
        let mut members = members;
        members["entry_script"] = json!("broken.py");
        let answer =
            service.call("POST", "/v1/estimators/validate", Some(&definition(&service, &files, &members)));
        rules(&answer.json())
    };
    assert!(found(json!({"_disable_validation": true})).contains("validation-always-on"));
    let checked = found(json!({"_disable_validation": false}));
    assert!(checked.contains("script-syntax-error") && !checked.contains("validation-always-on"));
    // The one thing that is linted is told in any case.
    let linted = found(json!({"_disable_validation": false, "_show_lint_warnings": true}));
    assert!(linted.contains("script-syntax-error"));
    let files = [("imports.py", "import torch\n")];
    let packages = |show: bool| {
        let members = json!({"_disable_validation": false, "entry_script": "imports.py", "_show_package_warnings": show});
        let body = definition(&service, &files, &members);
        rules(&service.call("POST", "/v1/estimators/validate", Some(&body)).json())
    };
    assert!(packages(true).contains("package-not-declared"));
    assert!(!packages(false).contains("package-not-declared"));
}

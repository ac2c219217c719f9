//! Environments that are built for images, in real containers. `make check-containers` brings a Docker and runs these.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use estimatord::{
    backend::{
        Attempt, Backend as _, PrepareError,
        process::{Isolation, ProcessBackend, Settings},
    },
    domain::{
        compute_target::Containers,
        environment::EnvironmentKind,
        framework::BASE_IMAGE_CPU,
        plan::{InputKind, InputMode, Launcher, PlannedInput},
    },
};

use crate::{
    containers::{containers, variable},
    harness::{self, Directory, Lab as _, content, ended},
    process::Machine,
};

const SHOWS: &str = r#"
import importlib.metadata, os, sys
print("prefix", sys.prefix)
print("base", sys.base_prefix)
print("six", importlib.metadata.version("six"))
shm = os.statvfs("/dev/shm")
print("shm", shm.f_blocks * shm.f_frsize)
"#;

struct Bench {
    machine: Machine,
    scripts: tempfile::TempDir,
}

impl Bench {
    fn new(script: &str) -> Self {
        let scripts = tempfile::tempdir().unwrap();
        fs::write(scripts.path().join("shows.py"), script).unwrap();
        Self { machine: Machine::new(), scripts }
    }

    fn source(&self) -> Directory {
        Directory(self.scripts.path().to_owned())
    }

    fn attempt(&self, image: &str, packages: &[&str]) -> Attempt {
        let mut attempt = self.machine.watched(harness::attempt("shows.py", &[]));
        let environment = &mut attempt.plan.environment;
        environment.kind = EnvironmentKind::Managed;
        environment.interpreter_path = None;
        environment.docker = true;
        environment.image = Some(image.to_owned());
        environment.shm_size = Some("96m".into());
        environment.pip_packages = packages.iter().map(|package| (*package).to_owned()).collect();
        attempt
    }

    async fn log(&self, backend: &ProcessBackend, attempt: &Attempt) -> String {
        let exit = ended(backend, attempt).await;
        let log = content(&backend.log_files(attempt).await.unwrap(), "user_logs/std_log.txt");
        assert_eq!(exit.exit_code, Some(0), "{exit:?}: {log}");
        log
    }
}

/// Gives the test image another name as long as this value is there.
struct Tagged(String);

impl Tagged {
    fn new(name: &str) -> Self {
        docker(&["tag", &variable("ESTIMATORD_TEST_IMAGE"), name]);
        Self(name.to_owned())
    }
}

impl Drop for Tagged {
    fn drop(&mut self) {
        docker(&["rmi", &self.0]);
    }
}

fn docker(arguments: &[&str]) {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn packages_are_installed_for_the_image_s_interpreter_once() {
    let bench = Bench::new(SHOWS);
    let (backend, image) = (bench.machine.backend(), variable("ESTIMATORD_TEST_IMAGE"));
    let attempt = bench.attempt(&image, &["six==1.16.0"]);
    let environment = backend.prepare(&attempt, &bench.source()).await.unwrap();
    assert_eq!(environment.packages, ["six==1.16.0"]);
    assert_eq!((environment.kind.as_str(), environment.reused), ("virtual_environment", false));
    assert_eq!(environment.container.as_ref().unwrap().image, image);
    assert_eq!(environment.substitutions, []);
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let log = bench.log(&backend, &attempt).await;
    let venv = Path::new(&environment.interpreter).ancestors().nth(2).unwrap();
    assert!(log.contains(&format!("prefix {}\n", venv.display())), "{log}");
    assert!(log.contains("base /usr\n") && log.contains("six 1.16.0\n"), "{log}");
    assert!(log.contains(&format!("shm {}\n", 96 << 20)), "{log}");
    let again = bench.attempt(&image, &["six==1.16.0"]);
    let reused = backend.prepare(&again, &bench.source()).await.unwrap();
    assert_eq!((reused.reused, &reused.build_key), (true, &environment.build_key));
    // The same packages without an image are another environment.
    let mut outside = bench.attempt(&image, &["six==1.16.0"]);
    outside.plan.environment.docker = false;
    let outside = backend.prepare(&outside, &bench.source()).await.unwrap();
    assert!(!outside.reused && outside.build_key != environment.build_key && outside.container.is_none());
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn ranks_train_in_an_image_that_has_neither_chainer_nor_an_mpi() {
    let script = "from mpi4py import MPI\nimport chainer, os\nprint('rank', MPI.COMM_WORLD.rank, 'of', MPI.COMM_WORLD.size, \
                  chainer.__version__, os.path.exists('/etc/debian_version'), flush=True)\n";
    let bench = Bench::new(script);
    let backend = bench.machine.backend();
    let image = variable("ESTIMATORD_TEST_IMAGE");
    let mut attempt = bench.attempt(&image, &["chainer==7.0.0", "mpi4py==3.0.0"]);
    attempt.plan.launcher = Launcher::Mpi;
    attempt.plan.process_count_per_node = 2;
    let environment = backend.prepare(&attempt, &bench.source()).await.unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    let logs = backend.log_files(&attempt).await.unwrap();
    assert_eq!(exit.exit_code, Some(0), "{}", content(&logs, "azureml-logs/70_mpirun_log.txt"));
    for rank in 0..2 {
        let log = content(&logs, &format!("user_logs/std_log_{rank}.txt"));
        assert!(log.contains(&format!("rank {rank} of 2 7.0.0 True")), "{log}");
    }
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn the_documented_image_is_used_where_it_is_to_be_had_and_stood_in_for_where_not() {
    let bench = Bench::new(SHOWS);
    let backend = bench.machine.backend();
    let attempt = bench.attempt(BASE_IMAGE_CPU, &["six==1.16.0"]);
    let environment = backend.prepare(&attempt, &bench.source()).await.unwrap();
    assert_eq!(environment.container, None);
    let told: Vec<_> = environment.substitutions.iter().map(|told| told.asked.as_str()).collect();
    assert_eq!(told, [&format!("image {BASE_IMAGE_CPU}"), "shm_size 96m"]);
    assert!(environment.substitutions[0].reason.starts_with("the image is not to be had: "));
    let mut promised = bench.attempt(BASE_IMAGE_CPU, &["six==1.16.0"]);
    promised.plan.containers = Containers::Docker;
    let refused = backend.prepare(&promised, &bench.source()).await.unwrap_err();
    assert!(matches!(refused, PrepareError::EnvironmentBuild { .. }), "{refused}");

    let _tagged = Tagged::new(BASE_IMAGE_CPU);
    let attempt = bench.attempt(BASE_IMAGE_CPU, &["six==1.16.0"]);
    let environment = backend.prepare(&attempt, &bench.source()).await.unwrap();
    assert_eq!(environment.container.as_ref().unwrap().image, BASE_IMAGE_CPU);
    assert_eq!(environment.substitutions, []);
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    assert!(bench.log(&backend, &attempt).await.contains(&format!("shm {}\n", 96 << 20)));
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn an_image_without_a_python_gets_one_of_the_service_s() {
    let bench = Bench::new(SHOWS);
    let backend = bench.machine.backend();
    // What uv gets lies here, and would run in every image; this one is of Debian, and runs there.
    let pythons = bench.machine.data_dir().join("tools/python");
    let cpython = pythons.join("cpython");
    for directory in ["bin", "lib"] {
        fs::create_dir_all(cpython.join(directory)).unwrap();
    }
    let donor = format!("estimatord-test-donor-{}", std::process::id());
    docker(&["create", "--name", &donor, &variable("ESTIMATORD_TEST_IMAGE"), "true"]);
    for (of_image, place) in
        [("/usr/bin/python3.11", "bin/python3.11"), ("/usr/lib/python3.11", "lib/python3.11")]
    {
        docker(&["cp", &format!("{donor}:{of_image}"), cpython.join(place).to_str().unwrap()]);
    }
    docker(&["rm", &donor]);
    std::os::unix::fs::symlink("python3.11", cpython.join("bin/python3")).unwrap();
    let mut attempt = bench.attempt("", &["six==1.16.0"]);
    let environment = &mut attempt.plan.environment;
    environment.image = None;
    environment.container.base_dockerfile =
        Some(format!("FROM {}\nRUN rm /usr/bin/python3*\nUSER 1234\n", variable("ESTIMATORD_TEST_IMAGE")));
    let environment = backend.prepare(&attempt, &bench.source()).await.unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let log = bench.log(&backend, &attempt).await;
    assert!(log.contains(&format!("base {}\n", cpython.display())), "{log}");
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn a_failed_build_in_an_image_says_why_and_leaves_nothing() {
    let bench = Bench::new(SHOWS);
    let backend = bench.machine.backend();
    let image = variable("ESTIMATORD_TEST_IMAGE");
    let attempt = bench.attempt(&image, &["six==99.0"]);
    let error = backend.prepare(&attempt, &bench.source()).await.unwrap_err().to_string();
    assert!(error.contains("six==99.0"), "{error}");
    assert_eq!(containers_of_tools(), 0);
    let left: Vec<_> =
        fs::read_dir(bench.machine.data_dir().join("environments")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.file_type().unwrap().is_file()), "{left:?}");
    assert_eq!(containers(&attempt), 0);
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn a_build_that_is_given_up_leaves_no_container() {
    let bench = Bench::new(SHOWS);
    let source = bench.scripts.path().join("slow");
    fs::create_dir(&source).unwrap();
    // Its build never ends.
    fs::write(source.join("setup.py"), "import time\nopen('begun', 'w').close()\ntime.sleep(3600)\n")
        .unwrap();
    let attempt = bench.attempt(&variable("ESTIMATORD_TEST_IMAGE"), &["slow @ file:./slow"]);
    let backend = bench.machine.backend();
    let files = bench.source();
    let building = backend.prepare(&attempt, &files);
    let begun =
        harness::until("the container of the build", async || (containers_of_tools() > 0).then_some(()));
    tokio::select! {
        ended = building => panic!("it never ends: {ended:?}"),
        () = begun => {}
    }
    // The future is gone, as when the run is cancelled.
    assert_eq!(containers_of_tools(), 0);
}

/// The containers of builds, running or not.
fn containers_of_tools() -> usize {
    let arguments = ["ps", "-aq", "--filter", "label=estimatord.tool=build"];
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().count()
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn data_is_seen_where_it_is_wanted_and_not_changed() {
    let script = "import os\nplace = os.environ['AZUREML_DATAREFERENCE_digits']\nprint('place', place)\n\
                  print('content', open(place + '/a.txt').read())\n\
                  try:\n    open(place + '/b.txt', 'w')\nexcept OSError as error:\n    print('refused', error.errno)\n\
                  out = os.environ['AZUREML_DATAREFERENCE_made']\nopen(out + '/m.txt', 'w').write('made')\n";
    let bench = Bench::new(script);
    let store = tempfile::tempdir().unwrap();
    fs::write(store.path().join("a.txt"), "of the store").unwrap();
    let mut attempt = bench.attempt(&variable("ESTIMATORD_TEST_IMAGE"), &[]);
    attempt.plan.environment.kind = EnvironmentKind::UserManaged;
    attempt.plan.environment.interpreter_path = Some("python3".into());
    let input = |name: &str, mode, path_on_compute: Option<&str>| PlannedInput {
        name: name.to_owned(),
        kind: InputKind::DataReference,
        datastore: "mystore".to_owned(),
        path: "sets/2026".to_owned(),
        mode,
        path_on_compute: path_on_compute.map(str::to_owned),
        overwrite: false,
        variable: format!("AZUREML_DATAREFERENCE_{name}"),
    };
    attempt.plan.data.inputs = vec![
        input("digits", InputMode::Mount, Some("/mnt/digits")),
        input("made", InputMode::Upload, Some("/mnt/made")),
    ];
    let backend = bench.machine.backend();
    let environment = backend.prepare(&attempt, &bench.source()).await.unwrap();
    // As the worker stages it: a link to the store, and an empty directory.
    let data = bench.machine.attempt_dir(&attempt).join("data/inputs");
    fs::create_dir_all(data.join("digits")).unwrap();
    std::os::unix::fs::symlink(store.path(), data.join("digits/2026")).unwrap();
    fs::create_dir_all(data.join("made/2026")).unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let log = bench.log(&backend, &attempt).await;
    assert!(log.contains("place /mnt/digits\n") && log.contains("content of the store\n"), "{log}");
    assert!(log.contains("refused 30\n"), "a file system that is read-only: {log}");
    assert_eq!(fs::read_to_string(data.join("made/2026/m.txt")).unwrap(), "made");
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn conda_packages_are_seen_in_the_image() {
    let bench = Bench::new(
        "import greeting, os\nprint(greeting.TEXT, os.path.exists('/.dockerenv'), os.environ['CONDA_PREFIX'])\n",
    );
    let channels = tempfile::tempdir().unwrap();
    let noarch = channels.path().join("own/noarch");
    fs::create_dir_all(&noarch).unwrap();
    let package = serde_json::json!({"name": "greeting", "version": "1.2", "files": {"greeting.py": "TEXT = 'from conda'"}});
    let repodata = serde_json::json!({"packages": {"greeting-1.2-0.tar.bz2": package}});
    fs::write(noarch.join("repodata.json"), repodata.to_string()).unwrap();
    // A Python of Debian, as in the image: the stand-in takes what it finds, and a real one brings its own.
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backends/conda/micromamba.py");
    let conda = bench.scripts.path().join("micromamba");
    let note = bench.machine.note("glibc");
    let script = format!(
        "#!/bin/sh\necho \"$CONDA_OVERRIDE_GLIBC\" > {note}\nPATH=/usr/bin:/bin exec python3 {} \"$@\"\n",
        stand_in.display()
    );
    fs::write(&conda, script).unwrap();
    fs::set_permissions(&conda, fs::Permissions::from_mode(0o755)).unwrap();
    let backend = ProcessBackend::new(Settings {
        data_dir: bench.machine.data_dir(),
        supervisor: env!("CARGO_BIN_EXE_estimatord").into(),
        cancel_grace: Duration::from_secs(1),
        build_timeout: Duration::from_secs(600),
        max_environments_bytes: u64::MAX,
        uv: None,
        conda: Some(conda),
        conda_channel_alias: Some(format!("file://{}", channels.path().display())),
        isolation: Isolation::default(),
    })
    .unwrap();
    let mut attempt = bench.attempt(&variable("ESTIMATORD_TEST_IMAGE"), &["six==1.16.0"]);
    attempt.plan.environment.conda_packages = vec!["greeting=1.2".into()];
    attempt.plan.environment.conda_channels = vec!["own".into()];
    let environment = backend.prepare(&attempt, &bench.source()).await.unwrap();
    assert_eq!(environment.kind, "conda");
    assert!(environment.packages.contains(&"six==1.16.0".to_owned()), "{:?}", environment.packages);
    // Debian 12's C library.
    assert_eq!(fs::read_to_string(note).unwrap(), "2.36\n");
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let log = bench.log(&backend, &attempt).await;
    assert!(log.starts_with("from conda True "), "{log}");
}

//! pip's option lines and requirements files, put into effect by the real installer: these take a while, and the network.

use std::{fs, path::Path, time::Duration};

use estimatord::{
    backend::{Attempt, Backend as _, PrepareError},
    domain::environment::PipOrigins,
};

use crate::{
    harness::{self, Directory, Lab as _, content},
    process::Machine,
    slow_environments::{backend, managed},
};

/// An attempt over a tree with these files; those of `listed` that stand in `file` come last.
fn over(
    machine: &Machine,
    files: &[(&str, &str)],
    listed: &[&str],
    file: Option<(&str, u64)>,
) -> (Attempt, Directory) {
    let tree = Path::new(&machine.note("tree")).to_owned();
    for (name, content) in files {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let mut attempt = machine.watched(managed(harness::attempt("train.py", &[]), listed));
    let origins = &mut attempt.plan.environment.pip_origins;
    *origins = PipOrigins::default();
    if let Some((name, lines)) = file {
        (origins.file, origins.file_lines) = (Some(name.to_owned()), lines);
    }
    (attempt, Directory(tree))
}

const OWN: (&str, &str) = (
    "pkg/pyproject.toml",
    "[project]\nname = \"own\"\nversion = \"0.3\"\n[tool.setuptools]\npy-modules = [\"own\"]\n",
);

#[tokio::test]
async fn options_files_and_what_they_include_are_what_pip_means_by_them() {
    let machine = Machine::new();
    let requirements = "-r sub/more.txt\nsix \\\n    --hash=sha256:8b74bedcbbbaca38ff6d7491d76f2b06b3592611af620f8426e82dddb04a5ced\n\
        azureml-defaults\nmpi4py==3.0.0\n";
    let files = [
        ("req.txt", requirements),
        ("sub/more.txt", "-c limits.txt\n-e ./pkg\n"),
        ("sub/limits.txt", "six==1.15.0\n"),
        OWN,
        ("pkg/own.py", "answer = 42\n"),
    ];
    let listed = [
        "mpi4py==3.0.0",
        "--pre",
        "tqdm==4.64.0",
        "-r sub/more.txt",
        "six",
        "azureml-defaults",
        "mpi4py==3.0.0",
    ];
    let (mut attempt, tree) = over(&machine, &files, &listed, Some(("req.txt", 4)));
    attempt.plan.environment.pip_origins.framework = 1;
    let backend = backend(machine.data_dir(), Duration::from_secs(300));
    let environment = backend.prepare(&attempt, &tree).await.unwrap();
    let has = |package: &str| environment.packages.iter().any(|installed| installed.starts_with(package));
    for package in ["own==0.3", "six==1.15.0", "tqdm==4.64.0", "mpi4py==4."] {
        assert!(has(package), "{package}: {:?}", environment.packages);
    }
    assert!(!has("azureml"), "{:?}", environment.packages);
    let asked: Vec<&str> = environment.substitutions.iter().map(|s| s.asked.as_str()).collect();
    assert!(asked.contains(&"azureml-defaults") && asked.contains(&"mpi4py==3.0.0"), "{asked:?}");
}

#[tokio::test]
async fn hashes_that_do_not_fit_and_options_that_nobody_knows_fail_the_build() {
    let machine = Machine::new();
    let wrong = format!("six==1.15.0 --hash=sha256:{}\n", "0".repeat(64));
    for (text, says) in [
        (wrong.as_str(), "six==1.15.0"),
        (
            "six\n--prefer-binary\n",
            "req.txt, line 2: `--prefer-binary`: the installer (uv) knows no option `--prefer-binary`",
        ),
        (
            "-r ../../x.txt\n",
            "req.txt, line 1: `-r ../../x.txt`: ../../x.txt leads out of the source directory",
        ),
    ] {
        let (attempt, tree) = over(&machine, &[("req.txt", text)], &["six"], Some(("req.txt", 1)));
        let backend = backend(machine.data_dir(), Duration::from_secs(300));
        let error = backend.prepare(&attempt, &tree).await.unwrap_err();
        let PrepareError::EnvironmentBuild { message } = &error else { panic!("{error}") };
        assert!(message.contains(says), "{message}");
        let log = content(&backend.log_files(&attempt).await.unwrap(), "azureml-logs/20_image_build_log.txt");
        assert!(log.contains(message.as_str()), "{log}");
    }
}

#[tokio::test]
async fn packages_come_from_where_the_options_say() {
    let machine = Machine::new();
    let backend = backend(machine.data_dir(), Duration::from_secs(300));
    let (attempt, tree) =
        over(&machine, &[("wheels/none.txt", "")], &["--no-index", "--find-links ./wheels", "six"], None);
    let error = backend.prepare(&attempt, &tree).await.unwrap_err().to_string();
    assert!(error.contains("six was not found"), "{error}");
    let (attempt, tree) = over(&machine, &[OWN, ("pkg/own.py", "")], &["own @ file:pkg"], None);
    assert_eq!(backend.prepare(&attempt, &tree).await.unwrap().packages, ["own==0.3"]);
}

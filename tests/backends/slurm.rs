//! The Slurm backend on a real cluster (`tests/slurm/cluster.sh run`): the conformance suite, and what only it promises.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use estimatord::{
    backend::{Attempt, Backend as _, BackendError, ExitReason, Observation, slurm::SlurmBackend},
    domain::{
        compute_target::{self, Engine, SlurmCommands, SlurmSettings},
        slurm::job_name,
    },
};

use crate::{
    conformance,
    harness::{self, Lab, Sweeper, content, ended, noted_pids, scripts, start, until},
};

const GRACE: Duration = Duration::from_millis(700);

/// A shared directory of its own, gone with all its jobs when the test ends.
pub struct Cluster {
    // First: processes go before the directory that they write to.
    sweeper: Sweeper,
    directory: tempfile::TempDir,
    notes: PathBuf,
    grace: Duration,
    settings: SlurmSettings,
}

impl Cluster {
    fn new() -> Self {
        Self::with_grace(GRACE)
    }

    fn with_grace(grace: Duration) -> Self {
        assert!(std::env::var_os("SLURM_CONF").is_some(), "these tests want tests/slurm/cluster.sh run");
        let directory = tempfile::tempdir().unwrap();
        let notes = directory.path().join("notes");
        fs::create_dir(&notes).unwrap();
        let shared = directory.path().join("shared");
        fs::create_dir(&shared).unwrap();
        let settings =
            SlurmSettings { shared_dir: shared.to_str().unwrap().to_owned(), ..SlurmSettings::default() };
        Self { sweeper: Sweeper::default(), directory, notes, grace, settings }
    }

    fn job_dir(&self, attempt: &Attempt) -> PathBuf {
        let runs = Path::new(&self.settings.shared_dir).join("runs");
        runs.join(attempt.run_id.to_string()).join(attempt.number.to_string()).join("job")
    }

    fn backend_that_looks_every(&self, interval: Duration) -> SlurmBackend {
        let settings = harness::settings("/nowhere".into(), self.grace);
        SlurmBackend::new(&self.settings, &settings, interval).unwrap()
    }

    /// A program that takes the place of one of Slurm's own.
    fn program(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Lab for Cluster {
    type Backend = SlurmBackend;

    fn backend(&self) -> SlurmBackend {
        self.backend_that_looks_every(Duration::from_millis(100))
    }

    fn notes(&self) -> &Path {
        &self.notes
    }

    fn attempt(&self, script: &str, arguments: &[&str]) -> Attempt {
        let mut attempt = harness::attempt(script, arguments);
        attempt.backend = compute_target::Backend {
            engine: Engine::Slurm(Box::new(self.settings.clone())),
            ..compute_target::Backend::process()
        };
        self.sweeper.watch(attempt.run_id);
        attempt
    }

    fn measures(&self) -> bool {
        false
    }
}

/// What one of Slurm's commands prints.
fn slurm(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The numbers of an attempt's jobs, whatever their state.
fn jobs(attempt: &Attempt) -> Vec<String> {
    let name = job_name(attempt.run_id, attempt.number);
    let text = slurm("squeue", &["--noheader", "--states=all", "--format=%i", "--name", &name]);
    text.lines().map(|line| line.trim().to_owned()).collect()
}

macro_rules! conforms {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test]
        #[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
        async fn $name() {
            conformance::$name(&Cluster::with_grace(Duration::from_secs(20))).await;
        }
    )*};
}

conformance::suite!(conforms);

/// A test on the cluster.
macro_rules! on_cluster {
    ($(async fn $name:ident() $body:block)*) => {$(
        #[tokio::test]
        #[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
        async fn $name() $body
    )*};
}

#[tokio::test]
#[ignore = "needs a Slurm cluster: tests/slurm/cluster.sh run"]
async fn who_ignores_term_is_killed_after_the_grace() {
    conformance::who_ignores_term_is_killed_after_the_grace(&Cluster::new(), GRACE).await;
}

on_cluster! {
    async fn a_job_that_waits_says_why_and_is_gone_at_once_when_canceled() {
        let mut cluster = Cluster::with_grace(Duration::from_secs(600));
        cluster.settings.partition = Some("main".into());
        let (backend, mut attempt) = (cluster.backend(), cluster.attempt("waits.py", &[&cluster.note("starts")]));
        // More nodes than there are.
        attempt.plan.node_count = 3;
        let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
        backend.ensure_submitted(&attempt, &environment).await.unwrap();
        let reason = until("the reason", async || match backend.observe(&attempt).await.unwrap() {
            Observation::Queued { reason } if reason.contains("PartitionNodeLimit") => Some(reason),
            Observation::Queued { .. } => None,
            other => panic!("{other:?}"),
        })
        .await;
        assert!(reason.contains(&jobs(&attempt)[0]), "{reason}");
        backend.cancel(&attempt).await.unwrap();
        let exit = ended(&backend, &attempt).await;
        assert_eq!((exit.reason, exit.started_at), (ExitReason::Canceled, None));
        assert!(!fs::exists(cluster.note("starts")).unwrap());
    }

    async fn what_slurm_refuses_is_refused_with_its_words() {
        let mut cluster = Cluster::new();
        cluster.settings.partition = Some("nowhere".into());
        let (backend, attempt) = (cluster.backend(), cluster.attempt("exits.py", &["0"]));
        let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
        let error = backend.ensure_submitted(&attempt, &environment).await.unwrap_err();
        assert!(matches!(&error, BackendError::Refused(said) if said.contains("nowhere")), "{error:?}");
        backend.cancel(&attempt).await.unwrap();
        ended(&backend, &attempt).await;
    }

    async fn a_submission_whose_answer_was_lost_is_found_by_its_name() {
        let mut cluster = Cluster::new();
        // It hands the job in, and the service never hears of it.
        let deaf = cluster.program("sbatch", "#!/bin/sh\nsbatch \"$@\" >&2\nexit 1\n");
        let settings = cluster.settings.clone();
        cluster.settings.commands = SlurmCommands { sbatch: Some(deaf), ..SlurmCommands::default() };
        let attempt = cluster.attempt("waits.py", &[&cluster.note("starts")]);
        let environment = cluster.backend().prepare(&attempt, &scripts()).await.unwrap();
        cluster.backend().ensure_submitted(&attempt, &environment).await.unwrap_err();
        cluster.settings = settings;
        let backend = cluster.backend();
        backend.ensure_submitted(&attempt, &environment).await.unwrap();
        fs::write(cluster.note("go"), "").unwrap();
        assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
        assert_eq!((jobs(&attempt).len(), noted_pids(&cluster.note("starts")).await.len()), (1, 1));
    }

    async fn two_jobs_of_one_attempt_run_its_script_once() {
        let mut cluster = Cluster::new();
        let twice = cluster.program("sbatch", "#!/bin/sh\nsbatch \"$@\" >/dev/null\nexec sbatch \"$@\"\n");
        cluster.settings.commands = SlurmCommands { sbatch: Some(twice), ..SlurmCommands::default() };
        let (backend, attempt) = (cluster.backend(), cluster.attempt("waits.py", &[&cluster.note("starts")]));
        start(&backend, &attempt).await;
        fs::write(cluster.note("go"), "").unwrap();
        let exit = ended(&backend, &attempt).await;
        assert_eq!((exit.reason, exit.exit_code), (ExitReason::Exited, Some(0)));
        assert_eq!((jobs(&attempt).len(), noted_pids(&cluster.note("starts")).await.len()), (2, 1));
    }

    async fn a_controller_that_answers_garbage_is_no_end_of_anything() {
        let mut cluster = Cluster::new();
        let attempt = cluster.attempt("waits.py", &[&cluster.note("starts")]);
        let sound = cluster.backend();
        start(&sound, &attempt).await;
        let programs = [
            "echo what?",
            "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
            "kill -9 $$",
        ];
        for program in programs {
            let squeue = cluster.program("squeue", &format!("#!/bin/sh\n{program}\n"));
            cluster.settings.commands = SlurmCommands { squeue: Some(squeue), ..SlurmCommands::default() };
            let error = cluster.backend().observe(&attempt).await.unwrap_err();
            assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        }
        cluster.settings.commands =
            SlurmCommands { squeue: Some("/nowhere/squeue".into()), ..SlurmCommands::default() };
        let error = cluster.backend().observe(&attempt).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/squeue"), "{error}");
        fs::write(cluster.note("go"), "").unwrap();
        assert_eq!(ended(&sound, &attempt).await.exit_code, Some(0));
    }

    async fn an_empty_queue_is_doubted() {
        let mut cluster = Cluster::new();
        let attempt = cluster.attempt("waits.py", &[&cluster.note("starts")]);
        let sound = cluster.backend();
        start(&sound, &attempt).await;
        let squeue = cluster.program("squeue", "#!/bin/sh\n");
        cluster.settings.commands = SlurmCommands { squeue: Some(squeue), ..SlurmCommands::default() };
        let seen = cluster.backend().observe(&attempt).await.unwrap();
        assert!(!seen.is_final(), "{seen:?}: the controller knows the job");
        fs::write(cluster.note("go"), "").unwrap();
        assert_eq!(ended(&sound, &attempt).await.exit_code, Some(0));
    }

    async fn what_the_controller_forgot_is_told_by_the_script() {
        let mut cluster = Cluster::new();
        let attempt = cluster.attempt("exits.py", &["3"]);
        start(&cluster.backend(), &attempt).await;
        until("the end", async || cluster.job_dir(&attempt).join("ended").exists().then_some(())).await;
        let forgotten = "#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n";
        cluster.settings.commands = SlurmCommands {
            squeue: Some(cluster.program("squeue", "#!/bin/sh\n")),
            scontrol: Some(cluster.program("scontrol", forgotten)),
            sacct: Some(cluster.program("sacct", "#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")),
            ..SlurmCommands::default()
        };
        fs::remove_file(cluster.job_dir(&attempt).join("outcome.json")).ok();
        let exit = ended(&cluster.backend(), &attempt).await;
        assert_eq!((exit.reason, exit.exit_code), (ExitReason::Exited, Some(3)));
    }

    async fn who_cancels_on_the_cluster_is_told_from_the_service() {
        let cluster = Cluster::new();
        let (backend, attempt) = (cluster.backend(), cluster.attempt("waits.py", &[&cluster.note("starts")]));
        start(&backend, &attempt).await;
        slurm("scancel", &[&jobs(&attempt)[0]]);
        let exit = ended(&backend, &attempt).await;
        assert_eq!(exit.reason, ExitReason::CanceledElsewhere);
        let remark = exit.remark.unwrap();
        assert!(remark.contains("not through this service"), "{remark}");
        let has_accounting = std::env::var("ESTIMATORD_TEST_SLURM_ACCOUNTING").is_ok_and(|on| on == "1");
        let who = if has_accounting { "by user " } else { "by somebody," };
        assert!(remark.contains(who), "{remark}");
    }

    async fn a_job_that_makes_room_for_another_is_preempted() {
        let mut cluster = Cluster::new();
        cluster.settings.partition = Some("second".into());
        let (backend, attempt) = (cluster.backend(), cluster.attempt("waits.py", &[&cluster.note("starts")]));
        start(&backend, &attempt).await;
        let urgent = slurm("sbatch", &["--parsable", "--partition=first", "--exclusive", "--output=/dev/null", "--wrap=true"]);
        let seen = until("the end of the first", async || {
            let seen = backend.observe(&attempt).await.unwrap();
            seen.is_final().then_some(seen)
        })
        .await;
        assert!(matches!(seen, Observation::Preempted { .. }), "{seen:?}");
        slurm("scancel", &[urgent.trim()]);
    }

    async fn nothing_secret_of_the_service_reaches_the_job() {
        let cluster = Cluster::new();
        let (backend, attempt) = (cluster.backend(), cluster.attempt("shows.py", &[]));
        start(&backend, &attempt).await;
        ended(&backend, &attempt).await;
        let outputs = backend.output_files(&attempt).await.unwrap();
        let seen: serde_json::Value = serde_json::from_str(&content(&outputs, "seen.json")).unwrap();
        let names: Vec<&String> = seen["environment"].as_object().unwrap().keys().collect();
        for name in names {
            let known = ["SLURM", "ESTIMATORD_", "AZUREML_", "PYTHON", "OMPI_", "LC_"].iter().any(|prefix| name.starts_with(prefix));
            let ordinary = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "PWD", "OLDPWD", "SHLVL", "_", "TMPDIR",
                "HOSTNAME", "ENVIRONMENT", "SOURCE_DIRECTORY", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"];
            let proxy = name.to_ascii_lowercase().ends_with("_proxy") || name.starts_with("SSL_CERT") || name == "REQUESTS_CA_BUNDLE";
            assert!(known || ordinary.contains(&name.as_str()) || proxy, "{name} should not be there");
        }
    }

    async fn a_shared_directory_that_is_not_there_is_not_made() {
        let mut cluster = Cluster::new();
        cluster.settings.shared_dir = cluster.note("not-mounted");
        let (backend, attempt) = (cluster.backend(), cluster.attempt("exits.py", &["0"]));
        let error = backend.prepare(&attempt, &scripts()).await.unwrap_err();
        assert!(error.to_string().contains("not-mounted"), "{error}");
        assert!(!fs::exists(cluster.note("not-mounted")).unwrap());
        let found = backend.reach(&attempt.backend).await;
        assert!(found.as_ref().unwrap_err().contains("shared_dir"), "{found:?}");
    }
    async fn one_look_at_the_queue_is_enough_for_all_jobs() {
        let number = std::env::var("ESTIMATORD_TEST_JOBS").map_or(60, |text| text.parse().unwrap());
        let mut cluster = Cluster::new();
        let calls = cluster.note("calls");
        let counting = format!("#!/bin/sh\necho >>{calls}\nexec squeue \"$@\"\n");
        let squeue = cluster.program("squeue", &counting);
        cluster.settings.commands = SlurmCommands { squeue: Some(squeue), ..SlurmCommands::default() };
        let backend = Arc::new(cluster.backend_that_looks_every(Duration::from_secs(600)));
        let mut attempts = Vec::new();
        for _ in 0..number {
            let mut attempt = cluster.attempt("exits.py", &["0"]);
            // More nodes than there are: it waits.
            attempt.plan.node_count = 3;
            attempts.push(attempt);
        }
        let environment = backend.prepare(&attempts[0], &scripts()).await.unwrap();
        for some in attempts.chunks(16) {
            let handed = some.iter().map(|attempt| {
                let (backend, attempt, environment) = (Arc::clone(&backend), attempt.clone(), environment.clone());
                tokio::spawn(async move {
                    backend.prepare(&attempt, &scripts()).await.unwrap();
                    backend.ensure_submitted(&attempt, &environment).await.unwrap();
                })
            });
            for task in handed.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        }
        assert!(!fs::exists(&calls).unwrap(), "a job that nobody handed in before is looked for");
        for _ in 0..3 {
            for attempt in &attempts {
                let seen = backend.observe(attempt).await.unwrap();
                assert!(matches!(seen, Observation::Queued { .. }), "{seen:?}");
            }
        }
        let mut late = cluster.attempt("exits.py", &["0"]);
        late.plan.node_count = 3;
        backend.prepare(&late, &scripts()).await.unwrap();
        backend.ensure_submitted(&late, &environment).await.unwrap();
        let seen = backend.observe(&late).await.unwrap();
        assert!(matches!(seen, Observation::Starting), "the look is older than the job: {seen:?}");
        attempts.push(late);
        assert_eq!(fs::read(&calls).unwrap().len(), 1, "calls of squeue for {number} jobs");
        let all: Vec<String> = attempts.iter().flat_map(|attempt| {
            let submission = fs::read(cluster.job_dir(attempt).join("submission.json")).unwrap();
            let submission: serde_json::Value = serde_json::from_slice(&submission).unwrap();
            submission["job"].as_u64().map(|id| id.to_string())
        }).collect();
        assert_eq!(all.len(), attempts.len());
        for some in all.chunks(200) {
            slurm("scancel", &some.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

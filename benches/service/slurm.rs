//! Runs that become jobs of a real Slurm cluster, beside `sbatch` in a shell loop.
//!
//! The partition is down all the while: jobs are taken and stay in the queue, so that neither side waits for nodes, and what jobs
//! would do takes no time of either. The controller's own log says when it took each job.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use chrono::NaiveDateTime;
use hyper::StatusCode;
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    context::Context,
    database::Database,
    figure::{Figure, Goal, Outcome},
    http::Call,
    latencies::median,
    scripted::PYTHON,
    service::Service,
};

/// What the row is called.
pub const NAME: &str = "slurm";

/// The hidden command that measures within a cluster: [`on_cluster`].
pub const ON_CLUSTER: &str = "--slurm-on-cluster";

/// How long either may take for all of its jobs.
const PATIENCE: Duration = Duration::from_secs(600);

/// As many as one request takes.
const ACCEPTED_TOGETHER: usize = 100;

/// Jobs that the controller took in a second.
#[derive(Debug, Serialize, Deserialize)]
struct Rates {
    ours: f64,
    sbatch: f64,
}

/// Starts a cluster, and measures in it. The short form does so only where Slurm is installed.
///
/// # Errors
/// When the cluster does not start, or anything else that is needed fails.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    if !Uid::effective().is_root() {
        return Ok(vec![left_out("only root can start a cluster")]);
    }
    if context.short && !["sbatch", "slurmctld", "munged"].into_iter().all(is_installed) {
        return Ok(vec![left_out("Slurm is not installed")]);
    }
    let jobs: u32 = if context.short { 20 } else { 1000 };
    let mut cluster = Command::new(context.repository.join("tests/slurm/cluster.sh"));
    cluster.arg("run").arg(std::env::current_exe()?).arg(ON_CLUSTER).arg(jobs.to_string());
    cluster.args([&context.directory, &context.estimatord, &context.repository]);
    let output = cluster.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the measurement in the cluster failed");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().next_back().unwrap_or_default();
    let Rates { ours, sbatch } = serde_json::from_str(last).with_context(|| format!("it said {said}"))?;
    Ok(vec![Figure {
        what: format!("{jobs} runs submitted to Slurm, from the first to the last job in its queue"),
        ours: format!("{ours:.1} jobs/s"),
        peer: format!("`sbatch` in a shell loop: {sbatch:.1} jobs/s"),
        outcomes: vec![Outcome {
            of: "rate",
            value: ours / sbatch,
            unit: "×",
            goal: Goal::AtLeast(0.9),
            floor: Some(Goal::AtLeast(0.1)),
        }],
    }])
}

fn left_out(why: &str) -> Figure {
    Figure {
        what: "runs submitted to Slurm".to_owned(),
        ours: format!("not measured: {why}"),
        peer: "`sbatch` in a shell loop".to_owned(),
        outcomes: Vec::new(),
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}

/// Measures in the cluster that the environment names, and prints the rates: the other process of this measurement. Its arguments
/// are the number of jobs, and the directories and the file of the context.
///
/// # Errors
/// When anything that is needed fails.
pub fn on_cluster(arguments: &[String]) -> anyhow::Result<()> {
    let [jobs, directory, estimatord, repository] = arguments else { bail!("four arguments are wanted") };
    let jobs: u32 = jobs.parse()?;
    let context = Context {
        short: false,
        directory: directory.into(),
        estimatord: estimatord.into(),
        repository: repository.into(),
    };
    run("scontrol", &["update", "PartitionName=main", "State=DOWN"])?;
    let database = Database::start(&context)?;
    let controller = Controller::of_this_cluster()?;
    let (mut ours, mut sbatch) = (Vec::new(), Vec::new());
    for round in 0..3 {
        sbatch.push(controller.rate(jobs, || shell_loop(&context.directory, jobs))?);
        run("scancel", &["--partition=main", "--state=PENDING"])?;
        let stage = Stage::start(&context, &database, round)?;
        ours.push(controller.rate(jobs, || stage.submit(jobs))?);
        // Before its jobs go, so that it has nothing to say to that.
        drop(stage);
        run("scancel", &["--partition=main", "--state=PENDING"])?;
    }
    let rates = Rates { ours: median(&ours), sbatch: median(&sbatch) };
    println!("{}", serde_json::to_string(&rates)?);
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).status().with_context(|| program.to_owned())?;
    ensure!(status.success(), "{program} failed");
    Ok(())
}

/// Submits with the options that the service gives its jobs.
fn shell_loop(directory: &Path, jobs: u32) -> anyhow::Result<()> {
    let script = directory.join("job.sh");
    fs::write(&script, format!("#!/bin/sh\nexec {PYTHON} -c ''\n"))?;
    let submit = r#"n=0
        while [ $n -lt "$1" ]; do
            sbatch --parsable --job-name "by-hand-$n" --partition main --nodes 1 --ntasks-per-node 1 --no-requeue --output /dev/null "$2"
            n=$((n + 1))
        done"#;
    let mut shell = Command::new("sh");
    shell.args(["-ec", submit, "sh", &jobs.to_string()]).arg(&script).stdout(Stdio::null());
    ensure!(shell.status()?.success(), "sbatch failed");
    Ok(())
}

/// A service with a target on the cluster.
struct Stage {
    service: Service,
    snapshot: String,
}

impl Stage {
    fn start(context: &Context, database: &Database, round: u32) -> anyhow::Result<Self> {
        let name = format!("{NAME}_{round}");
        let shared = context.directory.join(format!("shared-{round}"));
        fs::create_dir_all(&shared)?;
        database.create(&name)?;
        let backend = json!({"kind": "slurm", "shared_dir": shared, "partition": "main", "max_concurrent_runs": 2000,
            "python": PYTHON});
        let target = format!(
            "INSERT INTO compute_targets (name, type, backend, max_nodes, gpus_per_node, created_at, updated_at)
             VALUES ('cluster', 'AmlCompute', '{backend}', 2, 0, now(), now())"
        );
        database.execute(&name, &target)?;
        let service = Service::start(context, &name, &database.url(&name), &["--worker-slots", "2000"])?;
        let snapshot = service.upload("train.py", b"pass\n")?;
        Ok(Self { service, snapshot })
    }

    /// Has so many runs accepted, as whoever has many hands them in: by the hundred.
    fn submit(&self, runs: u32) -> anyhow::Result<()> {
        let definition = json!({"source_directory": self.snapshot, "compute_target": "cluster",
            "entry_script": "train.py", "user_managed": true, "use_docker": false});
        let run = json!({"experiment_name": "bench", "estimator": definition});
        let mut left = runs as usize;
        while left > 0 {
            let together = left.min(ACCEPTED_TOGETHER);
            let body = json!({"runs": vec![&run; together]});
            let answer = self.service.ask_json(&Call::post("/v1/runs/batch", &body, StatusCode::OK)?)?;
            let items = answer["items"].as_array().context("a batch has items")?;
            let refused = items.iter().find(|item| item["status"] != 201);
            ensure!(items.len() == together && refused.is_none(), "not all were accepted: {answer:#}");
            left -= together;
        }
        Ok(())
    }
}

/// What the controller of the cluster logs.
struct Controller {
    log: PathBuf,
}

impl Controller {
    fn of_this_cluster() -> anyhow::Result<Self> {
        let cluster = std::env::var_os("ESTIMATORD_TEST_SLURM").context("no cluster is named")?;
        Ok(Self { log: PathBuf::from(cluster).join("log/slurmctld.log") })
    }

    /// When it took jobs, of all that it ever took.
    fn taken(&self) -> anyhow::Result<Vec<NaiveDateTime>> {
        let log = fs::read_to_string(&self.log)?;
        let lines = log.lines().filter(|line| line.contains("_slurm_rpc_submit_batch_job: JobId="));
        let time = |line: &str| {
            let (time, _) = line.strip_prefix('[')?.split_once(']')?;
            NaiveDateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%S%.f").ok()
        };
        lines.map(|line| time(line).with_context(|| format!("no time in {line}"))).collect()
    }

    /// How many jobs it takes in a second, from the first to the last of those that are submitted.
    fn rate(&self, jobs: u32, submit: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let before = self.taken()?.len();
        submit()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.taken()?.split_off(before);
            if taken.len() >= jobs as usize {
                let took = *taken.iter().max().context("none")? - *taken.iter().min().context("none")?;
                return Ok(f64::from(jobs - 1) / took.as_seconds_f64().max(1e-3));
            }
            ensure!(Instant::now() < deadline, "only {} of {jobs} jobs are in the queue", taken.len());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

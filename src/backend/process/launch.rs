//! From a plan to a command line and an environment: pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    super::Attempt,
    layout::{MPIRUN_LOG, STD_LOG},
    rank,
    records::Launch,
};
use crate::domain::plan::Launcher;

/// Variables of the service that a script is given. Everything else of the service's environment stays with it:
/// the database address and the tokens are in there.
const INHERITED: [&str; 18] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "CUDA_VISIBLE_DEVICES",
];
/// Where programs are looked for when the service itself was told nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a script leaves behind is not waited for as long as the script itself.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(5);

/// Whether a variable of the service may be passed on to what users run.
pub(super) fn is_inherited(name: &str) -> bool {
    INHERITED.contains(&name) || name.starts_with("LC_")
}

/// Which MPI a `mpirun` belongs to: they differ in their options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MpiFlavor {
    /// Open MPI, 4 or 5.
    OpenMpi,
    /// MPICH and its relatives (Hydra).
    Other,
}

impl MpiFlavor {
    /// Told from what `mpirun --version` prints.
    pub(super) fn of(version: &str) -> Self {
        if version.contains("Open MPI") || version.contains("OpenRTE") { Self::OpenMpi } else { Self::Other }
    }
}

/// What the machine contributes.
#[derive(Clone, Debug)]
pub(super) struct Machine<'a> {
    /// Our own executable.
    pub(super) own_binary: &'a Path,
    /// The interpreter, absolute.
    pub(super) interpreter: &'a Path,
    /// The virtual environment it belongs to, if the service built one.
    pub(super) virtual_environment: Option<&'a Path>,
    /// `mpirun` and its kind; needed for [`Launcher::Mpi`] only.
    pub(super) mpirun: Option<(&'a Path, MpiFlavor)>,
    /// The service's own environment.
    pub(super) service_environment: &'a [(String, String)],
    /// The attempt's working directory.
    pub(super) work: &'a Path,
    /// The attempt's logs.
    pub(super) logs: &'a Path,
    /// Where short-lived directories with short names can be made.
    pub(super) temporary_base: &'a Path,
    /// Between TERM and KILL.
    pub(super) cancel_grace: Duration,
}

/// The entry of the environment by which every process of an attempt can be told from others.
pub(super) fn mark(attempt: &Attempt) -> String {
    format!("ESTIMATORD_ATTEMPT={}.{}", attempt.run_id, attempt.number)
}

/// Sockets live in there, whose addresses hold about 100 bytes: the name is short. The end of a run id is random.
pub(super) fn temporary_directory(base: &Path, attempt: &Attempt) -> PathBuf {
    let id = attempt.run_id.as_uuid().simple().to_string();
    base.join(format!("estd-{}-{}", &id[16..], attempt.number))
}

/// What the supervisor is to start.
pub(super) fn launch(attempt: &Attempt, machine: &Machine<'_>) -> Result<Launch, &'static str> {
    let plan = &attempt.plan;
    let (program, arguments, log, temporary_directory) = match plan.launcher {
        Launcher::Single => {
            let arguments = script(attempt);
            (machine.interpreter.to_owned(), arguments, machine.logs.join(STD_LOG), None)
        }
        Launcher::Mpi => {
            let (mpirun, flavor) = machine.mpirun.ok_or("MPI needs mpirun")?;
            let temporary = temporary_directory(machine.temporary_base, attempt);
            let arguments = mpirun_arguments(attempt, machine, flavor);
            (mpirun.to_owned(), arguments, machine.logs.join(MPIRUN_LOG), Some(temporary))
        }
    };
    Ok(Launch {
        program,
        arguments,
        environment: environment(attempt, machine, temporary_directory.as_deref()),
        working_directory: machine.work.to_owned(),
        log,
        temporary_directory,
        max_run_duration_seconds: plan.max_run_duration_seconds,
        cancel_grace_ms: milliseconds(machine.cancel_grace),
        leftovers_grace_ms: milliseconds(machine.cancel_grace.min(LEFTOVERS_GRACE)),
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The script and its arguments, as the interpreter gets them.
fn script(attempt: &Attempt) -> Vec<String> {
    std::iter::once(attempt.plan.entry_script_word()).chain(attempt.plan.arguments.iter().cloned()).collect()
}

fn mpirun_arguments(attempt: &Attempt, machine: &Machine<'_>, flavor: MpiFlavor) -> Vec<String> {
    let ranks = attempt.plan.process_count().to_string();
    let mut arguments = vec!["-n".to_owned(), ranks.clone()];
    if flavor == MpiFlavor::OpenMpi {
        // More ranks than cores, and none of them tied to one: several runs share this machine.
        arguments.extend(["--oversubscribe", "--bind-to", "none"].map(str::to_owned));
    }
    let user_logs = machine.logs.join("user_logs");
    arguments.extend([text(machine.own_binary), "rank".to_owned(), "--log-dir".to_owned(), text(&user_logs)]);
    arguments.extend(["--ranks".to_owned(), ranks, "--".to_owned(), text(machine.interpreter)]);
    // Through mpi4py, so that a rank that raises takes the others with it; they would wait for it for ever.
    arguments.extend(["-m", "mpi4py"].map(str::to_owned));
    // Open MPI takes an argument `:` for the beginning of another program, wherever it stands, so none may be bare.
    arguments.extend(script(attempt).iter().map(|argument| rank::guarded(argument)));
    arguments
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn environment(
    attempt: &Attempt,
    machine: &Machine<'_>,
    temporary_directory: Option<&Path>,
) -> Vec<(String, String)> {
    let mut environment: BTreeMap<String, String> =
        machine.service_environment.iter().filter(|(name, _)| is_inherited(name)).cloned().collect();
    let path = environment.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    if let Some(root) = machine.virtual_environment {
        *path = format!("{}:{path}", root.join("bin").display());
        environment.insert("VIRTUAL_ENV".to_owned(), text(root));
    }
    let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
    // Logs must be readable while the script runs.
    set("PYTHONUNBUFFERED", "1".to_owned());
    if let Some(directory) = temporary_directory {
        set("TMPDIR", text(directory));
        set("OMPI_ALLOW_RUN_AS_ROOT", "1".to_owned());
        set("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1".to_owned());
        // Ranks that spin while they wait starve those they wait for.
        set("OMPI_MCA_mpi_yield_when_idle", "1".to_owned());
    }
    for variable in &attempt.plan.environment.environment_variables {
        set(&variable.name, variable.value.clone());
    }
    // Last: by these the attempt is known.
    set("AZUREML_RUN_ID", attempt.run_id.to_string());
    set("AZUREML_ARM_PROJECT_NAME", attempt.experiment_name.clone());
    set("ESTIMATORD_ATTEMPT", format!("{}.{}", attempt.run_id, attempt.number));
    environment.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::process::fixtures, domain::environment::Variable};

    fn machine(service_environment: &[(String, String)]) -> Machine<'_> {
        Machine {
            own_binary: Path::new("/opt/estimatord"),
            interpreter: Path::new("/env/bin/python"),
            virtual_environment: Some(Path::new("/env")),
            mpirun: Some((Path::new("/env/bin/mpirun"), MpiFlavor::OpenMpi)),
            service_environment,
            work: Path::new("/a/work"),
            logs: Path::new("/a/logs"),
            temporary_base: Path::new("/tmp"),
            cancel_grace: Duration::from_secs(30),
        }
    }

    fn variable<'a>(launch: &'a Launch, name: &str) -> Option<&'a str> {
        launch.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn one_process_is_the_interpreter_with_the_script_and_its_arguments_verbatim() {
        let mut attempt = fixtures::attempt();
        attempt.plan.arguments = vec!["--x".into(), "a b".into(), "\"q\" $HOME\n".into(), String::new()];
        let launch = launch(&attempt, &machine(&[])).unwrap();
        assert_eq!(launch.program, Path::new("/env/bin/python"));
        assert_eq!(launch.arguments, ["train.py", "--x", "a b", "\"q\" $HOME\n", ""]);
        assert_eq!(launch.log, Path::new("/a/logs/user_logs/std_log.txt"));
        assert_eq!(launch.temporary_directory, None);
    }

    #[test]
    fn a_script_named_like_an_option_is_still_a_script() {
        let mut attempt = fixtures::attempt();
        attempt.plan.entry_script = "-c".into();
        assert_eq!(launch(&attempt, &machine(&[])).unwrap().arguments, ["./-c"]);
    }

    #[test]
    fn mpi_is_one_mpirun_over_all_ranks() {
        let mut attempt = fixtures::attempt();
        attempt.plan.launcher = Launcher::Mpi;
        attempt.plan.node_count = 2;
        attempt.plan.process_count_per_node = 3;
        attempt.plan.arguments = vec!["--epochs".into(), "5".into(), ":".into()];
        let launch = launch(&attempt, &machine(&[])).unwrap();
        assert_eq!(launch.program, Path::new("/env/bin/mpirun"));
        let expected = "-n 6 --oversubscribe --bind-to none /opt/estimatord rank --log-dir /a/logs/user_logs \
            --ranks 6 -- /env/bin/python -m mpi4py =train.py =--epochs =5 =:";
        assert_eq!(launch.arguments.join(" "), expected);
        assert_eq!(launch.log, Path::new("/a/logs/azureml-logs/70_mpirun_log.txt"));
        assert_eq!(variable(&launch, "OMPI_ALLOW_RUN_AS_ROOT"), Some("1"));
        let temporary = launch.temporary_directory.clone().unwrap();
        assert_eq!(variable(&launch, "TMPDIR"), temporary.to_str());
        assert!(temporary.as_os_str().len() < 40, "{}", temporary.display());
    }

    #[test]
    fn other_kinds_of_mpi_get_no_options_of_open_mpi() {
        let mut attempt = fixtures::attempt();
        attempt.plan.launcher = Launcher::Mpi;
        let mut machine = machine(&[]);
        machine.mpirun = Some((Path::new("/usr/bin/mpirun"), MpiFlavor::of("HYDRA build details:")));
        assert!(!launch(&attempt, &machine).unwrap().arguments.contains(&"--oversubscribe".to_owned()));
        assert_eq!(MpiFlavor::of("mpirun (Open MPI) 5.0.11"), MpiFlavor::OpenMpi);
    }

    #[test]
    fn mpi_without_mpirun_is_refused() {
        let mut attempt = fixtures::attempt();
        attempt.plan.launcher = Launcher::Mpi;
        assert!(launch(&attempt, &Machine { mpirun: None, ..machine(&[]) }).is_err());
    }

    #[test]
    fn nothing_secret_of_the_service_is_passed_on() {
        let service: Vec<(String, String)> = [
            ("DATABASE_URL", "postgres://secret"),
            ("ESTIMATORD_TOKEN", "secret"),
            ("PATH", "/usr/bin"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("LC_ALL", "C.UTF-8"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("VIRTUAL_ENV", "/elsewhere"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let launch = launch(&fixtures::attempt(), &machine(&service)).unwrap();
        assert!(launch.environment.iter().all(|(_, value)| !value.contains("secret")));
        assert_eq!(variable(&launch, "PYTHONDONTWRITEBYTECODE"), None);
        assert_eq!(variable(&launch, "PATH"), Some("/env/bin:/usr/bin"));
        assert_eq!(variable(&launch, "VIRTUAL_ENV"), Some("/env"));
        assert_eq!(variable(&launch, "LC_ALL"), Some("C.UTF-8"));
        assert_eq!(variable(&launch, "AZUREML_ARM_PROJECT_NAME"), Some("digits"));
    }

    #[test]
    fn variables_of_the_definition_win_but_not_over_the_run_s_identity() {
        let mut attempt = fixtures::attempt();
        attempt.plan.environment.environment_variables = vec![
            Variable { name: "PYTHONUNBUFFERED".into(), value: "0".into() },
            Variable { name: "ESTIMATORD_ATTEMPT".into(), value: "x".into() },
        ];
        let launch = launch(&attempt, &machine(&[])).unwrap();
        assert_eq!(variable(&launch, "PYTHONUNBUFFERED"), Some("0"));
        let entry = format!("ESTIMATORD_ATTEMPT={}", variable(&launch, "ESTIMATORD_ATTEMPT").unwrap());
        assert_eq!(entry, mark(&attempt));
    }

    #[test]
    fn what_is_left_behind_gets_five_seconds_at_most() {
        let launch = launch(&fixtures::attempt(), &machine(&[])).unwrap();
        assert_eq!((launch.cancel_grace_ms, launch.leftovers_grace_ms), (30_000, 5_000));
    }
}

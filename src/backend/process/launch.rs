//! From a plan to a command line and an environment: pure.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    super::Attempt,
    confinement::Confinement,
    container::{self, ContainerControl, Engine},
    layout::{MPIRUN_LOG, STD_LOG},
    rank,
    records::Launch,
    script_environment::{environment, mark_of},
};
use crate::domain::{
    container::{Container, Mount, Script, launch_script, rank_script, run_arguments},
    plan::{InputMode, Launcher},
    staging::{self, Area},
};

/// What a script leaves behind is not waited for as long as the script itself.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(5);

/// The script that gives a rank its log, where our own binary cannot be run.
const RANK_SCRIPT: &str = "rank.sh";

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
    /// Whether that is one of conda.
    pub(super) is_conda: bool,
    /// `mpirun` and its kind; needed for [`Launcher::Mpi`] only.
    pub(super) mpirun: Option<(&'a Path, MpiFlavor)>,
    /// The service's own environment.
    pub(super) service_environment: &'a [(String, String)],
    /// The attempt's working directory.
    pub(super) work: &'a Path,
    /// The attempt's logs.
    pub(super) logs: &'a Path,
    /// Where its processes record metrics and the like.
    pub(super) records: &'a Path,
    /// Where its data is staged.
    pub(super) data: &'a Path,
    /// Which of it are links, and what they lead to.
    pub(super) data_links: &'a [(String, String)],
    /// The directory that puts our `azureml` module on the path of Python.
    pub(super) python_site: &'a Path,
    /// Where short-lived directories with short names can be made.
    pub(super) temporary_base: &'a Path,
    /// Between TERM and KILL.
    pub(super) cancel_grace: Duration,
    /// What the script is kept within.
    pub(super) confinement: Confinement,
    /// Its home and its place for temporary files, where it has them of its own.
    pub(super) own_places: Option<OwnPlaces<'a>>,
    /// The container that it all happens in, where there is one.
    pub(super) container: Option<Place<'a>>,
    /// Which boot of the machine it is.
    pub(super) boot: &'a str,
}

/// Directories of an attempt that stand for those of a user.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnPlaces<'a> {
    /// For `HOME`.
    pub(super) home: &'a Path,
    /// For `TMPDIR`.
    pub(super) temporary: &'a Path,
}

/// The container of an attempt.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    /// What starts it.
    pub(super) engine: &'a Engine,
    /// The image's id.
    pub(super) image: &'a str,
    /// Where scripts for it lie and where it writes how it went.
    pub(super) records: &'a Path,
    /// User and group of its processes, where they are not the image's own.
    pub(super) user: Option<(u32, u32)>,
    /// What it sees of the machine besides working directory, logs and records.
    pub(super) mounts: Vec<Mount>,
}

/// What is started, and the files that it needs.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// For the supervisor.
    pub(super) launch: Launch,
    /// Written before the start: path and content.
    pub(super) files: Vec<(PathBuf, String)>,
}

/// Sockets live in there, whose addresses hold about 100 bytes: the name is short. The end of a run id is random.
pub(super) fn temporary_directory(base: &Path, attempt: &Attempt) -> PathBuf {
    let id = attempt.run_id.as_uuid().simple().to_string();
    base.join(format!("estd-{}-{}", &id[16..], attempt.number))
}

/// What the supervisor is to start.
pub(super) fn launch(attempt: &Attempt, machine: &Machine<'_>) -> Result<Planned, &'static str> {
    let plan = &attempt.plan;
    let (program, arguments, log) = match plan.launcher {
        Launcher::Single => (text(machine.interpreter), script(attempt, machine), STD_LOG),
        Launcher::Mpi => {
            let (program, options) = mpirun(machine)?;
            (program, mpirun_arguments(attempt, machine, options), MPIRUN_LOG)
        }
    };
    let in_container = machine.container.is_some();
    // A container has a temporary directory of its own.
    let temporary_directory = (plan.launcher == Launcher::Mpi && !in_container)
        .then(|| temporary_directory(machine.temporary_base, attempt));
    let mut confinement = machine.confinement.clone();
    if let (Some(places), Some(temporary)) = (&mut confinement.places, &temporary_directory) {
        places.write.push(temporary.clone());
    }
    let bare = Launch {
        program: PathBuf::from(program),
        arguments,
        environment: environment(attempt, machine, temporary_directory.as_deref()),
        working_directory: machine.work.to_owned(),
        log: machine.logs.join(log),
        temporary_directory,
        max_run_duration_seconds: plan.max_run_duration_seconds,
        cancel_grace_ms: milliseconds(machine.cancel_grace),
        container: None,
        confinement,
        leftovers_grace_ms: milliseconds(machine.cancel_grace.min(LEFTOVERS_GRACE)),
        boot_id: Some(machine.boot.to_owned()),
    };
    Ok(match &machine.container {
        Some(place) => contained(attempt, machine, place, bare),
        None => Planned { launch: bare, files: Vec::new() },
    })
}

/// The same in a container: the script that is started in it holds variables and arguments.
fn contained(attempt: &Attempt, machine: &Machine<'_>, place: &Place<'_>, bare: Launch) -> Planned {
    let environment = &attempt.plan.environment;
    let (records, launch_path) = (text(place.records), place.records.join("launch.sh"));
    let command: Vec<String> = std::iter::once(text(&bare.program)).chain(bare.arguments).collect();
    let mut in_front = vec![("PYTHONPATH", text(machine.python_site))];
    in_front.extend(machine.virtual_environment.map(|root| ("PATH", text(&root.join("bin")))));
    let content = launch_script(&Script {
        variables: &bare.environment,
        in_front: &in_front,
        records: &records,
        log: &text(&bare.log),
        command: &command,
    });
    let mut mounts = vec![
        Mount::same(text(machine.work), false),
        Mount::same(text(machine.logs), false),
        Mount::same(records, false),
        Mount::same(text(machine.records), false),
    ];
    mounts.extend(machine.python_site.parent().map(|root| Mount::same(text(root), true)));
    mounts.extend(data_mounts(attempt, machine));
    mounts.extend(place.mounts.iter().cloned());
    let name = container::name(attempt);
    let arguments = run_arguments(&Container {
        runtime: place.engine.runtime,
        name: &name,
        label: &format!("estimatord.attempt={}.{}", attempt.run_id, attempt.number),
        image: place.image,
        shm_size: environment.shm_size.as_deref(),
        gpus: attempt.plan.use_gpu,
        user: place.user,
        working_directory: &text(machine.work),
        mounts: &mounts,
        arguments: &environment.container.arguments,
        command: &["/bin/sh", &text(&launch_path)],
    });
    let mut engine_environment = place.engine.environment.clone();
    let (variable, value) = mark_of(attempt);
    engine_environment.push((variable.to_owned(), value));
    let mut files = vec![(launch_path, content)];
    if attempt.plan.launcher == Launcher::Mpi {
        files.push((place.records.join(RANK_SCRIPT), rank_script().to_owned()));
    }
    let launch = Launch {
        program: place.engine.program.clone(),
        arguments,
        environment: engine_environment.clone(),
        container: Some(ContainerControl {
            program: place.engine.program.clone(),
            environment: engine_environment,
            name,
            records: place.records.to_owned(),
        }),
        ..bare
    };
    Planned { launch, files }
}

/// `mpirun`, and the options by which more ranks than cores may run.
fn mpirun(machine: &Machine<'_>) -> Result<(String, &'static [&'static str]), &'static str> {
    if machine.container.is_some() {
        // Which one there is only the container knows: variables say the same to each kind.
        return Ok(("mpirun".to_owned(), &[]));
    }
    let (mpirun, flavor) = machine.mpirun.ok_or("MPI needs mpirun")?;
    let options: &[&str] = match flavor {
        // More ranks than cores, and none of them tied to one: several runs share this machine.
        MpiFlavor::OpenMpi => &["--oversubscribe", "--bind-to", "none"],
        MpiFlavor::Other => &[],
    };
    Ok((text(mpirun), options))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The script and its arguments, as the interpreter gets them.
fn script(attempt: &Attempt, machine: &Machine<'_>) -> Vec<String> {
    let arguments = with_area(machine, |area| staging::arguments(&attempt.plan, area));
    std::iter::once(attempt.plan.entry_script_word()).chain(arguments).collect()
}

/// Asks something about the places of data.
pub(super) fn with_area<T>(machine: &Machine<'_>, ask: impl FnOnce(&Area<'_>) -> T) -> T {
    let (data, work) = (text(machine.data), text(machine.work));
    ask(&Area { data: &data, work: &work, in_container: machine.container.is_some() })
}

/// What a container sees of data: its directory, and each input where the definition wants it.
fn data_mounts(attempt: &Attempt, machine: &Machine<'_>) -> Vec<Mount> {
    let inputs = &attempt.plan.data.inputs;
    let mut mounts = vec![Mount::same(text(machine.data), false)];
    for input in inputs {
        let writes = input.mode == InputMode::Upload;
        let place = with_area(machine, |area| area.path(&staging::staged_place(input)));
        // What a link leads to must be there as well.
        let real = machine.data_links.iter().find(|(link, _)| *link == place).map(|(_, real)| real.clone());
        mounts.extend(real.clone().map(|real| Mount::same(real, true)));
        if let Some(target) = staging::wanted_in_container(input) {
            let source = real.unwrap_or(place);
            mounts.push(Mount { source, target: target.to_owned(), read_only: !writes });
        }
    }
    mounts
}

fn mpirun_arguments(attempt: &Attempt, machine: &Machine<'_>, options: &[&str]) -> Vec<String> {
    let ranks = attempt.plan.process_count().to_string();
    let mut arguments = vec!["-n".to_owned(), ranks.clone()];
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    let user_logs = text(&machine.logs.join("user_logs"));
    match &machine.container {
        Some(place) => {
            let script = text(&place.records.join(RANK_SCRIPT));
            arguments.extend(["/bin/sh".to_owned(), script, user_logs, ranks]);
        }
        None => {
            arguments.extend([
                text(machine.own_binary),
                "rank".to_owned(),
                "--log-dir".to_owned(),
                user_logs,
            ]);
            arguments.extend(["--ranks".to_owned(), ranks, "--".to_owned()]);
        }
    }
    arguments.push(text(machine.interpreter));
    // Through mpi4py, so that a rank that raises takes the others with it; they would wait for it for ever.
    arguments.extend(["-m", "mpi4py"].map(str::to_owned));
    // Open MPI takes an argument `:` for the beginning of another program, wherever it stands, so none may be bare.
    arguments.extend(script(attempt, machine).iter().map(|argument| rank::guarded(argument)));
    arguments
}

/// A path as the text that it is in a command line.
pub(in crate::backend) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::process::{fixtures, script_environment::mark},
        domain::environment::Variable,
    };

    fn machine(service_environment: &[(String, String)]) -> Machine<'_> {
        Machine {
            own_binary: Path::new("/opt/estimatord"),
            interpreter: Path::new("/env/bin/python"),
            virtual_environment: Some(Path::new("/env")),
            is_conda: false,
            mpirun: Some((Path::new("/env/bin/mpirun"), MpiFlavor::OpenMpi)),
            service_environment,
            work: Path::new("/a/work"),
            logs: Path::new("/a/logs"),
            records: Path::new("/a/records"),
            data: Path::new("/a/data"),
            data_links: &[],
            python_site: Path::new("/module/site"),
            temporary_base: Path::new("/tmp"),
            cancel_grace: Duration::from_secs(30),
            confinement: Confinement::default(),
            own_places: None,
            container: None,
            boot: "b",
        }
    }

    fn launch(attempt: &Attempt, machine: &Machine<'_>) -> Result<Launch, &'static str> {
        super::launch(attempt, machine).map(|planned| planned.launch)
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
            Variable { name: "PYTHONPATH".into(), value: "/own".into() },
        ];
        let launch = launch(&attempt, &machine(&[])).unwrap();
        assert_eq!(variable(&launch, "PYTHONUNBUFFERED"), Some("0"));
        assert_eq!(variable(&launch, "PYTHONPATH"), Some("/module/site:/own"));
        let entry = format!("ESTIMATORD_ATTEMPT={}", variable(&launch, "ESTIMATORD_ATTEMPT").unwrap());
        assert_eq!(entry, mark(&attempt));
    }

    #[test]
    fn a_script_is_told_where_to_record_and_which_tags_its_run_has() {
        let mut attempt = fixtures::attempt();
        attempt.tags.insert("team".into(), "vision \"2\"".into());
        let launch = launch(&attempt, &machine(&[])).unwrap();
        assert_eq!(variable(&launch, "PYTHONPATH"), Some("/module/site"));
        assert_eq!(variable(&launch, "ESTIMATORD_TAGS"), Some(r#"{"team":"vision \"2\""}"#));
        assert_eq!(variable(&launch, "ESTIMATORD_RECORDS"), Some("/a/records"));
        assert_eq!(variable(&launch, "ESTIMATORD_OUTPUTS"), Some("/a/work/outputs"));
    }

    #[test]
    fn an_environment_of_conda_is_known_as_one() {
        let machine = Machine { is_conda: true, ..machine(&[]) };
        let launch = launch(&fixtures::attempt(), &machine).unwrap();
        assert_eq!(variable(&launch, "CONDA_PREFIX"), Some("/env"));
        assert_eq!(variable(&launch, "VIRTUAL_ENV"), None);
    }

    #[test]
    fn what_is_left_behind_gets_five_seconds_at_most() {
        let launch = launch(&fixtures::attempt(), &machine(&[])).unwrap();
        assert_eq!((launch.cancel_grace_ms, launch.leftovers_grace_ms), (30_000, 5_000));
    }
}

//! What is handed in: the script that `render` shows, and the variables by which the service steers it.

use std::{collections::BTreeMap, io, path::Path};

use super::{
    super::{
        ActualEnvironment, Attempt, ServiceAccess,
        process::{
            launch,
            layout::{self, AttemptDir, MPIRUN_LOG, STD_LOG},
            script_environment, script_module,
        },
    },
    SlurmBackend, commands,
    job_dir::JobDir,
};
use crate::domain::{
    compute_target::SlurmSettings,
    plan::{Launcher, Plan},
    render::{self, Format, Subject},
    slurm::{cores_per_process, job_name, sbatch_arguments},
    staging::Area,
};

/// What of the service's environment concerns its own machine only.
const OF_THIS_MACHINE: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "TMPDIR"];

/// What `sbatch` is called with.
pub(super) struct Handed {
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

/// Writes the script, and says how it is handed in.
pub(super) fn write(
    backend: &SlurmBackend,
    attempt: &Attempt,
    environment: &ActualEnvironment,
    directory: &AttemptDir,
    job_dir: &JobDir,
) -> io::Result<Handed> {
    let text = render::render(Format::Sbatch, &Subject { plan: &attempt.plan, definition: None }).text;
    // `sbatch` reads it at once, and Slurm keeps it: it is not needed after the machine went down.
    layout::write_whole(&job_dir.script(), text.as_bytes())?;
    let log = match attempt.plan.launcher {
        Launcher::Single => STD_LOG,
        Launcher::Mpi => MPIRUN_LOG,
    };
    let log = directory.logs().join(log);
    log.parent().map_or(Ok(()), layout::create_private_dir)?;
    let settings = backend.files.settings();
    let site = script_module::place(&settings.data_dir)?;
    let mut arguments = sbatch_arguments(
        &job_name(attempt.run_id, attempt.number),
        &attempt.plan,
        &backend.target,
        settings.cancel_grace,
        &launch::text(&log),
    );
    arguments.push(format!("--chdir={}", launch::text(directory.root())));
    arguments.push(launch::text(&job_dir.script()));
    let steering = Steering {
        attempt,
        environment,
        directory,
        status: job_dir.path(),
        site: &site,
        target: &backend.target,
    };
    Ok(Handed { arguments, environment: variables(&steering, backend.files.service_environment()) })
}

/// What the script is told.
struct Steering<'a> {
    attempt: &'a Attempt,
    environment: &'a ActualEnvironment,
    directory: &'a AttemptDir,
    status: &'a Path,
    site: &'a Path,
    target: &'a SlurmSettings,
}

/// The environment of `sbatch`, which is that of the job: of the service's own only what any program needs. What the
/// definition sets is in the script, where it cannot steer `sbatch`.
fn variables(steering: &Steering<'_>, service: &[(String, String)]) -> Vec<(String, String)> {
    let Steering { attempt, environment, directory, .. } = steering;
    let passed_on = |name: &str| {
        (script_environment::is_inherited(name) && !OF_THIS_MACHINE.contains(&name))
            || commands::is_needed(name)
    };
    let mut variables: BTreeMap<String, String> =
        service.iter().filter(|(name, _)| passed_on(name)).cloned().collect();
    variables.extend(script_environment::known_as(environment.built_root(), environment.is_conda()));
    script_environment::put_on_path(&mut variables, environment.built_root());
    let work = directory.work();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    set("PYTHON", environment.interpreter.clone());
    set("SOURCE_DIRECTORY", launch::text(&work));
    set(render::STATUS_DIR, launch::text(steering.status));
    set(render::PYTHON_PATH, launch::text(steering.site));
    set("PYTHONPATH", launch::text(steering.site));
    if let Some(mpi) = &steering.target.mpi {
        set("SRUN_MPI", mpi.clone());
    }
    if attempt.plan.launcher == Launcher::Mpi {
        if let Some(cores) =
            cores_per_process(&attempt.plan, &steering.target.vm_sizes.asked_by(&attempt.plan))
        {
            // srun does not take them over from sbatch.
            set("SRUN_CPUS_PER_TASK", cores.to_string());
        }
        // srun gives each rank a log of its own.
        set("SLURM_STDOUTMODE", rank_log(&attempt.plan, &directory.logs().join("user_logs")));
    }
    variables.extend(script_environment::of_the_run(attempt, &directory.records(), &work));
    variables.extend(attempt.access.iter().flat_map(ServiceAccess::elsewhere));
    let (data, work) = (launch::text(&directory.data()), launch::text(&work));
    let area = Area { data: &data, work: &work, in_container: false };
    variables.extend(render::data_variables(&attempt.plan, &area));
    variables.into_iter().collect()
}

/// The file that each rank writes, as srun names files: `%t` is the rank.
fn rank_log(plan: &Plan, directory: &Path) -> String {
    let directory = launch::text(directory).replace('%', "%%");
    if plan.process_count() == 1 {
        format!("{directory}/std_log.txt")
    } else {
        format!("{directory}/std_log_%t.txt")
    }
}

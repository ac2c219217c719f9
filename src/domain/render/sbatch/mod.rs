//! A batch script for Slurm that runs as it stands, submitted from the folder with the source files.

mod environment;
mod expressed;

use super::{
    NotExpressed, Subject,
    notes::Notes,
    packages,
    resources::{name_of_script, resources},
    shell::quoted,
};
use crate::domain::{
    environment::EnvironmentKind,
    plan::{DataLocation, InputMode, Launcher, Plan, PlannedInput},
    staging::{self, Area},
};

/// How long before the end of its time Slurm says so.
const NOTICE_SECONDS: u64 = 30;

/// Slurm may give notice this much earlier than it was told.
const NOTICE_SLACK_SECONDS: u64 = 60;

/// Variables that bash keeps for itself, or by which a job would no longer find its programs: `env` sets them for the
/// script alone. So it does with all whose names begin in one of [`NOT_EXPORTED_PREFIXES`].
const NOT_EXPORTED: [&str; 21] = [
    "_",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "IFS",
    "LINENO",
    "OPTIND",
    "PATH",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "PPID",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "UID",
];

/// Names of bash, of the loader, of Slurm's own programs, and of this script.
const NOT_EXPORTED_PREFIXES: [&str; 7] =
    ["BASH", "ESTIMATORD_", "LD_", "SBATCH_", "SLURM_", "SRUN_", "estimatord_"];

/// Variables by which the one who submits the job steers the script.
const STEERING: [&str; 7] =
    ["PYTHON", "SOURCE_DIRECTORY", "ENVIRONMENTS_DIR", "SRUN_MPI", CHECKPOINT, STATUS_DIR, PYTHON_PATH];

/// The directory in which a service that submits the job finds out how it goes.
pub const STATUS_DIR: &str = "ESTIMATORD_STATUS_DIR";
/// What comes before a `PYTHONPATH` of the definition's own.
pub const PYTHON_PATH: &str = "ESTIMATORD_PYTHONPATH";

fn is_for_the_script_alone(name: &str) -> bool {
    NOT_EXPORTED.contains(&name) || NOT_EXPORTED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The variable that says before the job where an input is: mostly the one that the script gets. A dataset's is named by
/// the user, who may have hit on a name that bash or the batch script reads something else from.
fn told_by(input: &PlannedInput) -> String {
    let variable = &input.variable;
    if is_for_the_script_alone(variable) || STEERING.contains(&variable.as_str()) {
        format!("ESTIMATORD_DATA_{variable}")
    } else {
        variable.clone()
    }
}

/// The variables by which a service tells the script where data is, with their values.
#[must_use]
pub fn data_variables(plan: &Plan, area: &Area<'_>) -> Vec<(String, String)> {
    let inputs = &plan.data.inputs;
    let mut variables: Vec<(String, String)> =
        inputs.iter().map(|input| (told_by(input), staging::seen_path(input, area))).collect();
    // What is none of the plan's own says which of them are datasets.
    let others = staging::variables(plan, area).into_iter();
    variables.extend(others.filter(|(name, _)| inputs.iter().all(|input| input.variable != *name)));
    let checkpoint = plan.data.resume_from.as_ref().map(staging::checkpoint_place);
    variables.extend(checkpoint.map(|place| (CHECKPOINT.to_owned(), area.path(&place))));
    variables
}

pub(super) fn render(subject: &Subject<'_>) -> (String, Vec<NotExpressed>) {
    let plan = subject.plan;
    let mut notes = Notes::new(subject);
    let packages = packages::packages(subject, false, &mut notes);
    expressed::note(subject, &packages, &mut notes);
    let mut text = String::from("#!/bin/bash\n");
    text += "# A Chainer definition as a job of Slurm. Submit it in the folder with the source files,\n";
    text += "# or say where they are: SOURCE_DIRECTORY=/path/on/the/nodes sbatch job.sbatch\n";
    text += &format!("# The files are those of snapshot {}\n", plan.snapshot_id.as_str());
    text += &directives(subject);
    text += STATUS;
    text += &source(plan);
    text += &data(plan);
    text += &arguments(plan);
    text += &match plan.environment.kind {
        EnvironmentKind::Managed => environment::managed(&packages, &plan.environment),
        EnvironmentKind::UserManaged => environment::user_managed(&plan.environment),
    };
    text += BEGIN;
    text += &variables(subject);
    text += &launch(plan);
    (text, notes.finish())
}

/// Minutes after which Slurm ends a job that may run for `seconds`, when it gives notice `notice` seconds before: no script
/// gets notice before its time is over.
#[must_use]
pub const fn minutes(seconds: u64, notice: u64) -> u64 {
    seconds.saturating_add(notice).saturating_add(NOTICE_SLACK_SECONDS).div_ceil(60)
}

/// How the job tells a service how it goes. Of two jobs for one attempt, and of a job and a cancel, one makes the directory
/// `started`; the other finds it there and does nothing.
const STATUS: &str = r#"
# For a service that submits this job: without ESTIMATORD_STATUS_DIR none of it does anything.
estimatord_begin() {
    [ -n "${ESTIMATORD_STATUS_DIR:-}" ] || return 0
    if ! command -v "$PYTHON" >/dev/null; then
        printf 'there is no %s on node %s\n' "$PYTHON" "$(uname -n)" >"$ESTIMATORD_STATUS_DIR/start_error"
        exit 1
    fi
    if ! mkdir "$ESTIMATORD_STATUS_DIR/started"; then
        echo 'Another job of this attempt has begun, or the attempt was canceled: nothing is done.' >&2
        exit 1
    fi
    printf '%s %s\n' "$SLURM_JOB_ID" "$(date +%s.%N)" >"$ESTIMATORD_STATUS_DIR/begun.new" &&
        mv "$ESTIMATORD_STATUS_DIR/begun.new" "$ESTIMATORD_STATUS_DIR/started/begun" || exit 1
    trap estimatord_end EXIT
}
estimatord_end() {
    local status=$?
    printf '%s %s\n' "$status" "$(date +%s.%N)" >"$ESTIMATORD_STATUS_DIR/ended.new" &&
        mv "$ESTIMATORD_STATUS_DIR/ended.new" "$ESTIMATORD_STATUS_DIR/ended"
}
"#;

const BEGIN: &str = "\nestimatord_begin\n";

fn directives(subject: &Subject<'_>) -> String {
    let plan = subject.plan;
    let resources = resources(subject);
    let mut lines = vec![
        format!("job-name={}", name_of_script(&plan.entry_script, 40)),
        format!("nodes={}", plan.node_count),
    ];
    if plan.launcher == Launcher::Mpi {
        lines.push(format!("ntasks-per-node={}", plan.process_count_per_node));
    }
    if resources.gpus > 0 {
        lines.push(format!("gpus-per-node={}", resources.gpus));
    }
    if let Some((cpus, memory)) = resources.size {
        lines.push(format!("cpus-per-task={}", cpus_per_task(plan, cpus)));
        lines.push(format!("mem={memory}M"));
    }
    if let Some(seconds) = plan.max_run_duration_seconds {
        lines.push(format!("time={}", minutes(seconds, NOTICE_SECONDS)));
    }
    // A job that Slurm starts again by itself would be a second run.
    lines.push("no-requeue".to_owned());
    lines.push(format!("signal=B:USR1@{NOTICE_SECONDS}"));
    lines.push("output=%x-%j.log".to_owned());
    lines.iter().map(|line| format!("#SBATCH --{line}\n")).collect()
}

/// The share of each rank.
fn cpus_per_task(plan: &Plan, cpus: u32) -> u64 {
    (u64::from(cpus) / plan.process_count_per_node).max(1)
}

fn source(plan: &Plan) -> String {
    let script = word(&plan.entry_script_word());
    format!(
        r#"
cd "${{SOURCE_DIRECTORY:-$SLURM_SUBMIT_DIR}}" || exit 1
if [ ! -f {script} ]; then
    printf '%s is not in %s: submit the job in the folder with the source files, or set SOURCE_DIRECTORY.\n' \
        {script} "$PWD" >&2
    exit 1
fi
mkdir -p outputs logs || exit 1
"#
    )
}

/// Where something lies, in words.
fn place(datastore: &str, path: &str) -> String {
    if path.is_empty() {
        format!("the root of datastore {datastore}")
    } else {
        format!("{path} of datastore {datastore}")
    }
}

/// The variable that holds the path of the checkpoint.
const CHECKPOINT: &str = "RESUME_FROM";

fn data(plan: &Plan) -> String {
    let mut needed = Vec::new();
    for input in &plan.data.inputs {
        let place = place(&input.datastore, &input.path);
        let what = match input.mode {
            InputMode::Upload => format!("the path to write to, for {place}"),
            InputMode::Mount | InputMode::Download | InputMode::Direct => format!("the path of {place}"),
        };
        needed.push((told_by(input), what));
    }
    if let Some(DataLocation { datastore, path }) = &plan.data.resume_from {
        needed
            .push((CHECKPOINT.to_owned(), format!("the path of the checkpoint: {}", place(datastore, path))));
    }
    if needed.is_empty() {
        return String::new();
    }
    let mut text =
        "\n# Data is not fetched: these variables say where it is on the nodes, and sbatch passes them on.\n"
            .to_owned();
    for (variable, what) in needed {
        let what = word(&format!("set it to {what}"));
        text += &format!("estimatord_what={what}\nexport {variable}=\"${{{variable}:?$estimatord_what}}\"\n");
    }
    text
}

fn arguments(plan: &Plan) -> String {
    let mut words = vec![word(&plan.entry_script_word())];
    for (index, argument) in plan.arguments.iter().enumerate() {
        words.push(match plan.data_argument(index) {
            None => word(argument),
            Some(None) => format!("\"${CHECKPOINT}\""),
            Some(Some(input)) => format!("\"${}\"", told_by(input)),
        });
    }
    let mut text = "\n# One word is one argument.\nestimatord_script=(\n".to_owned();
    for word in words {
        text += &format!("    {word}\n");
    }
    text + ")\n"
}

fn variables(subject: &Subject<'_>) -> String {
    let plan = subject.plan;
    let mpi = plan.launcher == Launcher::Mpi;
    let module = if mpi { " -m mpi4py" } else { "" };
    let mut own = String::new();
    let mut exports = String::new();
    for input in &plan.data.inputs {
        let told = told_by(input);
        if told != input.variable {
            own += &format!(" {}=\"${told}\"", input.variable);
        }
    }
    for variable in &plan.environment.environment_variables {
        let (name, value) = (&variable.name, &variable.value);
        if is_for_the_script_alone(name) {
            own += &format!(" {}", word(&format!("{name}={value}")));
        } else {
            // Always in single quotes: `a=~` and the like are for the eye of the reader.
            let value = word(value);
            let value = if value.starts_with('\'') { value } else { format!("'{value}'") };
            // A service has put a module of its own on that path.
            let before =
                if name == "PYTHONPATH" { "${ESTIMATORD_PYTHONPATH:+$ESTIMATORD_PYTHONPATH:}" } else { "" };
            exports += &format!("export {name}={before}{value}\n");
        }
    }
    let env = if own.is_empty() { String::new() } else { format!("env{own} ") };
    let mut text = "\n".to_owned();
    if mpi {
        text += "# Through mpi4py, so that a rank that raises ends all.\n";
    }
    text += &format!("estimatord_command=({env}\"$PYTHON\"{module} \"${{estimatord_script[@]}}\")\n");
    if mpi {
        if plan.arguments.iter().any(|argument| argument == ":") {
            text += "# srun takes the argument : for the beginning of another job: it is given one line instead.\n";
            text += "printf -v estimatord_line '%q ' \"${estimatord_command[@]}\"\n";
            text += "estimatord_command=(/bin/bash -c \"exec $estimatord_line\")\n";
        }
        text += "estimatord_command=(srun --mpi=\"${SRUN_MPI:-pmix}\" \"${estimatord_command[@]}\")\n";
    }
    text += "\nexport PYTHONUNBUFFERED=1\n";
    if mpi {
        text += "# Ranks that spin while they wait starve those they wait for.\n";
        text += "export OMPI_MCA_mpi_yield_when_idle=1\n";
        text += "# Where sbatch was told --export=NONE, srun would start the ranks without any variables.\n";
    }
    text += "export SLURM_EXPORT_ENV=ALL\n";
    if mpi && resources(subject).size.is_some() {
        text += "# srun does not take it over from sbatch.\n";
        text += "export SRUN_CPUS_PER_TASK=\"${SLURM_CPUS_PER_TASK:-1}\"\n";
    }
    text += &exports;
    text += "export AZUREML_RUN_ID=\"${AZUREML_RUN_ID:-$SLURM_JOB_NAME-$SLURM_JOB_ID}\"\n";
    text += "export AZUREML_ARM_PROJECT_NAME=\"${AZUREML_ARM_PROJECT_NAME:-$SLURM_JOB_NAME}\"\n";
    text
}

fn launch(plan: &Plan) -> String {
    let (what, forward) = match plan.launcher {
        Launcher::Single => ("the script gets", "kill -TERM \"$estimatord_process\""),
        // srun itself answers TERM by killing its ranks at once.
        Launcher::Mpi => (
            "every rank gets",
            "scancel --signal=TERM \"$SLURM_JOB_ID\" || kill -TERM \"$estimatord_process\"",
        ),
    };
    format!(
        r#"
# In the background: bash answers a signal only when what is in the foreground has ended. When the time is nearly over
# Slurm tells this shell alone (USR1), and {what} TERM from here. The TERM of scancel goes to every process by itself,
# and a second one would disturb a script that is just writing its last files. Nor may it interrupt the wait: bash loses the
# status of a process that ends at the very moment at which a signal is caught, and then calls it -1, or 138 for USR1.
estimatord_stopped=
"${{estimatord_command[@]}}" &
estimatord_process=$!
trap '' TERM
trap 'trap "" USR1; estimatord_stopped=1; {{ {forward}; }} 2>/dev/null' USR1
wait "$estimatord_process"
estimatord_status=$?
if [ -n "$estimatord_stopped" ]; then
    wait "$estimatord_process"
    estimatord_status=$?
    if [ "$estimatord_status" -lt 0 ] || [ "$estimatord_status" -eq 138 ]; then
        estimatord_status=143
    fi
fi
exit "$estimatord_status"
"#
    )
}

/// A text as one word of bash. `sbatch` refuses scripts with the line ends of DOS, so that a carriage return cannot
/// stand in one as it is.
fn word(text: &str) -> String {
    quoted(text).replace('\r', r"'$'\r''")
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use crate::domain::render::Format;

    #[test]
    fn scripts_are_as_they_were() {
        for (name, rendering) in testing::rendered(Format::Sbatch) {
            // sbatch refuses the line ends of DOS.
            assert!(!rendering.text.contains('\r'), "{name}");
            insta::with_settings!({prepend_module_to_snapshot => false, snapshot_path => "../snapshots/sbatch"}, {
                insta::assert_snapshot!(name, testing::shown(&rendering));
            });
        }
    }

    #[test]
    fn a_script_is_not_told_to_stop_before_its_time() {
        for seconds in [1, 59, 60, 3600, u64::MAX] {
            let notice =
                minutes(seconds, NOTICE_SECONDS).saturating_mul(60) - NOTICE_SECONDS - NOTICE_SLACK_SECONDS;
            assert!(notice >= seconds.min(u64::MAX - 200), "{seconds}");
        }
        assert_eq!(minutes(30, NOTICE_SECONDS), 2);
    }
}

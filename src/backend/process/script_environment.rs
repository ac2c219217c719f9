//! The environment variables of a script: pure.

use std::{collections::BTreeMap, path::Path};

use super::{
    super::Attempt,
    launch::{Machine, text, with_area},
};
use crate::domain::{plan::Launcher, staging};

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
/// How the user of a run is called, whatever its number.
pub(super) const RUN_USER: &str = "run";
/// Where programs are looked for when the service itself was told nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What lets more ranks than cores run, as Open MPI 4 and 5 read it from the environment; others do not mind.
const OVERSUBSCRIBE: [(&str, &str); 4] = [
    ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
    ("OMPI_MCA_hwloc_base_binding_policy", "none"),
    ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
    ("PRTE_MCA_hwloc_default_binding_policy", "none"),
];

/// Whether a variable of the service may be passed on to what users run.
pub(in crate::backend) fn is_inherited(name: &str) -> bool {
    INHERITED.contains(&name) || name.starts_with("LC_")
}

/// The entry of the environment by which every process of an attempt can be told from others.
pub(super) fn mark(attempt: &Attempt) -> String {
    let (name, value) = mark_of(attempt);
    format!("{name}={value}")
}

pub(super) fn mark_of(attempt: &Attempt) -> (&'static str, String) {
    ("ESTIMATORD_ATTEMPT", format!("{}.{}", attempt.run_id, attempt.number))
}

/// The environment of a script: of the service's own what any program needs, what the definition sets, and what the run is
/// known by.
pub(super) fn environment(
    attempt: &Attempt,
    machine: &Machine<'_>,
    temporary_directory: Option<&Path>,
) -> Vec<(String, String)> {
    let in_container = machine.container.is_some();
    // Of what concerns the machine a container has its own.
    let passed_on = |name: &str| {
        if in_container { name.to_ascii_lowercase().ends_with("_proxy") } else { is_inherited(name) }
    };
    let mut environment: BTreeMap<String, String> = machine
        .service_environment
        .iter()
        .filter(|(name, _)| is_inherited(name) && passed_on(name))
        .cloned()
        .collect();
    environment.extend(known_as(machine.virtual_environment, machine.is_conda));
    if !in_container {
        put_on_path(&mut environment, machine.virtual_environment);
    }
    let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
    // Logs must be readable while the script runs.
    set("PYTHONUNBUFFERED", "1");
    if let Some(place) = &machine.container
        && place.user.is_some_and(|(user, _)| user != 0)
    {
        // The image has no home for a user that it does not know.
        set("HOME", &text(place.records));
    }
    if let Some(own) = &machine.own_places {
        set("HOME", &text(own.home));
        set("TMPDIR", &text(own.temporary));
    }
    if machine.confinement.user.is_some() {
        // Libraries ask by these who they work for; the user itself has no name.
        set("USER", RUN_USER);
        set("LOGNAME", RUN_USER);
    }
    if let Some(directory) = temporary_directory {
        set("TMPDIR", &text(directory));
    }
    if attempt.plan.launcher == Launcher::Mpi {
        set("OMPI_ALLOW_RUN_AS_ROOT", "1");
        set("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        // Ranks that spin while they wait starve those they wait for.
        set("OMPI_MCA_mpi_yield_when_idle", "1");
        if in_container {
            for (name, value) in OVERSUBSCRIBE {
                set(name, value);
            }
        }
    }
    for variable in &attempt.plan.environment.environment_variables {
        set(&variable.name, &variable.value);
    }
    if !in_container {
        // The definition's own `PYTHONPATH` comes after ours, which only adds to the end of the path.
        let ours = text(machine.python_site);
        let path = environment.get("PYTHONPATH").map_or_else(|| ours.clone(), |own| format!("{ours}:{own}"));
        environment.insert("PYTHONPATH".to_owned(), path);
    }
    let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
    for (name, value) in with_area(machine, |area| staging::variables(&attempt.plan, area)) {
        set(&name, &value);
    }
    if let Some(access) = &attempt.access {
        environment.extend(if in_container { access.elsewhere() } else { access.on_this_machine() });
    }
    // Last: by these the attempt is known.
    environment.extend(of_the_run(attempt, machine.records, machine.work));
    environment.into_iter().collect()
}

/// The variable that what the service built is known by: each kind of environment has one of its own.
pub(in crate::backend) fn known_as(root: Option<&Path>, is_conda: bool) -> Option<(String, String)> {
    let variable = if is_conda { "CONDA_PREFIX" } else { "VIRTUAL_ENV" };
    root.map(|root| (variable.to_owned(), text(root)))
}

/// Its programs come before those of the machine.
pub(in crate::backend) fn put_on_path(environment: &mut BTreeMap<String, String>, root: Option<&Path>) {
    let path = environment.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    if let Some(root) = root {
        *path = format!("{}:{path}", root.join("bin").display());
    }
}

/// What a script, and the module that it is given, are told of their run; the attempt's mark among it.
pub(in crate::backend) fn of_the_run(
    attempt: &Attempt,
    records: &Path,
    work: &Path,
) -> [(String, String); 6] {
    let (mark, value) = mark_of(attempt);
    [
        // A map of texts is always JSON.
        ("ESTIMATORD_TAGS", serde_json::to_string(&attempt.tags).unwrap_or_default()),
        ("ESTIMATORD_RECORDS", text(records)),
        ("ESTIMATORD_OUTPUTS", text(&work.join("outputs"))),
        ("AZUREML_RUN_ID", attempt.run_id.to_string()),
        ("AZUREML_ARM_PROJECT_NAME", attempt.experiment_name.clone()),
        (mark, value),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

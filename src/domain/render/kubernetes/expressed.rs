//! What a manifest says in another way, or not at all.

use super::{PULL_SECRET, SOURCE_CLAIM, data::place};
use crate::domain::{
    environment::EnvironmentKind,
    plan::{InputMode, Launcher},
    render::{
        Subject, engines,
        notes::Notes,
        packages::{Packages, first_given},
    },
};

/// The parameters that say what is installed.
const PACKAGES: [&str; 8] = [
    "conda_packages",
    "pip_packages",
    "conda_dependencies_file_path",
    "pip_requirements_file_path",
    "conda_dependencies_file",
    "pip_requirements_file",
    "environment_definition",
    "framework_version",
];

pub(super) fn note(subject: &Subject<'_>, packages: &Packages, notes: &mut Notes<'_>) {
    placement(subject, notes);
    container(subject, notes);
    installed(subject, packages, notes);
    data(subject, notes);
    engines::note(subject, notes);
}

fn placement(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let plan = subject.plan;
    notes.approximate(
        "source_directory",
        format!(
            "The files come from the claim {SOURCE_CLAIM}, which you fill. What the script writes to outputs and logs goes \
             with the pod: have it written to a claim where it is to stay."
        ),
    );
    match &plan.one_off_target {
        Some(target) => {
            notes.approximate(
                "vm_size",
                "CPUs and memory of the size are requested of nodes that are there. A node of this very size has less to \
                 give, because it needs some for itself.",
            );
            if target.vm_priority == "lowpriority" {
                notes.approximate(
                    "vm_priority",
                    "Nodes that may be pre-empted are chosen by the label and the taint of AKS; other clusters have others.",
                );
            }
        }
        None => notes.approximate(
            "compute_target",
            "It runs in the cluster and the namespace of the one who creates it, on any node that has what is requested.",
        ),
    }
    if plan.launcher == Launcher::Mpi {
        let asked =
            first_given(subject, &["distributed_training", "distributed_backend"]).unwrap_or_default();
        notes.approximate(
            asked,
            "The MPI operator has to be in the cluster. The image needs Open MPI, and an sshd that user 1000 can start \
             with /home/mpiuser/.sshd_config on port 2222: Microsoft's base images have Intel MPI and no such sshd.",
        );
    }
    notes.approximate(
        "max_run_duration_seconds",
        "Kubernetes counts the time before the script starts too: waiting for a node, pulling the image, installing.",
    );
}

fn container(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let environment = &subject.plan.environment;
    let details = &environment.container;
    if !environment.docker {
        let text = "A pod is a container: the image python:3.11 stands in.";
        notes.none("use_docker", text);
        notes.none("environment_definition", text);
    }
    if details.registry_username.is_some() {
        let text = format!(
            "The password is in no text: the image is pulled with the secret {PULL_SECRET}, which a comment says how to make."
        );
        let asked = first_given(subject, &["environment_definition", "image_registry_details"]);
        notes.approximate(asked.unwrap_or_default(), text);
    }
    if details.base_dockerfile.is_some() {
        notes.approximate(
            "environment_definition",
            "Kubernetes builds no images: the Dockerfile is in a comment, and the image has to be built under the name in \
             the text.",
        );
    }
    if !details.arguments.is_empty() {
        notes.approximate("environment_definition", "Arguments of docker run have no place in a pod.");
    }
    if environment.image.is_some() || details.base_dockerfile.is_some() {
        let asked = first_given(
            subject,
            &["environment_definition", "custom_docker_image", "custom_docker_base_image"],
        );
        notes.approximate(asked.unwrap_or_default(), "It runs as user 1000, not as root.");
    }
}

fn installed(subject: &Subject<'_>, packages: &Packages, notes: &mut Notes<'_>) {
    let plan = subject.plan;
    if plan.environment.kind == EnvironmentKind::UserManaged {
        if plan.launcher == Launcher::Mpi {
            let asked = first_given(subject, &["environment_definition", "user_managed"]).unwrap_or_default();
            notes.approximate(asked, "The interpreter of the image needs mpi4py.");
        }
        return;
    }
    let mut text = String::from(
        "The packages are installed at every start, into a volume on top of what the image has; pods need access to the \
         package index.",
    );
    if !packages.conda.is_empty() {
        text += " The image needs conda on its PATH.";
    }
    for parameter in PACKAGES {
        // An environment that is not the framework's has no version of it.
        if parameter == "framework_version" && plan.environment.framework_version.is_none() {
            continue;
        }
        notes.approximate(parameter, text.as_str());
    }
}

fn data(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let data = &subject.plan.data;
    if !data.inputs.is_empty() {
        let mut text =
            "Every datastore is a claim that holds what it holds; data is read where it lies, whatever the mode.".to_owned();
        if data.inputs.iter().any(|input| input.mode == InputMode::Upload) {
            text += " What is to be uploaded is written there at once.";
        }
        if data.inputs.iter().any(|input| input.path_on_compute.is_some() && place(input).is_none()) {
            text += " A path_on_compute that is relative or taken, or that of a pattern, is not used: the variables say where \
                     the data is.";
        }
        notes.approximate("inputs", text.as_str());
        if data.arguments.iter().any(|argument| argument.input.is_some()) {
            notes.approximate("script_params", text);
        }
    }
    notes.approximate("resume_from", "The datastore is a claim: the checkpoint is read where it lies.");
    notes.none(
        "source_directory_data_store",
        format!("The files come from the claim {SOURCE_CLAIM}: make that of the datastore if they are to be there."),
    );
}

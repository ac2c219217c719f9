//! What a batch script says in another way, or not at all.

use super::super::{
    Subject, engines,
    notes::Notes,
    packages::{Packages, first_given},
};
use crate::domain::{
    environment::EnvironmentKind,
    plan::{InputMode, Launcher},
};

pub(super) fn note(subject: &Subject<'_>, packages: &Packages, notes: &mut Notes<'_>) {
    placement(subject, notes);
    container(subject, notes);
    environment(subject, packages, notes);
    data(subject, notes);
    engines::note(subject, notes);
}

fn placement(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let plan = subject.plan;
    notes.approximate(
        "source_directory",
        "The job runs in the folder that it is submitted from, not in a private copy of the snapshot: give each job a \
         folder of its own.",
    );
    if plan.one_off_target.is_some() {
        notes.approximate(
            "vm_size",
            "Slurm is asked for the CPUs and the memory of the size; which processors they are is the partition's.",
        );
        if plan.one_off_target.as_ref().is_some_and(|target| target.vm_priority == "lowpriority") {
            notes.approximate(
                "vm_priority",
                "Slurm has no word for it that is the same everywhere: add the --qos or --partition of your cluster \
                 whose jobs may be pre-empted (a run of this service gets the target's `low_priority_qos`). A \
                 pre-empted job is not queued again (--no-requeue).",
            );
        }
    } else {
        notes.approximate(
            "compute_target",
            "The script goes to the default partition of the cluster that it is submitted to: add --partition if that \
             is another.",
        );
    }
    if plan.launcher == Launcher::Mpi {
        let asked = first_given(subject, &["distributed_training", "distributed_backend"]);
        notes.approximate(
            asked.unwrap_or_default(),
            "srun starts the ranks, by PMIx: SRUN_MPI names another way, which has to suit the MPI of mpi4py. The \
             interpreter and the files have to be on every node under the same path.",
        );
    }
    notes.approximate(
        "max_run_duration_seconds",
        "Slurm counts whole minutes, and the building of the environment too: the script gets TERM when the time is \
         over or up to two minutes later, never before, unless an environment is built first.",
    );
}

fn container(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let environment = &subject.plan.environment;
    if !environment.docker {
        return;
    }
    let instead = match environment.kind {
        EnvironmentKind::Managed => "a virtual environment on the node takes its place",
        EnvironmentKind::UserManaged => "the interpreter of the node takes its place",
    };
    notes.approximate("use_docker", format!("The job starts processes, not a container: {instead}."));
    for image in ["custom_docker_image", "custom_docker_base_image"] {
        let what = "What else is in the image has to be on the nodes.";
        notes.none(image, format!("The job starts processes, not a container: {instead}. {what}"));
    }
    notes.none("image_registry_details", "No image is pulled.");
    notes.none("shm_size", "Without a container /dev/shm is the node's, as large as it is.");
    if environment.image.is_some() || environment.container.base_dockerfile.is_some() {
        notes.approximate(
            "environment_definition",
            format!("Its docker section is not used: the job starts processes, not a container; {instead}."),
        );
    }
}

fn environment(subject: &Subject<'_>, packages: &Packages, notes: &mut Notes<'_>) {
    let plan = subject.plan;
    if plan.environment.kind == EnvironmentKind::UserManaged {
        if plan.launcher == Launcher::Mpi {
            let text = "The interpreter needs mpi4py, and the MPI that srun is told of.";
            notes.approximate("user_managed", text);
            notes.approximate("environment_definition", text);
        }
        return;
    }
    if plan.use_gpu {
        notes.approximate(
            "use_gpu",
            "The GPUs are asked for; CUDA, cuDNN and NCCL of the image have to be on the nodes, and cupy-cuda90 needs \
             CUDA 9.0 and a Python that it has a wheel for.",
        );
    }
    if !packages.conda.is_empty() {
        for parameter in [
            "conda_packages",
            "conda_dependencies_file_path",
            "conda_dependencies_file",
            "environment_definition",
        ] {
            notes.approximate(
                parameter,
                "conda, mamba or micromamba has to be on PATH where the job runs: it says so and ends if none is.",
            );
        }
    }
    if packages.local {
        for parameter in [
            "pip_packages",
            "pip_requirements_file_path",
            "conda_dependencies_file",
            "pip_requirements_file",
            "environment_definition",
        ] {
            notes.approximate(
                parameter,
                "Some are files of the source directory: the environment is built for each job anew.",
            );
        }
    }
}

fn data(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let data = &subject.plan.data;
    let variables: Vec<String> = data.inputs.iter().map(super::told_by).collect();
    if !variables.is_empty() {
        let mut text = format!(
            "Nothing is mounted or copied: set {} to where the data is on the nodes.",
            variables.join(", ")
        );
        if data.inputs.iter().any(|input| input.mode == InputMode::Upload) {
            text += " What is to be uploaded is written there and stays there.";
        }
        if data.inputs.iter().any(|input| input.path_on_compute.is_some()) {
            text += " path_on_compute is not used.";
        }
        notes.approximate("inputs", text.as_str());
        if data.arguments.iter().any(|argument| argument.input.is_some()) {
            notes.approximate("script_params", &text);
        }
    }
    notes.approximate(
        "resume_from",
        "Nothing is copied: set RESUME_FROM to where the checkpoint is on the nodes.",
    );
    notes.none(
        "source_directory_data_store",
        "The files are those of the folder that the job is submitted from.",
    );
}

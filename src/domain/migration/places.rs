//! The table: every parameter, what it means, and where it goes.

/// One parameter.
pub(super) struct Places {
    pub(super) parameter: &'static str,
    /// What it means in the deprecated class.
    pub(super) meaning: &'static str,
    /// Where it goes in SDK v1; none when there is no place for it.
    pub(super) script_run_config: Option<&'static str>,
    /// Where it goes in v2; none when there is no place for it.
    pub(super) azureml_v2: Option<&'static str>,
}

/// Every parameter, in the order of the signature.
pub(super) static PLACES: [Places; 34] = [
    Places {
        parameter: "source_directory",
        meaning: "The local folder whose files are sent along with the run.",
        script_run_config: Some("ScriptRunConfig(source_directory=…)"),
        azureml_v2: Some("code"),
    },
    Places {
        parameter: "compute_target",
        meaning: "The registered target, or `local`, that the run is sent to.",
        script_run_config: Some("ScriptRunConfig(compute_target=…)"),
        azureml_v2: Some("compute"),
    },
    Places {
        parameter: "vm_size",
        meaning: "The size of the nodes of a cluster that is made for this run alone.",
        script_run_config: Some("run_config.amlcompute.vm_size, with the target \"amlcompute\""),
        azureml_v2: Some("resources.instance_type, without compute"),
    },
    Places {
        parameter: "vm_priority",
        meaning: "Whether the nodes of that cluster may be taken away.",
        script_run_config: Some("run_config.amlcompute.vm_priority"),
        azureml_v2: Some("queue_settings.job_tier"),
    },
    Places {
        parameter: "entry_script",
        meaning: "The script that is run, relative to the source directory.",
        script_run_config: Some("ScriptRunConfig(script=…)"),
        azureml_v2: Some("command"),
    },
    Places {
        parameter: "script_params",
        meaning: "The arguments of the script, in their order.",
        script_run_config: Some("ScriptRunConfig(arguments=[…])"),
        azureml_v2: Some("command, inputs and outputs"),
    },
    Places {
        parameter: "node_count",
        meaning: "How many nodes take part.",
        script_run_config: Some("MpiConfiguration(node_count=…)"),
        azureml_v2: Some("resources.instance_count"),
    },
    Places {
        parameter: "process_count_per_node",
        meaning: "How many MPI processes each node starts; deprecated within the class already.",
        script_run_config: Some("MpiConfiguration(process_count_per_node=…)"),
        azureml_v2: Some("distribution.process_count_per_instance"),
    },
    Places {
        parameter: "distributed_backend",
        meaning: "The word that asks for MPI; deprecated within the class already.",
        script_run_config: Some("ScriptRunConfig(distributed_job_config=MpiConfiguration(…))"),
        azureml_v2: Some("distribution.type"),
    },
    Places {
        parameter: "distributed_training",
        meaning: "The object that asks for MPI and says how many processes each node starts.",
        script_run_config: Some("ScriptRunConfig(distributed_job_config=MpiConfiguration(…))"),
        azureml_v2: Some("distribution"),
    },
    Places {
        parameter: "use_gpu",
        meaning: "Whether the image and the packages are those for GPUs.",
        script_run_config: Some("Environment.docker.base_image and the packages"),
        azureml_v2: Some("environment.image and environment.conda_file"),
    },
    Places {
        parameter: "use_docker",
        meaning: "Whether the script is run in a container.",
        script_run_config: Some("DockerConfiguration(use_docker=…)"),
        azureml_v2: Some("environment.image"),
    },
    Places {
        parameter: "custom_docker_base_image",
        meaning: "The image that the environment is based on, by its deprecated name.",
        script_run_config: Some("Environment.docker.base_image"),
        azureml_v2: Some("environment.image"),
    },
    Places {
        parameter: "custom_docker_image",
        meaning: "The image that the environment is based on.",
        script_run_config: Some("Environment.docker.base_image"),
        azureml_v2: Some("environment.image"),
    },
    Places {
        parameter: "image_registry_details",
        meaning: "The registry that the image is pulled from, and who pulls it.",
        script_run_config: Some("Environment.docker.base_image_registry"),
        azureml_v2: None,
    },
    Places {
        parameter: "user_managed",
        meaning: "Whether the interpreter that is there is used, and nothing is installed.",
        script_run_config: Some("Environment.python.user_managed_dependencies"),
        azureml_v2: Some("environment.image, without conda_file"),
    },
    Places {
        parameter: "conda_packages",
        meaning: "The packages that conda installs.",
        script_run_config: Some("CondaDependencies.create(conda_packages=[…])"),
        azureml_v2: Some("environment.conda_file.dependencies"),
    },
    Places {
        parameter: "pip_packages",
        meaning: "The packages that pip installs.",
        script_run_config: Some("CondaDependencies.set_pip_requirements([…])"),
        azureml_v2: Some("environment.conda_file.dependencies[].pip"),
    },
    Places {
        parameter: "conda_dependencies_file_path",
        meaning: "The conda file, by its deprecated name.",
        script_run_config: Some("Environment.python.conda_dependencies"),
        azureml_v2: Some("environment.conda_file"),
    },
    Places {
        parameter: "pip_requirements_file_path",
        meaning: "The requirements file, by its deprecated name.",
        script_run_config: Some("CondaDependencies.set_pip_requirements([…])"),
        azureml_v2: Some("environment.conda_file.dependencies[].pip"),
    },
    Places {
        parameter: "conda_dependencies_file",
        meaning: "The conda file with everything that is installed.",
        script_run_config: Some("Environment.python.conda_dependencies"),
        azureml_v2: Some("environment.conda_file"),
    },
    Places {
        parameter: "pip_requirements_file",
        meaning: "The requirements file that pip installs from.",
        script_run_config: Some("CondaDependencies.set_pip_requirements([…])"),
        azureml_v2: Some("environment.conda_file.dependencies[].pip"),
    },
    Places {
        parameter: "environment_variables",
        meaning: "The variables of the process that runs the script.",
        script_run_config: Some("run_config.environment_variables"),
        azureml_v2: Some("environment_variables"),
    },
    Places {
        parameter: "environment_definition",
        meaning: "A whole environment in place of the parameters about packages, images and variables.",
        script_run_config: Some("ScriptRunConfig(environment=…)"),
        azureml_v2: Some("environment, environment_variables and resources"),
    },
    Places {
        parameter: "inputs",
        meaning: "The data that the run reads or writes.",
        script_run_config: Some("run_config.data_references and run_config.data"),
        azureml_v2: Some("inputs and outputs"),
    },
    Places {
        parameter: "source_directory_data_store",
        meaning: "The datastore that the source directory is put on.",
        script_run_config: Some("run_config.source_directory_data_store"),
        azureml_v2: None,
    },
    Places {
        parameter: "shm_size",
        meaning: "The size of the shared memory of the container.",
        script_run_config: Some("DockerConfiguration(shm_size=…)"),
        azureml_v2: Some("resources.shm_size"),
    },
    Places {
        parameter: "resume_from",
        meaning: "The checkpoint or model that the script goes on from, as its argument `--resume-from`.",
        script_run_config: Some("ScriptRunConfig(resume_from=…)"),
        azureml_v2: Some("inputs and command"),
    },
    Places {
        parameter: "max_run_duration_seconds",
        meaning: "The time after which the run is canceled.",
        script_run_config: Some("ScriptRunConfig(max_run_duration_seconds=…)"),
        azureml_v2: Some("limits.timeout"),
    },
    Places {
        parameter: "framework_version",
        meaning: "The version of Chainer in the environment.",
        script_run_config: Some("the package chainer in CondaDependencies"),
        azureml_v2: Some("the package chainer in environment.conda_file"),
    },
    Places {
        parameter: "_enable_optimized_mode",
        meaning: "Whether the framework's own image is the base, to which only the user's packages are added.",
        script_run_config: None,
        azureml_v2: None,
    },
    Places {
        parameter: "_disable_validation",
        meaning: "Whether the script is sent off without being looked at.",
        script_run_config: Some("nothing to write: nothing looks at the script"),
        azureml_v2: Some("nothing to write: nothing looks at the script"),
    },
    Places {
        parameter: "_show_lint_warnings",
        meaning: "Whether that look warns about the code.",
        script_run_config: Some("nothing to write: nothing looks at the script"),
        azureml_v2: Some("nothing to write: nothing looks at the script"),
    },
    Places {
        parameter: "_show_package_warnings",
        meaning: "Whether that look warns about packages that nothing installs.",
        script_run_config: Some("nothing to write: nothing looks at the script"),
        azureml_v2: Some("nothing to write: nothing looks at the script"),
    },
];

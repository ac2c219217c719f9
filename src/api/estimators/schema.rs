//! The 34 parameters as the API document describes them. Nothing is read through this type: the rules read the JSON itself,
//! so that they can say everything that is wrong with it at once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub use crate::domain::rules::examples::EXAMPLE_SNAPSHOT;

/// An estimator definition: the parameters of `azureml.train.dnn.Chainer` by their names, and optionally
/// `"framework": "Chainer"`. Null, and the empty value of a parameter's own kind, mean "not given".
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "source_directory": EXAMPLE_SNAPSHOT,
    "compute_target": "local",
    "entry_script": "train.py",
    "script_params": {"--epochs": 20, "--learning-rate": 0.002},
    "framework_version": "7.0.0",
    "pip_packages": ["scikit-learn"]
}))]
pub struct EstimatorDefinition {
    /// `Chainer`, if it is given.
    #[schema(nullable = false, example = "Chainer")]
    pub framework: Option<String>,
    /// Where the script and its files come from: the id that `create_snapshot` answered. The only parameter without a default.
    #[schema(
        required = true,
        nullable = false,
        example = json!(EXAMPLE_SNAPSHOT)
    )]
    pub source_directory: Option<String>,
    /// The name of a registered compute target, or `local`. Without it `vm_size` is needed.
    #[schema(default = json!(null), example = "local")]
    pub compute_target: Option<String>,
    /// The size of the nodes of a target that is made for this run alone. Beside `compute_target` it is ignored.
    #[schema(default = json!(null))]
    pub vm_size: Option<String>,
    /// `dedicated` or `lowpriority`; only together with `vm_size`. Counts as `dedicated` when `vm_size` is given.
    #[schema(default = json!(null))]
    pub vm_priority: Option<String>,
    /// The script to run: a path relative to the source directory. Needed.
    #[schema(default = json!(null), example = "train.py")]
    pub entry_script: Option<String>,
    /// Arguments of the script, in this order: each key, then its value. A list is expanded in place; null and the empty text leave a bare flag.
    #[schema(default = json!(null), example = json!({"--epochs": 5}))]
    pub script_params: Option<BTreeMap<String, Value>>,
    /// Nodes. More than one run under MPI, on a target of type AmlCompute only.
    #[schema(default = 1, minimum = 1, required = false, example = 1)]
    pub node_count: i64,
    /// Processes on each node. Deprecated when it is not 1: write it into `distributed_training`.
    #[schema(default = 1, minimum = 1, required = false, example = 1)]
    pub process_count_per_node: i64,
    /// Deprecated in favour of `distributed_training`. Only `mpi`.
    #[schema(default = json!(null))]
    pub distributed_backend: Option<String>,
    /// `{"type": "Mpi", "process_count_per_node": 2}`. Needed as soon as there is more than one process.
    #[schema(default = json!(null))]
    pub distributed_training: Option<BTreeMap<String, Value>>,
    /// Asks the target for GPUs, and takes the GPU image where no other is named.
    #[schema(default = false, required = false, example = false)]
    pub use_gpu: bool,
    /// Whether the run is to be in a container.
    #[schema(default = true, required = false, example = true)]
    pub use_docker: bool,
    /// Deprecated name of `custom_docker_image`.
    #[schema(default = json!(null))]
    pub custom_docker_base_image: Option<String>,
    /// The image to use in place of the framework's base image.
    #[schema(default = json!(null))]
    pub custom_docker_image: Option<String>,
    /// `{"address", "username", "password"}` of the image's registry. The password is write-only.
    #[schema(default = json!(null))]
    pub image_registry_details: Option<BTreeMap<String, Value>>,
    /// True: nothing is built, the interpreter that is there runs the script.
    #[schema(default = false, required = false, example = false)]
    pub user_managed: bool,
    /// Conda packages to add.
    #[schema(default = json!(null))]
    pub conda_packages: Option<Vec<String>>,
    /// pip requirements to add: PEP 508, an address, or an option line.
    #[schema(default = json!(null), example = json!([]))]
    pub pip_packages: Option<Vec<String>>,
    /// Deprecated name of `conda_dependencies_file`.
    #[schema(default = json!(null))]
    pub conda_dependencies_file_path: Option<String>,
    /// Deprecated name of `pip_requirements_file`.
    #[schema(default = json!(null))]
    pub pip_requirements_file_path: Option<String>,
    /// A conda environment file in the source directory. With it no framework packages are added.
    #[schema(default = json!(null))]
    pub conda_dependencies_file: Option<String>,
    /// A pip requirements file in the source directory.
    #[schema(default = json!(null))]
    pub pip_requirements_file: Option<String>,
    /// Variables for the script's process, on every rank: texts, numbers or booleans.
    #[schema(default = json!(null))]
    pub environment_variables: Option<BTreeMap<String, Value>>,
    /// A whole environment. It takes precedence over, and clashes with, the parameters that describe one.
    #[schema(default = json!(null))]
    pub environment_definition: Option<BTreeMap<String, Value>>,
    /// Data references, dataset consumption configurations or datastore names; each becomes a path and a variable.
    #[schema(default = json!(null))]
    pub inputs: Option<Vec<Value>>,
    /// The datastore that holds the project share.
    #[schema(default = json!(null))]
    pub source_directory_data_store: Option<String>,
    /// The size of `/dev/shm` in a container: digits and `b`, `k`, `m` or `g`. `2g` when not given.
    #[schema(default = json!(null))]
    pub shm_size: Option<String>,
    /// A `DataPath` with a checkpoint; the script gets it as `--resume-from <path>`.
    #[schema(default = json!(null))]
    pub resume_from: Option<BTreeMap<String, Value>>,
    /// Seconds in `Running` after which the run is stopped.
    #[schema(default = json!(null), minimum = 1, example = 3600)]
    pub max_run_duration_seconds: Option<i64>,
    /// `5.1.0` or `7.0.0`. `5.1.0` when not given, with a warning.
    #[schema(default = json!(null), example = "7.0.0")]
    pub framework_version: Option<String>,
    /// The framework image is the base and only your own packages are added; on AmlCompute only.
    #[schema(default = false, required = false)]
    pub _enable_optimized_mode: bool,
    /// The rules are always on. `false` has the script parsed too, when it is named `….py`: a syntax error is a warning.
    #[schema(default = true, required = false)]
    pub _disable_validation: bool,
    /// Accepted, and without an effect of its own: what is said of the script is said without it.
    #[schema(default = false, required = false)]
    pub _show_lint_warnings: bool,
    /// With `_disable_validation: false`: warns of packages that the script imports and nothing installs.
    #[schema(default = false, required = false)]
    pub _show_package_warnings: bool,
}

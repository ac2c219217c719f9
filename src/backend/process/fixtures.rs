//! Values for unit tests.

use crate::{
    backend::Attempt,
    domain::{
        compute_target,
        environment::{Environment, EnvironmentKind},
        ids::{RunId, SnapshotId},
        plan::{Launcher, Plan},
    },
};

/// A one-process attempt of a managed environment without packages.
pub(crate) fn attempt() -> Attempt {
    Attempt {
        run_id: RunId::from_uuid(uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)),
        number: 1,
        experiment_name: "digits".into(),
        tags: Default::default(),
        plan: Plan {
            snapshot_id: SnapshotId::from_digest([0; 32]),
            entry_script: "train.py".into(),
            arguments: Vec::new(),
            launcher: Launcher::Single,
            node_count: 1,
            process_count_per_node: 1,
            compute_target: "local".into(),
            one_off_target: None,
            target_nodes: None,
            containers: Default::default(),
            use_gpu: false,
            gpus_per_node: 0,
            max_run_duration_seconds: None,
            data: Default::default(),
            environment: Environment {
                kind: EnvironmentKind::Managed,
                interpreter_path: None,
                framework: "Chainer".into(),
                framework_version: None,
                python_version: None,
                docker: false,
                image: None,
                container: Default::default(),
                prebuilt_packages: Vec::new(),
                pip_packages: Vec::new(),
                pip_origins: Default::default(),
                conda_packages: Vec::new(),
                conda_channels: Vec::new(),
                environment_variables: Vec::new(),
                shm_size: None,
                hash: "sha256:".into(),
            },
        },
        backend: compute_target::Backend::process(),
        registry: None,
        access: None,
    }
}

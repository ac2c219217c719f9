//! A definition as people have them.

use serde_json::{Value, json};

/// A dozen parameters, arguments and packages, on the target that is there from the start.
#[must_use]
pub fn typical(snapshot: &str) -> Value {
    json!({
        "source_directory": snapshot,
        "compute_target": "local",
        "entry_script": "train.py",
        "framework_version": "7.0.0",
        "script_params": {
            "--epochs": 20, "--learning-rate": 0.002, "--batch-size": 128, "--optimizer": "adam",
            "--weight-decay": 0.0005, "--dropout": 0.25, "--seed": 42, "--verbose": "",
            "--layers": [64, 64, 10], "--out": "outputs/model.npz", "--resume": "auto",
        },
        "pip_packages": [
            "scikit-learn>=0.22", "pandas==1.0.5", "matplotlib>=3.1", "tqdm~=4.46", "pillow>=7.0",
            "chainercv==0.13.1", "h5py>=2.10", "imageio==2.8.0",
        ],
        "environment_variables": {
            "OMP_NUM_THREADS": "2", "CHAINER_TYPE_CHECK": "0", "CHAINER_SEED": "42",
            "DATA_VERSION": "2026-05-17", "EXPERIMENT_OWNER": "vision-team",
        },
        "shm_size": "4g",
        "max_run_duration_seconds": 7200,
    })
}

/// A run of it, named and tagged.
#[must_use]
pub fn run(snapshot: &str) -> Value {
    json!({
        "experiment_name": "digits",
        "display_name": "digits, two hidden layers, adam, dropout 0.25",
        "tags": {"team": "vision", "purpose": "baseline", "ticket": "ML-1742"},
        "priority": 0,
        "max_attempts": 3,
        "estimator": typical(snapshot),
    })
}

//! What a verdict costs: reading the body, asking what it refers to, and every rule. Looking things up is not in it.
//!
//! The goal is less than 100 µs for a typical definition, findings or not.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use estimatord::domain::{
    facts::Facts,
    json,
    judge::{judge, wanted},
    rules::examples,
};

/// A definition as people have them: a dozen parameters, arguments, packages, MPI, data.
const TYPICAL: &str = r#"{
    "compute_target": "cpu-cluster", "entry_script": "train.py", "framework_version": "7.0.0",
    "script_params": {"--epochs": 20, "--learning-rate": 0.002, "--verbose": "", "--layers": [64, 64, 10],
        "--data": {"type": "DataReference", "datastore": "training_data", "data_reference_name": "digits",
            "path_on_datastore": "digits/2026", "mode": "mount"}},
    "node_count": 2, "distributed_training": {"type": "Mpi", "process_count_per_node": 2},
    "pip_packages": ["scikit-learn>=0.22", "pandas==1.0.5", "matplotlib", "tqdm~=4.46"],
    "environment_variables": {"OMP_NUM_THREADS": 2, "CHAINER_TYPE_CHECK": "0"},
    "shm_size": "4g", "max_run_duration_seconds": 7200}"#;

/// The same with eight mistakes.
const FAULTY: &str = r#"{
    "compute_target": "cpu-cluser", "entry_script": "trian.py", "framework_version": "7.0",
    "script_params": {"--epochs": 20, "--learning-rate": 0.002, "--verbose": "", "--layers": [64, 64, 10],
        "--data": {"type": "DataReference", "datastore": "trainingdata", "data_reference_name": "digits",
            "path_on_datastore": "digits/2026", "mode": "mount"}},
    "nodeCount": 2, "distributed_training": {"type": "Mpi", "process_count_per_node": 0},
    "pip_packages": ["scikit-learn>=0.22", "pandas 1.0.5", "matplotlib", "tqdm~=4.46"],
    "environment_variables": {"OMP_NUM_THREADS": 2, "CHAINER_TYPE_CHECK": "0"},
    "shm_size": "4gb", "max_run_duration_seconds": 7200}"#;

/// With the source directory of the examples, and what is known of it.
fn prepared(members: &str) -> (Vec<u8>, Facts) {
    let first = format!("{{\"source_directory\": \"{}\",", examples::EXAMPLE_SNAPSHOT);
    let body = members.replacen('{', &first, 1).into_bytes();
    let read = json::parse_object(&body).expect("the definitions of this file are JSON objects");
    let facts = examples::facts(&read);
    (body, facts)
}

fn validate(criterion: &mut Criterion) {
    for (name, members, valid) in [("typical", TYPICAL, true), ("eight mistakes", FAULTY, false)] {
        let (body, facts) = prepared(members);
        let verdict = |body: &[u8]| {
            let read = json::parse_object(body).expect("it was read before");
            black_box(wanted(&read));
            judge(&read, &facts)
        };
        let once = verdict(&body);
        assert_eq!(once.is_valid(), valid, "{name}: {:?}", once.findings);
        criterion.bench_function(&format!("validate/{name}"), |bencher| {
            bencher.iter(|| verdict(black_box(&body)));
        });
    }
}

criterion_group!(benches, validate);
criterion_main!(benches);

//! What a definition says of its container, seen from inside the script. `make check-containers` brings a Docker and runs these.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    parameters::{definition, seen},
    service::{Service, data_dir},
};

const BASE_IMAGE_CPU: &str = estimatord::domain::framework::BASE_IMAGE_CPU;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make check-containers`"))
}

fn docker(arguments: &[&str]) {
    let output = Command::new("docker").args(arguments).output().expect("started");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs a container runtime: make check-containers"]
fn images_and_memory() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let image = variable("ESTIMATORD_TEST_IMAGE");
    let of = |members: Value| seen(&service, &definition(&service, &[], &members));
    let container = |run: &Value| run["environment"]["actual"]["container"]["image"].clone();
    let managed = json!({"custom_docker_image": image, "use_docker": true, "shm_size": "96m", "pip_packages": ["six==1.16.0"]});
    let (run, inside) = of(managed);
    assert_eq!(container(&run), json!(image));
    assert_eq!((&inside["shm"], &inside["packages"]["six"]), (&json!(96 << 20), &json!("1.16.0")));
    assert_eq!(inside["packages"]["chainer"], "7.0.0", "the framework is merged into a custom image as well");
    assert!(inside["pid"].as_u64().is_some_and(|pid| pid < 20), "it has process numbers of its own");
    // The default: a container, and 2 GiB of shared memory; with the old name of the parameter.
    let (run, inside) = of(
        json!({"custom_docker_base_image": image, "user_managed": true, "use_docker": null, "framework_version": null}),
    );
    assert_eq!((container(&run), &inside["shm"]), (json!(image), &json!(2_u64 << 30)));
    let (run, outside) = of(json!({"use_docker": false, "user_managed": true}));
    assert_eq!(container(&run), Value::Null);
    assert!(outside["pid"].as_u64().is_some_and(|pid| pid > 20));
    let environment = json!({"docker": {"enabled": true, "base_image": image, "shm_size": "80m",
        "arguments": ["--hostname", "of-the-definition"]}, "python": {"user_managed_dependencies": true, "interpreter_path": "python3"}});
    let (_, inside) = of(json!({"environment_definition": environment, "use_docker": null}));
    assert_eq!(inside["shm"], 80 << 20);

    let private = json!({"custom_docker_image": "private/python:1", "user_managed": true, "use_docker": null,
        "image_registry_details": {"address": variable("ESTIMATORD_TEST_REGISTRY"),
            "username": variable("ESTIMATORD_TEST_USER"), "password": variable("ESTIMATORD_TEST_PASSWORD")}});
    let (run, _) = of(private);
    assert!(container(&run).as_str().is_some_and(|name| name.ends_with("/private/python:1")));

    let password = variable("ESTIMATORD_TEST_PASSWORD");
    let found = Command::new("grep").args(["-rlF", &password]).arg(dir.path()).output().expect("started");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "in no file, the database's included");

    docker(&["tag", &image, BASE_IMAGE_CPU]);
    let (run, inside) = of(json!({"use_docker": null, "user_managed": true, "shm_size": "72m"}));
    docker(&["rmi", BASE_IMAGE_CPU]);
    assert_eq!((container(&run), &inside["shm"]), (json!(BASE_IMAGE_CPU), &json!(72 << 20)));
}

#[test]
#[ignore = "needs a container runtime: make check-containers"]
fn gpus_are_asked_for() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    // The target says that it has some; this machine has none, and the runtime is asked for them.
    let target = json!({"type": "AmlCompute", "backend": {"kind": "process"}, "gpus_per_node": 1});
    assert_eq!(service.call("PUT", "/v1/compute-targets/gpus", Some(&target)).status, 201);
    let members = json!({"compute_target": "gpus", "use_gpu": true, "user_managed": true, "use_docker": null,
        "custom_docker_image": variable("ESTIMATORD_TEST_IMAGE")});
    let id = service.submit(&definition(&service, &[], &members));
    let run = service.until_status(&id, &["Failed"]);
    assert!(run["detail"].as_str().is_some_and(|detail| detail.contains("gpu")), "{run}");
}

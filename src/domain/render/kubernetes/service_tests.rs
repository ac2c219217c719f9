//! The objects that this service makes, as golden files; and what holds for all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Service, object, service::STEERED};
use crate::domain::{
    ids::RunId,
    kubernetes::{CANNOT_START, HAND_OVER, KubernetesSettings, LowPriority, STAGE, Toleration},
    node_size::{NodeSize, NodeSizes},
    render::{Subject, testing, yaml},
};

/// The cases that show what is peculiar to the service's objects.
const SHOWN: [&str; 9] = [
    "minimal",
    "mpi",
    "one_off_low_priority",
    "gpu",
    "custom_image",
    "user_managed",
    "data",
    "limits",
    "conda_file",
];

fn settings() -> KubernetesSettings {
    let size = NodeSize {
        cores: Some(2),
        node_selector: BTreeMap::from([("node.kubernetes.io/instance-type".into(), "d2".into())]),
        ..NodeSize::default()
    };
    KubernetesSettings {
        namespace: "estimatord-runs".into(),
        service_url: "http://estimatord.estimatord.svc".into(),
        service_image: "registry.example/estimatord:0.1.0".into(),
        images: BTreeMap::from([("7.0.0".into(), "registry.example/chainer:7".into())]),
        queue: Some("team-a".into()),
        service_account: Some("estimatord-run".into()),
        vm_sizes: NodeSizes::from_iter([("STANDARD_D2_V2".to_owned(), size)]),
        low_priority: Some(LowPriority {
            priority_class: Some("preemptible".into()),
            node_selector: BTreeMap::from([("pool".into(), "spot".into())]),
            tolerations: vec![
                Toleration {
                    key: Some("spot".into()),
                    value: Some("true".into()),
                    effect: Some("NoSchedule".into()),
                },
                Toleration { key: Some("any".into()), ..Toleration::default() },
            ],
        }),
        ..KubernetesSettings::default()
    }
}

fn made(subject: &Subject<'_>, settings: &KubernetesSettings) -> Value {
    let variables = [
        ("AZUREML_RUN_ID".to_owned(), "0199-run".to_owned()),
        ("PYTHONPATH".to_owned(), "/estimatord/azureml/site".to_owned()),
    ];
    let service = Service {
        run_id: RunId::from_uuid(Uuid::from_u128(0x0199)),
        attempt: 2,
        settings,
        interpreter: "python3",
        variables: &variables,
        grace_seconds: 30,
    };
    object(subject, &service)
}

/// The pods of an object.
fn pods(object: &Value) -> Vec<&Value> {
    match object["kind"].as_str() {
        Some("Job") => vec![&object["spec"]["template"]["spec"]],
        _ => ["Launcher", "Worker"]
            .map(|role| &object["spec"]["mpiReplicaSpecs"][role]["template"]["spec"])
            .into(),
    }
}

fn list<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    value[name].as_array().map(|all| all.iter().collect()).unwrap_or_default()
}

fn containers(pod: &Value) -> Vec<&Value> {
    [list(pod, "initContainers"), list(pod, "containers")].concat()
}

#[test]
fn objects_are_as_they_were() {
    let settings = settings();
    testing::for_each(|name, subject| {
        if SHOWN.contains(&name) {
            let text = yaml::document(&made(subject, &settings));
            insta::with_settings!({prepend_module_to_snapshot => false, snapshot_path => "../snapshots/kubernetes_service"}, {
                insta::assert_snapshot!(name, text);
            });
        }
    });
}

#[test]
fn every_pod_keeps_to_the_standard_restricted() {
    let settings = settings();
    testing::for_each(|name, subject| {
        for pod in pods(&made(subject, &settings)) {
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{name}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            assert!(
                pod.get("hostNetwork").is_none()
                    && pod.get("hostPID").is_none()
                    && pod.get("hostIPC").is_none()
            );
            for container in containers(pod) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}: {container}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{name}: {container}");
            }
            for volume in list(pod, "volumes") {
                let kinds: Vec<&String> =
                    volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
                let allowed = ["emptyDir", "secret", "persistentVolumeClaim"];
                assert!(kinds.len() == 1 && allowed.contains(&kinds[0].as_str()), "{name}: {volume}");
            }
        }
    });
}

#[test]
fn what_is_mounted_is_there_and_tokens_are_where_they_are_needed_alone() {
    let settings = settings();
    testing::for_each(|name, subject| {
        for pod in pods(&made(subject, &settings)) {
            let volumes: BTreeSet<&str> =
                list(pod, "volumes").iter().filter_map(|volume| volume["name"].as_str()).collect();
            for container in containers(pod) {
                let mounts = list(container, "volumeMounts");
                let mut paths = BTreeSet::new();
                for mount in &mounts {
                    assert!(volumes.contains(mount["name"].as_str().unwrap()), "{name}: {mount}");
                    assert!(
                        paths.insert(mount["mountPath"].as_str().unwrap()),
                        "{name}: {mount} is there twice"
                    );
                }
                let has_token = mounts.iter().any(|mount| mount["name"] == "token");
                let needs_token = container["name"] == STAGE || container["name"] == HAND_OVER;
                assert_eq!(has_token, needs_token, "{name}: {container}");
            }
        }
    });
}

#[test]
fn files_come_first_and_go_back_last() {
    let settings = settings();
    testing::for_each(|name, subject| {
        let object = made(subject, &settings);
        let pods = pods(&object);
        // The launcher of ranks has none of the files.
        let pod = pods.last().unwrap();
        let first = list(pod, "initContainers");
        assert_eq!(first.first().unwrap()["name"], STAGE, "{name}");
        let last = first.last().unwrap();
        assert_eq!((&last["name"], &last["restartPolicy"]), (&json!(HAND_OVER), &json!("Always")), "{name}");
        assert!(
            last["startupProbe"]["exec"].is_object(),
            "{name}: a script may be done before the sidecar hears"
        );
        let timeout = list(last, "command").windows(2).find_map(|pair| {
            (*pair[0] == "--final-timeout").then(|| pair[1].as_str().unwrap().parse::<u64>().unwrap())
        });
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(
            grace > timeout.unwrap() + 30,
            "{name}: what is handed over has time beside the script's grace"
        );
        for container in pods.iter().flat_map(|pod| list(pod, "containers")) {
            assert!(container["lifecycle"]["preStop"]["exec"].is_object(), "{name}: {container}");
        }
    });
}

#[test]
fn names_and_labels_are_such_as_the_operator_takes() {
    let settings = settings();
    testing::for_each(|name, subject| {
        let object = made(subject, &settings);
        let metadata = &object["metadata"];
        assert_eq!(metadata["name"], "run-00000000000000000000000000000199-a2", "{name}");
        assert_eq!(metadata["labels"]["kueue.x-k8s.io/queue-name"], "team-a", "{name}");
        for value in metadata["labels"].as_object().unwrap().values() {
            assert!(value.as_str().unwrap().len() <= 63, "{name}: {value}");
        }
        if object["kind"] == "Job" {
            assert_eq!(object["spec"]["backoffLimit"], 0, "{name}: another start is another attempt");
            assert_eq!(object["spec"]["podFailurePolicy"]["rules"][0]["action"], "FailJob", "{name}");
        } else {
            // Fact 4.6: by default workers stay, with their GPUs.
            assert_eq!(object["spec"]["runPolicy"]["cleanPodPolicy"], "All", "{name}");
        }
    });
}

#[test]
fn packages_are_kept_where_there_is_a_claim() {
    let settings = KubernetesSettings { cache_claim: Some("environments".into()), ..settings() };
    testing::for_each(|name, subject| {
        if name != "minimal" {
            return;
        }
        let object = made(subject, &settings);
        let pod = pods(&object)[0];
        let packages = list(pod, "initContainers").into_iter().find(|one| one["name"] == "packages").unwrap();
        let script = packages["command"][2].as_str().unwrap();
        let directory = script.lines().find_map(|line| line.strip_prefix("mkdir -p ")).unwrap();
        assert!(directory.starts_with("/environments/"), "{script}");
        assert!(
            script.contains("fcntl.flock") && script.ends_with(&format!("touch {directory}/complete")),
            "{script}"
        );
        let command = &pod["containers"][0]["command"];
        assert!(command.to_string().contains(&format!("{directory}/python/bin/python")), "{command}");
    });
}

#[test]
fn what_cannot_start_says_so_in_the_words_that_are_looked_for() {
    assert!(STEERED.contains(CANNOT_START));
}

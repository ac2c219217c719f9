//! What `deploy/` gives to Kubernetes: that it renders, that its parts fit each other and the program, and that its pods keep to the
//! Pod Security standard `restricted`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use clap::{CommandFactory as _, Parser as _};
use estimatord::config::Cli;
use serde::Deserialize as _;
use serde_json::{Value, json};

const OVERLAYS: [&str; 3] = ["small", "production", "prometheus"];

/// Everything of an overlay. None where there is no kubectl, which CI has to have.
fn objects(overlay: &str) -> Option<Vec<Value>> {
    rendered(&format!("overlays/{overlay}"))
}

fn rendered(overlay: &str) -> Option<Vec<Value>> {
    let output = match Command::new("kubectl").args(["kustomize", &format!("deploy/{overlay}")]).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "kubectl (1.27 or newer) cannot be run: {error}");
            eprintln!("left out: kubectl cannot be run: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{overlay}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{overlay}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = yaml_serde::Deserializer::from_str(&text);
    Some(documents.map(|document| Value::deserialize(document).unwrap()).collect())
}

fn each(check: impl Fn(&str, &[Value])) {
    for overlay in OVERLAYS {
        if let Some(objects) = objects(overlay) {
            check(overlay, &objects);
        }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The pods that come of the objects: of which object, labels, and specification.
fn pods(objects: &[Value]) -> Vec<(&Value, &Value, &Value)> {
    let workloads = objects.iter().filter(|object| object.pointer("/spec/template").is_some());
    workloads
        .map(|object| {
            let template = &object["spec"]["template"];
            (object, &template["metadata"]["labels"], &template["spec"])
        })
        .collect()
}

/// Whether labels have all that a selector asks for.
fn is_selected(labels: &Value, selector: &Value) -> bool {
    selector
        .as_object()
        .is_some_and(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

fn port_names(pod: &Value) -> BTreeSet<&str> {
    list(pod, "/containers/0/ports").iter().map(|port| text(port, "/name")).collect()
}

#[test]
fn every_part_is_there() {
    each(|overlay, objects| {
        let seen: BTreeSet<String> = objects
            .iter()
            .map(|object| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name")))
            .collect();
        let mut wanted = vec![
            "Namespace estimatord",
            "ServiceAccount estimatord-api",
            "ServiceAccount estimatord-worker",
            "PersistentVolumeClaim estimatord-artifacts",
            "Job estimatord-migrate",
            "Deployment estimatord-api",
            "StatefulSet estimatord-worker",
            "Service estimatord",
            "Service estimatord-worker",
            "PodDisruptionBudget estimatord-api",
            "PodDisruptionBudget estimatord-worker",
            "NetworkPolicy estimatord",
            "NetworkPolicy estimatord-api",
        ];
        if overlay == "prometheus" {
            wanted.extend(["ServiceMonitor estimatord", "PrometheusRule estimatord"]);
        }
        if overlay != "small" {
            wanted.extend([
                "HorizontalPodAutoscaler estimatord-api",
                "Ingress estimatord",
                "Service estimatord-api-probes",
                "ConfigMap estimatord-dashboard",
            ]);
        }
        let (hashed, others): (BTreeSet<_>, BTreeSet<_>) = seen
            .iter()
            .map(String::as_str)
            .partition(|name| name.starts_with("ConfigMap estimatord-") && !name.ends_with("-dashboard"));
        assert_eq!(hashed.len(), 1, "the settings: {seen:?}");
        assert_eq!(others, wanted.into_iter().collect(), "{overlay}");
        for object in objects.iter().filter(|object| object["kind"] != "Namespace") {
            assert_eq!(object["metadata"]["namespace"], "estimatord", "{object:#}");
        }
    });
}

#[test]
fn pods_keep_to_the_standard_restricted_and_need_no_writable_root() {
    each(|overlay, objects| {
        for namespace in kind(objects, "Namespace") {
            assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
        }
        for (object, _, pod) in pods(objects) {
            let name = format!("{overlay}: {}", text(object, "/metadata/name"));
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{name}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            // Only workers ask the Kubernetes API for anything.
            let has_token = object["kind"] == "StatefulSet";
            assert_eq!(pod["automountServiceAccountToken"], has_token, "{name}");
            for shared in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
                assert_eq!(pod[shared], Value::Null, "{name}");
            }
            let volumes = list(pod, "/volumes");
            assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()), "{name}");
            for container in list(pod, "/containers") {
                let expected = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]}});
                assert_eq!(container["securityContext"], expected, "{name}");
                assert!(container.pointer("/resources/requests/cpu").is_some(), "{name}");
                assert!(container.pointer("/resources/limits/memory").is_some(), "{name}");
                let mounted: BTreeSet<&str> =
                    list(container, "/volumeMounts").iter().map(|mount| text(mount, "/mountPath")).collect();
                if object["kind"] != "Job" {
                    for path in ["/tmp", "/artifacts", "/var/lib/estimatord", "/run/estimatord"] {
                        assert!(mounted.contains(path), "{name}: {path}");
                    }
                    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                        assert_eq!(container[probe]["httpGet"]["port"], "probes", "{name}");
                    }
                }
            }
        }
    });
}

#[test]
fn the_program_takes_what_it_is_started_with() {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    let variables: BTreeSet<&str> = serve
        .get_arguments()
        .filter_map(|option| option.get_env()?.to_str())
        .chain(["ESTIMATORD_SECRET_KEY", "ESTIMATORD_OTHER_SECRET_KEYS"])
        .collect();
    each(|overlay, objects| {
        let settings = kind(objects, "ConfigMap")
            .find(|map| map["data"]["ESTIMATORD_LISTEN"].is_string())
            .expect("the settings");
        for name in settings["data"].as_object().unwrap().keys() {
            assert!(variables.contains(name.as_str()), "{overlay}: {name}");
        }
        for (_, _, pod) in pods(objects) {
            let container = &pod["containers"][0];
            let words = list(container, "/args").iter().map(|word| word.as_str().unwrap());
            Cli::try_parse_from(["estimatord"].into_iter().chain(words))
                .unwrap_or_else(|error| panic!("{error}"));
            for variable in list(container, "/env") {
                assert!(variables.contains(text(variable, "/name")), "{overlay}: {variable}");
            }
            let mounts = list(container, "/volumeMounts");
            for mount in mounts {
                let known = list(pod, "/volumes").iter().any(|volume| volume["name"] == mount["name"])
                    || mount["name"] == "data";
                assert!(known, "{overlay}: {mount}");
            }
            // Where the settings say that things are is where they are mounted.
            if !mounts.is_empty() {
                for (variable, below) in [("ESTIMATORD_DATA_DIR", ""), ("ESTIMATORD_ARTIFACTS_DIR", "")] {
                    let path = format!("{}{below}", text(&settings["data"], &format!("/{variable}")));
                    assert!(mounts.iter().any(|mount| mount["mountPath"] == path), "{overlay}: {path}");
                }
                let token = text(&settings["data"], "/ESTIMATORD_API_TOKEN_FILE");
                assert!(
                    mounts.iter().any(|mount| token.starts_with(text(mount, "/mountPath"))),
                    "{overlay}: {token}"
                );
            }
        }
    });
}

#[test]
fn whatever_is_named_is_there() {
    each(|overlay, objects| {
        let names: BTreeMap<&str, BTreeSet<&str>> =
            objects.iter().fold(BTreeMap::new(), |mut names, object| {
                names
                    .entry(text(object, "/kind"))
                    .or_insert_with(BTreeSet::new)
                    .insert(text(object, "/metadata/name"));
                names
            });
        let pods = pods(objects);
        for (_, _, pod) in &pods {
            assert!(names["ServiceAccount"].contains(text(pod, "/serviceAccountName")), "{overlay}");
            for claim in list(pod, "/volumes")
                .iter()
                .filter_map(|volume| volume.pointer("/persistentVolumeClaim/claimName"))
            {
                assert!(
                    names["PersistentVolumeClaim"].contains(claim.as_str().unwrap()),
                    "{overlay}: {claim}"
                );
            }
            for source in list(pod, "/containers/0/envFrom") {
                assert!(
                    names["ConfigMap"].contains(text(source, "/configMapRef/name")),
                    "{overlay}: {source}"
                );
            }
            // The operator makes it, as docs/kubernetes.md says.
            let keys = ["database-url", "secret-key", "api-token"];
            for key in
                list(pod, "/containers/0/env").iter().map(|variable| &variable["valueFrom"]["secretKeyRef"])
            {
                assert_eq!(key["name"], "estimatord", "{overlay}");
                // One is there only while the secret key is changed.
                let is_there = keys.contains(&text(key, "/key"));
                assert!(
                    is_there || (key["key"] == "other-secret-keys" && key["optional"] == true),
                    "{overlay}"
                );
            }
        }
        for service in kind(objects, "Service") {
            let selector = &service["spec"]["selector"];
            let selected: Vec<_> =
                pods.iter().filter(|(_, labels, _)| is_selected(labels, selector)).collect();
            assert_eq!(selected.len(), 1, "{overlay}: {service:#}");
            for port in list(service, "/spec/ports") {
                assert!(port_names(selected[0].2).contains(text(port, "/targetPort")), "{overlay}: {port}");
            }
        }
        for budget in kind(objects, "PodDisruptionBudget") {
            let selector = &budget["spec"]["selector"]["matchLabels"];
            assert_eq!(
                pods.iter().filter(|(_, labels, _)| is_selected(labels, selector)).count(),
                1,
                "{overlay}"
            );
        }
        for policy in kind(objects, "NetworkPolicy") {
            let selector = &policy["spec"]["podSelector"]["matchLabels"];
            let selected: Vec<_> =
                pods.iter().filter(|(_, labels, _)| is_selected(labels, selector)).collect();
            for port in list(policy, "/spec/ingress/0/ports") {
                assert!(
                    selected.iter().any(|(_, _, pod)| port_names(pod).contains(text(port, "/port"))),
                    "{overlay}"
                );
            }
        }
        for workload in kind(objects, "Deployment").chain(kind(objects, "StatefulSet")) {
            let selector = &workload["spec"]["selector"]["matchLabels"];
            assert!(is_selected(&workload["spec"]["template"]["metadata"]["labels"], selector), "{overlay}");
            assert!(selector["app.kubernetes.io/component"].is_string(), "{overlay}: {selector}");
        }
        for scaler in kind(objects, "HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            assert!(names[text(target, "/kind")].contains(text(target, "/name")), "{overlay}");
            let scaled = kind(objects, text(target, "/kind")).next().unwrap();
            assert_eq!(scaled["spec"]["replicas"], Value::Null, "who scales is the autoscaler alone");
        }
        for ingress in kind(objects, "Ingress") {
            let backend = ingress.pointer("/spec/rules/0/http/paths/0/backend/service").unwrap();
            let service = kind(objects, "Service")
                .find(|service| service["metadata"]["name"] == backend["name"])
                .unwrap();
            assert!(
                list(service, "/spec/ports").iter().any(|port| port["name"] == backend["port"]["name"]),
                "{overlay}"
            );
        }
        for monitor in kind(objects, "ServiceMonitor") {
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            let port = text(monitor, "/spec/endpoints/0/port");
            let watched: BTreeSet<&str> = kind(objects, "Service")
                .filter(|service| is_selected(&service["metadata"]["labels"], selector))
                .filter(|service| list(service, "/spec/ports").iter().any(|known| known["name"] == port))
                .map(|service| text(service, "/spec/selector/app.kubernetes.io~1component"))
                .collect();
            assert_eq!(watched, ["api", "worker"].into(), "{overlay}");
        }
    });
}

#[test]
fn the_namespace_of_runs_gives_the_workers_what_they_need_and_the_runs_nothing() {
    let Some(objects) = rendered("runs") else { return };
    for object in objects.iter().filter(|object| object["kind"] != "Namespace") {
        assert_eq!(object["metadata"]["namespace"], "estimatord-runs", "{object:#}");
    }
    let namespace = kind(&objects, "Namespace").next().expect("a namespace");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    let account = kind(&objects, "ServiceAccount").next().expect("an account");
    assert_eq!(account["automountServiceAccountToken"], false);
    let role = kind(&objects, "Role").next().expect("a role");
    for rule in list(role, "/rules") {
        let words = |name: &str| -> BTreeSet<&str> {
            list(rule, name).iter().map(|word| word.as_str().expect("a text")).collect()
        };
        assert!(!words("/verbs").contains("*") && !words("/resources").contains("*"), "{rule}");
        if words("/resources").contains("secrets") {
            assert_eq!(words("/verbs"), BTreeSet::from(["create"]), "a worker reads no secrets");
        }
        for foreign in ["pods/exec", "nodes", "namespaces", "pods/attach"] {
            assert!(!words("/resources").contains(foreign), "{rule}");
        }
    }
    let binding = kind(&objects, "RoleBinding").next().expect("a binding");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let subject = &list(binding, "/subjects")[0];
    assert_eq!(
        (&subject["name"], &subject["namespace"]),
        (&json!("estimatord-worker"), &json!("estimatord"))
    );
    // It is the one that the service's overlays have.
    each(|overlay, objects| {
        let found =
            kind(objects, "ServiceAccount").any(|account| account["metadata"]["name"] == subject["name"]);
        assert!(found, "{overlay}");
    });
}

fn file(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &str) -> Value {
    yaml_serde::from_str(&file(path)).unwrap()
}

/// The names of figures in queries: what begins as those of the service do.
fn figures_in(queries: &str) -> BTreeSet<String> {
    let words = queries.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    words
        .filter(|word| word.starts_with("estimatord_") || word.starts_with("process_"))
        .map(|word| {
            let ends = ["_bucket", "_sum", "_count"];
            ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn alerts_and_the_dashboard_ask_for_figures_that_there_are() {
    let page = file("docs/metrics.md");
    let rules = yaml("deploy/monitoring/rules.yaml");
    let rules = list(&rules, "/groups/0/rules").iter().map(|rule| text(rule, "/expr").to_owned());
    let dashboard: Value = serde_json::from_str(&file("deploy/overlays/production/estimatord.json")).unwrap();
    let panels = list(&dashboard, "/panels").iter().flat_map(|panel| list(panel, "/targets"));
    let panels = panels.map(|target| text(target, "/expr").to_owned());
    let asked: BTreeSet<String> = rules.chain(panels).flat_map(|query| figures_in(&query)).collect();
    assert!(asked.len() > 20, "{asked:?}");
    for name in asked {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/metrics.md");
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_tried() {
    let rules = yaml("deploy/monitoring/rules.yaml");
    let of_the_operator = yaml("deploy/overlays/prometheus/rules.yaml");
    assert_eq!(rules["groups"], of_the_operator["spec"]["groups"]);
    let (page, tried) = (file("docs/alerts.md"), file("deploy/monitoring/rules_test.yaml"));
    let mut seen = 0;
    for rule in list(&rules, "/groups/0/rules") {
        let name = text(rule, "/alert");
        assert!(page.contains(&format!("\n## {name}\n")), "{name} is not in docs/alerts.md");
        let anchor = format!("docs/alerts.md#{}", name.to_lowercase());
        assert_eq!(text(rule, "/annotations/runbook"), anchor);
        assert!(!text(rule, "/annotations/summary").is_empty());
        assert!(["critical", "warning"].contains(&text(rule, "/labels/severity")), "{name}");
        assert!(tried.contains(&format!("alertname: {name}")), "{name} is not tried");
        seen += 1;
    }
    assert_eq!(seen, page.matches("\n## ").count(), "docs/alerts.md has an alert that is not there");
}

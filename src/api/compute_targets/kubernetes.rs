//! The `backend` of a target on Kubernetes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    backend::{Cluster, is_plain_path, vm_sizes},
    body::short_text,
};
use crate::{
    api::findings::{Members, error_at, escaped, kind_of, nearest},
    domain::{
        base_url::BaseUrl,
        framework,
        kubernetes::{KubernetesSettings, LowPriority, Toleration},
    },
};

/// A month: longer than any credentials and most clusters' patience.
const MAX_PENDING_SECONDS: i64 = 2_592_000;
const IN_CLUSTER: &str = "in-cluster";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn read(members: &mut Members<'_>) -> Option<KubernetesSettings> {
    let before = members.findings.len();
    let namespace = needed(members, "namespace", "the name of a namespace");
    let settings = KubernetesSettings {
        namespace: namespace.and_then(|text| named(members, "namespace", text)).unwrap_or_default(),
        kubeconfig: kubeconfig(members),
        context: short_text(members, "context"),
        service_url: service_url(members).unwrap_or_default(),
        service_image: image(members).unwrap_or_default(),
        images: images(members),
        queue: name(members, "queue"),
        service_account: name(members, "service_account"),
        cache_claim: name(members, "cache_claim"),
        vm_sizes: vm_sizes(members, Cluster::Kubernetes),
        low_priority: low_priority(members),
        pending_timeout_seconds: members
            .integer("pending_timeout_seconds", 1..=MAX_PENDING_SECONDS)
            .and_then(|seconds| u32::try_from(seconds).ok()),
    };
    (members.findings.len() == before).then_some(settings)
}

fn needed(members: &mut Members<'_>, name: &'static str, form: &str) -> Option<String> {
    let before = members.findings.len();
    let text = short_text(members, name);
    if text.is_none() && members.findings.len() == before {
        members.missing(name, form);
    }
    text
}

/// The name of an object: a label or subdomain of DNS.
fn name(members: &mut Members<'_>, member: &'static str) -> Option<String> {
    let text = short_text(members, member)?;
    named(members, member, text)
}

fn named(members: &mut Members<'_>, member: &'static str, text: String) -> Option<String> {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_part = |part: &str| {
        !part.is_empty() && part.chars().all(is_inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    let dots = member != "namespace";
    let is_name = if dots { text.split('.').all(is_part) } else { is_part(&text) };
    if is_name && text.len() <= if dots { 253 } else { 63 } {
        return Some(text);
    }
    let message = format!("`{member}` must be a name as Kubernetes has it: small letters, digits and `-`");
    members.refuse("invalid-word", member, message, "write the name as `kubectl get` shows it");
    None
}

fn kubeconfig(members: &mut Members<'_>) -> Option<String> {
    let path = short_text(members, "kubeconfig")?;
    if path == IN_CLUSTER {
        return None;
    }
    if is_plain_path(&path) {
        return Some(path);
    }
    let message =
        "`kubeconfig` must be the absolute path of a file on the workers' machines, or `in-cluster`";
    members.refuse(
        "invalid-path",
        "kubeconfig",
        message,
        "write e.g. `/etc/estimatord/kubeconfig`, or leave it out where the worker itself runs in the cluster",
    );
    None
}

fn service_url(members: &mut Members<'_>) -> Option<String> {
    let form = "the address at which pods reach this service";
    let text = needed(members, "service_url", form)?;
    if let Ok(url) = text.parse::<BaseUrl>() {
        return Some(url.to_string());
    }
    let message = "`service_url` must be an http or https address without credentials, query and fragment";
    members.refuse(
        "invalid-url",
        "service_url",
        message,
        "write e.g. `http://estimatord.estimatord.svc:8080`",
    );
    None
}

fn image(members: &mut Members<'_>) -> Option<String> {
    let text = needed(members, "service_image", "the image of this service, as the cluster pulls it")?;
    is_image(&text).then_some(text).or_else(|| {
        let message =
            "`service_image` must be the name of an image, such as `registry.example/estimatord:0.1.0`";
        members.refuse("image-reference-invalid", "service_image", message, "write `registry/name:tag`");
        None
    })
}

/// Whether a text can be the name of an image; whether there is such an image the cluster finds out.
fn is_image(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_graphic())
}

fn images(backend: &mut Members<'_>) -> BTreeMap<String, String> {
    let Some(map) = backend.object("images") else { return BTreeMap::new() };
    let at = backend.pointer("images");
    let versions = framework::SUPPORTED_VERSIONS;
    let mut images = BTreeMap::new();
    for (version, value) in map {
        let pointer = format!("{at}/{}", escaped(version));
        let fault = match value {
            _ if !versions.contains(&version.as_str()) => Some((
                "framework-version-unsupported",
                format!("there are these versions of the framework: `{}`", versions.join("`, `")),
            )),
            Value::String(text) if is_image(text) => {
                images.insert(version.clone(), text.clone());
                None
            }
            Value::String(_) => Some(("image-reference-invalid", "this is no name of an image".to_owned())),
            other => Some(("wrong-type", format!("an image is {}; it must be a text", kind_of(other)))),
        };
        if let Some((rule, message)) = fault {
            let fix = format!(
                "write e.g. {{\"{}\": \"registry.example/chainer:7\"}}",
                versions[versions.len() - 1]
            );
            backend.findings.push(error_at(rule, &pointer, message, fix));
        }
    }
    images
}

/// Labels and their values, as a node selector has them.
pub(super) fn labels(parent: &mut Members<'_>, member: &'static str) -> BTreeMap<String, String> {
    let Some(map) = parent.object(member) else { return BTreeMap::new() };
    let at = parent.pointer(member);
    let mut labels = BTreeMap::new();
    for (key, value) in map {
        match value {
            Value::String(text) if is_label_key(key) && is_label_value(text) => {
                labels.insert(key.clone(), text.clone());
            }
            _ => {
                let message = "a label has a key such as `node.kubernetes.io/instance-type` and a text of at most 63 characters";
                let fix = "write it as `kubectl get nodes --show-labels` shows it";
                parent.findings.push(error_at(
                    "invalid-word",
                    &format!("{at}/{}", escaped(key)),
                    message,
                    fix,
                ));
            }
        }
    }
    labels
}

fn is_label_value(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(is_inner)
        && is_end(text.chars().next())
        && is_end(text.chars().last())
}

fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_domain = |prefix: &str| {
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
    };
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_domain)
}

fn low_priority(backend: &mut Members<'_>) -> Option<LowPriority> {
    let map = backend.object("low_priority")?;
    let mut members = Members::new(map, backend.pointer("low_priority"));
    let priority_class = name(&mut members, "priority_class");
    let node_selector = labels(&mut members, "node_selector");
    let tolerations = tolerations(&mut members);
    backend.findings.append(&mut members.finish());
    Some(LowPriority { priority_class, node_selector, tolerations })
}

fn tolerations(parent: &mut Members<'_>) -> Vec<Toleration> {
    let Some(list) = parent.list("tolerations") else { return Vec::new() };
    let at = parent.pointer("tolerations");
    let mut tolerations = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let pointer = format!("{at}/{index}");
        match value {
            Value::Object(map) => tolerations.push(toleration(map, &pointer, parent)),
            other => {
                let form = "an object such as {\"key\": \"spot\", \"effect\": \"NoSchedule\"}";
                let message = format!("a toleration is {}; it must be {form}", kind_of(other));
                parent.findings.push(error_at("wrong-type", &pointer, message, format!("write {form}")));
            }
        }
    }
    tolerations
}

fn toleration(map: &Map<String, Value>, pointer: &str, parent: &mut Members<'_>) -> Toleration {
    let mut members = Members::new(map, pointer);
    let key = short_text(&mut members, "key");
    if key.as_deref().is_some_and(|key| !is_label_key(key)) {
        let message = "`key` must be the key of a taint";
        members.refuse("invalid-word", "key", message, "write it as `kubectl describe node` shows it");
    }
    let value = short_text(&mut members, "value");
    if value.as_deref().is_some_and(|value| !is_label_value(value)) || (value.is_some() && key.is_none()) {
        let message = "`value` must be the value of a taint whose key is given";
        members.refuse("invalid-word", "value", message, "write it as `kubectl describe node` shows it");
    }
    let effect = short_text(&mut members, "effect");
    if let Some(word) = effect.as_deref().filter(|word| !EFFECTS.contains(word)) {
        let fix = format!("write `{}`", nearest(word, &EFFECTS).unwrap_or(EFFECTS[0]));
        members.refuse(
            "unknown-word",
            "effect",
            format!("`effect` must be one of `{}`", EFFECTS.join("`, `")),
            fix,
        );
    }
    parent.findings.append(&mut members.finish());
    Toleration { key, value, effect }
}

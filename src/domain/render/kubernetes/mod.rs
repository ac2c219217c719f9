//! A manifest for Kubernetes: a `Job` for one process, an `MPIJob` of the MPI operator for ranks.
//!
//! Both keep to the Pod Security standard `restricted`. Comments say what has to be there before: claims, and the secret
//! that an image is pulled with.

mod data;
mod expressed;
mod job;
mod mpi_job;
mod pod;
mod service;
#[cfg(test)]
mod service_tests;

use super::{
    NotExpressed, Subject,
    notes::Notes,
    packages::{self, Packages},
    resources::name_of_script,
    shell, yaml,
};
use crate::domain::plan::Launcher;

pub use service::{
    HAND_OVER_SECONDS, HOME, Service, area, image, installed_interpreter, object, substitutions,
};

/// The claim with the source files.
const SOURCE_CLAIM: &str = "estimatord-source";

/// The secret that an image is pulled with.
const PULL_SECRET: &str = "estimatord-registry";

/// How long what has ended is kept, with its logs.
const KEPT_SECONDS: u64 = 24 * 60 * 60;

/// What a manifest is made of.
struct Parts<'a> {
    subject: &'a Subject<'a>,
    packages: Packages,
    claims: data::Claims<'a>,
    name: String,
    /// Where this service makes it: what it adds.
    service: Option<&'a Service<'a>>,
}

pub(super) fn render(subject: &Subject<'_>) -> (String, Vec<NotExpressed>) {
    let mut notes = Notes::new(subject);
    let packages = packages::packages(subject, true, &mut notes);
    expressed::note(subject, &packages, &mut notes);
    let claims = data::claims(&subject.plan.data);
    let parts = Parts { subject, packages, claims, name: name(subject), service: None };
    let manifest = match subject.plan.launcher {
        Launcher::Single => job::manifest(&parts),
        Launcher::Mpi => mpi_job::manifest(&parts),
    };
    (comments(&parts) + &yaml::document(&manifest), notes.finish())
}

/// A label of DNS that begins with a letter, of at most 40 characters: the names of an MPIJob's pods are made of it.
fn name(subject: &Subject<'_>) -> String {
    let script = name_of_script(&subject.plan.entry_script, 24);
    let hash = subject.plan.environment.hash.trim_start_matches("sha256:");
    let start = if script.starts_with(|c: char| c.is_ascii_digit()) { "run-" } else { "" };
    format!("{start}{script}-{}", hash.get(..8).unwrap_or(hash))
}

/// A text in which Kubernetes finds no variable: it reads `$(NAME)`, and `$$` as an escaped `$`.
fn literal(text: &str) -> String {
    let mut escaped = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        escaped.push(c);
        if c == '$' && matches!(rest.peek(), Some('$' | '(')) {
            escaped.push('$');
        }
    }
    escaped
}

fn comments(parts: &Parts<'_>) -> String {
    let plan = parts.subject.plan;
    let mut lines = vec![
        "A Chainer definition as it is given to Kubernetes: kubectl create -f job.yaml".to_owned(),
        "One of this name can be there at a time: delete it, or change the name, before the next.".to_owned(),
        format!(
            "The claim {SOURCE_CLAIM} has to hold the files of snapshot {} at its root.",
            plan.snapshot_id.as_str()
        ),
    ];
    for claim in &parts.claims.list {
        lines.push(format!("The claim {} has to hold what datastore {} holds.", claim.name, claim.datastore));
    }
    let container = &plan.environment.container;
    if let Some(user) = &container.registry_username {
        lines.push("The image is pulled with a secret, which you make once:".to_owned());
        lines.push(format!(
            "  kubectl create secret docker-registry {PULL_SECRET} --docker-server={} --docker-username={} \
             --docker-password=...",
            shell::quoted(container.registry_address.as_deref().unwrap_or_default()),
            shell::quoted(user)
        ));
    }
    if let Some(dockerfile) = &container.base_dockerfile {
        lines.push(format!("The image {} is built of this Dockerfile:", pod::image(parts)));
        lines.extend(dockerfile.lines().map(|line| format!("  {line}")));
    }
    lines.extend(parts.packages.remarks.iter().map(|remark| remark.text.clone()));
    // What would end a comment, for any reader of YAML, does not stand in one.
    let harmless =
        |c: char| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c };
    lines.iter().map(|line| format!("# {}\n", line.chars().map(harmless).collect::<String>())).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use crate::domain::render::Format;

    #[test]
    fn what_kubernetes_takes_for_a_variable_is_escaped() {
        for (text, escaped) in [
            ("$(HOME)", "$$(HOME)"),
            ("$HOME $", "$HOME $"),
            ("$$", "$$$"),
            ("$$(HOME)", "$$$$(HOME)"),
            ("$$x", "$$$x"),
            ("${{x}}", "${{x}}"),
        ] {
            assert_eq!(literal(text), escaped);
        }
    }

    #[test]
    fn manifests_are_as_they_were() {
        for (name, rendering) in testing::rendered(Format::Kubernetes) {
            insta::with_settings!({prepend_module_to_snapshot => false, snapshot_path => "../snapshots/kubernetes"}, {
                insta::assert_snapshot!(name, testing::shown(&rendering));
            });
        }
    }
}

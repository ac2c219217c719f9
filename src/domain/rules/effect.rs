//! What a definition may ask for and this version cannot do yet. Only starting a run asks.

use serde_json::{Map, Value};

use super::{CHAINER_PAGE, Context, FileState, Rule, Sink, grammar::pip, words};
use crate::domain::{
    definition::{Argument, Draft},
    finding::{Finding, Severity},
    framework,
};

/// The rule of these findings. It is not part of the catalogue of validation: it refuses runs, not definitions.
pub(crate) static EFFECT: Rule = Rule {
    slug: "parameter-not-yet-effective",
    severity: Severity::Error,
    parameters: &[],
    summary: "A run is refused when its definition uses a parameter that this version cannot put into effect yet.",
    doc: "Every parameter of the class has a documented effect; a run that silently left one out would be another run.",
    url: CHAINER_PAGE,
    check: used,
};

/// One finding for each parameter that is used and has no effect yet.
pub(crate) fn not_yet_effective(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    (EFFECT.check)(context, &mut Sink { rule: &EFFECT, findings: &mut findings });
    findings.sort_by_cached_key(|finding| super::place(context.body, &finding.pointer));
    findings
}

fn used(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    let one_off = !draft.compute_target.is_given() && draft.vm_size.is_given();
    let environment = draft.environment_definition.is_given();
    let image = draft.image().is_given();
    let old_image = !environment && draft.custom_docker_base_image.is_given();
    let parses = draft.disable_validation.is_false()
        && draft.entry_script.text().is_some_and(|script| script.ends_with(".py"));
    let shm_size = draft.shm_size.text().is_some_and(|size| size != framework::DEFAULT_SHM_SIZE);
    let parameters = [
        ("vm_size", one_off),
        ("vm_priority", one_off && draft.vm_priority.is_given()),
        ("script_params", params_hold_data(draft)),
        ("use_gpu", draft.use_gpu.is_true()),
        ("custom_docker_base_image", old_image),
        ("custom_docker_image", draft.custom_docker_image.is_given()),
        ("image_registry_details", image && draft.image_registry_details.is_given()),
        ("conda_packages", draft.conda_packages.is_given()),
        ("pip_packages", pip_packages_need_more(draft)),
        (draft.conda_file().0, draft.conda_file().1.is_given()),
        (draft.pip_file().0, pip_file_needs_more(context)),
        ("environment_definition", environment && environment_needs_more(context.body)),
        ("inputs", draft.inputs.is_given()),
        ("source_directory_data_store", draft.source_directory_data_store.is_given()),
        ("shm_size", shm_size && !draft.use_docker.is_false()),
        ("resume_from", draft.resume_from.is_given()),
        ("_enable_optimized_mode", draft.enable_optimized_mode.is_true()),
        ("_disable_validation", parses),
        ("_show_lint_warnings", parses && draft.show_lint_warnings.is_true()),
        ("_show_package_warnings", parses && draft.show_package_warnings.is_true()),
    ];
    for (name, is_used) in parameters {
        if is_used {
            sink.report(
                format!("/{name}"),
                format!("`{name}` is valid, but this version cannot put what it says into effect yet."),
                words(format!("Remove `{name}` for now, or only validate and store the definition.")),
            );
        }
    }
}

fn params_hold_data(draft: &Draft) -> bool {
    let mut found = Vec::new();
    for (_, argument) in draft.script_params.value().into_iter().flatten() {
        Argument::references(argument, &mut found);
    }
    !found.is_empty()
}

/// Names and remote addresses can be installed; options and files cannot yet.
fn is_plain(entry: &pip::Entry) -> bool {
    matches!(entry.kind, pip::EntryKind::Requirement | pip::EntryKind::Remote)
}

fn pip_packages_need_more(draft: &Draft) -> bool {
    let entries = draft.pip_packages.value().into_iter().flatten().flatten();
    entries.map(|entry| pip::parse(entry)).any(|entry| !entry.is_ok_and(|entry| is_plain(&entry)))
}

fn pip_file_needs_more(context: &Context<'_>) -> bool {
    match &context.pip_file {
        FileState::Sound(lines) => lines.iter().any(|line| line.has_options || !is_plain(&line.entry)),
        FileState::NotLookedUp => false,
        FileState::Missing | FileState::Invalid(_) => true,
    }
}

/// Whether an environment says more than: nothing is built, this interpreter, these variables.
fn environment_needs_more(body: &Map<String, Value>) -> bool {
    let Some(Value::Object(environment)) = body.get("environment_definition") else {
        return true;
    };
    let mut self_managed = false;
    for (key, value) in environment {
        match key.as_str() {
            "name" | "version" | "environment_variables" | "environmentVariables" => {}
            "python" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    match key.as_str() {
                        "user_managed_dependencies" | "userManagedDependencies" => {
                            self_managed |= value.as_bool() == Some(true);
                        }
                        "interpreter_path" | "interpreterPath" => {}
                        _ if is_empty(value) => {}
                        _ => return true,
                    }
                }
            }
            _ if is_empty(value) => {}
            _ => return true,
        }
    }
    !self_managed
}

/// Whether a value says nothing: null, an empty text, or an object or list of such.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

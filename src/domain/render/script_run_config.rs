//! Python for SDK v1: a `ScriptRunConfig` with an `Environment` of its own.
//!
//! Every text of a definition is a literal of [`quoting`](super::quoting), so none of it can become code.

use std::fmt::Write as _;

use super::{
    NotExpressed, Subject,
    notes::{self, Notes},
    quoting::{python, python_list},
};
use crate::domain::{
    environment::{Environment, EnvironmentKind},
    plan::{InputKind, InputMode, Launcher, Plan, PlannedInput},
};

/// The variable that the text reads the registry's password from.
const PASSWORD: &str = "REGISTRY_PASSWORD";

/// The name that the SDK gives to the reference of a checkpoint, and the text as long as no input has it.
const CHECKPOINT: &str = "MODEL_LOCATION";

pub(super) fn render(subject: &Subject<'_>) -> (String, Vec<NotExpressed>) {
    let plan = subject.plan;
    let needs_workspace = needs_workspace(plan);
    let mut text = head(plan);
    text.push_str(&environment(subject));
    text.push('\n');
    if needs_workspace {
        text.push_str("\ndef configuration(workspace):\n    \"\"\"Says what is run: its data is found by the workspace.\"\"\"\n");
        text.push_str(&indented(&data(plan)));
        text.push_str(&indented(&configuration(plan)));
        text.push_str("    return config\n");
    } else {
        text.push_str(&configuration(plan));
    }
    text.push_str(&tail(plan, needs_workspace));
    (text, notes(subject))
}

fn needs_workspace(plan: &Plan) -> bool {
    !plan.data.inputs.is_empty() || plan.data.resume_from.is_some()
}

fn has_registry_user(plan: &Plan) -> bool {
    plan.environment.container.registry_username.is_some()
}

/// What the text is, and its imports.
fn head(plan: &Plan) -> String {
    let mut text = "\"\"\"Submits a run with Azure ML SDK v1: a ScriptRunConfig with an Environment of its own.\n\n\
        Put the files of the source tree and the workspace's config.json beside this file, then run it there.\n\"\"\"\n\n"
        .to_owned();
    if has_registry_user(plan) {
        text.push_str("import os\nimport sys\n\n");
    }
    let of_kind = |kind| plan.data.inputs.iter().any(|input| input.kind == kind);
    let mut names = vec!["Environment", "Experiment", "ScriptRunConfig", "Workspace"];
    if needs_workspace(plan) {
        names.insert(0, "Datastore");
    }
    if of_kind(InputKind::Dataset) {
        names.insert(0, "Dataset");
    }
    let _ = writeln!(text, "from azureml.core import {}", names.join(", "));
    if plan.environment.kind == EnvironmentKind::Managed {
        text.push_str("from azureml.core.conda_dependencies import CondaDependencies\n");
    }
    text.push_str("from azureml.core.runconfig import DockerConfiguration");
    text.push_str(if plan.launcher == Launcher::Mpi { ", MpiConfiguration\n" } else { "\n" });
    if of_kind(InputKind::DataReference) || (plan.data.resume_from.is_some() && !checkpoint_is_last(plan)) {
        text.push_str("from azureml.data.data_reference import DataReference\n");
    }
    if checkpoint_is_last(plan) {
        text.push_str("from azureml.data.datapath import DataPath\n");
    }
    if of_kind(InputKind::Dataset) {
        text.push_str("from azureml.data.dataset_consumption_config import DatasetConsumptionConfig\n");
    }
    text.push('\n');
    text
}

/// The statements that make `environment`.
fn environment(subject: &Subject<'_>) -> String {
    let environment = &subject.plan.environment;
    let own = subject.definition.and_then(|own| own.draft().environment_definition.value());
    let name = own.and_then(|own| own.name.text()).unwrap_or("estimator");
    let mut text = format!("environment = Environment({})\n", python(name));
    if let Some(version) = own.and_then(|own| own.version.text()) {
        let _ = writeln!(text, "environment.version = {}", python(version));
    }
    let image = environment.image.as_deref().map_or_else(|| "None".to_owned(), python);
    if environment.image.as_deref().is_some_and(notes::is_framework_image) {
        let _ = writeln!(text, "# {}", notes::OLD_IMAGE);
    }
    let _ = writeln!(text, "environment.docker.base_image = {image}");
    let container = &environment.container;
    if let Some(dockerfile) = &container.base_dockerfile {
        let _ = writeln!(text, "environment.docker.base_dockerfile = {}", python(dockerfile));
    }
    if let Some(address) = &container.registry_address {
        let _ = writeln!(text, "environment.docker.base_image_registry.address = {}", python(address));
    }
    if let Some(username) = &container.registry_username {
        let _ = writeln!(text, "environment.docker.base_image_registry.username = {}", python(username));
        let password = "environment.docker.base_image_registry.password";
        let _ = writeln!(text, "{password} = os.environ.get({})", python(PASSWORD));
    }
    match environment.kind {
        EnvironmentKind::UserManaged => {
            text.push_str("environment.python.user_managed_dependencies = True\n");
            if let Some(path) = &environment.interpreter_path {
                let _ = writeln!(text, "environment.python.interpreter_path = {}", python(path));
            }
        }
        EnvironmentKind::Managed => text.push_str(&packages(environment)),
    }
    // Assigned even when there are none: a new environment has an example variable in it.
    text.push_str("environment.environment_variables = {");
    for variable in &environment.environment_variables {
        let _ = write!(text, "\n    {}: {},", python(&variable.name), python(&variable.value));
    }
    text.push_str(if environment.environment_variables.is_empty() { "}\n" } else { "\n}\n" });
    text
}

/// The statements that make `dependencies`.
fn packages(environment: &Environment) -> String {
    let version = environment.python_version.as_deref();
    let range = version.filter(|version| version.starts_with(['<', '>', '!', '~']));
    // The SDK insists on a version of Python; a star is any.
    let exact = version.filter(|_| range.is_none()).unwrap_or("*");
    let mut conda = literals(&environment.conda_packages);
    let mut text = String::new();
    if let Some(range) = range {
        text.push_str("# The blank before \"python\" keeps the SDK from reading the range as one version.\n");
        conda.insert(0, python(&format!(" python{range}")));
    }
    text.push_str("dependencies = CondaDependencies.create(\n");
    let _ = writeln!(text, "    python_version={},", python(exact));
    let _ = writeln!(text, "    conda_packages={},", python_list(&conda, 4));
    text.push_str("    pip_packages=[],\n    pin_sdk_version=False,\n)\n");
    text.push_str(
        "for channel in list(dependencies.conda_channels):\n    dependencies.remove_channel(channel)\n",
    );
    let channels = literals(&environment.conda_channels);
    if !channels.is_empty() {
        let channels = python_list(&channels, 0);
        let _ = writeln!(text, "for channel in {channels}:\n    dependencies.add_channel(channel)");
    }
    // Added one by one, options would be refused, and of two entries for one package only the last would stay.
    let pip = python_list(&literals(&environment.pip_packages), 0);
    let _ = writeln!(text, "dependencies.set_pip_requirements({pip})");
    text.push_str("environment.python.conda_dependencies = dependencies\n");
    text
}

fn literals(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| python(text)).collect()
}

/// The statements that make `data`: name → reference. Nothing when the SDK itself makes the only one.
fn data(plan: &Plan) -> String {
    if plan.data.inputs.is_empty() && checkpoint_is_last(plan) {
        return String::new();
    }
    let mut text = "data = {\n".to_owned();
    for input in &plan.data.inputs {
        let datastore = format!("Datastore.get(workspace, {})", python(&input.datastore));
        let _ = match input.kind {
            InputKind::DataReference => write!(
                text,
                "    {}: DataReference(\n        datastore={datastore},\n        data_reference_name={},\n",
                python(&input.name),
                python(&input.name)
            ),
            InputKind::Dataset => write!(
                text,
                "    {}: DatasetConsumptionConfig(\n        {},\n        Dataset.File.from_files(({datastore}, {}), validate=False),\n",
                python(&input.name),
                python(&input.name),
                python(&input.path)
            ),
        };
        if input.kind == InputKind::DataReference && !input.path.is_empty() {
            let _ = writeln!(text, "        path_on_datastore={},", python(&input.path));
        }
        let _ = writeln!(text, "        mode={},", python(mode(input)));
        if let Some(path) = &input.path_on_compute {
            let _ = writeln!(text, "        path_on_compute={},", python(path));
        }
        if input.overwrite {
            text.push_str("        overwrite=True,\n");
        }
        text.push_str("    ),\n");
    }
    if let Some(place) = plan.data.resume_from.as_ref().filter(|_| !checkpoint_is_last(plan)) {
        let _ = write!(
            text,
            "    {name}: DataReference(\n        datastore=Datastore.get(workspace, {}),\n        data_reference_name={name},\n        \
             path_on_datastore={},\n        mode=\"mount\",\n    ),\n",
            python(&place.datastore),
            python(&place.path),
            name = python(&checkpoint_name(plan)),
        );
    }
    text.push_str("}\n");
    text
}

const fn mode(input: &PlannedInput) -> &'static str {
    match input.mode {
        InputMode::Mount => "mount",
        InputMode::Download => "download",
        InputMode::Upload => "upload",
        InputMode::Direct => "direct",
    }
}

/// Whether the checkpoint is where the SDK itself would put it, and nothing else has the name that it would give it.
fn checkpoint_is_last(plan: &Plan) -> bool {
    plan.arguments.len().checked_sub(1).is_some_and(|last| plan.data_argument(last) == Some(None))
        && checkpoint_name(plan) == CHECKPOINT
}

/// The name of the checkpoint's reference: of two references with one name, the SDK would drop one.
fn checkpoint_name(plan: &Plan) -> String {
    let mut name = CHECKPOINT.to_owned();
    while plan.data.inputs.iter().any(|input| input.name == name) {
        name.push('_');
    }
    name
}

/// The statements that make `config`.
fn configuration(plan: &Plan) -> String {
    let mut text = "config = ScriptRunConfig(\n    source_directory=\".\",\n".to_owned();
    let _ = writeln!(text, "    script={},", python(&plan.entry_script));
    let _ = writeln!(text, "    arguments={},", python_list(&arguments(plan), 4));
    // The word with which the SDK asks for a cluster that is made for the run.
    let target = if plan.one_off_target.is_some() { "amlcompute" } else { plan.compute_target.as_str() };
    let _ = writeln!(text, "    compute_target={},", python(target));
    text.push_str("    environment=environment,\n");
    if plan.launcher == Launcher::Mpi {
        let _ = writeln!(
            text,
            "    distributed_job_config=MpiConfiguration(process_count_per_node={}, node_count={}),",
            plan.process_count_per_node, plan.node_count
        );
    }
    if let Some(place) = plan.data.resume_from.as_ref().filter(|_| checkpoint_is_last(plan)) {
        let _ = writeln!(
            text,
            "    resume_from=DataPath(Datastore.get(workspace, {}), {}),",
            python(&place.datastore),
            python(&place.path)
        );
    }
    // Left out, it would be thirty days.
    let seconds =
        plan.max_run_duration_seconds.map_or_else(|| "None".to_owned(), |seconds| seconds.to_string());
    let _ = writeln!(text, "    max_run_duration_seconds={seconds},");
    let _ = writeln!(text, "    docker_runtime_config={},", docker(&plan.environment));
    text.push_str(")\n");
    if !plan.environment.environment_variables.is_empty() {
        text.push_str("config.run_config.environment_variables = dict(environment.environment_variables)\n");
    }
    if let Some(one_off) = &plan.one_off_target {
        let _ = writeln!(text, "config.run_config.amlcompute.vm_size = {}", python(&one_off.vm_size));
        let _ = writeln!(text, "config.run_config.amlcompute.vm_priority = {}", python(&one_off.vm_priority));
        // There is no public name for it, and without it the cluster has one node.
        let _ = writeln!(text, "config.run_config.amlcompute._cluster_max_node_count = {}", plan.node_count);
    }
    if let Some(datastore) = &plan.data.source_datastore {
        let _ = writeln!(text, "config.run_config.source_directory_data_store = {}", python(datastore));
    }
    if needs_workspace(plan) {
        text.push_str(&registration(plan));
    }
    text
}

/// The statements that tell the run of its data.
fn registration(plan: &Plan) -> String {
    let mut text = String::new();
    for input in &plan.data.inputs {
        let name = python(&input.name);
        let _ = match input.kind {
            InputKind::DataReference => {
                writeln!(text, "config.run_config.data_references[{name}] = data[{name}].to_config()")
            }
            InputKind::Dataset => writeln!(text, "config.run_config.data[{name}] = data[{name}]"),
        };
    }
    if plan.data.resume_from.is_some() && !checkpoint_is_last(plan) {
        let name = python(&checkpoint_name(plan));
        let _ = writeln!(text, "config.run_config.data_references[{name}] = data[{name}].to_config()");
    }
    text
}

fn docker(environment: &Environment) -> String {
    if !environment.docker {
        return "DockerConfiguration(use_docker=False)".to_owned();
    }
    let mut text = "DockerConfiguration(use_docker=True".to_owned();
    if let Some(size) = &environment.shm_size {
        let _ = write!(text, ", shm_size={}", python(size));
    }
    if !environment.container.arguments.is_empty() {
        let _ = write!(text, ", arguments={}", python_list(&literals(&environment.container.arguments), 4));
    }
    text.push(')');
    text
}

fn arguments(plan: &Plan) -> Vec<String> {
    let mut items = Vec::with_capacity(plan.arguments.len());
    for (index, argument) in plan.arguments.iter().enumerate() {
        items.push(match plan.data_argument(index) {
            None => python(argument),
            Some(None) => format!("str(data[{}])", python(&checkpoint_name(plan))),
            Some(Some(input)) => match input.kind {
                InputKind::DataReference => format!("str(data[{}])", python(&input.name)),
                InputKind::Dataset => format!("data[{}]", python(&input.name)),
            },
        });
    }
    if checkpoint_is_last(plan) {
        // The SDK adds the key and the path by itself.
        items.truncate(items.len().saturating_sub(2));
    }
    items
}

/// What submits.
fn tail(plan: &Plan, needs_workspace: bool) -> String {
    let mut text = "\n\nif __name__ == \"__main__\":\n".to_owned();
    if !needs_workspace {
        text.remove(0);
    }
    if has_registry_user(plan) {
        let _ = writeln!(
            text,
            "    if {name} not in os.environ:\n        sys.exit(\"Set {PASSWORD} to the password of the image's registry.\")",
            name = python(PASSWORD)
        );
    }
    let config = if needs_workspace { "configuration(workspace)" } else { "config" };
    let _ = writeln!(
        text,
        "    workspace = Workspace.from_config()\n    run = Experiment(workspace, \"estimator\").submit({config})\n    \
         print(run.get_portal_url())"
    );
    text
}

fn indented(text: &str) -> String {
    // No literal holds a line end, so every line is one of ours.
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn notes(subject: &Subject<'_>) -> Vec<NotExpressed> {
    let plan = subject.plan;
    let mut notes = Notes::new(subject);
    notes.azure();
    if plan.one_off_target.is_some() {
        notes.approximate(
            "vm_size",
            "It is the size of a cluster that Azure ML makes for the run. A workspace that no longer makes any refuses it: name a \
             cluster of that size instead.",
        );
    }
    let container = &plan.environment.container;
    if container.registry_username.is_some() {
        let note = format!("The password is read from the variable {PASSWORD}; it is never part of a text.");
        notes.approximate(notes.registry_parameter(), note);
    }
    if notes.has_no_shared_volumes() {
        notes.approximate("environment_definition", "`shared_volumes` is left as it is by default.");
    }
    if plan.data.inputs.iter().any(|input| input.mode == InputMode::Direct) {
        for name in ["inputs", "script_params"] {
            if names_direct(subject, name) {
                notes.approximate(
                    name,
                    "The variable and the argument of a dataset that the script opens by itself hold the dataset's id, not a path.",
                );
            }
        }
    }
    if plan.arguments.iter().enumerate().any(|(index, argument)| {
        plan.data_argument(index).is_none()
            && (argument.contains("$AZUREML_DATAREFERENCE_")
                || argument.starts_with("DatasetConsumptionConfig:"))
    }) {
        notes.approximate(
            "script_params",
            "Azure ML puts a path in the place of an argument that looks like its own name for data; here it is passed on as it is.",
        );
    }
    notes.finish()
}

/// Whether a dataset that is opened directly stands in a parameter.
fn names_direct(subject: &Subject<'_>, parameter: &str) -> bool {
    let place = format!("/{parameter}/");
    let references = subject.definition.map(|own| own.draft().references()).unwrap_or_default();
    references.iter().any(|reference| {
        let direct = subject.plan.data.inputs.iter().any(|input| {
            input.mode == InputMode::Direct && Some(input.name.as_str()) == reference.effective_name()
        });
        direct && reference.pointer.starts_with(&place)
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::render::{
        Format,
        testing::{rendered, shown},
    };

    #[test]
    fn every_case() {
        for (name, rendering) in rendered(Format::ScriptRunConfig) {
            insta::with_settings!({prepend_module_to_snapshot => false, snapshot_path => "snapshots/script_run_config"}, {
                insta::assert_snapshot!(name, shown(&rendering));
            });
        }
    }
}

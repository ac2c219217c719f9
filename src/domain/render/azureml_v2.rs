//! YAML of an Azure ML v2 command job.

use serde_json::{Map, Value, json};

use super::{
    NotExpressed, Subject,
    notes::{self, Notes},
    shell, yaml,
};
use crate::domain::{
    environment::{Environment, EnvironmentKind},
    framework,
    plan::{InputKind, InputMode, Launcher, Plan, PlannedInput},
};

/// Where the form of the text is written down.
const SCHEMA: &str = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json";

/// What is said of a text in which Azure ML may see an expression.
const FILLED_IN: &str = "A text with `${{` in it is written as it is: Azure ML may take it for an expression, and put something else in its place.";

/// Seconds; the client keeps a time limit in 32 bits.
const MAX_TIMEOUT: u64 = 2_147_483_647;

pub(super) fn render(subject: &Subject<'_>) -> (String, Vec<NotExpressed>) {
    let mut text = head(subject.plan);
    text.push_str(&yaml::document(&Value::Object(job(subject))));
    (text, notes(subject))
}

/// Comments. No text of a definition stands in them but a Dockerfile, line by line.
fn head(plan: &Plan) -> String {
    let mut text = "# A command job of Azure ML v2. Put the files of the source tree beside this file, then submit it:\n\
        #   az ml job create --file job.yml\n"
        .to_owned();
    if plan.environment.container.base_dockerfile.is_none()
        && plan.environment.image.as_deref().is_none_or(notes::is_framework_image)
    {
        text.push_str("# ");
        text.push_str(notes::OLD_IMAGE);
        text.push('\n');
    }
    if let Some(dockerfile) = &plan.environment.container.base_dockerfile {
        text.push_str("# The image is built from a file `Dockerfile` beside this one, with these lines:\n");
        for line in dockerfile.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
            // Readers of YAML end a comment where a line ends, and refuse control characters.
            let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
            text.push_str(format!("#   {line}").trim_end());
            text.push('\n');
        }
    }
    text
}

fn job(subject: &Subject<'_>) -> Map<String, Value> {
    let plan = subject.plan;
    let mut job = Map::new();
    let mut put = |key: &str, value: Value| job.insert(key.to_owned(), value);
    put("$schema", SCHEMA.into());
    put("type", "command".into());
    put("code", ".".into());
    put("command", command(plan).into());
    put("environment", environment(plan));
    if !plan.environment.environment_variables.is_empty() {
        let variables = plan.environment.environment_variables.iter();
        let variables: Map<_, _> = variables.map(|v| (v.name.clone(), v.value.clone().into())).collect();
        put("environment_variables", variables.into());
    }
    let (inputs, outputs) = data(plan);
    if !inputs.is_empty() {
        put("inputs", inputs.into());
    }
    if !outputs.is_empty() {
        put("outputs", outputs.into());
    }
    match &plan.one_off_target {
        // Without a compute, the nodes are those that Azure has for one job.
        Some(one_off) => {
            if one_off.vm_priority == "lowpriority" {
                put("queue_settings", json!({"job_tier": "spot"}));
            }
        }
        None if plan.compute_target == "local" => {
            put("compute", "local".into());
        }
        None => {
            put("compute", format!("azureml:{}", plan.compute_target).into());
        }
    }
    put("resources", resources(plan).into());
    if plan.launcher == Launcher::Mpi {
        put(
            "distribution",
            json!({"type": "mpi", "process_count_per_instance": plan.process_count_per_node}),
        );
    }
    if let Some(seconds) = plan.max_run_duration_seconds {
        put("limits", json!({"timeout": seconds.min(MAX_TIMEOUT)}));
    }
    job
}

/// What a shell is given.
fn command(plan: &Plan) -> String {
    let environment = &plan.environment;
    let own =
        environment.interpreter_path.as_deref().filter(|_| environment.kind == EnvironmentKind::UserManaged);
    let mut words = vec![word(own.unwrap_or("python")), word(&plan.entry_script_word())];
    for (index, argument) in plan.arguments.iter().enumerate() {
        words.push(match plan.data_argument(index) {
            None => word(argument),
            Some(None) => format!("\"${{{{inputs.{}}}}}\"", checkpoint_name(plan)),
            Some(Some(input)) => {
                let side = if input.mode == InputMode::Upload { "outputs" } else { "inputs" };
                format!("\"${{{{{side}.{}}}}}\"", input.name)
            }
        });
    }
    words.join(" ")
}

/// Whether Azure ML may see an expression in a text. Only a shell could put one together again, so elsewhere it stays.
fn is_filled_in(text: &str) -> bool {
    text.contains("${{")
}

/// A text as one word. What Azure ML would fill in is broken up: the shell puts it together again.
fn word(text: &str) -> String {
    // A word with `$` is in single quotes, so the two that are added end them and begin them anew.
    shell::quoted(text).replace("${{", "$''{{")
}

fn environment(plan: &Plan) -> Value {
    let environment = &plan.environment;
    if environment.container.base_dockerfile.is_some() {
        return json!({"build": {"path": ".", "dockerfile_path": "Dockerfile"}});
    }
    let image = environment.image.as_deref().unwrap_or(framework::base_image(plan.use_gpu));
    match environment.kind {
        EnvironmentKind::UserManaged => json!({"image": image}),
        EnvironmentKind::Managed => json!({"image": image, "conda_file": conda(environment)}),
    }
}

fn conda(environment: &Environment) -> Value {
    let python = match environment.python_version.as_deref() {
        None => "python".to_owned(),
        Some(range) if range.starts_with(['<', '>', '!', '~']) => format!("python{range}"),
        Some(version) => format!("python={version}"),
    };
    let mut dependencies: Vec<Value> = vec![python.into()];
    dependencies.extend(environment.conda_packages.iter().map(|package| package.as_str().into()));
    if !environment.pip_packages.is_empty() {
        dependencies.push(json!({"pip": environment.pip_packages}));
    }
    let mut file = Map::new();
    if !environment.conda_channels.is_empty() {
        file.insert("channels".to_owned(), environment.conda_channels.clone().into());
    }
    file.insert("dependencies".to_owned(), dependencies.into());
    file.into()
}

fn resources(plan: &Plan) -> Map<String, Value> {
    let mut resources = Map::new();
    resources.insert("instance_count".to_owned(), plan.node_count.into());
    if let Some(one_off) = &plan.one_off_target {
        resources.insert("instance_type".to_owned(), one_off.vm_size.clone().into());
    }
    if let Some(size) = &plan.environment.shm_size {
        resources.insert("shm_size".to_owned(), size.clone().into());
    }
    if !plan.environment.container.arguments.is_empty() {
        resources.insert("docker_args".to_owned(), plan.environment.container.arguments.clone().into());
    }
    resources
}

/// The inputs and the outputs.
fn data(plan: &Plan) -> (Map<String, Value>, Map<String, Value>) {
    let (mut inputs, mut outputs) = (Map::new(), Map::new());
    for input in &plan.data.inputs {
        let mut entry = Map::new();
        entry.insert("type".to_owned(), "uri_folder".into());
        entry.insert("path".to_owned(), address(&input.datastore, &input.path).into());
        entry.insert("mode".to_owned(), mode(input).into());
        // The schema knows `path_on_compute`, but the client takes it for a path on its own disk and refuses all others.
        let side = if input.mode == InputMode::Upload { &mut outputs } else { &mut inputs };
        side.insert(input.name.clone(), entry.into());
    }
    if let Some(place) = &plan.data.resume_from {
        let path = address(&place.datastore, &place.path);
        let entry = json!({"type": "uri_folder", "path": path, "mode": "ro_mount"});
        inputs.insert(checkpoint_name(plan), entry);
    }
    (inputs, outputs)
}

fn address(datastore: &str, path: &str) -> String {
    format!("azureml://datastores/{datastore}/paths/{}", path.trim_start_matches('/'))
}

const fn mode(input: &PlannedInput) -> &'static str {
    match input.mode {
        InputMode::Mount => "ro_mount",
        InputMode::Download => "download",
        InputMode::Upload => "upload",
        InputMode::Direct => "direct",
    }
}

/// A name for the checkpoint that no input has.
fn checkpoint_name(plan: &Plan) -> String {
    let mut name = "resume_from".to_owned();
    while plan.data.inputs.iter().any(|input| input.name == name) {
        name.push('_');
    }
    name
}

fn notes(subject: &Subject<'_>) -> Vec<NotExpressed> {
    let plan = subject.plan;
    let environment = &plan.environment;
    let mut notes = Notes::new(subject);
    notes.azure();
    if plan.max_run_duration_seconds.is_some_and(|seconds| seconds > MAX_TIMEOUT) {
        notes.approximate(
            "max_run_duration_seconds",
            format!("The longest time that can be written is {MAX_TIMEOUT} seconds."),
        );
    }
    if plan.one_off_target.is_some() {
        notes.approximate(
            "vm_size",
            "Azure's serverless compute runs the job: nothing is made for it that has a name.",
        );
        if plan.one_off_target.as_ref().is_some_and(|one_off| one_off.vm_priority == "lowpriority") {
            notes.approximate("vm_priority", "`job_tier: spot` is what serverless compute has for it.");
        }
    }
    if !environment.docker {
        let note = "A command job always runs in a container; the framework's base image is named.";
        if subject.gives("environment_definition") {
            notes.approximate("environment_definition", note);
        } else {
            notes.none("use_docker", note);
        }
    }
    if environment.container.registry_address.is_some() {
        notes.none(
            notes.registry_parameter(),
            "A job names no registry and no user of one: give the workspace a connection to the registry, or let its identity pull \
             the image.",
        );
    }
    if environment.container.base_dockerfile.is_some() {
        let mut note = "The image is built from a file `Dockerfile`, which has to be put beside the text; its lines are in the comments."
            .to_owned();
        if environment.kind == EnvironmentKind::Managed {
            note.push_str(" The packages are not said: such an image has to have them.");
        }
        notes.approximate("environment_definition", note);
    }
    let own = subject.definition.and_then(|own| own.draft().environment_definition.value());
    if own.is_some_and(|own| own.name.is_given() || own.version.is_given()) {
        notes.approximate(
            "environment_definition",
            "The environment is the job's own, without a name and a version.",
        );
    }
    if notes.has_no_shared_volumes() {
        notes.approximate("environment_definition", "There are no `shared_volumes`.");
    }
    if environment.environment_variables.iter().any(|variable| is_filled_in(&variable.value)) {
        for name in ["environment_variables", "environment_definition"] {
            notes.approximate(name, FILLED_IN);
        }
    }
    data_notes(subject, &mut notes);
    notes.finish()
}

fn data_notes(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let data = &subject.plan.data;
    if data.source_datastore.is_some() {
        notes.none(
            "source_directory_data_store",
            "The files are uploaded to the workspace's own datastore; a job cannot name another one.",
        );
    }
    notes.approximate(
        "resume_from",
        "The checkpoint is an input of its own, which the last argument or the one in its place points to.",
    );
    if data.resume_from.as_ref().is_some_and(|place| is_filled_in(&place.path)) {
        notes.approximate("resume_from", FILLED_IN);
    }
    if data.inputs.is_empty() {
        return;
    }
    let mut note = "The variables are named AZURE_ML_INPUT_<name> and AZURE_ML_OUTPUT_<name>.".to_owned();
    if data.inputs.iter().any(|input| input.kind == InputKind::Dataset) {
        note.push_str(" A dataset is a folder, so a pattern in its path means nothing.");
    }
    if data.inputs.iter().any(|input| input.path_on_compute.is_some()) {
        note.push_str(" `path_on_compute` cannot be said: the script must use the path that it is given.");
    }
    if data.inputs.iter().any(|input| input.overwrite) {
        note.push_str(" `overwrite` cannot be said.");
    }
    if data.inputs.iter().any(|input| is_filled_in(&input.path)) {
        note.push(' ');
        note.push_str(FILLED_IN);
    }
    for name in ["inputs", "script_params"] {
        let place = format!("/{name}/");
        let references = subject.definition.map(|own| own.draft().references()).unwrap_or_default();
        if references.iter().any(|reference| reference.pointer.starts_with(&place)) {
            notes.approximate(name, note.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::render::{
        Format,
        testing::{rendered, shown},
    };

    #[test]
    fn every_case() {
        for (name, rendering) in rendered(Format::AzuremlV2) {
            insta::with_settings!({prepend_module_to_snapshot => false, snapshot_path => "snapshots/azureml_v2"}, {
                insta::assert_snapshot!(name, shown(&rendering));
            });
        }
    }

    #[test]
    fn nothing_of_the_users_is_filled_in() {
        assert_eq!(word("${{inputs.x}}"), "'$''{{inputs.x}}'");
        assert_eq!(word("$${{x}}'${{"), r"'$$''{{x}}'\''$''{{'");
        for (name, rendering) in rendered(Format::AzuremlV2) {
            let job: Value = yaml_serde::from_str(&rendering.text).unwrap();
            let command = job["command"].as_str().unwrap();
            let filled_in = command.matches("${{").count();
            let known = command.matches("\"${{inputs.").count() + command.matches("\"${{outputs.").count();
            assert_eq!(filled_in, known, "{name}: {command}");
        }
    }
}

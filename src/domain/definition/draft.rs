//! A body as it was read: each parameter given, missing or faulty, and every fault.

use serde_json::{Map, Value};

use super::{
    data::{Argument, Reference},
    objects::{EnvironmentDefinition, Registry, Training, Variables},
    reading::{Fault, Given, Problem, Reader, shortened},
    signature::{SIGNATURE, is_near, nearest, rank},
};
use crate::domain::{json as pointer, patch};

/// The one framework that this service knows.
pub(crate) const FRAMEWORK: &str = "Chainer";

/// All parameters of a body, read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    pub(crate) source_directory: Given<String>,
    pub(crate) compute_target: Given<String>,
    pub(crate) vm_size: Given<String>,
    pub(crate) vm_priority: Given<String>,
    pub(crate) entry_script: Given<String>,
    pub(crate) script_params: Given<Vec<(String, Argument)>>,
    pub(crate) node_count: Given<i64>,
    pub(crate) process_count_per_node: Given<i64>,
    pub(crate) distributed_backend: Given<String>,
    pub(crate) distributed_training: Given<Training>,
    pub(crate) use_gpu: Given<bool>,
    pub(crate) use_docker: Given<bool>,
    pub(crate) custom_docker_base_image: Given<String>,
    pub(crate) custom_docker_image: Given<String>,
    pub(crate) image_registry_details: Given<Registry>,
    pub(crate) user_managed: Given<bool>,
    pub(crate) conda_packages: Given<Vec<Option<String>>>,
    pub(crate) pip_packages: Given<Vec<Option<String>>>,
    pub(crate) conda_dependencies_file_path: Given<String>,
    pub(crate) pip_requirements_file_path: Given<String>,
    pub(crate) conda_dependencies_file: Given<String>,
    pub(crate) pip_requirements_file: Given<String>,
    pub(crate) environment_variables: Given<Variables>,
    pub(crate) environment_definition: Given<EnvironmentDefinition>,
    pub(crate) inputs: Given<Vec<Reference>>,
    pub(crate) source_directory_data_store: Given<String>,
    pub(crate) shm_size: Given<String>,
    pub(crate) resume_from: Given<Reference>,
    pub(crate) max_run_duration_seconds: Given<i64>,
    pub(crate) framework_version: Given<String>,
    pub(crate) enable_optimized_mode: Given<bool>,
    pub(crate) disable_validation: Given<bool>,
    /// Accepted, and without an effect of its own.
    pub(crate) show_lint_warnings: Given<bool>,
    pub(crate) show_package_warnings: Given<bool>,
    pub(crate) problems: Vec<Problem>,
}

impl Draft {
    /// Reads every parameter of a body.
    pub(crate) fn read(body: &Map<String, Value>) -> Self {
        // Most parameters are not sent: for those no pointer is made.
        fn given<T>(
            body: &Map<String, Value>,
            name: &str,
            read: impl FnOnce(Option<&Value>, &str) -> Given<T>,
        ) -> Given<T> {
            body.get(name).map_or(Given::Absent, |value| read(Some(value), &format!("/{name}")))
        }
        let mut r = Reader::default();
        let text = |r: &mut Reader, name: &str| given(body, name, |value, at| r.text(value, at));
        let boolean = |r: &mut Reader, name: &str| given(body, name, |value, at| r.boolean(value, at));
        let integer = |r: &mut Reader, name: &str| given(body, name, |value, at| r.integer(value, at));
        let texts = |r: &mut Reader, name: &str| given(body, name, |value, at| r.texts(value, at));
        let mut draft = Self {
            source_directory: text(&mut r, "source_directory"),
            compute_target: text(&mut r, "compute_target"),
            vm_size: text(&mut r, "vm_size"),
            vm_priority: text(&mut r, "vm_priority"),
            entry_script: text(&mut r, "entry_script"),
            script_params: r.script_params(body.get("script_params")),
            node_count: integer(&mut r, "node_count"),
            process_count_per_node: integer(&mut r, "process_count_per_node"),
            distributed_backend: text(&mut r, "distributed_backend"),
            distributed_training: r.training(body.get("distributed_training")),
            use_gpu: boolean(&mut r, "use_gpu"),
            use_docker: boolean(&mut r, "use_docker"),
            custom_docker_base_image: text(&mut r, "custom_docker_base_image"),
            custom_docker_image: text(&mut r, "custom_docker_image"),
            image_registry_details: r.registry(body.get("image_registry_details")),
            user_managed: boolean(&mut r, "user_managed"),
            conda_packages: texts(&mut r, "conda_packages"),
            pip_packages: texts(&mut r, "pip_packages"),
            conda_dependencies_file_path: text(&mut r, "conda_dependencies_file_path"),
            pip_requirements_file_path: text(&mut r, "pip_requirements_file_path"),
            conda_dependencies_file: text(&mut r, "conda_dependencies_file"),
            pip_requirements_file: text(&mut r, "pip_requirements_file"),
            environment_variables: r.variables(body.get("environment_variables"), "/environment_variables"),
            environment_definition: r.environment(body.get("environment_definition")),
            inputs: r.inputs(body.get("inputs")),
            source_directory_data_store: text(&mut r, "source_directory_data_store"),
            shm_size: text(&mut r, "shm_size"),
            resume_from: r.data_path(body.get("resume_from"), "/resume_from"),
            max_run_duration_seconds: integer(&mut r, "max_run_duration_seconds"),
            framework_version: text(&mut r, "framework_version"),
            enable_optimized_mode: boolean(&mut r, "_enable_optimized_mode"),
            disable_validation: boolean(&mut r, "_disable_validation"),
            show_lint_warnings: boolean(&mut r, "_show_lint_warnings"),
            show_package_warnings: boolean(&mut r, "_show_package_warnings"),
            problems: Vec::new(),
        };
        let mut unknown = 0;
        for key in body.keys() {
            // A body with thousands of unknown keys gets no thousands of suggestions.
            if let Some(problem) = unknown_key(body, key, unknown < 100) {
                r.problems.push(problem);
                unknown += 1;
            }
        }
        draft.problems = r.problems;
        draft
    }

    /// The conda file that counts: the new spelling when it is given, else the deprecated one.
    pub(crate) fn conda_file(&self) -> (&'static str, &Given<String>) {
        if self.conda_dependencies_file.is_given() || !self.conda_dependencies_file_path.is_given() {
            ("conda_dependencies_file", &self.conda_dependencies_file)
        } else {
            ("conda_dependencies_file_path", &self.conda_dependencies_file_path)
        }
    }

    /// The requirements file that counts.
    pub(crate) fn pip_file(&self) -> (&'static str, &Given<String>) {
        if self.pip_requirements_file.is_given() || !self.pip_requirements_file_path.is_given() {
            ("pip_requirements_file", &self.pip_requirements_file)
        } else {
            ("pip_requirements_file_path", &self.pip_requirements_file_path)
        }
    }

    /// The image that counts: the new spelling, else the deprecated one unless an environment overrides it.
    pub(crate) fn image(&self) -> &Given<String> {
        let old = &self.custom_docker_base_image;
        if self.custom_docker_image.is_given() || !old.is_given() || self.environment_definition.is_given() {
            return &self.custom_docker_image;
        }
        old
    }

    /// The registry that the image is pulled from, where one is described.
    pub(crate) fn registry_in_use(&self) -> Option<&Registry> {
        match self.environment_definition.value() {
            Some(environment) => environment.docker.registry.value(),
            None => self.image_registry_details.value().filter(|_| self.image().is_given()),
        }
    }

    /// Whether the entry script is to be parsed: validation was not switched off, and it is named like Python.
    pub(crate) fn parses_script(&self) -> bool {
        self.disable_validation.is_false()
            && self.entry_script.text().is_some_and(|script| script.ends_with(".py"))
    }

    /// Every readable reference to data, in the order in which names are taken: `inputs` first.
    pub(crate) fn references(&self) -> Vec<&Reference> {
        let mut found = Vec::new();
        if let Some(inputs) = self.inputs.value() {
            found.extend(inputs);
        }
        if let Some(params) = self.script_params.value() {
            for (_, argument) in params {
                argument.references(&mut found);
            }
        }
        found
    }
}

fn unknown_key(body: &Map<String, Value>, key: &str, suggest: bool) -> Option<Problem> {
    if rank(key).is_some() {
        return None;
    }
    let place = pointer::child("", key);
    if key == "framework" {
        if body.get(key).and_then(Value::as_str) == Some(FRAMEWORK) {
            return None;
        }
        return Some(Problem {
            fault: Fault::UnknownParameter,
            message: "`framework` names something else than \"Chainer\", the only framework here.".to_owned(),
            fix: "Write \"Chainer\", or leave `framework` out.".to_owned(),
            patch: Some(patch::patch([patch::replace(key, FRAMEWORK)])),
            pointer: place,
        });
    }
    let message = format!(
        "{:?} is none of the 34 parameters; names are written exactly as in the signature.",
        shortened(key)
    );
    let near = if suggest { nearest(key, SIGNATURE.iter().map(|p| p.name)) } else { None };
    let Some(near) = near else {
        let fix = "Remove it.".to_owned();
        return Some(Problem { fault: Fault::UnknownParameter, pointer: place, message, fix, patch: None });
    };
    let plain = |text: &str| text.replace('_', "").to_lowercase();
    let renamed = plain(key) == plain(near) && !body.contains_key(near);
    let patch = renamed.then(|| patch::patch([patch::rename(key, near)]));
    let fix = if is_near(key, near) {
        format!("Write `{near}` if that is what you mean, or remove it.")
    } else {
        format!("The nearest name is `{near}`; remove {:?} if that is not what you mean.", shortened(key))
    };
    Some(Problem { fault: Fault::UnknownParameter, message, fix, patch, pointer: place })
}

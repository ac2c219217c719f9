//! The nested objects that are no references to data: `Mpi`, `ContainerRegistry`, `Environment`, variables.

use serde_json::{Map, Value};

use super::reading::{Fault, Given, Problem, Reader, member, shortened};
use crate::domain::json;

/// What stands in `distributed_training`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Training {
    /// `Mpi` or `MpiConfiguration`, with the processes on each node.
    Mpi(Given<i64>),
    /// Anything else that may stand there; the text says what was given.
    Unsupported(String),
}

/// A container registry. The password itself is not kept: nothing here needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registry {
    pub(crate) pointer: String,
    pub(crate) address: Given<String>,
    pub(crate) username: Given<String>,
    pub(crate) password: Given<()>,
}

/// Environment variables in the order sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variables {
    pub(crate) pointer: String,
    pub(crate) entries: Vec<VariableEntry>,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VariableEntry {
    pub(crate) name: String,
    /// As it is set; the error says what kind of value stands there.
    pub(crate) value: Result<String, &'static str>,
}

/// `environment_definition`, as far as this service reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EnvironmentDefinition {
    pub(crate) name: Given<String>,
    pub(crate) version: Given<String>,
    pub(crate) variables: Given<Variables>,
    pub(crate) user_managed_dependencies: Given<bool>,
    pub(crate) interpreter_path: Given<String>,
    pub(crate) conda_dependencies: Given<Map<String, Value>>,
    pub(crate) conda_dependencies_pointer: String,
    pub(crate) docker: Docker,
}

/// The `docker` part of an environment. Pointers are in the spelling that was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Docker {
    pub(crate) pointer: String,
    pub(crate) enabled: Given<bool>,
    pub(crate) base_image: Given<String>,
    pub(crate) base_image_pointer: String,
    pub(crate) base_dockerfile: Given<String>,
    pub(crate) base_dockerfile_pointer: String,
    pub(crate) shm_size: Given<String>,
    pub(crate) shm_size_pointer: String,
    pub(crate) arguments: Given<Vec<Option<String>>>,
    pub(crate) registry: Given<Registry>,
    pub(crate) registry_pointer: String,
}

impl Reader {
    /// `distributed_training`.
    pub(crate) fn training(&mut self, value: Option<&Value>) -> Given<Training> {
        const POINTER: &str = "/distributed_training";
        if let Some(Value::String(text)) = value {
            return match self.sound(text, POINTER) {
                Given::Value(text) => {
                    Given::Value(Training::Unsupported(format!("the text {:?}", shortened(&text))))
                }
                Given::Absent | Given::Faulty => Given::Faulty,
            };
        }
        let wanted = "an object of type `Mpi`";
        let map = match self.object(value, POINTER, wanted) {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(map) => map,
        };
        match map.get("type") {
            Some(Value::String(kind)) if kind == "Mpi" || kind == "MpiConfiguration" => {
                self.unknown_members(map, POINTER, "`Mpi`", &["type", "process_count_per_node"]);
                let place = json::child(POINTER, "process_count_per_node");
                Given::Value(Training::Mpi(self.integer(member(map, "process_count_per_node"), &place)))
            }
            Some(Value::String(kind)) => {
                Given::Value(Training::Unsupported(format!("an object of type {:?}", shortened(kind))))
            }
            _ => Given::Value(Training::Unsupported("an object that states no type".to_owned())),
        }
    }

    /// `image_registry_details`.
    pub(crate) fn registry(&mut self, value: Option<&Value>) -> Given<Registry> {
        const POINTER: &str = "/image_registry_details";
        let wanted = "an object with `address`, `username` and `password`";
        let map = match self.object(value, POINTER, wanted) {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(map) => map,
        };
        self.unknown_members(map, POINTER, "a container registry", &["address", "username", "password"]);
        Given::Value(self.registry_members(map, POINTER))
    }

    fn registry_members(&mut self, map: &Map<String, Value>, pointer: &str) -> Registry {
        let password = match self.text(member(map, "password"), &json::child(pointer, "password")) {
            Given::Absent => Given::Absent,
            Given::Faulty => Given::Faulty,
            Given::Value(_) => Given::Value(()),
        };
        Registry {
            pointer: pointer.to_owned(),
            address: self.text(member(map, "address"), &json::child(pointer, "address")),
            username: self.text(member(map, "username"), &json::child(pointer, "username")),
            password,
        }
    }

    /// An object of environment variables. Whether names and values are sound is a rule of its own.
    pub(crate) fn variables(&mut self, value: Option<&Value>, pointer: &str) -> Given<Variables> {
        let map = match self.object(value, pointer, "an object: variable name to value") {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(map) => map,
        };
        let mut entries = Vec::with_capacity(map.len());
        for (name, value) in map {
            let value = match value {
                Value::String(text) if text.contains('\0') => Err("a text with a NUL character"),
                Value::String(text) => Ok(text.clone()),
                Value::Number(number) => Ok(number.to_string()),
                Value::Bool(true) => Ok("True".to_owned()),
                Value::Bool(false) => Ok("False".to_owned()),
                other => Err(json::kind_of(other)),
            };
            entries.push(VariableEntry { name: name.clone(), value });
        }
        Given::Value(Variables { pointer: pointer.to_owned(), entries })
    }

    /// `environment_definition`: further keys are allowed, the members that the contract names are typed.
    pub(crate) fn environment(&mut self, value: Option<&Value>) -> Given<EnvironmentDefinition> {
        const POINTER: &str = "/environment_definition";
        let map = match self.object(value, POINTER, "an object: an SDK `Environment`") {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(map) => map,
        };
        let (key, variables) = self.either(map, POINTER, "environment_variables", "environmentVariables");
        let mut environment = EnvironmentDefinition {
            name: self.text(member(map, "name"), &json::child(POINTER, "name")),
            version: self.text(member(map, "version"), &json::child(POINTER, "version")),
            variables: self.variables(variables, &json::child(POINTER, key)),
            ..EnvironmentDefinition::default()
        };
        let place = json::child(POINTER, "python");
        if let Given::Value(python) = self.object(member(map, "python"), &place, "an object") {
            self.python(python, &place, &mut environment);
        }
        let place = json::child(POINTER, "docker");
        if let Given::Value(docker) = self.object(member(map, "docker"), &place, "an object") {
            environment.docker = self.docker(docker, &place);
        }
        for (key, value) in map {
            if key != "environment_variables" && key != "environmentVariables" {
                self.no_nul(key, value, &json::child(POINTER, key));
            }
        }
        Given::Value(environment)
    }

    fn python(&mut self, map: &Map<String, Value>, pointer: &str, environment: &mut EnvironmentDefinition) {
        let (key, value) = self.either(map, pointer, "user_managed_dependencies", "userManagedDependencies");
        environment.user_managed_dependencies = self.boolean(value, &json::child(pointer, key));
        let (key, value) = self.either(map, pointer, "interpreter_path", "interpreterPath");
        environment.interpreter_path = self.text(value, &json::child(pointer, key));
        let (key, value) = self.either(map, pointer, "conda_dependencies", "condaDependencies");
        environment.conda_dependencies_pointer = json::child(pointer, key);
        environment.conda_dependencies =
            match self.object(value, &environment.conda_dependencies_pointer, "an object") {
                Given::Absent => Given::Absent,
                Given::Faulty => Given::Faulty,
                Given::Value(conda) => Given::Value(conda.clone()),
            };
    }

    fn docker(&mut self, map: &Map<String, Value>, pointer: &str) -> Docker {
        let mut docker = Docker { pointer: pointer.to_owned(), ..Docker::default() };
        docker.enabled = self.boolean(member(map, "enabled"), &json::child(pointer, "enabled"));
        let (key, value) = self.either(map, pointer, "base_image", "baseImage");
        docker.base_image_pointer = json::child(pointer, key);
        docker.base_image = self.text(value, &docker.base_image_pointer);
        let (key, value) = self.either(map, pointer, "base_dockerfile", "baseDockerfile");
        docker.base_dockerfile_pointer = json::child(pointer, key);
        docker.base_dockerfile = self.text(value, &docker.base_dockerfile_pointer);
        let (key, value) = self.either(map, pointer, "shared_volumes", "sharedVolumes");
        self.boolean(value, &json::child(pointer, key));
        let (key, value) = self.either(map, pointer, "shm_size", "shmSize");
        docker.shm_size_pointer = json::child(pointer, key);
        docker.shm_size = self.text(value, &docker.shm_size_pointer);
        docker.arguments = self.texts(member(map, "arguments"), &json::child(pointer, "arguments"));
        let (key, value) = self.either(map, pointer, "base_image_registry", "baseImageRegistry");
        let place = json::child(pointer, key);
        docker.registry_pointer.clone_from(&place);
        docker.registry = match self.object(value, &place, "an object with `address`") {
            Given::Absent => Given::Absent,
            Given::Faulty => Given::Faulty,
            Given::Value(registry) => {
                // A saved environment always has the object, with members that are all null.
                let says =
                    ["address", "username", "password"].iter().any(|key| member(registry, key).is_some());
                let registry = self.registry_members(registry, &place);
                if says { Given::Value(registry) } else { Given::Absent }
            }
        };
        docker
    }

    /// The member in the spelling that was sent: the SDK's attribute name, or the key that a saved environment has. Of two
    /// that say the same one would not be read, which is told.
    fn either<'a, 'k>(
        &mut self,
        map: &'a Map<String, Value>,
        pointer: &str,
        snake: &'k str,
        camel: &'k str,
    ) -> (&'k str, Option<&'a Value>) {
        match (member(map, snake), member(map, camel)) {
            (None, Some(value)) => (camel, Some(value)),
            (Some(value), Some(_)) => {
                self.problems.push(Problem {
                    fault: Fault::UnknownParameter,
                    pointer: json::child(pointer, camel),
                    message: format!("`{camel}` and `{snake}` are the same member, and both are given."),
                    fix: format!("Keep one of them, such as `{snake}`."),
                    patch: None,
                });
                (snake, Some(value))
            }
            (value, None) => (snake, value),
        }
    }

    /// Reports every text with a NUL character, however deep.
    fn no_nul(&mut self, key: &str, value: &Value, pointer: &str) {
        if key.contains('\0') {
            self.wrong(pointer, "named with a NUL character", "named without one");
        }
        match value {
            Value::String(text) => {
                self.sound(text, pointer);
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.no_nul("", item, &json::item(pointer, index));
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    self.no_nul(key, value, &json::child(pointer, key));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

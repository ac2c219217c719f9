//! The objects of the SDK that go into a call, in the JSON forms of this service.

use ruff_python_ast::{Arguments, Expr, ExprCall, ExprSubscript};
use serde_json::{Map, Value, json};

use super::{
    names::{Action, Change},
    reader::{Class, Reader, Thing, argument},
};
use crate::domain::{finding::Severity, json};

/// The datastore that every workspace had.
const DEFAULT_DATASTORE: &str = "workspaceblobstore";

/// Parameters of the constructors, in their order.
const DATA_REFERENCE: &[&str] =
    &["datastore", "data_reference_name", "path_on_datastore", "mode", "path_on_compute", "overwrite"];
const DATA_PATH: &[&str] = &["datastore", "path_on_datastore"];
const CONSUMPTION: &[&str] = &["name", "dataset", "mode", "path_on_compute"];
const REGISTRY: &[&str] = &["address", "username", "password"];

/// What an environment has that this service reads.
const ENVIRONMENT: &[&[&str]] = &[
    &["name"],
    &["version"],
    &["environment_variables"],
    &["python", "user_managed_dependencies"],
    &["python", "interpreter_path"],
    &["python", "conda_dependencies"],
    &["docker", "enabled"],
    &["docker", "base_image"],
    &["docker", "base_dockerfile"],
    &["docker", "shm_size"],
    &["docker", "shared_volumes"],
    &["docker", "arguments"],
    &["docker", "base_image_registry"],
    &["docker", "base_image_registry", "address"],
    &["docker", "base_image_registry", "username"],
    &["docker", "base_image_registry", "password"],
];

/// A `DataReference` to a path of a datastore.
pub(super) fn data_reference(datastore: &str, path: Option<&str>) -> Map<String, Value> {
    let mut members = typed("DataReference");
    members.insert("datastore".to_owned(), json!(datastore));
    if let Some(path) = path {
        members.insert("path_on_datastore".to_owned(), json!(path));
    }
    members
}

fn typed(class: &str) -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), json!(class))])
}

impl<'m> Reader<'m> {
    /// What a call of the SDK stands for.
    pub(super) fn object(
        &mut self,
        call: &'m ExprCall,
        dotted: &str,
        whole: &'m Expr,
        pointer: &str,
    ) -> Option<Thing> {
        let arguments = &call.arguments;
        let mut parts = dotted.rsplit('.');
        let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match (before, last) {
            (_, "Mpi" | "MpiConfiguration" | "ParameterServer" | "Gloo" | "Nccl") => {
                let mut members = typed(last);
                self.members(&mut members, &["process_count_per_node"], arguments, pointer);
                Some(Thing::Object(Class::Training, members))
            }
            (_, "ContainerRegistry") => {
                let mut members = Map::new();
                self.members(&mut members, REGISTRY, arguments, pointer);
                Some(Thing::Object(Class::Registry, members))
            }
            (_, "Environment") => {
                let mut members = Map::new();
                self.members(&mut members, &["name", "version"], arguments, pointer);
                Some(Thing::Object(Class::Environment, members))
            }
            (_, "CondaDependencies") if arguments.args.is_empty() && arguments.keywords.is_empty() => {
                Some(Thing::Object(Class::Conda, Map::new()))
            }
            ("CondaDependencies", "create") => self.conda(arguments, pointer),
            (_, "DataReference") => {
                let mut members = typed("DataReference");
                self.members(&mut members, DATA_REFERENCE, arguments, pointer);
                Some(Thing::Object(Class::DataReference, members))
            }
            (_, "DataPath") => {
                let mut members = typed("DataPath");
                // Its name has no meaning outside of the SDK's own designer.
                self.members(&mut members, DATA_PATH, arguments, pointer);
                members.shift_remove("name");
                Some(Thing::Object(Class::DataPath, members))
            }
            (_, "DatasetConsumptionConfig") => {
                let mut members = typed("DatasetConsumptionConfig");
                self.members(&mut members, CONSUMPTION, arguments, pointer);
                Some(Thing::Object(Class::Consumption, members))
            }
            (_, "Datastore" | "AzureBlobDatastore" | "AzureFileDatastore") => {
                self.text_of(arguments, &["name"], 1, whole, pointer).map(Thing::Datastore)
            }
            ("Datastore", "get_default") => Some(self.default_datastore(whole, pointer)),
            ("Datastore", method) if method == "get" || method.starts_with("register_") => {
                self.text_of(arguments, &["datastore_name"], 1, whole, pointer).map(Thing::Datastore)
            }
            ("ComputeTarget", "create" | "attach") => {
                self.text_of(arguments, &["name"], 1, whole, pointer).map(Thing::Target)
            }
            (_, "ComputeTarget") => self.text_of(arguments, &["name"], 1, whole, pointer).map(Thing::Target),
            (_, class)
                if !dotted.starts_with("azureml.core.dataset")
                    && (class.ends_with("Compute") || class == "ComputeInstance") =>
            {
                self.text_of(arguments, &["name"], 1, whole, pointer).map(Thing::Target)
            }
            ("File" | "Tabular", "from_files" | "from_delimited_files" | "from_parquet_files") => {
                self.dataset(arguments, whole, pointer)
            }
            _ => match call.func.as_ref() {
                Expr::Attribute(method) => {
                    self.method(&method.value, method.attr.as_str(), arguments, whole, pointer)
                }
                _ => self.unread(whole, pointer),
            },
        }
    }

    /// Reads arguments into members: by name, and by place in the order of `known`.
    fn members(
        &mut self,
        members: &mut Map<String, Value>,
        known: &[&str],
        arguments: &'m Arguments,
        pointer: &str,
    ) {
        for (index, value) in arguments.args.iter().enumerate() {
            match known.get(index) {
                Some(name) => self.object_member(members, name, value, pointer),
                None => self.unread::<()>(value, pointer).unwrap_or_default(),
            }
        }
        for keyword in &arguments.keywords {
            match &keyword.arg {
                Some(name) => self.object_member(members, name.as_str(), &keyword.value, pointer),
                None => self.unread::<()>(&keyword.value, pointer).unwrap_or_default(),
            }
        }
    }

    fn object_member(
        &mut self,
        members: &mut Map<String, Value>,
        name: &str,
        value: &'m Expr,
        pointer: &str,
    ) {
        if name != "dataset" {
            return self.member(members, name.to_owned(), value, pointer);
        }
        let place = json::child(pointer, name);
        match self.thing(value, &place) {
            Some(Thing::Dataset(dataset)) => {
                members.insert(name.to_owned(), Value::Object(dataset));
            }
            Some(_) => self.unread::<()>(value, &place).unwrap_or_default(),
            None => {}
        }
    }

    fn text_of(
        &mut self,
        arguments: &'m Arguments,
        names: &[&str],
        place: usize,
        whole: &'m Expr,
        pointer: &str,
    ) -> Option<String> {
        let found = names.iter().find_map(|name| argument(arguments, name, place));
        match found {
            Some(name) => self.text(name, pointer),
            None => self.unread(whole, pointer),
        }
    }

    fn default_datastore(&mut self, whole: &'m Expr, pointer: &str) -> Thing {
        let (line, _) = self.module.place(whole);
        self.remarks.add(
            Severity::Info,
            "default-datastore-assumed",
            pointer,
            format!(
                "Line {line}: the workspace's default datastore is taken for `{DEFAULT_DATASTORE}`, which every workspace has \
                 unless another one was chosen."
            ),
            "Register a datastore of that name here, or write the name of another one.",
        );
        Thing::Datastore(DEFAULT_DATASTORE.to_owned())
    }

    /// `workspace.compute_targets["name"]` and the like, and items of plain values.
    pub(super) fn subscript(
        &mut self,
        subscript: &'m ExprSubscript,
        whole: &'m Expr,
        pointer: &str,
    ) -> Option<Thing> {
        if let Expr::Attribute(attribute) = subscript.value.as_ref() {
            match attribute.attr.as_str() {
                "compute_targets" => return self.text(&subscript.slice, pointer).map(Thing::Target),
                "datastores" => return self.text(&subscript.slice, pointer).map(Thing::Datastore),
                _ => {}
            }
        }
        let known = self.remarks.len();
        let container = self.thing(&subscript.value, pointer);
        let key = container.as_ref().and_then(|_| self.thing(&subscript.slice, pointer));
        let item = match (container, key) {
            (Some(Thing::Plain(Value::Object(mut members))), Some(Thing::Plain(Value::String(key)))) => {
                members.shift_remove(&key)
            }
            (Some(Thing::Plain(Value::Array(mut items))), Some(Thing::Plain(Value::Number(index)))) => {
                let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
                index.filter(|index| *index < items.len()).map(|index| items.swap_remove(index))
            }
            _ => None,
        };
        if item.is_none() {
            self.remarks.truncate(known);
            return self.unread(whole, pointer);
        }
        item.map(Thing::Plain)
    }

    /// Methods that turn a datastore, a reference or a dataset into what a call takes.
    fn method(
        &mut self,
        base: &'m Expr,
        method: &str,
        arguments: &'m Arguments,
        whole: &'m Expr,
        pointer: &str,
    ) -> Option<Thing> {
        match method {
            "get_default_datastore" => return Some(self.default_datastore(whole, pointer)),
            "path" | "as_mount" | "as_download" | "as_upload" | "as_named_input" => {}
            _ => return self.unread(whole, pointer),
        }
        let thing = self.thing(base, pointer)?;
        let reference = |mode: &str, mut members: Map<String, Value>| {
            members.insert("mode".to_owned(), json!(mode));
            members
        };
        let mode = method.strip_prefix("as_").unwrap_or_default();
        match (thing, method) {
            (Thing::Datastore(name), "path") => {
                let mut members = data_reference(&name, None);
                self.members(&mut members, &["path_on_datastore", "data_reference_name"], arguments, pointer);
                if let Some(path) = members.shift_remove("path") {
                    members.insert("path_on_datastore".to_owned(), path);
                }
                Some(Thing::Object(Class::DataReference, members))
            }
            (Thing::Datastore(name), "as_mount" | "as_download" | "as_upload") => {
                let mut members = reference(mode, data_reference(&name, None));
                self.members(&mut members, &["path_on_compute"], arguments, pointer);
                Some(Thing::Object(Class::DataReference, members))
            }
            (Thing::Object(Class::DataReference, members), "as_mount" | "as_download" | "as_upload") => {
                let mut members = reference(mode, members);
                self.members(&mut members, &["path_on_compute"], arguments, pointer);
                Some(Thing::Object(Class::DataReference, members))
            }
            (Thing::Dataset(dataset), "as_named_input") => {
                let mut members = typed("DatasetConsumptionConfig");
                self.members(&mut members, &["name"], arguments, pointer);
                members.insert("dataset".to_owned(), Value::Object(dataset));
                Some(Thing::Object(Class::Consumption, members))
            }
            (Thing::Object(Class::Consumption, members), "as_mount" | "as_download") => {
                let mut members = reference(mode, members);
                self.members(&mut members, &["path_on_compute"], arguments, pointer);
                Some(Thing::Object(Class::Consumption, members))
            }
            _ => self.unread(whole, pointer),
        }
    }

    /// A dataset of files at one place: `(datastore, "path")`, a list of one such, a `DataPath` or `datastore.path(…)`.
    fn dataset(&mut self, arguments: &'m Arguments, whole: &'m Expr, pointer: &str) -> Option<Thing> {
        let mut path = argument(arguments, "path", 0);
        if let Some(Expr::List(list)) = path
            && let [one] = list.elts.as_slice()
        {
            path = Some(one);
        }
        let Some(path) = path else { return self.unread(whole, pointer) };
        if let Expr::Tuple(tuple) = path
            && let [datastore, path] = tuple.elts.as_slice()
        {
            let Thing::Datastore(datastore) = self.thing(datastore, pointer)? else {
                return self.unread(whole, pointer);
            };
            let path = self.text(path, pointer)?;
            return Some(Thing::Dataset(dataset_at(json!(datastore), Some(json!(path)))));
        }
        match self.thing(path, pointer)? {
            Thing::Object(Class::DataPath | Class::DataReference, mut members) => {
                let Some(datastore) = members.shift_remove("datastore") else {
                    return self.unread(whole, pointer);
                };
                Some(Thing::Dataset(dataset_at(datastore, members.shift_remove("path_on_datastore"))))
            }
            _ => self.unread(whole, pointer),
        }
    }

    /// `CondaDependencies.create(…)`
    fn conda(&mut self, arguments: &'m Arguments, pointer: &str) -> Option<Thing> {
        let mut members = Map::new();
        let mut conda = Vec::new();
        let mut pip = Vec::new();
        for (index, parameter) in
            ["pip_indexurl", "pip_packages", "conda_packages", "python_version"].iter().enumerate()
        {
            let Some(value) = argument(arguments, parameter, index) else { continue };
            match (*parameter, self.value(value, &json::child(pointer, "dependencies"))) {
                ("pip_packages", Some(Value::Array(packages))) => pip.extend(packages),
                ("conda_packages", Some(Value::Array(packages))) => conda.extend(packages),
                ("python_version", Some(Value::String(version))) => {
                    conda.insert(0, json!(format!("python={version}")));
                }
                ("pip_indexurl", Some(Value::String(url))) => {
                    pip.insert(0, json!(format!("--index-url {url}")))
                }
                (_, None | Some(Value::Null)) => {}
                _ => self.unread::<()>(value, &json::child(pointer, "dependencies")).unwrap_or_default(),
            }
        }
        let (line, column) = self.module.place(arguments);
        self.remarks.add(
            Severity::Info,
            "default-packages-not-assumed",
            &json::child(pointer, "dependencies"),
            format!(
                "Line {line}, column {column}: the SDK adds a `python`, `azureml-defaults` and its channels to these packages by \
                 itself; only what the source states was written."
            ),
            "Add what the script needs of them, such as `python=3.6.2`, to `dependencies`, and channels to `channels`.",
        );
        for package in conda {
            add_package(&mut members, package, false);
        }
        for package in pip {
            add_package(&mut members, package, true);
        }
        for keyword in &arguments.keywords {
            let name = keyword.arg.as_ref().map_or("**", |name| name.as_str());
            let read =
                ["pip_indexurl", "pip_packages", "conda_packages", "python_version", "pin_sdk_version"];
            if !read.contains(&name) {
                self.unread::<()>(keyword, &json::child(pointer, "dependencies")).unwrap_or_default();
            }
        }
        Some(Thing::Object(Class::Conda, members))
    }

    /// Does to an object what the source does to it; answers whether it can be told.
    pub(super) fn change_object(
        &mut self,
        class: Class,
        members: &mut Map<String, Value>,
        path: &[&'m str],
        action: &Action<'m>,
        change: &Change<'m>,
        pointer: &str,
    ) -> bool {
        match (class, path, action) {
            (Class::Conda, [], Action::Call(method, arguments)) => {
                self.change_conda(members, method, arguments, change, pointer)
            }
            (Class::Environment, ["python", "conda_dependencies"], Action::Call(method, arguments)) => {
                let place = json::child(&json::child(pointer, "python"), "conda_dependencies");
                let mut conda = nested(members, &["python", "conda_dependencies"]).clone();
                let done = self.change_conda(&mut conda, method, arguments, change, &place);
                *nested(members, &["python", "conda_dependencies"]) = conda;
                done
            }
            (Class::Environment, [path @ .., last], Action::Set(value))
                if ENVIRONMENT.iter().any(|known| known.split_last() == Some((last, path))) =>
            {
                let place = path.iter().fold(pointer.to_owned(), |place, part| json::child(&place, part));
                let mut inner = nested(members, path).clone();
                self.member(&mut inner, (*last).to_owned(), value, &place);
                *nested(members, path) = inner;
                true
            }
            (Class::Environment, ["environment_variables"], Action::Item(key, value)) => {
                let place = json::child(pointer, "environment_variables");
                let Some(key) = self.text(key, &place) else { return true };
                let mut inner = nested(members, &["environment_variables"]).clone();
                self.member(&mut inner, key, value, &place);
                *nested(members, &["environment_variables"]) = inner;
                true
            }
            (Class::Registry, [attribute], Action::Set(value)) if REGISTRY.contains(attribute) => {
                self.member(members, (*attribute).to_owned(), value, pointer);
                true
            }
            (Class::Training, ["process_count_per_node"], Action::Set(value)) => {
                self.member(members, "process_count_per_node".to_owned(), value, pointer);
                true
            }
            (Class::DataReference, [attribute], Action::Set(value))
                if DATA_REFERENCE.contains(attribute) && *attribute != "datastore" =>
            {
                self.member(members, (*attribute).to_owned(), value, pointer);
                true
            }
            _ => false,
        }
    }

    fn change_conda(
        &mut self,
        members: &mut Map<String, Value>,
        method: &str,
        arguments: &'m Arguments,
        change: &Change<'m>,
        pointer: &str,
    ) -> bool {
        let (name, is_pip) = match method {
            "add_pip_package" => ("pip_package", true),
            "add_conda_package" => ("conda_package", false),
            "add_channel" => ("channel", false),
            "set_python_version" => ("version", false),
            _ => return false,
        };
        let place = json::child(pointer, if name == "channel" { "channels" } else { "dependencies" });
        let Some(value) = argument(arguments, name, 0) else { return false };
        let Some(text) = self.text(value, &place) else { return true };
        match name {
            "channel" => {
                if let Value::Array(channels) = members.entry("channels").or_insert_with(|| json!([])) {
                    channels.push(json!(text));
                }
            }
            "version" => {
                if members.get("dependencies").and_then(Value::as_array).is_some_and(|list| {
                    list.iter().any(|item| item.as_str().is_some_and(|item| item.starts_with("python=")))
                }) {
                    self.unread::<()>(change.statement, &place).unwrap_or_default();
                }
                add_package(members, json!(format!("python={text}")), false);
            }
            _ => add_package(members, json!(text), is_pip),
        }
        true
    }
}

fn dataset_at(datastore: Value, path: Option<Value>) -> Map<String, Value> {
    let mut dataset = Map::from_iter([("datastore".to_owned(), datastore)]);
    if let Some(path) = path {
        dataset.insert("path".to_owned(), path);
    }
    dataset
}

/// The object under a path of members, made where it is missing.
fn nested<'v>(members: &'v mut Map<String, Value>, path: &[&str]) -> &'v mut Map<String, Value> {
    let mut at = members;
    for part in path {
        let value = at.entry(*part).or_insert_with(|| Value::Object(Map::new()));
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        at = match value {
            Value::Object(inner) => inner,
            _ => unreachable!("it has just been made an object"),
        };
    }
    at
}

/// Adds a package to the form that a conda file has: conda's own first, then one list for pip.
fn add_package(conda: &mut Map<String, Value>, package: Value, is_pip: bool) {
    let Value::Array(list) = conda.entry("dependencies").or_insert_with(|| json!([])) else { return };
    let pip = list.iter().position(Value::is_object);
    match (is_pip, pip) {
        (false, None) => list.push(package),
        (false, Some(at)) => list.insert(at, package),
        (true, None) => list.push(json!({"pip": [package]})),
        (true, Some(at)) => {
            if let Some(Value::Array(packages)) = list[at].get_mut("pip") {
                packages.push(package);
            }
        }
    }
}

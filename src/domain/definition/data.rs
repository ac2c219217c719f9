//! References to data: datastores, `DataReference`, `DatasetConsumptionConfig`, `DataPath`; and script arguments.

use serde_json::{Map, Value};

use super::reading::{Given, Reader, member};
use crate::domain::json;

/// Which SDK object a reference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReferenceKind {
    /// The bare name of a datastore.
    Datastore,
    /// `DataReference`.
    DataReference,
    /// `DatasetConsumptionConfig`.
    Dataset,
    /// `DataPath`.
    DataPath,
}

impl ReferenceKind {
    /// The modes that the documentation names for this kind.
    pub(crate) const fn modes(self) -> &'static [&'static str] {
        match self {
            Self::DataReference => &["mount", "download", "upload"],
            Self::Dataset => &["direct", "mount", "download"],
            Self::Datastore | Self::DataPath => &[],
        }
    }
}

/// A place in a datastore, and how the script gets at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) pointer: String,
    pub(crate) kind: ReferenceKind,
    pub(crate) datastore: Given<String>,
    pub(crate) name: Given<String>,
    pub(crate) path: Given<String>,
    pub(crate) mode: Given<String>,
    pub(crate) path_on_compute: Given<String>,
    pub(crate) overwrite: Given<bool>,
}

impl Reference {
    fn new(pointer: &str, kind: ReferenceKind) -> Self {
        Self {
            pointer: pointer.to_owned(),
            kind,
            datastore: Given::Absent,
            name: Given::Absent,
            path: Given::Absent,
            mode: Given::Absent,
            path_on_compute: Given::Absent,
            overwrite: Given::Absent,
        }
    }

    /// Where its name stands or belongs.
    pub(crate) fn name_pointer(&self) -> String {
        match self.kind {
            ReferenceKind::Datastore | ReferenceKind::DataPath => self.pointer.clone(),
            ReferenceKind::DataReference => json::child(&self.pointer, "data_reference_name"),
            ReferenceKind::Dataset => json::child(&self.pointer, "name"),
        }
    }

    /// Where the name of its datastore stands.
    pub(crate) fn datastore_pointer(&self) -> String {
        match self.kind {
            ReferenceKind::Datastore => self.pointer.clone(),
            ReferenceKind::DataReference | ReferenceKind::DataPath => json::child(&self.pointer, "datastore"),
            ReferenceKind::Dataset => json::child(&json::child(&self.pointer, "dataset"), "datastore"),
        }
    }

    /// Where its path in the datastore stands.
    pub(crate) fn path_pointer(&self) -> String {
        match self.kind {
            ReferenceKind::Dataset => json::child(&json::child(&self.pointer, "dataset"), "path"),
            _ => json::child(&self.pointer, "path_on_datastore"),
        }
    }

    /// The name that it goes by: its own, or its datastore's when it is the root of one. A reference without a
    /// name to anything else gets a name of its own, with which nothing can clash.
    pub(crate) fn effective_name(&self) -> Option<&str> {
        match self.kind {
            ReferenceKind::Datastore => self.datastore.text(),
            ReferenceKind::Dataset => self.name.text(),
            ReferenceKind::DataPath => None,
            ReferenceKind::DataReference => match &self.name {
                Given::Value(name) => Some(name),
                Given::Faulty => None,
                Given::Absent if self.is_root() => self.datastore.text(),
                Given::Absent => None,
            },
        }
    }

    fn is_root(&self) -> bool {
        match &self.path {
            Given::Absent => true,
            Given::Faulty => false,
            Given::Value(path) => path.split('/').all(|part| part.is_empty() || part == "."),
        }
    }

    /// Whether both say the same, member for member; a default that is written out is the default.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let mode = |r: &Self| r.mode.text().unwrap_or("mount").to_owned();
        self.kind == other.kind
            && self.datastore == other.datastore
            && self.name == other.name
            && self.path == other.path
            && mode(self) == mode(other)
            && self.path_on_compute == other.path_on_compute
            && self.overwrite.is_true() == other.overwrite.is_true()
    }
}

/// One value of `script_params`, ready to become arguments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Argument {
    /// null or `""`: no argument, so that the key is a bare flag.
    Nothing,
    /// One argument.
    Text(String),
    /// Expanded in place.
    List(Vec<Argument>),
    /// The path where the data is.
    Reference(Box<Reference>),
    /// Unreadable.
    Faulty,
}

impl Argument {
    /// Every readable reference in it, in order.
    pub(crate) fn references<'a>(&'a self, found: &mut Vec<&'a Reference>) {
        match self {
            Self::Reference(reference) => found.push(reference),
            Self::List(items) => {
                for item in items {
                    item.references(found);
                }
            }
            Self::Nothing | Self::Text(_) | Self::Faulty => {}
        }
    }
}

const DATA_REFERENCE: &[&str] = &[
    "type",
    "datastore",
    "data_reference_name",
    "path_on_datastore",
    "mode",
    "path_on_compute",
    "overwrite",
];
const DATASET_CONFIG: &[&str] = &["type", "name", "dataset", "mode", "path_on_compute"];
const DATASET: &[&str] = &["datastore", "path"];
const DATA_PATH: &[&str] = &["type", "datastore", "path_on_datastore"];

impl Reader {
    /// A `DataReference` or `DatasetConsumptionConfig`.
    pub(crate) fn reference(
        &mut self,
        map: &Map<String, Value>,
        pointer: &str,
        wanted: &str,
    ) -> Option<Reference> {
        match map.get("type").and_then(Value::as_str) {
            Some("DataReference") => Some(self.data_reference(map, pointer)),
            Some("DatasetConsumptionConfig") => Some(self.dataset(map, pointer)),
            _ => {
                self.wrong(pointer, "an object of another type", wanted);
                None
            }
        }
    }

    fn data_reference(&mut self, map: &Map<String, Value>, pointer: &str) -> Reference {
        self.unknown_members(map, pointer, "a `DataReference`", DATA_REFERENCE);
        let place = |key: &str| json::child(pointer, key);
        let mut reference = Reference::new(pointer, ReferenceKind::DataReference);
        reference.datastore = self.needed_text(map, pointer, "datastore", "the name of a datastore");
        reference.name = self.text(member(map, "data_reference_name"), &place("data_reference_name"));
        reference.path = self.text(member(map, "path_on_datastore"), &place("path_on_datastore"));
        reference.mode = self.text(member(map, "mode"), &place("mode"));
        reference.path_on_compute = self.text(member(map, "path_on_compute"), &place("path_on_compute"));
        reference.overwrite = self.boolean(member(map, "overwrite"), &place("overwrite"));
        reference
    }

    fn dataset(&mut self, map: &Map<String, Value>, pointer: &str) -> Reference {
        self.unknown_members(map, pointer, "a `DatasetConsumptionConfig`", DATASET_CONFIG);
        let place = |key: &str| json::child(pointer, key);
        let mut reference = Reference::new(pointer, ReferenceKind::Dataset);
        reference.name = self.needed_text(map, pointer, "name", "the name of the input");
        reference.mode = self.text(member(map, "mode"), &place("mode"));
        reference.path_on_compute = self.text(member(map, "path_on_compute"), &place("path_on_compute"));
        let inner = place("dataset");
        let wanted = "an object with `datastore` and `path`";
        match self.object(member(map, "dataset"), &inner, wanted) {
            Given::Absent => {
                self.missing(&inner, wanted);
                reference.datastore = Given::Faulty;
            }
            Given::Faulty => reference.datastore = Given::Faulty,
            Given::Value(dataset) => {
                self.unknown_members(dataset, &inner, "a dataset", DATASET);
                reference.datastore =
                    self.needed_text(dataset, &inner, "datastore", "the name of a datastore");
                reference.path = self.text(member(dataset, "path"), &json::child(&inner, "path"));
            }
        }
        reference
    }

    /// A `DataPath`.
    pub(crate) fn data_path(&mut self, value: Option<&Value>, pointer: &str) -> Given<Reference> {
        let wanted = "an object of type `DataPath` with `datastore` and `path_on_datastore`";
        let map = match self.object(value, pointer, wanted) {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(map) => map,
        };
        if map.get("type").and_then(Value::as_str) != Some("DataPath") {
            self.wrong(pointer, "an object of another type", wanted);
            return Given::Faulty;
        }
        self.unknown_members(map, pointer, "a `DataPath`", DATA_PATH);
        let mut reference = Reference::new(pointer, ReferenceKind::DataPath);
        reference.datastore = self.needed_text(map, pointer, "datastore", "the name of a datastore");
        let place = json::child(pointer, "path_on_datastore");
        reference.path = self.text(member(map, "path_on_datastore"), &place);
        Given::Value(reference)
    }

    fn needed_text(
        &mut self,
        map: &Map<String, Value>,
        pointer: &str,
        key: &str,
        wanted: &str,
    ) -> Given<String> {
        let place = json::child(pointer, key);
        let text = self.text(member(map, key), &place);
        if text.is_given() {
            return text;
        }
        self.missing(&place, wanted);
        Given::Faulty
    }

    /// The list of inputs. An item that cannot be read is left out.
    pub(crate) fn inputs(&mut self, value: Option<&Value>) -> Given<Vec<Reference>> {
        let wanted = "a list of datastore names, `DataReference` and `DatasetConsumptionConfig` objects";
        let items = match self.list(value, "/inputs", wanted) {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(items) => items,
        };
        let wanted = "the name of a datastore, a `DataReference` or a `DatasetConsumptionConfig`";
        let mut inputs = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let pointer = json::item("/inputs", index);
            match item {
                Value::String(name) => {
                    let mut reference = Reference::new(&pointer, ReferenceKind::Datastore);
                    reference.datastore = self.sound(name, &pointer);
                    inputs.push(reference);
                }
                Value::Object(map) => inputs.extend(self.reference(map, &pointer, wanted)),
                other => self.wrong_value(&pointer, other, wanted),
            }
        }
        Given::Value(inputs)
    }

    /// `script_params`, in the order in which they were sent.
    pub(crate) fn script_params(&mut self, value: Option<&Value>) -> Given<Vec<(String, Argument)>> {
        let map = match self.object(value, "/script_params", "an object: argument name to value") {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(map) => map,
        };
        let mut params = Vec::with_capacity(map.len());
        for (key, value) in map {
            let pointer = json::child("/script_params", key);
            if key.contains('\0') {
                self.wrong(&pointer, "named with a NUL character", "named without one");
            }
            params.push((key.clone(), self.argument(value, &pointer)));
        }
        Given::Value(params)
    }

    fn argument(&mut self, value: &Value, pointer: &str) -> Argument {
        match value {
            Value::Null => Argument::Nothing,
            Value::Bool(true) => Argument::Text("True".to_owned()),
            Value::Bool(false) => Argument::Text("False".to_owned()),
            Value::Number(number) => Argument::Text(number.to_string()),
            Value::String(text) if text.is_empty() => Argument::Nothing,
            Value::String(text) => match self.sound(text, pointer) {
                Given::Value(text) => Argument::Text(text),
                Given::Absent | Given::Faulty => Argument::Faulty,
            },
            Value::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    list.push(self.argument(item, &json::item(pointer, index)));
                }
                Argument::List(list)
            }
            Value::Object(map) => {
                let wanted =
                    "a text, number, boolean, null, list, `DataReference` or `DatasetConsumptionConfig`";
                match self.reference(map, pointer, wanted) {
                    Some(reference) => Argument::Reference(Box::new(reference)),
                    None => Argument::Faulty,
                }
            }
        }
    }
}

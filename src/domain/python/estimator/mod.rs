//! From source that people have to the definition that this service reads: the calls of `Chainer(…)` in a module.

mod magics;
mod names;
mod number;
mod objects;
mod reader;
mod remarks;
mod secrets;
#[cfg(test)]
mod tests;

use std::{cell::Cell, collections::BTreeSet};

use ruff_python_ast::Expr;
use ruff_text_size::Ranged;
use serde_json::{Map, Value};

use self::{
    names::{Action, Call, Change, Names},
    reader::{Reader, Thing, argument},
    remarks::{FILL_IN, Remarks, finding, is_secret, shown},
};
use super::{Module, SyntaxError, text};
use crate::domain::{
    definition::shortened,
    finding::{Finding, Severity},
    ids::SnapshotId,
    json,
};

/// How much all values of one source may hold together: each value counts 1, a text its length, and a finding as much as a page.
const BUDGET: usize = 2_000_000;

/// How many calls one source may have.
const MAX_CALLS: usize = 1_000;

/// Classes that people also call estimators; this service runs none of them.
const OTHERS: &[&str] = &["TensorFlow", "PyTorch", "SKLearn", "Estimator", "ScriptRunConfig"];

/// One call of `Chainer(…)`, read.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundEstimator {
    /// Where the call begins, from 1.
    pub line: usize,
    /// Where the call begins, from 1, in characters.
    pub column: usize,
    /// The name that its result is assigned to.
    pub assigned_to: Option<String>,
    /// Its arguments as members of a definition, in the order of the call.
    pub definition: Map<String, Value>,
    /// What could not be read, and what was assumed.
    pub findings: Vec<Finding>,
}

/// What a source says about estimators.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Every call, in the order of the source.
    pub items: Vec<FoundEstimator>,
    /// The name of the experiment, when the source names exactly one.
    pub experiment_name: Option<String>,
}

/// Why a source has no estimator to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// What is wrong.
    pub finding: Box<Finding>,
    /// Line and column of a syntax error, from 1.
    pub place: Option<(usize, usize)>,
}

const SOURCE_DIRECTORY: &str = "/source_directory";

/// Reads a source.
///
/// # Errors
/// When the source is no Python 3 or has no such call.
pub fn read(bytes: &[u8]) -> Result<Reading, Unreadable> {
    let module = parsed(bytes).map_err(|error| syntax_error(&error))?;
    let names = Names::of(&module.syntax.body);
    let budget = Cell::new(BUDGET);
    let mut items = Vec::new();
    let mut others = Vec::new();
    let mut experiments = BTreeSet::new();
    for call in &names.calls {
        let Some(dotted) = names.dotted(&call.call.func, call.scope) else { continue };
        let last = dotted.rsplit('.').next().unwrap_or_default();
        if is_chainer(&dotted) {
            if items.len() == MAX_CALLS {
                return Err(too_many());
            }
            items.push(item(&module, &names, *call, &budget));
        } else if OTHERS.contains(&last) {
            others.push((last.to_owned(), module.place(call.call).0));
        } else if last == "Experiment"
            && let Some(name) = argument(&call.call.arguments, "name", 1)
        {
            experiments.insert(reader(&module, &names, *call, &budget).text(name, ""));
        }
    }
    if items.is_empty() {
        return Err(no_call(&others, is_notebook(bytes)));
    }
    let only = if experiments.len() == 1 { experiments.pop_first().flatten() } else { None };
    Ok(Reading { items, experiment_name: only })
}

/// The module; where Python alone cannot read it, as a notebook does.
fn parsed(bytes: &[u8]) -> Result<Module, SyntaxError> {
    let source = text(bytes)?;
    let blanked = magics::blanked(&source);
    Module::of(source).or_else(|error| match blanked {
        Some(blanked) => Module::of(blanked),
        None => Err(error),
    })
}

/// Whether a dotted name is the SDK's class: by any of its names, or as cells show it whose import stands elsewhere.
fn is_chainer(dotted: &str) -> bool {
    dotted == "Chainer"
        || dotted == "dnn.Chainer"
        || dotted == "train.dnn.Chainer"
        || (dotted.starts_with("azureml.") && dotted.ends_with(".Chainer"))
}

fn reader<'m>(
    module: &'m Module,
    names: &'m Names<'m>,
    call: Call<'m>,
    budget: &'m Cell<usize>,
) -> Reader<'m> {
    Reader {
        module,
        names,
        scope: call.scope,
        home: call.scope,
        at: call.call.start(),
        remarks: Remarks::default(),
        budget,
        depth: 0,
    }
}

fn item<'m>(
    module: &'m Module,
    names: &'m Names<'m>,
    call: Call<'m>,
    budget: &'m Cell<usize>,
) -> FoundEstimator {
    let mut reader = reader(module, names, call, budget);
    let mut definition = Map::new();
    let arguments = &call.call.arguments;
    for (index, value) in arguments.args.iter().enumerate() {
        if index == 0 && !matches!(value, Expr::Starred(_)) {
            source_directory(&mut reader, &mut definition, value);
        } else {
            reader.fill_in(value, "", "Only `source_directory` may come without its name; name the others.");
        }
    }
    for keyword in &arguments.keywords {
        match &keyword.arg {
            Some(name) if name.as_str() == "source_directory" => {
                source_directory(&mut reader, &mut definition, &keyword.value);
            }
            Some(name) => {
                told_twice(&mut reader, &definition, name.as_str(), &keyword.value);
                reader.member(&mut definition, name.to_string(), &keyword.value, "");
            }
            None => unpacked(&mut reader, &mut definition, &keyword.value),
        }
    }
    secrets::take_out(&mut reader, &mut definition);
    settings(&mut reader, call);
    let (line, column) = module.place(call.call);
    FoundEstimator {
        line,
        column,
        assigned_to: call.assigned_to.map(str::to_owned),
        definition,
        findings: reader.remarks.finish(),
    }
}

/// A folder of the machine that the script was written for means nothing here; the id of a snapshot does.
fn source_directory<'m>(reader: &mut Reader<'m>, definition: &mut Map<String, Value>, value: &'m Expr) {
    let known = reader.remarks.len();
    let folder = reader.thing(value, SOURCE_DIRECTORY);
    reader.remarks.truncate(known);
    match folder {
        Some(Thing::Plain(Value::String(folder))) => folder_or_id(reader, definition, value, Some(folder)),
        _ => folder_or_id(reader, definition, value, None),
    }
}

/// `folder` is none where it cannot be read.
fn folder_or_id(
    reader: &mut Reader<'_>,
    definition: &mut Map<String, Value>,
    place: &Expr,
    folder: Option<String>,
) {
    if let Some(id) = &folder
        && id.parse::<SnapshotId>().is_ok()
    {
        definition.insert("source_directory".to_owned(), Value::String(id.clone()));
        return;
    }
    let what = match &folder {
        Some(folder) => format!("{:?}", shortened(folder)),
        None => "what stands here".to_owned(),
    };
    let (line, column) = reader.module.place(place);
    reader.remarks.add(
        Severity::Error,
        FILL_IN,
        SOURCE_DIRECTORY,
        format!("Line {line}, column {column}: {what} is a folder on the machine of whoever wrote this; it was left out."),
        "Upload that folder and write the id of the snapshot: `create_snapshot` takes it as an archive, and \
         `estimatord submit --source DIR` packs, uploads and submits in one go.",
    );
}

/// Python refuses an argument that is given twice; which of the two was meant is for the author to say.
fn told_twice(reader: &mut Reader<'_>, definition: &Map<String, Value>, name: &str, place: &Expr) {
    if !definition.contains_key(name) {
        return;
    }
    let (line, column) = reader.module.place(place);
    reader.remarks.add(
        Severity::Error,
        FILL_IN,
        &json::child("", name),
        format!(
            "Line {line}, column {column}: `{}` is given a second time; this value was taken.",
            shortened(name)
        ),
        "Keep the value that is meant.",
    );
}

/// `**settings`: the members of a dictionary that can be read, or a finding.
fn unpacked<'m>(reader: &mut Reader<'m>, definition: &mut Map<String, Value>, value: &'m Expr) {
    let known = reader.remarks.len();
    match reader.thing(value, "") {
        Some(Thing::Plain(Value::Object(mut members))) => {
            if let Some(folder) = members.shift_remove("source_directory") {
                folder_or_id(reader, definition, value, folder.as_str().map(ToOwned::to_owned));
            }
            for (name, member) in members {
                told_twice(reader, definition, &name, value);
                definition.insert(name, member);
            }
        }
        _ => {
            reader.remarks.truncate(known);
            reader.fill_in(value, "", "Write the parameters that it holds into the definition one by one.");
        }
    }
}

/// What is set on the estimator after it was made has no place in a definition.
fn settings(reader: &mut Reader<'_>, call: Call<'_>) {
    let names = reader.names;
    let Some((name, _)) = call.assigned_to.and_then(|name| names.find(name, call.scope)) else { return };
    // A method of the estimator itself changes nothing; one of something inside it may.
    let changes =
        |change: &&Change<'_>| !matches!(change.action, Action::Call(..)) || !change.path.is_empty();
    for change in name.changes.iter().filter(changes) {
        let (line, column) = reader.module.place(change.statement);
        let source = reader.module.text(change.statement);
        let what = if is_secret(&change.path.join("/"), source) {
            "what is set here".to_owned()
        } else {
            format!("`{}`", shown(source))
        };
        reader.remarks.add(
            Severity::Warning,
            "setting-not-read",
            "",
            format!("Line {line}, column {column}: {what} changes the estimator after it was made, and was not read."),
            "Write what it sets as a parameter of the definition, if there is one.",
        );
    }
}

/// The finding for a source that is no Python 3.
fn syntax_error(error: &SyntaxError) -> Unreadable {
    let finding = finding(
        Severity::Error,
        "script-syntax-error",
        "",
        format!("The source does not parse as Python 3: {error}."),
        "Mend the source and send it again. It is parsed and never executed.",
    );
    Unreadable { finding: Box::new(finding), place: Some((error.line, error.column)) }
}

fn too_many() -> Unreadable {
    let finding = finding(
        Severity::Error,
        "too-many-calls",
        "",
        format!("The source calls `Chainer(…)` more than {MAX_CALLS} times."),
        "Send it in parts.",
    );
    Unreadable { finding: Box::new(finding), place: None }
}

/// The finding for a source without a call.
fn no_call(others: &[(String, usize)], is_notebook: bool) -> Unreadable {
    let mut message = "The source calls `Chainer(…)` of `azureml.train.dnn` nowhere.".to_owned();
    let mut fix = if others.is_empty() {
        "Send the source that makes the estimator."
    } else {
        let shown: Vec<String> =
            others.iter().take(10).map(|(class, line)| format!("`{class}(…)` in line {line}")).collect();
        message = format!("{message} What it does call: {}.", shown.join(", "));
        "Of the estimators only `Chainer` is read and run here. Write the definition by hand: `EstimatorDefinition` in the API's \
         document lists its members."
    };
    if is_notebook {
        message.push_str(" It is a notebook's file, not Python.");
        fix = "Send the source of the cell that makes the estimator.";
    }
    let finding = finding(Severity::Error, "estimator-call-not-found", "", message, fix);
    Unreadable { finding: Box::new(finding), place: None }
}

/// The JSON of a notebook is a Python expression, too.
fn is_notebook(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    start.starts_with(b"{") && start.windows(7).any(|part| part == b"\"cells\"")
}

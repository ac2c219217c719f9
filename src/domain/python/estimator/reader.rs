//! Reads values off expressions: literals, names with one value, and what is done to them. Nothing is executed.

use std::cell::Cell;

use ruff_python_ast::{
    Arguments, Expr, ExprBinOp, ExprCall, ExprDict, FStringPart, InterpolatedStringElement, Operator, UnaryOp,
};
use ruff_text_size::{Ranged, TextSize};
use serde_json::{Map, Value};

use super::{
    names::{Action, Change, Name, Names},
    number,
    remarks::{FILL_IN, Remarks, advice, is_secret, shown},
};
use crate::domain::{finding::Severity, json, python::Module};

/// How deep values may nest, names that stand for others included.
const MAX_DEPTH: usize = 64;

/// What a finding costs of the budget.
const FINDING: usize = 1_000;

/// Methods of plain values that change nothing.
const HARMLESS: &[&str] = &["keys", "values", "items", "get", "copy", "index", "count", "format", "join"];

/// Which SDK object something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `Mpi` and its like.
    Training,
    Registry,
    Environment,
    Conda,
    DataReference,
    DataPath,
    /// `DatasetConsumptionConfig`.
    Consumption,
}

/// What an expression stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Thing {
    /// A plain value.
    Plain(Value),
    /// An SDK object in its JSON form.
    Object(Class, Map<String, Value>),
    /// A datastore, by its name.
    Datastore(String),
    /// A compute target, by its name.
    Target(String),
    /// A dataset: `datastore` and `path`.
    Dataset(Map<String, Value>),
}

/// Reads the values of one call.
pub(super) struct Reader<'m> {
    pub(super) module: &'m Module,
    pub(super) names: &'m Names<'m>,
    pub(super) scope: usize,
    /// Where the call stands: what is done later does not count.
    pub(super) at: TextSize,
    /// The scope of the call itself.
    pub(super) home: usize,
    pub(super) remarks: Remarks,
    /// How much may still be read; names can stand for names, and double with each.
    pub(super) budget: &'m Cell<usize>,
    pub(super) depth: usize,
}

impl<'m> Reader<'m> {
    /// The value of an expression in its JSON form. Without one it is left out, and a finding says why.
    pub(super) fn value(&mut self, expression: &'m Expr, pointer: &str) -> Option<Value> {
        match self.thing(expression, pointer)? {
            Thing::Plain(value) => Some(value),
            Thing::Object(_, members) => Some(Value::Object(members)),
            Thing::Target(name) => Some(Value::String(name)),
            Thing::Datastore(name) if pointer.starts_with("/script_params") => {
                Some(Value::Object(super::objects::data_reference(&name, None)))
            }
            Thing::Datastore(name) => Some(Value::String(name)),
            Thing::Dataset(_) => {
                self.fill_in(
                    expression,
                    pointer,
                    "Give the dataset a name: {\"type\": \"DatasetConsumptionConfig\", \"name\": …, \"dataset\": {\"datastore\": \
                     …, \"path\": …}, \"mode\": \"mount\"}.",
                );
                None
            }
        }
    }

    /// The text that an expression stands for.
    pub(super) fn text(&mut self, expression: &'m Expr, pointer: &str) -> Option<String> {
        match self.thing(expression, pointer)? {
            Thing::Plain(Value::String(text)) => Some(text),
            _ => self.unread(expression, pointer),
        }
    }

    /// Reports that an expression cannot be read.
    pub(super) fn unread<T>(&mut self, expression: &impl Ranged, pointer: &str) -> Option<T> {
        self.fill_in(expression, pointer, &advice(pointer));
        None
    }

    pub(super) fn fill_in(&mut self, expression: &impl Ranged, pointer: &str, fix: &str) {
        if !self.spend(FINDING) {
            return self.remarks.overflow();
        }
        let (line, column) = self.module.place(expression);
        let source = self.module.text(expression);
        let piece = if is_secret(pointer, source) {
            "what stands here (not shown: it may hold a secret)".to_owned()
        } else {
            format!("`{}`", shown(source))
        };
        let message = format!(
            "Line {line}, column {column}: {piece} cannot be read off the source; the member was left out."
        );
        self.remarks.add(Severity::Error, FILL_IN, pointer, message, fix);
    }

    /// What an expression stands for; without it a finding says why.
    pub(super) fn thing(&mut self, expression: &'m Expr, pointer: &str) -> Option<Thing> {
        if !self.spend(1) || self.depth >= MAX_DEPTH {
            return self.unread(expression, pointer);
        }
        self.depth += 1;
        let thing = self.of_kind(expression, pointer);
        self.depth -= 1;
        if let Some(Thing::Plain(Value::String(text))) = &thing
            && !self.spend(text.len())
        {
            return self.unread(expression, pointer);
        }
        thing
    }

    fn spend(&self, amount: usize) -> bool {
        let left = self.budget.get().checked_sub(amount);
        self.budget.set(left.unwrap_or(0));
        left.is_some()
    }

    fn of_kind(&mut self, expression: &'m Expr, pointer: &str) -> Option<Thing> {
        let plain = |value: Value| Some(Thing::Plain(value));
        match expression {
            Expr::NoneLiteral(_) => plain(Value::Null),
            Expr::BooleanLiteral(literal) => plain(Value::Bool(literal.value)),
            Expr::StringLiteral(literal) => plain(Value::String(literal.value.to_str().to_owned())),
            Expr::NumberLiteral(literal) => match number::of(&literal.value, self.module.text(expression)) {
                Some(number) => plain(number),
                None => self.unread(expression, pointer),
            },
            Expr::FString(_) => self.formatted(expression, pointer),
            Expr::List(list) => self.list(&list.elts, pointer),
            Expr::Tuple(tuple) => self.list(&tuple.elts, pointer),
            Expr::Dict(dict) => self.dict(dict, pointer),
            Expr::UnaryOp(unary) => {
                let operand = self.thing(&unary.operand, pointer)?;
                let result = match (unary.op, operand) {
                    (UnaryOp::USub, Thing::Plain(value)) => number::negated(&value),
                    (UnaryOp::UAdd, Thing::Plain(value @ Value::Number(_))) => Some(value),
                    (UnaryOp::Not, Thing::Plain(Value::Bool(value))) => Some(Value::Bool(!value)),
                    _ => None,
                };
                result.map_or_else(|| self.unread(expression, pointer), plain)
            }
            Expr::BinOp(operation) => self.operation(operation, expression, pointer),
            Expr::Name(name) => self.named(name.id.as_str(), expression, pointer),
            Expr::Attribute(attribute) if attribute.attr.as_str() == "name" => {
                match self.thing(&attribute.value, pointer)? {
                    Thing::Target(name) | Thing::Datastore(name) => plain(Value::String(name)),
                    _ => self.unread(expression, pointer),
                }
            }
            Expr::Call(call) => self.call(call, expression, pointer),
            Expr::Subscript(subscript) => self.subscript(subscript, expression, pointer),
            _ => self.unread(expression, pointer),
        }
    }

    fn list(&mut self, items: &'m [Expr], pointer: &str) -> Option<Thing> {
        let mut list = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let place = json::item(pointer, index);
            match item {
                Expr::Starred(starred) => match self.thing(&starred.value, &place) {
                    Some(Thing::Plain(Value::Array(more))) => list.extend(more),
                    Some(_) => self.unread(item, &place)?,
                    None => {}
                },
                item => list.extend(self.value(item, &place)),
            }
        }
        Some(Thing::Plain(Value::Array(list)))
    }

    fn dict(&mut self, dict: &'m ExprDict, pointer: &str) -> Option<Thing> {
        let mut members = Map::new();
        for item in &dict.items {
            let Some(key) = &item.key else {
                match self.thing(&item.value, pointer) {
                    Some(Thing::Plain(Value::Object(more))) => members.extend(more),
                    Some(_) => self.unread::<()>(&item.value, pointer).unwrap_or_default(),
                    None => {}
                }
                continue;
            };
            if let Some(key) = self.text(key, pointer) {
                self.member(&mut members, key, &item.value, pointer);
            }
        }
        Some(Thing::Plain(Value::Object(members)))
    }

    /// Puts a value under a key, or leaves the key out.
    pub(super) fn member(
        &mut self,
        members: &mut Map<String, Value>,
        key: String,
        value: &'m Expr,
        pointer: &str,
    ) {
        let place = json::child(pointer, &key);
        match self.value(value, &place) {
            Some(value) => {
                members.insert(key, value);
            }
            None => {
                members.shift_remove(&key);
            }
        }
    }

    fn formatted(&mut self, expression: &'m Expr, pointer: &str) -> Option<Thing> {
        let Expr::FString(literal) = expression else { return None };
        let mut text = String::new();
        for part in literal.value.iter() {
            let formatted = match part {
                FStringPart::Literal(literal) => {
                    text.push_str(&literal.value);
                    continue;
                }
                FStringPart::FString(formatted) => formatted,
            };
            for element in formatted.elements.iter() {
                match element {
                    InterpolatedStringElement::Literal(literal) => text.push_str(&literal.value),
                    InterpolatedStringElement::Interpolation(field)
                        if field.format_spec.is_none()
                            && field.conversion.is_none()
                            && field.debug_text.is_none() =>
                    {
                        match self.thing(&field.expression, pointer)? {
                            Thing::Plain(Value::String(value)) => text.push_str(&value),
                            Thing::Plain(Value::Number(value)) if value.as_i64().is_some() => {
                                text.push_str(&value.to_string());
                            }
                            _ => return self.unread(expression, pointer),
                        }
                    }
                    InterpolatedStringElement::Interpolation(_) => return self.unread(expression, pointer),
                }
            }
        }
        Some(Thing::Plain(Value::String(text)))
    }

    fn operation(&mut self, operation: &'m ExprBinOp, whole: &'m Expr, pointer: &str) -> Option<Thing> {
        let known = self.remarks.len();
        let left = self.thing(&operation.left, pointer);
        let right = left.as_ref().and_then(|_| self.thing(&operation.right, pointer));
        let result = match (left, operation.op, right) {
            (Some(Thing::Plain(left)), operator, Some(Thing::Plain(right))) => {
                match (left, operator, right) {
                    (Value::String(left), Operator::Add, Value::String(right)) => {
                        Some(Value::String(left + &right))
                    }
                    (Value::Array(mut left), Operator::Add, Value::Array(right)) => {
                        left.extend(right);
                        self.spend(left.len()).then_some(Value::Array(left))
                    }
                    (Value::Number(left), operator, Value::Number(right)) => {
                        let numbers = left.as_i64().zip(right.as_i64());
                        numbers
                            .and_then(|(left, right)| number::calculated(left, operator, right))
                            .map(Value::from)
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        if result.is_none() {
            // One finding about the whole says more than one about a part of it.
            self.remarks.truncate(known);
            return self.unread(whole, pointer);
        }
        result.map(Thing::Plain)
    }

    /// What a name stands for: its one value, or several that are all the same, with what was done to it before the call.
    fn named(&mut self, name: &str, expression: &'m Expr, pointer: &str) -> Option<Thing> {
        let names = self.names;
        let Some((found, scope)) = names.find(name, self.scope) else {
            return self.unread(expression, pointer);
        };
        if found.import.is_some() {
            return self.unread(expression, pointer);
        }
        let outer = std::mem::replace(&mut self.scope, scope);
        let thing = self.assigned(found, expression, pointer);
        let thing = thing.and_then(|thing| self.changed(thing, found, scope, pointer));
        self.scope = outer;
        thing
    }

    fn assigned(&mut self, name: &Name<'m>, expression: &'m Expr, pointer: &str) -> Option<Thing> {
        if let [one] = name.assigned.as_slice()
            && !one.conditional
        {
            return match one.value {
                Some(value) => self.thing(value, pointer),
                None => self.unread(expression, pointer),
            };
        }
        // A target that is looked up, and made where it is not found, is the same target either way.
        let known = self.remarks.len();
        let mut same: Option<Thing> = None;
        let several = (2..=8).contains(&name.assigned.len());
        for assigned in name.assigned.iter().filter(|_| several) {
            let thing = assigned.value.and_then(|value| self.thing(value, pointer));
            if thing.is_none() || same.as_ref().is_some_and(|same| Some(same) != thing.as_ref()) {
                same = None;
                break;
            }
            same = thing;
        }
        if same.is_none() {
            self.remarks.truncate(known);
            return self.unread(expression, pointer);
        }
        same
    }

    fn changed(&mut self, thing: Thing, name: &Name<'m>, scope: usize, pointer: &str) -> Option<Thing> {
        let mut thing = thing;
        for change in &name.changes {
            // Within the call's own scope the order of the text is the order in which things happen.
            if scope == self.home && change.at >= self.at {
                continue;
            }
            let harmless = match (&change.action, &thing) {
                (Action::Call(method, _), Thing::Plain(_)) => HARMLESS.contains(method),
                (Action::Call(..), Thing::Datastore(_) | Thing::Target(_) | Thing::Dataset(_)) => true,
                (Action::Call(..), Thing::Object(Class::Environment, _)) => change.path.is_empty(),
                (Action::Call(method, _), Thing::Object(Class::Conda, _)) => {
                    method.starts_with("save") || method.starts_with("serialize")
                }
                _ => false,
            };
            if harmless {
                continue;
            }
            if change.conditional {
                return self.unread(change.statement, pointer);
            }
            thing = self.change(thing, change, pointer)?;
        }
        Some(thing)
    }

    fn change(&mut self, thing: Thing, change: &Change<'m>, pointer: &str) -> Option<Thing> {
        let mut thing = thing;
        let done = match (&mut thing, change.path.as_slice(), &change.action) {
            (Thing::Plain(Value::Object(members)), [], Action::Item(key, value)) => {
                if let Some(key) = self.text(key, pointer) {
                    self.member(members, key, value, pointer);
                }
                true
            }
            (Thing::Plain(Value::Object(members)), [], Action::Call("update", arguments)) => {
                self.update(members, arguments, pointer);
                true
            }
            (Thing::Plain(Value::Array(items)), [], Action::Call("append", arguments)) => {
                let place = json::item(pointer, items.len());
                if let [one] = &*arguments.args {
                    items.extend(self.value(one, &place));
                }
                true
            }
            (Thing::Plain(Value::Array(items)), [], Action::Call("extend", arguments)) => {
                match arguments.args.first().and_then(|more| self.thing(more, pointer)) {
                    Some(Thing::Plain(Value::Array(more))) => {
                        items.extend(more);
                        true
                    }
                    _ => false,
                }
            }
            (Thing::Object(class, members), path, action) => {
                let class = *class;
                self.change_object(class, members, path, action, change, pointer)
            }
            _ => false,
        };
        if done { Some(thing) } else { self.unread(change.statement, pointer) }
    }

    fn update(&mut self, members: &mut Map<String, Value>, arguments: &'m Arguments, pointer: &str) {
        for argument in &arguments.args {
            match self.thing(argument, pointer) {
                Some(Thing::Plain(Value::Object(more))) => members.extend(more),
                Some(_) => self.unread::<()>(argument, pointer).unwrap_or_default(),
                None => {}
            }
        }
        for keyword in &arguments.keywords {
            match &keyword.arg {
                Some(key) => self.member(members, key.to_string(), &keyword.value, pointer),
                None => match self.thing(&keyword.value, pointer) {
                    Some(Thing::Plain(Value::Object(more))) => members.extend(more),
                    Some(_) => self.unread::<()>(&keyword.value, pointer).unwrap_or_default(),
                    None => {}
                },
            }
        }
    }

    /// Calls of functions that plain values come from; those of the SDK are left to `objects`.
    fn call(&mut self, call: &'m ExprCall, whole: &'m Expr, pointer: &str) -> Option<Thing> {
        let dotted = self.names.dotted(&call.func, self.scope).unwrap_or_default();
        match dotted.as_str() {
            "dict" => {
                let mut members = Map::new();
                self.update(&mut members, &call.arguments, pointer);
                Some(Thing::Plain(Value::Object(members)))
            }
            "str" if call.arguments.args.len() == 1 => match self.thing(&call.arguments.args[0], pointer)? {
                Thing::Plain(Value::Number(number)) => Some(Thing::Plain(Value::String(number.to_string()))),
                Thing::Plain(value @ Value::String(_)) => Some(Thing::Plain(value)),
                // `str()` of a reference is the way to pass it on.
                thing @ (Thing::Object(Class::DataReference, _) | Thing::Datastore(_)) => Some(thing),
                _ => self.unread(whole, pointer),
            },
            "os.path.join" | "posixpath.join" if call.arguments.keywords.is_empty() => {
                let mut path = String::new();
                for part in &call.arguments.args {
                    let part = self.text(part, pointer)?;
                    if part.starts_with('/') {
                        path.clear();
                    } else if !path.is_empty() && !path.ends_with('/') {
                        path.push('/');
                    }
                    path.push_str(&part);
                }
                Some(Thing::Plain(Value::String(path)))
            }
            _ => self.object(call, &dotted, whole, pointer),
        }
    }
}

/// An argument by its name or its place.
pub(super) fn argument<'m>(arguments: &'m Arguments, name: &str, place: usize) -> Option<&'m Expr> {
    let named = arguments
        .keywords
        .iter()
        .find(|keyword| keyword.arg.as_ref().is_some_and(|arg| arg.as_str() == name));
    match named {
        Some(keyword) => Some(&keyword.value),
        None => arguments.args.get(place).filter(|argument| !matches!(argument, Expr::Starred(_))),
    }
}

//! The body of `POST /v1/runs`: read member by member, so that everything wrong is said at once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    api::{
        estimators::{EXAMPLE_SNAPSHOT, EstimatorDefinition},
        findings::{Members, error_at, escaped, kind_of},
    },
    domain::{finding::Finding, ids::EstimatorId, run::Cause},
    storage::{run_patch::Changeable, runs::Run},
};

/// The grammar of the contract.
const MAX_EXPERIMENT_NAME: usize = 255;
/// Enough for a sentence; it is shown in lists.
const MAX_DISPLAY_NAME: usize = 255;
/// Tags are an index of the database: moderate in number and size.
const MAX_TAGS: usize = 100;
const MAX_TAG_KEY: usize = 255;
const MAX_TAG_VALUE: usize = 1024;
const MAX_ATTEMPTS: i64 = 100;
/// A year.
const MAX_QUEUE_SECONDS: i64 = 31_536_000;

// It documents the body; `read` reads it.
/// A run as it is posted.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "experiment_name": "digits",
    "estimator": {
        "source_directory": EXAMPLE_SNAPSHOT,
        "compute_target": "local",
        "entry_script": "train.py",
        "script_params": {"--learning-rate": 0.002},
        "framework_version": "7.0.0",
        "pip_packages": ["scikit-learn"]
    },
    "script_params": {"--epochs": 20},
    "tags": {"team": "vision"}
}))]
pub struct RunBody {
    /// A letter or digit, then letters, digits, `_` and `-`; at most 255 characters.
    #[schema(pattern = "^[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}$", example = "digits")]
    pub experiment_name: String,
    /// A stored estimator. Either this or `estimator`.
    pub estimator_id: Option<EstimatorId>,
    /// A definition, judged and stored by the same call. Either this or `estimator_id`.
    #[schema(value_type = Option<EstimatorDefinition>)]
    pub estimator: Option<Map<String, Value>>,
    /// Merged by key into the definition's: an existing key keeps its place, a new one goes to the end.
    pub script_params: Option<BTreeMap<String, Value>>,
    /// Replaces the definition's.
    pub inputs: Option<Vec<Value>>,
    /// Replaces the definition's.
    pub source_directory_data_store: Option<String>,
    /// Replaces the definition's.
    pub compute_target: Option<String>,
    /// A name for people.
    #[schema(max_length = 255)]
    pub display_name: Option<String>,
    /// Labels: texts by name, at most 100.
    pub tags: Option<BTreeMap<String, String>>,
    /// Higher goes first among queued runs of one target.
    #[schema(default = 0, required = false)]
    pub priority: i32,
    /// How many attempts the run may have. Another one is made after a failure of the system: its compute was lost or taken away,
    /// it could not be handed over.
    #[schema(minimum = 1, maximum = 100, default = 1, required = false)]
    pub max_attempts: u32,
    /// What else another attempt is made after: `script_failed`, or nothing.
    #[schema(value_type = Option<Vec<String>>, example = json!(["script_failed"]))]
    pub retry_on: Option<Vec<Cause>>,
    /// How long it may be queued before it ends as `Canceled`, `max_queue_duration_exceeded`; for ever when absent. Each time that
    /// it comes back to the queue counts anew.
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub max_queue_duration_seconds: Option<u32>,
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) enum Source<'a> {
    /// A stored estimator.
    Stored(EstimatorId),
    /// A definition in the body.
    Inline(&'a Map<String, Value>),
}

/// The body, read.
#[derive(Clone, Debug)]
pub(super) struct RunRequest<'a> {
    pub experiment_name: String,
    /// None when the body names none, both, or none that can be read; there is a finding then.
    pub source: Option<Source<'a>>,
    /// What is merged into the definition: only members that are given and have the right type.
    pub overrides: Map<String, Value>,
    pub display_name: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub priority: i32,
    pub max_attempts: u32,
    pub retry_on: Vec<Cause>,
    pub max_queue_duration_seconds: Option<u32>,
    /// Everything that is wrong with the body itself.
    pub findings: Vec<Finding>,
}

/// Reads the body.
pub(super) fn read(body: &Map<String, Value>) -> RunRequest<'_> {
    let mut members = Members::new(body, "");
    let experiment_name = experiment_name(&mut members, None);
    let source = source(&mut members);
    rest(members, experiment_name, source, &Defaults::default())
}

/// Reads what a run that repeats another one is to have otherwise.
pub(super) fn read_patch<'a>(body: &'a Map<String, Value>, earlier: &Run) -> RunRequest<'a> {
    let mut members = Members::new(body, "");
    let experiment_name = experiment_name(&mut members, Some(&earlier.experiment_name));
    let defaults = Defaults {
        display_name: earlier.display_name.clone(),
        tags: earlier.tags.clone(),
        priority: earlier.priority,
        max_attempts: earlier.max_attempts,
        retry_on: earlier.retry_on.clone(),
        max_queue_duration_seconds: earlier.max_queue_duration_seconds,
    };
    rest(members, experiment_name, Some(Source::Stored(earlier.estimator_id)), &defaults)
}

/// What holds where the body says nothing.
struct Defaults {
    display_name: Option<String>,
    tags: BTreeMap<String, String>,
    priority: i32,
    max_attempts: u32,
    retry_on: Vec<Cause>,
    max_queue_duration_seconds: Option<u32>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            display_name: None,
            tags: BTreeMap::new(),
            priority: 0,
            max_attempts: 1,
            retry_on: Vec::new(),
            max_queue_duration_seconds: None,
        }
    }
}

fn rest<'a>(
    mut members: Members<'a>,
    experiment_name: String,
    source: Option<Source<'a>>,
    defaults: &Defaults,
) -> RunRequest<'a> {
    let overrides = overrides(&mut members);
    let display_name = members.text("display_name");
    if display_name.is_some_and(|text| text.chars().count() > MAX_DISPLAY_NAME) {
        too_long(&mut members, "display_name", MAX_DISPLAY_NAME);
    }
    let display_name =
        display_name.map_or_else(|| defaults.display_name.clone(), |text| Some(text.to_owned()));
    let tags = tags(&mut members);
    let priority = members.integer("priority", i64::from(i32::MIN)..=i64::from(i32::MAX));
    let max_attempts = members.integer("max_attempts", 1..=MAX_ATTEMPTS);
    let retry_on = retry_on(&mut members);
    let max_queue = members.integer("max_queue_duration_seconds", 1..=MAX_QUEUE_SECONDS);
    RunRequest {
        experiment_name,
        source,
        overrides,
        display_name: display_name.filter(|text| !text.is_empty()),
        tags: tags.unwrap_or_else(|| defaults.tags.clone()),
        priority: priority.and_then(|number| i32::try_from(number).ok()).unwrap_or(defaults.priority),
        max_attempts: max_attempts
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(defaults.max_attempts),
        retry_on: retry_on.unwrap_or_else(|| defaults.retry_on.clone()),
        max_queue_duration_seconds: max_queue
            .and_then(|number| u32::try_from(number).ok())
            .or(defaults.max_queue_duration_seconds),
        findings: members.finish(),
    }
}

/// Which causes another attempt is made after, besides the system's own.
fn retry_on(members: &mut Members<'_>) -> Option<Vec<Cause>> {
    let mut causes = Vec::new();
    let list = members.list("retry_on")?;
    for (place, value) in list.iter().enumerate() {
        match value.as_str().and_then(|word| word.parse().ok()) {
            Some(Cause::ScriptFailed) if causes.is_empty() => causes.push(Cause::ScriptFailed),
            Some(Cause::ScriptFailed) => {}
            Some(cause) if cause.is_systems_fault() => {
                let message = format!(
                    "`{cause}` is always followed by another attempt while `max_attempts` allows one"
                );
                let finding =
                    error_at("retry-on-unknown", &format!("/retry_on/{place}"), message, "leave it out");
                members.findings.push(finding);
            }
            _ => {
                let message = "another attempt can be asked for after `script_failed` only";
                let finding = error_at(
                    "retry-on-unknown",
                    &format!("/retry_on/{place}"),
                    message.to_owned(),
                    "write `script_failed`",
                );
                members.findings.push(finding);
            }
        }
    }
    Some(causes)
}

fn too_long(members: &mut Members<'_>, name: &str, limit: usize) {
    let form = format!("at most {limit} characters");
    members.refuse("too-long", name, format!("`{name}` must have {form}"), format!("write {form}"));
}

/// Whether a text is an experiment's name.
fn is_experiment_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && text.len() <= MAX_EXPERIMENT_NAME
}

fn experiment_name(members: &mut Members<'_>, default: Option<&str>) -> String {
    let form = "1 to 255 characters: a letter or digit, then letters, digits, `_`, `-`";
    let before = members.findings.len();
    match members.text("experiment_name") {
        Some(text) if is_experiment_name(text) => return text.to_owned(),
        Some(_) => members.refuse(
            "experiment-name-invalid",
            "experiment_name",
            format!("`experiment_name` must be {form}"),
            "write a name such as `mnist-baseline`",
        ),
        None if members.findings.len() > before => {}
        None => match default {
            Some(name) => return name.to_owned(),
            None => members.missing("experiment_name", form),
        },
    }
    String::new()
}

fn source<'a>(members: &mut Members<'a>) -> Option<Source<'a>> {
    let before = members.findings.len();
    let id = members.text("estimator_id");
    let inline = members.object("estimator");
    if members.findings.len() > before {
        return None;
    }
    match (id, inline) {
        (Some(id), None) => {
            let id = id.parse().ok().map(Source::Stored);
            if id.is_none() {
                members.refuse(
                    "estimator-not-found",
                    "estimator_id",
                    "`estimator_id` must be the id of a stored estimator: a UUID",
                    "write the `id` that `create_estimator` answered",
                );
            }
            id
        }
        (None, Some(map)) => Some(Source::Inline(map)),
        (Some(_), Some(_)) => {
            let message = "a run is made of a stored estimator or of an inline one, not of both";
            members.refuse("conflicting-parameters", "estimator_id", message, "leave one of the two out");
            None
        }
        (None, None) => {
            members.missing("estimator", "a definition (or give `estimator_id`, the id of a stored one)");
            None
        }
    }
}

/// What is given and is not the empty value of its kind.
fn overrides(members: &mut Members<'_>) -> Map<String, Value> {
    let mut overrides = Map::new();
    if let Some(map) = members.object("script_params").filter(|map| !map.is_empty()) {
        overrides.insert("script_params".to_owned(), Value::Object(map.clone()));
    }
    if let Some(list) = members.list("inputs").filter(|list| !list.is_empty()) {
        overrides.insert("inputs".to_owned(), Value::Array(list.clone()));
    }
    for name in ["source_directory_data_store", "compute_target"] {
        if let Some(text) = members.text(name).filter(|text| !text.is_empty()) {
            overrides.insert(name.to_owned(), Value::String(text.to_owned()));
        }
    }
    overrides
}

/// What is to be otherwise of a run: a merge patch, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunPatch {
    display_name: Option<Option<String>>,
    /// By name: what to set, or none for what to take away.
    tags: Option<BTreeMap<String, Option<String>>>,
    /// Whether all labels go.
    takes_all_tags: bool,
    priority: Option<i32>,
}

impl RunPatch {
    /// Reads a merge patch of a run that has these labels.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn read(
        body: &Map<String, Value>,
        before: BTreeMap<String, String>,
    ) -> Result<Self, Vec<Finding>> {
        let is_null = |name: &str| body.get(name).is_some_and(Value::is_null);
        let mut members = Members::new(body, "");
        let display_name = members.text("display_name");
        if display_name.is_some_and(|text| text.chars().count() > MAX_DISPLAY_NAME) {
            too_long(&mut members, "display_name", MAX_DISPLAY_NAME);
        }
        let named = members.object("tags");
        let set: Map<String, Value> = named
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        read_tags(&mut members, &set);
        let tags = named.map(|map| {
            map.iter().map(|(key, value)| (key.clone(), value.as_str().map(str::to_owned))).collect()
        });
        let priority = members.integer("priority", i64::from(i32::MIN)..=i64::from(i32::MAX));
        let patch = Self {
            display_name: match display_name {
                Some(text) => Some(Some(text.to_owned()).filter(|text| !text.is_empty())),
                None => is_null("display_name").then_some(None),
            },
            tags,
            takes_all_tags: is_null("tags"),
            priority: priority
                .and_then(|number| i32::try_from(number).ok())
                .or(is_null("priority").then_some(0)),
        };
        let together = patch.clone().tags_after(before).len();
        if together > MAX_TAGS && set.len() <= MAX_TAGS {
            let message = format!("a run has at most {MAX_TAGS} tags; with these it would have {together}");
            members.refuse("too-long", "tags", message, "take some away: write null for them");
        }
        let findings = members.finish();
        if findings.is_empty() { Ok(patch) } else { Err(findings) }
    }

    /// What is there, with the change.
    pub(super) fn apply(self, there: Changeable) -> Changeable {
        Changeable {
            display_name: self.display_name.clone().unwrap_or_else(|| there.display_name.clone()),
            priority: self.priority.unwrap_or(there.priority),
            tags: self.tags_after(there.tags),
        }
    }

    fn tags_after(self, mut tags: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if self.takes_all_tags {
            return BTreeMap::new();
        }
        for (key, value) in self.tags.unwrap_or_default() {
            match value {
                Some(value) => tags.insert(key, value),
                None => tags.remove(&key),
            };
        }
        tags
    }
}

fn tags(members: &mut Members<'_>) -> Option<BTreeMap<String, String>> {
    let map = members.object("tags")?;
    Some(read_tags(members, map))
}

/// Labels; what is wrong with them becomes findings.
fn read_tags(members: &mut Members<'_>, map: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    if map.len() > MAX_TAGS {
        let message = format!("a run has at most {MAX_TAGS} tags; these are {}", map.len());
        members.refuse("too-long", "tags", message, format!("write at most {MAX_TAGS} tags"));
        return tags;
    }
    for (key, value) in map {
        let pointer = format!("/tags/{}", escaped(key));
        let key_fits = (1..=MAX_TAG_KEY).contains(&key.chars().count()) && !key.contains('\0');
        let finding = match value {
            Value::String(text) if text.contains('\0') => {
                Some(("wrong-type", "a tag's value must not hold a NUL character".to_owned()))
            }
            Value::String(text) if text.chars().count() > MAX_TAG_VALUE => {
                Some(("too-long", format!("a tag's value has at most {MAX_TAG_VALUE} characters")))
            }
            Value::String(_) if !key_fits => {
                Some(("too-long", format!("a tag's name has 1 to {MAX_TAG_KEY} characters and no NUL")))
            }
            Value::String(text) => {
                tags.insert(key.clone(), text.clone());
                None
            }
            other => Some(("wrong-type", format!("a tag's value must be a text; it is {}", kind_of(other)))),
        };
        if let Some((rule, message)) = finding {
            members.findings.push(error_at(rule, &pointer, message, "write a shorter text in quotes"));
        }
    }
    tags
}

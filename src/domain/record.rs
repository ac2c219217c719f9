//! What a script records about its run: lines of JSON that the `azureml` module appends to a file per process.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The longest line, its end included. The module refuses longer ones itself.
pub const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// How much all processes of one attempt may record.
pub const MAX_ATTEMPT_BYTES: u64 = 256 * 1024 * 1024;
/// How many processes of one attempt may record: each has a file of its own.
pub const MAX_FILES: usize = 4096;
/// Characters of the name of a metric, a tag or a property.
const MAX_NAME_CHARS: usize = 255;

/// Which method of the SDK's `Run` a metric was logged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// `log`: a number, a text or a boolean.
    Scalar,
    /// `log_list`: an array.
    List,
    /// `log_row`: an object of columns.
    Row,
    /// `log_table`: an object of columns, each a value or an array.
    Table,
    /// `log_image`: an object whose `path` is a file below `./outputs`.
    Image,
    /// `log_accuracy_table`.
    AccuracyTable,
    /// `log_confusion_matrix`.
    ConfusionMatrix,
    /// `log_predictions`.
    Predictions,
    /// `log_residuals`.
    Residuals,
}

impl MetricKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Scalar,
        Self::List,
        Self::Row,
        Self::Table,
        Self::Image,
        Self::AccuracyTable,
        Self::ConfusionMatrix,
        Self::Predictions,
        Self::Residuals,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::List => "list",
            Self::Row => "row",
            Self::Table => "table",
            Self::Image => "image",
            Self::AccuracyTable => "accuracy_table",
            Self::ConfusionMatrix => "confusion_matrix",
            Self::Predictions => "predictions",
            Self::Residuals => "residuals",
        }
    }
}

impl std::str::FromStr for MetricKind {
    type Err = super::run::UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || super::run::UnknownWord(text.to_owned());
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(unknown)
    }
}

/// One value that was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The metric's name.
    pub name: String,
    /// How it was logged.
    pub kind: MetricKind,
    /// As it was logged; numbers that JSON has not are the texts `NaN`, `Infinity` and `-Infinity`.
    pub value: Value,
    /// The step that the script gave it.
    pub step: Option<i64>,
    /// When it was logged, by the clock of the machine it was logged on.
    pub recorded_at: DateTime<Utc>,
    /// The description that the script gave it.
    pub description: Option<String>,
    /// The child run that logged it, where the script made one.
    pub child: Option<String>,
}

/// One thing that a script recorded.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A value of a metric.
    Metric(Metric),
    /// A tag was set.
    Tag(String, String),
    /// A tag was removed.
    TagRemoved(String),
    /// A property was added.
    Property(String, String),
    /// The script called its run completed; how it really ends is decided by its exit.
    Completed,
    /// The script called its run failed, and said this.
    Failed(String),
}

/// Why a line is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON that the module writes.
    #[error("it is no record: {0}")]
    Malformed(String),
    /// A member that this type of record needs.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A name that cannot be kept.
    #[error("a name has 1 to {MAX_NAME_CHARS} characters, none of them NUL")]
    Name,
    /// A time that no clock shows.
    #[error("its time is out of range")]
    Time,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Type {
    Metric,
    Tag,
    TagRemoved,
    Property,
    Status,
}

#[derive(Deserialize)]
struct Line {
    r#type: Type,
    time: f64,
    name: Option<String>,
    kind: Option<MetricKind>,
    #[serde(default, deserialize_with = "given")]
    value: Option<Value>,
    step: Option<i64>,
    description: Option<String>,
    child: Option<String>,
    status: Option<String>,
    message: Option<String>,
    code: Option<Value>,
}

/// `null` that was written is a value; a missing member is none.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Record {
    /// Reads one line.
    ///
    /// # Errors
    /// When it is none that the module writes.
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        let line: Line =
            serde_json::from_slice(line).map_err(|error| RecordError::Malformed(error.to_string()))?;
        let recorded_at = time(line.time)?;
        if matches!(line.r#type, Type::Status) {
            let message = line.message.filter(|message| !message.is_empty());
            return Ok(match line.status.as_deref() {
                Some("failed") => Self::Failed(failure(message, line.code.as_ref())),
                _ => Self::Completed,
            });
        }
        let name = line.name.ok_or(RecordError::Missing("name"))?;
        let length = name.chars().count();
        if length == 0 || length > MAX_NAME_CHARS || name.contains('\0') {
            return Err(RecordError::Name);
        }
        let value = line.value.ok_or(RecordError::Missing("value"));
        Ok(match line.r#type {
            Type::Metric => Self::Metric(Metric {
                name,
                kind: line.kind.ok_or(RecordError::Missing("kind"))?,
                value: value?,
                step: line.step,
                recorded_at,
                description: line.description.map(|text| clean(&text)).filter(|text| !text.is_empty()),
                child: line.child.map(|text| clean(&text)),
            }),
            Type::Tag => Self::Tag(name, text(&value?)),
            Type::Property => Self::Property(name, text(&value?)),
            Type::TagRemoved => Self::TagRemoved(name),
            Type::Status => Self::Completed,
        })
    }
}

fn time(seconds: f64) -> Result<DateTime<Utc>, RecordError> {
    // The year 9999, which is the last that RFC 3339 can write.
    const LAST: f64 = 253_402_300_799.0;
    if !(0.0..=LAST).contains(&seconds) {
        return Err(RecordError::Time);
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 2.6e17, which was just compared")]
    DateTime::from_timestamp_micros((seconds * 1e6) as i64).ok_or(RecordError::Time)
}

/// Tags and properties are texts; a tag without a value has the empty one.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        other => other.to_string(),
    }
}

/// The database takes no NUL in a text.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn failure(message: Option<String>, code: Option<&Value>) -> String {
    let code = code.map(text).filter(|code| !code.is_empty());
    let said = match (message, code) {
        (Some(message), Some(code)) => format!("{message} (error code {code})"),
        (Some(message), None) => message,
        (None, Some(code)) => format!("error code {code}"),
        (None, None) => "it gave no reason".to_owned(),
    };
    clean(&said)
}

/// The rank of the process that writes a file of this name, `<rank>-<pid>-<random>.jsonl`.
#[must_use]
pub fn rank_of(file_name: &str) -> Option<i32> {
    let stem = file_name.strip_suffix(".jsonl")?;
    stem.split_once('-')?.0.parse().ok().filter(|rank| *rank >= 0)
}

/// What is read from a part of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The records, in order.
    pub records: Vec<Record>,
    /// How many bytes of the part they took; the rest is a line that is not whole yet.
    pub bytes: u64,
    /// Why nothing more is to be read from this file.
    pub fault: Option<String>,
}

/// Takes the whole lines of a part of a file that begins `at` this byte of it. With `finally`, nothing comes after it.
///
/// Times never go backwards within a file: a clock that was set back would put values before those they followed.
#[must_use]
pub fn read_batch(part: &[u8], at: u64, finally: bool, last: &mut DateTime<Utc>) -> Batch {
    let mut batch = Batch::default();
    for line in part.split_inclusive(|byte| *byte == b'\n') {
        let offset = at + batch.bytes;
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let is_whole = line.ends_with(b"\n");
        if length > MAX_LINE_BYTES {
            batch.fault = Some(format!("a line at byte {offset} is longer than {MAX_LINE_BYTES} bytes"));
            break;
        }
        if !is_whole && !finally {
            break;
        }
        match Record::parse(line) {
            Ok(mut record) => {
                if let Record::Metric(metric) = &mut record {
                    *last = metric.recorded_at.max(*last);
                    metric.recorded_at = *last;
                }
                batch.records.push(record);
            }
            Err(error) => {
                batch.fault = Some(format!("the line at byte {offset} cannot be taken: {error}"));
                break;
            }
        }
        batch.bytes += length;
    }
    batch
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(line: &Value) -> Result<Record, RecordError> {
        Record::parse(line.to_string().as_bytes())
    }

    fn metric(time: f64) -> String {
        format!("{}\n", json!({"type": "metric", "time": time, "name": "a", "kind": "scalar", "value": 0.97}))
    }

    #[test]
    fn a_metric_is_read_with_all_it_says() {
        let record = Record::parse(
            br#"{"type":"metric","time":1.5,"sequence":0,"name":"loss","kind":"scalar","value":1.0e-3,"step":7,"description":"d"}"#,
        );
        let Ok(Record::Metric(metric)) = record else { panic!("{record:?}") };
        assert_eq!((metric.name.as_str(), metric.kind, metric.step), ("loss", MetricKind::Scalar, Some(7)));
        assert_eq!(metric.recorded_at, DateTime::from_timestamp_millis(1500).unwrap());
        assert_eq!((metric.description.as_deref(), metric.child), (Some("d"), None));
        assert_eq!(metric.value.as_f64(), Some(0.001));
    }

    #[test]
    fn every_kind_is_read_back() {
        for kind in MetricKind::ALL {
            assert_eq!(kind.as_str().parse::<MetricKind>(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn tags_properties_and_ends() {
        let tag = |value: Value| parsed(&json!({"type": "tag", "time": 0, "name": "t", "value": value}));
        assert_eq!(tag(json!("x")), Ok(Record::Tag("t".into(), "x".into())));
        assert_eq!(tag(json!(null)), Ok(Record::Tag("t".into(), String::new())));
        let property = json!({"type": "property", "time": 0, "name": "p", "value": "a\0b"});
        assert_eq!(parsed(&property), Ok(Record::Property("p".into(), "a\u{fffd}b".into())));
        let removed = json!({"type": "tag_removed", "time": 0, "name": "t"});
        assert_eq!(parsed(&removed), Ok(Record::TagRemoved("t".into())));
        let completed = json!({"type": "status", "time": 0, "status": "completed"});
        assert_eq!(parsed(&completed), Ok(Record::Completed));
        let failed =
            json!({"type": "status", "time": 0, "status": "failed", "message": "diverged", "code": 3});
        assert_eq!(parsed(&failed), Ok(Record::Failed("diverged (error code 3)".into())));
    }

    #[test]
    fn what_is_no_record_says_why() {
        let metric = |change: &str, value: Value| {
            let mut line = json!({"type": "metric", "time": 0, "name": "a", "kind": "scalar", "value": 1});
            line[change] = value;
            parsed(&line)
        };
        assert_eq!(metric("name", json!("")), Err(RecordError::Name));
        assert_eq!(metric("name", json!("a\0")), Err(RecordError::Name));
        assert_eq!(metric("name", json!("x".repeat(256))), Err(RecordError::Name));
        assert_eq!(metric("time", json!(-1)), Err(RecordError::Time));
        assert_eq!(metric("time", json!(1e300)), Err(RecordError::Time));
        assert!(matches!(metric("kind", json!("other")), Err(RecordError::Malformed(_))));
        assert!(matches!(Record::parse(b"\xff"), Err(RecordError::Malformed(_))));
        let bare = json!({"type": "metric", "time": 0, "name": "a", "kind": "scalar"});
        assert_eq!(parsed(&bare), Err(RecordError::Missing("value")));
    }

    #[test]
    fn ranks_stand_in_the_names_of_files() {
        assert_eq!(rank_of("3-99-0a1b2c3d.jsonl"), Some(3));
        for other in ["3.jsonl", "x-1-2.jsonl", "-1-2.jsonl", "1-2-3.json", "1-2/3-4.jsonl.tmp"] {
            assert_eq!(rank_of(other), None, "{other}");
        }
    }

    #[test]
    fn only_whole_lines_are_taken_until_the_end() {
        let (first, second) = (metric(1.0), metric(2.0));
        let text = format!("{first}{}", second.trim_end());
        let mut last = DateTime::UNIX_EPOCH;
        let batch = read_batch(text.as_bytes(), 0, false, &mut last);
        assert_eq!((batch.records.len(), batch.bytes), (1, first.len() as u64));
        let rest = read_batch(&text.as_bytes()[first.len()..], batch.bytes, true, &mut last);
        assert_eq!((rest.records.len(), rest.fault), (1, None));
    }

    #[test]
    fn times_never_go_backwards_within_a_file() {
        let mut last = DateTime::UNIX_EPOCH;
        let batch = read_batch(format!("{}{}", metric(9.0), metric(4.0)).as_bytes(), 0, false, &mut last);
        let times: Vec<_> = batch
            .records
            .iter()
            .map(|record| match record {
                Record::Metric(metric) => metric.recorded_at.timestamp(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(times, [9, 9]);
    }

    #[test]
    fn damage_ends_a_file_and_says_where() {
        let text = format!("{}nonsense\n{}", metric(1.0), metric(2.0));
        let batch = read_batch(text.as_bytes(), 100, false, &mut DateTime::UNIX_EPOCH.clone());
        assert_eq!(batch.records.len(), 1);
        let at = format!("the line at byte {}", 100 + metric(1.0).len());
        assert!(batch.fault.unwrap().starts_with(&at));
        let long = vec![b'x'; usize::try_from(MAX_LINE_BYTES).unwrap() + 1];
        let batch = read_batch(&long, 0, false, &mut DateTime::UNIX_EPOCH.clone());
        assert!(batch.fault.unwrap().contains("longer than"));
    }
}

//! The body of `PUT /v1/datastores/{name}`: read member by member, so that everything wrong is said at once.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    api::findings::Members,
    domain::{
        datastore::{Datastore, DatastoreName, DatastoreUrl},
        finding::Finding,
    },
};

/// Longer than any path or key that the stores take.
const MAX_URL_CHARACTERS: usize = 4096;

// It documents the body; `read` reads it.
/// A datastore as it is put.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"url": "file:///srv/datasets"}))]
pub struct DatastoreBody {
    /// `file:///folder`, `s3://bucket/folder`, `az://container/folder` or `gs://bucket/folder`; without user name, password,
    /// query, fragment and `..`.
    #[schema(max_length = 4096, example = "file:///srv/datasets")]
    pub url: String,
}

/// Reads the body, or says everything that is wrong with it.
///
/// # Errors
/// With every finding.
pub(super) fn read(name: &DatastoreName, body: &Map<String, Value>) -> Result<Datastore, Vec<Finding>> {
    let mut members = Members::new(body, "");
    if let Some(given) = members.text("name")
        && given != name.as_str()
    {
        let message = format!("the path names the datastore `{name}`; a name in the body must be the same");
        members.refuse("conflicting-parameters", "name", message, "leave `name` out of the body");
    }
    let url = url(&mut members);
    // Nothing that is sent here is kept before it can be kept encrypted.
    if members.value("credentials").is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty())) {
        let message = "this version keeps no credentials of datastores yet";
        let fix = "leave `credentials` out; the datastore can be named in definitions without them";
        members.refuse("parameter-not-yet-effective", "credentials", message, fix);
    }
    let findings = members.finish();
    match url {
        Some(url) if findings.is_empty() => Ok(Datastore { name: name.clone(), url }),
        _ => Err(findings),
    }
}

fn url(members: &mut Members<'_>) -> Option<DatastoreUrl> {
    let form = "an address such as `file:///srv/datasets` or `s3://bucket/folder`";
    let before = members.findings.len();
    let Some(text) = members.text("url") else {
        if members.findings.len() == before {
            members.missing("url", form);
        }
        return None;
    };
    if text.chars().count() > MAX_URL_CHARACTERS {
        let message = format!("`url` must have at most {MAX_URL_CHARACTERS} characters");
        members.refuse("too-long", "url", message, format!("write {form}"));
        return None;
    }
    match DatastoreUrl::parse(text) {
        Ok(url) => Some(url),
        Err(why) => {
            // What was sent is not repeated: it may hold a password.
            let message = format!("`url` is no address of a datastore: {why}");
            members.refuse("datastore-url-invalid", "url", message, format!("write {form}"));
            None
        }
    }
}

//! The body of `PUT /v1/datastores/{name}`: read member by member, so that everything wrong is said at once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    api::findings::{Members, error_at},
    domain::{
        datastore::{Datastore, DatastoreName, DatastoreUrl},
        datastore_access::{AccessError, Credentials, DatastoreOptions},
        datastore_places::{Elsewhere, Places},
        finding::Finding,
        json,
        secret::Secret,
    },
};

/// Longer than any path or key that the stores take.
const MAX_URL_CHARACTERS: usize = 4096;

// It documents the body; `read` reads it.
/// A datastore as it is put.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"url": "s3://datasets/digits", "options": {"region": "eu-central-1"},
    "credentials": {"access_key_id": "AKIA…", "secret_access_key": "…"}}))]
pub struct DatastoreBody {
    /// `file:///folder`, `s3://bucket/folder`, `az://container/folder` or `gs://bucket/folder`; without user name, password,
    /// query, fragment and `..`.
    #[schema(max_length = 4096, example = "file:///srv/datasets")]
    pub url: String,
    /// How it is asked, as far as the address does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<DatastoreOptions>,
    /// By what it lets us in: of `s3` `access_key_id`, `secret_access_key` and, for temporary ones, `session_token`; of `az`
    /// `account_key`, or `sas_token`, or `tenant_id`, `client_id` and `client_secret`; of `gs` `service_account_key`, the key
    /// file's text. Kept encrypted and never shown. A store is asked without any when none are given; a datastore that is
    /// put again without them has none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(write_only)]
    pub credentials: Option<BTreeMap<String, String>>,
}

/// A datastore as it was sent: its credentials are still to be encrypted.
pub(super) struct Sent {
    pub(super) datastore: Datastore,
    pub(super) options: DatastoreOptions,
    /// The text of a JSON object.
    pub(super) credentials: Option<Secret>,
}

/// Reads the body, or says everything that is wrong with it.
///
/// # Errors
/// With every finding.
pub(super) fn read(
    name: &DatastoreName,
    body: &Map<String, Value>,
    places: &Places,
) -> Result<Sent, Vec<Finding>> {
    let mut members = Members::new(body, "");
    if let Some(given) = members.text("name")
        && given != name.as_str()
    {
        let message = format!("the path names the datastore `{name}`; a name in the body must be the same");
        members.refuse("conflicting-parameters", "name", message, "leave `name` out of the body");
    }
    let url = url(&mut members);
    let none = Map::new();
    let options = members.object("options").unwrap_or(&none);
    let credentials = members.object("credentials").unwrap_or(&none);
    let mut findings = members.finish();
    let Some(url) = url else { return Err(findings) };
    let kind = url.kind();
    let read = DatastoreOptions::read(kind, options);
    let options = match read {
        Ok(options) => Some(options),
        Err(error) => {
            findings.push(refused("datastore-options-invalid", "/options", &error));
            None
        }
    };
    if let Some(options) = &options
        && let Err(why) = places.check(&url, options)
    {
        let pointer = if why == Elsewhere::Endpoint { "/options/endpoint" } else { "/url" };
        let fix = "name a place that the operator lists, or ask the operator to list this one";
        findings.push(error_at("datastore-not-allowed", pointer, why.to_string(), fix));
    }
    let secret = match Credentials::read(kind, credentials) {
        // What was read is what is kept: the text of the members.
        Ok(read) => read.map(|_| Secret::new(Value::Object(credentials.clone()).to_string())),
        Err(error) => {
            findings.push(refused("datastore-credentials-invalid", "/credentials", &error));
            None
        }
    };
    match options {
        Some(options) if findings.is_empty() => {
            Ok(Sent { datastore: Datastore { name: name.clone(), url }, options, credentials: secret })
        }
        _ => Err(findings),
    }
}

fn refused(rule: &str, place: &str, error: &AccessError) -> Finding {
    let pointer = error.member().map_or_else(|| place.to_owned(), |member| json::child(place, member));
    error_at(
        rule,
        &pointer,
        error.to_string(),
        "see the description of this operation for what each kind takes",
    )
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

//! The body of `PUT /v1/webhooks/{name}`: read member by member, so that everything wrong is said at once.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    api::findings::{Members, error_at},
    domain::{
        finding::Finding,
        run::Status,
        webhook::{WebhookName, allow_list::AllowList},
    },
    storage::webhooks::Webhook,
};

/// Longer than any address of a receiver.
const MAX_URL_CHARACTERS: usize = 2048;

// It documents the body; `read` reads it.
/// A webhook as it is put.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"url": "https://hooks.example.com/estimatord", "statuses": ["Completed", "Failed", "Canceled"]}))]
pub struct WebhookBody {
    /// Who is told: an address on the operator's list of receivers.
    #[schema(max_length = 2048, example = "https://hooks.example.com/estimatord")]
    pub url: String,
    /// Of which statuses; of all when it is absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Vec<Status>>,
    /// Of the runs of which experiment; of all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment_name: Option<String>,
    /// Whether anybody is told now.
    #[schema(default = true, required = false)]
    pub enabled: bool,
}

/// Reads the body, or says everything that is wrong with it.
///
/// # Errors
/// With every finding.
pub(super) fn read(
    name: &WebhookName,
    body: &Map<String, Value>,
    allowed: &AllowList,
) -> Result<Webhook, Vec<Finding>> {
    let mut members = Members::new(body, "");
    let url = url(&mut members, allowed);
    let statuses = statuses(&mut members);
    let experiment_name = members.text("experiment_name").filter(|name| !name.is_empty()).map(str::to_owned);
    let enabled = match members.value("enabled") {
        None => true,
        Some(Value::Bool(enabled)) => *enabled,
        Some(other) => members.wrong_type("enabled", "`true` or `false`", other).unwrap_or(true),
    };
    let findings = members.finish();
    match url {
        Some(url) if findings.is_empty() => {
            Ok(Webhook { name: name.clone(), url, statuses, experiment_name, enabled })
        }
        _ => Err(findings),
    }
}

fn url(members: &mut Members<'_>, allowed: &AllowList) -> Option<String> {
    let form = "an address such as `https://hooks.example.com/estimatord`";
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
    match allowed.url(text) {
        Ok(url) => Some(url.into()),
        Err(why) => {
            let fix = "ask the operator to start the service with this receiver in --webhook-allow, or write one that is in it";
            members.refuse("webhook-url-not-allowed", "url", format!("`url` cannot be told: {why}"), fix);
            None
        }
    }
}

fn statuses(members: &mut Members<'_>) -> Vec<Status> {
    let mut statuses = Vec::new();
    for (place, value) in members.list("statuses").into_iter().flatten().enumerate() {
        match value.as_str().and_then(|word| word.parse::<Status>().ok()) {
            Some(status) if statuses.contains(&status) => {}
            Some(status) => statuses.push(status),
            None => {
                let known: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
                let known = known.join("`, `");
                members.findings.push(error_at(
                    "wrong-type",
                    &format!("/statuses/{place}"),
                    "it must be the status of a run",
                    format!("write one of `{known}`"),
                ));
            }
        }
    }
    statuses
}

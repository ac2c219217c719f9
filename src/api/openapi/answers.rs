//! What holds for answers: their headers, their links, and what their problems look like.

use serde_json::{Value, json};
use utoipa::openapi::{
    Content, Header, HeaderBuilder, ObjectBuilder, RefOr, Response, ResponseBuilder,
    link::LinkBuilder,
    path::Operation,
    schema::{Ref, Type},
};

use crate::api::{
    auth::Needs,
    problem::{PROBLEM_JSON, ProblemKind},
};

/// Answers that make something, and the operations that show it: operation, status, what is shown by which parameter.
const LINKS: [(&str, &str, &str, &str); 8] = [
    ("create_run", "201", "get_run", "id"),
    ("create_run", "201", "cancel_run", "id"),
    ("create_run", "201", "list_run_events", "id"),
    ("rerun_run", "201", "get_run", "id"),
    ("put_run", "201", "get_run", "id"),
    ("create_estimator", "201", "get_estimator", "id"),
    ("create_snapshot", "201", "get_snapshot", "id"),
    ("put_webhook", "201", "get_webhook", "name"),
];

/// Says of every answer of an operation what its Rust types cannot say.
pub(super) fn finish(operation: &mut Operation, needs: Needs) {
    let id = operation.operation_id.clone().unwrap_or_default();
    let takes_a_key = operation
        .parameters
        .iter()
        .flatten()
        .any(|one| matches!(one, RefOr::T(one) if one.name == "Idempotency-Key"));
    let mut common =
        vec![("500", "A fault of the service"), ("503", "The service or its database is not available now")];
    let scope = match needs {
        Needs::Scope(scope) => Some(format!("The token does not have the scope `{scope}`")),
        Needs::Nothing | Needs::AttemptToken => None,
    };
    if let Some(scope) = &scope {
        common.push(("403", scope));
        common.push(("401", "The service wants a token, and none or a wrong one was sent"));
        common.push(("400", "The request cannot be read"));
    }
    // Probes are always answered.
    if !matches!(id.as_str(), "get_liveness" | "get_readiness") {
        common.push((
            "429",
            "The caller sent more requests a minute than it may: `Retry-After` says when to send the next",
        ));
    }
    if takes_json(operation) {
        common.push(("408", "The body did not arrive in time"));
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in common {
        responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(ResponseBuilder::new().description(description).build()));
    }
    for (status, response) in responses.iter_mut() {
        let RefOr::T(response) = response else { continue };
        if status.starts_with('4') || status.starts_with('5') {
            make_problem(response, status);
        }
        let mut add = |name: &str, type_, text: &str| {
            response.headers.entry(name.to_owned()).or_insert_with(|| RefOr::T(header(type_, text)));
        };
        add("X-Request-Id", Type::String, "The id of the request, the caller's own if it sent one");
        if status == "201" {
            add("Location", Type::String, "The address of what was made");
        }
        if takes_a_key && id != "create_runs" && matches!(status.as_str(), "200" | "201") {
            add(
                "Idempotency-Replayed",
                Type::String,
                "`true` when it is the answer to an earlier request with this key",
            );
        }
        if matches!(status.as_str(), "429" | "503") {
            add("Retry-After", Type::Integer, "After how many seconds to ask again");
        }
        for (_, _, target, parameter) in LINKS.iter().filter(|one| one.0 == id && one.1 == status) {
            let link = LinkBuilder::new()
                .operation_id(*target)
                .parameter(*parameter, format!("$response.body#/{parameter}"));
            response.links.insert((*target).to_owned(), RefOr::T(link.build()));
        }
    }
}

fn takes_json(operation: &Operation) -> bool {
    let Some(RefOr::T(body)) = &operation.request_body else { return false };
    body.content.keys().any(|media_type| media_type.ends_with("json"))
}

fn header(type_: Type, text: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(type_).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(text)).build()
}

/// A problem, with an example of one that has this status.
fn make_problem(response: &mut Response, status: &str) {
    let mut content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    content.example = example(status);
    response.content.clear();
    response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content));
}

fn example(status: &str) -> Option<Value> {
    let (kind, detail) = match status {
        "400" => {
            (ProblemKind::MalformedRequest, "the query parameter `limit` must be an integer from 1 to 200")
        }
        "401" => (ProblemKind::Unauthorized, "a valid bearer token is needed"),
        "403" => (
            ProblemKind::InsufficientScope,
            "this needs a token with the scope `submit`; this one has `read`",
        ),
        "404" => (ProblemKind::NotFound, "there is no run `01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10`"),
        "408" => (ProblemKind::SlowBody, "the body did not arrive within 20 seconds"),
        "409" => (ProblemKind::Conflict, "the run has ended as Completed"),
        "412" => (
            ProblemKind::PreconditionFailed,
            "the resource does not have the ETag of If-Match; read it again",
        ),
        "413" => (ProblemKind::BodyTooLarge, "the body is larger than 4194304 bytes"),
        "415" => (ProblemKind::UnsupportedMediaType, "the Content-Type must be application/json"),
        "416" => {
            (ProblemKind::RangeNotSatisfiable, "the asked range begins behind the end: there are 4711 bytes")
        }
        "429" => (ProblemKind::RateLimited, "more than 60000 requests a minute; send the next after 1 s"),
        "500" => (ProblemKind::Internal, "the service failed; its log has the details under this instance"),
        "503" => (ProblemKind::DatabaseUnavailable, "the database does not answer at present; try again"),
        // Of what was judged and refused the schema itself has an example, with a finding.
        _ => return None,
    };
    Some(json!({
        "type": format!("/problems/{}", kind.slug()), "title": kind.title(), "status": kind.status().as_u16(),
        "detail": detail, "instance": "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10",
    }))
}

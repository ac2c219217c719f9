//! The OpenAPI document: what the operations say of themselves, and what holds for all of them.

use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Components, Content, RefOr, Response, ResponseBuilder,
        example::ExampleBuilder,
        path::Operation,
        schema::{ArrayItems, Ref, Schema},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::problem::{PROBLEM_JSON, Problem};
use crate::domain::{environment::ActualEnvironment, exchange::PartName, rules};

const BEARER: &str = "bearer";
/// The token of the pods of one attempt.
const ATTEMPT: &str = "attempt";

/// Bytes of whatever kind.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(in crate::api) struct Binary(#[expect(dead_code, reason = "it only describes a body")] String);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "estimatord",
        description = "Takes Azure ML SDK v1 `Chainer` estimator definitions, says everything that is wrong with them, stores them, and \
                       runs them on your own compute.\n\nThe way of a run: upload a source directory (`create_snapshot`), judge or store a \
                       definition that names it (`validate_estimator`, `create_estimator`), start a run (`create_run`), wait for it \
                       (`get_run` with `Prefer: wait=30`) and follow its log (`get_run_log`).\n\nEvery answer with a status of 400 or more is \
                       `application/problem+json`; its `type` leads to an explanation. Times are RFC 3339 in UTC. Lists take `limit` and \
                       `cursor`. Every answer carries `X-Request-Id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "This service")),
    tags(
        (name = "frameworks", description = "What the documentation says of the framework and its images"),
        (name = "snapshots", description = "Source directories, addressed by their content"),
        (name = "compute-targets", description = "Where runs go"),
        (name = "datastores", description = "Where data lies"),
        (name = "environments", description = "What was built for runs, and is kept"),
        (name = "estimators", description = "Definitions: judged, stored"),
        (name = "runs", description = "Runs: started, looked at, followed, cancelled"),
        (name = "pods", description = "What the pods of runs on Kubernetes fetch and send; people have no use for it"),
        (name = "service", description = "Probes, figures and this document"),
    ),
    components(schemas(Problem, ActualEnvironment, PartName)),
)]
struct Base;

/// What the document starts from.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// What holds for every operation is written once, here, into each of them.
pub(super) fn finished(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document.info.contact = None;
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token that the operator set. Not needed when the service runs without one."))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let attempt = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token of one attempt, which the worker gives its pods."))
        .build();
    components.add_security_scheme(ATTEMPT, SecurityScheme::Http(attempt));
    refer_to_entries(components);
    let none: [&str; 0] = [];
    document.security = Some(vec![SecurityRequirement::new(BEARER, none), SecurityRequirement::default()]);
    show_the_rules(&mut document);
    // The router's way to write a parameter that spans slashes is not OpenAPI's.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            finish(operation);
        }
    }
    document
}

/// Whoever tries the validation can choose, for each rule, a definition that it speaks about.
fn show_the_rules(document: &mut utoipa::openapi::OpenApi) {
    let validate =
        document.paths.paths.get_mut("/v1/estimators/validate").and_then(|item| item.post.as_mut());
    let body = validate.and_then(|operation| operation.request_body.as_mut());
    let Some(RefOr::T(body)) = body else { return };
    let Some(RefOr::T(content)) = body.content.get_mut("application/json") else { return };
    // The two ways to give examples exclude each other. The first by name is what Swagger UI shows first.
    let typical = ExampleBuilder::new()
        .summary("Two nodes without MPI, on a target for one")
        .value(content.example.take());
    content.examples.insert("a-typical-refusal".to_owned(), RefOr::T(typical.build()));
    for rule in rules::all() {
        let definition = rule.view().examples.refused.into();
        let example = ExampleBuilder::new().summary(rule.summary).value(Some(definition));
        content.examples.insert(rule.slug.to_owned(), RefOr::T(example.build()));
    }
}

/// A page says what its entries are by reference: written out, they would be another type to every generated client.
fn refer_to_entries(components: &mut Components) {
    let names: Vec<String> = components.schemas.keys().cloned().collect();
    for (name, schema) in &mut components.schemas {
        let Some(entry) = name.strip_prefix("Page_").filter(|entry| names.iter().any(|name| name == entry))
        else {
            continue;
        };
        if let RefOr::T(Schema::Object(page)) = schema
            && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
        {
            items.items = ArrayItems::RefOrSchema(Box::new(RefOr::Ref(Ref::from_schema_name(entry))));
        }
    }
}

fn finish(operation: &mut Operation) {
    let is_public = operation.security.is_some();
    let mut common =
        vec![("500", "A fault of the service"), ("503", "The service or its database is not available now")];
    if !is_public {
        common.push(("401", "The service wants a token, and none or a wrong one was sent"));
        common.push(("400", "The request cannot be read"));
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in common {
        responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(ResponseBuilder::new().description(description).build()));
    }
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response
            && (status.starts_with('4') || status.starts_with('5'))
        {
            make_problem(response);
        }
    }
}

fn make_problem(response: &mut Response) {
    let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
    response.content.clear();
    response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(Content::new(Some(schema))));
}

//! The OpenAPI document: what the operations say of themselves, and what holds for all of them.

mod answers;
mod backend;
mod bodies;
mod parameters;
mod webhooks;

use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Components, ContactBuilder, RefOr,
        example::ExampleBuilder,
        extensions::ExtensionsBuilder,
        path::Operation,
        schema::{ArrayItems, Ref, Schema},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::{
    auth::{Needs, needs_of},
    problem::Problem,
};
use crate::domain::{environment::ActualEnvironment, exchange::PartName, rules, webhook::Message};

const BEARER: &str = "bearer";
/// The token of the pods of one attempt.
const ATTEMPT: &str = "pod_token";

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
        (name = "snapshots", description = "Source directories, addressed by their content"),
        (name = "estimators", description = "Definitions: judged, stored"),
        (name = "runs", description = "Runs: started, looked at, followed, cancelled"),
        (name = "webhooks", description = "Who is told of changes of runs, and what they were told"),
        (name = "compute-targets", description = "Where runs go"),
        (name = "datastores", description = "Where data lies"),
        (name = "access", description = "Who may do what: tokens, and the trail of what was done"),
        (name = "environments", description = "What was built for runs, and is kept"),
        (name = "frameworks", description = "What the documentation says of the framework and its images"),
        (name = "pods", description = "What the pods of runs on Kubernetes fetch and send; people have no use for it"),
        (name = "service", description = "Probes, figures and this document"),
    ),
    components(schemas(Problem, ActualEnvironment, PartName, Message)),
)]
struct Base;

/// What the document starts from.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// What holds for every operation is written once, here, into each of them.
pub(super) fn finished(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let contact = ContactBuilder::new().name(Some("The operator of this service"));
    document.info.contact = Some(contact.build());
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of the service's (`create_token`, or `estimatord token create`), one of the operator's file, or a JWT of the \
             configured issuer. Each operation names the scope that it needs; each scope includes those before it: read, submit, \
             operate, admin. Not needed when the service runs without authentication.",
        ))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let attempt = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token of one attempt, which the worker gives its pods."))
        .build();
    components.add_security_scheme(ATTEMPT, SecurityScheme::Http(attempt));
    refer_to_entries(components);
    bodies::finish(components);
    backend::finish(components);
    let none: [&str; 0] = [];
    document.security = Some(vec![SecurityRequirement::new(BEARER, none)]);
    show_the_rules(&mut document);
    document.webhooks = Some(webhooks::webhooks());
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
    let needs = needs_of(operation);
    if let Needs::Scope(scope) = needs {
        let none: [&str; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new(BEARER, none)]);
        // A bearer token's requirement may list roles since OpenAPI 3.1; tools of before take them for OAuth's scopes.
        let scopes = ExtensionsBuilder::new().add("x-required-scope", scope.as_str()).build();
        operation.extensions.get_or_insert_default().merge(scopes);
        let description = operation.description.get_or_insert_default();
        description.push_str(&format!("\n\nNeeds the scope `{scope}`."));
    }
    let id = operation.operation_id.clone().unwrap_or_default();
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            parameters::finish(&id, parameter);
        }
    }
    answers::finish(operation, needs);
}

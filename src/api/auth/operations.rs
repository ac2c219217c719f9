//! What each operation needs of its caller. An operation that nobody has put here needs everything.

use std::collections::HashMap;

use axum::http::Method;
use utoipa::openapi::{OpenApi, path::Operation};

use crate::domain::access::Scope;

/// What an operation needs, and whether it changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: everybody may know.
    Nothing,
    /// The token of the pods of an attempt, which the operation looks at itself.
    AttemptToken,
    /// A caller with this scope.
    Scope(Scope),
}

/// The scope that an operation needs.
#[must_use]
pub fn scope_of(operation: &str) -> Scope {
    match operation {
        "list_frameworks"
        | "get_framework"
        | "list_rules"
        | "get_rule"
        | "get_snapshot"
        | "list_snapshot_files"
        | "list_compute_targets"
        | "get_compute_target"
        | "list_datastores"
        | "get_datastore"
        | "list_estimators"
        | "get_estimator"
        | "get_estimator_migration"
        | "validate_estimator"
        | "parse_estimator"
        | "render_definition"
        | "render_estimator"
        | "revalidate_estimator"
        | "list_runs"
        | "get_run"
        | "list_run_logs"
        | "get_run_log"
        | "list_run_outputs"
        | "get_run_output"
        | "list_run_metrics"
        | "list_run_events"
        | "list_experiments"
        | "get_caller" => Scope::Read,
        "create_snapshot" | "create_estimator" | "delete_estimator" | "create_run" | "create_runs"
        | "put_run" | "patch_run" | "cancel_run" | "rerun_run" => Scope::Submit,
        "put_datastore"
        | "delete_datastore"
        | "list_webhooks"
        | "get_webhook"
        | "put_webhook"
        | "delete_webhook"
        | "rotate_webhook_secret"
        | "list_webhook_deliveries"
        | "replay_webhook_delivery" => Scope::Operate,
        _ => Scope::Admin,
    }
}

/// Whether an operation changes nothing, although its method may.
#[must_use]
pub fn only_judges(operation: &str) -> bool {
    matches!(
        operation,
        "validate_estimator"
            | "parse_estimator"
            | "render_definition"
            | "render_estimator"
            | "revalidate_estimator"
    )
}

/// What an operation needs, by what it says of itself.
#[must_use]
pub fn needs_of(operation: &Operation) -> Needs {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    match operation.security.as_deref() {
        None => Needs::Scope(scope_of(id)),
        Some(requirements) if requirements.iter().any(|one| *one == Default::default()) => Needs::Nothing,
        Some(_) => Needs::AttemptToken,
    }
}

/// Every operation: those of a route, by their methods.
pub struct Operations(HashMap<String, Vec<(Method, String, Needs)>>);

impl Operations {
    /// Those of a document.
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        let mut all: HashMap<String, Vec<_>> = HashMap::new();
        for (route, item) in &document.paths.paths {
            let of_methods = [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::DELETE, &item.delete),
                (Method::PATCH, &item.patch),
            ];
            for (method, operation) in of_methods {
                if let Some(operation) = operation {
                    let id = operation.operation_id.clone().unwrap_or_default();
                    all.entry(route.clone()).or_default().push((method, id, needs_of(operation)));
                }
            }
        }
        Self(all)
    }

    /// The operation of a route, with what it needs.
    #[must_use]
    pub fn find(&self, method: &Method, route: &str) -> Option<(&str, Needs)> {
        // The router answers HEAD as GET.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let of_route = self.0.get(route)?.iter();
        let mut found = of_route.filter(|(of, ..)| of == method);
        found.next().map(|(_, id, needs)| (id.as_str(), *needs))
    }
}

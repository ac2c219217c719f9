//! Every operation of the document, asked wrongly: wrong method, wrong type, wrong id, too large, gone, conflicting, repeated. What is
//! added to the API is tried without being listed here.

use axum::body::Body;
use estimatord::{
    api::{ApiSettings, extract::MAX_JSON_BYTES, openapi},
    artifacts::Limits,
    storage::MIGRATOR,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Answer, TestApp};

const NOBODY: &str = "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10";
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// An operation of the document.
#[derive(Clone, Debug)]
struct Operation {
    method: &'static str,
    path: String,
    value: Value,
}

impl Operation {
    fn takes(&self, media_type: &str) -> bool {
        !self.value["requestBody"]["content"][media_type].is_null()
    }

    fn has_header(&self, name: &str) -> bool {
        let parameters = self.value["parameters"].as_array();
        parameters.is_some_and(|all| all.iter().any(|one| one["in"] == "header" && one["name"] == name))
    }

    fn answers(&self, status: &str) -> bool {
        !self.value["responses"][status].is_null()
    }

    fn is_for_pods(&self) -> bool {
        self.value["tags"][0] == "pods"
    }

    /// The path with something in its braces: `id` for ids, `name` for everything else.
    fn path_with(&self, id: &str, name: &str) -> String {
        let mut path = self.path.replace("{id}", id);
        while let (Some(open), Some(close)) = (path.find('{'), path.find('}')) {
            let value = match &path[open + 1..close] {
                "attempt" => "1".to_owned(),
                "key" if name == "nothing" => "0".repeat(64),
                _ => name.to_owned(),
            };
            path.replace_range(open..=close, &value);
        }
        // Snapshots are called by what is in them.
        if self.path.starts_with("/v1/snapshots/{id}") && id == NOBODY {
            path = path.replace(id, &format!("sha256:{}", "0".repeat(64)));
        }
        path
    }

    async fn ask(
        &self,
        app: &TestApp,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        app.with_headers(&self.method.to_uppercase(), path, headers, body.into()).await
    }
}

fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(openapi()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").clone();
    let of_path = |(path, item): (String, Value)| {
        METHODS.into_iter().filter_map(move |method| {
            let value = item[method].clone();
            (!value.is_null()).then(|| Operation { method, path: path.clone(), value })
        })
    };
    let all: Vec<_> = paths.into_iter().flat_map(of_path).collect();
    assert!(all.len() > 40, "{}", all.len());
    all
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_method_that_a_path_does_not_take_is_405_and_says_which_it_takes(pool: PgPool) {
    let app = TestApp::new(pool);
    let all = operations();
    for operation in &all {
        let path = operation.path_with(NOBODY, "x");
        let taken: Vec<_> =
            all.iter().filter(|other| other.path == operation.path).map(|other| other.method).collect();
        for method in METHODS.into_iter().filter(|method| !taken.contains(method)) {
            let answer = app.with_headers(&method.to_uppercase(), &path, &[], Body::empty()).await;
            answer.problem(405, "method-not-allowed");
            let allowed: Vec<_> =
                answer.header("allow").split(',').map(str::trim).map(str::to_lowercase).collect();
            for one in &taken {
                assert!(allowed.iter().any(|a| a == one), "{method} {path}: {allowed:?} has no {one}");
            }
        }
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_body_that_cannot_be_read_says_why(pool: PgPool) {
    let limits = Limits { max_upload_bytes: 1 << 16, ..Limits::default() };
    let app = TestApp::changed(pool, |settings| ApiSettings { limits, ..settings });
    let mut tried = 0;
    for operation in
        operations().into_iter().filter(|one| !one.value["requestBody"].is_null() && !one.is_for_pods())
    {
        tried += 1;
        let path = operation.path_with(NOBODY, "x");
        let ask = |content_type: &'static str, body: Vec<u8>| {
            let (operation, app, path) = (&operation, &app, &path);
            async move { operation.ask(app, path, &[("content-type", content_type)], body).await }
        };
        ask("text/html", b"{}".to_vec()).await.problem(415, "unsupported-media-type");
        let untyped = operation.ask(&app, &path, &[], "{}").await;
        untyped.problem(415, "unsupported-media-type");
        if operation.takes("application/json") {
            let broken = ask("application/json", b"{\"a\": 1,\n x".to_vec()).await;
            let problem = broken.problem(400, "invalid-json");
            assert_eq!(problem["line"], 2, "{path}");
            ask("application/json", br#"{"a": 1, "a": 2}"#.to_vec()).await.problem(400, "duplicate-key");
            ask("application/json", b"[]".to_vec()).await.problem(422, "not-an-object");
            ask("application/json", Vec::new()).await.problem(400, "invalid-json");
            let announced = [("content-type", "application/json"), ("content-length", "99999999999")];
            operation.ask(&app, &path, &announced, "{").await.problem(413, "body-too-large");
            let large = format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_JSON_BYTES));
            ask("application/json", large.into_bytes()).await.problem(413, "body-too-large");
        } else if operation.takes("application/x-tar") {
            ask("application/x-tar", vec![7; 1 << 17]).await.problem(413, "body-too-large");
            ask("application/gzip", b"no archive".to_vec()).await.problem(400, "invalid-archive");
        }
    }
    assert!(tried > 12, "{tried}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_id_that_is_none_is_400_and_one_that_nothing_has_is_404(pool: PgPool) {
    let app = TestApp::new(pool);
    let mut tried = 0;
    for operation in operations() {
        let is_put = operation.method == "put";
        if !operation.path.contains('{') || operation.is_for_pods() {
            continue;
        }
        tried += 1;
        let json = [("content-type", "application/json")];
        let body = if operation.value["requestBody"].is_null() { "" } else { "{}" };
        if operation.path.contains("{id}") {
            let path = operation.path_with("no-id", "x");
            operation.ask(&app, &path, &json, body).await.problem(400, "malformed-request");
        } else if operation.answers("400")
            && operation.path.contains("{name}")
            && !operation.path.contains("frameworks")
        {
            let path = operation.path_with("", "-no%20name");
            operation.ask(&app, &path, &json, body).await.problem(400, "malformed-request");
        }
        let path = operation.path_with("%00", "%00");
        operation.ask(&app, &path, &json, body).await.problem(400, "malformed-request");
        if !is_put && operation.path != "/v1/estimators/{id}/render" {
            let path = operation.path_with(NOBODY, "nothing");
            operation.ask(&app, &path, &json, body).await.problem(404, "not-found");
        }
    }
    assert!(tried > 25, "{tried}");
    let render = format!("/v1/estimators/{NOBODY}/render");
    app.post(&render, &json!({"format": "sbatch"})).await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_list_refuses_what_it_does_not_know(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let run = run["id"].as_str().expect("an id");
    let snapshot = app.upload(&[("train.py", "print()\n")]).await;
    let mut tried = 0;
    for operation in operations().into_iter().filter(|operation| {
        let parameters = operation.value["parameters"].as_array().cloned().unwrap_or_default();
        operation.method == "get" && parameters.iter().any(|one| one["name"] == "limit")
    }) {
        tried += 1;
        let id = if operation.path.starts_with("/v1/snapshots") { snapshot.as_str() } else { run };
        let path = operation.path_with(id, "local");
        for wrong in ["limit=0", "limit=100000000", "limit=x", "limit=1&limit=1", "colour=blue"] {
            let answer = app.get(&format!("{path}?{wrong}")).await;
            answer.problem(400, "malformed-request");
        }
        app.get(&format!("{path}?cursor=zz")).await.problem(400, "invalid-cursor");
        let other = app.get("/v1/runs?limit=1&experiment_name=e").await.ok(200);
        assert_eq!(other["next_cursor"], Value::Null);
    }
    assert!(tried >= 6, "{tried}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_change_of_what_has_changed_is_412(pool: PgPool) {
    let app = TestApp::changed(pool, |settings| ApiSettings {
        webhook_receivers: estimatord::domain::webhook::allow_list::AllowList::new(vec![
            "hooks.example.com".parse().expect("an entry"),
        ]),
        ..settings
    });
    let run = app.run("e").await;
    let body_of = |path: &str| match path {
        "/v1/compute-targets/{name}" => json!({"type": "AmlCompute", "backend": {"kind": "process"}}),
        "/v1/datastores/{name}" => json!({"url": "file:///data"}),
        "/v1/webhooks/{name}" => json!({"url": "https://hooks.example.com/"}),
        _ => json!({}),
    };
    for path in ["/v1/compute-targets/x", "/v1/datastores/x", "/v1/webhooks/x"] {
        app.put(path, &body_of(&path.replace("/x", "/{name}"))).await.ok(201);
    }
    let mut tried = 0;
    for operation in operations().into_iter().filter(|operation| operation.has_header("If-Match")) {
        tried += 1;
        let id = if operation.path.starts_with("/v1/estimators") { &run["estimator_id"] } else { &run["id"] };
        let path = operation.path_with(id.as_str().expect("an id"), "x");
        let headers = [("content-type", "application/json"), ("if-match", "\"stale\"")];
        let body = body_of(&operation.path).to_string();
        operation.ask(&app, &path, &headers, body.clone()).await.problem(412, "precondition-failed");
        // What is there has its tag, and with it the change is made.
        let tag = app.get(&path).await.header("etag").to_owned();
        let headers = [("content-type", "application/json"), ("if-match", tag.as_str())];
        let answer = operation.ask(&app, &path, &headers, body).await;
        assert!(answer.status.is_success(), "{} {path}: {}", operation.method, answer.text());
        if operation.method == "delete" && !operation.path.starts_with("/v1/estimators") {
            app.get(&path).await.problem(404, "not-found");
            app.put(&path, &body_of(&operation.path)).await.ok(201);
        }
    }
    assert!(tried >= 7, "{tried}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_single_resource_has_a_tag_and_is_sent_once(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let snapshot = app.upload(&[("train.py", "print()\n")]).await;
    app.put("/v1/datastores/local", &json!({"url": "file:///data"})).await.ok(201);
    let token = app.post("/v1/tokens", &json!({"name": "ci", "scope": "read"})).await.ok(201);
    let mut tried = 0;
    for operation in operations().into_iter().filter(|one| one.method == "get" && one.answers("304")) {
        // Nothing is built, put out or registered there that could be asked for.
        if ["/v1/environments/", "/v1/webhooks/", "/outputs/{path}"]
            .iter()
            .any(|part| operation.path.contains(part))
        {
            continue;
        }
        tried += 1;
        let id = match operation.path.split('/').nth(2) {
            Some("tokens") => token["id"].as_str().expect("an id"),
            Some("snapshots") => snapshot.as_str(),
            Some("estimators") => run["estimator_id"].as_str().expect("an id"),
            _ => run["id"].as_str().expect("an id"),
        };
        let name = match operation.path.as_str() {
            "/v1/frameworks/{name}" => "chainer",
            "/v1/rules/{rule}" => "distributed-requires-mpi",
            _ => "local",
        };
        let path = operation.path_with(id, name);
        let first = app.get(&path).await;
        assert_eq!(first.status, 200, "{path}: {}", first.text());
        let tag = first.header("etag").to_owned();
        assert!(tag.starts_with('"'), "{path}: {tag}");
        let held = [("if-none-match", tag.as_str())];
        let again = app.with_headers("GET", &path, &held, Body::empty()).await;
        assert_eq!(
            (again.status.as_u16(), again.body.len(), again.header("etag")),
            (304, 0, tag.as_str()),
            "{path}"
        );
    }
    assert!(tried >= 7, "{tried}");
}

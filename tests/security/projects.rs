//! Two projects on every route of the OpenAPI document: what is one's is to the other as if it were not there. A route that is added to
//! the API is tried without being listed here; one that names something new has to be told what.

use std::{
    collections::BTreeMap,
    io::{Seek as _, Write as _},
};

use axum::body::Body;
use estimatord::{
    api::{ApiSettings, openapi},
    domain::webhook::allow_list::AllowList,
    storage::MIGRATOR,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Answer, TestApp, callers, tar};

const NOBODY: &str = "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10";
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];
/// Callers of two projects, one of each scope in the first.
const TOKENS: &str = "\
ann   alpha-operate-0000  operate alpha
reed  alpha-read-0000000  read    alpha
sue   alpha-submit-00000  submit  alpha
adam  alpha-admin-000000  admin   alpha
bob   beta-operate-00000  operate beta
beth  beta-admin-0000000  admin   beta
";
const ANN: &str = "alpha-operate-0000";
const ADAM: &str = "alpha-admin-000000";
const INTRUDERS: [&str; 2] = ["beta-operate-00000", "beta-admin-0000000"];

struct Operation {
    method: &'static str,
    path: String,
    value: Value,
}

impl Operation {
    fn id(&self) -> &str {
        self.value["operationId"].as_str().expect("an id")
    }

    fn is_for_pods(&self) -> bool {
        self.value["tags"][0] == "pods"
    }

    /// The scope that it says it needs; none where it is everybody's.
    fn scope(&self) -> Option<&str> {
        self.value["x-required-scope"].as_str()
    }

    /// The path with what each of its parameters is called here.
    fn path_with(&self, called: &BTreeMap<&str, String>) -> String {
        let mut before = "";
        let parts = self.path.split('/').map(|part| {
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let Some(name) = name else {
                before = part;
                return part.to_owned();
            };
            let parameter = format!("{before}/{name}");
            let value = called.get(parameter.as_str());
            value.unwrap_or_else(|| panic!("say what `{parameter}` of {} is", self.path)).clone()
        });
        parts.collect::<Vec<_>>().join("/")
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
    paths.into_iter().flat_map(of_path).collect()
}

/// An installation with something of every kind in the project alpha.
struct House {
    app: TestApp,
    /// What is there, by what routes call it.
    there: BTreeMap<&'static str, String>,
    /// What is not.
    nowhere: BTreeMap<&'static str, String>,
    /// Texts that only alpha may ever see.
    secrets: Vec<String>,
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

async fn ask(app: &TestApp, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let authorization = format!("Bearer {token}");
    let mut headers = vec![("authorization", authorization.as_str())];
    if body.is_some() {
        headers.push(("content-type", "application/json"));
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    app.with_headers(&method.to_uppercase(), path, &headers, body).await
}

async fn house(pool: PgPool) -> House {
    let app = TestApp::changed(pool, |settings| ApiSettings {
        access: callers(TOKENS),
        webhook_receivers: AllowList::new(vec!["hooks.example.com".parse().expect("an entry")]),
        ..settings
    });
    let authorization = format!("Bearer {ANN}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/x-tar")];
    let files = [("train.py", "print('alpha-secret-source')\n")];
    let sent = app.with_headers("POST", "/v1/snapshots", &headers, Body::from(tar(&files))).await;
    let snapshot = text(&sent.ok(201)["id"]);
    let url = json!({"url": "file:///srv/alpha-secret-folder"});
    ask(&app, ANN, "put", "/v1/datastores/secretstore", Some(&url)).await.ok(201);
    let target = json!({"type": "AmlCompute", "backend": {"kind": "process"}, "projects": ["alpha"]});
    ask(&app, ADAM, "put", "/v1/compute-targets/secrettarget", Some(&target)).await.ok(201);
    let hook = json!({"url": "https://hooks.example.com/alpha-secret-hook"});
    ask(&app, ANN, "put", "/v1/webhooks/secrethook", Some(&hook)).await.ok(201);
    let definition = json!({
        "source_directory": snapshot, "compute_target": "secrettarget", "entry_script": "train.py",
        "framework_version": "7.0.0", "use_docker": false,
        "environment_variables": {"NAME": "alpha-secret-variable"}
    });
    let estimator = text(&ask(&app, ANN, "post", "/v1/estimators", Some(&definition)).await.ok(201)["id"]);
    let run = json!({"experiment_name": "alpha-secret-experiment", "estimator_id": estimator, "tags": {"secret": "alpha"}});
    let run = text(&ask(&app, ANN, "post", "/v1/runs", Some(&run)).await.ok(201)["id"]);
    let claimed = app.admit().await;
    app.start(&claimed).await;
    app.write_log(&claimed, "user_logs/std_log.txt", b"alpha-secret-log\n", false).await;
    let mut output = tempfile::tempfile().expect("a file");
    output.write_all(b"alpha-secret-output").expect("written");
    output.rewind().expect("rewound");
    let stored = app.artifacts.put_output(claimed.run.id, 1, "model.npz", output, 100).await.expect("stored");
    app.storage
        .record_output(&claimed.lease, 1, "model.npz", stored.bytes, &stored.sha256)
        .await
        .expect("recorded");
    let deliveries = ask(&app, ANN, "get", "/v1/webhooks/secrethook/deliveries", None).await.ok(200);
    let delivery = text(&deliveries["items"][0]["id"]);
    let made = json!({"name": "alpha-secret-token", "project": "alpha", "scope": "read"});
    let token = text(&ask(&app, ADAM, "post", "/v1/tokens", Some(&made)).await.ok(201)["id"]);
    let there = BTreeMap::from([
        ("runs/id", run.clone()),
        ("runs/run_id", run.clone()),
        ("attempts/attempt", "1".to_owned()),
        ("returned/part", "p".to_owned()),
        ("logs/path", "user_logs/std_log.txt".to_owned()),
        ("outputs/path", "model.npz".to_owned()),
        ("estimators/id", estimator.clone()),
        ("snapshots/id", snapshot.clone()),
        ("datastores/name", "secretstore".to_owned()),
        ("webhooks/name", "secrethook".to_owned()),
        ("deliveries/id", delivery.clone()),
        ("compute-targets/name", "secrettarget".to_owned()),
        ("tokens/id", token),
        ("environments/key", "0".repeat(64)),
        ("frameworks/name", "chainer".to_owned()),
        ("rules/rule", "distributed-requires-mpi".to_owned()),
        ("problems/slug", "not-found".to_owned()),
    ]);
    let mut nowhere = there.clone();
    nowhere.extend([
        ("runs/id", NOBODY.to_owned()),
        ("estimators/id", NOBODY.to_owned()),
        ("snapshots/id", format!("sha256:{}", "0".repeat(64))),
        ("datastores/name", "nothingatall".to_owned()),
        ("webhooks/name", "nothingatall".to_owned()),
        ("deliveries/id", NOBODY.to_owned()),
        ("compute-targets/name", "nothingatall".to_owned()),
    ]);
    let mut secrets: Vec<String> =
        ["alpha-secret", "secretstore", "secrethook", "secrettarget"].map(str::to_owned).into();
    secrets.extend([run, estimator, snapshot, delivery]);
    House { app, there, nowhere, secrets }
}

/// Bodies that are good, for operations that take one.
fn body_of(operation: &Operation, house: &House) -> Option<Value> {
    if operation.value["requestBody"].is_null() {
        return None;
    }
    let definition = json!({
        "source_directory": house.there["snapshots/id"], "compute_target": "secrettarget", "entry_script": "train.py",
        "framework_version": "7.0.0", "use_docker": false
    });
    Some(match operation.id() {
        "create_run" | "put_run" => {
            json!({"experiment_name": "x", "estimator_id": house.there["estimators/id"]})
        }
        "create_runs" => json!({"runs": [
            {"experiment_name": "x", "estimator_id": house.there["estimators/id"]},
            {"experiment_name": "x", "estimator": definition},
        ]}),
        "create_estimator" | "validate_estimator" => definition,
        "render_definition" => json!({"format": "sbatch", "estimator": definition}),
        "render_estimator" => json!({"format": "sbatch"}),
        "put_datastore" => json!({"url": "file:///srv/of-beta"}),
        "put_webhook" => json!({"url": "https://hooks.example.com/of-beta"}),
        "put_compute_target" => json!({"type": "AmlCompute", "backend": {"kind": "process"}}),
        "create_token" => json!({"name": "t", "scope": "read"}),
        _ => json!({}),
    })
}

/// What an intruder is told about what is there and about what is nowhere must be the same, but for the name it asked by.
fn but_for_names(answer: &Answer, house: &House) -> (u16, String) {
    let mut body = answer.text();
    let mut names: Vec<&String> =
        house.there.values().chain(house.nowhere.values()).filter(|name| name.len() > 1).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        body = body.replace(name.as_str(), "<name>");
    }
    (answer.status.as_u16(), body.replace(answer.header("x-request-id"), "<instance>"))
}

/// Operations on what belongs to the installation and not to a project. An administrator of any project may do them.
fn is_of_the_installation(operation: &Operation) -> bool {
    operation.scope() == Some("admin")
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_one_projects_is_nothing_to_another_on_every_route(pool: PgPool) {
    let house = house(pool).await;
    let before = everything(&house).await;
    let mut tried = 0;
    let mut all = operations();
    // What an intruder puts under a name is its own from then on.
    all.sort_by_key(|operation| operation.method == "put");
    for operation in all {
        if operation.scope().is_none() || is_of_the_installation(&operation) {
            continue;
        }
        let body = body_of(&operation, &house);
        for intruder in INTRUDERS {
            tried += 1;
            let (path, nowhere) = (operation.path_with(&house.there), operation.path_with(&house.nowhere));
            // An administrator sees all targets: they are the installation's.
            if operation.path.starts_with("/v1/compute-targets") && intruder == INTRUDERS[1] {
                continue;
            }
            let answer = ask(&house.app, intruder, operation.method, &path, body.as_ref()).await;
            let what =
                format!("{} {path} as {intruder}: {} {}", operation.method, answer.status, answer.text());
            let asked_by: Vec<&String> =
                house.secrets.iter().filter(|secret| path.contains(secret.as_str())).collect();
            let said = answer.text();
            for secret in house.secrets.iter().filter(|secret| !asked_by.contains(secret)) {
                // What was in the question may be in the answer.
                let in_body = body.as_ref().is_some_and(|body| body.to_string().contains(secret.as_str()));
                assert!(in_body || !said.contains(secret.as_str()), "{secret} in {what}");
            }
            let is_own_name = operation.method == "put" && operation.id() != "put_run";
            if operation.path.contains('{') && !is_own_name && operation.path != nowhere && path != nowhere {
                let other = ask(&house.app, intruder, operation.method, &nowhere, body.as_ref()).await;
                assert_eq!(but_for_names(&answer, &house), but_for_names(&other, &house), "{what}");
                assert!(!answer.status.is_success(), "{what}");
            }
        }
    }
    assert!(tried > 70, "{tried}");
    assert_eq!(everything(&house).await, before, "somebody changed what is not theirs");
}

/// Everything that alpha has, as alpha sees it.
async fn everything(house: &House) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for operation in operations() {
        let is_looked_at =
            operation.method == "get" && operation.scope().is_some_and(|scope| scope != "admin");
        if !is_looked_at || operation.path.contains("/frameworks") || operation.path.contains("/rules") {
            continue;
        }
        let path = operation.path_with(&house.there);
        let answer = ask(&house.app, ANN, "get", &path, None).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text());
        seen.insert(path, answer.text());
    }
    seen
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_route_wants_a_token_and_a_scope(pool: PgPool) {
    let house = house(pool).await;
    let scopes = ["read", "submit", "operate", "admin"];
    let tokens = ["alpha-read-0000000", "alpha-submit-00000", ANN, ADAM];
    let rank = |scope: &str| scopes.iter().position(|one| *one == scope).expect("a scope");
    let mut tried = [0; 4];
    for operation in operations().into_iter().filter(|operation| !operation.is_for_pods()) {
        let Some(needed) = operation.scope() else { continue };
        let path = operation.path_with(&house.nowhere);
        let body = body_of(&operation, &house);
        let method = operation.method.to_uppercase();
        tried[rank(needed)] += 1;
        let nobody = house.app.with_headers(&method, &path, &[], Body::empty()).await;
        nobody.problem(401, "unauthorized");
        assert_eq!(nobody.header("www-authenticate"), "Bearer");
        for wrong in ["alpha-read-000000", "estimatord_", "a.b.c", ""] {
            let authorization = format!("Bearer {wrong}");
            let headers = [("authorization", authorization.as_str())];
            let answer = house.app.with_headers(&method, &path, &headers, Body::empty()).await;
            answer.problem(401, "unauthorized");
        }
        // Neither in the address, where it would be written into logs on the way.
        let in_address = format!("{path}?access_token={ADAM}&token={ADAM}");
        house.app.with_headers(&method, &in_address, &[], Body::empty()).await.problem(401, "unauthorized");
        for token in &tokens[..rank(needed)] {
            let answer = ask(&house.app, token, operation.method, &path, body.as_ref()).await;
            let problem = answer.problem(403, "insufficient-scope");
            assert!(text(&problem["detail"]).contains(&format!("`{needed}`")), "{problem}");
            assert!(answer.header("www-authenticate").contains("insufficient_scope"));
        }
        let enough = ask(&house.app, tokens[rank(needed)], operation.method, &path, body.as_ref()).await;
        assert!(![401, 403].contains(&enough.status.as_u16()), "{method} {path}: {}", enough.text());
    }
    assert!(tried.iter().all(|count| *count >= 5), "{tried:?}");
}

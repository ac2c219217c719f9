//! What is said to the service, and read from it.

use estimatord::api::openapi;
use reqwest::Method;
use serde_json::{Value, json};

use super::planted::{ACCESS_KEY, ACCOUNT_KEY, Canaries, REGISTRY, SESSION, TOKEN};
use crate::service::Service;

/// Where nobody answers.
pub const NOBODY: &str = "http://127.0.0.1:9";

/// Every answer that came, and from where.
pub struct Caller<'a> {
    base: String,
    token: &'static str,
    canaries: &'a Canaries,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Caller<'a> {
    pub fn new(service: &Service, token: &'static str, canaries: &'a Canaries) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let http = reqwest::Client::new();
        Self { base: service.base.clone(), token, canaries, http, runtime }
    }

    /// What is answered, headers and all, has no canary in it.
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (status, text) = self.send_unseen(method, path, content_type, body);
        self.canaries.are_not_in(&format!("the answer of {method} {path} ({status})"), &text);
        (status, text)
    }

    pub fn send_unseen(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let method: Method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.token);
        self.answer_to(request.header("content-type", content_type).body(body.to_vec()))
    }

    /// Sends a token where none belongs, without one where it does: what was done is refused, and stands in the audit trail.
    fn misplace(&self, token: &str) {
        let place = format!("{}/v1/runs/{token}", self.base);
        for request in [
            self.http.get(&place),
            self.http.get(&place).bearer_auth(self.token),
            self.http.post(format!("{place}/cancel")).bearer_auth(self.token),
            self.http.get(format!("{}/v1/runs", self.base)).header("x-request-id", token),
        ] {
            let (status, answer) = self.answer_to(request);
            let text = String::from_utf8_lossy(&answer);
            assert!(status / 100 == 4 && !text.contains(token), "{status} {text}");
        }
    }

    fn answer_to(&self, request: reqwest::RequestBuilder) -> (u16, Vec<u8>) {
        self.runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            let (status, headers) = (answer.status().as_u16(), format!("{:?}\n", answer.headers()));
            let body = answer.bytes().await.expect("a body");
            (status, [headers.as_bytes(), &body].concat())
        })
    }

    pub fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.send(method, path, "application/json", body.to_string().as_bytes());
        let start = text.iter().position(|byte| *byte == b'\n').expect("headers") + 1;
        (status, serde_json::from_slice(&text[start..]).unwrap_or(Value::Null))
    }

    pub fn get(&self, path: &str) -> Value {
        self.json("GET", path, &Value::Null).1
    }
}

pub fn with_registry(mut definition: Value, password: &Value) -> Value {
    definition["use_docker"] = json!(true);
    definition["custom_docker_image"] = json!("registry.example.com/own:1");
    definition["image_registry_details"] =
        json!({"address": "registry.example.com", "username": "robot", "password": password});
    definition
}

/// Sends secrets in the right places and in wrong ones. What is well is answered so.
pub fn speak(caller: &Caller<'_>, receiver: u16, snapshot: &str) -> Vec<String> {
    let plain = json!({"source_directory": snapshot, "compute_target": "local", "entry_script": "train.py",
        "user_managed": true, "use_docker": false});
    let with = |password: Value| with_registry(plain.clone(), &password);
    let good = with(json!(REGISTRY));
    let submission = json!({"experiment_name": "canaries", "estimator": good});
    let mut ids = Vec::new();
    for (path, body) in [("/v1/estimators", &good), ("/v1/runs", &submission)] {
        let (status, answer) = caller.json("POST", path, body);
        assert_eq!(status, 201, "{answer}");
        ids.push(answer["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(
        caller.json("POST", "/v1/runs/batch", &json!({"runs": [submission, {"estimator": 1}]})).0 / 100,
        2
    );
    assert_eq!(caller.json("POST", "/v1/estimators/validate", &good).0, 200);
    for format in ["script-run-config", "azureml-v2", "sbatch", "kubernetes"] {
        caller.json("POST", "/v1/estimators/render", &json!({"format": format, "estimator": good}));
        let stored = format!("/v1/estimators/{}/render", ids[0]);
        assert_eq!(caller.json("POST", &stored, &json!({"format": format, "compute_target": null})).0, 200);
    }
    let python = format!(
        "registry = ContainerRegistry()\nregistry.address = 'registry.example.com'\nregistry.password = '{REGISTRY}'\n\
         est = Chainer(source_directory='.', image_registry_details=registry, entry_script='train.py')\n"
    );
    assert_eq!(caller.send("POST", "/v1/estimators/parse", "text/x-python", python.as_bytes()).0, 200);
    // In wrong ones: of another type, cut off, doubled, misspelled, where something else belongs.
    for wrong in [
        with(json!([REGISTRY])),
        with(json!({"value": REGISTRY})),
        with(json!("")),
        json!({"image_registry_details": REGISTRY}),
        json!({"image_registry_details": {"address": "registry.example.com", "pasword": REGISTRY}}),
        json!({"image_registry_details": {"address": "registry.example.com", "password": REGISTRY}}),
    ] {
        for (path, body) in [
            ("/v1/estimators", wrong.clone()),
            ("/v1/estimators/validate", wrong.clone()),
            ("/v1/runs", json!({"experiment_name": "canaries", "estimator": wrong})),
            ("/v1/estimators/render", json!({"format": "kubernetes", "estimator": wrong})),
        ] {
            caller.json("POST", path, &body);
        }
    }
    let text = submission.to_string();
    for path in ["/v1/estimators", "/v1/runs", "/v1/runs/batch", "/v1/estimators/validate"] {
        let cut = text.split_once(REGISTRY).expect("it is in there").0.to_owned() + REGISTRY;
        for body in [cut.as_bytes(), text.replace('}', "]").as_bytes(), REGISTRY.as_bytes()] {
            assert_eq!(caller.send("POST", path, "application/json", body).0 / 100, 4, "{path}");
        }
        assert_eq!(caller.send("POST", path, "text/plain", text.as_bytes()).0, 415);
    }
    let access = json!({"access_key_id": "AKIA1", "secret_access_key": ACCESS_KEY, "session_token": SESSION});
    for (name, body) in [
        ("bucket", json!({"url": "s3://bucket", "options": {"endpoint": NOBODY}, "credentials": access})),
        (
            "container",
            json!({"url": "az://container", "options": {"account_name": "account"}, "credentials": {"account_key": ACCOUNT_KEY}}),
        ),
    ] {
        let (status, answer) = caller.json("PUT", &format!("/v1/datastores/{name}"), &body);
        assert_eq!(status, 201, "{answer}");
    }
    for wrong in [
        json!({"url": "s3://bucket", "credentials": {"access_key_id": ACCESS_KEY, "secret_access_key": [ACCESS_KEY]}}),
        json!({"url": "s3://bucket", "credentials": {"secret": ACCESS_KEY}}),
        json!({"url": "s3://bucket", "credentials": ACCESS_KEY}),
        json!({"url": "file:///srv", "credentials": {"secret_access_key": ACCESS_KEY}}),
        json!({"url": format!("s3://AKIA1:{ACCESS_KEY}@bucket")}),
    ] {
        assert_eq!(caller.json("PUT", "/v1/datastores/wrong", &wrong).0 / 100, 4, "{wrong}");
    }
    let url = format!("http://127.0.0.1:{receiver}/hook");
    let webhook = json!({"url": url});
    // The one answer that has the secret; nothing else may.
    let (status, answer) =
        caller.send_unseen("PUT", "/v1/webhooks/ci", "application/json", webhook.to_string().as_bytes());
    assert_eq!(status, 201);
    ids.push(secret_of(&answer, "secret", "whsec_"));
    let (status, answer) =
        caller.send_unseen("POST", "/v1/webhooks/ci/rotate-secret", "application/json", b"");
    assert_eq!(status, 200);
    ids.push(secret_of(&answer, "secret", "whsec_"));
    assert_eq!(caller.json("PUT", "/v1/webhooks/ci", &webhook).0, 200);
    assert_eq!(
        caller.json("PUT", "/v1/webhooks/wrong", &json!({"url": format!("http://u:{TOKEN}@127.0.0.1/")})).0
            / 100,
        4
    );
    let token = json!({"name": "made", "scope": "read", "expires_in_seconds": 86_400}).to_string();
    let (status, answer) = caller.send_unseen("POST", "/v1/tokens", "application/json", token.as_bytes());
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
    ids.push(secret_of(&answer, "token", "estimatord_"));
    let made = ids.last().expect("just made");
    for token in
        [format!("estimatord_{made}"), format!("est-run-v1.{made}"), format!("eyJhbGciOiJF.{made}.{made}")]
    {
        caller.misplace(&token);
    }
    // A run that cannot reach its data, with credentials.
    let mut reads = plain.clone();
    reads["inputs"] = json!([{"type": "DataReference", "datastore": "bucket", "data_reference_name": "given",
        "path_on_datastore": "sets", "mode": "download"}]);
    let (status, answer) =
        caller.json("POST", "/v1/runs", &json!({"experiment_name": "canaries", "estimator": reads}));
    assert_eq!(status, 201, "{answer}");
    ids.push(answer["id"].as_str().expect("an id").to_owned());
    ids
}

/// What is shown once, without its prefix, in case that it is shown without elsewhere.
fn secret_of(answer: &[u8], member: &str, prefix: &str) -> String {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once('\n').expect("headers").1;
    let answer: Value = serde_json::from_str(body).expect("JSON");
    answer[member].as_str().expect("a secret").trim_start_matches(prefix).to_owned()
}

/// Every route of the document that is read from, with everything that there is in its braces.
pub fn read_everything(caller: &Caller<'_>) {
    let names = |path: &str, member: &str| -> Vec<String> {
        let items = caller.get(path)["items"].as_array().cloned().unwrap_or_default();
        items.iter().filter_map(|item| item[member].as_str()).map(str::to_owned).collect()
    };
    let document = serde_json::to_value(openapi()).expect("JSON");
    let mut read = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        if item["get"].is_null() {
            continue;
        }
        let mut places = vec![path.clone()];
        let fill =
            |places: Vec<String>, parameter: &str, values: &dyn Fn(&str) -> Vec<String>| -> Vec<String> {
                let filled = places.into_iter().flat_map(|place| {
                    let values = if place.contains(parameter) { values(&place) } else { vec![String::new()] };
                    values.into_iter().map(move |value| place.replace(parameter, &value)).collect::<Vec<_>>()
                });
                filled.collect()
            };
        places = fill(places, "{id}", &|place| match place {
            place if place.starts_with("/v1/runs") => names("/v1/runs", "id"),
            place if place.starts_with("/v1/estimators") => names("/v1/estimators", "id"),
            _ => vec!["nothing".to_owned()],
        });
        places = fill(places, "{run_id}", &|_| names("/v1/runs", "id"));
        places = fill(places, "{attempt}", &|_| vec!["1".to_owned()]);
        places = fill(places, "{name}", &|place| match place {
            place if place.starts_with("/v1/datastores") => names("/v1/datastores", "name"),
            place if place.starts_with("/v1/webhooks") => names("/v1/webhooks", "name"),
            _ => vec!["local".to_owned()],
        });
        places = fill(places, "{path}", &|place| names(place.trim_end_matches("/{path}"), "path"));
        places = fill(places, "{key}", &|_| names("/v1/environments", "key"));
        for parameter in ["{rule}", "{slug}", "{part}"] {
            places = fill(places, parameter, &|_| vec!["registry-incomplete".to_owned()]);
        }
        for place in places {
            assert!(!place.contains('{'), "{place}: what belongs into the braces?");
            caller.send("GET", &place, "application/json", b"");
            read += 1;
        }
    }
    assert!(read > 50, "{read}");
}

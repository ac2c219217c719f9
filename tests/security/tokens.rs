//! Tricks with tokens: JWTs that are not what they say, keys that are not who they seem, tokens that are over.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use axum::{Json, Router, body::Body, extract::State, routing::get};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use estimatord::{
    api::{AccessSettings, ApiSettings, FileTokens, oidc},
    clock::Clock as _,
    domain::{ids::RunId, oidc::Expected},
    storage::MIGRATOR,
    vault::Vault,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::app::{Answer, TestApp};

/// A key whose private half nobody has any more, and what it signed.
pub const RSA_MODULUS: &str = "\
     x4xdMzJhRBxFXDMlTtXg0mfwzQ-P5jq2Qo231HWhEAJiI57hpjpKKw--uB_tIZ7-2Dywdj5OYtK-7MrvbfAE6IKugYItnh2syhq11X5w-WoF1j\
     ZeJAyioGHHe5mFQLtaR5_REknlNH-RwM6paVAm3Tvv0Yrmz7U5McwNXUhSOS1UgW1iygDqfnkxvFsY7qSS2ya7DyHkK2f-fJ-NZrOMpF81ZQLM\
     gyAyCCnyNrCdFV242A549FIcyHw9j6mUTXlDC6VAYWZyr-m972mgQpxXDWCWGo7vI5r-j74JP1c2NESnEqYWRAeLFbpBxi7f57nTi9QgExfP7E\
     TtPfJR1ObUaw";
const RS256: &str = "\
     eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjoiZX\
     N0aW1hdG9yZCIsInN1YiI6InJvYm90IiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6ImVzdGltYXRvcmQ6c3VibWl0IiwicHJvamVjdCI6InZp\
     c2lvbiJ9.YmBO-ScnYmcasULHseZrQN584Z893vCbe2oGLQfXumZHipLuWEwvlIf6pJ4CePTZF6Lqrs_dLc1TbPUtCS6pQ6swdI0HAp0khudc6\
     hosg3ffETkZg_Sb9lJR4ZUVjmJ6Vi9k9qiOB7O8NlO1JQ36i1WKH_MGx4B84YLYcieD5trejSB5HCJveXPYsRROggfsQKdxVsOLZ2Dfa_40iPG\
     3UviytUuTthcAF7IVr-rX2G9yKGRf5nkyCCzzCtkskZgqEy67Tyaz2Rut_CCAAiT-CDFquLMWALNUpsi-R9WjpBhC5_0krK5LcMrQKoJVtXa07\
     PRw9KHKqmDw2jwLKN1P6A";
const PS256: &str = "\
     eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYS0xIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjoiZX\
     N0aW1hdG9yZCIsInN1YiI6InJvYm90IiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6ImVzdGltYXRvcmQ6c3VibWl0IiwicHJvamVjdCI6InZp\
     c2lvbiJ9.druqrWL0yxd1ou-kGi7iGsEDkAc-cHbFQeEjIAbzmooO0VZ2ASjHL7PTFJPJLzAKHOcXqhp4uU-tYEhCliD20c8YnO6dl5oYKLRz8\
     hNGlCt5s0n9LJn68erAymCKwfs9dLG8JpXlyFKQLRLsIGd4PGwZBLloPz2V56Lol7qdL6v55uk-qQkr_Hfz1fp3-Q1UUCqXHScMY71M25g9kIg\
     dFBi0qrpL5W2Uqc7t1EilgllgpnL4hfT6yPYbH4qElZ8q7BE2dosetG9jLF9d47xqtkv1tT7FyAGlgf2y1tqlHMpjQPT5rlhllwBPVbDHnzhID\
     JVi_T5eO_AZXZ_1PXedsw";

/// An issuer of tokens, with the keys that it has now.
#[derive(Clone, Default)]
pub struct Issuer {
    pub keys: Arc<Mutex<Vec<Value>>>,
    pub asked: Arc<AtomicU32>,
    pub away: Arc<Mutex<bool>>,
    /// Nothing is answered while somebody has it.
    pub pause: Arc<tokio::sync::Mutex<()>>,
}

impl Issuer {
    async fn jwks(State(this): State<Self>) -> Result<Json<Value>, axum::http::StatusCode> {
        this.asked.fetch_add(1, Ordering::SeqCst);
        drop(this.pause.lock().await);
        if *this.away.lock().expect("nobody panicked") {
            return Err(axum::http::StatusCode::BAD_GATEWAY);
        }
        Ok(Json(json!({"keys": *this.keys.lock().expect("nobody panicked")})))
    }

    /// Its name, which is its address.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let name = format!("http://{}", listener.local_addr().expect("an address"));
        let (issuer, keys) = (name.clone(), format!("{name}/keys"));
        let discovery = move || async move { Json(json!({"issuer": issuer, "jwks_uri": keys})) };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(Self::jwks))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        name
    }

    pub fn has(&self, keys: impl IntoIterator<Item = Value>) {
        *self.keys.lock().expect("nobody panicked") = keys.into_iter().collect();
    }
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair on the curve P-256.
pub struct Key {
    name: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    pub fn new(name: &'static str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("made");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("read");
        Self { name, pair }
    }

    pub fn public(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "kid": self.name, "use": "sig", "alg": "ES256",
            "x": base64(&point[1..33]), "y": base64(&point[33..65]),
        })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", base64(signature))
    }

    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": self.name, "typ": "JWT"}), claims)
    }
}

pub fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string()), base64(claims.to_string()))
}

pub fn settings(issuer: &str) -> AccessSettings {
    let expected = Expected {
        issuer: issuer.to_owned(),
        audience: "estimatord".to_owned(),
        project_claim: "project".to_owned(),
        project: None,
        scope_claim: "scope".to_owned(),
    };
    AccessSettings { is_required: true, file: None, oidc: Some(oidc::Settings { expected, keys: None }) }
}

pub fn app(pool: PgPool, access: AccessSettings) -> TestApp {
    TestApp::changed(pool, |settings| ApiSettings { access, ..settings })
}

pub fn claims(app: &TestApp, issuer: &str) -> Value {
    json!({
        "iss": issuer, "aud": "estimatord", "sub": "robot", "exp": app.clock.now().timestamp() + 60,
        "scope": "openid estimatord:submit", "project": "vision",
    })
}

pub async fn who(app: &TestApp, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    app.with_headers("GET", "/v1/caller", &[("authorization", &authorization)], Body::empty()).await
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn signatures_of_rsa_are_verified(pool: PgPool) {
    let issuer = Issuer::default();
    let name = issuer.start().await;
    issuer.has([json!({"kty": "RSA", "kid": "rsa-1", "n": RSA_MODULUS, "e": "AQAB"})]);
    let mut access = settings("https://issuer.example");
    if let Some(oidc) = &mut access.oidc {
        oidc.keys = format!("{name}/keys").parse().ok();
    }
    let app = app(pool, access);
    for token in [RS256, PS256] {
        assert_eq!(who(&app, token).await.ok(200)["project"], "vision");
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let mut damaged = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64");
        damaged[17] ^= 1;
        who(&app, &format!("{signed}.{}", base64(damaged))).await.problem(401, "unauthorized");
    }
    // The signature of the one under the header of the other.
    let (_, signature) = RS256.rsplit_once('.').expect("three parts");
    let (signed, _) = PS256.rsplit_once('.').expect("three parts");
    who(&app, &format!("{signed}.{signature}")).await.problem(401, "unauthorized");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn tricks_with_algorithms_and_keys_are_refused(pool: PgPool) {
    let (issuer, key, stranger) = (Issuer::default(), Key::new("one"), Key::new("one"));
    let name = issuer.start().await;
    let public = key.public();
    // A shared secret among the keys of an issuer, as some have.
    let secret =
        json!({"kty": "oct", "kid": "secret", "k": base64("a shared secret of an issuer"), "alg": "HS256"});
    let for_secrecy = Key::new("for-secrecy");
    let mut not_for_signatures = for_secrecy.public();
    not_for_signatures["use"] = json!("enc");
    let (twin, other_twin) = (Key::new("twin"), Key::new("twin"));
    let (half, x) = (
        Key::new("half"),
        base64(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key").public_key()),
    );
    let other_half = json!({"kty": "OKP", "crv": "Ed25519", "kid": "half", "x": x});
    issuer.has([
        public.clone(),
        secret,
        not_for_signatures,
        twin.public(),
        other_twin.public(),
        half.public(),
        other_half,
    ]);
    let app = app(pool, settings(&name));
    let good = claims(&app, &name);
    who(&app, &key.token(&good)).await.ok(200);

    let with_secret = |header: Value, secret: &[u8]| {
        let message = message(&header, &good);
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
        mac.update(message.as_bytes());
        format!("{message}.{}", base64(mac.finalize().into_bytes()))
    };
    let point = key.pair.public_key().as_ref().to_vec();
    let unsigned = message(&json!({"alg": "none", "kid": "one"}), &good);
    let own = json!({"alg": "ES256", "kid": "one", "jwk": stranger.public()});
    let elsewhere = json!({"alg": "ES256", "kid": "one", "jku": "https://evil.example/keys", "x5u": "https://evil.example/x"});
    let critical = json!({"alg": "ES256", "kid": "one", "crit": ["exp"]});
    let mut changed = good.clone();
    changed["scope"] = json!("admin");
    let token = key.token(&good);
    let parts: Vec<&str> = token.split('.').collect();
    let tricks = [
        ("no signature", format!("{unsigned}.")),
        ("no algorithm, some signature", format!("{unsigned}.{}", parts[2])),
        ("nOnE", format!("{}.", message(&json!({"alg": "nOnE", "kid": "one"}), &good))),
        ("the public key as a shared secret", with_secret(json!({"alg": "HS256", "kid": "one"}), &point)),
        (
            "its JSON as one",
            with_secret(json!({"alg": "HS256", "kid": "one"}), public.to_string().as_bytes()),
        ),
        (
            "a shared secret",
            with_secret(json!({"alg": "HS256", "kid": "secret"}), b"a shared secret of an issuer"),
        ),
        ("an empty one", with_secret(json!({"alg": "HS256", "kid": "one"}), b"")),
        ("a stranger's key of the same name", stranger.token(&good)),
        ("a key that it brings along", stranger.sign(&own, &good)),
        ("a key from elsewhere", stranger.sign(&elsewhere, &good)),
        ("something critical", key.sign(&critical, &good)),
        ("no name of a key", key.sign(&json!({"alg": "ES256"}), &good)),
        ("another name", key.sign(&json!({"alg": "ES256", "kid": "../one"}), &good)),
        ("a key that is not for signatures", for_secrecy.token(&good)),
        ("one of two keys of one name", twin.token(&good)),
        ("one of two of different kinds", half.token(&good)),
        ("another algorithm", key.sign(&json!({"alg": "ES384", "kid": "one"}), &good)),
        ("changed claims", format!("{}.{}.{}", parts[0], base64(changed.to_string()), parts[2])),
        ("an empty signature", format!("{}.{}.", parts[0], parts[1])),
        ("four parts", format!("{token}.{}", parts[2])),
        ("a huge one", key.token(&json!({"iss": name, "x": "y".repeat(9000)}))),
        ("no JSON", format!("{}.{}.{}", base64("{"), parts[1], parts[2])),
    ];
    for (what, token) in tricks {
        let answer = who(&app, &token).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        // Why is nobody's business.
        assert_eq!(answer.problem(401, "unauthorized")["detail"], "a valid bearer token is needed", "{what}");
    }
    for (claim, value) in [
        ("iss", json!("https://issuer.example")),
        ("aud", json!("another")),
        ("exp", json!(app.clock.now().timestamp() - 61)),
        ("nbf", json!(app.clock.now().timestamp() + 3600)),
        ("scope", json!("openid")),
        ("project", Value::Null),
        ("sub", Value::Null),
    ] {
        let mut claims = good.clone();
        claims[claim] = value;
        who(&app, &key.token(&claims)).await.problem(401, "unauthorized");
    }
}

fn known_by_file() -> AccessSettings {
    let file = FileTokens::parse("root a-token-of-the-file admin").expect("tokens");
    AccessSettings { is_required: true, file: Some(file), oidc: None }
}

const ROOT: [(&str, &str); 2] =
    [("authorization", "Bearer a-token-of-the-file"), ("content-type", "application/json")];

async fn make(app: &TestApp, body: &Value) -> Value {
    app.with_headers("POST", "/v1/tokens", &ROOT, Body::from(body.to_string())).await.ok(201)
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_token_is_shown_once_kept_as_a_digest_and_ends(pool: PgPool) {
    let app = app(pool, known_by_file());
    let made = make(&app, &json!({"name": "ci", "project": "vision", "scope": "submit"})).await;
    let (token, id) = (made["token"].as_str().expect("a token"), made["id"].as_str().expect("an id"));
    assert!(token.starts_with("estimatord_") && token.len() == 83, "{token}");
    assert_eq!(made["created_by"], "root");
    assert_eq!(who(&app, token).await.ok(200), json!({"name": "ci", "project": "vision", "scope": "submit"}));
    // Nowhere in the database, and in no other answer.
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT t::text FROM api_tokens AS t").fetch_all(&app.pool).await.expect("rows");
    assert!(rows.len() == 1 && !rows[0].contains(&token[11..]), "{rows:?}");
    let path = format!("/v1/tokens/{id}");
    let shown = app.with_headers("GET", &path, &ROOT, Body::empty()).await.ok(200);
    assert_eq!((&shown["token"], &shown["revoked_at"]), (&Value::Null, &Value::Null));
    assert!(shown["last_used_at"].is_string(), "{shown}");
    let listed = app.with_headers("GET", "/v1/tokens", &ROOT, Body::empty()).await;
    assert!(listed.text().contains(id) && !listed.text().contains(token));
    // Revoked, at once.
    app.with_headers("DELETE", &path, &ROOT, Body::empty()).await.ok(200);
    who(&app, token).await.problem(401, "unauthorized");
    let again = app.with_headers("DELETE", &path, &ROOT, Body::empty()).await.ok(200);
    assert!(again["revoked_at"].is_string());
    // Over, by the database's clock.
    let made = make(&app, &json!({"name": "ci", "scope": "read"})).await;
    sqlx::query("UPDATE api_tokens SET expires_at = now() - interval '1 second' WHERE name = 'ci'")
        .execute(&app.pool)
        .await
        .expect("written");
    who(&app, made["token"].as_str().expect("a token")).await.problem(401, "unauthorized");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_repeated_request_for_a_token_makes_one_and_shows_it_once(pool: PgPool) {
    let app = app(pool, known_by_file());
    let headers = [ROOT[0], ROOT[1], ("idempotency-key", "k")];
    let body = json!({"name": "ci", "scope": "read"}).to_string();
    let first = app.with_headers("POST", "/v1/tokens", &headers, Body::from(body.clone())).await.ok(201);
    let again = app.with_headers("POST", "/v1/tokens", &headers, Body::from(body)).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    let again = again.ok(201);
    assert_eq!((&again["id"], &again["token"]), (&first["id"], &Value::Null));
    let kept: String = sqlx::query_scalar("SELECT response::text FROM idempotency_keys")
        .fetch_one(&app.pool)
        .await
        .expect("a row");
    assert!(!kept.contains("estimatord_"), "{kept}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_bad_token_says_everything_that_is_wrong(pool: PgPool) {
    let app = app(pool, known_by_file());
    let body =
        json!({"name": "a b", "project": "A", "scope": "submitt", "expires_in_seconds": 1, "colour": "blue"});
    let answer = app.with_headers("POST", "/v1/tokens", &ROOT, Body::from(body.to_string())).await;
    let problem = answer.problem(422, "invalid-token");
    let pointers: Vec<_> = answer.errors().into_iter().map(|(_, pointer)| pointer).collect();
    for pointer in ["/name", "/project", "/scope", "/expires_in_seconds", "/colour"] {
        assert!(pointers.iter().any(|one| one == pointer), "{pointer} in {problem}");
    }
    assert!(answer.text().contains("write `submit`"), "{}", answer.text());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn two_authorizations_are_one_too_many(pool: PgPool) {
    let app = app(pool, known_by_file());
    let headers = [ROOT[0], ("authorization", "Bearer another-token-000")];
    app.with_headers("GET", "/v1/caller", &headers, Body::empty()).await.problem(400, "malformed-request");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_runs_in_a_run_sees_that_run_while_it_lives(pool: PgPool) {
    let app = app(pool, known_by_file());
    let tar = crate::app::tar(&[("train.py", "print()\n")]);
    let tar_headers = [ROOT[0], ("content-type", "application/x-tar")];
    let snapshot = app.with_headers("POST", "/v1/snapshots", &tar_headers, Body::from(tar)).await.ok(201);
    let body = json!({"experiment_name": "e", "estimator": {
        "source_directory": snapshot["id"], "compute_target": "local", "entry_script": "train.py",
        "framework_version": "7.0.0", "use_docker": false
    }});
    let submit = || app.with_headers("POST", "/v1/runs", &ROOT, Body::from(body.to_string()));
    let (run, other) = (submit().await.ok(201), submit().await.ok(201));
    let claimed = app.admit().await;
    app.start(&claimed).await;
    let id = claimed.run.id;
    let other = if other["id"] == id.to_string() { &run["id"] } else { &other["id"] };
    let token = Vault::new([7; 32]).script_token(id, 1);
    let authorization = format!("Bearer {}", token.expose());
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let ask = |method: &'static str, path: String| {
        let (app, headers) = (&app, &headers);
        async move { app.with_headers(method, &path, headers, Body::from("{}")).await }
    };
    ask("GET", format!("/v1/runs/{id}")).await.ok(200);
    ask("GET", format!("/v1/runs/{id}/events")).await.ok(200);
    for (method, path) in [
        ("GET", "/v1/runs".to_owned()),
        ("GET", format!("/v1/runs/{}", other.as_str().expect("an id"))),
        ("POST", format!("/v1/runs/{id}/cancel")),
        ("POST", format!("/v1/runs/{id}/rerun")),
        ("PATCH", format!("/v1/runs/{id}")),
        ("GET", "/v1/datastores".to_owned()),
        ("GET", "/v1/tokens".to_owned()),
        ("POST", "/v1/tokens".to_owned()),
        ("GET", "/metrics".to_owned()),
    ] {
        assert_eq!(ask(method, path.clone()).await.status, 401, "{method} {path}");
    }
    let around = format!("/v1/runs/{id}/../{}", other.as_str().expect("an id"));
    ask("GET", around).await.problem(404, "unknown-route");
    // That of its pods, of another attempt, of another run, of another key.
    let vault = Vault::new([7; 32]);
    for wrong in [
        vault.attempt_token(id, 1),
        vault.script_token(id, 2),
        vault.script_token(RunId::from_uuid(uuid::Uuid::nil()), 1),
        Vault::new([8; 32]).script_token(id, 1),
    ] {
        let authorization = format!("Bearer {}", wrong.expose());
        let headers = [("authorization", authorization.as_str())];
        let answer = app.with_headers("GET", &format!("/v1/runs/{id}"), &headers, Body::empty()).await;
        answer.problem(401, "unauthorized");
    }
    app.complete(&claimed).await;
    assert_eq!(ask("GET", format!("/v1/runs/{id}")).await.status, 401, "the run has ended");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_trail_has_what_was_done_and_refused_and_nobody_changes_it(pool: PgPool) {
    let app = app(pool, known_by_file());
    let made = make(&app, &json!({"name": "ci", "scope": "read"})).await;
    let token = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let ci = [("authorization", token.as_str()), ("x-request-id", "req-1")];
    app.clock.advance(1);
    app.with_headers("DELETE", "/v1/datastores/x?secret=in-the-query", &ci, Body::empty())
        .await
        .problem(403, "insufficient-scope");
    app.with_headers("GET", "/v1/runs", &ci, Body::empty()).await.ok(200);
    app.clock.advance(1);
    app.with_headers("GET", "/v1/runs", &[], Body::empty()).await.problem(401, "unauthorized");
    let trail = app.with_headers("GET", "/v1/audit-events", &ROOT, Body::empty()).await;
    assert!(!trail.text().contains("in-the-query"));
    let trail = trail.ok(200);
    let seen: Vec<_> = trail["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|event| {
            ["caller", "project", "credential", "operation", "method", "path"]
                .map(|member| event[member].as_str().expect("a text"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            ["", "", "unknown", "list_runs", "GET", "/v1/runs"],
            ["ci", "default", "token", "delete_datastore", "DELETE", "/v1/datastores/x"],
            ["root", "default", "file", "create_token", "POST", "/v1/tokens"],
        ]
    );
    let second = &trail["items"][1];
    assert_eq!(
        (&second["status"], &second["token_id"], &second["request_id"]),
        (&json!(403), &made["id"], &json!("req-1"))
    );
    for change in
        ["UPDATE audit_events SET caller = 'nobody'", "DELETE FROM audit_events", "TRUNCATE audit_events"]
    {
        let refused = sqlx::query(change).execute(&app.pool).await.expect_err("refused").to_string();
        assert!(refused.contains("the audit trail is not rewritten"), "{refused}");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn whoever_knocks_a_thousand_times_fills_no_disk(pool: PgPool) {
    let app = app(pool, known_by_file());
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        app.get("/v1/runs").await.problem(401, "unauthorized");
    }
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit_events").fetch_one(&app.pool).await.expect("counted");
    // Sixty at once, and one a second from then on.
    let most = 61 + i64::try_from(begun.elapsed().as_secs()).expect("small");
    assert!((1..=most).contains(&rows), "{rows}");
}

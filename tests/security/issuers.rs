//! An issuer of JWTs: its keys are fetched, kept and given up.

use std::{sync::atomic::Ordering, time::Duration};

use estimatord::storage::MIGRATOR;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use sqlx::PgPool;

use crate::tokens::{Issuer, Key, RSA_MODULUS, app, base64, claims, message, settings, who};

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_jwt_of_the_issuer_says_who_it_is(pool: PgPool) {
    let (issuer, key) = (Issuer::default(), Key::new("one"));
    let name = issuer.start().await;
    issuer.has([key.public()]);
    let app = app(pool, settings(&name));
    let caller = who(&app, &key.token(&claims(&app, &name))).await.ok(200);
    assert_eq!(caller, json!({"name": "oidc:robot", "project": "vision", "scope": "submit"}));
    // Asked once, and not for every request.
    who(&app, &key.token(&claims(&app, &name))).await.ok(200);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
    // Another curve, and the two ways of RSA.
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let rsa = json!({"kty": "RSA", "kid": "rsa-1", "n": RSA_MODULUS, "e": "AQAB"});
    let x = base64(pair.public_key());
    issuer.has([
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "two", "x": x}),
        rsa,
        json!({"kty": "new", "kid": "x"}),
    ]);
    app.clock.advance(11);
    let message = message(&json!({"alg": "EdDSA", "kid": "two"}), &claims(&app, &name));
    who(&app, &format!("{message}.{}", base64(pair.sign(message.as_bytes())))).await.ok(200);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn keys_are_rotated_and_outlive_an_issuer_that_is_away(pool: PgPool) {
    let (issuer, first, second) = (Issuer::default(), Key::new("first"), Key::new("second"));
    let name = issuer.start().await;
    let app = app(pool, settings(&name));
    *issuer.away.lock().expect("nobody panicked") = true;
    let away = who(&app, &first.token(&claims(&app, &name))).await;
    away.problem(503, "issuer-unavailable");
    assert_eq!(away.header("retry-after"), "5");
    *issuer.away.lock().expect("nobody panicked") = false;
    issuer.has([first.public()]);
    app.clock.advance(11);
    who(&app, &first.token(&claims(&app, &name))).await.ok(200);
    // A key that is not known has the issuer asked, but not each time.
    let asked = issuer.asked.load(Ordering::SeqCst);
    for _ in 0..5 {
        who(&app, &second.token(&claims(&app, &name))).await.problem(401, "unauthorized");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), asked, "asked a moment ago");
    issuer.has([second.public()]);
    app.clock.advance(11);
    who(&app, &second.token(&claims(&app, &name))).await.ok(200);
    // The first is withdrawn.
    who(&app, &first.token(&claims(&app, &name))).await.problem(401, "unauthorized");
    *issuer.away.lock().expect("nobody panicked") = true;
    app.clock.advance(3600);
    who(&app, &second.token(&claims(&app, &name))).await.ok(200);
    app.clock.advance(24 * 3600);
    who(&app, &second.token(&claims(&app, &name))).await.problem(503, "issuer-unavailable");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_issuer_that_hangs_holds_up_nobody_whose_key_is_known(pool: PgPool) {
    let (issuer, first, second) = (Issuer::default(), Key::new("first"), Key::new("second"));
    let name = issuer.start().await;
    let app = app(pool, settings(&name));
    issuer.has([first.public()]);
    who(&app, &first.token(&claims(&app, &name))).await.ok(200);
    // Its keys are to be asked for anew, and it does not answer.
    app.clock.advance(3600);
    issuer.has([first.public(), second.public()]);
    let paused = issuer.pause.clone().lock_owned().await;
    let (known, unknown) = (first.token(&claims(&app, &name)), second.token(&claims(&app, &name)));
    let others = async {
        // Less than the issuer is waited for.
        let quick = Duration::from_secs(3);
        for _ in 0..3 {
            tokio::time::timeout(quick, who(&app, &known)).await.expect("at once").ok(200);
        }
        while issuer.asked.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        drop(paused);
    };
    // A key that is not known is waited for, with the fetch that the others have begun.
    let (answer, ()) = tokio::join!(who(&app, &unknown), others);
    answer.ok(200);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2);
}

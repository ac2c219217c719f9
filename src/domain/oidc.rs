//! What the claims of a JWT say of a caller, once its signature is known to be the issuer's.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use url::Url;

use super::{
    access::{Credential, Principal, Scope},
    project::Project,
};

/// How far two clocks may be apart: what is usual for JWTs.
const LEEWAY_SECONDS: i64 = 60;
/// What an issuer calls somebody is kept with every run that they start (OpenID Connect Core allows 255 characters).
const MAX_SUBJECT_CHARACTERS: usize = 255;
/// What scopes may be called by an issuer that serves others, too: `estimatord:read`, `estimatord.read`, or `read` alone.
const PREFIXES: [&str; 3] = ["estimatord:", "estimatord.", ""];

/// What a token must say, and where it says the rest.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Who must have issued it.
    pub issuer: String,
    /// Whom it must be meant for.
    pub audience: String,
    /// The claim with the project's name.
    pub project_claim: String,
    /// The project of tokens without that claim.
    pub project: Option<Project>,
    /// The claim with scopes: words with spaces between, or a list of them.
    pub scope_claim: String,
}

/// Why a token's bearer is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A claim that must be there is not, or is of no use.
    #[error("the claim `{0}` is missing or of no use")]
    Claim(String),
    /// It is another issuer's.
    #[error("another issuer's")]
    Issuer,
    /// It is meant for somebody else.
    #[error("meant for another audience")]
    Audience,
    /// It is over.
    #[error("expired")]
    Expired,
    /// It has not begun.
    #[error("not valid yet")]
    TooEarly,
}

/// Who the bearer of a token with these claims is.
///
/// # Errors
/// Why it is not let in.
pub fn principal(
    claims: &Map<String, Value>,
    expected: &Expected,
    now: DateTime<Utc>,
) -> Result<Principal, Refusal> {
    let missing = |claim: &str| Refusal::Claim(claim.to_owned());
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer.as_str()) {
        return Err(Refusal::Issuer);
    }
    if !words(claims.get("aud"), false).any(|audience| audience == expected.audience) {
        return Err(Refusal::Audience);
    }
    let seconds = |claim: &str| claims.get(claim).map(|value| value.as_f64().ok_or_else(|| missing(claim)));
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
    let (now, leeway) = (now.timestamp() as f64, LEEWAY_SECONDS as f64);
    let expires = seconds("exp").ok_or_else(|| missing("exp"))??;
    if now >= expires + leeway {
        return Err(Refusal::Expired);
    }
    for claim in ["nbf", "iat"] {
        if let Some(begins) = seconds(claim).transpose()?
            && begins > now + leeway
        {
            return Err(Refusal::TooEarly);
        }
    }
    let subject = claims.get("sub").and_then(Value::as_str).ok_or_else(|| missing("sub"))?;
    let fits = (1..=MAX_SUBJECT_CHARACTERS).contains(&subject.chars().count());
    if !fits || subject.chars().any(char::is_control) {
        return Err(missing("sub"));
    }
    let project = match claims.get(&expected.project_claim) {
        Some(Value::String(name)) => name.parse().ok(),
        Some(_) => None,
        None => expected.project.clone(),
    };
    Ok(Principal {
        name: format!("oidc:{subject}"),
        project: project.ok_or_else(|| missing(&expected.project_claim))?,
        scope: scope(claims.get(&expected.scope_claim)).ok_or_else(|| missing(&expected.scope_claim))?,
        credential: Credential::Oidc,
    })
}

/// Whether nobody on the way can change what an address answers.
#[must_use]
pub fn is_trustworthy(address: &Url) -> bool {
    let is_here = match address.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    address.scheme() == "https" || (address.scheme() == "http" && is_here)
}

/// The greatest scope that a claim names; none when it names none.
fn scope(claim: Option<&Value>) -> Option<Scope> {
    words(claim, true)
        .filter_map(|word| PREFIXES.iter().find_map(|prefix| word.strip_prefix(prefix)?.parse().ok()))
        .max()
}

/// The words of a claim that is a text or a list of texts.
fn words(claim: Option<&Value>, split: bool) -> impl Iterator<Item = &str> {
    let texts: Vec<&str> = match claim {
        Some(Value::String(text)) if split => text.split(' ').collect(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn judged(change: Value) -> Result<Principal, Refusal> {
        let expected = Expected {
            issuer: "https://issuer.example".to_owned(),
            audience: "estimatord".to_owned(),
            project_claim: "project".to_owned(),
            project: Some(Project::default()),
            scope_claim: "scope".to_owned(),
        };
        let mut claims = json!({
            "iss": "https://issuer.example", "aud": ["other", "estimatord"], "sub": "repo:org/x", "exp": NOW + 10,
            "scope": "openid estimatord:submit read", "project": "vision",
        });
        let (Some(claims), Some(change)) = (claims.as_object_mut(), change.as_object()) else {
            panic!("objects")
        };
        for (claim, value) in change {
            if value.is_null() {
                claims.remove(claim)
            } else {
                claims.insert(claim.clone(), value.clone())
            };
        }
        principal(claims, &expected, DateTime::from_timestamp(NOW, 0).expect("a time"))
    }

    #[test]
    fn claims_say_who_it_is() {
        let found = judged(json!({})).expect("let in");
        assert_eq!((found.caller().as_str(), found.scope), ("vision/oidc:repo:org/x", Scope::Submit));
        assert_eq!(judged(json!({"aud": "estimatord"})).map(|one| one.scope), Ok(Scope::Submit));
        assert_eq!(judged(json!({"project": null})).map(|one| one.project), Ok(Project::default()));
        assert_eq!(
            judged(json!({"scope": ["estimatord.admin", "read"]})).map(|one| one.scope),
            Ok(Scope::Admin)
        );
        // Two clocks need not agree to the second.
        assert!(judged(json!({"exp": NOW - 59})).is_ok() && judged(json!({"nbf": NOW + 59})).is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        let missing = |claim: &str| Refusal::Claim(claim.to_owned());
        for (change, why) in [
            (json!({"iss": "https://issuer.example/"}), Refusal::Issuer),
            (json!({"iss": null}), Refusal::Issuer),
            (json!({"iss": ["https://issuer.example"]}), Refusal::Issuer),
            (json!({"aud": "other"}), Refusal::Audience),
            (json!({"aud": "x estimatord"}), Refusal::Audience),
            (json!({"aud": null}), Refusal::Audience),
            (json!({"exp": NOW - 60}), Refusal::Expired),
            (json!({"exp": null}), missing("exp")),
            (json!({"exp": "9999999999"}), missing("exp")),
            (json!({"nbf": NOW + 61}), Refusal::TooEarly),
            (json!({"iat": NOW + 61}), Refusal::TooEarly),
            (json!({"nbf": "soon"}), missing("nbf")),
            (json!({"sub": ""}), missing("sub")),
            (json!({"sub": "a\nb"}), missing("sub")),
            (json!({"sub": "x".repeat(256)}), missing("sub")),
            (json!({"project": "../default"}), missing("project")),
            (json!({"project": ["default"]}), missing("project")),
            (json!({"scope": "openid estimatord:all ADMIN"}), missing("scope")),
            (json!({"scope": null}), missing("scope")),
            (json!({"scope": {"admin": true}}), missing("scope")),
        ] {
            assert_eq!(judged(change.clone()).expect_err("refused"), why, "{change}");
        }
    }
}

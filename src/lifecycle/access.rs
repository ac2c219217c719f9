//! Who may come in: what the options say, made ready.

use std::path::Path;

use anyhow::{Context as _, bail};
use http::HeaderValue;

use crate::{
    api::{AccessSettings, FileTokens, oidc},
    config::{Role, Serve},
    domain::{datastore_places::Places, forwarded::TrustedProxies, oidc::Expected},
    storage::Storage,
};

/// By what callers are known. Whoever can be reached by others asks every caller who it is, and there must be somebody whom it
/// knows.
///
/// # Errors
/// When a file of tokens cannot be used.
pub(crate) fn settings(settings: &Serve) -> anyhow::Result<AccessSettings> {
    let access = &settings.access;
    let file = match &access.api_token_file {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the tokens in {}", file.display()))?;
            let read = FileTokens::parse(&text);
            Some(read.map_err(|why| anyhow::anyhow!("the tokens in {}: {why}", file.display()))?)
        }
    };
    let oidc = match (&access.oidc_issuer, &access.oidc_audience) {
        (Some(issuer), Some(audience)) => Some(oidc::Settings {
            expected: Expected {
                issuer: issuer.clone(),
                audience: audience.clone(),
                project_claim: access.oidc_project_claim.clone(),
                project: access.oidc_project.clone(),
                scope_claim: access.oidc_scope_claim.clone(),
            },
            keys: access.oidc_jwks_url.clone(),
        }),
        _ => None,
    };
    let others_can_reach_it = !settings.listen.ip().is_loopback();
    let is_required = others_can_reach_it || access.require_token || file.is_some() || oidc.is_some();
    Ok(AccessSettings { is_required, file, oidc })
}

/// Refuses to be reached by others as long as nobody is known: a service that nobody can use is no use, and the next step would be to
/// let everybody in.
///
/// # Errors
/// When it is so; the message says what to do.
pub(crate) async fn somebody_is_known(
    settings: &Serve,
    access: &AccessSettings,
    storage: &Storage,
) -> anyhow::Result<()> {
    let is_reached = settings.role != Role::Worker;
    if !is_reached || !access.is_required || access.file.is_some() || access.oidc.is_some() {
        return Ok(());
    }
    if storage.has_good_api_token().await? {
        return Ok(());
    }
    bail!(
        "refusing to listen on {} without a token: this service runs the code that it is sent. Make one with `estimatord token \
         create --name NAME --scope admin`, name a file of tokens with --api-token-file or an issuer with --oidc-issuer, or \
         listen on 127.0.0.1",
        settings.listen
    );
}

/// Where datastores may lead: whoever lets only known callers in does not let those go anywhere.
pub(super) fn datastore_places(
    settings: &Serve,
    access: &AccessSettings,
    data_dir: &Path,
    artifacts_dir: &Path,
) -> Places {
    let listed = settings.datastore_allow.clone().or_else(|| access.is_required.then(Vec::new));
    Places::new(listed, &[&data_dir.to_string_lossy(), &artifacts_dir.to_string_lossy()])
}

/// Whose word is taken for where a request came from.
pub(super) fn trusted_proxies(settings: &Serve) -> TrustedProxies {
    let access = &settings.access;
    TrustedProxies { networks: access.trusted_proxies.clone(), header: access.forwarded_header }
}

/// The origins whose pages may ask.
///
/// # Errors
/// When one cannot stand in a header.
pub(super) fn origins(settings: &Serve) -> anyhow::Result<Vec<HeaderValue>> {
    let origins = settings.access.cors_allow_origin.iter();
    origins.map(|origin| HeaderValue::from_str(origin).context("--cors-allow-origin")).collect()
}

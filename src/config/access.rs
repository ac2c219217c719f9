//! Options that say who may come in.

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use url::Url;

use crate::domain::{
    access::Scope, api_token::TokenName, forwarded::ForwardedHeader, oidc::is_trustworthy, project::Project,
    secret::Secret,
};

/// Who may come in.
#[derive(Args, Clone, Debug)]
pub struct Access {
    /// A file with bearer tokens, of at least 16 characters: one a line, after the caller's name where several callers are told
    /// apart, and before its scope (read, submit, operate or admin, which is the default) and its project
    #[arg(long, env = "ESTIMATORD_API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,
    /// Ask for a token on loopback, too, as on every other address [default: when there is a file of tokens or an issuer]
    #[arg(long, env = "ESTIMATORD_REQUIRE_TOKEN")]
    pub require_token: bool,
    /// The issuer whose JWTs are good as tokens, exactly as it calls itself (OpenID Connect)
    #[arg(long, env = "ESTIMATORD_OIDC_ISSUER", value_name = "URL", requires = "oidc_audience", value_parser = issuer)]
    pub oidc_issuer: Option<String>,
    /// Whom its JWTs must be meant for
    #[arg(long, env = "ESTIMATORD_OIDC_AUDIENCE", value_name = "NAME", requires = "oidc_issuer")]
    pub oidc_audience: Option<String>,
    /// Where its keys are [default: where its discovery document says]
    #[arg(long, env = "ESTIMATORD_OIDC_JWKS_URL", value_name = "URL", requires = "oidc_issuer", value_parser = trustworthy)]
    pub oidc_jwks_url: Option<Url>,
    /// The claim with the caller's scope: words with spaces between or a list of them, such as `estimatord:submit`
    #[arg(long, env = "ESTIMATORD_OIDC_SCOPE_CLAIM", default_value = "scope", value_name = "CLAIM")]
    pub oidc_scope_claim: String,
    /// The claim with the caller's project
    #[arg(long, env = "ESTIMATORD_OIDC_PROJECT_CLAIM", default_value = "project", value_name = "CLAIM")]
    pub oidc_project_claim: String,
    /// Origins whose pages may ask the service from a browser, with commas between, such as `https://portal.example.com`
    /// [default: none]
    #[arg(long, env = "ESTIMATORD_CORS_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub cors_allow_origin: Vec<String>,
    /// Networks of reverse proxies, with commas between, such as `10.0.0.0/8,fd00::/8`: from where a request came is taken from what
    /// they write into the header of --forwarded-header [default: none]
    #[arg(long, env = "ESTIMATORD_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
    /// The header that those proxies write (`x-forwarded-for` or `forwarded`); the other one is not read
    #[arg(long, env = "ESTIMATORD_FORWARDED_HEADER", value_name = "HEADER", default_value = "x-forwarded-for", value_parser = forwarded_header)]
    pub forwarded_header: ForwardedHeader,
    /// The project of JWTs without that claim [default: they are refused]
    #[arg(long, env = "ESTIMATORD_OIDC_PROJECT", value_name = "PROJECT", requires = "oidc_issuer")]
    pub oidc_project: Option<Project>,
}

/// An issuer's name is compared to the letter, so it is kept as it was written.
fn issuer(text: &str) -> Result<String, String> {
    trustworthy(text).map(|_| text.to_owned())
}

/// An address whose answers nobody on the way can change.
fn trustworthy(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if is_trustworthy(&url) { Ok(url) } else { Err("it must begin with https://".to_owned()) }
}

fn forwarded_header(text: &str) -> Result<ForwardedHeader, String> {
    let all = [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded];
    let found = all.into_iter().find(|header| text.eq_ignore_ascii_case(header.name()));
    found.ok_or_else(|| format!("write {} or {}", all[0].name(), all[1].name()))
}

/// An origin exactly as browsers write it: they are compared to the letter.
fn origin(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let written = url.origin().ascii_serialization();
    if written == text { Ok(written) } else { Err(format!("write it as browsers do: {written}")) }
}

/// `estimatord token`.
#[derive(Args, Clone, Debug)]
pub struct Token {
    /// What to do with tokens.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What can be done with tokens.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum TokenCommand {
    /// Make a token: it is written to standard output, this once
    Create(CreateToken),
    /// List tokens, newest first
    List(Place),
    /// Revoke a token, for good
    Revoke(RevokeToken),
}

impl TokenCommand {
    /// Where the tokens are.
    #[must_use]
    pub const fn place(&self) -> &Place {
        match self {
            Self::Create(args) => &args.place,
            Self::List(place) => place,
            Self::Revoke(args) => &args.place,
        }
    }
}

/// `estimatord token create`.
#[derive(Args, Clone, Debug)]
pub struct CreateToken {
    /// The name of the caller that it is for
    #[arg(long)]
    pub name: TokenName,
    /// The caller's project: where everything is that it sees and makes
    #[arg(long, default_value = Project::DEFAULT)]
    pub project: Project,
    /// What the caller may do: read, submit, operate or admin; each includes those before it
    #[arg(long)]
    pub scope: Scope,
    /// For how long it is good
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub expires_in_days: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub place: Place,
}

/// `estimatord token revoke`.
#[derive(Args, Clone, Debug)]
pub struct RevokeToken {
    /// The token's id, as `token list` shows it
    pub id: uuid::Uuid,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub place: Place,
}

/// Where tokens are: at a service, as an administrator; else in its database, which is how the first one is made.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The address of a service, to be asked with the token in ESTIMATORD_TOKEN
    /// [default: none; the database is used itself]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// An administrator's token, for --url
    #[arg(long, env = "ESTIMATORD_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub database: super::Database,
}

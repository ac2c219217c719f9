//! `estimatord token` in the database itself, which is how the first token is made.

use anyhow::Context as _;
use chrono::TimeDelta;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    api::tokens::Token,
    clock::{Clock as _, SystemClock, entropy},
    config::{CreateToken, Database, TokenCommand},
    domain::{
        api_token::{self, digest},
        audit::AuditEvent,
        ids::uuid_v7,
    },
    installation::{OpenDatabase, lock_data_dir},
    storage::{Storage, api_tokens::ApiToken, idempotency::Recorded},
};

/// How many tokens are listed: the newest.
const LISTED: u32 = 200;

/// What came of it.
pub enum TokenOutcome {
    /// The token that was made: nobody can be shown it again.
    Made(String),
    /// What is known of tokens, as the API shows it.
    Known(Vec<Value>),
}

/// Runs `estimatord token` in a database.
///
/// # Errors
/// When the database cannot be used, or there is no such token.
pub async fn token(settings: &Database, command: &TokenCommand) -> anyhow::Result<TokenOutcome> {
    let database = open(settings).await?;
    let done = at_database(&database.storage, command).await;
    database.close().await;
    done
}

async fn open(settings: &Database) -> anyhow::Result<OpenDatabase> {
    let data_dir = match &settings.database_url {
        Some(_) => None,
        None => Some(lock_data_dir(settings).context(
            "the database cannot be used itself; while a service has it, name that service with --url",
        )?),
    };
    let database = OpenDatabase::open(settings, data_dir.as_ref()).await?;
    match &data_dir {
        // A new installation's first token comes before its first start.
        Some(_) => database.storage.migrate().await?,
        None => database.storage.check_schema().await?,
    }
    Ok(database)
}

async fn at_database(storage: &Storage, command: &TokenCommand) -> anyhow::Result<TokenOutcome> {
    match command {
        TokenCommand::Create(args) => create(storage, args).await,
        TokenCommand::List(_) => {
            let tokens = storage.list_api_tokens(None, LISTED).await?;
            Ok(TokenOutcome::Known(tokens.into_iter().map(|token| json!(Token::from(token))).collect()))
        }
        TokenCommand::Revoke(args) => {
            let revoked = storage.revoke_api_token(args.id).await?;
            let revoked = revoked.with_context(|| format!("there is no token {}", args.id))?;
            record(storage, "delete_token", ("DELETE", 200), args.id).await?;
            Ok(TokenOutcome::Known(vec![json!(Token::from(revoked))]))
        }
    }
}

async fn create(storage: &Storage, args: &CreateToken) -> anyhow::Result<TokenOutcome> {
    let now = SystemClock.now();
    let good_for = TimeDelta::days(i64::from(args.expires_in_days));
    let whose = (args.name.clone(), args.project.clone(), args.scope);
    let token = ApiToken::new(whose, String::new(), now, good_for, entropy());
    let secret = api_token::generate(entropy());
    let view = json!(Token::from(token.clone()));
    let answer = || Recorded { status: 201, location: None, body: view.to_string() };
    storage.insert_api_token(&token, &digest(secret.expose()), None, answer).await?;
    record(storage, "create_token", ("POST", 201), token.id).await?;
    Ok(TokenOutcome::Made(secret.expose().to_owned()))
}

/// Adds to the audit trail what was done to a token here, as the API does of itself.
async fn record(
    storage: &Storage,
    operation: &str,
    (method, status): (&str, u16),
    token: Uuid,
) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let event = AuditEvent {
        id: uuid_v7(now, entropy()),
        occurred_at: now,
        caller: String::new(),
        project: String::new(),
        credential: "database".to_owned(),
        token_id: None,
        address: None,
        operation: operation.to_owned(),
        method: method.to_owned(),
        path: format!("/v1/tokens/{token}"),
        status,
        request_id: String::new(),
    };
    let added = storage.append_audit_events(&[event]).await;
    added.with_context(|| format!("it was done to the token {token}, and is not in the audit trail"))
}

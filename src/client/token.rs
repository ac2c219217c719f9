//! `estimatord token` at a service.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    Connection,
    commands::Outcome,
    exit,
    screen::Screen,
    service::{ClientError, Service, cause},
    table::table,
};

/// What is asked of a service about tokens.
#[derive(Clone, Debug)]
pub enum TokenRequest {
    /// Make one.
    Create {
        /// The name of its caller.
        name: String,
        /// The project of its caller.
        project: String,
        /// What its caller may do.
        scope: String,
        /// For how long it is good.
        expires_in_days: u32,
    },
    /// List them, newest first.
    List,
    /// Revoke the one with this id.
    Revoke(String),
}

/// Asks a service about tokens. A new one is written to standard output.
pub async fn token(connection: &Connection, request: &TokenRequest) -> ExitCode {
    let screen = Screen::standard();
    let done = asked(connection, &screen, request).await;
    exit(&screen, done.into())
}

async fn asked(
    connection: &Connection,
    screen: &Screen,
    request: &TokenRequest,
) -> Result<Outcome, ClientError> {
    let service = Service::new(connection, screen.clone())?;
    match request {
        TokenRequest::Create { name, project, scope, expires_in_days } => {
            let expires_in_seconds = i64::from(*expires_in_days) * 24 * 3600;
            let body = json!({
                "name": name, "project": project, "scope": scope, "expires_in_seconds": expires_in_seconds,
            });
            // Sent twice, it makes one token.
            let key = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
            let made = service
                .send(|| service.post(service.url(["tokens"])).header("Idempotency-Key", &key).json(&body))
                .await?;
            let made = read(made).await?;
            let token = made["token"].as_str().ok_or_else(|| {
                let id = made["id"].as_str().unwrap_or_default();
                ClientError::Answer(format!(
                    "the token {id} was made, and the answer with it was lost: revoke it and make another"
                ))
            })?;
            screen.out(format!("{token}\n").as_bytes())?;
        }
        TokenRequest::List => {
            let mut url = service.url(["tokens"]);
            url.query_pairs_mut().append_pair("limit", "200");
            let page = service.get_json(&url).await?;
            print_tokens(page["items"].as_array().map(Vec::as_slice).unwrap_or_default());
        }
        TokenRequest::Revoke(id) => {
            let url = service.url(["tokens", id.as_str()]);
            let revoked = service.send(|| service.delete(url.clone())).await?;
            print_tokens(&[read(revoked).await?]);
        }
    }
    Ok(Outcome::Done)
}

async fn read(response: reqwest::Response) -> Result<Value, ClientError> {
    response.json().await.map_err(|error| ClientError::Answer(cause(&error)))
}

/// Writes what is known of tokens, one a line.
pub fn print_tokens(tokens: &[Value]) {
    print!("{}", listed(tokens));
}

fn listed(tokens: &[Value]) -> String {
    const MEMBERS: [&str; 8] =
        ["id", "name", "project", "scope", "expires_at", "revoked_at", "last_used_at", "last_used_from"];
    let cell = |token: &Value, member: &&str| token[*member].as_str().unwrap_or("-").to_owned();
    let row = |token| MEMBERS.iter().map(|member| cell(token, member)).collect();
    let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
    table(&["ID", "NAME", "PROJECT", "SCOPE", "EXPIRES", "REVOKED", "LAST USED", "FROM"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_when_and_from_where_each_was_last_used() {
        let text = listed(&[
            json!({"id": "1", "name": "ci", "last_used_at": "2026-11-30T12:00:00Z", "last_used_from": "192.0.2.7"}),
            json!({"id": "2", "name": "new", "last_used_at": null, "last_used_from": null}),
        ]);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0].last(), Some(&"FROM"));
        assert!(
            rows[1].ends_with(&["2026-11-30T12:00:00Z", "192.0.2.7"]) && rows[2].ends_with(&["-", "-"]),
            "{text}"
        );
    }
}

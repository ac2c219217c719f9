//! `healthcheck`: whether the service answers, for container engines, which have no other client at hand.

use std::{process::ExitCode, time::Duration};

use super::Connection;

/// Asks `/readyz` once: exit code 0 when the service is ready, 1 when it is not
#[derive(Clone, Debug, clap::Args)]
pub struct Healthcheck {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub connection: Connection,
}

/// How long the service may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Runs `healthcheck`.
pub async fn healthcheck(args: Healthcheck) -> ExitCode {
    // Another part of the process may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("{}/readyz", args.connection.url.trim_end_matches('/'));
    let asked = async {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        client.get(&url).send().await?.error_for_status()
    };
    match asked.await {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("estimatord: not ready: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Speaking to receivers: over no proxy, without following anybody anywhere, and only to addresses that are allowed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect::Policy,
};
use url::Url;

use crate::domain::{
    trace_parent::TraceParent,
    webhook::{Answered, allow_list::AllowList},
};

/// How long a receiver may take until it has answered: what the Standard Webhooks specification names.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long making the connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
#[error("no message can be sent to webhooks: {0}")]
pub struct NoReceivers(String);

/// A message, ready to be sent.
pub(super) struct Message {
    pub(super) url: Url,
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) timestamp: i64,
    pub(super) signature: String,
    pub(super) trace_parent: Option<TraceParent>,
    pub(super) body: String,
}

/// The receivers that may be spoken to.
pub(super) struct Receivers(Client);

impl Receivers {
    pub(super) fn new(allowed: &AllowList) -> Result<Self, NoReceivers> {
        // Another part of the process may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("estimatord/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_PATIENCE)
            .timeout(PATIENCE)
            // A proxy would look the name up itself, and lead wherever it leads.
            .no_proxy()
            .redirect(Policy::none())
            .dns_resolver(Guarded(Arc::new(allowed.clone())));
        if !allowed.needs_tls() {
            // No certificate is looked at, so that none need to be installed.
            client = client.tls_certs_only([]);
        }
        client.build().map(Self).map_err(|error| NoReceivers(explained(&error)))
    }

    /// Sends a message. What is in the answer is not read.
    pub(super) async fn send(&self, message: Message) -> Answered {
        let mut request = self
            .0
            .post(message.url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp.to_string())
            .header("webhook-signature", message.signature)
            .body(message.body);
        if let Some(place) = message.trace_parent {
            request = request.header("traceparent", place.to_string());
        }
        match request.send().await {
            Ok(response) => {
                let retry_after = response.headers().get(RETRY_AFTER);
                let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
                Answered::Status { code: response.status().as_u16(), retry_after }
            }
            Err(error) => Answered::Not { why: explained(&error.without_url()) },
        }
    }
}

/// An error with what caused it; the library's own text is only its outermost words.
fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Looks names up, and knows of no address that is not allowed. The connection goes to what was looked up here: a name that leads
/// elsewhere a moment later is of no use to anybody.
struct Guarded(Arc<AllowList>);

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` leads to no address that messages may be sent to: the operator can list its network with --webhook-allow"
)]
struct LeadsInside(String);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.0);
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let good: Vec<_> =
                found.into_iter().filter(|address| allowed.may_lead_to(address.ip())).collect();
            if good.is_empty() {
                // Where to is nobody's business: the error is shown to callers.
                return Err(LeadsInside(name).into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

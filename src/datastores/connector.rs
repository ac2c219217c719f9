//! How stores are asked: only where datastores may lead, and without following anybody anywhere.
//!
//! A service that is listed could otherwise send the worker on to any other in the networks behind it, and hand what that answers to
//! whoever registered the datastore.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::header::LOCATION;
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use url::Url;

use crate::domain::datastore_places::Places;

/// How long making the connection may take, and how long a request: what the crate's own client waits.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a store is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Unasked {
    #[error("{0} is none that the operator lists (--datastore-allow)")]
    NotListed(String),
    #[error(
        "`{0}` leads to no address that datastores may lead to: the operator can list the name, or its network, with \
         --datastore-allow"
    )]
    LeadsInside(String),
    #[error("it answered with a redirect ({0}), and none is followed: name the place itself as `endpoint`")]
    Redirects(u16),
}

impl From<Unasked> for HttpError {
    fn from(why: Unasked) -> Self {
        // Of a kind that is not tried again.
        Self::new(HttpErrorKind::Unknown, why)
    }
}

/// Makes what asks.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    places: Arc<Places>,
    allows_plain_http: bool,
}

impl Connector {
    pub(super) fn new(places: &Places, allows_plain_http: bool) -> Self {
        Self { places: Arc::new(places.clone()), allows_plain_http }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut client = Client::builder()
            .user_agent(concat!("estimatord/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_PATIENCE)
            .timeout(PATIENCE)
            .http1_only()
            .https_only(!self.allows_plain_http)
            .redirect(Policy::none());
        if self.places.are_listed() {
            // A proxy would look the name up itself, and lead wherever it leads.
            client = client.no_proxy().dns_resolver(Guarded(Arc::clone(&self.places)));
        }
        let client = client.build().map_err(|error| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(Asker { client, places: Arc::clone(&self.places) }))
    }
}

/// Asks.
#[derive(Debug)]
struct Asker {
    client: Client,
    places: Arc<Places>,
}

#[async_trait]
impl HttpService for Asker {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let url = Url::parse(&request.uri().to_string());
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        if !self.places.may_ask(&url) {
            return Err(Unasked::NotListed(url.origin().ascii_serialization()).into());
        }
        let response = self.client.call(request).await.map_err(|error| match unasked(&error) {
            Some(why) => why.into(),
            None => error,
        })?;
        let status = response.status();
        // Without a place to go to it is what a bucket of another region answers, which the client knows.
        if status.is_redirection() && response.headers().contains_key(LOCATION) {
            return Err(Unasked::Redirects(status.as_u16()).into());
        }
        Ok(response)
    }
}

/// What this module itself said, deep within an error of the client.
fn unasked(error: &HttpError) -> Option<Unasked> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(why) = inner.downcast_ref::<Unasked>() {
            return Some(why.clone());
        }
        cause = inner.source();
    }
    None
}

/// Looks names up, and knows of no address that a datastore may not lead to. The connection goes to what was looked up here.
struct Guarded(Arc<Places>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let places = Arc::clone(&self.0);
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let good: Vec<_> =
                found.into_iter().filter(|address| places.may_lead_to(&name, address.ip())).collect();
            if good.is_empty() {
                // Where to is nobody's business: the error is shown to callers.
                return Err(Unasked::LeadsInside(name).into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(places: &Places, url: &str) -> String {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Connector::new(places, true).connect(&ClientOptions::new()).unwrap();
        let request = http::Request::get(url).body(object_store::client::HttpRequestBody::empty()).unwrap();
        match client.execute(request).await {
            Ok(response) => response.status().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_leads_nowhere_unless_it_is_listed_itself() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let url = format!("https://localhost:{}/", closed.port());
        let public = Places::new(Some(Vec::new()), &[]);
        let said = asked(&public, &url).await;
        assert!(said.contains("`localhost` leads to no address that datastores may lead to"), "{said}");
        let network = Places::new(Some(vec!["127.0.0.0/8".parse().unwrap()]), &[]);
        let itself = Places::new(Some(vec![url.trim_end_matches('/').parse().unwrap()]), &[]);
        for places in [network, itself, Places::new(None, &[])] {
            let said = asked(&places, &url).await;
            assert!(!said.contains("may lead to"), "{said}");
        }
    }

    #[tokio::test]
    async fn no_address_is_asked_that_is_not_listed() {
        let places = Places::new(Some(vec!["http://127.0.0.1:9000".parse().unwrap()]), &[]);
        for url in
            ["http://127.0.0.1:1/", "https://127.0.0.1:9000/", "http://169.254.169.254/", "http://[::1]/"]
        {
            let said = asked(&places, url).await;
            assert!(said.contains("is none that the operator lists"), "{url}: {said}");
        }
    }
}

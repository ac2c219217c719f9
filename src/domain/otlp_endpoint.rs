//! Where spans are sent: a collector that takes OTLP over HTTP.

use std::{fmt, str::FromStr};

use url::Url;

/// The base URL of a collector.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpEndpoint(Url);

/// Why a text is no such URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it must be the URL of a collector that takes OTLP over HTTP, as in `http://127.0.0.1:4318`, without user, password and query"
)]
pub struct NoOtlpEndpoint;

impl FromStr for OtlpEndpoint {
    type Err = NoOtlpEndpoint;

    fn from_str(text: &str) -> Result<Self, NoOtlpEndpoint> {
        let url = Url::parse(text).map_err(|_| NoOtlpEndpoint)?;
        let is_base = matches!(url.scheme(), "http" | "https") && url.query().is_none();
        // Credentials belong into OTEL_EXPORTER_OTLP_HEADERS: URLs are shown.
        let is_plain = url.has_host() && url.username().is_empty() && url.password().is_none();
        if is_base && is_plain && url.fragment().is_none() { Ok(Self(url)) } else { Err(NoOtlpEndpoint) }
    }
}

impl OtlpEndpoint {
    /// Where traces are sent.
    #[must_use]
    pub fn of_traces(&self) -> String {
        format!("{}/v1/traces", self.0.as_str().trim_end_matches('/'))
    }

    /// Whether it is spoken to by TLS.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_url_without_secrets() {
        let of = |text: &str| text.parse::<OtlpEndpoint>().map(|endpoint| endpoint.of_traces()).ok();
        assert_eq!(of("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(
            of("https://otel.example.com/base/").as_deref(),
            Some("https://otel.example.com/base/v1/traces")
        );
        for unfit in
            ["", "127.0.0.1:4318", "grpc://h:4317", "http://user:pass@h", "http://h/?token=x", "http://h/#x"]
        {
            assert_eq!(of(unfit), None, "{unfit}");
        }
    }
}

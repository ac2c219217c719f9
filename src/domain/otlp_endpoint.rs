//! Where spans are sent: a collector that takes OTLP over HTTP.

use std::{fmt, str::FromStr};

use super::base_url::BaseUrl;

/// The base URL of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(BaseUrl);

/// Why a text is no such URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it must be the URL of a collector that takes OTLP over HTTP, as in `http://127.0.0.1:4318`, without user, password and query"
)]
pub struct NoOtlpEndpoint;

impl FromStr for OtlpEndpoint {
    type Err = NoOtlpEndpoint;

    fn from_str(text: &str) -> Result<Self, NoOtlpEndpoint> {
        // Credentials belong into OTEL_EXPORTER_OTLP_HEADERS: URLs are shown.
        text.parse().map(Self).map_err(|_| NoOtlpEndpoint)
    }
}

impl OtlpEndpoint {
    /// Where traces are sent.
    #[must_use]
    pub fn of_traces(&self) -> String {
        format!("{}/v1/traces", self.0)
    }

    /// Whether it is spoken to by TLS.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        self.0.needs_tls()
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_have_a_place_below_it() {
        let of = |text: &str| text.parse::<OtlpEndpoint>().map(|endpoint| endpoint.of_traces()).ok();
        assert_eq!(of("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(
            of("https://otel.example.com/base/").as_deref(),
            Some("https://otel.example.com/base/v1/traces")
        );
        assert_eq!(of("http://user:pass@h"), None);
    }
}

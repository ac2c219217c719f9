//! The address of a service, below which its paths are.

use std::{fmt, str::FromStr};

use url::Url;

/// An http or https URL with nothing secret in it, and without query and fragment. Written without a slash at its end.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

/// Why a text is no such URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it must be an http or https address without user, password, query and fragment, as in `http://estimatord.example.com:8080`"
)]
pub struct NoBaseUrl;

impl FromStr for BaseUrl {
    type Err = NoBaseUrl;

    fn from_str(text: &str) -> Result<Self, NoBaseUrl> {
        let url = Url::parse(text).map_err(|_| NoBaseUrl)?;
        let is_bare = url.query().is_none() && url.fragment().is_none();
        let is_open = url.username().is_empty() && url.password().is_none();
        let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
        if is_web && is_open && is_bare { Ok(Self(url)) } else { Err(NoBaseUrl) }
    }
}

impl BaseUrl {
    /// Whether it is spoken to by TLS.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_plain_and_without_secrets() {
        let of = |text: &str| text.parse::<BaseUrl>().map(|url| url.to_string()).ok();
        assert_eq!(of("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318"));
        assert_eq!(of("https://example.com/base/").as_deref(), Some("https://example.com/base"));
        for unfit in
            ["", "127.0.0.1:4318", "grpc://h:4317", "http://user:pass@h", "http://h/?token=x", "http://h/#x"]
        {
            assert_eq!(of(unfit), None, "{unfit}");
        }
    }
}

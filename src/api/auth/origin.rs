//! Where everybody is let in, a page of somebody else's in a browser on this machine is not everybody: it is kept out, by what browsers
//! say of it. A page whose name was made to lead here (DNS rebinding) gives itself away by the name; any other by its origin.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use url::Url;

/// What browsers say of where a request comes from (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Why a request without a token is not let in, although everybody is; none when it is. `allowed` are the origins that the operator
/// lets ask.
#[must_use]
pub fn why_foreign(method: &Method, headers: &HeaderMap, allowed: &[HeaderValue]) -> Option<String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let host = headers.get(header::HOST).map(text);
    if let Some(host) = host.as_deref().filter(|host| !is_of_this_machine(host)) {
        return Some(format!("it was sent to `{host}`, which is no name of this machine's own"));
    }
    let origin = headers.get(header::ORIGIN);
    if origin.is_some_and(|origin| allowed.contains(origin)) {
        return None;
    }
    match origin.map(text) {
        Some(origin) if host.is_none_or(|host| !is_same(&origin, &host)) => {
            Some(format!("it comes from a page of `{origin}`"))
        }
        Some(_) => None,
        None => {
            let site = headers.get(SEC_FETCH_SITE).map(text);
            let is_elsewhere = site.is_some_and(|site| site == "cross-site" || site == "same-site");
            let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
            // A link on somebody's page shows an answer to whoever follows it, and to nobody else.
            (is_elsewhere && !reads).then(|| "it comes from a page of another site".to_owned())
        }
    }
}

/// Whether the host that a request was sent to is an address, or this machine's name for itself: no name that somebody else has
/// the saying of.
fn is_of_this_machine(host: &str) -> bool {
    // As nearly everybody writes it.
    if host.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let Ok(url) = Url::parse(&format!("http://{host}/")) else { return false };
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback() || host.starts_with(&ip.to_string()),
        Some(url::Host::Ipv6(_)) => true,
        None => false,
    }
}

/// Whether an origin is that of the service's own pages.
fn is_same(origin: &str, host: &str) -> bool {
    origin
        .split_once("://")
        .is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && rest.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_in(method: Method, headers: &[(&str, &str)]) -> bool {
        let allowed = ["https://portal.example.com".parse().unwrap()];
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        why_foreign(&method, &headers, &allowed).is_none()
    }

    #[test]
    fn programs_and_the_service_s_own_pages_are_let_in() {
        for host in [
            "127.0.0.1:8080",
            "localhost:8080",
            "LOCALHOST",
            "[::1]:8080",
            "127.8.9.1",
            "10.0.0.7:80",
            "x.localhost",
        ] {
            assert!(is_let_in(Method::POST, &[("host", host)]), "{host}");
            let origin = format!("http://{}", host.to_lowercase());
            let own = [("host", host), ("origin", origin.as_str()), ("sec-fetch-site", "same-origin")];
            assert!(is_let_in(Method::POST, &own), "{host}");
        }
        assert!(is_let_in(Method::POST, &[]), "no browser leaves out the host");
        let link = [("host", "localhost:8080"), ("sec-fetch-site", "cross-site")];
        assert!(is_let_in(Method::GET, &link) && !is_let_in(Method::POST, &link));
    }

    #[test]
    fn pages_of_others_are_not() {
        for host in
            ["evil.example:8080", "localhost.evil.example", "evil", "", "127.0.0.1.evil.example", "a b"]
        {
            assert!(!is_let_in(Method::GET, &[("host", host)]), "{host}");
        }
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:9999",
            "https://portal.example.com.evil.example",
            "file://",
        ] {
            for method in [Method::GET, Method::POST] {
                assert!(!is_let_in(method, &[("host", "localhost:8080"), ("origin", origin)]), "{origin}");
            }
        }
        let named = [("host", "localhost:8080"), ("origin", "https://portal.example.com")];
        assert!(is_let_in(Method::POST, &named));
        let rebound = [("host", "evil.example:8080"), ("origin", "http://evil.example:8080")];
        assert!(!is_let_in(Method::POST, &rebound), "a name that was made to lead here is its own origin");
    }
}

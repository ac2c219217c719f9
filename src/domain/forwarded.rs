//! Where a request came from, when it came through proxies.

use core::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The header in which proxies say from where a request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, as most proxies write it.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ForwardedHeader {
    /// Its name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// The address in one of its elements; none when it has none, or is no address.
    fn address(self, element: &str) -> Option<IpAddr> {
        let node = match self {
            Self::XForwardedFor => element.trim(),
            Self::Forwarded => element.split(';').find_map(|pair| {
                let (name, value) = pair.trim().split_once('=')?;
                name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
            })?,
        };
        let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
        bare.parse().or_else(|_| node.parse().map(|with_port: SocketAddr| with_port.ip())).ok()
    }
}

/// Whose word is taken for where a request came from. By default nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Where they are.
    pub networks: Vec<IpNet>,
    /// The header that each of them adds to, and lets nobody else write the end of.
    pub header: ForwardedHeader,
}

impl TrustedProxies {
    fn has(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Where a request came from that `peer` sent, with these lines of the header: the rightmost address that is no trusted proxy's.
    /// What stands to the left of it is anybody's invention. Where a proxy names no address, it is the proxy's own.
    pub fn origin<'a>(&self, peer: IpAddr, lines: impl IntoIterator<Item = &'a str>) -> IpAddr {
        let mut nearest = peer.to_canonical();
        if !self.has(nearest) {
            return nearest;
        }
        let elements: Vec<&str> = lines.into_iter().flat_map(|line| line.split(',')).collect();
        for element in elements.into_iter().rev() {
            let Some(address) = self.header.address(element) else { break };
            nearest = address.to_canonical();
            if !self.has(nearest) {
                break;
            }
        }
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")).to_vec();
        let proxies = TrustedProxies { networks, header };
        proxies.origin(peer.parse().expect("an address"), lines.iter().copied()).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxys_counts() {
        for (peer, lines, from) in [
            // Whoever is no proxy says what it likes.
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.7,10.0.0.2"], "198.51.100.7"),
            ("fd00::1", &["1.1.1.1, 2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", &["[2001:db8::1]:4711, [fd00::2]"], "2001:db8::1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // It is as far as anybody can be believed.
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.7,"], "10.0.0.1"),
        ] {
            assert_eq!(origin(ForwardedHeader::XForwardedFor, peer, lines), from, "{peer} {lines:?}");
        }
        for (lines, from) in [
            (&["for=198.51.100.7;proto=https"][..], "198.51.100.7"),
            (&["for=1.1.1.1", "proto=https; For=\"[2001:db8::1]:4711\", for=10.0.0.2"], "2001:db8::1"),
            // A text that somebody left open swallows nothing of what a proxy adds.
            (&["for=\"1.1.1.1, for=198.51.100.7"], "198.51.100.7"),
            (&["for=198.51.100.7, for=_hidden"], "10.0.0.1"),
            (&["198.51.100.7"], "10.0.0.1"),
        ] {
            assert_eq!(origin(ForwardedHeader::Forwarded, "10.0.0.1", lines), from, "{lines:?}");
        }
        assert_eq!(
            TrustedProxies::default().origin([10, 0, 0, 1].into(), ["1.1.1.1"]).to_string(),
            "10.0.0.1"
        );
    }
}

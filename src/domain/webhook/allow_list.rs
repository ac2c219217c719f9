//! Where messages may be sent: only to what the operator lists, and by a name only to addresses that are public or in a network
//! that is listed. Otherwise whoever may register a webhook could reach, through the service, the network behind it.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use url::{Host, Url};

/// Where messages may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    entries: Vec<Entry>,
}

/// One entry: `hooks.example.com`, `*.example.com`, `hooks.example.com:8443`, `http://10.0.0.7:9000`, or a network such as
/// `10.0.0.0/8` that names may lead into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A receiver.
    Receiver {
        /// `http` or `https`.
        scheme: &'static str,
        /// Its host.
        host: Pattern,
        /// Its port.
        port: u16,
    },
    /// A network that names may lead into.
    Network(IpNet),
}

/// Which hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This name.
    Name(String),
    /// Every name below this domain.
    Below(String),
    /// This address.
    Address(IpAddr),
}

/// Why a text is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no receiver of webhooks: write a host (`hooks.example.com`, `*.example.com`, with `:port` or `http://` where it is so) or a network (`10.0.0.0/8`)"
)]
pub struct NoEntry(String);

/// Why a message may not be sent to an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// It is no URL that messages can be sent to.
    #[error("it is no URL of a receiver: `https://host/path`, without user name, password and fragment")]
    NoUrl,
    /// No entry allows it.
    #[error("{0} is not on the operator's list of receivers (--webhook-allow)")]
    NotListed(String),
}

impl FromStr for Entry {
    type Err = NoEntry;

    fn from_str(text: &str) -> Result<Self, NoEntry> {
        let bad = || NoEntry(text.to_owned());
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => ("http", rest),
            Some(("https", rest)) => ("https", rest),
            Some(_) => return Err(bad()),
            None => ("https", text),
        };
        let (below, rest) = rest.strip_prefix("*.").map_or((false, rest), |rest| (true, rest));
        // The URL's own rules for hosts, so that what is listed and what is asked for are written alike.
        let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|_| bad())?;
        if rest.contains('*')
            || url.path() != "/"
            || url.query().is_some()
            || url.fragment().is_some()
            || has_user(&url)
        {
            return Err(bad());
        }
        let host = match (url.host().ok_or_else(bad)?, below) {
            (Host::Domain(name), false) => Pattern::Name(name.to_owned()),
            (Host::Domain(name), true) => Pattern::Below(format!(".{name}")),
            (Host::Ipv4(address), false) => Pattern::Address(address.into()),
            (Host::Ipv6(address), false) => Pattern::Address(address.into()),
            (Host::Ipv4(_) | Host::Ipv6(_), true) => return Err(bad()),
        };
        Ok(Self::Receiver { scheme, host, port: url.port_or_known_default().ok_or_else(bad)? })
    }
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

impl Pattern {
    fn holds(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Self::Name(name), Host::Domain(asked)) => name == asked,
            (Self::Below(domain), Host::Domain(asked)) => asked.ends_with(domain.as_str()),
            (Self::Address(address), Host::Ipv4(asked)) => *address == IpAddr::V4(*asked),
            (Self::Address(address), Host::Ipv6(asked)) => *address == IpAddr::V6(*asked),
            _ => false,
        }
    }
}

impl AllowList {
    /// Of these entries.
    #[must_use]
    pub const fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// Whether there is no receiver on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.entries.iter().any(|entry| matches!(entry, Entry::Receiver { .. }))
    }

    /// Whether any receiver on it is asked over TLS.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Entry::Receiver { scheme: "https", .. }))
    }

    /// The URL in a text, when messages may be sent to it.
    ///
    /// # Errors
    /// Why they may not.
    pub fn url(&self, text: &str) -> Result<Url, Forbidden> {
        let url = Url::parse(text).map_err(|_| Forbidden::NoUrl)?;
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Forbidden::NoUrl);
        };
        if !matches!(url.scheme(), "http" | "https") || has_user(&url) || url.fragment().is_some() {
            return Err(Forbidden::NoUrl);
        }
        let is_listed = self.entries.iter().any(|entry| match entry {
            Entry::Receiver { scheme, host: pattern, port: listed } => {
                *scheme == url.scheme() && *listed == port && pattern.holds(&host)
            }
            Entry::Network(_) => false,
        });
        let asked = format!("{}://{host}:{port}", url.scheme());
        if is_listed { Ok(url) } else { Err(Forbidden::NotListed(asked)) }
    }

    /// Whether a host is listed by itself, with whatever port, and not by a domain that it is below.
    #[must_use]
    pub fn names(&self, host: &Host<&str>) -> bool {
        self.entries.iter().any(|entry| match entry {
            Entry::Receiver { host: pattern @ (Pattern::Name(_) | Pattern::Address(_)), .. } => {
                pattern.holds(host)
            }
            _ => false,
        })
    }

    /// Whether a listed name may lead to an address.
    #[must_use]
    pub fn may_lead_to(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_listed = self.entries.iter().any(|entry| match entry {
            Entry::Network(network) => network.contains(&address),
            Entry::Receiver { .. } => false,
        });
        is_listed || is_public(address)
    }
}

/// Whether an address is one of the Internet's: none of a private network, of the machine itself, of a test, or of several.
/// The special-purpose registries of RFC 6890 and its updates.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_protocols = first == 192 && second == 0 && third == 0;
    let is_benchmark = first == 198 && (18..20).contains(&second);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || first == 0
        || first >= 240
        || is_shared
        || is_protocols
        || is_benchmark)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    // What is translated or tunnelled to IPv4 is judged by where it leads.
    if parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [a, b] = [parts[6].to_be_bytes(), parts[7].to_be_bytes()];
        return is_public_v4(Ipv4Addr::new(a[0], a[1], b[0], b[1]));
    }
    if parts[0] == 0x2002 {
        let [a, b] = [parts[1].to_be_bytes(), parts[2].to_be_bytes()];
        return is_public_v4(Ipv4Addr::new(a[0], a[1], b[0], b[1]));
    }
    // Only 2000::/3 is given out; documentation, benchmarks and Teredo lie in it.
    let is_special =
        (parts[0] == 0x2001 && (parts[1] < 0x200 || parts[1] == 0xdb8)) || (parts[0] & 0xfff0) == 0x3ff0;
    (0x2000..0x4000).contains(&parts[0]) && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        AllowList::new(entries.iter().map(|text| text.parse().expect("an entry")).collect())
    }

    #[test]
    fn only_what_is_listed_may_be_told() {
        let list = list(&["hooks.example.com", "*.ours.example:8443", "http://10.0.0.7:9000", "10.0.0.0/8"]);
        for allowed in [
            "https://hooks.example.com/estimatord?x=1",
            "https://HOOKS.example.com:443",
            "https://a.b.ours.example:8443/x",
            "http://10.0.0.7:9000/",
        ] {
            assert!(list.url(allowed).is_ok(), "{allowed}");
        }
        for forbidden in [
            "http://hooks.example.com/",
            "https://hooks.example.com:8443/",
            "https://hooks.example.com.evil.example/",
            "https://ours.example:8443/",
            "https://evilours.example:8443/",
            "http://10.0.0.8:9000/",
            "http://167772167:9001/",
            "https://localhost/",
        ] {
            assert!(matches!(list.url(forbidden), Err(Forbidden::NotListed(_))), "{forbidden}");
        }
        for no_url in [
            "hooks.example.com",
            "ftp://hooks.example.com/",
            "https://a:b@hooks.example.com/",
            "file:///etc/passwd",
            "https://hooks.example.com/#x",
        ] {
            assert_eq!(list.url(no_url), Err(Forbidden::NoUrl), "{no_url}");
        }
        // The same address, written otherwise.
        assert!(list.url("http://0x0a000007:9000/").is_ok());
        assert!(AllowList::default().is_empty() && !list.is_empty());
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for text in
            ["", "ftp://a.example", "a.example/path", "*.10.0.0.1", "u@a.example", "a b", "10.0.0.0/33", "*"]
        {
            assert!(text.parse::<Entry>().is_err(), "{text}: {:?}", text.parse::<Entry>());
        }
    }

    #[test]
    fn names_lead_to_public_addresses_and_listed_networks_only() {
        let list = list(&["hooks.example.com", "10.1.0.0/16"]);
        for allowed in ["93.184.216.34", "10.1.2.3", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:10.1.2.3"]
        {
            assert!(list.may_lead_to(allowed.parse().expect("an address")), "{allowed}");
        }
        for forbidden in [
            "127.0.0.1",
            "10.2.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!list.may_lead_to(forbidden.parse().expect("an address")), "{forbidden}");
        }
    }
}

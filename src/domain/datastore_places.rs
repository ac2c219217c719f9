//! Where datastores may lead. Whoever may register one could otherwise read, through the workers, any folder of their machines, and
//! reach any service in the networks behind them.

use core::{net::IpAddr, str::FromStr};

use url::{Host, Url};

use super::{
    datastore::{DatastoreKind, DatastoreUrl},
    datastore_access::DatastoreOptions,
    webhook::allow_list::{AllowList, Entry},
};

/// One place: a folder with all that is below it, or a service that speaks a store's protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder, by the parts of its path.
    Folder(Vec<String>),
    /// A service, or a network that names may lead into.
    Endpoint(Entry),
}

/// What is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no place of datastores: write a folder (`/srv/datasets`), a service (`minio.example.com:9000`, with `http://` where it is so) or a network that names may lead into (`10.0.0.0/8`)"
)]
pub struct NoPlace(String);

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let bad = || NoPlace(text.to_owned());
        if let Some(path) = text.strip_prefix("file://").or(text.starts_with('/').then_some(text)) {
            let parts = parts_of(path);
            return if parts.iter().any(|part| part == "..") { Err(bad()) } else { Ok(Self::Folder(parts)) };
        }
        match text.parse() {
            Ok(entry) => Ok(Self::Endpoint(entry)),
            Err(_) => Err(bad()),
        }
    }
}

/// Why a datastore may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// It is among the service's own files.
    #[error("this folder holds the service's own files, or is among them")]
    OwnFiles,
    /// It is in no folder that is listed.
    #[error("this folder is in none that the operator lists (--datastore-allow)")]
    Folder,
    /// Its service is not listed.
    #[error("this endpoint is none that the operator lists (--datastore-allow)")]
    Endpoint,
}

/// Where datastores may lead.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Anywhere, but for the service's own files, when there is no list.
    listed: Option<(Vec<Vec<String>>, AllowList)>,
    /// Where the service keeps its own files.
    own: Vec<Vec<String>>,
}

impl Places {
    /// The places of a list, or anywhere without one; never where the service keeps its own files.
    #[must_use]
    pub fn new(listed: Option<Vec<Place>>, own: &[&str]) -> Self {
        let listed = listed.map(|places| {
            let (mut folders, mut entries) = (Vec::new(), Vec::new());
            for place in places {
                match place {
                    Place::Folder(parts) => folders.push(parts),
                    Place::Endpoint(entry) => entries.push(entry),
                }
            }
            (folders, AllowList::new(entries))
        });
        Self { listed, own: own.iter().map(|path| parts_of(path)).collect() }
    }

    /// Whether a datastore may be there. Buckets and containers of the public clouds may, by their names alone.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, url: &DatastoreUrl, options: &DatastoreOptions) -> Result<(), Elsewhere> {
        if url.kind() == DatastoreKind::File {
            let path = Url::parse(url.as_str()).map(|url| url.path().to_owned()).unwrap_or_default();
            let decoded = percent_encoding::percent_decode_str(&path).decode_utf8_lossy();
            let listed = self.listed.as_ref().map(|(folders, _)| folders.as_slice());
            return check_folder(&parts_of(&decoded), listed, &self.own);
        }
        match (&options.endpoint, &self.listed) {
            (Some(endpoint), Some((_, services))) if services.url(endpoint).is_err() => {
                Err(Elsewhere::Endpoint)
            }
            _ => Ok(()),
        }
    }

    /// Whether there is a list.
    #[must_use]
    pub const fn are_listed(&self) -> bool {
        self.listed.is_some()
    }

    /// Whether a store may be asked at a URL: as it is listed; else by the name of a public cloud alone, and not by that of a service
    /// which is listed otherwise.
    #[must_use]
    pub fn may_ask(&self, url: &Url) -> bool {
        let Some((_, services)) = &self.listed else { return true };
        let is_clouds = || match url.host() {
            Some(host @ Host::Domain(_)) => url.scheme() == "https" && !services.names(&host),
            _ => false,
        };
        services.url(url.as_str()).is_ok() || is_clouds()
    }

    /// Whether a name may lead to an address: one that the operator lists by itself wherever it leads, any other to what is public or in a
    /// network that is listed.
    #[must_use]
    pub fn may_lead_to(&self, name: &str, address: IpAddr) -> bool {
        match &self.listed {
            None => true,
            Some((_, services)) => services.names(&Host::Domain(name)) || services.may_lead_to(address),
        }
    }

    /// Whether a datastore may be in the folder that its address led to: a path without links. `resolve` says where another path leads,
    /// if anywhere: the operator may have listed one that is a link.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_real_folder(
        &self,
        path: &str,
        resolve: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Elsewhere> {
        let real = |parts: &Vec<String>| {
            let path = format!("/{}", parts.join("/"));
            resolve(&path).map_or_else(|| parts.clone(), |real| parts_of(&real))
        };
        let own: Vec<_> = self.own.iter().map(real).collect();
        let listed: Option<Vec<_>> =
            self.listed.as_ref().map(|(folders, _)| folders.iter().map(real).collect());
        check_folder(&parts_of(path), listed.as_deref(), &own)
    }
}

/// What is above the service's own files holds them as well.
fn check_folder(
    parts: &[String],
    listed: Option<&[Vec<String>]>,
    own: &[Vec<String>],
) -> Result<(), Elsewhere> {
    if own.iter().any(|own| own.starts_with(parts) || parts.starts_with(own)) {
        return Err(Elsewhere::OwnFiles);
    }
    match listed {
        Some(folders) if !folders.iter().any(|folder| parts.starts_with(folder)) => Err(Elsewhere::Folder),
        _ => Ok(()),
    }
}

fn parts_of(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(places: &Places, url: &str, endpoint: Option<&str>) -> Result<(), Elsewhere> {
        let options = DatastoreOptions { endpoint: endpoint.map(str::to_owned), ..Default::default() };
        places.check(&DatastoreUrl::parse(url).expect("an address"), &options)
    }

    #[test]
    fn a_list_is_all_there_is() {
        let list = ["/srv/datasets/", "file:///data", "minio.example.com:9000", "http://10.0.0.7"];
        let list = list.map(|text| text.parse().expect("a place")).to_vec();
        let places = Places::new(Some(list), &["/srv/own"]);
        for (url, endpoint, verdict) in [
            ("file:///srv/datasets", None, Ok(())),
            ("file:///srv/datasets/a%20b", None, Ok(())),
            ("file:///data//x/./y", None, Ok(())),
            ("file:///srv/datasets2", None, Err(Elsewhere::Folder)),
            ("file:///srv", None, Err(Elsewhere::OwnFiles)),
            ("file:///srv/own/secret", None, Err(Elsewhere::OwnFiles)),
            ("file:///srv/%6Fwn", None, Err(Elsewhere::OwnFiles)),
            ("file:///etc", None, Err(Elsewhere::Folder)),
            ("file:///", None, Err(Elsewhere::OwnFiles)),
            ("s3://bucket/x", None, Ok(())),
            ("s3://bucket/x", Some("https://minio.example.com:9000"), Ok(())),
            ("s3://bucket/x", Some("https://minio.example.com"), Err(Elsewhere::Endpoint)),
            ("s3://bucket/x", Some("http://minio.example.com:9000"), Err(Elsewhere::Endpoint)),
            ("s3://bucket/x", Some("http://10.0.0.7/"), Ok(())),
            ("s3://bucket/x", Some("http://169.254.169.254/latest"), Err(Elsewhere::Endpoint)),
            ("s3://bucket/x", Some("http://0x0a000007/"), Ok(())),
            ("gs://bucket/x", Some("http://localhost:8080"), Err(Elsewhere::Endpoint)),
        ] {
            assert_eq!(check(&places, url, endpoint), verdict, "{url} {endpoint:?}");
        }
    }

    #[test]
    fn without_a_list_it_is_anywhere_but_among_the_services_own_files() {
        let places = Places::new(None, &["/var/lib/estimatord"]);
        assert_eq!(check(&places, "file:///etc", None), Ok(()));
        assert_eq!(check(&places, "s3://b/x", Some("http://127.0.0.1:9000")), Ok(()));
        for own in ["file:///", "file:///var/lib", "file:///var/lib/estimatord/artifacts"] {
            assert_eq!(check(&places, own, None), Err(Elsewhere::OwnFiles), "{own}");
        }
    }

    #[test]
    fn a_folder_is_where_its_address_leads_and_so_is_what_is_listed() {
        let listed = ["/srv/allowed".parse().expect("a place")].to_vec();
        let resolve = |path: &str| match path {
            "/srv/allowed" => Some("/mnt/disk/allowed".to_owned()),
            "/own" => Some("/mnt/disk/own".to_owned()),
            _ => None,
        };
        let places = Places::new(Some(listed), &["/own"]);
        for (real, verdict) in [
            ("/mnt/disk/allowed/x", Ok(())),
            ("/srv/allowed/x", Err(Elsewhere::Folder)),
            ("/mnt/disk/own/x", Err(Elsewhere::OwnFiles)),
            ("/mnt/disk", Err(Elsewhere::OwnFiles)),
        ] {
            assert_eq!(places.check_real_folder(real, resolve), verdict, "{real}");
        }
        let anywhere = Places::new(None, &["/own"]);
        assert_eq!(anywhere.check_real_folder("/etc", resolve), Ok(()));
        assert_eq!(anywhere.check_real_folder("/mnt/disk/own", resolve), Err(Elsewhere::OwnFiles));
    }

    #[test]
    fn what_is_listed_is_asked_as_it_is_listed_and_a_name_leads_where_it_may() {
        let list = ["http://minio.corp:9000", "*.example.com", "10.0.0.0/8"];
        let places = Places::new(Some(list.map(|text| text.parse().expect("a place")).to_vec()), &[]);
        let may_ask = |url: &str| places.may_ask(&Url::parse(url).expect("a URL"));
        for good in [
            "http://minio.corp:9000/b?list-type=2",
            "https://a.example.com/x",
            "https://b.s3.amazonaws.com/x",
        ] {
            assert!(may_ask(good), "{good}");
        }
        for bad in [
            "http://minio.corp/",
            "https://minio.corp:22/",
            "http://b.s3.amazonaws.com/",
            "https://10.0.0.1/",
            "https://[::1]/",
        ] {
            assert!(!may_ask(bad), "{bad}");
        }
        let leads =
            |name: &str, address: &str| places.may_lead_to(name, address.parse().expect("an address"));
        assert!(leads("minio.corp", "192.168.0.1") && leads("a.example.com", "10.1.2.3"));
        assert!(leads("b.s3.amazonaws.com", "52.216.1.1") && !leads("b.s3.amazonaws.com", "127.0.0.1"));
        assert!(!leads("a.example.com", "192.168.0.1") && !leads("a.example.com", "169.254.169.254"));
        let anywhere = Places::new(None, &[]);
        assert!(anywhere.may_lead_to("x", "127.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn other_texts_are_no_places() {
        for text in ["", "/srv/../etc", "10.0.0.0/33", "ftp://x", "a b"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}

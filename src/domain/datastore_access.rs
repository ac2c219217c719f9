//! How a datastore is reached: what may be shown of it, and what is kept encrypted and never shown.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;
use utoipa::ToSchema;

use super::{datastore::DatastoreKind, secret::Secret};

/// Something about the access of a datastore that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A member that this kind of datastore has not.
    #[error("a datastore of this kind takes no `{member}` here; it takes {allowed}")]
    Unknown {
        /// The member.
        member: String,
        /// What may stand there instead.
        allowed: String,
    },
    /// A member whose value is no text, an empty one, or one that breaks lines.
    #[error("`{0}` must be a text without control characters, and not empty")]
    NoText(String),
    /// Members that go together, not all of which are there.
    #[error("{0}")]
    Incomplete(&'static str),
    /// The endpoint is no address that can be asked.
    #[error(
        "`endpoint` must be an `https` or `http` address without user name, password, query and fragment"
    )]
    Endpoint,
    /// The region is none.
    #[error("`region` has at most 63 lower-case letters, digits and `-`")]
    Region,
    /// The account is none.
    #[error("`account_name` has at most 24 lower-case letters and digits")]
    Account,
    /// The directory is none.
    #[error("`tenant_id` is a UUID or a domain of Entra ID: letters, digits, `.` and `-`")]
    Tenant,
    /// The key file leads elsewhere than its store does.
    #[error(
        "`service_account_key` must not have `gcs_base_url` or `disable_oauth`: write `endpoint` into `options`"
    )]
    KeyFile,
}

impl AccessError {
    /// The member it is about, where it is one.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        match self {
            Self::Unknown { member, .. } | Self::NoText(member) => Some(member),
            Self::Incomplete(_) => None,
            Self::Endpoint => Some("endpoint"),
            Self::Region => Some("region"),
            Self::Account => Some("account_name"),
            Self::Tenant => Some("tenant_id"),
            Self::KeyFile => Some("service_account_key"),
        }
    }
}

/// Where and how a store is asked, as far as its address does not say it. Nothing in it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatastoreOptions {
    /// `s3`, `az`, `gs`: the service to ask instead of the public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = "https://minio.example.com:9000")]
    pub endpoint: Option<String>,
    /// `s3`: the region of the bucket; `us-east-1` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub region: Option<String>,
    /// `az`: the storage account; needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub account_name: Option<String>,
}

impl DatastoreOptions {
    /// Reads the options of a datastore of a kind.
    ///
    /// # Errors
    /// When one is not for this kind, or cannot be.
    pub fn read(kind: DatastoreKind, map: &Map<String, Value>) -> Result<Self, AccessError> {
        let allowed: &[&str] = match kind {
            DatastoreKind::File => &[],
            DatastoreKind::S3 => &["endpoint", "region"],
            DatastoreKind::Az => &["account_name", "endpoint"],
            DatastoreKind::Gs => &["endpoint"],
        };
        let mut members = Texts::read(map, allowed)?;
        let options = Self {
            endpoint: members.take("endpoint"),
            region: members.take("region"),
            account_name: members.take("account_name"),
        };
        if options.endpoint.as_deref().is_some_and(|endpoint| !is_endpoint(endpoint)) {
            return Err(AccessError::Endpoint);
        }
        // Both become parts of a host's name: with a dot or a slash in them they would make it another host's.
        if options.region.as_deref().is_some_and(|region| !is_label(region, 63, b"-")) {
            return Err(AccessError::Region);
        }
        if options.account_name.as_deref().is_some_and(|account| !is_label(account, 24, b"")) {
            return Err(AccessError::Account);
        }
        if kind == DatastoreKind::Az && options.account_name.is_none() {
            return Err(AccessError::Incomplete("a datastore in Azure Blob Storage needs `account_name`"));
        }
        Ok(options)
    }
}

/// Lower-case letters and digits, and whatever else is named; so many at most.
fn is_label(text: &str, longest: usize, others: &[u8]) -> bool {
    let fits = (1..=longest).contains(&text.len());
    fits && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(&c))
}

fn is_endpoint(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// By what a store lets us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// `s3`: a pair of keys, temporary ones with a token.
    AccessKey {
        /// Which key.
        access_key_id: String,
        /// The key.
        secret_access_key: Secret,
        /// What goes with a temporary one.
        session_token: Option<Secret>,
    },
    /// `az`: a key of the account.
    AccountKey(Secret),
    /// `az`: a shared access signature.
    SasToken(Secret),
    /// `az`: an application of Entra ID.
    ClientSecret {
        /// Its directory.
        tenant_id: String,
        /// It.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
    },
    /// `gs`: the key file of a service account, as text.
    ServiceAccountKey(Secret),
}

impl Credentials {
    /// Reads the credentials for a datastore of a kind; none when nothing is given.
    ///
    /// # Errors
    /// When a member is not for this kind, or one that goes with it is missing.
    pub fn read(kind: DatastoreKind, map: &Map<String, Value>) -> Result<Option<Self>, AccessError> {
        let allowed: &[&str] = match kind {
            DatastoreKind::File => &[],
            DatastoreKind::S3 => &["access_key_id", "secret_access_key", "session_token"],
            DatastoreKind::Az => &["account_key", "sas_token", "tenant_id", "client_id", "client_secret"],
            DatastoreKind::Gs => &["service_account_key"],
        };
        let mut members = Texts::read(map, allowed)?;
        if members.0.is_empty() {
            return Ok(None);
        }
        let credentials = match kind {
            DatastoreKind::File => None,
            DatastoreKind::S3 => match (members.take("access_key_id"), members.secret("secret_access_key")) {
                (Some(access_key_id), Some(secret_access_key)) => Some(Self::AccessKey {
                    access_key_id,
                    secret_access_key,
                    session_token: members.secret("session_token"),
                }),
                _ => None,
            },
            DatastoreKind::Az => az(&mut members),
            DatastoreKind::Gs => members.secret("service_account_key").map(Self::ServiceAccountKey),
        };
        match &credentials {
            Some(Self::ClientSecret { tenant_id, .. }) if !is_tenant(tenant_id) => {
                return Err(AccessError::Tenant);
            }
            Some(Self::ServiceAccountKey(key)) if leads_elsewhere(key) => return Err(AccessError::KeyFile),
            _ => {}
        }
        // What is left over belongs to another way of getting in.
        match credentials {
            Some(credentials) if members.0.is_empty() => Ok(Some(credentials)),
            _ => Err(AccessError::Incomplete(match kind {
                DatastoreKind::S3 => "`access_key_id` and `secret_access_key` go together",
                _ => {
                    "one of `account_key`, `sas_token`, or `tenant_id`, `client_id` and `client_secret` together"
                }
            })),
        }
    }
}

/// It becomes a part of an address.
fn is_tenant(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_alphanumeric() || b".-".contains(&c)) && !text.contains("..")
}

/// Whether a key file names another service than the datastore does.
fn leads_elsewhere(key: &Secret) -> bool {
    let read = serde_json::from_str::<Map<String, Value>>(key.expose());
    read.is_ok_and(|members| ["gcs_base_url", "disable_oauth"].iter().any(|name| members.contains_key(*name)))
}

fn az(members: &mut Texts) -> Option<Credentials> {
    if let Some(key) = members.secret("account_key") {
        return Some(Credentials::AccountKey(key));
    }
    if let Some(token) = members.secret("sas_token") {
        return Some(Credentials::SasToken(token));
    }
    Some(Credentials::ClientSecret {
        tenant_id: members.take("tenant_id")?,
        client_id: members.take("client_id")?,
        client_secret: members.secret("client_secret")?,
    })
}

/// Members that are texts, each to be taken once.
struct Texts(Map<String, Value>);

impl Texts {
    fn read(map: &Map<String, Value>, allowed: &[&str]) -> Result<Self, AccessError> {
        let mut texts = Map::new();
        for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            if !allowed.contains(&name.as_str()) {
                let allowed = match allowed {
                    [] => "none at all".to_owned(),
                    allowed => format!("`{}`", allowed.join("`, `")),
                };
                return Err(AccessError::Unknown { member: name.chars().take(80).collect(), allowed });
            }
            // The key file of a service account is JSON over several lines.
            let is_sound = |text: &str| {
                !text.is_empty()
                    && !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
            };
            match value {
                Value::String(text) if is_sound(text) => texts.insert(name.clone(), value.clone()),
                _ => return Err(AccessError::NoText(name.clone())),
            };
        }
        Ok(Self(texts))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        match self.0.shift_remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn secret(&mut self, name: &str) -> Option<Secret> {
        self.take(name).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("{value} is no object") };
        map
    }

    fn credentials(kind: DatastoreKind, value: Value) -> Result<Option<Credentials>, AccessError> {
        Credentials::read(kind, &map(value))
    }

    #[test]
    fn each_kind_has_its_own_credentials() {
        use DatastoreKind::{Az, File, Gs, S3};
        assert_eq!(credentials(S3, json!({})), Ok(None));
        assert_eq!(credentials(File, json!({"x": null})), Ok(None));
        let pair = credentials(S3, json!({"access_key_id": "id", "secret_access_key": "key"}));
        assert!(matches!(pair, Ok(Some(Credentials::AccessKey { session_token: None, .. }))));
        let key = credentials(Az, json!({"account_key": "a"}));
        assert_eq!(key, Ok(Some(Credentials::AccountKey(Secret::new("a".into())))));
        let app = json!({"tenant_id": "t", "client_id": "c", "client_secret": "s"});
        assert!(matches!(credentials(Az, app), Ok(Some(Credentials::ClientSecret { .. }))));
        let file = credentials(Gs, json!({"service_account_key": "{\n}"}));
        assert!(matches!(file, Ok(Some(Credentials::ServiceAccountKey(_)))));
    }

    #[test]
    fn what_cannot_be_says_which_member() {
        use DatastoreKind::{Az, File, S3};
        for (kind, value, member) in [
            (File, json!({"password": "s"}), Some("password")),
            (S3, json!({"account_key": "s"}), Some("account_key")),
            (S3, json!({"access_key_id": 3}), Some("access_key_id")),
            (S3, json!({"access_key_id": ""}), Some("access_key_id")),
            (S3, json!({"access_key_id": "a"}), None),
            (Az, json!({"account_key": "a", "sas_token": "b"}), None),
            (Az, json!({"client_id": "a"}), None),
        ] {
            let error = credentials(kind, value.clone()).expect_err("refused");
            assert_eq!(error.member(), member, "{value}");
            assert!(!error.to_string().contains("\"s\""), "no value is repeated");
        }
    }

    #[test]
    fn options_are_read_by_kind() {
        let read = |kind, value| DatastoreOptions::read(kind, &map(value));
        let options = read(DatastoreKind::S3, json!({"endpoint": "http://127.0.0.1:9000", "region": "eu"}));
        assert_eq!(options.expect("fine").region.as_deref(), Some("eu"));
        assert!(matches!(read(DatastoreKind::Az, json!({})), Err(AccessError::Incomplete(_))));
        assert!(matches!(
            read(DatastoreKind::File, json!({"region": "x"})),
            Err(AccessError::Unknown { .. })
        ));
        for endpoint in ["ftp://a", "https://u:p@a", "https://a/?x", "a", "https://a/#b"] {
            let refused = read(DatastoreKind::S3, json!({"endpoint": endpoint}));
            assert_eq!(refused, Err(AccessError::Endpoint), "{endpoint}");
        }
    }

    #[test]
    fn nothing_makes_a_host_another_one() {
        use DatastoreKind::{Az, Gs, S3};
        let options = |kind, value| DatastoreOptions::read(kind, &map(value));
        for region in ["eu.evil.example/", "eu/x", "EU", "eu@x", ""] {
            assert!(options(S3, json!({"region": region})).is_err(), "{region}");
        }
        for account in ["evil.example/", "a-b", "a#", &"x".repeat(25)] {
            assert_eq!(options(Az, json!({"account_name": account})), Err(AccessError::Account), "{account}");
        }
        let key = json!({"service_account_key": "{\"gcs_base_url\": \"http://169.254.169.254\"}"});
        assert_eq!(credentials(Gs, key), Err(AccessError::KeyFile));
        let tenant = json!({"tenant_id": "../x", "client_id": "c", "client_secret": "s"});
        assert_eq!(credentials(Az, tenant), Err(AccessError::Tenant));
    }
}

//! Datastores: named places that data is read from and written to.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};
use utoipa::ToSchema;

use super::compute_target::ComputeTargetName;

/// The name of a datastore: the grammar is that of compute targets.
pub type DatastoreName = ComputeTargetName;

/// What kind of place a datastore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatastoreKind {
    /// A folder that the workers see.
    File,
    /// A bucket, Amazon's or of something that speaks the same protocol.
    S3,
    /// A container of Azure Blob Storage.
    Az,
    /// A bucket of Google Cloud Storage.
    Gs,
}

impl DatastoreKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::File, Self::S3, Self::Az, Self::Gs];

    /// The scheme of its addresses.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::S3 => "s3",
            Self::Az => "az",
            Self::Gs => "gs",
        }
    }
}

/// Why a text is no address of a datastore.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatastoreUrlError {
    /// It is no URL at all.
    #[error("it is no URL")]
    NoUrl,
    /// The scheme is another one.
    #[error("its scheme is `{0}`; it must be `file`, `s3`, `az` or `gs`")]
    Scheme(String),
    /// A secret would be stored where it can be read.
    #[error("it holds a user name or password; an address is shown to everybody who may read")]
    UserInfo,
    /// Nothing would look at it.
    #[error("it has a query or a fragment, which mean nothing here")]
    QueryOrFragment,
    /// A folder of another machine.
    #[error("it names a host; a folder is one of the worker's own machine: `file:///data/sets`")]
    FileHost,
    /// A bucket or container is not named.
    #[error("it names no bucket or container: `s3://bucket/folder`")]
    NoBucket,
    /// A port where a bucket is named.
    #[error("it names a port; write the bucket or container alone")]
    Port,
    /// The path has `..` components, perhaps percent-encoded.
    #[error("its path has a `..` component")]
    Escapes,
    /// A NUL character, perhaps percent-encoded, or bytes that are no UTF-8.
    #[error("its path is no text that a file can be named by")]
    Path,
}

/// The address of a datastore: `file:///…`, `s3://bucket/…`, `az://container/…` or `gs://bucket/…`.
///
/// A value that exists holds no secret and has no `..` component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreUrl {
    kind: DatastoreKind,
    text: String,
}

impl DatastoreUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// When it is none, or could mean something else than what it says.
    pub fn parse(text: &str) -> Result<Self, DatastoreUrlError> {
        // The parser resolves `..` silently; what was written is looked at first.
        let path = text.split_once("://").map_or("", |(_, rest)| rest);
        let decoded =
            percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| DatastoreUrlError::Path)?;
        if decoded.contains('\0') {
            return Err(DatastoreUrlError::Path);
        }
        if decoded.split(['/', '\\']).any(|part| part == "..") {
            return Err(DatastoreUrlError::Escapes);
        }
        let url = Url::parse(text).map_err(|_| DatastoreUrlError::NoUrl)?;
        let kind = DatastoreKind::ALL
            .into_iter()
            .find(|kind| kind.scheme() == url.scheme())
            .ok_or_else(|| DatastoreUrlError::Scheme(url.scheme().chars().take(20).collect()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(DatastoreUrlError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(DatastoreUrlError::QueryOrFragment);
        }
        if url.port().is_some() {
            return Err(DatastoreUrlError::Port);
        }
        let host = url.host().filter(|host| *host != Host::Domain(""));
        match kind {
            // The parser drops `localhost` by itself.
            DatastoreKind::File if host.is_some() => Err(DatastoreUrlError::FileHost),
            DatastoreKind::File if !is_absolute_file(text) => Err(DatastoreUrlError::NoUrl),
            DatastoreKind::S3 | DatastoreKind::Az | DatastoreKind::Gs
                if url.host_str().unwrap_or_default().is_empty() =>
            {
                Err(DatastoreUrlError::NoBucket)
            }
            _ => Ok(Self { kind, text: text.to_owned() }),
        }
    }

    /// What kind of place it is.
    #[must_use]
    pub const fn kind(&self) -> DatastoreKind {
        self.kind
    }

    /// The address as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// `file:data` is read as `file:///data` by the parser; here it is no address.
fn is_absolute_file(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.starts_with("file:///") || text.starts_with("file://localhost/")
}

impl fmt::Display for DatastoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A registered datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datastore {
    /// Its name.
    pub name: DatastoreName,
    /// Where it is.
    pub url: DatastoreUrl,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, kind) in [
            ("file:///data/sets", DatastoreKind::File),
            ("file:///", DatastoreKind::File),
            ("file://localhost/data", DatastoreKind::File),
            ("file:///tmp/cases%20of/..odd", DatastoreKind::File),
            ("s3://bucket", DatastoreKind::S3),
            ("s3://my-bucket/a/b", DatastoreKind::S3),
            ("az://container/folder", DatastoreKind::Az),
            ("gs://bucket/x", DatastoreKind::Gs),
        ] {
            let url = DatastoreUrl::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!((url.kind(), url.as_str()), (kind, text));
        }
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        use DatastoreUrlError as E;
        for (text, why) in [
            ("", E::NoUrl),
            ("data/sets", E::NoUrl),
            ("/data/sets", E::NoUrl),
            ("file:data", E::NoUrl),
            ("http://169.254.169.254/latest", E::Scheme("http".to_owned())),
            ("s3://key:secret@bucket", E::UserInfo),
            ("s3://bucket?versioned", E::QueryOrFragment),
            ("gs://bucket/#x", E::QueryOrFragment),
            ("file://other-host/data", E::FileHost),
            ("s3:///key", E::NoBucket),
            ("az://container:8080/x", E::Port),
            ("file:///data/../etc", E::Escapes),
            ("file:///data/%2e%2E/etc", E::Escapes),
            ("s3://bucket/a%2F..%2Fb", E::Escapes),
            ("file:///data/%00", E::Path),
            ("file:///data/%ff", E::Path),
        ] {
            assert_eq!(DatastoreUrl::parse(text), Err(why), "{text}");
        }
    }
}

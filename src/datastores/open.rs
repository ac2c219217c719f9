//! From an address, options and credentials to a store that can be asked.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey},
    path::Path,
};
use url::Url;

use super::{
    connector::Connector,
    error::{DataError, of_store, said},
    folder::Folder,
};
use crate::domain::{
    datastore::{Datastore, DatastoreKind},
    datastore_access::{Credentials, DatastoreOptions},
    datastore_places::Places,
    secret::Secret,
};

/// A datastore that can be asked.
#[derive(Clone)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// Identifies the place: what was copied from it is kept under this.
    pub identity: String,
    /// A folder of this machine; none for any other kind.
    folder: Option<Folder>,
    pub(super) inner: Arc<dyn ObjectStore>,
    /// Where in the bucket or container it begins.
    pub(super) prefix: Path,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Store {
    /// Whether it is a folder of this machine.
    #[must_use]
    pub const fn is_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// Where a path in it lies on this machine, when it is a folder of it. There is no link in what is answered, nor was one on the way.
    ///
    /// # Errors
    /// When nothing is there, or a link is on the way.
    pub fn place_of(&self, path: &str) -> Result<Option<PathBuf>, DataError> {
        let place = self.folder.as_ref().map(|folder| folder.real_path_of(path)).transpose();
        place.map_err(|error| of_store(&self.name, path, &error))
    }

    /// The key of a path in the datastore.
    pub(super) fn key(&self, path: &str) -> Result<Path, DataError> {
        let parsed = Path::parse(path).map_err(|error| DataError::Path {
            datastore: self.name.clone(),
            path: path.to_owned(),
            detail: error.to_string(),
        })?;
        Ok(self.prefix.parts().chain(parsed.parts()).collect())
    }

    /// The path in the datastore of a key.
    pub(super) fn path_of(&self, key: &Path) -> Option<String> {
        let rest = key.prefix_match(&self.prefix)?;
        Some(rest.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
    }
}

/// Opens a datastore where it may be; nothing is asked of it yet.
///
/// # Errors
/// When its parts do not go together, a folder is not there, or it leads where no datastore may.
pub fn open(
    datastore: &Datastore,
    options: &DatastoreOptions,
    credentials: Option<&Credentials>,
    places: &Places,
) -> Result<Store, DataError> {
    let name = datastore.name.as_str().to_owned();
    let failed = |detail: String| DataError::Open { datastore: name.clone(), detail };
    let url = Url::parse(datastore.url.as_str()).map_err(|error| failed(error.to_string()))?;
    let kind = datastore.url.kind();
    let identity = format!("{url} {}", options.endpoint.as_deref().unwrap_or_default());
    if kind == DatastoreKind::File {
        let folder = url.to_file_path().map_err(|()| failed("its address is no folder".to_owned()))?;
        let folder = open_folder(folder, places).map_err(failed)?;
        let inner = Arc::new(folder.clone());
        return Ok(Store { name, identity, folder: Some(folder), inner, prefix: Path::default() });
    }
    // The clients' TLS has no provider of its own; a second installation finds the first one there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bucket = url.host_str().unwrap_or_default();
    let path = percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy();
    let prefix = Path::parse(&path).map_err(|error| failed(error.to_string()))?;
    let connector = Connector::new(places, is_plain_http(options));
    let inner = match kind {
        DatastoreKind::S3 => s3(bucket, options, credentials, connector),
        DatastoreKind::Az => az(bucket, options, credentials, connector),
        DatastoreKind::File | DatastoreKind::Gs => gs(bucket, options, credentials, connector),
    };
    let inner = inner.map_err(|error| failed(said(&error)))?;
    Ok(Store { name, identity, folder: None, inner, prefix })
}

/// Opens a folder of this machine, if it may be one of a datastore: not by its path, which a script can have made lead elsewhere
/// since it was registered, but by what it led to.
fn open_folder(path: PathBuf, places: &Places) -> Result<Folder, String> {
    let shown = path.display().to_string();
    let folder = Folder::open(path).map_err(|_| format!("there is no folder {shown} on this machine"))?;
    let real = folder.real_path().map_err(|error| format!("cannot tell where {shown} is: {error}"))?;
    let resolve = |path: &str| fs::canonicalize(path).ok().map(|real| real.to_string_lossy().into_owned());
    places
        .check_real_folder(&real.to_string_lossy(), resolve)
        .map_err(|why| format!("{shown} leads to {}: {why}", real.display()))?;
    Ok(folder)
}

type Opened = Result<Arc<dyn ObjectStore>, object_store::Error>;

/// Enough for a store that is being restarted; a run does not wait for one that is gone.
fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: 5,
        retry_timeout: std::time::Duration::from_secs(60),
        ..RetryConfig::default()
    }
}

fn is_plain_http(options: &DatastoreOptions) -> bool {
    options.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn s3(
    bucket: &str,
    options: &DatastoreOptions,
    credentials: Option<&Credentials>,
    connector: Connector,
) -> Opened {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(options.region.as_deref().unwrap_or("us-east-1"))
        .with_allow_http(is_plain_http(options))
        .with_http_connector(connector)
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder = match credentials {
        Some(Credentials::AccessKey { access_key_id, secret_access_key, session_token }) => {
            let builder =
                builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key.expose());
            match session_token {
                Some(token) => builder.with_token(token.expose()),
                None => builder,
            }
        }
        // Without credentials it asks as anybody: never with what the worker's machine would be given.
        _ => builder.with_config(AmazonS3ConfigKey::SkipSignature, "true"),
    };
    Ok(Arc::new(builder.build()?))
}

fn az(
    container: &str,
    options: &DatastoreOptions,
    credentials: Option<&Credentials>,
    connector: Connector,
) -> Opened {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_account(options.account_name.as_deref().unwrap_or_default())
        .with_allow_http(is_plain_http(options))
        .with_http_connector(connector)
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder = match credentials {
        Some(Credentials::AccountKey(key)) => builder.with_access_key(key.expose()),
        Some(Credentials::SasToken(token)) => {
            builder.with_config(AzureConfigKey::SasKey, token.expose().trim_start_matches('?'))
        }
        Some(Credentials::ClientSecret { tenant_id, client_id, client_secret }) => {
            builder.with_client_secret_authorization(client_id, client_secret.expose(), tenant_id)
        }
        _ => builder.with_skip_signature(true),
    };
    Ok(Arc::new(builder.build()?))
}

fn gs(
    bucket: &str,
    options: &DatastoreOptions,
    credentials: Option<&Credentials>,
    connector: Connector,
) -> Opened {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_client_options(ClientOptions::new().with_allow_http(is_plain_http(options)))
        .with_http_connector(connector)
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder = match credentials {
        Some(Credentials::ServiceAccountKey(key)) => builder.with_service_account_key(Secret::expose(key)),
        // Writing asks for a token nevertheless: none, and not that of the machine, which its metadata service would give.
        _ => {
            let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
            builder.with_config(GoogleConfigKey::SkipSignature, "true").with_credentials(Arc::new(nobody))
        }
    };
    Ok(Arc::new(builder.build()?))
}

//! From an address, options and credentials to a store that can be asked.

use std::{fmt, path::PathBuf, sync::Arc};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    path::Path,
};
use url::Url;

use super::error::{DataError, said};
use crate::domain::{
    datastore::{Datastore, DatastoreKind},
    datastore_access::{Credentials, DatastoreOptions},
    secret::Secret,
};

/// A datastore that can be asked.
#[derive(Clone)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// Identifies the place: what was copied from it is kept under this.
    pub identity: String,
    /// Where a folder of this machine lies; none for any other kind.
    pub folder: Option<PathBuf>,
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

/// Opens a datastore; nothing is asked of it yet.
///
/// # Errors
/// When its parts do not go together, or a folder is not there.
pub fn open(
    datastore: &Datastore,
    options: &DatastoreOptions,
    credentials: Option<&Credentials>,
) -> Result<Store, DataError> {
    let name = datastore.name.as_str().to_owned();
    let failed = |detail: String| DataError::Open { datastore: name.clone(), detail };
    let url = Url::parse(datastore.url.as_str()).map_err(|error| failed(error.to_string()))?;
    let kind = datastore.url.kind();
    let identity = format!("{url} {}", options.endpoint.as_deref().unwrap_or_default());
    if kind == DatastoreKind::File {
        let folder = url.to_file_path().map_err(|()| failed("its address is no folder".to_owned()))?;
        // Its own message names no datastore.
        let inner = LocalFileSystem::new_with_prefix(&folder).map_err(|_| DataError::Open {
            datastore: name.clone(),
            detail: format!("there is no folder {} on this machine", folder.display()),
        })?;
        let inner = Arc::new(inner.with_fsync(true));
        return Ok(Store { name, identity, folder: Some(folder), inner, prefix: Path::default() });
    }
    // The clients' TLS has no provider of its own; a second installation finds the first one there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bucket = url.host_str().unwrap_or_default();
    let path = percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy();
    let prefix = Path::parse(&path).map_err(|error| failed(error.to_string()))?;
    let inner = match kind {
        DatastoreKind::S3 => s3(bucket, options, credentials),
        DatastoreKind::Az => az(bucket, options, credentials),
        DatastoreKind::File | DatastoreKind::Gs => gs(bucket, options, credentials),
    };
    let inner = inner.map_err(|error| failed(said(&error)))?;
    Ok(Store { name, identity, folder: None, inner, prefix })
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

fn s3(bucket: &str, options: &DatastoreOptions, credentials: Option<&Credentials>) -> Opened {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(options.region.as_deref().unwrap_or("us-east-1"))
        .with_allow_http(is_plain_http(options))
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

fn az(container: &str, options: &DatastoreOptions, credentials: Option<&Credentials>) -> Opened {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_account(options.account_name.as_deref().unwrap_or_default())
        .with_allow_http(is_plain_http(options))
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

fn gs(bucket: &str, options: &DatastoreOptions, credentials: Option<&Credentials>) -> Opened {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_client_options(ClientOptions::new().with_allow_http(is_plain_http(options)))
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder = match credentials {
        Some(Credentials::ServiceAccountKey(key)) => builder.with_service_account_key(Secret::expose(key)),
        _ => builder.with_config(GoogleConfigKey::SkipSignature, "true"),
    };
    Ok(Arc::new(builder.build()?))
}

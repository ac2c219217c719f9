//! Where the key comes from that secrets are encrypted with.

use std::path::Path;

use anyhow::{Context as _, bail};
use tracing::info;

use crate::{
    clock::entropy,
    config::{Database, SecretKey},
    vault::{KeyError, Vault},
};

/// The service's: made in the data directory when nobody gives one. A data directory's own key is no use where others have a part
/// in the database.
///
/// # Errors
/// When a key cannot be read or made.
pub fn of_service(key: &SecretKey, database: &Database, data_dir: &Path) -> anyhow::Result<Option<Vault>> {
    let others = others(key)?;
    let own = match given(key)? {
        Some(vault) => vault,
        None if database.database_url.is_none() => Vault::of_data_dir(data_dir, entropy())?,
        None if others.is_empty() => {
            info!("no secret key: passwords of registries and credentials of datastores are refused");
            return Ok(None);
        }
        None => bail!(
            "there are other keys to decrypt with, and there is none to encrypt with: name it with --secret-key-file"
        ),
    };
    Ok(Some(own.opening_also(others)))
}

/// That of an installation as it is: nothing is made. None when there is none.
///
/// # Errors
/// When a key cannot be read.
pub fn of_installation(
    key: &SecretKey,
    database: &Database,
    data_dir: Option<&Path>,
) -> anyhow::Result<Option<Vault>> {
    let found = match (given(key)?, data_dir) {
        (Some(vault), _) => Some(vault),
        (None, Some(data_dir)) if database.database_url.is_none() => {
            match Vault::from_file(&Vault::file_of(data_dir)) {
                Ok(vault) => Some(vault),
                Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            }
        }
        _ => None,
    };
    let others = others(key)?;
    Ok(found.map(|vault| vault.opening_also(others)))
}

fn given(key: &SecretKey) -> anyhow::Result<Option<Vault>> {
    if let Some(path) = &key.secret_key_file {
        return Ok(Some(Vault::from_file(path)?));
    }
    variable("ESTIMATORD_SECRET_KEY")
        .map(|text| Vault::from_text(&text).context("ESTIMATORD_SECRET_KEY cannot be used"))
        .transpose()
}

/// The keys that something may be encrypted with besides.
///
/// # Errors
/// When one cannot be read.
pub fn others(key: &SecretKey) -> anyhow::Result<Vec<Vault>> {
    if !key.other_secret_key_files.is_empty() {
        let read: Result<Vec<Vault>, KeyError> =
            key.other_secret_key_files.iter().map(|path| Vault::from_file(path)).collect();
        return Ok(read?);
    }
    let texts = variable("ESTIMATORD_OTHER_SECRET_KEYS").unwrap_or_default();
    let keys = texts.split(',').filter(|text| !text.trim().is_empty());
    keys.map(|text| Vault::from_text(text).context("ESTIMATORD_OTHER_SECRET_KEYS cannot be used")).collect()
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().into_owned();
    Some(value).filter(|text| !text.is_empty())
}

//! What lies at a path of a datastore.

use futures_util::TryStreamExt as _;
use globset::GlobBuilder;
use object_store::{ObjectMeta, ObjectStoreExt as _};

use super::{
    error::{DataError, of_store},
    open::Store,
};

/// One file of it.
#[derive(Clone, Debug)]
pub struct FoundFile {
    /// Its path from the folder that was asked for, with `/`; of a single file, its name.
    pub path: String,
    pub(super) meta: ObjectMeta,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Whether it is one file, and not a folder.
    pub is_file: bool,
    /// The files, sorted by path.
    pub files: Vec<FoundFile>,
}

impl Found {
    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.meta.size).sum()
    }
}

/// Looks up a file or a folder; of a folder, only the files that match the pattern, where one is given. Patterns are paths
/// from the datastore's root, in which `*` and `?` match no `/` and `**` does.
///
/// # Errors
/// When there is none, or the store cannot be asked.
pub async fn find(store: &Store, folder: &str, pattern: Option<&str>) -> Result<Found, DataError> {
    let failed = |error| of_store(&store.name, folder, &error);
    let key = store.key(folder)?;
    let is_root = key == store.prefix;
    if !is_root && pattern.is_none() {
        match store.inner.head(&key).await {
            Ok(meta) => {
                let path = key.filename().unwrap_or_default().to_owned();
                return Ok(Found { is_file: true, files: vec![FoundFile { path, meta }] });
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let matcher = pattern.map(|pattern| matcher(store, pattern)).transpose()?;
    let mut files = Vec::new();
    let mut listed = store.inner.list(Some(&key));
    while let Some(meta) = listed.try_next().await.map_err(|error| unlisted(store, folder, &error))? {
        let Some(path) = meta.location.prefix_match(&key) else { continue };
        let path = path.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
        let whole = store.path_of(&meta.location).unwrap_or_default();
        // Stores with folders have an object for each, which is no file.
        let is_folder = path.is_empty() || (meta.size == 0 && meta.location.as_ref().ends_with('/'));
        if !is_folder && matcher.as_ref().is_none_or(|matcher| matcher.is_match(&whole)) {
            files.push(FoundFile { path, meta });
        }
    }
    if files.is_empty() && !(is_root && pattern.is_none()) {
        let path = pattern.unwrap_or(folder).to_owned();
        return Err(DataError::Missing { datastore: store.name.clone(), path });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Found { is_file: false, files })
}

/// Why a folder cannot be listed: one file of it may be the reason.
fn unlisted(store: &Store, folder: &str, error: &object_store::Error) -> DataError {
    use object_store::path::Error as E;
    let path = match error {
        object_store::Error::InvalidPath {
            source: E::BadSegment { path, .. } | E::NonUnicode { path, .. },
        } => path,
        error => return of_store(&store.name, folder, error),
    };
    DataError::FileName { datastore: store.name.clone(), path: path.clone() }
}

fn matcher(store: &Store, pattern: &str) -> Result<globset::GlobMatcher, DataError> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| DataError::Path {
        datastore: store.name.clone(),
        path: pattern.to_owned(),
        detail: error.kind().to_string(),
    })
}

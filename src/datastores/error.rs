//! Why data could not be had or sent.

use std::{io, path::PathBuf};

use super::folder::Linked;

/// How many of the files that could not be sent are named.
const NAMED: usize = 3;

/// Why data could not be had or sent.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The datastore was deleted after the run was accepted.
    #[error("the datastore `{0}` is not registered any more")]
    NotRegistered(String),
    /// Its credentials cannot be used.
    #[error("the credentials of the datastore `{datastore}` cannot be used: {detail}")]
    Credentials {
        /// The datastore.
        datastore: String,
        /// Why.
        detail: String,
    },
    /// Its address, options and credentials make no store.
    #[error("the datastore `{datastore}` cannot be opened: {detail}")]
    Open {
        /// The datastore.
        datastore: String,
        /// Why.
        detail: String,
    },
    /// There is nothing at the path.
    #[error("the datastore `{datastore}` has nothing at `{path}`")]
    Missing {
        /// The datastore.
        datastore: String,
        /// The path in it.
        path: String,
    },
    /// The path cannot be one of an object.
    #[error("`{path}` is no path in the datastore `{datastore}`: {detail}")]
    Path {
        /// The datastore.
        datastore: String,
        /// The path in it.
        path: String,
        /// Why.
        detail: String,
    },
    /// A link is in the way.
    #[error(
        "the datastore `{datastore}` has a symbolic link at `{path}`, and the service follows none: put there what it leads to, or \
         let the script read it in place (mode `mount` of a path without links, where its own user follows them)"
    )]
    Link {
        /// The datastore.
        datastore: String,
        /// Where in it the link is.
        path: String,
    },
    /// It may not be read or written with these credentials.
    #[error("the datastore `{datastore}` refuses access to `{path}`: {detail}")]
    Denied {
        /// The datastore.
        datastore: String,
        /// The path in it.
        path: String,
        /// What it said.
        detail: String,
    },
    /// Something else lies there, and may not be replaced.
    #[error(
        "the datastore `{datastore}` has something else at `{path}` already; `overwrite` was not asked for"
    )]
    Exists {
        /// The datastore.
        datastore: String,
        /// The path in it.
        path: String,
    },
    /// The store failed, and may work later.
    #[error("the datastore `{datastore}` failed at `{path}`: {detail}")]
    Failed {
        /// The datastore.
        datastore: String,
        /// The path in it.
        path: String,
        /// What it said.
        detail: String,
    },
    /// Something of the run's own lies where data is wanted.
    #[error("{input} cannot be put at `{place}`: something lies there")]
    InTheWay {
        /// What it is to people.
        input: String,
        /// Where it was wanted.
        place: String,
    },
    /// Two inputs are wanted in one place, so that one would be written into the other's data.
    #[error(
        "the input `{input}` is wanted at `{place}`, which is at or below the place of the input `{other}`: give each a `path_on_compute` of its own"
    )]
    Overlap {
        /// The input.
        input: String,
        /// Where the definition wants it.
        place: String,
        /// The input whose place that is.
        other: String,
    },
    /// Of several files that were to be sent, some could not.
    #[error("{} files could not be sent: {}", errors.len() + untried, summary(errors, *untried))]
    Unsent {
        /// Why not, of each that was tried.
        errors: Vec<DataError>,
        /// How many were not tried any more.
        untried: usize,
    },
    /// A file in the datastore has a name that is no text, or has bytes that none may have.
    #[error("the datastore `{datastore}` has a file whose name cannot be read: `{}`", path.escape_debug())]
    FileName {
        /// The datastore.
        datastore: String,
        /// The path in it.
        path: String,
    },
    /// This machine failed.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The place.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataError {
    /// Whether trying again cannot help: the fault is the definition's or the datastore's.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Io { .. } => false,
            Self::Unsent { errors, .. } => errors.iter().all(Self::is_permanent),
            _ => true,
        }
    }

    /// The outcome of sending files of which these failed. One failure speaks for itself.
    ///
    /// # Errors
    /// When any failed.
    pub fn unsent(errors: Vec<Self>, untried: usize) -> Result<(), Self> {
        let (mut all, mut untried) = (Vec::with_capacity(errors.len()), untried);
        for error in errors {
            match error {
                Self::Unsent { errors, untried: more } => {
                    all.extend(errors);
                    untried += more;
                }
                error => all.push(error),
            }
        }
        match all.pop() {
            None => Ok(()),
            Some(only) if all.is_empty() && untried == 0 => Err(only),
            Some(last) => {
                all.push(last);
                Err(Self::Unsent { errors: all, untried })
            }
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// The first few, and how many more there are.
fn summary(errors: &[DataError], untried: usize) -> String {
    let mut texts: Vec<String> = errors.iter().take(NAMED).map(ToString::to_string).collect();
    let more = errors.len() - texts.len() + untried;
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    texts.join("; ")
}

/// What a store said, without the addresses' queries: a shared access signature stands in one.
pub(super) fn said(error: &object_store::Error) -> String {
    let text = error.to_string();
    let words = text.split(' ').map(|word| match (word.find("://"), word.find('?')) {
        (Some(scheme), Some(query)) if scheme < query => &word[..query],
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The same as an error of ours.
pub(super) fn of_store(datastore: &str, path: &str, error: &object_store::Error) -> DataError {
    use object_store::Error as E;
    let (datastore, path) = (datastore.to_owned(), path.to_owned());
    let detail = said(error);
    if let E::PermissionDenied { source, .. } = error
        && let Some(Linked(link)) = source.downcast_ref()
    {
        return DataError::Link { datastore, path: link.clone() };
    }
    match error {
        E::NotFound { .. } => DataError::Missing { datastore, path },
        E::AlreadyExists { .. } => DataError::Exists { datastore, path },
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            DataError::Denied { datastore, path, detail }
        }
        E::InvalidPath { .. } => DataError::Path { datastore, path, detail },
        E::NotSupported { .. } | E::NotImplemented { .. } | E::UnknownConfigurationKey { .. } => {
            DataError::Open { datastore, detail }
        }
        _ => DataError::Failed { datastore, path, detail },
    }
}

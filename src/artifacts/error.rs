//! What can go wrong with stored things, and why an upload is refused.

use std::{io, path::PathBuf};

/// The store would not do as told.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactsError {
    /// Nothing is stored under this name.
    #[error("nothing is stored as `{key}`")]
    NotFound {
        /// The object's key.
        key: String,
    },
    /// The asked range begins behind the end.
    #[error("`{key}` has {total} bytes; the asked range begins behind them")]
    OutOfRange {
        /// The object's key.
        key: String,
        /// Its size.
        total: u64,
    },
    /// What is stored is not what was stored once.
    #[error("`{key}` is damaged: {detail}")]
    Damaged {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The object store failed.
    #[error("{action} `{key}`: {source}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// The object's key.
        key: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// This machine failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
}

impl ArtifactsError {
    /// For `map_err` after a call of the object store.
    pub(super) fn store(
        action: &'static str,
        key: &object_store::path::Path,
    ) -> impl FnOnce(object_store::Error) -> Self {
        let key = key.to_string();
        move |source| match source {
            object_store::Error::NotFound { .. } => Self::NotFound { key },
            source => Self::Store { action, key, source },
        }
    }

    /// For `map_err` after a call of the file system.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<ArtifactsError> for io::Error {
    fn from(error: ArtifactsError) -> Self {
        let kind = match &error {
            ArtifactsError::NotFound { .. } => io::ErrorKind::NotFound,
            ArtifactsError::OutOfRange { .. } => io::ErrorKind::InvalidInput,
            ArtifactsError::Damaged { .. } => io::ErrorKind::InvalidData,
            ArtifactsError::Store { .. } => io::ErrorKind::Other,
            ArtifactsError::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// What a refusal means for the one who uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotErrorKind {
    /// The bytes are no archive of the format that was announced.
    Malformed,
    /// A limit was reached.
    TooLarge,
    /// It is an archive, and something in it is not accepted.
    Refused,
    /// The service could not do its part; the upload may be fine.
    Store,
}

/// Why an upload did not become a snapshot. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The body broke off or could not be read.
    #[error("the upload broke off: {detail}; send it again")]
    Body {
        /// What the connection said.
        detail: String,
    },
    /// More bytes were sent than are accepted.
    #[error(
        "the upload is larger than {limit} bytes; leave out what the script does not need (`.amlignore`), and bring data in through datastores"
    )]
    UploadTooLarge {
        /// The limit.
        limit: u64,
    },
    /// The archive cannot be read.
    #[error(
        "the body is no readable {format} archive: {detail}; is the Content-Type right, and did the whole file arrive?"
    )]
    Corrupt {
        /// `tar`, `tar.gz` or `zip`.
        format: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Nothing was sent.
    #[error("the body is empty; send a {format} archive of the source directory")]
    EmptyBody {
        /// `tar`, `tar.gz` or `zip`.
        format: &'static str,
    },
    /// What was sent does not begin as such an archive does.
    #[error("the body is no {format} archive; send one, with the Content-Type that says which format it has")]
    NoArchive {
        /// `tar`, `tar.gz` or `zip`.
        format: &'static str,
    },
    /// The archive ends in the middle.
    #[error("the {format} archive is cut off ({detail}); create and send it again")]
    Truncated {
        /// `tar`, `tar.gz` or `zip`.
        format: &'static str,
        /// Where.
        detail: &'static str,
    },
    /// Something follows the end of the archive.
    #[error("something follows the end of the {format} archive; send the archive alone")]
    TrailingGarbage {
        /// `tar`, `tar.gz` or `zip`.
        format: &'static str,
    },
    /// More files than are accepted.
    #[error(
        "the archive holds more than {limit} files; leave out what the script does not need (`.amlignore`)"
    )]
    TooManyFiles {
        /// The limit.
        limit: u64,
    },
    /// More bytes unpacked than are accepted.
    #[error(
        "the archive unpacks to more than {limit} bytes{}; leave out what the script does not need (`.amlignore`), and bring data in through datastores",
        reached_at(entry)
    )]
    TooManyBytes {
        /// The limit.
        limit: u64,
        /// The entry at which it was reached; empty between two entries.
        entry: String,
    },
    /// An entry has no name.
    #[error("an entry of the archive has an empty name; create the archive again")]
    EmptyName,
    /// A name that is no UTF-8.
    #[error("the name `{entry}` is not UTF-8; rename the file, or create the archive with UTF-8 names")]
    NameNotUtf8 {
        /// The name, made readable.
        entry: String,
    },
    /// A name with NUL, a line break or another control character.
    #[error("the name `{entry}` holds a control character; rename the file")]
    ControlCharacter {
        /// The name, escaped.
        entry: String,
    },
    /// A backslash, which one system takes for a separator and another for a letter.
    #[error("the name `{entry}` holds a backslash; write paths with `/`")]
    Backslash {
        /// The name.
        entry: String,
    },
    /// A path from the root or with a drive letter.
    #[error("`{entry}` is an absolute path; archive the directory's contents with relative paths")]
    AbsolutePath {
        /// The name.
        entry: String,
    },
    /// A path with `..`.
    #[error(
        "`{entry}` leaves the source directory by `..`; archive the directory's contents with relative paths"
    )]
    ParentComponent {
        /// The name.
        entry: String,
    },
    /// A path that many systems could not unpack.
    #[error("the path `{entry}` is too long: at most 1024 bytes, and 255 for each part")]
    PathTooLong {
        /// The name, shortened.
        entry: String,
    },
    /// The same path twice.
    #[error("`{entry}` is in the archive twice; which one is meant?")]
    Duplicate {
        /// The path.
        entry: String,
    },
    /// One path is a file and a directory.
    #[error("`{entry}` is both a file and a directory in the archive; rename one of them")]
    FileAndDirectory {
        /// The path.
        entry: String,
    },
    /// A link to somewhere outside.
    #[error("the link `{entry}` → `{target}` leaves the source directory; replace it by the file itself")]
    LinkLeavesTree {
        /// The link.
        entry: String,
        /// Where it leads.
        target: String,
    },
    /// A link to something that is no file of the archive, or in a circle.
    #[error(
        "the link `{entry}` → `{target}` leads to no file in the archive (links to directories are not followed); replace it by what it stands for"
    )]
    LinkToNoFile {
        /// The link.
        entry: String,
        /// Where it leads.
        target: String,
    },
    /// A device, a pipe, or something else that is no file.
    #[error(
        "`{entry}` is {what}; only files, directories and links inside the source directory are accepted: leave it out"
    )]
    SpecialFile {
        /// The entry.
        entry: String,
        /// What it is.
        what: &'static str,
    },
    /// A sparse file, whose size on disk has no relation to what is sent.
    #[error("`{entry}` is stored as a sparse file; create the archive without `--sparse`")]
    Sparse {
        /// The entry.
        entry: String,
    },
    /// An encrypted file.
    #[error("`{entry}` is encrypted; create the archive without a password")]
    Encrypted {
        /// The entry.
        entry: String,
    },
    /// A compression that is not read here.
    #[error("`{entry}` is compressed by a method that is not read here; use deflate or none")]
    Compression {
        /// The entry.
        entry: String,
    },
    /// A ZIP64 directory: only archives far beyond the limits need it.
    #[error(
        "the zip archive has a ZIP64 directory, which only archives beyond the limits of a snapshot need; send a tar.gz, or leave files out"
    )]
    Zip64,
    /// The service could not do its part.
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
}

impl SnapshotError {
    /// What it means for the one who uploads.
    #[must_use]
    pub const fn status_hint(&self) -> SnapshotErrorKind {
        match self {
            Self::Body { .. }
            | Self::Corrupt { .. }
            | Self::EmptyBody { .. }
            | Self::NoArchive { .. }
            | Self::Truncated { .. }
            | Self::TrailingGarbage { .. } => SnapshotErrorKind::Malformed,
            Self::UploadTooLarge { .. }
            | Self::TooManyFiles { .. }
            | Self::TooManyBytes { .. }
            | Self::Zip64 => SnapshotErrorKind::TooLarge,
            Self::EmptyName
            | Self::NameNotUtf8 { .. }
            | Self::ControlCharacter { .. }
            | Self::Backslash { .. }
            | Self::AbsolutePath { .. }
            | Self::ParentComponent { .. }
            | Self::PathTooLong { .. }
            | Self::Duplicate { .. }
            | Self::FileAndDirectory { .. }
            | Self::LinkLeavesTree { .. }
            | Self::LinkToNoFile { .. }
            | Self::SpecialFile { .. }
            | Self::Sparse { .. }
            | Self::Encrypted { .. }
            | Self::Compression { .. } => SnapshotErrorKind::Refused,
            Self::Artifacts(_) => SnapshotErrorKind::Store,
        }
    }
}

/// Where a limit was reached, if it was inside an entry.
fn reached_at(entry: &str) -> String {
    if entry.is_empty() { String::new() } else { format!(" (reached at `{entry}`)") }
}

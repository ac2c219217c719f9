//! Secrets at rest: sealed with XChaCha20-Poly1305 under one key that is never in the database.
//!
//! A sealed text is `version (1) | key id (8) | nonce (24) | ciphertext and tag`. What it belongs to is authenticated with it, so
//! that the secret of one datastore moved into the row of another opens nowhere.

use std::{
    fs, io, iter,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::domain::{ids::RunId, secret::Secret};

/// What secrets are sealed for.
pub mod purposes {
    use crate::domain::{ids::EstimatorId, project::Qualified};

    /// The password that the image of an estimator is pulled with.
    #[must_use]
    pub fn registry_password(estimator: EstimatorId) -> String {
        format!("registry_password/{estimator}")
    }

    /// The credentials of a datastore: a JSON object of its kind's members.
    #[must_use]
    pub fn datastore_credentials(datastore: &Qualified) -> String {
        format!("datastore_credentials/{datastore}")
    }

    /// What the messages of a webhook are signed with.
    #[must_use]
    pub fn webhook_secret(webhook: &Qualified) -> String {
        format!("webhook_secret/{webhook}")
    }
}

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;

/// Whom a token of an attempt is for. Neither is taken for the other: a script must not be able to say what its pods say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bearer {
    /// What the service itself starts in pods, to fetch and to send.
    Pods,
    /// The script, to read its run.
    Script,
}

impl Bearer {
    /// What it is, for people who find one.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Pods => "est-attempt-v1.",
            Self::Script => "est-run-v1.",
        }
    }
}

/// Whether a token is one that a script was given, be it good or not.
#[must_use]
pub fn is_of_script(token: &str) -> bool {
    token.starts_with(Bearer::Script.prefix())
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not 64 hexadecimal digits.
    #[error("the secret key must be 64 hexadecimal digits, such as `openssl rand -hex 32` prints")]
    Malformed,
    /// Others can read it.
    #[error("{} can be read by others: chmod 600 it", .0.display())]
    Readable(PathBuf),
    /// It cannot be read or made.
    #[error("cannot use the secret key in {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a sealed text cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another key sealed it.
    #[error("it was encrypted with another secret key than is given here")]
    OtherKey,
    /// It is not what was sealed for this purpose.
    #[error("it is damaged, or was encrypted for something else")]
    Damaged,
}

/// One key, and what is derived from it.
#[derive(Clone)]
struct Key {
    cipher: XChaCha20Poly1305,
    id: [u8; KEY_ID_BYTES],
    /// What tokens are made with: of the key, and of no use for anything else.
    token_key: [u8; KEY_BYTES],
}

/// What can seal and open. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    key: Key,
    /// What is opened with besides, while a rotation is under way.
    others: Vec<Key>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// With the key in a text: 64 hexadecimal digits, white space around them allowed.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let text = text.trim().as_bytes();
        let mut key = [0; KEY_BYTES];
        if text.len() != KEY_BYTES * 2 {
            return Err(KeyError::Malformed);
        }
        for (byte, digits) in key.iter_mut().zip(text.chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| KeyError::Malformed)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| KeyError::Malformed)?;
        }
        Ok(Self::new(key))
    }

    /// With this key.
    #[must_use]
    pub fn new(key: [u8; KEY_BYTES]) -> Self {
        let mut key_id = [0; KEY_ID_BYTES];
        key_id.copy_from_slice(
            &Sha256::digest([b"estimatord key id ".as_slice(), &key].concat())[..KEY_ID_BYTES],
        );
        let token_key = Sha256::digest([b"estimatord attempt tokens ".as_slice(), &key].concat()).into();
        let key = Key { cipher: XChaCha20Poly1305::new(&key.into()), id: key_id, token_key };
        Self { key, others: Vec::new() }
    }

    /// The same, that also opens what the keys of these have sealed and knows their tokens. It still seals with its own alone.
    #[must_use]
    pub fn opening_also(mut self, others: impl IntoIterator<Item = Self>) -> Self {
        self.others.extend(others.into_iter().flat_map(|other| iter::once(other.key).chain(other.others)));
        self
    }

    /// The same, that opens with no other key than its own.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { key: self.key.clone(), others: Vec::new() }
    }

    /// Whether a sealed text says to be under the key that is sealed with here.
    #[must_use]
    pub fn has_sealed(&self, sealed: &[u8]) -> bool {
        sealed
            .split_first()
            .is_some_and(|(version, rest)| *version == VERSION && rest.starts_with(&self.key.id))
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        iter::once(&self.key).chain(&self.others)
    }

    /// With the key in a file of the operator's.
    ///
    /// # Errors
    /// When it cannot be read, is no key, or others can read it.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let io_error = |source| KeyError::Io { path: path.to_owned(), source };
        let metadata = fs::metadata(path).map_err(io_error)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyError::Readable(path.to_owned()));
        }
        Self::from_text(&fs::read_to_string(path).map_err(io_error)?)
    }

    /// Where a data directory keeps a key of its own.
    #[must_use]
    pub fn file_of(data_dir: &Path) -> PathBuf {
        data_dir.join("secret.key")
    }

    /// With the key in `secret.key` of a data directory, which is made of `entropy` when it is missing.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn of_data_dir(data_dir: &Path, entropy: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        let path = Self::file_of(data_dir);
        let text: String = entropy.iter().map(|byte| format!("{byte:02x}")).collect();
        match write_new(&path, &text) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(KeyError::Io { path, source }),
        }
        Self::from_file(&path)
    }

    /// The token by which the pods of one attempt are let in, for what they fetch and send and nothing else.
    #[must_use]
    pub fn attempt_token(&self, run: RunId, attempt: u32) -> Secret {
        self.key.token(Bearer::Pods, run, attempt)
    }

    /// Whether a text is the token of an attempt's pods, by any of the keys: they have theirs for as long as they run.
    #[must_use]
    pub fn is_attempt_token(&self, run: RunId, attempt: u32, given: &str) -> bool {
        self.is_token(Bearer::Pods, run, attempt, given)
    }

    /// The token by which the script of one attempt is let in, to read its run and nothing else.
    #[must_use]
    pub fn script_token(&self, run: RunId, attempt: u32) -> Secret {
        self.key.token(Bearer::Script, run, attempt)
    }

    /// Whether a text is the token of an attempt's script, by any of the keys.
    #[must_use]
    pub fn is_script_token(&self, run: RunId, attempt: u32, given: &str) -> bool {
        self.is_token(Bearer::Script, run, attempt, given)
    }

    /// How long it takes tells nothing of how much of a guess was right.
    fn is_token(&self, bearer: Bearer, run: RunId, attempt: u32, given: &str) -> bool {
        let is_of = |key: &Key| key.token(bearer, run, attempt).expose().as_bytes().ct_eq(given.as_bytes());
        bool::from(self.keys().map(is_of).fold(Choice::from(0), |known, ours| known | ours))
    }

    /// Encrypts a text for a purpose, e.g. `datastore/training_data`. `nonce` is random and used once.
    ///
    /// # Errors
    /// When the text has more than 256 GiB.
    pub fn seal(
        &self,
        purpose: &str,
        text: &Secret,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, chacha20poly1305::Error> {
        let payload = Payload { msg: text.expose().as_bytes(), aad: purpose.as_bytes() };
        let sealed = self.key.cipher.encrypt(&XNonce::from(nonce), payload)?;
        Ok([&[VERSION][..], &self.key.id, &nonce, &sealed].concat())
    }

    /// Decrypts what was sealed for the same purpose.
    ///
    /// # Errors
    /// When another key or purpose sealed it, or it is damaged.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Secret, OpenError> {
        let (&version, rest) = sealed.split_first().ok_or(OpenError::Damaged)?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(OpenError::Damaged)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Damaged)?;
        let key =
            self.keys().find(|key| version == VERSION && *key_id == key.id).ok_or(OpenError::OtherKey)?;
        let payload = Payload { msg: sealed, aad: purpose.as_bytes() };
        let text = key.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| OpenError::Damaged)?;
        String::from_utf8(text).map(Secret::new).map_err(|_| OpenError::Damaged)
    }
}

impl Key {
    fn token(&self, bearer: Bearer, run: RunId, attempt: u32) -> Secret {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.token_key).expect("a key of any length will do");
        let of_whom = match bearer {
            Bearer::Pods => format!("{run} {attempt}"),
            Bearer::Script => format!("script {run} {attempt}"),
        };
        mac.update(of_whom.as_bytes());
        let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Secret::new(format!("{}{digits}", bearer.prefix()))
    }
}

/// Whole or not at all: a key that was cut off would lose what it sealed.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let partial = path.with_extension("key.partial");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // A link, unlike a rename, never takes the place of a key that is there.
    let linked = fs::hard_link(&partial, path);
    fs::remove_file(&partial)?;
    linked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn what_was_sealed_opens_for_its_purpose_alone() {
        let vault = Vault::new([7; 32]);
        let sealed = vault.seal("datastore/a", &secret("s3cret ü"), [1; 24]).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"s3cret"));
        assert_eq!(vault.open("datastore/a", &sealed), Ok(secret("s3cret ü")));
        assert_eq!(vault.open("datastore/b", &sealed), Err(OpenError::Damaged));
        assert_eq!(Vault::new([8; 32]).open("datastore/a", &sealed), Err(OpenError::OtherKey));
        for at in 9..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(vault.open("datastore/a", &damaged), Err(OpenError::Damaged), "byte {at}");
        }
        for end in 0..sealed.len() {
            assert!(vault.open("datastore/a", &sealed[..end]).is_err());
        }
    }

    #[test]
    fn a_token_is_that_of_one_attempt_and_one_key() {
        let vault = Vault::new([7; 32]);
        let (run, other) = (RunId::from_uuid(uuid::Uuid::nil()), RunId::from_uuid(uuid::Uuid::max()));
        let token = vault.attempt_token(run, 1);
        assert!(vault.is_attempt_token(run, 1, token.expose()));
        assert_eq!(vault.attempt_token(run, 1), token, "every part of the service makes the same");
        assert!(!vault.is_attempt_token(run, 2, token.expose()));
        assert!(!vault.is_attempt_token(other, 1, token.expose()));
        assert!(!Vault::new([8; 32]).is_attempt_token(run, 1, token.expose()));
        for text in ["", "est-attempt-v1.", &token.expose()[..40], &format!("{}0", token.expose())] {
            assert!(!vault.is_attempt_token(run, 1, text), "{text}");
        }
        let script = vault.script_token(run, 1);
        assert!(
            vault.is_script_token(run, 1, script.expose()) && !vault.is_script_token(run, 2, script.expose())
        );
        assert!(is_of_script(script.expose()) && !is_of_script(token.expose()));
        // Neither opens what the other does, also under the other's name.
        assert!(
            !vault.is_attempt_token(run, 1, script.expose())
                && !vault.is_script_token(run, 1, token.expose())
        );
        let renamed = |token: &Secret, prefix: &str| {
            token.expose().split_once('.').map(|(_, digits)| format!("{prefix}.{digits}")).unwrap()
        };
        assert!(!vault.is_attempt_token(run, 1, &renamed(&script, "est-attempt-v1")));
        assert!(!vault.is_script_token(run, 1, &renamed(&token, "est-run-v1")));
    }

    #[test]
    fn other_keys_open_and_their_tokens_are_known_but_nothing_is_sealed_with_them() {
        let (old, new) = (Vault::new([7; 32]), Vault::new([8; 32]));
        let sealed = old.seal("p", &secret("x"), [1; 24]).unwrap();
        let both = new.clone().opening_also([Vault::new([6; 32]), old.clone()]);
        assert_eq!(both.open("p", &sealed), Ok(secret("x")));
        assert!(old.has_sealed(&sealed) && !both.has_sealed(&sealed) && !old.has_sealed(&sealed[..8]));
        let again = both.seal("p", &secret("x"), [2; 24]).unwrap();
        assert_eq!(
            (new.open("p", &again), old.open("p", &again)),
            (Ok(secret("x")), Err(OpenError::OtherKey))
        );
        assert_eq!(
            (both.alone().open("p", &sealed), both.alone().open("p", &again)),
            (Err(OpenError::OtherKey), Ok(secret("x")))
        );
        let run = RunId::from_uuid(uuid::Uuid::nil());
        assert_eq!(both.attempt_token(run, 1), new.attempt_token(run, 1));
        for vault in [&old, &new, &both] {
            assert!(both.is_attempt_token(run, 1, vault.attempt_token(run, 1).expose()));
        }
        assert!(!both.is_attempt_token(run, 1, Vault::new([9; 32]).attempt_token(run, 1).expose()));
    }

    #[test]
    fn a_data_directory_keeps_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let first = Vault::of_data_dir(directory.path(), [1; 32]).unwrap();
        let again = Vault::of_data_dir(directory.path(), [2; 32]).unwrap();
        let sealed = first.seal("p", &secret("x"), [0; 24]).unwrap();
        assert_eq!(again.open("p", &sealed), Ok(secret("x")));
        let path = directory.path().join("secret.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Vault::of_data_dir(directory.path(), [3; 32]), Err(KeyError::Readable(_))));
    }

    #[test]
    fn only_keys_are_keys() {
        assert!(Vault::from_text(&format!(" {}\n", "0a".repeat(32))).is_ok());
        for text in ["", "0a", &"0g".repeat(32), &"é".repeat(32), &"0a".repeat(33)] {
            assert!(matches!(Vault::from_text(text), Err(KeyError::Malformed)), "{text}");
        }
    }
}

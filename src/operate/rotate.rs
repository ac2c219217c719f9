//! `estimatord rotate-secret-key`: everything that is kept encrypted, encrypted with another key, while the service runs.
//!
//! A row is replaced in one statement and only while it is what was read, so that nothing is lost when somebody changes it meanwhile,
//! and nothing is half done when this is killed. Every row says which key it is under; whoever begins again finds out by reading.

use anyhow::{Context as _, bail};

use crate::{
    clock::entropy,
    config::RotateSecretKey,
    domain::{project::Qualified, secret::Secret},
    installation::{self, OpenDatabase, secret_key},
    storage::{
        Storage, StorageError,
        sealed::{SealedKind, SealedOwner, SealedRow},
    },
    vault::{Vault, purposes},
};

/// How many rows are read at once.
const PAGE: u32 = 200;

/// How often everything is gone through before it is said that somebody still writes with another key.
const ROUNDS: u32 = 4;

/// How many rows an error names.
const NAMED: usize = 10;

/// Why a rotation came to nothing, or to no end. What it did before stays done, and it can be begun again.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Nothing was changed.
    #[error(
        "nothing was changed, because not everything can be decrypted: {}{}. Name every key that is in use with \
         --secret-key-file and --other-secret-key-files, or make what is lost anew",
        .rows[..NAMED.min(.rows.len())].join("; "),
        .rows.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("; and {more} more")).unwrap_or_default()
    )]
    Locked {
        /// What cannot be opened, and why.
        rows: Vec<String>,
    },
    /// Others go on writing with the key before.
    #[error(
        "{rows} rows were encrypted with another key while this was at work: a replica of the service still encrypts with that. Start \
         every replica with the new key as its --secret-key-file, then run this again"
    )]
    StillWritten {
        /// How many in the last round.
        rows: u64,
    },
    /// The cipher failed.
    #[error("{0} could not be encrypted")]
    Cipher(SealedOwner),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Rows that have something encrypted.
    pub rows: u64,
    /// Those among them that were encrypted anew.
    pub rewritten: u64,
}

/// `estimatord rotate-secret-key`.
///
/// # Errors
/// When a key or the database cannot be used, or not everything can be decrypted; the message says what to do.
pub async fn rotate_secret_key(settings: &RotateSecretKey) -> anyhow::Result<()> {
    let data_dir = match settings.database.database_url {
        Some(_) => None,
        None => Some(installation::data_dir_path(&settings.database)?),
    };
    let old = secret_key::of_installation(&settings.secret_key, &settings.database, data_dir.as_deref())?;
    let Some(old) = old else {
        bail!("there is no key to decrypt with: name the one that is in use with --secret-key-file");
    };
    let new = match &settings.new_key_file {
        Some(path) => Vault::from_file(path).context("the new key")?,
        None => old.alone(),
    };
    let database = OpenDatabase::beside_the_service(&settings.database).await?;
    let rotated = match database.storage.check_schema().await {
        Ok(()) => rotate(&database.storage, &old, &new).await.map_err(anyhow::Error::from),
        Err(error) => Err(error.into()),
    };
    database.close().await;
    let Rotation { rows, rewritten } = rotated?;
    println!("{rewritten} of {rows} rows were encrypted anew, and all of them open with the new key alone");
    Ok(())
}

/// Encrypts everything with the key of `new`. `old` opens what is not yet.
///
/// # Errors
/// When something opens with neither key, then before anything is changed; and when somebody goes on writing with another one.
pub async fn rotate(storage: &Storage, old: &Vault, new: &Vault) -> Result<Rotation, RotationError> {
    let both = new.clone().opening_also([old.clone()]);
    every_row_opens(storage, &both).await?;
    let (mut rewritten, mut late) = (0, 0);
    for _ in 0..ROUNDS {
        let done = round(storage, &both).await?;
        rewritten += done.rewritten;
        late = done.rewritten;
        if late == 0 {
            every_row_opens(storage, new).await?;
            return Ok(Rotation { rows: done.rows, rewritten });
        }
    }
    Err(RotationError::StillWritten { rows: late })
}

/// What one going through did.
struct Round {
    rows: u64,
    rewritten: u64,
}

async fn round(storage: &Storage, vault: &Vault) -> Result<Round, RotationError> {
    let mut done = Round { rows: 0, rewritten: 0 };
    for kind in SealedKind::ALL {
        let mut pages = Pages::new(storage, kind);
        while let Some(page) = pages.next().await? {
            for row in page {
                done.rows += 1;
                if row.texts.iter().all(|text| vault.has_sealed(text)) {
                    continue;
                }
                let opened = open(vault, &row).map_err(|why| RotationError::Locked { rows: vec![why] })?;
                let purpose = purpose(&row.owner);
                let sealed: Result<Vec<Vec<u8>>, _> =
                    opened.iter().map(|text| vault.seal(&purpose, text, entropy())).collect();
                let sealed = sealed.map_err(|_| RotationError::Cipher(row.owner.clone()))?;
                // Somebody else's change in between is found in the next round.
                storage.replace_sealed(&row, &sealed).await?;
                done.rewritten += 1;
            }
        }
    }
    Ok(done)
}

/// Whether everything can be decrypted.
async fn every_row_opens(storage: &Storage, vault: &Vault) -> Result<(), RotationError> {
    let locked = survey(storage, vault).await?.locked;
    if locked.is_empty() { Ok(()) } else { Err(RotationError::Locked { rows: locked }) }
}

/// What is kept encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many rows have something encrypted.
    pub rows: u64,
    /// How many of them have something that opens, and with another key than what is encrypted with now.
    pub under_others: u64,
    /// What does not open, and why.
    pub locked: Vec<String>,
}

/// Looks at everything that is kept encrypted, and tries to open it.
///
/// # Errors
/// When the database fails.
pub async fn survey(storage: &Storage, vault: &Vault) -> Result<Survey, StorageError> {
    let mut found = Survey::default();
    for kind in SealedKind::ALL {
        let mut pages = Pages::new(storage, kind);
        while let Some(page) = pages.next().await? {
            for row in page {
                found.rows += 1;
                match open(vault, &row) {
                    Err(why) => found.locked.push(why),
                    Ok(_) if !row.texts.iter().all(|text| vault.has_sealed(text)) => found.under_others += 1,
                    Ok(_) => {}
                }
            }
        }
    }
    Ok(found)
}

fn open(vault: &Vault, row: &SealedRow) -> Result<Vec<Secret>, String> {
    let purpose = purpose(&row.owner);
    let opened: Result<Vec<Secret>, _> = row.texts.iter().map(|text| vault.open(&purpose, text)).collect();
    opened.map_err(|error| format!("{}: {error}", row.owner))
}

/// What it was encrypted for.
fn purpose(owner: &SealedOwner) -> String {
    match owner {
        SealedOwner::Estimator(id) => purposes::registry_password(*id),
        SealedOwner::Datastore(name) => {
            purposes::datastore_credentials(&Qualified::from_stored(name.clone()))
        }
        SealedOwner::Webhook(name) => purposes::webhook_secret(&Qualified::from_stored(name.clone())),
    }
}

/// The rows of a kind, page by page.
struct Pages<'a> {
    storage: &'a Storage,
    kind: SealedKind,
    after: Option<SealedOwner>,
}

impl<'a> Pages<'a> {
    const fn new(storage: &'a Storage, kind: SealedKind) -> Self {
        Self { storage, kind, after: None }
    }

    async fn next(&mut self) -> Result<Option<Vec<SealedRow>>, StorageError> {
        let page = self.storage.sealed_rows(self.kind, self.after.as_ref(), PAGE).await?;
        self.after = page.last().map(|row| row.owner.clone());
        Ok(Some(page).filter(|page| !page.is_empty()))
    }
}

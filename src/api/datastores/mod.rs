//! Datastores: where data lies.

mod body;
pub mod delete;
pub mod get;
pub mod list;
pub mod put;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{
        datastore::{DatastoreKind, DatastoreName},
        datastore_access::DatastoreOptions,
    },
    storage::datastores as stored,
};

pub use body::DatastoreBody;

/// A datastore.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Datastore {
    /// Its name.
    #[schema(example = "training_data")]
    pub name: DatastoreName,
    /// What kind of place it is.
    pub kind: DatastoreKind,
    /// Where it is.
    #[schema(example = "file:///srv/datasets")]
    pub url: String,
    /// How it is asked, as far as the address does not say it.
    pub options: DatastoreOptions,
    /// Whether credentials are kept for it. They are never shown.
    pub has_credentials: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last put.
    pub updated_at: DateTime<Utc>,
}

impl From<stored::StoredDatastore> for Datastore {
    fn from(stored: stored::StoredDatastore) -> Self {
        Self {
            name: stored.datastore.name,
            kind: stored.datastore.url.kind(),
            url: stored.datastore.url.as_str().to_owned(),
            options: stored.options,
            has_credentials: stored.has_credentials,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

//! JSON for `json` columns, as it is. `sqlx::types::Json` announces `jsonb`, and PostgreSQL would convert it on the way: keys
//! reordered, duplicate keys dropped, numbers respelt. The order of `script_params` is argv.

use serde::Serialize;
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, types::Oid},
};

/// The fixed number of the type `json` (pg_type.dat).
const JSON_OID: Oid = Oid(114);

/// A value for a `json` column.
pub(in crate::storage) struct OrderedJson<'a, T>(pub &'a T);

impl<T> Type<Postgres> for OrderedJson<'_, T> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSON_OID)
    }
}

impl<T: Serialize> Encode<'_, Postgres> for OrderedJson<'_, T> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // The binary form of `json` is its text.
        serde_json::to_writer(&mut **buffer, self.0)?;
        Ok(IsNull::No)
    }
}

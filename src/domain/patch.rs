//! JSON Patches (RFC 6902) to a definition, in the few forms that fixes take. All are about members of the definition itself.

use json_patch::{
    AddOperation, MoveOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation,
    jsonptr::PointerBuf,
};
use serde_json::Value;

fn at(member: &str) -> PointerBuf {
    PointerBuf::from_tokens([member])
}

/// Adds a member, or replaces it when it is there.
pub(crate) fn add(member: &str, value: impl Into<Value>) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: at(member), value: value.into() })
}

/// Removes a member that is there.
pub(crate) fn remove(member: &str) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: at(member) })
}

/// Removes a member, whether it is there or not: several findings may ask for the same, and whoever applies their patches one
/// after the other shall not fail at the second. Adding replaces what is there, so that there is something to remove.
pub(crate) fn discard(member: &str) -> [PatchOperation; 2] {
    [add(member, Value::Null), remove(member)]
}

/// Replaces the value of a member that is there.
pub(crate) fn replace(member: &str, value: impl Into<Value>) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation { path: at(member), value: value.into() })
}

/// Gives a member that is there another name.
pub(crate) fn rename(from: &str, to: &str) -> PatchOperation {
    PatchOperation::Move(MoveOperation { from: at(from), path: at(to) })
}

/// Operations as a patch.
pub(crate) fn patch(operations: impl IntoIterator<Item = PatchOperation>) -> Patch {
    Patch(operations.into_iter().collect())
}

//! Placeholder of this branch.

use super::{NotExpressed, Subject};

pub(super) fn render(_: &Subject<'_>) -> (String, Vec<NotExpressed>) {
    (String::new(), Vec::new())
}

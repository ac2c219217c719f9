//! Lists: `limit`, an opaque `cursor` that belongs to one list with its filters, and the answer's envelope.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{error::ApiError, etag::hex, extract::ApiQuery};

/// How long the pages of a list may be.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// When nothing is said.
    pub default: u32,
    /// At most.
    pub maximum: u32,
    /// The same in words.
    pub form: &'static str,
}

const LIMIT: Limit = Limit { default: 50, maximum: 200, form: "an integer from 1 to 200" };

const NO_CURSOR: &str = "the cursor cannot be read; start again without one";
const OTHER_LIST: &str =
    "the cursor was given by another list or with other filters; start again without one";

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins: send it back as `cursor`, with the same filters. Null on the last page.
    pub next_cursor: Option<String>,
}

/// Which page is asked for.
#[derive(Clone, Debug)]
pub struct PageRequest<K> {
    /// How many entries.
    pub limit: u32,
    /// The key of the last entry of the page before.
    pub after: Option<K>,
    list: String,
}

#[derive(Serialize, Deserialize)]
struct Cursor<K> {
    list: String,
    after: K,
}

impl<K: Serialize + DeserializeOwned> PageRequest<K> {
    /// Takes `limit` and `cursor`. `list` names the list and its filters: what a cursor is bound to.
    ///
    /// # Errors
    /// When one of them has not the right form, or the cursor belongs to another list.
    pub fn take(query: &mut ApiQuery, list: &str) -> Result<Self, ApiError> {
        Self::take_with(query, list, LIMIT)
    }

    /// The same for a list whose pages have another length.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_with(query: &mut ApiQuery, list: &str, length: Limit) -> Result<Self, ApiError> {
        let form = length.form;
        let limit = query.take_number("limit", 1..=length.maximum, form)?.unwrap_or(length.default);
        let list = hex(&Sha256::digest(list.as_bytes())[..8]);
        let after = match query.take("cursor")? {
            None => None,
            Some(text) => {
                let cursor: Cursor<K> = unhex(&text)
                    .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                    .ok_or(ApiError::Cursor(NO_CURSOR))?;
                if cursor.list != list {
                    return Err(ApiError::Cursor(OTHER_LIST));
                }
                Some(cursor.after)
            }
        };
        Ok(Self { limit, after, list })
    }

    /// How many rows to read: one more than is shown tells whether there is a next page.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.limit + 1
    }

    /// Cuts what was read to the page, and makes the cursor of the next one.
    #[must_use]
    pub fn page<T>(self, mut items: Vec<T>, key: impl Fn(&T) -> K) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        self.page_of(items, more, key)
    }

    /// A page of these; where there are `more`, with the cursor of the next one.
    #[must_use]
    pub fn page_of<T>(self, items: Vec<T>, more: bool, key: impl Fn(&T) -> K) -> Page<T> {
        let next_cursor = items.last().filter(|_| more).and_then(|last| {
            let cursor = Cursor { list: self.list, after: key(last) };
            serde_json::to_vec(&cursor).ok().map(|bytes| hex(&bytes))
        });
        Page { items, next_cursor }
    }
}

impl<T> Page<T> {
    /// The same page of something else.
    #[must_use]
    pub fn map<U>(self, of: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(of).collect(), next_cursor: self.next_cursor }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

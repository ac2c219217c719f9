//! The limit of what a script may write, which its supervisor sees to.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    confinement::{Confinement, DiskUse, Found, measure},
    supervisor::note,
};

/// Between two looks, at least.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many times longer than a look took the script is left alone.
const LEISURE: u32 = 10;

/// Looks now and then what the script takes of the disk.
pub(super) struct DiskWatch<'a> {
    what: DiskUse<'a>,
    /// How many bytes it may take.
    limit: Option<u64>,
    /// What was there before it began.
    prepared: u64,
    next_look: Option<Instant>,
    /// Why it was too much.
    remark: Option<String>,
}

impl<'a> DiskWatch<'a> {
    /// Begins: what is there now was not written by the script.
    pub(super) fn new(root: &'a Path, confinement: &Confinement) -> Self {
        let what = DiskUse { root, user: confinement.user };
        let limit = confinement.limits.disk_bytes;
        let prepared = match limit.map(|_| measure(&what, u64::MAX, || true)) {
            Some(Ok(Found::Bytes(bytes))) => bytes,
            _ => 0,
        };
        Self { what, limit, prepared, next_look: limit.map(|_| Instant::now() + INTERVAL), remark: None }
    }

    /// When it is looked at next; none when nobody looks.
    pub(super) const fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Why it was too much, once it was.
    pub(super) fn into_remark(self) -> Option<String> {
        self.remark
    }

    /// Whether it takes more than it may, as far as it was looked at; not where `is_news` says that something else matters more.
    pub(super) fn is_over(&mut self, is_news: impl Fn() -> bool) -> bool {
        let (Some(limit), Some(at)) = (self.limit, self.next_look) else { return false };
        let began = Instant::now();
        if began < at {
            return false;
        }
        let enough = limit.saturating_add(self.prepared);
        let found = measure(&self.what, enough, || !is_news());
        self.next_look = Some(Instant::now() + INTERVAL.max(began.elapsed() * LEISURE));
        self.remark = match found {
            Ok(Found::Bytes(bytes)) if bytes > enough => Some(format!(
                "it took {} bytes of the disk or more, and --run-disk-bytes allows {limit}",
                bytes - self.prepared
            )),
            Ok(Found::TooDeep) => {
                Some("its directories are nested too deep to tell what it takes of the disk".to_owned())
            }
            Ok(Found::Bytes(_) | Found::Interrupted) => None,
            Err(error) => {
                note(&format!("measure what the script takes of the disk: {error}"));
                None
            }
        };
        self.remark.is_some()
    }
}

//! Bytes of a log, put together from its segments.

use std::ops::Range;

use axum::body::Bytes;

use crate::{
    api::feed::LogName,
    artifacts::{Artifacts, ArtifactsError},
    domain::run::LOG_SEGMENT_BYTES,
};

/// Reads bytes of a log: as many as are asked for, but at most one segment's worth, so that memory stays bounded. Fewer only
/// where the store has fewer.
pub(super) async fn read(
    artifacts: &Artifacts,
    log: &LogName,
    range: Range<u64>,
) -> Result<Bytes, ArtifactsError> {
    let end = range.end.min(range.start.saturating_add(LOG_SEGMENT_BYTES));
    let mut at = range.start;
    let mut all = Vec::new();
    while at < end {
        let start = at - at % LOG_SEGMENT_BYTES;
        let within = at - start..(end - start).min(LOG_SEGMENT_BYTES);
        let bytes = artifacts.read_log_segment(log.run, log.attempt, &log.name, start, within).await?;
        if bytes.is_empty() {
            break;
        }
        if at == range.start && at + length(&bytes) >= end {
            // All of it, as it was read.
            return Ok(bytes);
        }
        at += length(&bytes);
        all.extend_from_slice(&bytes);
    }
    Ok(all.into())
}

/// How many bytes there are.
pub(super) fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(0)
}

//! `GET /v1/runs/{id}/outputs` and `GET /v1/runs/{id}/outputs/{path}`

use std::fmt::Write as _;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{log_files::take_attempt, progress};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiPath, ApiQuery},
        openapi::Binary,
        problem::Problem,
        range,
        scoped::Scoped,
    },
    domain::ids::RunId,
};

/// An output file.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OutputFile {
    /// Its path below `./outputs`.
    #[schema(example = "model.npz")]
    pub path: String,
    /// Its size.
    #[schema(minimum = 0, example = 4711)]
    pub bytes: u64,
    /// Hexadecimal digest of its content.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub sha256: String,
    /// Its attempt.
    #[schema(minimum = 1, maximum = 2_147_483_647, example = 1)]
    pub attempt: u32,
}

/// The output files of an attempt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OutputFiles {
    /// By path.
    pub items: Vec<OutputFile>,
}

/// List the output files of a run
///
/// What its script left in `./outputs`: those of the latest attempt, unless another one is asked for.
#[utoipa::path(
    get, path = "/v1/runs/{id}/outputs", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("attempt" = Option<u32>, Query, description = "The attempt; the latest when not given", minimum = 1, maximum = 2_147_483_647),
    ),
    responses(
        (status = 200, description = "The output files", body = OutputFiles),
        (status = 400, description = "The id or the attempt is malformed", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
    ),
)]
pub async fn list_run_outputs(
    state: Scoped,
    ApiPath(id): ApiPath<RunId>,
    mut query: ApiQuery,
) -> Result<Response, ApiError> {
    let attempt = take_attempt(&mut query)?;
    query.finish(&["attempt"])?;
    let progress = progress(&state, id).await?;
    let outputs = state.installation.list_run_outputs(id, attempt.unwrap_or(progress.attempt)).await?;
    let file = |output: crate::storage::run_files::RunOutput| OutputFile {
        path: output.name,
        bytes: output.bytes,
        sha256: output.sha256,
        attempt: output.attempt,
    };
    etag::json(StatusCode::OK, &OutputFiles { items: outputs.into_iter().map(file).collect() })
}

/// Download an output file
///
/// The whole of it, or the part that `Range` asks for. Its ETag is the digest of its content.
#[utoipa::path(
    get, path = "/v1/runs/{id}/outputs/{*path}", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("path" = String, Path, description = "The file's path; its slashes need not be escaped", example = "model.npz"),
        ("attempt" = Option<u32>, Query, description = "The attempt; the latest when not given", minimum = 1, maximum = 2_147_483_647),
        ("Range" = Option<String>, Header, description = "`bytes=<first>-<last>`"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the file still has this ETag"),
    ),
    responses(
        (status = 200, description = "The file", body = Binary, content_type = "application/octet-stream", headers(("ETag" = String, description = "The digest of its content"))),
        (status = 206, description = "The asked range", body = Binary, content_type = "application/octet-stream", headers(("Content-Range" = String, description = "Which bytes of how many"))),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "A parameter is malformed", body = Problem),
        (status = 404, description = "There is no such run, or it has no such output", body = Problem),
        (status = 416, description = "The range begins behind the end", body = Problem),
    ),
)]
pub async fn get_run_output(
    state: Scoped,
    ApiPath((id, name)): ApiPath<(RunId, String)>,
    mut query: ApiQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let attempt = take_attempt(&mut query)?;
    query.finish(&["attempt"])?;
    let attempt = attempt.unwrap_or(progress(&state, id).await?.attempt);
    let output = state.installation.get_run_output(id, attempt, &name).await?;
    let Some(output) = output else {
        return Err(ApiError::NoFileOfAttempt { what: "output", name, attempt });
    };
    let tag = format!("\"{}\"", output.sha256);
    let mut response = if etag::is_held(&headers, &tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        content(&state, id, attempt, &name, output.bytes, &headers, &tag).await?
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

async fn content(
    state: &Scoped,
    id: RunId,
    attempt: u32,
    name: &str,
    total: u64,
    request: &HeaderMap,
    tag: &str,
) -> Result<Response, ApiError> {
    // A range of another version of the file is of no use (RFC 9110, 13.1.5).
    let is_current = request.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == tag.as_bytes());
    let ranged = if is_current { range::asked(request, total)? } else { None };
    let (status, bytes) = match &ranged {
        Some(range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
        None => (StatusCode::OK, 0..total),
    };
    let (_, stream) = state.artifacts.read_output(id, attempt, name, ranged).await?;
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (bytes.end - bytes.start).into());
    if let Ok(value) = HeaderValue::from_str(&disposition(name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    let content_range = format!("bytes {}-{}/{total}", bytes.start, bytes.end.saturating_sub(1));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&content_range)
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

/// Saved, never shown: the file was written by a training script. The name in plain ASCII, and in full (RFC 6266).
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let mut full = String::with_capacity(name.len());
    for byte in name.bytes() {
        if is_plain(char::from(byte)) {
            full.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(full, "%{byte:02X}");
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{full}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_header() {
        assert_eq!(
            disposition("a/b\"; x=\r\nü.txt"),
            "attachment; filename=\"b___x____.txt\"; filename*=UTF-8''b%22%3B%20x%3D%0D%0A%C3%BC.txt"
        );
    }
}

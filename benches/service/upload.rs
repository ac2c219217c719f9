//! A large snapshot: read, judged, hashed and kept, beside hashing and copying the same bytes.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::ensure;
use hyper::StatusCode;

use crate::{
    context::Context,
    database::Database,
    figure::{Figure, Goal, Outcome},
    http::{Call, Connection},
    latencies::median,
    service::Service,
    usage,
};

/// What the row is called.
pub const NAME: &str = "upload";

/// How many files the snapshot has.
const FILES: usize = 10;

/// Uploads and copies in turn, each time something else: what was uploaded before is known.
///
/// # Errors
/// When anything that is needed fails.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let (mebibytes, rounds) = if context.short { (10, 3) } else { (100, 5) };
    let database = Database::start(context)?;
    database.create(NAME)?;
    let service = Service::start(context, NAME, &database.url(NAME), &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut connection = runtime.block_on(Connection::open(service.address()))?;
    let mut upload = |archive: Vec<u8>| {
        let call = Call::send("/v1/snapshots", "application/x-tar", archive, StatusCode::CREATED)?;
        let began = Instant::now();
        runtime.block_on(connection.ask(&call))?;
        anyhow::Ok(began.elapsed().as_secs_f64())
    };
    // What only the first one costs, also in memory, has nothing to do with size.
    upload(archive(1 << 10)?)?;
    let before = usage::memory(service.pid())?;
    let (mut ours, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let archive = archive((mebibytes << 20) / FILES)?;
        copies.push(hash_and_copy(&archive, &context.directory)?);
        ours.push(upload(archive)?);
    }
    let after = usage::memory(service.pid())?;
    let (ours, copies) = (median(&ours), median(&copies));
    let rate = |seconds: f64| f64::from(u32::try_from(mebibytes).unwrap_or(u32::MAX)) / seconds;
    Ok(vec![Figure {
        what: format!("`POST /v1/snapshots`, a tar of {mebibytes} MiB in {FILES} files, {rounds} times"),
        ours: format!(
            "{:.0} MiB/s; {:.0} MiB at most, {:.0} MiB before",
            rate(ours),
            after.peak,
            before.peak
        ),
        peer: format!("`sha256sum`, `cp` and `sync` of the same: {:.0} MiB/s", rate(copies)),
        outcomes: vec![
            Outcome {
                of: "rate",
                value: copies / ours,
                unit: "×",
                goal: Goal::AtLeast(0.5),
                floor: Some(Goal::AtLeast(0.1)),
            },
            Outcome {
                of: "growth of memory",
                value: after.peak - before.peak,
                unit: "MiB",
                goal: Goal::AtMost(16.0),
                floor: Some(Goal::AtMost(32.0)),
            },
        ],
    }])
}

/// Files that cannot be made smaller, and that nobody has seen before.
fn archive(bytes_per_file: usize) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut content = vec![0; bytes_per_file];
    for file in 0..FILES {
        rand::fill(&mut content[..]);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("data/{file}.bin"), &content[..])?;
    }
    Ok(archive.into_inner()?)
}

/// How long the usual tools take to hash a file and to have a copy of it on the disk, in seconds.
fn hash_and_copy(content: &[u8], directory: &Path) -> anyhow::Result<f64> {
    let (file, copy) = (directory.join("snapshot.tar"), directory.join("copy.tar"));
    let mut written = File::create(&file)?;
    written.write_all(content)?;
    written.sync_all()?;
    let mut tools = Command::new("sh");
    tools.args(["-ec", r#"sha256sum "$1"; cp "$1" "$2"; sync "$2""#, "sh"]).arg(&file).arg(&copy);
    let began = Instant::now();
    let status = tools.stdout(Stdio::null()).status()?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(status.success(), "sha256sum, cp or sync failed");
    fs::remove_file(file)?;
    fs::remove_file(copy)?;
    Ok(seconds)
}

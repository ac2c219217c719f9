//! `estimatord hand-over`: sends back what the script of an attempt writes, while it runs and when it has ended. A sidecar: the
//! cluster tells it to end when the script's container has.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    connection::{Connection, PodError, Service, Tried},
    pack::{Written, pack_returned},
};
use crate::domain::exchange::{HOME, PartName, RECORDS, WORK};

/// What is sent while the script runs has at most so many bytes; at the end everything is sent.
const MAX_PARTIAL_BYTES: u64 = 200 << 20;
/// Below the home: there once signals are heard.
const READY: &str = ".hand-over-ready";
/// What one piece of a body has.
const PIECE: usize = 1 << 18;

/// Sends back what the script of one attempt writes.
#[derive(Clone, Debug, clap::Args)]
pub struct HandOver {
    #[command(flatten)]
    connection: Connection,
    /// The name of this pod
    #[arg(long, value_name = "NAME")]
    part: PartName,
    /// A place whose files go to a datastore: `work/…` or `home/data/…`
    #[arg(long, value_name = "PLACE")]
    upload: Vec<String>,
    /// Seconds between two looks at what was recorded and logged
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    interval: u64,
    /// How many seconds to try for at the end while the service does not answer
    #[arg(long, value_name = "SECONDS", default_value_t = 540)]
    final_timeout: u64,
}

/// Runs `estimatord hand-over`.
pub async fn hand_over(args: HandOver) -> ExitCode {
    match until_told(&args).await {
        Ok(()) => {
            println!("handed over");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("estimatord: cannot hand over what the script wrote: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn until_told(args: &HandOver) -> Result<(), PodError> {
    // Before anything else: who is told to end early has something to hand over too.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // The cluster does not start the script before it sees this.
    fs::write(args.connection.home.join(READY), "")?;
    let service = Service::new(&args.connection)?;
    let growing = places(args, false)?;
    let everything = places(args, true)?;
    let mut sent = BTreeMap::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(Duration::from_secs(args.interval)) => {}
        }
        let seen = look(&growing)?;
        let bytes: u64 = seen.values().map(|(bytes, _)| bytes).sum();
        if seen == sent || bytes > MAX_PARTIAL_BYTES {
            continue;
        }
        let sending = send(&service, args, &growing, false);
        tokio::select! {
            done = sending => match done {
                Ok(()) => sent = seen,
                // At the end it is sent all the same.
                Err(Tried::Passing(why)) => println!("not sent yet: {why}"),
                Err(Tried::Final(error)) => println!("not sent: {error}"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    let patience = Duration::from_secs(args.final_timeout);
    // The streams of signals are still there: another signal interrupts nothing.
    service.insist(patience, async || send(&service, args, &everything, true).await).await
}

/// What is sent.
fn places(args: &HandOver, is_final: bool) -> Result<Vec<Written>, PodError> {
    let Connection { work, home, .. } = &args.connection;
    let place = |root: &Path, path: &str, top: &str| Written {
        root: root.to_owned(),
        path: path.to_owned(),
        name: format!("{top}/{path}"),
    };
    let mut places = vec![place(home, RECORDS, HOME), place(work, "logs", WORK)];
    if is_final {
        places.push(place(work, "outputs", WORK));
        for upload in &args.upload {
            let (top, path) = upload.split_once('/').unwrap_or((upload, ""));
            let is_sound = !path.is_empty()
                && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
            let root = match top {
                WORK if is_sound => work,
                HOME if is_sound => home,
                _ => return Err(PodError::Told(format!("--upload {upload}: no place below work or home"))),
            };
            places.push(place(root, path, top));
        }
    }
    Ok(places)
}

/// The files that there are, with their sizes and times.
fn look(places: &[Written]) -> io::Result<BTreeMap<PathBuf, (u64, i64)>> {
    let mut seen = BTreeMap::new();
    let mut open: Vec<PathBuf> = places.iter().map(|place| place.root.join(&place.path)).collect();
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry?;
            // Links are not followed; what is gone by now is gone.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.is_file() {
                seen.insert(entry.path(), (metadata.len(), metadata.mtime_nsec() + metadata.mtime()));
            }
        }
    }
    Ok(seen)
}

async fn send(service: &Service, args: &HandOver, places: &[Written], is_final: bool) -> Result<(), Tried> {
    let (pieces, body) = mpsc::channel(4);
    let places = places.to_vec();
    let packing = tokio::task::spawn_blocking(move || {
        let failed = pieces.clone();
        let mut body = Pieces { pieces, piece: Vec::with_capacity(PIECE) };
        let packed = pack_returned(&places, &mut body).and_then(io::Write::flush);
        if let Err(error) = packed {
            // A body that ended here would look whole. Whoever took it may be gone: then there is nobody to tell.
            let _ = failed.blocking_send(Err(error));
        }
    });
    let query = [("final", if is_final { "true" } else { "false" })];
    let request = service
        .put(&["returned", args.part.as_str()])
        .query(&query)
        .header(reqwest::header::CONTENT_TYPE, "application/x-tar")
        .body(reqwest::Body::wrap_stream(ReceiverStream::new(body)));
    let sent = service.send(request).await;
    packing.await.map_err(|error| Tried::Passing(error.to_string()))?;
    sent.map(drop)
}

/// What is written, in pieces for a body.
struct Pieces {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.pieces.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the body"))
    }
}

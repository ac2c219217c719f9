//! `estimatord stage`: fetches source tree and data into a pod, before anything else runs in it.

use std::{io, process::ExitCode, time::Duration};

use futures_util::TryStreamExt as _;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{
    connection::{Connection, PodError, Service, Tried, cause},
    unpack::{Unpacked, unpack_bundle},
};

/// Fetches source tree and data of one attempt into a pod.
#[derive(Clone, Debug, clap::Args)]
pub struct Stage {
    #[command(flatten)]
    connection: Connection,
    /// How many seconds to try for while the service does not answer
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,
}

/// Runs `estimatord stage`.
pub async fn stage(args: Stage) -> ExitCode {
    match fetch(&args).await {
        Ok(Unpacked { files, bytes }) => {
            println!("fetched {files} file(s) with {bytes} bytes");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("estimatord: cannot fetch source tree and data: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(super) async fn fetch(args: &Stage) -> Result<Unpacked, PodError> {
    let service = Service::new(&args.connection)?;
    service.insist(Duration::from_secs(args.timeout), async || once(&service, &args.connection).await).await
}

async fn once(service: &Service, connection: &Connection) -> Result<Unpacked, Tried> {
    let response = service.send(service.get(&["bundle"])).await?;
    let body = response.bytes_stream().map_err(|error| {
        // What breaks off is fetched again; what this disk says is final.
        io::Error::new(io::ErrorKind::ConnectionReset, cause(&error))
    });
    let body = SyncIoBridge::new(StreamReader::new(body));
    let (work, home) = (connection.work.clone(), connection.home.clone());
    let unpacked = tokio::task::spawn_blocking(move || unpack_bundle(body, &work, &home)).await;
    match unpacked.map_err(io::Error::other) {
        Ok(Ok(unpacked)) => Ok(unpacked),
        Ok(Err(error)) | Err(error) => Err(match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                Tried::Passing(error.to_string())
            }
            _ => Tried::Final(error.into()),
        }),
    }
}

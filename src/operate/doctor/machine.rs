//! Looking at the machine.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::{
        resource::{Resource, getrlimit},
        statvfs::statvfs,
    },
    unistd::Uid,
};
use tokio::process::Command;

use crate::{
    config::Serve,
    domain::doctor::{DirectoryFacts, Program, ProgramFacts},
};

/// How long a program may take to say its version. Docker's waits for its daemon.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this is root.
pub(super) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The hard limit of open files.
pub(super) fn open_files() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

/// Where an address can be asked from this machine: one that stands for all of them stands for this machine's own.
pub(super) const fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// What is at a path. To find out whether something can be written into it, an empty file is made and removed.
pub(super) fn directory(path: &Path) -> DirectoryFacts {
    let shown = path.display().to_string();
    let unusable = |why: String| DirectoryFacts::Unusable { path: shown.clone(), why };
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return DirectoryFacts::Missing { path: shown };
        }
        Err(error) => return unusable(error.to_string()),
    };
    if !found.is_dir() {
        return unusable("it is no directory".to_owned());
    }
    let free = match statvfs(path) {
        Ok(space) => space.blocks_available().saturating_mul(space.fragment_size()),
        Err(error) => return unusable(error.to_string()),
    };
    // Made without a name that could be somebody's, and gone with its value.
    let not_writable = tempfile::tempfile_in(path).err().map(|error| error.to_string());
    DirectoryFacts::There {
        path: shown,
        not_writable,
        is_ours: found.uid() == Uid::effective().as_raw(),
        mode: found.mode() & 0o777,
        free,
    }
}

/// Which program stands for what, and how it is asked for its version: the first that is there counts.
fn candidates(
    program: Program,
    settings: &Serve,
    data_dir: &Path,
) -> Vec<(PathBuf, &'static [&'static str])> {
    let version: &[&str] = &["--version"];
    let named = |given: &Option<PathBuf>, names: &[PathBuf]| match given {
        Some(path) => vec![(path.clone(), version)],
        None => names.iter().map(|name| (name.clone(), version)).collect(),
    };
    match program {
        Program::Python => vec![("python3".into(), version)],
        Program::Uv => named(&settings.uv, &["uv".into(), data_dir.join("tools/uv/bin/uv")]),
        Program::Conda => named(&settings.conda, &["micromamba".into(), "mamba".into(), "conda".into()]),
        Program::Containers => {
            // Both ask whatever does the work, and not the program alone.
            vec![
                ("docker".into(), &["version", "--format", "Docker {{.Server.Version}}"]),
                ("podman".into(), &["version", "--format", "Podman {{.Client.Version}}"]),
            ]
        }
        Program::Mpi => vec![("mpirun".into(), version)],
    }
}

/// What a program says of itself.
pub(super) async fn program(program: Program, settings: &Serve, data_dir: &Path) -> ProgramFacts {
    let mut broken = None;
    for (path, arguments) in candidates(program, settings, data_dir) {
        let mut command = Command::new(&path);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let shown = path.display();
        let why = match tokio::time::timeout(PATIENCE, command.output()).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
            Ok(Ok(output)) if output.status.success() => {
                return ProgramFacts::Works { version: format!("{} ({shown})", first_line(&output.stdout)) };
            }
            Ok(Ok(output)) => format!("{}: {}", output.status, first_line(&output.stderr)),
        };
        broken.get_or_insert(format!("{shown}: {why}"));
    }
    broken.map_or(ProgramFacts::Missing, |why| ProgramFacts::Broken { why })
}

fn first_line(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().lines().next().unwrap_or_default().to_owned()
}

//! The machine: directories, programs, limits, and whether the service answers.

use core::net::SocketAddr;

use super::Finding;

const GIB: u64 = 1 << 30;
/// Below this the next snapshot or environment may not fit.
const HARDLY_ANY_ROOM: u64 = GIB;
/// Below this somebody should look soon: an environment with a framework takes some gigabytes.
const LITTLE_ROOM: u64 = 10 * GIB;
/// What the service raises its limit to, where it may.
const OPEN_FILES: u64 = 65_536;
/// With fewer a few hundred followers use them up.
const FEW_OPEN_FILES: u64 = 4096;

/// What was seen of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryFacts {
    /// It is not there.
    Missing {
        /// Where it would be.
        path: String,
    },
    /// Something else is there, or it cannot be looked at.
    Unusable {
        /// Where.
        path: String,
        /// Why.
        why: String,
    },
    /// It is there.
    There {
        /// Where.
        path: String,
        /// Why nothing can be written into it; none when it can.
        not_writable: Option<String>,
        /// Whether it belongs to the account that looks.
        is_ours: bool,
        /// The permission bits.
        mode: u32,
        /// Bytes that are free for this account.
        free: u64,
    },
}

fn directory(check: &str, facts: &DirectoryFacts) -> Vec<Finding> {
    let (path, not_writable, mode, free) = match facts {
        DirectoryFacts::Missing { path } => {
            return vec![Finding::warning(
                check,
                format!("{path} is not there yet"),
                "the service makes it at its first start; if there was one before, look for it or restore it",
            )];
        }
        DirectoryFacts::Unusable { path, why } => {
            return vec![Finding::error(
                check,
                format!("{path}: {why}"),
                "move away what is there, or name another directory",
            )];
        }
        DirectoryFacts::There { path, not_writable, mode, free, .. } => (path, not_writable, *mode, *free),
    };
    let mut findings = Vec::new();
    if let Some(why) = not_writable {
        findings.push(Finding::error(
            check,
            format!("{path}: nothing can be written into it: {why}"),
            "hand it over to the service's account with chown -R, and mount it writable",
        ));
    }
    if mode & 0o022 != 0 {
        findings.push(Finding::error(
            check,
            format!("{path} can be written by others (mode {mode:03o}): whoever can, runs what they like as the service"),
            format!("chmod go-w {path}"),
        ));
    }
    let room = format!("{path} has {:.1} GiB free", to_gib(free));
    let mend =
        "make room: delete old runs' artifacts, lower --max-environments-bytes, or give it a larger disk";
    findings.push(match free {
        free if free < HARDLY_ANY_ROOM => Finding::error(check, room, mend),
        free if free < LITTLE_ROOM => Finding::warning(check, room, mend),
        _ => Finding::ok(check, room),
    });
    findings
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn to_gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}

/// What is to be said of the data directory.
#[must_use]
pub fn data_directory(facts: &DirectoryFacts) -> Vec<Finding> {
    let check = "data directory";
    let mut findings = directory(check, facts);
    if let DirectoryFacts::There { path, is_ours: false, .. } = facts {
        findings.insert(
            0,
            Finding::warning(
                check,
                format!("{path} belongs to another account than the one that looks"),
                "run `estimatord doctor` as the service's account: what it may do is what counts",
            ),
        );
    }
    findings
}

/// What is to be said of the directory of artifacts. `is_own` is whether it was named, and not the data directory's own; `others` is
/// whether more than one replica may use the database.
#[must_use]
pub fn artifacts(facts: &DirectoryFacts, is_own: bool, others: bool) -> Vec<Finding> {
    let check = "artifacts";
    let mut findings = directory(check, facts);
    if others && !is_own {
        findings.push(Finding::warning(
            check,
            "they are in this machine's data directory, and with a database of their own (DATABASE_URL) there may be more replicas, \
             which would not find them there",
            "name a directory that every replica sees with --artifacts-dir; with one replica all is well",
        ));
    }
    findings
}

/// A program that the service starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// An interpreter for runs.
    Python,
    /// The builder of environments.
    Uv,
    /// micromamba, mamba or conda.
    Conda,
    /// Docker or Podman.
    Containers,
    /// The starter of MPI ranks.
    Mpi,
}

/// What was seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramFacts {
    /// It is not there.
    Missing,
    /// It is there and does not work.
    Broken {
        /// Where, and what it said.
        why: String,
    },
    /// It answers.
    Works {
        /// Where, and what it says of its version.
        version: String,
    },
}

/// What is to be said of a program.
#[must_use]
pub fn program(program: Program, facts: &ProgramFacts) -> Finding {
    let (check, without, mend) = match program {
        Program::Python => (
            "python",
            "runs on this machine that bring no interpreter cannot start",
            "install python3 with its venv module (apt-get install python3 python3-venv)",
        ),
        Program::Uv => (
            "uv",
            "it is installed with pip when the first environment is built",
            "install uv beforehand, or name it with --uv, where the service has no network or no pip",
        ),
        Program::Conda => (
            "conda",
            "definitions with conda packages are refused on this machine",
            "install micromamba (one binary) on the service's PATH, or name one with --conda, if you want them",
        ),
        Program::Containers => (
            "containers",
            "definitions that name an image are refused on this machine",
            "install docker or podman and let the service's account use it, if you want them",
        ),
        Program::Mpi => (
            "mpi",
            "runs of several processes (distributed_training, node_count) cannot start on this machine",
            "install Open MPI (apt-get install openmpi-bin), if you want them",
        ),
    };
    match facts {
        ProgramFacts::Works { version } => Finding::ok(check, version.clone()),
        ProgramFacts::Broken { why } => {
            Finding::warning(check, format!("it does not work: {why}; {without}"), mend)
        }
        ProgramFacts::Missing => Finding::warning(check, format!("it is not there: {without}"), mend),
    }
}

/// What is to be said of the limit of open files, which the service raises up to the hard one by itself.
#[must_use]
pub fn open_files(hard: u64) -> Finding {
    let message = format!("up to {hard} files may be open");
    let mend = "raise the hard limit: LimitNOFILE=65536 (systemd), --ulimit nofile=65536 (Docker), /etc/security/limits.conf";
    match hard {
        hard if hard < FEW_OPEN_FILES => Finding::error("open files", message, mend),
        hard if hard < OPEN_FILES => Finding::warning("open files", message, mend),
        _ => Finding::ok("open files", "as many may be open as the service asks for"),
    }
}

/// What is to be said of the account that looks, which should be the service's.
#[must_use]
pub fn runs_as_root(is_root: bool) -> Finding {
    if !is_root {
        return Finding::ok("account", "it is not root");
    }
    Finding::ok(
        "account",
        "it is root: scripts of runs are kept apart by what SECURITY.md lists, and a hole in that is a hole in the machine",
    )
}

/// What was seen of a running service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceFacts {
    /// Nobody holds the data directory, and nobody answers.
    NotRunning,
    /// It answers and is ready.
    Ready {
        /// Where it was asked.
        url: String,
    },
    /// It runs, and says that it is not ready or does not answer.
    NotReady {
        /// Where it was asked.
        url: String,
        /// What it said.
        why: String,
    },
    /// It runs, and listens elsewhere than where it was asked.
    Elsewhere {
        /// Where it was asked.
        url: String,
        /// Where it listens.
        listens: Vec<SocketAddr>,
        /// Whether somebody else has the address.
        is_taken: bool,
    },
    /// Nobody holds the data directory, and somebody has the address.
    Taken {
        /// Where it was asked.
        url: String,
    },
    /// It is a worker alone, without an address for probes.
    Unheard,
}

/// What asking an address led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A service, which is ready.
    Ready,
    /// Somebody, who is not ready, or no service at all.
    NotReady(String),
    /// Nobody is there.
    Nobody(String),
}

/// Whether a service answers at an address, and whether it is the one that has the data directory: that one listens on `listens`, which
/// is empty where it has not said so; it is none when nobody has the data directory.
#[must_use]
pub fn service_at(address: SocketAddr, listens: Option<Vec<SocketAddr>>, asked: Asked) -> ServiceFacts {
    let url = format!("http://{address}/readyz");
    let Some(listens) = listens else {
        return match asked {
            Asked::Nobody(_) => ServiceFacts::NotRunning,
            Asked::Ready | Asked::NotReady(_) => ServiceFacts::Taken { url },
        };
    };
    let is_it = |one: &SocketAddr| {
        one.port() == address.port() && (one.ip() == address.ip() || one.ip().is_unspecified())
    };
    if !listens.is_empty() && !listens.iter().any(is_it) {
        return ServiceFacts::Elsewhere { url, listens, is_taken: !matches!(asked, Asked::Nobody(_)) };
    }
    match asked {
        Asked::Ready => ServiceFacts::Ready { url },
        Asked::NotReady(why) | Asked::Nobody(why) => ServiceFacts::NotReady { url, why },
    }
}

/// What is to be said of the service itself.
#[must_use]
pub fn service(facts: &ServiceFacts) -> Finding {
    match facts {
        ServiceFacts::Ready { url } => Finding::ok("service", format!("{url} is ready")),
        ServiceFacts::NotReady { url, why } => Finding::error(
            "service",
            format!("it runs, and {url} says: {why}"),
            "look into its log; /readyz lists what is missing. If it listens elsewhere, tell this command with --listen",
        ),
        ServiceFacts::Elsewhere { url, listens, is_taken } => {
            let listens: Vec<String> = listens.iter().map(ToString::to_string).collect();
            let who = if *is_taken { "somebody else has" } else { "nobody answers at" };
            Finding::error(
                "service",
                format!("it runs and listens on {}; {who} {url}", listens.join(" and ")),
                "tell this command where it listens with --listen, or start it anew with the address that you want",
            )
        }
        ServiceFacts::Taken { url } => Finding::error(
            "service",
            format!(
                "none is running with this data directory, and another installation's service or another program has {url}"
            ),
            "end that, or name another address with --listen; if it is the service that you mean, name its data directory with \
             --data-dir",
        ),
        ServiceFacts::NotRunning => Finding::warning(
            "service",
            "none is running with these settings",
            "start it with `estimatord serve`",
        ),
        ServiceFacts::Unheard => Finding::warning(
            "service",
            "a worker alone answers nobody: whether it runs was not looked at",
            "give it an address for probes with --probe-listen",
        ),
    }
}

//! Landlock: the files that a run reaches, when the operator wants that restricted.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use serde::{Deserialize, Serialize};

/// The oldest version that is enough, of Linux 6.2: before it, files could be cut off that cannot be written.
const NEEDED: ABI = ABI::V3;
/// The version that keeps signals within, of Linux 6.12.
const SCOPED: ABI = ABI::V6;

/// What any program needs of a machine: programs and libraries, configuration, the kernel's own files, and what names of hosts
/// are looked up in. What is not there is left out.
const SYSTEM: [&str; 19] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix/store",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/run/opengl-driver",
    "/var/cache/fontconfig",
];
/// Where a program writes without leaving anything.
const DEVICES: &str = "/dev";
/// Memory that processes share. The whole of it: the names in there are the libraries' choice.
const SHARED_MEMORY: &str = "/dev/shm";

/// What a run reaches of the file system besides what every program needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Places {
    /// Read and executed.
    pub(in super::super) read: Vec<PathBuf>,
    /// Written as well.
    pub(in super::super) write: Vec<PathBuf>,
}

/// Rules that are ready to be entered.
pub(super) struct Sandbox(RulesetCreated);

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("landlock: {error}"))
}

/// The rights that are restricted.
fn handled() -> Result<Ruleset, landlock::RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?;
    rules.set_compatibility(CompatLevel::BestEffort).scope(Scope::from_all(SCOPED))
}

impl Places {
    /// The rules of these places.
    pub(super) fn ruleset(&self) -> io::Result<Sandbox> {
        let mut rules = handled().and_then(Ruleset::create).map_err(other)?;
        let read = AccessFs::from_read(NEEDED);
        let write = AccessFs::from_all(NEEDED);
        for path in SYSTEM.map(Path::new).into_iter().filter(|path| path.exists()) {
            rules = allow(rules, path, read)?;
        }
        // Files there can be written, and none made.
        rules = allow(rules, Path::new(DEVICES), read | AccessFs::WriteFile | AccessFs::Truncate)?;
        if Path::new(SHARED_MEMORY).is_dir() {
            rules = allow(rules, Path::new(SHARED_MEMORY), write)?;
        }
        for path in &self.read {
            rules = allow(rules, path, read)?;
        }
        for path in &self.write {
            rules = allow(rules, path, write)?;
        }
        Ok(Sandbox(rules))
    }
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> io::Result<RulesetCreated> {
    let place = PathFd::new(path).map_err(other)?;
    // Of a file some rights make no sense, and are refused.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEEDED) };
    rules.add_rule(PathBeneath::new(place, access)).map_err(other)
}

impl Sandbox {
    /// Restricts this process, and all that it ever starts.
    pub(super) fn enter(self) -> io::Result<()> {
        let status = self.0.restrict_self().map_err(other)?;
        match status.ruleset {
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
            RulesetStatus::NotEnforced => Err(other("the kernel restricts nothing")),
        }
    }
}

/// Whether this kernel can do it; else why not.
pub(super) fn is_there() -> Result<(), String> {
    handled().and_then(Ruleset::create).map(drop).map_err(|error| error.to_string())
}

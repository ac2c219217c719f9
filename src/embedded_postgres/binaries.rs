//! Where the machine's PostgreSQL server binaries are.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::{Error, Settings, supervise};

/// The oldest version the service's SQL runs on.
const OLDEST: u32 = 13;

/// One installation, known to work under the server's account.
#[derive(Debug)]
pub(super) struct Binaries {
    dir: PathBuf,
    /// As in the file `PG_VERSION`.
    pub(super) major: u32,
}

impl Binaries {
    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }
}

/// The first installation that fits: named by `PG_BIN_DIR`, else on the `PATH`, else in the usual places,
/// newest first. `pinned` is the version that wrote the data, if there is any.
pub(super) fn find(
    settings: &Settings,
    account: &Account,
    pinned: Option<&str>,
    cluster: &Path,
) -> Result<Binaries, Error> {
    let places = places(settings.bin_dir.as_deref());
    let mut others = Vec::new();
    let mut unusable = Vec::new();
    for dir in installations(&places) {
        match major_of(&dir, &settings.trampoline, account) {
            Ok(major) if pinned.is_some_and(|pinned| pinned != major.to_string()) => {
                others.push(format!("{major} in {}", dir.display()));
            }
            Ok(major) if major < OLDEST => {
                unusable.push(format!("{} has version {major}, too old", dir.display()));
            }
            Ok(major) => return Ok(Binaries { dir, major }),
            Err(reason) => unusable.push(format!("{} does not work: {reason}", dir.display())),
        }
    }
    match pinned {
        Some(wanted) if !others.is_empty() => Err(Error::OtherMajor {
            cluster: cluster.to_owned(),
            wanted: wanted.to_owned(),
            found: others.join(", "),
        }),
        _ => {
            let mut looked_in: Vec<String> = places.iter().map(Place::describe).collect();
            looked_in.append(&mut unusable);
            Err(Error::NoBinaries { looked_in: looked_in.join("; ") })
        }
    }
}

/// Somewhere to look.
#[derive(Debug)]
enum Place {
    Given(PathBuf),
    Path,
    /// The names below `base` that start with `prefix`, and `bin` in each.
    Versions {
        base: &'static str,
        prefix: &'static str,
    },
    Fixed(&'static str),
}

fn places(given: Option<&Path>) -> Vec<Place> {
    if let Some(dir) = given {
        return vec![Place::Given(dir.to_owned())];
    }
    vec![
        Place::Path,
        Place::Versions { base: "/usr/lib/postgresql", prefix: "" },
        Place::Versions { base: "/usr", prefix: "pgsql-" },
        Place::Versions { base: "/usr/libexec", prefix: "postgresql" },
        Place::Versions { base: "/opt/homebrew/opt", prefix: "postgresql" },
        Place::Versions { base: "/home/linuxbrew/.linuxbrew/opt", prefix: "postgresql" },
        Place::Versions { base: "/usr/local/opt", prefix: "postgresql" },
        Place::Fixed("/usr/local/pgsql/bin"),
    ]
}

impl Place {
    fn describe(&self) -> String {
        match self {
            Self::Given(dir) => dir.display().to_string(),
            Self::Path => "PATH".to_owned(),
            Self::Versions { base, prefix } => format!("{base}/{prefix}*"),
            Self::Fixed(dir) => (*dir).to_owned(),
        }
    }

    fn dirs(&self) -> Vec<PathBuf> {
        match self {
            Self::Given(dir) => vec![dir.clone()],
            Self::Path => {
                env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
            }
            Self::Versions { base, prefix } => versions(Path::new(base), prefix),
            Self::Fixed(dir) => vec![PathBuf::from(dir)],
        }
    }
}

/// Newest first; `…/bin` as Debian and Homebrew have it, the directory itself as Alpine has it.
fn versions(base: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(base).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut found: Vec<(u32, PathBuf)> = entries
        .iter()
        .filter_map(|entry| {
            let name = entry.file_name();
            let rest = name.to_str()?.strip_prefix(prefix)?.trim_start_matches('@');
            // A name without number ("postgresql" of Homebrew) is a link to the current version.
            let rank = if rest.is_empty() { u32::MAX } else { rest.split('.').next()?.parse().ok()? };
            Some((rank, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().flat_map(|(_, dir)| [dir.join("bin"), dir]).collect()
}

/// The directories that have both programs, each once. Links are followed first: a link on the `PATH` leads
/// to the directory where `initdb` and the libraries are.
fn installations(places: &[Place]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for dir in places.iter().flat_map(Place::dirs) {
        let Ok(postgres) = fs::canonicalize(dir.join("postgres")) else { continue };
        let Some(real) = postgres.parent() else { continue };
        if ["postgres", "initdb"].iter().all(|name| is_program(&real.join(name)))
            && !found.iter().any(|known| known == real)
        {
            found.push(real.to_owned());
        }
    }
    found
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Asks the binary itself, under the account that is going to run it: that also tells whether it can.
fn major_of(dir: &Path, trampoline: &Path, account: &Account) -> Result<u32, String> {
    let output = supervise::command(trampoline, account)
        .args([OsStr::new("--"), dir.join("postgres").as_os_str(), OsStr::new("--version")])
        .output()
        .map_err(|error| format!("{}: {error}", trampoline.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    parse_major(&text).ok_or_else(|| format!("its version reads {:?}", text.trim()))
}

/// From `postgres (PostgreSQL) 15.4 (Debian …)`, `… 18beta1` and the like.
fn parse_major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.4 (Debian 15.4-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn versions_are_ordered_as_numbers_newest_first() {
        let base = tempfile::tempdir().unwrap();
        for name in ["postgresql@9", "postgresql@16", "postgresql", "postgresql@15", "other"] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        let found: Vec<String> = versions(base.path(), "postgresql")
            .iter()
            .filter(|dir| dir.ends_with("bin"))
            .map(|dir| dir.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, ["postgresql", "postgresql@16", "postgresql@15", "postgresql@9"]);
    }

    #[test]
    fn a_place_without_both_programs_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postgres"), "").unwrap();
        assert!(installations(&[Place::Given(dir.path().to_owned())]).is_empty());
    }
}

//! Which Python interpreters are there, and which of them will do.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{process::Command, sync::Mutex};

use super::super::{super::Substitution, confinement::closed_to_others};

/// Minor versions of Python 3 with which chainer 5.1.0 and 7.0.0 work.
///
/// Verified with 3.8.18, 3.9.18, 3.10.13 and 3.11.7, each with both versions: installed with uv under the constraints
/// beside this file, trained a classifier with ChainerMN as one process and as two ranks. With 3.6 and 3.7 the build
/// fails (no mpi4py binary for them), with 3.12 and 3.13 as well (no `distutils` to build numpy 1.23 with).
const CHAINER_MINORS: std::ops::RangeInclusive<u32> = 8..=11;
/// What the installer supports where chainer is not asked for.
const ANY_MINORS: std::ops::RangeInclusive<u32> = 8..=99;
/// An interpreter that takes longer to say its version is none.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) const QUERY: &str = "import sys, os, json, platform; \
    print(json.dumps({'path': os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable), \
    'version': list(sys.version_info[:3]), 'implementation': platform.python_implementation()}))";

/// An interpreter that answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Interpreter {
    /// Where it really lies: links and wrappers resolved.
    pub(super) path: PathBuf,
    /// Major, minor, patch.
    pub(super) version: [u32; 3],
    implementation: String,
}

impl Interpreter {
    pub(super) fn version_text(&self) -> String {
        let [major, minor, patch] = self.version;
        format!("{major}.{minor}.{patch}")
    }
}

/// Asks an interpreter who it is.
pub(super) async fn query(path: &Path, environment: &[(String, String)]) -> Option<Interpreter> {
    let mut command = Command::new(path);
    command.args(["-I", "-c", QUERY]).env_clear().envs(environment.iter().cloned());
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(QUERY_TIMEOUT, command.output()).await.ok()?.ok()?;
    if !output.status.success() {
        return None;
    }
    answered(&String::from_utf8_lossy(&output.stdout))
}

/// What one answered.
pub(super) fn answered(said: &str) -> Option<Interpreter> {
    serde_json::from_str(said.trim()).ok()
}

/// A file as it is now: another one as soon as anything of it changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    /// Of the inode, which nobody can set.
    changed: (i64, i64),
}

impl Version {
    /// Of what a path leads to. The path counts too: what an interpreter is depends on how it is called.
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// What interpreters answered, by their files: each takes a while to answer.
#[derive(Debug, Default)]
pub(in super::super) struct Known {
    answers: std::sync::Mutex<HashMap<Version, Interpreter>>,
    /// Held while all are asked: many runs may want to know at the same moment.
    discovering: Mutex<()>,
}

impl Known {
    /// What an interpreter says who it is: what it said before, as long as its file is the same, else what `ask` has it say. Wrapper
    /// scripts are asked each time: what they answer may change while they do not.
    pub(super) async fn answer<E>(
        &self,
        path: &Path,
        ask: impl Future<Output = Result<Option<Interpreter>, E>>,
    ) -> Result<Option<Interpreter>, E> {
        let Some(version) = Version::of(path).ok().filter(|_| !is_script(path)) else { return ask.await };
        if let Some(known) = self.answers().get(&version) {
            return Ok(Some(known.clone()));
        }
        let answer = ask.await?;
        if let Some(answer) = &answer {
            self.answers().insert(version, answer.clone());
        }
        Ok(answer)
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<Version, Interpreter>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every interpreter on `PATH`, of pyenv, of uv, and of the service itself (`own`); where `for_all`, only those that every user
    /// of the machine can run, or will be let to.
    pub(super) async fn discover(
        &self,
        own: &Path,
        environment: &[(String, String)],
        for_all: bool,
    ) -> Vec<Interpreter> {
        let is_open =
            |path: &PathBuf| !for_all || path.starts_with(own) || matches!(closed_to_others(path), Ok(None));
        let (programs, scripts): (Vec<_>, Vec<_>) =
            candidates(own, environment).into_iter().filter(is_open).partition(|path| !is_script(path));
        let mut found = BTreeSet::new();
        let discovering = self.discovering.lock().await;
        for path in programs {
            let asked = async { Ok::<_, Infallible>(query(&path, environment).await) };
            let Ok(answer) = self.answer(&path, asked).await;
            found.extend(answer);
        }
        drop(discovering);
        // Wrapper scripts are slow and mostly lead to what was found already.
        if found.is_empty() {
            for path in scripts {
                found.extend(query(&path, environment).await);
            }
        }
        found.into_iter().collect()
    }
}

fn is_script(path: &Path) -> bool {
    use std::io::Read as _;
    let mut start = [0; 2];
    fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok() && &start == b"#!")
}

/// Files that may be interpreters, each once.
fn candidates(own: &Path, environment: &[(String, String)]) -> Vec<PathBuf> {
    let variable =
        |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut found = Vec::new();
    for directory in std::env::split_paths(variable("PATH").unwrap_or_default()) {
        found.push(directory.join("python3"));
        found.extend((8..=20).map(|minor| directory.join(format!("python3.{minor}"))));
    }
    let home = variable("HOME").map(PathBuf::from);
    let pyenv = variable("PYENV_ROOT").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".pyenv")));
    let uv = home.map(|home| home.join(".local/share/uv/python"));
    for directory in [pyenv.map(|root| root.join("versions")), uv, Some(own.to_owned())].into_iter().flatten()
    {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        found.extend(entries.flatten().map(|entry| entry.path().join("bin/python3")));
    }
    let mut seen = BTreeSet::new();
    found.retain(|path| path.is_file() && path.canonicalize().is_ok_and(|real| seen.insert(real)));
    found
}

/// How the place of interpreters is called that are on the worker's own machine.
pub(super) const THIS_MACHINE: &str = "on this machine";
/// How it is called where runs have users of their own.
pub(super) const FOR_ALL_USERS: &str = "on this machine that every user can run";

/// The interpreter to use, and the substitution when it is not the one asked for. `place` says where they are.
pub(super) fn choose(
    asked: Option<&str>,
    chainer: bool,
    present: &[Interpreter],
    place: &str,
) -> Result<(Interpreter, Option<Substitution>), String> {
    let minors = if chainer { CHAINER_MINORS } else { ANY_MINORS };
    let usable = |interpreter: &&Interpreter| {
        let [major, minor, _] = interpreter.version;
        interpreter.implementation == "CPython" && major == 3 && minors.contains(&minor)
    };
    let wanted = asked.and_then(first_version);
    let rank = |interpreter: &&Interpreter| {
        let [_, minor, patch] = interpreter.version;
        let distance = wanted.map_or(u32::MAX - minor, |[_, wanted]| minor.abs_diff(wanted));
        let satisfied = asked.is_some_and(|asked| satisfies(interpreter.version, asked));
        (!satisfied, distance, u32::MAX - patch)
    };
    let chosen =
        present.iter().filter(usable).min_by_key(rank).ok_or_else(|| none_usable(chainer, present, place))?;
    let substitution = asked.filter(|asked| !satisfies(chosen.version, asked)).map(|asked| Substitution {
        asked: format!("python {asked}"),
        used: Some(format!("python {}", chosen.version_text())),
        reason: if chainer {
            format!("the nearest {place} of those that chainer was found to work with (3.8 to 3.11)")
        } else {
            format!("the nearest {place}")
        },
    });
    Ok((chosen.clone(), substitution))
}

fn none_usable(chainer: bool, present: &[Interpreter], place: &str) -> String {
    let works = if chainer {
        "chainer works here with Python 3.8, 3.9, 3.10 and 3.11"
    } else {
        "Python 3.8 or newer is needed"
    };
    let found: Vec<String> = present.iter().map(Interpreter::version_text).collect();
    let found = if found.is_empty() { "none at all".to_owned() } else { found.join(", ") };
    format!(
        "no usable Python interpreter {place}: {works}; found {found}. Install one that works (for example \
         python3.11 from the system's packages, or `uv python install 3.11` as the service's user) and submit again"
    )
}

/// Major and minor of the first version number in a specification.
fn first_version(specification: &str) -> Option<[u32; 2]> {
    let start = specification.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = specification[start..].split(|c: char| !c.is_ascii_digit());
    Some([numbers.next()?.parse().ok()?, numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0)])
}

/// Whether a version is what a specification asks for: `3.8`, `3.8.*`, `=3.8`, `>=3.7,<3.10`.
fn satisfies(version: [u32; 3], specification: &str) -> bool {
    specification.split(',').all(|clause| {
        let clause = clause.trim();
        let digits = clause.find(|c: char| c.is_ascii_digit()).unwrap_or(clause.len());
        let (operator, number) = clause.split_at(digits);
        let Some(parts) = number
            .trim_end_matches(".*")
            .split('.')
            .map(|part| part.trim().parse().ok())
            .collect::<Option<Vec<u32>>>()
        else {
            return false;
        };
        let same = version.iter().zip(&parts).all(|(have, asked)| have == asked);
        let order = version.as_slice()[..parts.len().min(3)].cmp(&parts);
        match operator.trim() {
            ">=" => order.is_ge(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            "<" => order.is_lt(),
            "!=" => !same,
            "~=" => order.is_ge() && version.iter().zip(&parts[..parts.len() - 1]).all(|(a, b)| a == b),
            "" | "=" | "==" => same,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(version: [u32; 3]) -> Interpreter {
        Interpreter { path: "/python".into(), version, implementation: "CPython".into() }
    }

    fn chosen(asked: Option<&str>, chainer: bool, present: &[[u32; 3]]) -> Result<(String, bool), String> {
        let present: Vec<_> = present.iter().copied().map(interpreter).collect();
        choose(asked, chainer, &present, THIS_MACHINE)
            .map(|(chosen, other)| (chosen.version_text(), other.is_some()))
    }

    #[test]
    fn the_nearest_that_works_wins() {
        let present = [[3, 6, 15], [3, 8, 18], [3, 11, 7], [3, 13, 0]];
        assert_eq!(chosen(Some("3.6.2"), true, &present), Ok(("3.8.18".into(), true)));
        assert_eq!(chosen(Some("3.6.2"), true, &[[3, 11, 2], [3, 11, 7]]), Ok(("3.11.7".into(), true)));
        assert_eq!(chosen(Some("3.11"), true, &present), Ok(("3.11.7".into(), false)));
        assert_eq!(chosen(Some("3.13"), true, &present), Ok(("3.11.7".into(), true)));
        assert_eq!(chosen(Some("3.13"), false, &present), Ok(("3.13.0".into(), false)));
        assert_eq!(chosen(None, false, &present), Ok(("3.13.0".into(), false)));
        assert_eq!(chosen(None, true, &present), Ok(("3.11.7".into(), false)));
    }

    #[test]
    fn without_one_that_works_the_error_names_those_that_do() {
        let error = chosen(Some("3.6.2"), true, &[[3, 13, 0]]).unwrap_err();
        assert!(error.contains("3.8, 3.9, 3.10 and 3.11") && error.contains("3.13.0"), "{error}");
        assert!(chosen(None, true, &[]).unwrap_err().contains("none at all"));
    }

    #[tokio::test]
    async fn an_interpreter_is_asked_once_until_its_file_changes_and_a_script_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let (program, script) = (directory.path().join("python3"), directory.path().join("shim"));
        fs::write(&program, "\u{7f}ELF").unwrap();
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let (known, asked) = (Known::default(), std::cell::Cell::new(0));
        let answer = async |path: &Path| {
            let ask = async {
                asked.set(asked.get() + 1);
                Ok::<_, Infallible>(Some(interpreter([3, 11, asked.get()])))
            };
            let Ok(answer) = known.answer(path, ask).await;
            answer.unwrap().version
        };
        assert_eq!((answer(&program).await, answer(&program).await), ([3, 11, 1], [3, 11, 1]));
        assert_eq!((answer(&script).await, answer(&script).await), ([3, 11, 2], [3, 11, 3]));
        // In its place another one, of the same size.
        let other = directory.path().join("other");
        fs::write(&other, "\u{7f}ELG").unwrap();
        fs::rename(other, &program).unwrap();
        assert_eq!(answer(&program).await, [3, 11, 4]);
    }

    #[test]
    fn other_implementations_are_not_taken() {
        let pypy = Interpreter { implementation: "PyPy".into(), ..interpreter([3, 10, 1]) };
        assert!(choose(None, true, &[pypy], THIS_MACHINE).is_err());
    }

    #[test]
    fn specifications_are_understood() {
        for (asked, yes) in [
            ("3.8", true),
            ("3.8.18", true),
            ("3.8.*", true),
            ("=3.8", true),
            ("==3.8.1", false),
            ("3", true),
            (">=3.7,<3.10", true),
            (">=3.9", false),
            ("<3.8", false),
            ("!=3.8", false),
            ("~=3.7", true),
            ("", false),
            ("~=3.8.1", true),
            ("<=3.8", true),
            (">3.7", true),
        ] {
            assert_eq!(satisfies([3, 8, 18], asked), yes, "{asked}");
        }
    }
}

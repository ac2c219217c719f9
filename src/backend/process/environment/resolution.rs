//! What a request resolves to: exact versions, by which environments are known and shared.
//!
//! Two definitions that resolve to the same packages share one environment. So that an identical request asks no index
//! again, what it led to is remembered beside the environments, for as long as that environment exists: a memory of one
//! that is gone is not believed. So what is asked for without a version stays as it was first resolved until its environment
//! is evicted or deleted, and is as new as can be after that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    super::{files, layout},
    BuildLog, CommandError, account, build,
    builder::Builder,
    digest,
    interpreters::Interpreter,
    substitutions::{has_version, requirement_name},
    wanted::Wanted,
};
use crate::domain::rules::grammar::{pip, requirements::logical_lines};

/// Changes when environments are resolved or built differently, so that none of the old ones is taken for a new one.
const RECIPE: u32 = 2;

/// Everything that decides what a definition resolves to.
#[derive(Serialize)]
struct Request<'a> {
    recipe: u32,
    requirements: &'a [String],
    constraints: &'a [String],
    overrides: &'a [String],
    arguments: &'a [String],
    build_options: &'a BTreeSet<String>,
    /// The definition's own file, and all that is included, by their names.
    file: Option<&'a str>,
    files: &'a BTreeMap<String, String>,
    python: &'a Interpreter,
    image: Option<&'a str>,
    platform: [&'a str; 2],
    /// What the operator says of where packages come from.
    variables: Vec<&'a (String, String)>,
    /// Set when packages come out of the source tree.
    snapshot: Option<&'a str>,
}

/// Everything that makes one environment differ from another.
#[derive(Serialize)]
struct Key<'a> {
    recipe: u32,
    lock: &'a [String],
    /// They change what is installed of one and the same version.
    build_options: &'a BTreeSet<String>,
    python: &'a Interpreter,
    image: Option<&'a str>,
    platform: [&'a str; 2],
    /// Set when something is installed out of the source tree.
    snapshot: Option<&'a str>,
}

pub(super) const PLATFORM: [&str; 2] = [std::env::consts::OS, std::env::consts::ARCH];

/// The key of a request; `snapshot` is that of the source tree.
pub(super) fn request_key(wanted: &Wanted, variables: &[(String, String)], snapshot: &str) -> String {
    let Wanted { asks, found, python, image, .. } = wanted;
    let is_source = |name: &str| name.starts_with("UV_") || name.starts_with("PIP_");
    content_key(&Request {
        recipe: RECIPE,
        requirements: &asks.requirements,
        constraints: &asks.constraints,
        overrides: &asks.overrides,
        arguments: &found.arguments,
        build_options: &found.build_options,
        file: asks.file.as_deref(),
        files: &found.files,
        python,
        image: image.as_deref(),
        platform: PLATFORM,
        variables: variables.iter().filter(|(name, _)| is_source(name)).collect(),
        snapshot: found.local.then_some(snapshot),
    })
}

pub(super) fn content_key(content: &impl Serialize) -> String {
    // A struct of texts and numbers always serialises.
    digest(&serde_json::to_vec(content).unwrap_or_default())
}

/// The exact versions that a request resolves to, each with the digests of its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lock(Vec<String>);

impl Lock {
    /// Reads what the installer wrote when it ran in `directory`, whose own path is no part of the content.
    fn parse(text: &str, directory: &Path) -> Result<Self, CommandError> {
        let text = text.replace(&*directory.to_string_lossy(), ".");
        let lines = logical_lines(text.as_bytes())
            .map_err(|why| CommandError::Failed(format!("cannot read what was resolved: {why}")))?;
        let one_space = |line: String| line.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self(lines.into_iter().map(|(_, line)| one_space(line)).collect()))
    }

    /// The key of the environment; `snapshot` is that of the source tree.
    pub(super) fn key(&self, wanted: &Wanted, snapshot: &str) -> String {
        content_key(&Key {
            recipe: RECIPE,
            lock: &self.0,
            build_options: &wanted.found.build_options,
            python: &wanted.python,
            image: wanted.image.as_deref(),
            platform: PLATFORM,
            snapshot: self.0.iter().any(|line| is_of_this_machine(line)).then_some(snapshot),
        })
    }

    /// What holds an installation to these versions and digests. Addresses and paths say themselves what they are.
    pub(super) fn constraints(&self) -> String {
        let pins = self.0.iter().filter(|line| is_pin(line));
        pins.map(|line| format!("{line}\n")).collect()
    }

    /// What is told to people: without the digests.
    fn shown(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|line| pip::without_credentials(line.split(" --hash").next().unwrap_or(line)))
    }
}

/// `name==version`, and whatever follows.
fn is_pin(line: &str) -> bool {
    requirement_name(line).is_some() && has_version(line) && !line.contains(" @ ")
}

/// Whether a line is neither a version of an index nor an address elsewhere.
fn is_of_this_machine(line: &str) -> bool {
    !is_pin(line) && (!line.contains("://") || line.to_ascii_lowercase().contains("file:"))
}

/// Asks the indexes. `directory` is empty and goes afterwards.
pub(super) async fn resolve(
    wanted: &Wanted,
    builder: &Builder<'_>,
    directory: &Path,
    held: &fs::File,
    log: &mut BuildLog,
) -> Result<Lock, CommandError> {
    if wanted.is_empty() {
        return Ok(Lock::default());
    }
    for requirement in &wanted.asks.requirements {
        log.line(&format!("Asked for: {}", pip::without_credentials(requirement)))?;
    }
    if let Some(file) = &wanted.asks.file {
        log.line(&format!("Asked for: what {file} lists"))?;
    }
    // In files uv warns of them, and takes them here only.
    for argument in &wanted.found.arguments {
        log.line(&format!("Asked for: {argument}, in the installer's words"))?;
    }
    let uv = builder.uv(log).await?;
    let placed = wanted.place(directory).await?;
    let output = directory.join("lock.txt");
    let mut compile = builder.installer(&uv, directory, &placed.directory);
    // The digests tell content from content where two indexes have other files under one version.
    compile.args(["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--generate-hashes"]);
    compile.arg("--no-python-downloads").arg("--python").arg(&wanted.python.path);
    compile.arg("-c").arg(&placed.constraints).arg("-b").arg(&placed.constraints);
    placed.override_with(&mut compile);
    compile.args(&wanted.found.arguments);
    compile.arg("--output-file").arg(&output).args(&placed.requirements);
    builder.give(directory)?;
    build::run(compile, held, log, builder.deadline).await?;
    builder.take_back(directory).await?;
    let lock = Lock::parse(&account::read(&output)?, &placed.directory)?;
    for line in lock.shown() {
        log.line(&format!("Resolved to: {line}"))?;
    }
    Ok(lock)
}

/// What the names of memories end with.
const REQUEST: &str = "request";

/// Where it is remembered which environment a request led to.
pub(super) struct Memory {
    environments: PathBuf,
    request: String,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    key: String,
}

impl Memory {
    pub(super) fn new(environments: &Path, request: String) -> Self {
        Self { environments: environments.to_owned(), request }
    }

    /// Held by who resolves and builds for this request.
    pub(super) fn lock_path(&self) -> PathBuf {
        self.environments.join(format!("{}.request.lock", self.request))
    }

    fn path(&self) -> PathBuf {
        self.environments.join(format!("{}.{REQUEST}", self.request))
    }

    /// The key of the environment that the request led to. Whether that still exists is for the caller to see.
    pub(super) fn recall(&self) -> Option<String> {
        // One that is damaged is as good as none: it is written anew.
        Some(layout::read_json::<Remembered>(&self.path()).ok()??.key)
    }

    pub(super) fn keep(&self, key: &str) -> Result<(), CommandError> {
        Ok(layout::write_json(&self.path(), &Remembered { key: key.to_owned() })?)
    }
}

/// Forgets every request that led to an environment.
pub(super) fn forget(environments: &Path, key: &str) -> io::Result<()> {
    for entry in files::entries(environments)? {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == REQUEST)
            && fs::read_to_string(&path).is_ok_and(|remembered| remembered.contains(key))
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# made by a tool\n-e ./pkg\nown @ file:///tmp/x/source/own\nsix==1.15.0 \\\n    \
        --hash=sha256:30 \\\n    --hash=sha256:8b\n    # via -r req.txt\n\
        tool @ git+https://u:s3cret@e.invalid/t.git@0a1b\n";

    fn wanted(python: &str) -> Wanted {
        let json = format!(r#"{{"path":"{python}","version":[3,11,7],"implementation":"CPython"}}"#);
        Wanted {
            asks: Default::default(),
            found: Default::default(),
            python: serde_json::from_str(&json).unwrap(),
            image: None,
            source: "/source".into(),
        }
    }

    #[test]
    fn a_lock_is_its_content_alone() {
        let lock = Lock::parse(TEXT, Path::new("/tmp/x/source")).unwrap();
        let expected = [
            "-e ./pkg",
            "own @ file://./own",
            "six==1.15.0 --hash=sha256:30 --hash=sha256:8b",
            "tool @ git+https://u:s3cret@e.invalid/t.git@0a1b",
        ];
        assert_eq!(lock.0, expected);
        assert_eq!(lock.constraints(), "six==1.15.0 --hash=sha256:30 --hash=sha256:8b\n");
        let shown: Vec<_> = lock.shown().collect();
        assert_eq!(shown[2..], ["six==1.15.0", "tool @ git+https://***@e.invalid/t.git@0a1b"]);
        let elsewhere = TEXT.replace("/tmp/x/source", "/tmp/y");
        assert_eq!(Lock::parse(&elsewhere, Path::new("/tmp/y")).unwrap(), lock);
    }

    #[test]
    fn the_source_tree_belongs_to_the_key_where_something_of_it_is_installed() {
        let of =
            |text: &str, snapshot| Lock::parse(text, Path::new("/t")).unwrap().key(&wanted("/p"), snapshot);
        let remote = "six==1 --hash=sha256:00\na @ https://e.invalid/a.whl\nb @ git+ssh://git@e.invalid/b@0a";
        assert_eq!(of(remote, "1"), of(remote, "2"));
        for local in
            ["-e ./pkg", "./a.whl --hash=sha256:00", "own @ file:./pkg", "own @ git+file:///t/pkg@00"]
        {
            assert_ne!(of(local, "1"), of(local, "2"), "{local}");
        }
    }

    #[test]
    fn interpreter_and_build_options_tell_environments_apart() {
        let lock = Lock::parse("six==1", Path::new("/t")).unwrap();
        let mut other = wanted("/p");
        assert_eq!(lock.key(&other, ""), lock.key(&wanted("/p"), ""));
        assert_ne!(lock.key(&other, ""), lock.key(&wanted("/q"), ""));
        other.found.build_options.insert("--no-binary=six".into());
        assert_ne!(lock.key(&other, ""), lock.key(&wanted("/p"), ""));
        let image = Wanted { image: Some("sha256:00".into()), ..wanted("/p") };
        assert_ne!(lock.key(&image, ""), lock.key(&wanted("/p"), ""));
    }

    #[test]
    fn a_request_differs_by_what_can_change_its_answer() {
        let base = request_key(&wanted("/p"), &[], "1");
        assert_eq!(request_key(&wanted("/p"), &[("HOME".into(), "/x".into())], "2"), base);
        let index = [("UV_DEFAULT_INDEX".to_owned(), "https://e.invalid".to_owned())];
        assert_ne!(request_key(&wanted("/p"), &index, "1"), base);
        let mut other = wanted("/p");
        other.found.files.insert("more.txt".into(), "six".into());
        assert_ne!(request_key(&other, &[], "1"), base);
        other.found.files.clear();
        other.found.local = true;
        assert_ne!(request_key(&other, &[], "1"), request_key(&other, &[], "2"));
    }
}

//! What a definition's pip lines and requirements files lead to, looked at before the installer reads them: which files
//! they include, what they name, and what has to be said to the installer in other words.
//!
//! Validation sees the named file only. What that includes is looked at here, so that nothing outside of the source tree
//! is read, and no option is passed over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::substitutions::{has_version, requirement_name};
use crate::domain::rules::grammar::{pip, requirements::logical_lines};

/// The most bytes that a requirements file may have: as many as one that validation reads.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// How the lines of `pip_packages` are called in messages.
const ENTRIES: &str = "pip_packages";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Options that the installer takes on its command line only, in its own words.
    pub(super) arguments: Vec<String>,
    /// Options that change what is installed of one and the same version.
    pub(super) build_options: BTreeSet<String>,
    /// Every file that was read, with its content: relative to the source tree.
    pub(super) files: BTreeMap<String, String>,
    /// Normalised names of the packages that files ask for.
    pub(super) required: BTreeSet<String>,
    /// Normalised names of the packages that files ask for in some version, or constrain.
    pub(super) pinned: BTreeSet<String>,
    /// Whether a file asks for the `mpi4py` that cannot be had.
    pub(super) old_mpi4py: bool,
    /// Whether something is installed out of the source tree, or looked for in it.
    pub(super) local: bool,
}

/// What one line says.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    Include {
        path: &'a str,
        constraint: bool,
    },
    /// A package in the source tree, or a place with packages.
    Local {
        path: &'a str,
        beside: bool,
    },
    Argument(Vec<String>),
    BuildOption(String),
    RequireHashes,
    /// Something that the installer reads from the file as pip does.
    Known,
    Package {
        text: &'a str,
        is_hashed: bool,
    },
}

/// Looks at the entries of `pip_packages` and at the requirements file, and at all that these include.
///
/// # Errors
/// Names the file, the line, what is wrong with it and what to write instead.
pub(super) fn inspect(source: &Path, entries: &[String], file: Option<&str>) -> Result<Found, String> {
    let root =
        source.canonicalize().map_err(|error| format!("the source directory cannot be read: {error}"))?;
    let mut walk = Walk { root, ..Walk::default() };
    for (index, entry) in entries.iter().enumerate() {
        let place = Place { file: ENTRIES, line: index + 1, directory: "" };
        // The framework's and the user's own are named where the environment is resolved.
        walk.line(entry.trim(), &place, false, false)?;
    }
    if let Some(file) = file {
        walk.file(file, false)?;
    }
    while let Some((path, constraint)) = walk.open.pop() {
        walk.file(&path, constraint)?;
    }
    if let (true, Some(unhashed)) = (walk.require_hashes, &walk.unhashed) {
        return Err(format!(
            "{unhashed} has no `--hash`, and `--require-hashes` asks for one of every requirement"
        ));
    }
    Ok(walk.found)
}

#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: usize,
    /// Of the file, relative to the source tree.
    directory: &'a str,
}

impl Place<'_> {
    fn says(&self, line: &str, what: &str) -> String {
        let (file, number, line) = (self.file, self.line, pip::without_credentials(line));
        if file == ENTRIES {
            return format!("{file}: `{line}`: {what}");
        }
        format!("{file}, line {number}: `{line}`: {what}")
    }
}

#[derive(Default)]
struct Walk {
    root: PathBuf,
    /// Files that are still to be read, and whether they constrain only.
    open: Vec<(String, bool)>,
    seen: BTreeSet<(String, bool)>,
    require_hashes: bool,
    unhashed: Option<String>,
    found: Found,
}

impl Walk {
    fn file(&mut self, path: &str, constraint: bool) -> Result<(), String> {
        if !self.seen.insert((path.to_owned(), constraint)) {
            return Ok(());
        }
        let full = self.root.join(path);
        let cannot = |why: String| format!("the requirements file {path} cannot be used: {why}");
        let read = || -> io::Result<Option<Vec<u8>>> {
            let small = fs::metadata(&full)?.len() <= MAX_FILE_BYTES;
            small.then(|| fs::read(&full)).transpose()
        };
        let content = read().map_err(|error| cannot(error.to_string()))?;
        let content = content.ok_or_else(|| cannot("it is larger than 1 MiB".to_owned()))?;
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for (line, text) in logical_lines(&content).map_err(cannot)? {
            self.line(&text, &Place { file: path, line, directory }, true, constraint)?;
        }
        self.found.files.insert(path.to_owned(), String::from_utf8_lossy(&content).into_owned());
        Ok(())
    }

    fn line(&mut self, text: &str, place: &Place<'_>, in_file: bool, constraint: bool) -> Result<(), String> {
        for said in statements(text).map_err(|what| place.says(text, &what))? {
            match said {
                Said::Include { path, .. } | Said::Local { path, .. } if is_remote(path) => {}
                Said::Include { path, constraint: only } => {
                    let path = self.inside(place.directory, path).map_err(|what| place.says(text, &what))?;
                    self.open.push((path, constraint || only));
                }
                Said::Local { path, beside } => {
                    self.found.local = true;
                    let base = if beside { place.directory } else { "" };
                    self.inside(base, path).map_err(|what| place.says(text, &what))?;
                }
                Said::Argument(words) => self.found.arguments.extend(words),
                Said::BuildOption(option) => {
                    self.found.build_options.insert(option);
                }
                Said::RequireHashes => self.require_hashes = true,
                Said::Known => {}
                Said::Package { text, is_hashed } => {
                    if !is_hashed && !constraint {
                        self.unhashed.get_or_insert_with(|| place.says(text, "it"));
                    }
                    if let Some(path) = local_path(text) {
                        self.found.local = true;
                        self.inside("", &path).map_err(|what| place.says(text, &what))?;
                    }
                    if in_file {
                        self.package(text, constraint);
                    }
                }
            }
        }
        Ok(())
    }

    fn package(&mut self, text: &str, constraint: bool) {
        let name = pip::parse(text).ok().and_then(|entry| entry.name).or_else(|| requirement_name(text));
        let Some(name) = name else { return };
        if constraint || has_version(text) {
            self.found.pinned.insert(name.clone());
        }
        if !constraint {
            self.found.old_mpi4py |= text.replace(' ', "") == "mpi4py==3.0.0";
            self.found.required.insert(name);
        }
    }

    /// The path as it is named in the source tree, links followed.
    fn inside(&self, base: &str, path: &str) -> Result<String, String> {
        let path = path.split('#').next().unwrap_or(path);
        let path = pip::local_path(path).unwrap_or_else(|| path.to_owned());
        // An editable package may name its extras.
        let path = path
            .strip_suffix(']')
            .and_then(|path| path.rsplit_once('['))
            .map_or(path.as_str(), |(path, _)| path);
        let out = || {
            format!(
                "{path} leads out of the source directory: put what it names into that, and write a path inside it"
            )
        };
        if path.starts_with('/') || path.starts_with('~') || path.contains("${") {
            return Err(out());
        }
        let full = self.root.join(base).join(path);
        let real = match full.canonicalize() {
            Ok(real) => real,
            // Where it would lead cannot be told then; what is not there is not read either.
            Err(_) if path.split('/').any(|part| part == "..") => return Err(out()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("there is no {path} in the source directory{}", beside(base)));
            }
            Err(error) => return Err(format!("{path} cannot be read: {error}")),
        };
        let relative = real.strip_prefix(&self.root).map_err(|_| out())?;
        relative.to_str().map(ToOwned::to_owned).ok_or_else(|| format!("{path} is no UTF-8 text"))
    }
}

fn beside(base: &str) -> String {
    if base.is_empty() { String::new() } else { format!(", beside this file in {base}") }
}

fn is_remote(path: &str) -> bool {
    path.contains("://") && pip::local_path(path).is_none()
}

/// Everything that a line says: pip lets several options stand on one.
fn statements(line: &str) -> Result<Vec<Said<'_>>, String> {
    if !line.starts_with('-') {
        let options = line.find(" -").unwrap_or(line.len());
        let (text, options) = (line[..options].trim(), line[options..].trim());
        for word in options.split_whitespace().filter(|word| word.starts_with('-')) {
            let name = word.split('=').next().unwrap_or(word);
            if name != "--hash" {
                return Err(format!(
                    "the installer (uv) knows no option `{name}` of a requirement: remove it"
                ));
            }
        }
        return Ok(vec![Said::Package { text, is_hashed: !options.is_empty() }]);
    }
    let mut said = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (one, left) = option(rest)?;
        said.push(one);
        rest = left.trim_start();
    }
    Ok(said)
}

/// The option that a text begins with, and what follows it.
fn option(text: &str) -> Result<(Said<'_>, &str), String> {
    let is_long = text.starts_with("--");
    let end = if is_long { text.find(['=', ' ', '\t']).unwrap_or(text.len()) } else { text.len().min(2) };
    let (name, rest) = text.split_at(text.floor_char_boundary(end));
    let value = || {
        let (value, left) = word(rest.trim_start_matches(['=', ' ', '\t']));
        if value.is_empty() { Err(format!("`{name}` needs a value")) } else { Ok((value, left)) }
    };
    Ok(match name {
        "-r" | "--requirement" => {
            value().map(|(path, left)| (Said::Include { path, constraint: false }, left))?
        }
        "-c" | "--constraint" => {
            value().map(|(path, left)| (Said::Include { path, constraint: true }, left))?
        }
        "-e" | "--editable" => value().map(|(path, left)| (Said::Local { path, beside: false }, left))?,
        "-f" | "--find-links" => value().map(|(path, left)| (Said::Local { path, beside: true }, left))?,
        "-i" | "--index-url" | "--extra-index-url" => value().map(|(_, left)| (Said::Known, left))?,
        "--no-index" => (Said::Known, rest),
        "--no-binary" | "--only-binary" => {
            value().map(|(packages, left)| (Said::BuildOption(format!("{name}={packages}")), left))?
        }
        // These uv takes on its command line, and only warns of in a file.
        "--pre" => (Said::Argument(vec!["--prerelease=allow".to_owned()]), rest),
        "--trusted-host" => value()
            .map(|(host, left)| (Said::Argument(vec![format!("--allow-insecure-host={host}")]), left))?,
        "--require-hashes" => (Said::RequireHashes, rest),
        unknown => {
            return Err(format!(
                "the installer (uv) knows no option `{unknown}` of pip's: remove it, or write its full name if it is \
                 shortened"
            ));
        }
    })
}

/// The first word of a text without its quotes, and what follows it.
fn word(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some((word, left)) = text.strip_prefix(quote).and_then(|text| text.split_once(quote)) {
            return (word, left);
        }
    }
    text.split_at(text.find([' ', '\t']).unwrap_or(text.len()))
}

/// The path that a requirement is installed from, if it is one: bare, behind a name and `@`, or as an address.
fn local_path(text: &str) -> Option<String> {
    let text = text.split(" ;").next().unwrap_or(text).trim();
    let address = text.split_once('@').map_or(text, |(_, address)| address.trim());
    if let Some(path) = pip::local_path(text).or_else(|| pip::local_path(address)) {
        return Some(path);
    }
    if text.contains("://") {
        return None;
    }
    let is_path =
        text.starts_with(['.', '/', '~']) || (requirement_name(text).is_none() && !text.contains(' '));
    is_path.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("src")).unwrap();
        for (name, content) in files {
            let path = directory.path().join("src").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        directory
    }

    fn look(files: &[(&str, &str)], entries: &[&str]) -> Result<Found, String> {
        let tree = tree(files);
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let file = files.first().map(|(name, _)| *name);
        inspect(&tree.path().join("src"), &entries, file)
    }

    #[test]
    fn includes_are_followed_and_what_they_name_is_known() {
        let found = look(
            &[
                ("req.txt", "-r sub/more.txt\n-c sub/limits.txt\nChainer[docs]>=6 # newer\nnumpy\n"),
                (
                    "sub/more.txt",
                    "--requirement=again.txt\nmpi4py==3.0.0 \\\n  --hash=sha256:00\n-r ../req.txt",
                ),
                ("sub/again.txt", "six"),
                ("sub/limits.txt", "protobuf<4\n"),
            ],
            &["--pre", "scipy"],
        )
        .unwrap();
        let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(names(&found.required), "chainer mpi4py numpy six");
        assert_eq!(names(&found.pinned), "chainer mpi4py protobuf");
        let files: Vec<_> = found.files.keys().map(String::as_str).collect();
        assert_eq!(files, ["req.txt", "sub/again.txt", "sub/limits.txt", "sub/more.txt"]);
        assert_eq!(found.arguments, ["--prerelease=allow"]);
        assert!(found.old_mpi4py && !found.local);
    }

    #[test]
    fn what_leads_out_is_refused_with_file_and_line() {
        for line in [
            "-r ../../x",
            "-r/etc/hosts",
            "-c ~/x",
            "-r \"../../y\"",
            "-e ..",
            "--find-links=/srv",
            "../a.whl",
        ] {
            let why =
                look(&[("req.txt", "six\n-r sub/more.txt"), ("sub/more.txt", &format!("\n\n{line}"))], &[]);
            let why = why.unwrap_err();
            assert!(why.starts_with("sub/more.txt, line 3: ") && why.contains("leads out"), "{line}: {why}");
        }
        assert!(look(&[], &["-r ../x"]).unwrap_err().starts_with("pip_packages: `-r ../x`"));
    }

    #[test]
    fn links_are_followed_before_anybody_believes_them() {
        let tree = tree(&[("req.txt", "-r link.txt"), ("inner.txt", "six")]);
        let source = tree.path().join("src");
        fs::write(tree.path().join("secret.txt"), "six").unwrap();
        std::os::unix::fs::symlink(tree.path().join("secret.txt"), source.join("link.txt")).unwrap();
        let why = inspect(&source, &[], Some("req.txt")).unwrap_err();
        assert!(why.starts_with("req.txt, line 1") && why.contains("leads out"), "{why}");
        fs::remove_file(source.join("link.txt")).unwrap();
        std::os::unix::fs::symlink("inner.txt", source.join("link.txt")).unwrap();
        assert!(inspect(&source, &[], Some("req.txt")).unwrap().files.contains_key("inner.txt"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let why = look(&[("sub/req.txt", "-r more.txt")], &[]).unwrap_err();
        assert_eq!(
            why,
            "sub/req.txt, line 1: `-r more.txt`: there is no more.txt in the source directory, beside this file in sub"
        );
    }

    #[test]
    fn the_source_tree_is_known_to_be_read() {
        let files = [("r.txt", ""), ("pkg/setup.py", ""), ("w/a.tar.gz", ""), ("a-1-py3-none-any.whl", "")];
        for entry in [
            "-e ./pkg",
            "-e ./pkg[x]#egg=y",
            "-f w",
            "--find-links=./w",
            "./pkg",
            "w/a.tar.gz",
            "a @ file:pkg",
            "a-1-py3-none-any.whl ; os_name == 'x'",
            "file:./w/a.tar.gz",
        ] {
            assert!(look(&files, &[entry]).unwrap().local, "{entry}");
        }
        for entry in [
            "a",
            "a==1 ; os_name == 'a/b'",
            "-f https://e.invalid/w",
            "a @ https://e.invalid/a.whl",
            "git+ssh://git@e.invalid/r.git",
            "-e git+https://e.invalid/r.git#egg=r",
            "-r https://e.invalid/r",
        ] {
            assert!(!look(&files, &[entry]).unwrap().local, "{entry}");
        }
    }

    #[test]
    fn options_are_said_in_the_installer_s_words_or_refused() {
        let text = "-i https://e.invalid/simple --trusted-host e.invalid\n--no-binary numpy\n--only-binary=:all:\n--pre\n";
        let found = look(&[("r.txt", text)], &[]).unwrap();
        assert_eq!(found.arguments, ["--allow-insecure-host=e.invalid", "--prerelease=allow"]);
        let options: Vec<_> = found.build_options.iter().map(String::as_str).collect();
        assert_eq!(options, ["--no-binary=numpy", "--only-binary=:all:"]);
        for (line, option) in [
            ("--prefer-binary", "`--prefer-binary`"),
            ("--extra-index=https://e.invalid", "`--extra-index`"),
            ("a --config-settings x=y", "`--config-settings`"),
            ("--use-feature fast-deps", "`--use-feature`"),
            ("-é", "`-é`"),
        ] {
            let why = look(&[("r.txt", line)], &[]).unwrap_err();
            assert!(
                why.starts_with("r.txt, line 1: ") && why.contains(option) && why.contains("uv"),
                "{why}"
            );
        }
        assert!(
            look(&[("r.txt", "-i https://u:s3cret@e.invalid --x")], &[]).unwrap_err().contains("//***@e")
        );
    }

    #[test]
    fn hashes_are_required_of_all_when_they_are_required() {
        let hashed = "--require-hashes\nsix==1.16.0 --hash=sha256:00\n";
        assert!(look(&[("r.txt", hashed)], &[]).is_ok());
        let why = look(&[("r.txt", &format!("{hashed}tqdm==1\n"))], &[]).unwrap_err();
        assert!(why.starts_with("r.txt, line 3: `tqdm==1`: it has no `--hash`"), "{why}");
        assert!(look(&[("r.txt", "six==1 --hash=sha256:00\ntqdm")], &[]).is_ok());
    }
}

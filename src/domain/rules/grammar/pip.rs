//! What may stand in a list of pip packages: a requirement, an address, a wheel, an option line.

use std::{borrow::Cow, fmt, path::Path, str::FromStr};

use pep508_rs::{Pep508ErrorSource, Pep508Url, Requirement, VersionOrUrl};

use super::paths;

/// How many `and` and `or` a condition may have.
const MAX_OPERATORS: usize = 16;

/// How many parentheses a requirement may open.
const MAX_PARENTHESES: usize = 32;

/// How long a requirement may be.
const MAX_LENGTH: usize = 8192;

/// Which kind of entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A requirement by name.
    Requirement,
    /// Fetched from elsewhere: a web address or version control.
    Remote,
    /// A file of the source directory.
    Local,
    /// An option line.
    Option,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it was written, without surrounding blanks.
    pub(crate) text: String,
    pub(crate) kind: EntryKind,
    /// The package that it names, PEP 503-normalised.
    pub(crate) name: Option<String>,
    /// A path in it that leads out of the source directory.
    pub(crate) escape: Option<String>,
}

/// Reads one entry.
///
/// # Errors
///
/// Says why it is none.
pub(crate) fn parse(entry: &str) -> Result<Entry, String> {
    let text = entry.trim();
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if entry.contains(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']) {
        return Err("it holds a line end; one entry is one line".to_owned());
    }
    if text.starts_with('#') {
        return Err("it is a comment, which names no package".to_owned());
    }
    if text.starts_with('-') {
        let escape = option_escape(text);
        return Ok(Entry { text: text.to_owned(), kind: EntryKind::Option, name: None, escape });
    }
    if scheme(text).is_some() {
        return address(text);
    }
    let (path, marker) = split_marker(text);
    if path.to_ascii_lowercase().ends_with(".whl") && !path.contains(char::is_whitespace) {
        check_marker(marker)?;
        let escape = leads_out(path).then(|| path.to_owned());
        let name = wheel_name(path);
        return Ok(Entry { text: text.to_owned(), kind: EntryKind::Local, name, escape });
    }
    requirement(text)
}

/// Looks at the beginning of a requirement: its name, its extras, and what may follow them.
///
/// The parser panics on a name or an extra that ends with punctuation (`a-!`), so it is not asked about those.
fn check_beginning(text: &str) -> Result<(), String> {
    let mut rest = after_name(text, "the name of a package")?.trim_start();
    if let Some(extras) = rest.strip_prefix('[') {
        let Some((inside, after)) = extras.split_once(']') else {
            return Err("the list of extras is not closed by `]`".to_owned());
        };
        if !inside.trim().is_empty() {
            for extra in inside.split(',') {
                if !after_name(extra.trim(), "an extra")?.is_empty() {
                    return Err("its extras are names with commas between them".to_owned());
                }
            }
        }
        rest = after.trim_start();
    }
    match rest.chars().next() {
        None | Some('@' | '(' | '<' | '=' | '>' | '~' | '!' | ';') => Ok(()),
        Some(other) => {
            let other = other.escape_debug();
            Err(format!(
                "after the name comes a version, `@` and an address, or `;` and a condition, but not `{other}`"
            ))
        }
    }
}

/// The parser reads parentheses by recursion, and compiles conditions into decision diagrams, which can double with
/// every word. Real requirements are short, so anything else is refused before the parser sees it.
fn check_size(text: &str) -> Result<(), String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("it is longer than {MAX_LENGTH} bytes"));
    }
    if text.matches('(').count() > MAX_PARENTHESES {
        return Err(format!("it has more than {MAX_PARENTHESES} parentheses"));
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    if text.contains(';') && words.filter(|word| matches!(*word, "and" | "or")).count() > MAX_OPERATORS {
        return Err(format!("its condition has more than {MAX_OPERATORS} `and` and `or`"));
    }
    Ok(())
}

/// What follows the name that a text begins with.
fn after_name<'a>(text: &'a str, what: &str) -> Result<&'a str, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let end = text.find(|c: char| !is_part(c)).unwrap_or(text.len());
    let bytes = &text.as_bytes()[..end];
    let bounded = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    if bounded(bytes.first()) && bounded(bytes.last()) {
        Ok(&text[end..])
    } else {
        Err(format!("{what} begins and ends with an ASCII letter or digit"))
    }
}

fn requirement(text: &str) -> Result<Entry, String> {
    check_size(text)?;
    check_beginning(text)?;
    let parsed = Requirement::<Address>::from_str(&without_arbitrary_equality(text)).map_err(|error| {
        match error.message {
            Pep508ErrorSource::String(detail) | Pep508ErrorSource::UnsupportedRequirement(detail) => {
                clause(&detail)
            }
            Pep508ErrorSource::UrlError(error) => error.to_string(),
        }
    })?;
    let name = Some(parsed.name.to_string());
    let mut kind = EntryKind::Requirement;
    let mut escape = None;
    if let Some(VersionOrUrl::Url(Address(url))) = &parsed.version_or_url {
        kind = EntryKind::Remote;
        if let Some(path) = local_path(url) {
            kind = EntryKind::Local;
            escape = leads_out(&path).then_some(path);
        }
    }
    Ok(Entry { text: text.to_owned(), kind, name, escape })
}

/// The text with `===` and what follows it replaced by a comparison that the parser reads. PEP 508 lets `===` stand before
/// any word, and before texts in conditions; the parser wants a version there, and knows it in conditions not at all.
fn without_arbitrary_equality(text: &str) -> Cow<'_, str> {
    if !text.contains("===") {
        return Cow::Borrowed(text);
    }
    let condition = text.find(';').unwrap_or(text.len());
    let (versions, condition) = text.split_at(condition);
    // Behind `@` stands an address, whatever it holds.
    let mut replaced = String::with_capacity(text.len());
    let mut rest = versions;
    while let Some(at) = rest.find("===").filter(|_| !versions.contains('@')) {
        let after = rest[at + 3..].trim_start();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '+' | '!');
        let end = after.find(|c: char| !is_part(c)).unwrap_or(after.len());
        replaced.push_str(&rest[..at]);
        replaced.push_str(if end == 0 { "===" } else { "==1" });
        rest = &after[end..];
    }
    replaced.push_str(rest);
    replaced.push_str(&condition.replace("===", "=="));
    Cow::Owned(replaced)
}

/// A sentence of the parser's as a part of one of ours.
fn clause(sentence: &str) -> String {
    let line = sentence.lines().next().unwrap_or_default().trim_end_matches('.');
    let mut characters = line.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => "it is no requirement".to_owned(),
    }
}

fn address(text: &str) -> Result<Entry, String> {
    let (url, marker) = split_marker(text);
    Address::parse_url(url, None).map_err(|error| error.to_string())?;
    check_marker(marker)?;
    let mut entry =
        Entry { text: text.to_owned(), kind: EntryKind::Remote, name: address_name(url), escape: None };
    if let Some(path) = local_path(url) {
        entry.kind = EntryKind::Local;
        entry.escape = leads_out(&path).then_some(path);
    }
    Ok(entry)
}

/// An address: a scheme that pip knows, something after it, no blanks. It is not resolved and not expanded.
#[derive(Debug)]
struct Address(String);

/// Why a text is no address.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is no address that pip knows (https:, http:, ftp:, file:, or git+, hg+, svn+, bzr+ and one of those)"
)]
struct AddressError;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pep508Url for Address {
    type Err = AddressError;

    fn parse_url(url: &str, _: Option<&Path>) -> Result<Self, Self::Err> {
        let scheme = scheme(url).ok_or(AddressError)?;
        let rest = &url[scheme.len() + 1..];
        // Schemes are read in any case of letters, as pip reads them.
        let transport = scheme.rsplit('+').next().unwrap_or(scheme);
        let sound = if transport.eq_ignore_ascii_case("file") {
            !rest.trim_matches('/').is_empty()
        } else {
            rest.strip_prefix("//")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '['))
        };
        if sound && !url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            Ok(Self(url.to_owned()))
        } else {
            Err(AddressError)
        }
    }
}

/// The scheme of an address that pip knows.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let lower = scheme.to_ascii_lowercase();
    let transports = ["https", "http", "ftp", "file"];
    if transports.contains(&lower.as_str()) {
        return Some(scheme);
    }
    let (system, transport) = lower.split_once('+')?;
    let known = matches!(system, "git" | "hg" | "svn" | "bzr")
        && matches!(
            transport,
            "https" | "http" | "ftp" | "sftp" | "ssh" | "git" | "file" | "static-http" | "lp" | "svn"
        );
    known.then_some(scheme)
}

/// The path of an address that reads files, percent-decoded.
pub(crate) fn local_path(url: &str) -> Option<String> {
    let scheme = scheme(url)?;
    if !scheme.to_ascii_lowercase().ends_with("file") {
        return None;
    }
    let rest = url[scheme.len() + 1..].split(['#', '?']).next().unwrap_or_default();
    let rest = match rest.strip_prefix("//") {
        // `file://host/path` is absolute whatever the host.
        Some(authority) if authority.contains('/') => &authority[authority.find('/').unwrap_or(0)..],
        Some(authority) => authority,
        None => rest,
    };
    Some(percent_decoded(rest))
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let (b'%', Some(code)) = (bytes[at], code) {
            out.push(code);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a path may lead out of the source directory; pip expands `~` and `${…}`, so both do.
pub(crate) fn leads_out(path: &str) -> bool {
    paths::escapes(path) || path.starts_with('~') || path.contains("${") || path.starts_with('\\')
}

/// A path in an option line that leads out: any word of it is looked at, because pip takes options in several spellings.
fn option_escape(line: &str) -> Option<String> {
    let bare: String = line.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    for word in bare.split_whitespace() {
        let mut candidates = vec![word];
        if let Some((_, value)) = word.split_once('=') {
            candidates.push(value);
        }
        if word.starts_with('-') && !word.starts_with("--") {
            candidates.push(word.get(2..).unwrap_or_default());
        }
        for candidate in candidates {
            if scheme(candidate).is_some() {
                match local_path(candidate) {
                    Some(path) if leads_out(&path) => return Some(path),
                    _ => continue,
                }
            }
            if !candidate.starts_with('-') && leads_out(candidate) {
                return Some(candidate.to_owned());
            }
        }
    }
    None
}

/// The entry and its environment marker (` ; …`), if there is one.
fn split_marker(text: &str) -> (&str, Option<&str>) {
    match text.find(" ;").or_else(|| text.find("; ")) {
        Some(at) => {
            let marker = text[at..].trim_start().trim_start_matches(';');
            (text[..at].trim_end(), Some(marker))
        }
        None => (text, None),
    }
}

fn check_marker(marker: Option<&str>) -> Result<(), String> {
    if let Some(marker) = marker {
        requirement(&format!("placeholder ; {marker}"))?;
    }
    Ok(())
}

/// The package that an address names: its `egg` fragment, or the first part of a wheel's name.
fn address_name(url: &str) -> Option<String> {
    if let Some((_, fragment)) = url.split_once('#') {
        for part in fragment.split('&') {
            if let Some(egg) = part.strip_prefix("egg=") {
                return Some(normalized(egg.split('[').next().unwrap_or(egg)));
            }
        }
    }
    let path = url.split(['#', '?']).next().unwrap_or(url);
    wheel_name(path)
}

fn wheel_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    if !file.to_ascii_lowercase().ends_with(".whl") {
        return None;
    }
    let (name, _) = file.split_once('-')?;
    Some(normalized(name))
}

/// A name as PEP 503 compares it: lower case, runs of `-`, `_`, `.` are one `-`.
pub(crate) fn normalized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(character, '-' | '_' | '.') {
            if !out.ends_with('-') {
                out.push('-');
            }
        } else {
            out.push(character.to_ascii_lowercase());
        }
    }
    out
}

/// A text of the user's without what stands between `//` and `@` in an address: it may be a password.
pub(crate) fn without_credentials(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (head, tail) = rest.split_at(start + 3);
        out.push_str(head);
        let end = tail.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(tail.len());
        match tail[..end].rfind('@') {
            Some(at) => {
                out.push_str("***");
                rest = &tail[at..];
            }
            None => rest = tail,
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_every_kind() {
        for (text, kind, name) in [
            ("numpy", EntryKind::Requirement, Some("numpy")),
            ("Chainer[docs]>=6", EntryKind::Requirement, Some("chainer")),
            ("zope.interface (>=1.0)", EntryKind::Requirement, Some("zope-interface")),
            ("numpy==1.* ; python_version > \"3\"", EntryKind::Requirement, Some("numpy")),
            ("tool @ https://example.invalid/tool-1.0.tar.gz", EntryKind::Remote, Some("tool")),
            ("https://x.invalid/chainer-6.0.0-py3-none-any.whl", EntryKind::Remote, Some("chainer")),
            ("git+https://e.invalid/t/tool.git@v1#egg=My_Tool", EntryKind::Remote, Some("my-tool")),
            ("git+ssh://git@e.invalid/t/tool.git", EntryKind::Remote, None),
            ("https://e.invalid/a.tar.gz ; python_version > '3'", EntryKind::Remote, None),
            ("wheels/a_b-1.0-py3-none-any.whl", EntryKind::Local, Some("a-b")),
            ("file:wheels/a-1.0-py3-none-any.whl", EntryKind::Local, Some("a")),
            ("-r other.txt", EntryKind::Option, None),
            ("--index-url https://example.invalid/simple", EntryKind::Option, None),
        ] {
            let entry = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((entry.kind, entry.name.as_deref(), entry.escape), (kind, name, None), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "  ",
            "# x",
            "num py",
            "==1.16",
            "numpy==",
            "нумпи==1.0",
            "numpy; python_version <",
            "chainer[docs",
            "numpy; rm -rf /",
            "numpy\n--index-url https://evil.invalid",
            "numpy\r",
            "https://",
            "foo://bar/baz",
            "please install numpy",
            "git+foo://x/y",
            "https://a b",
            "a @ ",
            "a-!",
            "a[b-]",
            "a[b,,c]",
            "a-\u{113c5}",
            "file:///",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn conditions_are_bounded() {
        let condition = |count: usize| format!("a ; os_name == 'x'{}", " and extra == 'y'".repeat(count));
        assert!(parse(&condition(16)).is_ok());
        assert!(parse(&condition(17)).unwrap_err().contains("`and`"));
        assert!(parse(&format!("a ; {}", "(".repeat(8000))).unwrap_err().contains("parentheses"));
        assert!(parse(&"a".repeat(10_000)).unwrap_err().contains("longer"));
    }

    #[test]
    fn files_stay_inside() {
        for text in [
            "-r ../x.txt",
            "-r/etc/x",
            "--requirement=../x",
            "-c /etc/c.txt",
            "-e ..",
            "-f ~/wheels",
            "--find-links=/w",
            "--no-index -f ../w",
            "-r \"../x\"",
            "-r '/x'",
            "-r .\\./x",
            "-e file:///srv/x",
            "-e git+file:///srv/x",
            "-c file:%2e%2e/x",
            "../a-1-py3-none-any.whl",
            "/a-1-py3-none-any.whl",
            "file:///srv/a.whl",
            "file:../a",
            "file://localhost/srv/a",
            "a @ file:///srv/a",
            "--find-links ${HOME}/x",
            "--index-url file:///srv/x",
        ] {
            assert!(parse(text).unwrap().escape.is_some(), "{text}");
        }
        for text in
            ["-r a/b.txt", "-e .", "-f wheels", "-c https://x.invalid/c/../d.txt", "--pre", "-e ./pkg#egg=x"]
        {
            assert_eq!(parse(text).unwrap().escape, None, "{text}");
        }
    }

    #[test]
    fn credentials_are_not_repeated() {
        assert_eq!(without_credentials("a @ https://u:p@h/x@1 http://h"), "a @ https://***@h/x@1 http://h");
        assert_eq!(without_credentials("numpy"), "numpy");
    }
}

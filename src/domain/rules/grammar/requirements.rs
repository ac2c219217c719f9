//! pip's requirements file format: comments, continued lines, options, hashes, addresses.

use super::pip::{self, Entry};

/// The options that may stand on a line of their own.
const LINE_OPTIONS: &[&str] = &[
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "--constraint",
    "--requirement",
    "--editable",
    "--find-links",
    "--no-binary",
    "--only-binary",
    "--prefer-binary",
    "--require-hashes",
    "--pre",
    "--trusted-host",
    "--use-feature",
    "--process-dependency-links",
    "--always-unzip",
];

/// The options that may follow a requirement.
const REQUIREMENT_OPTIONS: &[&str] = &["--hash", "--config-settings", "--global-option", "--install-option"];

/// One logical line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// As it is passed on: joined, without its comment.
    pub(crate) text: String,
    /// What it is.
    pub(crate) entry: Entry,
}

/// Reads a requirements file.
///
/// # Errors
///
/// Says which line is wrong, and why.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (number, content) in logical_lines(bytes)? {
        let line = logical(&content).map_err(|why| {
            let shown = crate::domain::definition::shortened(&pip::without_credentials(&content));
            format!("line {number} ({shown:?}): {why}")
        })?;
        lines.push(line);
    }
    Ok(lines)
}

/// The lines of a requirements file that say something: continued ones joined, comments left out, each with the number of
/// its first.
///
/// # Errors
///
/// Says why it is no text.
pub(crate) fn logical_lines(bytes: &[u8]) -> Result<Vec<(usize, String)>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains('\0') {
        return Err("it holds a NUL character".to_owned());
    }
    let mut lines = Vec::new();
    for (number, joined) in joined(text) {
        let content = without_comment(&joined).trim();
        if !content.is_empty() {
            lines.push((number, content.to_owned()));
        }
    }
    Ok(lines)
}

/// Lines with the continued ones joined, each with the number of its first.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let is_comment = line.trim_start().starts_with('#');
        let continued = !is_comment && line.ends_with('\\');
        let part = if continued { line.trim_end_matches('\\') } else { line };
        let (number, mut whole) = open.take().unwrap_or((index + 1, String::new()));
        if is_comment {
            // A comment ends a continued line and stays a comment.
            whole.push(' ');
        }
        whole.push_str(part);
        if continued {
            open = Some((number, whole));
        } else {
            out.push((number, whole));
        }
    }
    out.extend(open);
    out
}

/// A comment begins with `#` at the start or after a blank.
fn without_comment(line: &str) -> &str {
    let mut before_is_blank = true;
    for (at, character) in line.char_indices() {
        if character == '#' && before_is_blank {
            return &line[..at];
        }
        before_is_blank = character.is_whitespace();
    }
    line
}

fn logical(content: &str) -> Result<Line, String> {
    if content.starts_with('-') {
        check_options(content, LINE_OPTIONS, "rcefi")?;
        let entry = pip::parse(content)?;
        return Ok(Line { text: content.to_owned(), entry });
    }
    let (requirement, options) = split_options(content);
    // In a file pip puts the values of the environment in the place of `${NAME}`; which they are is not known here.
    let entry = match pip::parse(&with_variables(requirement)) {
        Ok(entry) => pip::Entry { text: requirement.trim().to_owned(), ..entry },
        Err(why) => return Err(why),
    };
    if options.is_empty() {
        return Ok(Line { text: entry.text.clone(), entry });
    }
    check_options(options, REQUIREMENT_OPTIONS, "C")?;
    Ok(Line { text: format!("{} {options}", entry.text), entry })
}

/// The text with a word in the place of each `${NAME}` of an address. A path of a file keeps them: it may lead anywhere.
fn with_variables(text: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (head, tail) = rest.split_at(start);
        replaced.push_str(head);
        let name = tail[2..].split_once('}').map(|(name, _)| name).filter(|name| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        });
        let in_address = replaced.contains("://") && pip::local_path(replaced.trim_start()).is_none();
        match name {
            Some(name) if in_address => {
                replaced.push('x');
                rest = &tail[name.len() + 3..];
            }
            _ => {
                replaced.push_str("${");
                rest = &tail[2..];
            }
        }
    }
    replaced.push_str(rest);
    replaced
}

/// The requirement, and the options from the first word on that begins with `-`.
fn split_options(content: &str) -> (&str, &str) {
    let mut at = 0;
    for word in content.split(' ') {
        if word.starts_with('-') {
            return (content[..at].trim_end(), content[at..].trim());
        }
        at += word.len() + 1;
    }
    (content, "")
}

/// Every word that looks like an option must be (the beginning of) a known one.
fn check_options(text: &str, known: &[&str], short: &str) -> Result<(), String> {
    for word in text.split_whitespace() {
        if !word.starts_with('-') {
            continue;
        }
        let name = word.split('=').next().unwrap_or(word);
        let is_known = if name.starts_with("--") {
            name.len() > 2 && known.iter().any(|option| option.starts_with(name))
        } else {
            name[1..].chars().next().is_some_and(|letter| short.contains(letter))
        };
        if !is_known {
            return Err(format!("pip knows no option `{}` here", crate::domain::definition::shortened(name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rules::grammar::pip::EntryKind;

    fn texts(text: &str) -> Vec<String> {
        parse(text.as_bytes()).unwrap().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn comments_options_and_continued_lines() {
        let text = "\u{feff}# first\n--extra-index-url https://e.invalid/simple\r\n\
            Pillow==9.2.0 ; python_version > \"3\"\n\nnumpy   # why\n-r other.txt\n\
            tqdm==4.64.0 \\\n    --hash=sha256:00 \\\n  # a comment\nscipy\\\n>=1\n";
        assert_eq!(
            texts(text),
            [
                "--extra-index-url https://e.invalid/simple",
                "Pillow==9.2.0 ; python_version > \"3\"",
                "numpy",
                "-r other.txt",
                "tqdm==4.64.0 --hash=sha256:00",
                "scipy>=1",
            ]
        );
        assert!(texts("").is_empty());
    }

    #[test]
    fn addresses_keep_their_fragment() {
        let lines = parse(b"git+https://e.invalid/t/tool.git@v1#egg=tool\na-1-py3-none-any.whl").unwrap();
        assert_eq!(lines[0].entry.kind, EntryKind::Remote);
        assert_eq!(lines[0].entry.name.as_deref(), Some("tool"));
        assert_eq!(lines[1].entry.kind, EntryKind::Local);
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line) in [
            ("pillow\nnumpy==\n", "line 2"),
            ("please install numpy and scipy", "line 1"),
            ("a\n\n--no-such-option x", "line 3"),
            ("numpy --no-index", "line 1"),
            ("-", "line 1"),
        ] {
            let why = parse(text.as_bytes()).unwrap_err();
            assert!(why.starts_with(line), "{text}: {why}");
        }
        assert!(parse(b"\xff").is_err());
        assert!(!parse(b"x @ https://u:s3cret@h y").unwrap_err().contains("s3cret"));
    }

    #[test]
    fn variables_stand_in_addresses() {
        for good in [
            "https://${TOKEN}@x.invalid/a.whl",
            "git+https://${TOKEN}@x.invalid/r.git#egg=r",
            "tool @ https://${USER_1}:${TOKEN}@x.invalid/tool.whl",
        ] {
            let lines = parse(good.as_bytes()).unwrap_or_else(|why| panic!("{good}: {why}"));
            assert_eq!(lines[0].text, good);
        }
        assert!(parse(b"num${PY}").is_err());
        let lines = parse(b"./${DIR}/a.whl").unwrap();
        assert!(lines[0].entry.escape.is_some(), "nobody knows where it leads");
        let lines = parse(b"file:///srv/${DIR}/a.whl").unwrap();
        assert!(lines[0].entry.escape.is_some());
    }
}

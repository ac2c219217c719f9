//! Bearer tokens in a file of the operator's: how a new installation is first reached.

use subtle::ConstantTimeEq as _;

use crate::domain::{
    access::{Credential, Principal, Scope},
    api_token::{TokenDigest, TokenName, digest},
    project::Project,
};

/// What is shorter can be guessed.
const MIN_TOKEN_CHARACTERS: usize = 16;

/// The tokens, as digests: they themselves are not kept.
#[derive(Clone)]
pub struct FileTokens(Vec<(Principal, TokenDigest)>);

impl FileTokens {
    /// Reads a file of tokens: one a line, after the name of its caller where several callers are told apart, and before what it
    /// may do (`admin` when not said) and its project (`default` when not said). Empty lines and those that begin with `#`
    /// are skipped.
    ///
    /// # Errors
    /// What is wrong, with the line; no token is repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<(Principal, TokenDigest)> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (principal, known) = read(line).map_err(|why| format!("line {}: {why}", at + 1))?;
            if tokens.iter().any(|(_, other)| *other == known) {
                return Err(format!("line {}: this token is there twice", at + 1));
            }
            tokens.push((principal, known));
        }
        if tokens.is_empty() { Err("there is no token in it".to_owned()) } else { Ok(Self(tokens)) }
    }

    /// Whose token it is. Digests have equal lengths, and are compared in constant time, all of them: how long it takes tells
    /// nothing about how much of a guess was right.
    #[must_use]
    pub fn principal_of(&self, token: &str) -> Option<&Principal> {
        let given = digest(token);
        let mut found = None;
        for (principal, known) in &self.0 {
            if bool::from(given.ct_eq(known)) {
                found = Some(principal);
            }
        }
        found
    }
}

fn read(line: &str) -> Result<(Principal, TokenDigest), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, token, scope, project) = match words[..] {
        [token] => ("", token, None, None),
        [name, token] => (name, token, None, None),
        [name, token, scope] => (name, token, Some(scope), None),
        [name, token, scope, project] => (name, token, Some(scope), Some(project)),
        _ => {
            return Err(
                "write a token; or the caller's name, its token, its scope and its project".to_owned()
            );
        }
    };
    if !name.is_empty() {
        name.parse::<TokenName>().map_err(|error| error.to_string())?;
    }
    if token.len() < MIN_TOKEN_CHARACTERS {
        return Err(format!(
            "the token is shorter than {MIN_TOKEN_CHARACTERS} characters: too easy to guess"
        ));
    }
    let scope = scope.map_or(Ok(Scope::Admin), |word| word.parse().map_err(|e| format!("{e}")))?;
    let project = project.map_or(Ok(Project::default()), |word| word.parse().map_err(|e| format!("{e}")))?;
    let principal = Principal { name: name.to_owned(), project, scope, credential: Credential::File };
    Ok((principal, digest(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_or_one_for_each_caller() {
        let one = FileTokens::parse("  a-single-secret-token\n").expect("read");
        let anyone = one.principal_of("a-single-secret-token").expect("known");
        assert_eq!(
            (anyone.name.as_str(), anyone.scope, anyone.project.as_str()),
            ("", Scope::Admin, "default")
        );
        assert_eq!(one.principal_of("a-single-secret-tokem"), None);
        assert_eq!(one.principal_of(""), None);
        let text = "# of the teams\n\nvision 0123456789abcdef submit team-v\nci\tfedcba9876543210 read\n";
        let several = FileTokens::parse(text).expect("read");
        let of = |token| several.principal_of(token).map(|one| (one.caller(), one.scope));
        assert_eq!(of("0123456789abcdef"), Some(("team-v/vision".to_owned(), Scope::Submit)));
        assert_eq!(of("fedcba9876543210"), Some(("ci".to_owned(), Scope::Read)));
    }

    #[test]
    fn a_file_that_is_no_list_of_tokens_is_refused_with_the_line() {
        for (text, why) in [
            ("", "there is no token"),
            ("short", "line 1: the token is shorter than 16"),
            ("a 0123456789abcdef\nb 0123456789abcdef", "line 2: this token is there twice"),
            ("a b c d e", "line 1: write a token"),
            ("a 0123456789abcdef all", "line 1: a scope is `read`"),
            ("a 0123456789abcdef read A", "line 1: a project's name"),
            ("a/b 0123456789abcdef", "line 1: a caller's name"),
        ] {
            let error = FileTokens::parse(text).err().expect("refused");
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

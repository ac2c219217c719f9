//! Tokens where they do not belong: in paths and other texts that are logged and kept.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::api_token;

/// What stands for the rest of a token.
const MASK: &str = "***";
/// Hexadecimal digits from which on what follows the prefix of a run's token is taken for one.
const FEW_DIGITS: usize = 16;
/// Hexadecimal digits of a token that the service made.
const MADE_DIGITS: usize = 72;
/// What every JWT begins with: `{"` in base64.
const JWT: &str = "eyJ";

/// A text without the tokens in it, by their form: those that the service made, those of attempts and their scripts, and JWTs. What
/// they begin with stays, so that it can be seen what was there.
#[must_use]
pub fn without_tokens(text: &str) -> Cow<'_, str> {
    // One that is written with escapes is one as well: then the text is shown without them.
    if let Ok(Cow::Owned(plain)) = percent_decode_str(text).decode_utf8()
        && let Cow::Owned(masked) = masked(&plain)
    {
        return Cow::Owned(masked);
    }
    masked(text)
}

fn masked(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut taken = 0;
    let mut at = 0;
    while at < text.len() {
        // Every one of them begins with this letter.
        let Some(next) = text[at..].find('e') else { break };
        at += next;
        let Some((prefix, length)) = token_at(&text[at..]) else {
            at += 1;
            continue;
        };
        out.push_str(&text[taken..at + prefix]);
        out.push_str(MASK);
        at += length;
        taken = at;
    }
    if taken == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[taken..]);
    Cow::Owned(out)
}

/// The lengths of what a token that a text begins with begins with, and of all of it.
fn token_at(text: &str) -> Option<(usize, usize)> {
    for (prefix, least, most) in [
        (api_token::PREFIX, MADE_DIGITS, MADE_DIGITS),
        ("est-attempt-v1.", FEW_DIGITS, usize::MAX),
        ("est-run-v1.", FEW_DIGITS, usize::MAX),
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            // What follows may begin with letters that are digits, too.
            let digits = run(rest, |byte| byte.is_ascii_hexdigit()).min(most);
            return (digits >= least).then_some((prefix.len(), prefix.len() + digits));
        }
    }
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let header = run(text.strip_prefix(JWT)?, is_base64);
    let mut length = JWT.len() + header;
    for _ in 0..2 {
        length += 1 + run(text[length..].strip_prefix('.')?, is_base64);
    }
    Some((JWT.len(), length))
}

/// How many bytes at a text's beginning are as wanted.
fn run(text: &str, is_wanted: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|byte| is_wanted(*byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_hide_none() {
        let token = format!("estimatord_{}", "0a".repeat(36));
        for written in [token.replace('_', "%5f"), token.replacen('e', "%65", 1), token.replace("0a", "%30a")]
        {
            let masked = without_tokens(&written).into_owned();
            assert_eq!(masked, "estimatord_***", "{written}");
        }
        assert_eq!(without_tokens("/v1/runs/a%20b"), "/v1/runs/a%20b");
    }

    #[test]
    fn tokens_are_masked_wherever_they_stand() {
        let made = api_token::generate([7; 32]);
        let digits = "0a".repeat(32);
        for (text, masked) in [
            (format!("/v1/runs/{}", made.expose()), "/v1/runs/estimatord_***"),
            (format!("/v1/runs/{}/logs", made.expose()), "/v1/runs/estimatord_***/logs"),
            (format!("est-run-v1.{digits}"), "est-run-v1.***"),
            (format!("ä/est-attempt-v1.{digits}ä"), "ä/est-attempt-v1.***ä"),
            ("/v1/eyJhbGciOiJF.eyJpc3Mi-_.c2ln/x".to_owned(), "/v1/eyJ***/x"),
            ("eyJhbGciOiJub25lIn0.eyJhIjoxfQ.".to_owned(), "eyJ***"),
            (format!("{0}{0}", made.expose()), "estimatord_***estimatord_***"),
        ] {
            assert_eq!(without_tokens(&text), masked, "{text}");
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for text in [
            "",
            "/v1/runs/01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10",
            "/v1/estimatord_0a0a",
            "est-run-v1.0a",
            "eyJ",
            "/eyJhbGciOiJF/x.y.z",
            "eyJhbGciOiJF.only-two",
            "ö€𝄞",
        ] {
            assert!(matches!(without_tokens(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}

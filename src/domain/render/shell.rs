//! Texts as words of a POSIX shell.

/// A text as one word of a shell: bare where no shell sees anything in it, else in single quotes.
pub(in crate::domain) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    // Nothing but the quote itself ends what stands between single quotes.
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_stay_words() {
        for (text, word) in [
            ("", "''"),
            ("a/b-c_1.5,x=%y:z@+", "a/b-c_1.5,x=%y:z@+"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(id)", "'$(id)'"),
            ("a\nb", "'a\nb'"),
            ("é", "'é'"),
            ("~", "'~'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }
}

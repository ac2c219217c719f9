//! References to container images, by the OCI grammar: `[registry/]path[:tag][@digest]`.

/// Why a text is no image reference, in words; nothing when it is one.
pub(crate) fn fault(text: &str) -> Option<&'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Some("what follows `@` is no digest (such as `sha256:` and 64 hexadecimal digits)");
    }
    let name_end = match rest.rfind(':') {
        Some(colon) if !rest[colon..].contains('/') => {
            if !is_tag(&rest[colon + 1..]) {
                return Some(
                    "what follows the last `:` is no tag (letters, digits, `_`, `.`, `-`; at most 128)",
                );
            }
            colon
        }
        _ => rest.len(),
    };
    let name = &rest[..name_end];
    if name.is_empty() {
        return Some("the name of the image is missing");
    }
    if name.len() > 255 {
        return Some("the name is longer than 255 characters");
    }
    let Some((first, others)) = name.split_once('/') else {
        return path_fault(name);
    };
    if is_registry(first) || is_component(first) {
        return path_fault(others);
    }
    Some("what stands before the first `/` is neither a registry nor a part of a name")
}

/// A text that is no image reference without what stands before its last `@`: it may be a password, unless a digest was
/// meant.
pub(crate) fn without_credentials(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((name, rest)) if name.contains('@') || !rest.starts_with("sha") => format!("***@{rest}"),
        _ => text.to_owned(),
    }
}

fn path_fault(path: &str) -> Option<&'static str> {
    if path.split('/').all(is_component) {
        return None;
    }
    Some("the parts of a name are lower-case letters and digits, separated by `.`, `_`, `__` or `-`")
}

/// `[a-z0-9]+` groups, separated by one `.`, one or two `_`, or any number of `-`.
fn is_component(part: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_well = |b: Option<&u8>| b.is_some_and(|b| is_letter(*b));
    if !ends_well(bytes.first()) || !ends_well(bytes.last()) {
        return false;
    }
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    for separator in separators {
        let known = matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
        if !known {
            return false;
        }
    }
    true
}

/// A host name or a bracketed address, with an optional port.
fn is_registry(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return false;
        };
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return false;
        }
        return rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if port.is_some_and(|port| !is_port(port)) {
        return false;
    }
    host.split('.').all(|label| {
        let bytes = label.as_bytes();
        let ends_well = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        ends_well(bytes.first())
            && ends_well(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    first
        && bytes.len() <= 128
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let algorithm_known = algorithm.split(['+', '.', '-', '_']).all(|part| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    // The registered algorithms are written in lower case, and so are their digits.
    let registered = |length: usize| {
        algorithm.bytes().all(|b| !b.is_ascii_uppercase())
            && hex.len() == length
            && hex.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    match algorithm.to_ascii_lowercase().as_str() {
        "sha256" => registered(64),
        "sha512" => registered(128),
        _ => algorithm_known && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn references() {
        for loud in ["sha256:".to_owned() + &"A".repeat(64), "SHA256:".to_owned() + &"a".repeat(64)] {
            assert!(fault(&format!("x@{loud}")).is_some(), "{loud}");
        }
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for good in [
            "a",
            "ubuntu:18.04",
            "myacr.azurecr.io/chainer:1",
            "localhost:5000/a/b-c__d.e:v1.2_3",
            "MyHost/a",
            "[::1]:5000/a",
            "img-2",
            "a--b",
            "mcr.microsoft.com/azureml/base-gpu:intelmpi2018.3-cuda9.0-cudnn7-ubuntu16.04",
            &digest,
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in [
            "",
            " ",
            "A",
            "a b",
            "a:",
            ":1",
            "a:b:c",
            "a/",
            "/a",
            "a//b",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a@",
            "a@sha256:00",
            "https://x/y",
            "a:é",
            "a\n",
            "a:-1",
            "host:port/a",
            "$(id)",
            "a/B",
        ] {
            assert!(fault(bad).is_some(), "{bad:?}");
        }
    }
}

//! The size of shared memory: digits and an optional unit, as Docker takes it.

/// Whether a text is digits and at most one of `b`, `k`, `m`, `g` (any case), and more than nothing.
pub(crate) fn is_size(text: &str) -> bool {
    let digits = text.strip_suffix(['b', 'k', 'm', 'g', 'B', 'K', 'M', 'G']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && digits.bytes().any(|b| b != b'0')
}

/// Whether two sizes are the same number of bytes, however they are written.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one == other || bytes(one).is_some_and(|size| bytes(other) == Some(size))
}

fn bytes(text: &str) -> Option<u128> {
    if !is_size(text) {
        return None;
    }
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u128 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => 1,
    };
    digits.parse::<u128>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::{is_same, is_size};

    #[test]
    fn the_same_size_is_known_in_other_spellings() {
        for same in ["2g", "2G", "002g", "2048m", "2097152K", "2147483648", "2147483648b"] {
            assert!(is_same(same, "2g"), "{same}");
        }
        for other in ["2", "2m", "2047m", "3g", "2gb", "", &"9".repeat(60)] {
            assert!(!is_same(other, "2g"), "{other:?}");
        }
    }

    #[test]
    fn sizes() {
        for good in ["1", "2g", "2G", "4096b", "007m", "64k", "99999999999999999999g"] {
            assert!(is_size(good), "{good}");
        }
        for bad in
            ["", "0", "000", "0g", "g", "2gb", "2GiB", "+2g", "-1g", "2g\n", "2 g", "1.5g", "٢g", "abc"]
        {
            assert!(!is_size(bad), "{bad:?}");
        }
    }
}

//! The size of shared memory: digits and an optional unit, as Docker takes it.

/// Whether a text is digits and at most one of `b`, `k`, `m`, `g` (any case), and more than nothing.
pub(crate) fn is_size(text: &str) -> bool {
    let digits = text.strip_suffix(['b', 'k', 'm', 'g', 'B', 'K', 'M', 'G']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && digits.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::is_size;

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

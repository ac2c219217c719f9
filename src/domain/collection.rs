//! How much of what a run wrote is kept: what a script leaves behind must not fill the store for everybody.

/// Limits of what is kept of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of each log.
    pub log_bytes: u64,
    /// Logs.
    pub log_files: usize,
    /// Bytes of all outputs together.
    pub output_bytes: u64,
    /// Outputs.
    pub output_files: usize,
}

/// What is kept of some files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The places of the kept ones in the list that was asked about, and how many bytes of each.
    pub files: Vec<(usize, u64)>,
    /// What the run's history says of the rest; none where everything is kept.
    pub note: Option<String>,
}

/// The outputs to keep, of files with these names and sizes. What does not fit is left out whole; smaller files after it
/// are kept all the same.
#[must_use]
pub fn outputs<'a>(files: impl IntoIterator<Item = (&'a str, u64)>, limits: &Limits) -> Kept {
    let (mut kept, mut total, mut left_out) = (Kept::default(), 0_u64, Vec::new());
    for (place, (name, bytes)) in files.into_iter().enumerate() {
        let with = total.saturating_add(bytes);
        if kept.files.len() < limits.output_files && with <= limits.output_bytes {
            total = with;
            kept.files.push((place, bytes));
        } else {
            left_out.push((name, bytes));
        }
    }
    if let [(name, bytes), ..] = left_out[..] {
        kept.note = Some(format!(
            "{} of {} outputs were left out, the first of them `{name}` with {bytes} bytes: of one attempt {} files and \
             {} bytes are kept",
            left_out.len(),
            left_out.len() + kept.files.len(),
            limits.output_files,
            limits.output_bytes,
        ));
    }
    kept
}

/// The logs to keep, of files with these names and sizes. A log that is too long keeps its beginning.
#[must_use]
pub fn logs<'a>(files: impl IntoIterator<Item = (&'a str, u64)>, limits: &Limits) -> Kept {
    let (mut kept, mut left_out, mut cut) = (Kept::default(), Vec::new(), Vec::new());
    for (place, (name, bytes)) in files.into_iter().enumerate() {
        if kept.files.len() >= limits.log_files {
            left_out.push(name);
            continue;
        }
        if bytes > limits.log_bytes {
            cut.push(format!("`{name}` has {bytes} bytes, of which the first {} are kept", limits.log_bytes));
        }
        kept.files.push((place, bytes.min(limits.log_bytes)));
    }
    if let [name, ..] = left_out[..] {
        cut.push(format!(
            "{} logs were left out, the first of them `{name}`: of one attempt {} are kept",
            left_out.len(),
            limits.log_files,
        ));
    }
    kept.note = (!cut.is_empty()).then(|| cut.join("; "));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { log_bytes: 10, log_files: 2, output_bytes: 10, output_files: 2 };

    #[test]
    fn what_fits_is_kept_without_a_word() {
        assert_eq!(outputs([("a", 4), ("b", 6)], &LIMITS), Kept { files: vec![(0, 4), (1, 6)], note: None });
        assert_eq!(logs([("a", 10), ("b", 0)], &LIMITS), Kept { files: vec![(0, 10), (1, 0)], note: None });
    }

    #[test]
    fn an_output_that_does_not_fit_is_left_out_and_named() {
        let kept = outputs([("big", 11), ("a", 4), ("b", 7), ("c", 6), ("d", 0)], &LIMITS);
        assert_eq!(kept.files, [(1, 4), (3, 6)]);
        let note = kept.note.unwrap();
        assert!(
            note.starts_with("3 of 5 outputs were left out, the first of them `big` with 11 bytes"),
            "{note}"
        );
        assert_eq!(outputs([("huge", u64::MAX), ("a", 1)], &LIMITS).files, [(1, 1)]);
    }

    #[test]
    fn a_long_log_keeps_its_beginning() {
        let kept = logs([("a", 11), ("b", 3), ("c", 1)], &LIMITS);
        assert_eq!(kept.files, [(0, 10), (1, 3)]);
        let note = kept.note.unwrap();
        assert!(note.contains("`a` has 11 bytes, of which the first 10 are kept"), "{note}");
        assert!(note.contains("1 logs were left out, the first of them `c`"), "{note}");
    }
}

//! Paths relative to the source directory, with `/`.

/// Whether a path may lead out of the source directory: it is absolute, or one of its components is `..`.
pub(crate) fn escapes(path: &str) -> bool {
    path.starts_with('/') || path.split('/').any(|part| part == "..")
}

/// The path as files of a snapshot are named: without `.` and empty components. None where it can be no file.
pub(crate) fn normalized(path: &str) -> Option<String> {
    if escapes(path) || path.ends_with('/') || path.ends_with("/.") {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

/// Whether a path ends like a notebook's, in any case of letters.
pub(crate) fn is_notebook(path: &str) -> bool {
    let bytes = path.as_bytes();
    let start = bytes.len().saturating_sub(6);
    bytes[start..].eq_ignore_ascii_case(b".ipynb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_parent_component_escapes() {
        for bad in ["../a", "a/../b", "./sub/../train.py", "/a", "..", "a/.."] {
            assert!(escapes(bad), "{bad}");
        }
        for good in ["a", "./a", "sub/..odd.py", "a..b", "~/a", "a\\..\\b"] {
            assert!(!escapes(good), "{good}");
        }
    }

    #[test]
    fn paths_are_named_like_files() {
        assert_eq!(normalized("./sub/.//a.py").as_deref(), Some("sub/a.py"));
        for none in ["sub/", "a.py/", ".", "./", "a/.", "/a", "../a"] {
            assert_eq!(normalized(none), None, "{none}");
        }
    }

    #[test]
    fn notebooks() {
        assert!(is_notebook("a.ipynb") && is_notebook("A.IPYNB") && is_notebook(".ipynb"));
        assert!(!is_notebook("a.ipynb.py") && !is_notebook("é") && !is_notebook(""));
    }
}

//! Names of variables and inputs.

/// Names that a process needs for itself.
const SYSTEM: &[&str] =
    &["PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "USER", "LOGNAME", "PWD", "SHELL"];

/// Prefixes of variables that the service sets.
const PREFIXES: &[&str] = &["AZUREML_", "ESTIMATORD_"];

/// `[A-Za-z_][A-Za-z0-9_]*`.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a variable of this exact spelling belongs to the service.
pub(crate) fn is_reserved_variable(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a name begins like a variable of the service, in any case of letters.
pub(crate) fn has_reserved_prefix(name: &str) -> bool {
    is_reserved_variable(&name.to_ascii_uppercase())
}

/// Whether a variable of this name, in any case of letters, steers the system.
pub(crate) fn is_system_variable(name: &str) -> bool {
    SYSTEM.iter().any(|word| word.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for good in ["a", "_", "A9_", "nnn"] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "9a", "a-b", "é", "a b", "A\n"] {
            assert!(!is_identifier(bad), "{bad:?}");
        }
    }

    #[test]
    fn reserved_words() {
        assert!(is_system_variable("Ld_Preload"));
        assert!(!is_system_variable("PATHS"));
        assert!(has_reserved_prefix("azureml_x"));
        assert!(!is_reserved_variable("azureml_x"));
        assert!(is_reserved_variable("ESTIMATORD_RANK"));
    }
}

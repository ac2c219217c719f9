//! Every rule of validation, from the files that they stand in. `GET /v1/rules`, the examples and `docs/rules.md` come from here.

use super::{Rule, data, distributed, environment, files, general, images, packages, script, source, target};

/// The version of the rules: it changes with every change of what is accepted or said, so that an estimator can tell under
/// which rules it was accepted.
///
/// 1 had no `script-syntax-error`, `package-not-declared`, `container-not-available` and `conda-not-available`.
/// 2 had no `environment-section-ignored`, and runs were refused by a `parameter-not-yet-effective`.
/// 3 had no `registry-address-with-credentials` and `shm-size-without-docker`.
/// 4 had no `one-off-target-not-available`.
/// 5 knew no Kubernetes clusters.
pub const RULE_SET_VERSION: &str = "6";

/// The files with rules. What is found about one parameter comes in this order.
static FILES: [&[Rule]; 10] = [
    general::RULES,
    source::RULES,
    script::RULES,
    target::RULES,
    distributed::RULES,
    images::RULES,
    packages::RULES,
    files::RULES,
    environment::RULES,
    data::RULES,
];

/// Every rule that definitions are judged by.
pub(crate) fn catalogue() -> impl Iterator<Item = &'static Rule> {
    FILES.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use sha2::{Digest as _, Sha256};

    use super::*;

    /// What the rules of the present version are, as a digest.
    const DIGEST: &str = "5ff148fa585c90ca";

    #[test]
    fn the_version_changes_with_the_rules() {
        let mut text = RULE_SET_VERSION.to_owned();
        for rule in catalogue() {
            write!(text, "\n{} {} {:?} {}", rule.slug, rule.severity.as_str(), rule.parameters, rule.summary)
                .unwrap();
        }
        let digest: String = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            digest, DIGEST,
            "rules were added or changed: raise RULE_SET_VERSION, unless it has not been released yet"
        );
    }
}

//! Every rule of validation, from the files that they stand in. `GET /v1/rules`, the examples and `docs/rules.md` come from here.

use super::{Rule, data, distributed, environment, files, general, images, packages, script, source, target};

/// The version of the rules: it changes with every change of what is accepted or said, so that an estimator can tell under
/// which rules it was accepted.
///
/// 1 had no `script-syntax-error`, `package-not-declared`, `container-not-available` and `conda-not-available`.
pub const RULE_SET_VERSION: &str = "2";

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

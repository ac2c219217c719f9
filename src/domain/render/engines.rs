//! What no engine takes over of Azure ML, whichever it is.

use super::{Subject, notes::Notes};
use crate::domain::{definition::Definition, environment::EnvironmentKind};

pub(super) fn note(subject: &Subject<'_>, notes: &mut Notes<'_>) {
    let Some(draft) = subject.definition.map(Definition::draft) else { return };
    if draft.enable_optimized_mode.is_true() && subject.plan.environment.kind == EnvironmentKind::Managed {
        notes.approximate(
            "_enable_optimized_mode",
            "The framework's own image is not used, so nothing of it is there: name what the script needs in pip_packages.",
        );
    }
    if draft.disable_validation.is_false() {
        notes.none(
            "_disable_validation",
            "Nothing parses the script; this service does, at every validation.",
        );
    }
    for (name, flag) in [
        ("_show_lint_warnings", &draft.show_lint_warnings),
        ("_show_package_warnings", &draft.show_package_warnings),
    ] {
        if flag.is_true() {
            notes.none(name, "Nothing warns about the script; this service does, at every validation.");
        }
    }
}

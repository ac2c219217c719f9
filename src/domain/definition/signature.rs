//! The 34 parameters in the order of the signature.

use serde::Serialize;
use utoipa::ToSchema;

/// The documented kind of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A text; `""` means "not given".
    Text,
    /// An integer of 64 bits.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An object; `{}` means "not given".
    Object,
    /// A list; `[]` means "not given".
    List,
}

/// One parameter of the estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Parameter {
    /// Its name in the signature.
    pub name: &'static str,
    /// Its documented kind, as it is written in JSON.
    pub kind: Kind,
    /// Its default as JSON text; none for the one parameter that has no default.
    pub default: Option<&'static str>,
}

const fn parameter(name: &'static str, kind: Kind, default: &'static str) -> Parameter {
    Parameter { name, kind, default: Some(default) }
}

/// Every parameter, in the order of the signature.
pub static SIGNATURE: [Parameter; 34] = [
    Parameter { name: "source_directory", kind: Kind::Text, default: None },
    parameter("compute_target", Kind::Text, "null"),
    parameter("vm_size", Kind::Text, "null"),
    parameter("vm_priority", Kind::Text, "null"),
    parameter("entry_script", Kind::Text, "null"),
    parameter("script_params", Kind::Object, "null"),
    parameter("node_count", Kind::Integer, "1"),
    parameter("process_count_per_node", Kind::Integer, "1"),
    parameter("distributed_backend", Kind::Text, "null"),
    parameter("distributed_training", Kind::Object, "null"),
    parameter("use_gpu", Kind::Boolean, "false"),
    parameter("use_docker", Kind::Boolean, "true"),
    parameter("custom_docker_base_image", Kind::Text, "null"),
    parameter("custom_docker_image", Kind::Text, "null"),
    parameter("image_registry_details", Kind::Object, "null"),
    parameter("user_managed", Kind::Boolean, "false"),
    parameter("conda_packages", Kind::List, "null"),
    parameter("pip_packages", Kind::List, "null"),
    parameter("conda_dependencies_file_path", Kind::Text, "null"),
    parameter("pip_requirements_file_path", Kind::Text, "null"),
    parameter("conda_dependencies_file", Kind::Text, "null"),
    parameter("pip_requirements_file", Kind::Text, "null"),
    parameter("environment_variables", Kind::Object, "null"),
    parameter("environment_definition", Kind::Object, "null"),
    parameter("inputs", Kind::List, "null"),
    parameter("source_directory_data_store", Kind::Text, "null"),
    parameter("shm_size", Kind::Text, "null"),
    parameter("resume_from", Kind::Object, "null"),
    parameter("max_run_duration_seconds", Kind::Integer, "null"),
    parameter("framework_version", Kind::Text, "null"),
    parameter("_enable_optimized_mode", Kind::Boolean, "false"),
    parameter("_disable_validation", Kind::Boolean, "true"),
    parameter("_show_lint_warnings", Kind::Boolean, "false"),
    parameter("_show_package_warnings", Kind::Boolean, "false"),
];

/// The place of a parameter in the signature, counted from 0.
#[must_use]
pub fn rank(name: &str) -> Option<usize> {
    SIGNATURE.iter().position(|parameter| parameter.name == name)
}

/// Whether `word` may be a misspelling of `known`, its nearest. A far one is named, too, but not as what was meant.
#[must_use]
pub fn is_near(word: &str, known: &str) -> bool {
    strsim::jaro_winkler(&comparable(word), &comparable(known)) >= 0.75
}

/// A word without case and separators. A longer one is no misspelling of a name; comparing it would only cost time.
fn comparable(word: &str) -> String {
    word.chars().take(64).collect::<String>().to_lowercase().replace(['_', '-', ' '], "")
}

/// The known word that is most like `word`; none when there are no words.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = comparable(word);
    let mut best: Option<(f64, &str)> = None;
    for candidate in known {
        let score = strsim::jaro_winkler(&wanted, &comparable(candidate));
        if best.is_none_or(|(top, _)| score > top) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_source_directory_has_no_default() {
        let without: Vec<_> = SIGNATURE.iter().filter(|p| p.default.is_none()).map(|p| p.name).collect();
        assert_eq!(without, ["source_directory"]);
        assert_eq!(rank("source_directory"), Some(0));
        assert_eq!(rank("_show_package_warnings"), Some(33));
        assert_eq!(rank("nodeCount"), None);
    }

    #[test]
    fn the_nearest_name_is_found() {
        let names = || SIGNATURE.iter().map(|p| p.name);
        for (word, name) in [
            ("nodeCount", "node_count"),
            ("entry_scrpt", "entry_script"),
            ("useGpu", "use_gpu"),
            ("disable_validation", "_disable_validation"),
            ("pipPackages", "pip_packages"),
        ] {
            assert_eq!(nearest(word, names()), Some(name));
            assert!(is_near(word, name), "{word}");
        }
        for far in ["zzz", "verbose", "gpu_memory_fraction", "x", "训练"] {
            let near = nearest(far, names()).expect("there are names");
            assert!(!is_near(far, near), "{far} and {near}");
        }
        assert_eq!(nearest("x", []), None);
    }
}

//! The command line of the programs that make conda environments.

use super::{
    environment::{Environment, Substitution},
    framework,
    rules::grammar::{conda, pip},
};

/// Which program it is, in the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CondaTool {
    /// micromamba: one binary, with a root of its own.
    Micromamba,
    /// mamba, 1 or 2.
    Mamba,
    /// conda.
    Conda,
}

impl CondaTool {
    /// Every program.
    pub const ALL: [Self; 3] = [Self::Micromamba, Self::Mamba, Self::Conda];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Micromamba => "micromamba",
            Self::Mamba => "mamba",
            Self::Conda => "conda",
        }
    }

    /// The program that a file of this name is: `micromamba-2.0` is one, and what has another name is taken for conda.
    #[must_use]
    pub fn of_file_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|tool| name.starts_with(tool.name())).unwrap_or(Self::Conda)
    }
}

/// An environment to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation<'a> {
    /// By what.
    pub tool: CondaTool,
    /// Where.
    pub prefix: &'a str,
    /// Where packages are looked for, first one first; nowhere else.
    pub channels: &'a [String],
    /// What is to be in it.
    pub specs: &'a [String],
}

/// What the program is started with.
#[must_use]
pub fn create_arguments(creation: &Creation<'_>) -> Vec<String> {
    let mut arguments = vec!["create".to_owned(), "--yes".to_owned()];
    if creation.tool == CondaTool::Micromamba {
        // Neither the files nor the variables of whoever the service runs as.
        arguments.push("--no-rc".to_owned());
    }
    arguments.extend(["--prefix".to_owned(), creation.prefix.to_owned(), "--override-channels".to_owned()]);
    for channel in creation.channels {
        arguments.extend(["--channel".to_owned(), channel.clone()]);
    }
    arguments.extend(creation.specs.iter().cloned());
    arguments
}

/// Whether more is asked of conda than a Python and pip, which a virtual environment has as well.
#[must_use]
pub fn is_needed(environment: &Environment) -> bool {
    environment.conda_packages.iter().any(|package| conda::package_name(package).as_deref() != Some("pip"))
}

/// The packages to ask for, Python first. The framework's own Python, which no chainer of a working channel goes with any
/// more, is replaced by any that chainer was found to work with; one that the definition pins is asked for as it is.
#[must_use]
pub fn specs(environment: &Environment) -> (Vec<String>, Option<Substitution>) {
    let is_framework_s = environment.framework_version.is_some()
        && environment.python_version.as_deref() == Some(framework::PYTHON_VERSION);
    let (python, substitution) = match environment.python_version.as_deref() {
        Some(asked) if is_framework_s => {
            let used = "python>=3.8,<3.12";
            let substitution = Substitution {
                asked: format!("python {asked}"),
                used: Some(used.to_owned()),
                reason: "what chainer was found to work with (3.8 to 3.11)".to_owned(),
            };
            (used.to_owned(), Some(substitution))
        }
        Some(pin) if pin.starts_with(|c: char| c.is_ascii_digit()) => (format!("python={pin}"), None),
        Some(pin) => (format!("python{pin}"), None),
        None => ("python".to_owned(), None),
    };
    let specs = std::iter::once(python).chain(environment.conda_packages.iter().cloned()).collect();
    (specs, substitution)
}

/// The names by which pip knows what conda is asked for.
#[must_use]
pub fn pip_names(environment: &Environment) -> Vec<String> {
    let packages = environment.conda_packages.iter();
    packages.filter_map(|package| Some(pip::normalized(&conda::package_name(package)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::rules::testing::verdict;

    fn resolved(members: &Value) -> Environment {
        verdict(members).accepted.unwrap_or_else(|| panic!("{members} must be valid")).environment
    }

    #[test]
    fn the_command_line_is_the_same_for_all_but_for_what_micromamba_alone_knows() {
        let (channels, specs) =
            (["file:///c".to_owned(), "conda-forge".into()], ["python=3.9".to_owned(), "scipy>=1".into()]);
        let of = |tool| {
            create_arguments(&Creation { tool, prefix: "/e/p", channels: &channels, specs: &specs }).join(" ")
        };
        let rest =
            "--prefix /e/p --override-channels --channel file:///c --channel conda-forge python=3.9 scipy>=1";
        assert_eq!(of(CondaTool::Micromamba), format!("create --yes --no-rc {rest}"));
        assert_eq!(of(CondaTool::Conda), format!("create --yes {rest}"));
    }

    #[test]
    fn programs_are_known_by_their_names() {
        for (name, tool) in [
            ("micromamba", CondaTool::Micromamba),
            ("micromamba-2.0.5", CondaTool::Micromamba),
            ("mamba", CondaTool::Mamba),
            ("conda", CondaTool::Conda),
            ("own-wrapper", CondaTool::Conda),
        ] {
            assert_eq!(CondaTool::of_file_name(name), tool, "{name}");
        }
    }

    #[test]
    fn python_is_asked_for_as_it_was_pinned() {
        let python = |members: Value| specs(&resolved(&members));
        assert_eq!(python(json!({"conda_packages": ["scipy", "python=3.9"]})).0, ["python=3.9", "scipy"]);
        assert_eq!(python(json!({"conda_packages": ["scipy", "python>=3.8"]})).0[0], "python>=3.8");
        assert_eq!(python(json!({"conda_packages": ["scipy", "python"]})).0[0], "python");
        let (specs, substitution) = python(json!({"conda_packages": ["c::scipy=1"]}));
        assert_eq!(specs, ["python>=3.8,<3.12", "c::scipy=1"]);
        assert_eq!(substitution.unwrap().asked, "python 3.6.2");
        let file = python(json!({"conda_dependencies_file": "conda.yml"}));
        assert_eq!(file, (vec!["python=3.7".to_owned(), "numpy".to_owned()], None));
    }

    #[test]
    fn conda_is_needed_for_more_than_python_and_pip() {
        assert!(!is_needed(&resolved(&json!({"conda_packages": ["python=3.9", "pip=20"]}))));
        let environment = resolved(&json!({"conda_packages": ["Sci_Kit.Learn"]}));
        assert!(is_needed(&environment));
        assert_eq!(pip_names(&environment), ["sci-kit-learn"]);
    }
}

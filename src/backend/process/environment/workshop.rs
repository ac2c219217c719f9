//! Where the environment for an image is made: the installer runs in a container of that image, so that what it builds fits.

use std::{
    collections::BTreeSet,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::{
    super::{
        container::{self, ContainerControl, Engine, Image},
        launch,
    },
    account::Account,
    digest,
};
use crate::domain::container::{Mount, Tool, tool_arguments};

/// What tells programs whom to trust; the values are places of the machine.
const CERTIFICATES: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
/// Where machines keep the certificates that they trust, when no variable says it.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A command of the installer, and the container that it runs in.
pub(in super::super) struct Installer {
    command: Command,
    /// As whom it runs, where that is not the service.
    pub(super) account: Option<Account>,
    /// Ended before another one of this name starts, and when the command is given up.
    pub(in super::super) container: Option<ContainerControl>,
}

/// What running it takes.
pub(super) struct Parts {
    pub(super) command: Command,
    pub(super) container: Option<ContainerControl>,
    pub(super) account: Option<Account>,
}

impl From<Command> for Installer {
    fn from(command: Command) -> Self {
        Self { command, account: None, container: None }
    }
}

impl Installer {
    pub(super) fn into_parts(self) -> Parts {
        Parts { command: self.command, container: self.container, account: self.account }
    }
}

impl Deref for Installer {
    type Target = Command;

    fn deref(&self) -> &Command {
        &self.command
    }
}

impl DerefMut for Installer {
    fn deref_mut(&mut self) -> &mut Command {
        &mut self.command
    }
}

/// An image as the place in which the installer runs.
#[derive(Clone, Debug)]
pub(super) struct Workshop<'a> {
    engine: &'a Engine,
    image: &'a Image,
    /// The cache of what was built for this image: another one may have an older C library.
    cache: PathBuf,
    /// The interpreters of the service itself, for images that have none.
    pythons: PathBuf,
    temporary: PathBuf,
}

impl<'a> Workshop<'a> {
    /// A workshop whose commands may write below `temporary` besides.
    pub(super) fn new(engine: &'a Engine, image: &'a Image, data_dir: &Path, temporary: &Path) -> Self {
        let id = image.id.trim_start_matches("sha256:");
        Self {
            engine,
            image,
            cache: data_dir.join("cache/uv-images").join(id),
            pythons: own_pythons(data_dir),
            temporary: temporary.to_owned(),
        }
    }

    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// A program of the machine in a container of the image, started in `directory`. It may write below `place` only.
    pub(super) fn installer(
        &self,
        program: &Path,
        place: &Path,
        directory: &Path,
        variables: &[(String, String)],
    ) -> Installer {
        let variables = passed_on(variables);
        let mut read_only: BTreeSet<PathBuf> =
            variables.iter().flat_map(|(_, value)| places_in(value)).collect();
        read_only.insert(program.to_owned());
        if self.pythons.is_dir() {
            read_only.insert(self.pythons.clone());
        }
        let home = self.temporary.display();
        let mut names: Vec<String> = variables.iter().map(|(name, _)| name.clone()).collect();
        // With their values, because the runtime's own program minds some of these.
        names.extend([format!("HOME={home}"), format!("TMPDIR={home}")]);
        if !names.iter().any(|name| name == "SSL_CERT_FILE")
            && let Some(bundle) = BUNDLES.iter().find(|bundle| Path::new(bundle).is_file())
        {
            read_only.insert(bundle.into());
            names.push(format!("SSL_CERT_FILE={bundle}"));
        }
        if !names.iter().any(|name| name == "UV_LINK_MODE") {
            // Files cannot be linked from one mount to another.
            names.push("UV_LINK_MODE=copy".to_owned());
        }
        let mut mounts: Vec<Mount> =
            read_only.iter().map(|path| Mount::same(launch::text(path), true)).collect();
        let writable: BTreeSet<&Path> = [&*self.temporary, place, &*self.cache].into();
        mounts.extend(writable.into_iter().map(|path| Mount::same(launch::text(path), false)));
        // By the place and not by the attempt: whoever builds there next ends what an earlier one left running.
        let name = format!("estimatord-build-{}", &digest(place.as_os_str().as_encoded_bytes())[..32]);
        let tool = Tool {
            name: &name,
            label: "estimatord.tool=build",
            image: &self.image.id,
            user: container::user(self.engine.runtime),
            mounts: &mounts,
            variables: &names,
            working_directory: &launch::text(directory),
        };
        let arguments = tool_arguments(&tool, &launch::text(program));
        let mut command = self.engine.command(&[]);
        // Values come by the environment of the runtime's program: addresses of indexes may hold passwords.
        command.args(arguments).envs(variables);
        let container = ContainerControl {
            program: self.engine.program.clone(),
            environment: self.engine.environment.clone(),
            name,
            records: self.temporary.clone(),
        };
        Installer { command, account: None, container: Some(container) }
    }
}

/// Where the service keeps the interpreters that it got itself.
pub(in super::super) fn own_pythons(data_dir: &Path) -> PathBuf {
    data_dir.join("tools/python")
}

/// What of the installer's variables holds in a container as well.
fn passed_on(variables: &[(String, String)]) -> Vec<(String, String)> {
    let is_passed_on = |name: &str| {
        name.starts_with("UV_")
            || name.starts_with("PIP_")
            || name.to_ascii_lowercase().ends_with("_proxy")
            || CERTIFICATES.contains(&name)
    };
    variables.iter().filter(|(name, _)| is_passed_on(name)).cloned().collect()
}

/// The files and directories of the machine that a value names.
pub(super) fn places_in(value: &str) -> impl Iterator<Item = PathBuf> {
    value
        .split([' ', ',', '\n'])
        .map(|word| Path::new(word.strip_prefix("file://").unwrap_or(word)))
        .filter(|path| path.is_absolute() && path.parent().is_some() && path.exists())
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::container::ContainerRuntime;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_container_is_told_where_packages_come_from_and_sees_what_that_names() {
        let directory = tempfile::tempdir().unwrap();
        let wheels = directory.path().join("wheels");
        std::fs::create_dir(&wheels).unwrap();
        let engine = Engine {
            runtime: ContainerRuntime::Podman,
            program: "/bin/podman".into(),
            environment: vec![pair("DOCKER_HOST", "unix:///x")],
        };
        let image = Image { name: "a:1".into(), id: "sha256:00".into() };
        let workshop = Workshop::new(&engine, &image, Path::new("/data"), Path::new("/data/tmp/1"));
        let found = format!("file://{}", wheels.display());
        let variables = [
            pair("PATH", "/usr/bin"),
            pair("UV_FIND_LINKS", &found),
            pair("UV_DEFAULT_INDEX", "https://u:s3cret@e.invalid"),
            pair("SSL_CERT_FILE", "/nowhere.pem"),
            pair("HTTPS_PROXY", "http://p:1"),
        ];
        let place = Path::new("/data/environments/k");
        let made = workshop.installer(Path::new("/bin/uv"), place, place, &variables);
        let arguments: Vec<_> =
            made.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = arguments.join(" ");
        assert!(!line.contains("s3cret"), "{line}");
        for expected in [
            "--env UV_FIND_LINKS --env UV_DEFAULT_INDEX --env SSL_CERT_FILE --env HTTPS_PROXY \
             --env HOME=/data/tmp/1 --env TMPDIR=/data/tmp/1 --env UV_LINK_MODE=copy",
            &format!("--mount type=bind,source={0},target={0},readonly", wheels.display()),
            "--mount type=bind,source=/bin/uv,target=/bin/uv,readonly",
            "--mount type=bind,source=/data/environments/k,target=/data/environments/k --",
            "--mount type=bind,source=/data/cache/uv-images/00,target=/data/cache/uv-images/00 --",
            "--entrypoint /bin/uv sha256:00",
        ] {
            assert!(line.contains(expected), "{expected}: {line}");
        }
        assert!(!line.contains("nowhere.pem") && !line.contains("--env PATH"), "{line}");
        let given: Vec<_> = made.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
        assert!(given.contains(&"UV_DEFAULT_INDEX".into()) && given.contains(&"DOCKER_HOST".into()));
        let again = workshop.installer(Path::new("/bin/uv"), place, Path::new("/other"), &[]);
        assert_eq!(made.container.map(|c| c.name), again.container.map(|c| c.name), "one for each place");
    }
}

//! What building takes, whichever environment it is: an interpreter, uv, and what uv is told of the service.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{process::Command, time::Instant};

use super::{
    super::{super::Substitution, Settings, script_environment},
    account::Account,
    build::{BuildLog, CommandError},
    interpreters::{self, Interpreter},
    uv,
    workshop::{Installer, Workshop, own_pythons},
};

/// What the installer is given of the service's environment: what scripts get, and where packages come from. Build
/// scripts of packages run with it, so that no secret of the service may be in there.
pub(super) fn installer_environment(service: &[(String, String)], temporary: &Path) -> Vec<(String, String)> {
    const SOURCES: [&str; 6] = ["UV_", "PIP_", "PYENV_ROOT", "CURL_CA_BUNDLE", "ALL_PROXY", "all_proxy"];
    // These would lead the installer to another place than the one it is told.
    const STEERING: [&str; 7] = [
        "UV_PYTHON",
        "UV_CACHE_DIR",
        "UV_SYSTEM_PYTHON",
        "UV_CONSTRAINT",
        "PIP_TARGET",
        "PIP_PREFIX",
        "TMPDIR",
    ];
    // By these uv trusts whom the machine trusts, and not only whom it was built to trust: the new name and the old
    // one, as variables, because a version that does not know a variable does not mind it.
    const SYSTEM_CERTIFICATES: [&str; 2] = ["UV_SYSTEM_CERTS", "UV_NATIVE_TLS"];
    let mut kept: Vec<(String, String)> = service
        .iter()
        .filter(|(name, _)| {
            script_environment::is_inherited(name) || SOURCES.iter().any(|start| name.starts_with(start))
        })
        .filter(|(name, _)| !STEERING.contains(&name.as_str()))
        .cloned()
        .collect();
    // An operator who said something about it, by whichever name, is heeded.
    if !kept.iter().any(|(name, _)| SYSTEM_CERTIFICATES.contains(&name.as_str())) {
        kept.extend(SYSTEM_CERTIFICATES.map(|name| (name.to_owned(), "true".to_owned())));
    }
    kept.push(("TMPDIR".to_owned(), temporary.to_string_lossy().into_owned()));
    kept
}

/// What building takes, whichever environment it is.
pub(super) struct Builder<'a> {
    pub(super) settings: &'a Settings,
    pub(super) variables: Vec<(String, String)>,
    pub(super) known: &'a interpreters::Known,
    /// The interpreters that are there.
    pub(super) present: Vec<Interpreter>,
    /// As whom it is built, where that is not the service.
    pub(super) account: Option<Account>,
    /// The image in which it is built, if it is built for one.
    pub(super) workshop: Option<Workshop<'a>>,
    pub(super) deadline: Instant,
}

impl Builder<'_> {
    /// uv, as it can be started where the environment is built.
    pub(super) async fn uv(&self, log: &mut BuildLog) -> Result<PathBuf, CommandError> {
        let search = uv::Search {
            configured: self.settings.uv.as_deref(),
            data_dir: &self.settings.data_dir,
            environment: &self.variables,
            present: &self.present,
            for_all: self.settings.isolation.users.is_some(),
            deadline: self.deadline,
        };
        match self.workshop {
            Some(_) => search.for_images(log).await,
            None => search.for_this_machine(log).await,
        }
    }

    /// uv started in `directory`, told where its downloads are kept, and nothing of the service but what builders may know.
    /// In an image it may write below `place` only, which `directory` is in.
    pub(super) fn installer(&self, uv: &Path, place: &Path, directory: &Path) -> Installer {
        let mut installer = match &self.workshop {
            Some(workshop) => workshop.installer(uv, place, directory, &self.variables),
            None => {
                let mut command = Command::new(uv);
                command.current_dir(directory).env_clear().envs(self.variables.iter().cloned());
                if self.is_confined() {
                    // A file with two names could be anybody's.
                    command.env("UV_LINK_MODE", "copy");
                }
                command.into()
            }
        };
        installer.args(["--color", "never", "--no-progress", "--cache-dir"]);
        match &self.workshop {
            Some(workshop) => installer.arg(workshop.cache()),
            None => installer.arg(self.cache("uv")),
        };
        installer.account = self.account_for(place, uv);
        installer
    }

    /// Whether packages are kept from what the service may do while they are built.
    pub(super) fn is_confined(&self) -> bool {
        self.account.as_ref().is_some_and(Account::is_confined)
    }

    /// Where an installer keeps what it fetches.
    pub(super) fn cache(&self, name: &str) -> PathBuf {
        let shared = || self.settings.data_dir.join("cache").join(name);
        self.account.as_ref().map_or_else(shared, |account| account.cache(name))
    }

    /// The account that builds at a place with a program.
    pub(super) fn account_for(&self, place: &Path, program: &Path) -> Option<Account> {
        let of_program = program.parent().map(Path::to_owned);
        self.account.clone().map(|account| account.writing(place).reading(of_program))
    }

    /// Gives the account what is at a place, before it builds there.
    pub(super) fn give(&self, place: &Path) -> io::Result<()> {
        self.account.as_ref().map_or(Ok(()), |account| account.give(place))
    }

    /// Takes it back: from here on nothing at the place changes.
    pub(super) async fn take_back(&self, place: &Path) -> io::Result<()> {
        let Some(account) = self.account.clone() else { return Ok(()) };
        let place = place.to_owned();
        tokio::task::spawn_blocking(move || account.take_back(&place)).await.map_err(io::Error::other)?
    }

    /// The interpreter to build with: one that is there, else one that uv gets.
    pub(super) async fn interpreter(
        &mut self,
        asked: Option<&str>,
        chainer: bool,
        log: &mut BuildLog,
    ) -> Result<(Interpreter, Option<Substitution>), CommandError> {
        let own = own_pythons(&self.settings.data_dir);
        let for_all = self.settings.isolation.users.is_some();
        let place = if for_all { interpreters::FOR_ALL_USERS } else { interpreters::THIS_MACHINE };
        self.present = self.known.discover(&own, &self.variables, for_all).await;
        let none = match interpreters::choose(asked, chainer, &self.present, place) {
            Ok(chosen) => return Ok(chosen),
            Err(none) => none,
        };
        self.get_interpreter(&none, log).await?;
        self.present = self.known.discover(&own, &self.variables, for_all).await;
        interpreters::choose(asked, chainer, &self.present, place).map_err(CommandError::Failed)
    }

    /// Gets an interpreter with uv, where `none` says that there is no usable one.
    pub(super) async fn get_interpreter(&self, none: &str, log: &mut BuildLog) -> Result<(), CommandError> {
        let own = own_pythons(&self.settings.data_dir);
        let got = match self.uv(log).await {
            Ok(uv) => uv::install_python(&uv, &own, &self.variables, log, self.deadline).await,
            Err(error) => Err(error),
        };
        match got {
            Err(CommandError::Failed(said)) => {
                Err(CommandError::Failed(format!("{none}. Getting one with uv failed: {said}")))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::{super::files, build},
        *,
    };

    #[test]
    fn the_installer_knows_where_packages_come_from_and_nothing_else_of_the_service() {
        let names =
            ["UV_DEFAULT_INDEX", "PIP_CERT", "DATABASE_URL", "ESTIMATORD_TOKEN", "UV_CACHE_DIR", "PATH"];
        let service: Vec<_> = names.map(|name| (name.to_owned(), String::new())).into();
        let kept: Vec<_> =
            installer_environment(&service, Path::new("/t")).into_iter().map(|(name, _)| name).collect();
        let expected = ["UV_DEFAULT_INDEX", "PIP_CERT", "PATH", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "TMPDIR"];
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_the_operator_says_of_certificates_is_heeded() {
        let service = [("UV_NATIVE_TLS".to_owned(), "false".to_owned()), ("TMPDIR".into(), "/other".into())];
        let expected = [service[0].clone(), ("TMPDIR".into(), "/t".into())];
        assert_eq!(installer_environment(&service, Path::new("/t")), expected);
    }

    #[tokio::test]
    async fn where_no_interpreter_is_uv_gets_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let real =
            std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let real = String::from_utf8(real.unwrap().stdout).unwrap();
        // Stands for uv: puts the machine's interpreter where it is told to install one.
        let uv = directory.path().join("uv");
        let script = format!(
            "#!/bin/sh\nwhile [ \"$1\" != --install-dir ]; do shift; done\n\
             /bin/mkdir -p \"$2/python/bin\" && /bin/ln -s {} \"$2/python/bin/python3\"\n",
            real.trim()
        );
        fs::write(&uv, script).unwrap();
        fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
        let settings = Settings {
            data_dir: directory.path().join("data"),
            supervisor: "/nowhere".into(),
            cancel_grace: std::time::Duration::ZERO,
            build_timeout: std::time::Duration::ZERO,
            max_environments_bytes: u64::MAX,
            uv: Some(uv.clone()),
            conda: None,
            conda_channel_alias: None,
            isolation: crate::backend::process::Isolation::default(),
        };
        let known = interpreters::Known::default();
        let builder = || Builder {
            settings: &settings,
            variables: vec![("PATH".into(), "/nowhere".into()), ("HOME".into(), "/nowhere".into())],
            known: &known,
            present: Vec::new(),
            account: None,
            workshop: None,
            deadline: build::deadline(std::time::Duration::from_secs(60)),
        };
        let mut log = BuildLog::open(&directory.path().join("log")).unwrap();
        let (chosen, _) = builder().interpreter(None, false, &mut log).await.unwrap();
        assert!(chosen.version >= [3, 8, 0]);
        fs::write(&uv, "#!/bin/sh\necho 'error: no network'\nexit 1\n").unwrap();
        files::remove_tree(&settings.data_dir).unwrap();
        let error = builder().interpreter(Some("3.6.2"), true, &mut log).await.unwrap_err().to_string();
        assert!(error.contains("3.8, 3.9, 3.10 and 3.11") && error.ends_with("error: no network"), "{error}");
    }
}

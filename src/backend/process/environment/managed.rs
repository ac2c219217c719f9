//! An environment that the service builds, or has built before: on the machine, or for an image.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    BuildLog, CommandError,
    account::Account,
    builder::{Builder, installer_environment},
    conda,
    inside::Inside,
    kept::Complete,
    requirements,
    resolution::{self, Memory},
    site::Site,
    substitutions, uv,
    wanted::Wanted,
    workshop::{Workshop, places_in},
};
use crate::{
    backend::{
        ActualEnvironment, Attempt, Substitution,
        process::{
            ProcessBackend, Settings, files, installations_of,
            layout::{self, AttemptDir},
            script_environment::RUN_USER,
        },
    },
    domain::{self, plan::Launcher},
};

/// Makes the environment of an attempt in the image, or on the machine; `instead` of what is told first.
pub(super) async fn prepare(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
    image: Option<&Inside<'_>>,
    instead: Vec<Substitution>,
    log: &mut BuildLog,
) -> Result<ActualEnvironment, CommandError> {
    let environment = &attempt.plan.environment;
    let file = environment.pip_origins.file.as_deref();
    let listed = substitutions::listed(environment);
    let found = requirements::inspect(&directory.work(), listed, file).map_err(CommandError::Failed)?;
    let mut asks = substitutions::resolve(environment, &found, attempt.plan.launcher == Launcher::Mpi);
    asks.substitutions.splice(..0, instead);
    // One of its own for each build: installers leave locks and the like in there, and all of it goes in the end.
    let temporary = Scratch::new(&backend.settings.data_dir)?;
    let mut variables = installer_environment(&backend.service_environment, temporary.path());
    let account = match image {
        // A container keeps it away from everything but the environment.
        Some(_) => None,
        None => account(backend, attempt, temporary.path(), &mut variables).await?,
    };
    let mut builder = Builder {
        settings: &backend.settings,
        variables,
        known: &backend.interpreters,
        present: Vec::new(),
        account,
        workshop: None,
        deadline: super::build::deadline(backend.settings.build_timeout),
    };
    if let Some(inside) = image {
        let workshop =
            Workshop::new(inside.engine, &inside.image, &backend.settings.data_dir, temporary.path());
        layout::create_private_dir(workshop.cache())?;
        builder.workshop = Some(workshop);
    }
    if domain::conda::is_needed(environment) {
        return conda::prepare(attempt, directory, &builder, image, asks, found, log).await;
    }
    let asked = environment.python_version.as_deref();
    let (python, python_substitution) = match image {
        Some(inside) => inside.interpreter(&builder, asked, asks.chainer, log).await?,
        None => builder.interpreter(asked, asks.chainer, log).await?,
    };
    let image_id = image.map(|inside| inside.image.id.clone());
    builder.account = builder.account.map(|account| account.reading(installations_of(&python.path)));
    let wanted = Wanted { asks, found, python, image: image_id, source: directory.work() };
    let snapshot = attempt.plan.snapshot_id.as_str();
    let (site, complete, reused) =
        ensure(&wanted, &builder, directory, snapshot, temporary.path(), log).await?;
    let substitutions = substitutions::with_installed(wanted.asks.substitutions, &complete.packages);
    Ok(ActualEnvironment {
        kind: complete.kind,
        interpreter: site.interpreter().to_string_lossy().into_owned(),
        python_version: complete.python_version,
        packages: complete.packages,
        substitutions: python_substitution.into_iter().chain(substitutions).collect(),
        build_key: Some(site.key().to_owned()),
        reused,
        container: image.map(Inside::actual),
        image: None,
    })
}

/// A directory for one build. All of it goes in the end, however deep a package has nested what is in there.
struct Scratch(PathBuf);

impl Scratch {
    fn new(data_dir: &Path) -> io::Result<Self> {
        // Its own removal goes as deep as directories are nested, and ends the process where that is too deep.
        tempfile::tempdir_in(layout::scratch(data_dir)?).map(|made| Self(made.keep()))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is in nobody's way.
        let _ = files::remove_tree(&self.0);
    }
}

/// As whom the environment of an attempt is built: its own user, where it has one, and within what it reaches of the files, where that
/// is restricted.
async fn account(
    backend: &ProcessBackend,
    attempt: &Attempt,
    temporary: &Path,
    variables: &mut Vec<(String, String)>,
) -> Result<Option<Account>, CommandError> {
    let Settings { data_dir, supervisor, isolation, .. } = &backend.settings;
    let user = backend.user(attempt).await.map_err(io::Error::other)?;
    let read = isolation.landlock.then(|| {
        let named = variables.iter().flat_map(|(_, value)| places_in(value));
        let mut read: Vec<PathBuf> = named.chain([supervisor.clone(), data_dir.join("tools")]).collect();
        read.retain(|path| path.exists() && path.parent().is_some());
        read
    });
    let (own, data, place) = (supervisor.clone(), data_dir.clone(), temporary.to_owned());
    let making = move || Account::new(&own, &data, user, &place, read);
    let account = tokio::task::spawn_blocking(making).await.map_err(io::Error::other)??;
    variables.push(account.mark());
    if !account.is_confined() {
        return Ok(Some(account));
    }
    // Whoever it is, the home of the service's user is not its own.
    let home = temporary.to_string_lossy().into_owned();
    let own = [("HOME", home), ("USER", RUN_USER.to_owned()), ("LOGNAME", RUN_USER.to_owned())];
    variables.retain(|(name, _)| own.iter().all(|(own, _)| own != name));
    variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
    Ok(Some(account))
}

/// Reuses what an identical request led to, else resolves it, and builds what that leads to if nobody did before.
async fn ensure(
    wanted: &Wanted,
    builder: &Builder<'_>,
    directory: &AttemptDir,
    snapshot: &str,
    temporary: &Path,
    log: &mut BuildLog,
) -> Result<(Site, Complete, bool), CommandError> {
    let environments = layout::environments(&builder.settings.data_dir);
    layout::create_private_dir(&environments)?;
    let memory = Memory::new(&environments, resolution::request_key(wanted, &builder.variables, snapshot));
    let site = |key: String| Site::new(&environments, key, directory.clone(), wanted.image.is_some());
    let deadline = builder.deadline;
    if let Some(known) = memory.recall().map(site)
        && let Some(complete) = known.reuse(deadline, log).await?
    {
        return Ok((known, complete, true));
    }
    // Held until the environment is there: who asks for the same meanwhile asks no index, and builds nothing.
    let mut waited = false;
    let held = uv::lock(&memory.lock_path(), deadline, || {
        waited = true;
        log.line("Another run is building this environment: waiting for it.")
    })
    .await?;
    if let Some(known) = memory.recall().map(site)
        && let Some(complete) = known.reuse(deadline, log).await?
    {
        if waited {
            known.repeat_log(log)?;
        }
        return Ok((known, complete, true));
    }
    // That the attempt has its user, before there is a process of that.
    layout::sync(directory.root())?;
    let resolving = temporary.join("resolving");
    layout::create_private_dir(&resolving)?;
    let lock = resolution::resolve(wanted, builder, &resolving, &held, log).await?;
    let site = site(lock.key(wanted, snapshot));
    let (complete, reused) = site.ensure(wanted, &lock, builder, log).await?;
    memory.keep(site.key())?;
    Ok((site, complete, reused))
}

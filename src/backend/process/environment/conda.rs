//! Environments with packages of conda: made by the program that is there, then given their pip packages.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{
    BuildLog, CommandError,
    account::{self, Account},
    build,
    builder::Builder,
    find_program,
    inside::Inside,
    interpreters,
    interpreters::Interpreter,
    requirements::Found,
    resolution::{self, content_key},
    site::{Built, Claim, Site},
    substitutions::{Asks, requirement_name},
    wanted::Wanted,
    workshop::Installer,
};
use crate::{
    backend::{
        ActualEnvironment, Attempt,
        process::{
            files,
            layout::{self, AttemptDir},
        },
    },
    domain::conda::{self, CondaTool, Creation, create_arguments},
};

/// Changes when environments are built differently, so that none of the old ones is taken for a new one.
const RECIPE: u32 = 1;

/// A program that makes environments.
struct Program {
    tool: CondaTool,
    path: PathBuf,
    version: String,
}

/// Everything that makes one environment differ from another. What is asked for without a version stays as it was first
/// solved, until the environment is evicted.
#[derive(Serialize)]
struct Key<'a> {
    recipe: u32,
    tool: &'a str,
    tool_version: &'a str,
    specs: &'a [String],
    channels: &'a [String],
    channel_alias: Option<&'a str>,
    requirements: &'a [String],
    constraints: &'a [String],
    overrides: &'a [String],
    arguments: &'a [String],
    file: Option<&'a str>,
    files: &'a std::collections::BTreeMap<String, String>,
    platform: [&'a str; 2],
    image: Option<&'a str>,
    snapshot: Option<&'a str>,
}

/// What conda writes of each package that it has installed.
#[derive(Deserialize)]
struct Meta {
    name: String,
    version: String,
}

/// Makes the environment of an attempt.
pub(super) async fn prepare(
    attempt: &Attempt,
    directory: &AttemptDir,
    builder: &Builder<'_>,
    image: Option<&Inside<'_>>,
    mut asks: Asks,
    found: Found,
    log: &mut BuildLog,
) -> Result<ActualEnvironment, CommandError> {
    let environment = &attempt.plan.environment;
    let program = locate(builder).await?;
    let (specs, python_substitution) = conda::specs(environment);
    // What conda brings, pip need not.
    let brought = conda::pip_names(environment);
    asks.requirements.retain(|line| requirement_name(line).is_none_or(|name| !brought.contains(&name)));
    let alias = builder.settings.conda_channel_alias.as_deref();
    let snapshot = attempt.plan.snapshot_id.as_str();
    let key = content_key(&Key {
        recipe: RECIPE,
        tool: program.tool.name(),
        tool_version: &program.version,
        specs: &specs,
        channels: &environment.conda_channels,
        channel_alias: alias,
        requirements: &asks.requirements,
        constraints: &asks.constraints,
        overrides: &asks.overrides,
        arguments: &found.arguments,
        file: asks.file.as_deref(),
        files: &found.files,
        platform: resolution::PLATFORM,
        image: image.map(|inside| inside.image.id.as_str()),
        snapshot: found.local.then_some(snapshot),
    });
    let environments = layout::environments(&builder.settings.data_dir);
    layout::create_private_dir(&environments)?;
    let site = Site::new(&environments, key, directory.clone(), image.is_some());
    let (complete, reused) = match site.claim(builder.deadline, log).await? {
        Claim::There(complete) => (complete, true),
        Claim::Vacant { lock, mut log } => {
            let prefix = site.prefix().to_string_lossy().into_owned();
            let creation = Creation {
                tool: program.tool,
                prefix: &prefix,
                channels: &environment.conda_channels,
                specs: &specs,
            };
            let work = directory.work();
            let built = async {
                // Packages of conda bring all with them but a C library.
                let glibc = match image {
                    Some(inside) => inside.glibc().await?,
                    None => None,
                };
                let steering = Steering { alias, glibc };
                builder.give(site.root())?;
                create(&program, &creation, &steering, builder, &lock, &mut log).await?;
                let python = match image {
                    Some(inside) => inside.query(&site.interpreter(), site.root()).await?,
                    None => query(&site, builder).await?.ok_or_else(|| {
                        CommandError::Failed("the environment has no Python 3 that answers".to_owned())
                    })?,
                };
                let image = image.map(|inside| inside.image.id.clone());
                let wanted = Wanted { asks: asks.clone(), found, python, image, source: work };
                install(&site, &wanted, builder, &lock, &mut log).await
            };
            let built = built.await;
            if builder.is_confined() {
                // What is there twice, linked, has one name afterwards.
                files::remove_tree(&builder.cache("conda"))?;
            }
            let built = site.taken_back(built, builder).await;
            (site.conclude(built, &mut log).await?, false)
        }
    };
    Ok(ActualEnvironment {
        kind: complete.kind,
        interpreter: site.interpreter().to_string_lossy().into_owned(),
        python_version: complete.python_version,
        packages: complete.packages,
        substitutions: python_substitution.into_iter().chain(asks.substitutions).collect(),
        build_key: Some(site.key().to_owned()),
        reused,
        container: image.map(Inside::actual),
        image: None,
    })
}

/// The program that the operator names, or the first on `PATH`.
async fn locate(builder: &Builder<'_>) -> Result<Program, CommandError> {
    let named = builder.settings.conda.clone();
    let path = named.or_else(|| {
        CondaTool::ALL.into_iter().find_map(|tool| find_program(tool.name(), &builder.variables))
    });
    let path = path.ok_or_else(|| {
        CommandError::Failed(
            "conda packages are asked for, and none of micromamba, mamba and conda is on this compute target. Install \
             micromamba (one binary) and put it on the service's PATH, or name it with --conda; or ask for the packages in \
             pip_packages"
                .to_owned(),
        )
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let tool = CondaTool::of_file_name(&name);
    let mut command = Command::new(&path);
    command.arg("--version").env_clear().envs(builder.variables.iter().cloned());
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output().await;
    match output {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Ok(Program { tool, path, version })
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(CommandError::Failed(format!("{} --version failed: {}", path.display(), said.trim())))
        }
        Err(error) => Err(CommandError::Failed(format!("{} cannot be started: {error}", path.display()))),
    }
}

/// What a program is told besides its arguments.
struct Steering<'a> {
    /// What the names of channels are relative to.
    alias: Option<&'a str>,
    /// The C library that packages will find, where it is not the machine's.
    glibc: Option<String>,
}

async fn create(
    program: &Program,
    creation: &Creation<'_>,
    steering: &Steering<'_>,
    builder: &Builder<'_>,
    lock: &fs::File,
    log: &mut BuildLog,
) -> Result<(), CommandError> {
    let arguments = create_arguments(creation);
    log.line(&format!("Running {} ({}): {}", program.tool.name(), program.version, arguments.join(" ")))?;
    let cache = builder.cache("conda");
    layout::create_private_dir(&cache)?;
    // An empty file: the configuration of whoever the service runs as is nobody else's.
    let configuration = cache.join("condarc");
    fs::write(&configuration, "")?;
    builder.give(&cache)?;
    let mut command = Command::new(&program.path);
    command.args(arguments).env_clear().envs(builder.variables.iter().cloned());
    command.env("MAMBA_ROOT_PREFIX", &cache).env("CONDA_PKGS_DIRS", cache.join("pkgs"));
    command.env("CONDARC", &configuration).env("MAMBARC", &configuration);
    if let Some(glibc) = &steering.glibc {
        command.env("CONDA_OVERRIDE_GLIBC", glibc);
    }
    if let Some(alias) = steering.alias {
        command.env("CONDA_CHANNEL_ALIAS", alias).env("MAMBA_CHANNEL_ALIAS", alias);
    }
    let mut installer = Installer::from(command);
    let place = Path::new(creation.prefix).parent().unwrap_or(&cache);
    installer.account = builder.account_for(place, &program.path);
    build::run(installer, lock, log, builder.deadline).await.map(|_| ())
}

/// Asks the interpreter that was just installed who it is.
async fn query(site: &Site, builder: &Builder<'_>) -> io::Result<Option<Interpreter>> {
    let interpreter = site.interpreter();
    let account = builder.account_for(site.root(), &interpreter).filter(Account::is_confined);
    let Some(account) = account else {
        return Ok(interpreters::query(&interpreter, &builder.variables).await);
    };
    let arguments = ["-I", "-c", interpreters::QUERY];
    let said = account.ask(&interpreter, &arguments, &builder.variables, interpreters::QUERY_TIMEOUT).await?;
    Ok(said.as_deref().and_then(interpreters::answered))
}

/// Adds what pip is asked for, and says what there is.
async fn install(
    site: &Site,
    wanted: &Wanted,
    builder: &Builder<'_>,
    lock: &fs::File,
    log: &mut BuildLog,
) -> Result<Built, CommandError> {
    if !wanted.is_empty() {
        let uv = builder.uv(log).await?;
        let placed = wanted.place(site.root()).await?;
        let mut install = builder.installer(&uv, site.root(), &placed.directory);
        install.args(["pip", "install", "--python"]).arg(site.interpreter());
        for file in &placed.requirements {
            install.arg("-r").arg(file);
        }
        install.arg("-c").arg(&placed.constraints).arg("-b").arg(&placed.constraints);
        placed.override_with(&mut install);
        install.args(&wanted.found.arguments);
        builder.give(site.root())?;
        build::run(install, lock, log, builder.deadline).await?;
    }
    let mut packages: BTreeSet<String> = of_conda(&site.prefix())?.into_iter().collect();
    packages.extend(site.installed(builder, lock).await?);
    let version = wanted.python.version_text();
    Ok(Built { kind: "conda", python_version: version, packages: packages.into_iter().collect() })
}

/// What conda has installed, as `name==version`.
fn of_conda(prefix: &Path) -> io::Result<Vec<String>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(prefix.join("conda-meta"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let Meta { name, version } = serde_json::from_str(&account::read(&path)?)?;
            packages.push(format!("{name}=={version}"));
        }
    }
    Ok(packages)
}

//! `estimatord doctor`: looks at an installation, whether its service runs or not. What it thinks of what it sees is in
//! `domain::doctor`.

mod machine;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use crate::{
    artifacts::Artifacts,
    backend::Backend as _,
    clock::{Clock as _, SystemClock, entropy},
    config::{self, Role, Serve},
    domain::{
        compute_target::Engine,
        doctor::{self, Asked, Finding, Kept, Program, Report, ServiceFacts},
        ids::RunId,
        schema::SchemaState,
    },
    embedded_postgres::{self, DataDir},
    installation::{self, OpenDatabase, secret_key},
    lifecycle,
    operate::rotate,
    storage::{MAX_CONNECTIONS, Storage, StorageError},
    vault::Vault,
};

/// How long the service or a cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// `estimatord doctor`. The exit code says whether there are errors.
///
/// # Errors
/// When nobody says where the installation is.
pub async fn doctor(settings: &config::Doctor) -> anyhow::Result<ExitCode> {
    // Another part of the process may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let report = Report::of(look(&settings.serve).await?);
    match settings.output {
        config::Report::Text => println!("{report}"),
        config::Report::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(settings: &Serve) -> anyhow::Result<Vec<Finding>> {
    let data_dir = installation::data_dir_path(&settings.database)?;
    let is_shared = settings.database.database_url.is_some();
    let mut findings = vec![doctor::runs_as_root(machine::is_root())];
    findings.extend(doctor::data_directory(&machine::directory(&data_dir)));
    let own = settings.artifacts_dir.as_deref();
    let artifacts = own.map_or_else(|| data_dir.join("artifacts"), Path::to_owned);
    findings.extend(doctor::artifacts(&machine::directory(&artifacts), own.is_some(), is_shared));
    findings.push(doctor::open_files(machine::open_files()?));
    findings.push(authentication(settings));
    findings.extend(issuer(settings).await);
    if settings.role != Role::Api && data_dir.is_dir() {
        findings.push(isolation(settings, &data_dir, &artifacts));
    }
    findings.push(doctor::service(&service(settings, &data_dir).await?));
    findings.extend(database(settings, &data_dir, &artifacts).await);
    if settings.role != Role::Api {
        for program in [Program::Python, Program::Uv, Program::Conda, Program::Containers, Program::Mpi] {
            findings.push(doctor::program(program, &machine::program(program, settings, &data_dir).await));
        }
    }
    Ok(findings)
}

/// By the very function that the service starts with.
fn authentication(settings: &Serve) -> Finding {
    let check = "authentication";
    match lifecycle::access::settings(settings) {
        Err(error) => {
            Finding::error(check, format!("{error:#}"), "the service does not start like this: mend the file")
        }
        Ok(access) if access.is_required => Finding::ok(check, "callers must say who they are"),
        Ok(_) => Finding::ok(check, "callers need no token, and only this machine's can reach it"),
    }
}

/// Asks the issuer of JWTs for its keys, as the service does when the first one comes.
async fn issuer(settings: &Serve) -> Option<Finding> {
    let oidc = lifecycle::access::settings(settings).ok()?.oidc?;
    let name = &oidc.expected.issuer;
    let mend = "look whether this machine reaches it, and whether --oidc-issuer and --oidc-jwks-url are right; until then its tokens \
                are answered 503 or 401";
    Some(match oidc.usable_keys().await {
        Ok(0) => {
            Finding::warning("issuer", format!("{name} has no key that signatures are verified with"), mend)
        }
        Ok(keys) => Finding::ok("issuer", format!("{name} has {keys} key(s)")),
        Err(why) => Finding::warning("issuer", format!("{name} cannot be asked for its keys: {why}"), mend),
    })
}

/// Whether runs are kept apart, by the very function that the service starts with.
fn isolation(settings: &Serve, data_dir: &Path, artifacts: &Path) -> Finding {
    let check = "isolation";
    // What is not there yet is made closed to others.
    let private: Vec<PathBuf> =
        [artifacts.to_owned(), data_dir.join("uploads")].into_iter().filter(|path| path.exists()).collect();
    match lifecycle::isolation::check(settings, data_dir, &private) {
        Err(error) => Finding::error(
            check,
            format!("{error:#}"),
            "the service does not start like this: do what the message says",
        ),
        Ok(()) => match settings.isolation(machine::is_root()).users {
            Some(users) => Finding::ok(check, format!("runs have users of their own, {users}")),
            None => Finding::ok(check, "runs have the service's own user"),
        },
    }
}

/// Whether a service that asks everybody knows anybody.
async fn somebody_is_known(settings: &Serve, storage: &Storage) -> Option<Finding> {
    let access = lifecycle::access::settings(settings).ok()?;
    let error = lifecycle::access::somebody_is_known(settings, &access, storage).await.err()?;
    Some(Finding::error(
        "authentication",
        format!("{error:#}"),
        "the service does not start like this: make a token",
    ))
}

async fn service(settings: &Serve, data_dir: &Path) -> anyhow::Result<ServiceFacts> {
    let address = match (settings.probe_listen, settings.role) {
        (Some(probes), _) => probes,
        (None, Role::Worker) => return Ok(ServiceFacts::Unheard),
        (None, _) => settings.listen,
    };
    let address = machine::reachable(address);
    let holder = DataDir::holder(data_dir)?;
    Ok(doctor::service_at(address, holder.map(|holder| holder.addresses), ask(address).await))
}

async fn ask(address: SocketAddr) -> Asked {
    let asked = async {
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        let answer = client.get(format!("http://{address}/readyz")).send().await?;
        let status = answer.status();
        Ok((status, answer.text().await?))
    };
    match asked.await {
        Ok((status, _)) if status.is_success() => Asked::Ready,
        Ok((status, text)) => Asked::NotReady(format!("{status} {}", text.trim())),
        Err(error) => {
            let error: reqwest::Error = error;
            let is_nobody = error.is_connect();
            let why = format!("{:#}", anyhow::Error::from(error));
            if is_nobody { Asked::Nobody(why) } else { Asked::NotReady(why) }
        }
    }
}

/// The database, and everything that can only be looked at through it.
async fn database(settings: &Serve, data_dir: &Path, artifacts: &Path) -> Vec<Finding> {
    let check = "database";
    let mut findings = Vec::new();
    if settings.database.database_url.is_none() {
        match prospect(settings, data_dir) {
            Ok(found) if !found.has_cluster => {
                findings.push(Finding::ok(
                    check,
                    format!(
                        "PostgreSQL {} is here for an embedded one, under the account {}",
                        found.major, found.account
                    ),
                ));
                findings.push(Finding::warning(
                    check,
                    "there is none yet",
                    "the service makes it at its first start",
                ));
                return findings;
            }
            Ok(found) => findings.push(Finding::ok(
                check,
                format!(
                    "embedded, with the binaries of PostgreSQL {}, under the account {}",
                    found.major, found.account
                ),
            )),
            Err(error) => {
                let mend = "it is in the message; nothing that is kept in the database was looked at";
                findings.push(Finding::error(check, format!("{error:#}"), mend));
                return findings;
            }
        }
    }
    match OpenDatabase::beside_the_service(&settings.database).await {
        Ok(opened) => {
            let seen = contents(settings, &opened.storage, data_dir, artifacts).await;
            opened.close().await;
            findings.extend(seen.unwrap_or_else(|error| {
                vec![Finding::error(check, error.to_string(), "look into the database's log, then try again")]
            }));
        }
        Err(error) => findings.push(Finding::error(
            check,
            format!("{error:#}"),
            "start it, or mend DATABASE_URL; nothing that is kept in it was looked at",
        )),
    }
    findings
}

fn prospect(settings: &Serve, data_dir: &Path) -> anyhow::Result<embedded_postgres::Prospect> {
    let trampoline = installation::own_executable()?;
    let bin_dir = settings.database.pg_bin_dir.clone();
    Ok(embedded_postgres::prospect(data_dir, &embedded_postgres::Settings { bin_dir, trampoline })?)
}

async fn contents(
    settings: &Serve,
    storage: &Storage,
    data_dir: &Path,
    artifacts: &Path,
) -> Result<Vec<Finding>, StorageError> {
    let facts = storage.server_facts().await?;
    let mut findings = doctor::database(&facts, MAX_CONNECTIONS, SystemClock.now());
    let channel =
        format!("estimatord_doctor_{}", RunId::generate(SystemClock.now(), entropy()).as_uuid().simple());
    let arrive = storage.delivers_notifications(&channel).await?;
    findings.push(doctor::notifications(arrive, !settings.no_database_listen));
    let state = storage.schema_state().await?;
    let is_current = state == SchemaState::Current;
    findings.push(doctor::schema(&state, !settings.no_migrate));
    if !is_current {
        // Its tables are another version's.
        return Ok(findings);
    }
    let wrong = storage.wrong_schema_objects().await?;
    findings.push(doctor::schema_objects(&wrong));
    if !wrong.is_empty() {
        // What follows reads the tables.
        return Ok(findings);
    }
    findings.extend(somebody_is_known(settings, storage).await);
    let vault = secret_key::of_installation(&settings.secret_key, &settings.database, Some(data_dir));
    findings.push(doctor::secrets(&kept(storage, vault.as_ref()).await?));
    if settings.role != Role::Api {
        findings.extend(clusters(settings, storage, data_dir, artifacts, vault.ok().flatten()).await?);
    }
    Ok(findings)
}

async fn kept(
    storage: &Storage,
    vault: Result<&Option<Vault>, &anyhow::Error>,
) -> Result<Kept, StorageError> {
    Ok(match vault {
        Err(error) => Kept::Unusable { why: format!("{error:#}") },
        // No key opens nothing, and rows are rows.
        Ok(None) => Kept::NoKey { rows: rotate::survey(storage, &Vault::new(entropy())).await?.rows },
        Ok(Some(vault)) => {
            let rotate::Survey { rows, under_others, locked } = rotate::survey(storage, vault).await?;
            Kept::Key { rows, under_others, locked }
        }
    })
}

/// Asks each cluster as the service does.
async fn clusters(
    settings: &Serve,
    storage: &Storage,
    data_dir: &Path,
    artifacts: &Path,
    vault: Option<Vault>,
) -> Result<Vec<Finding>, StorageError> {
    let targets = storage.list_compute_targets().await?.into_iter().map(|stored| stored.target);
    let clusters: Vec<_> = targets.filter(|target| target.backend.engine != Engine::Process).collect();
    if clusters.is_empty() {
        return Ok(Vec::new());
    }
    let check = |name: &dyn std::fmt::Display| format!("compute target {name}");
    let uploads = data_dir.join("uploads");
    let backends = Artifacts::open(artifacts, &uploads)
        .map_err(anyhow::Error::from)
        .and_then(|artifacts| lifecycle::make_backend(settings, data_dir, artifacts, vault));
    let mut findings = Vec::new();
    for target in clusters {
        let check = check(&target.name);
        let asked = match &backends {
            Ok(backends) => tokio::time::timeout(PATIENCE, backends.reach(&target.backend))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))),
            Err(error) => Err(format!("{error:#}")),
        };
        findings.push(match asked {
            Ok(detail) => Finding::ok(check, detail),
            Err(why) => Finding::error(
                check,
                why,
                "docs/slurm.md and docs/kubernetes-runs.md say what a cluster must let the service's account do; runs wait until \
                 it answers",
            ),
        });
    }
    Ok(findings)
}

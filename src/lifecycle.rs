//! The life of the service: what is started in which order, and stopped in which.

use std::{
    future::IntoFuture as _,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use sqlx::postgres::PgConnectOptions;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{error, info, warn};

use crate::{
    api,
    artifacts::{Artifacts, Limits},
    backend::{Backends, process},
    clock::{Clock, SystemClock, entropy},
    config::{Database, Role, Serve},
    embedded_postgres::{self, DataDir, EmbeddedPostgres},
    figures::RunFigures,
    storage::Storage,
    vault::Vault,
    worker::{self, Worker},
};

/// The exit status when the embedded database died under the service: whoever supervises it starts it again
/// (`EX_SOFTWARE` of sysexits).
const DATABASE_DIED: u8 = 70;

/// How long giving back the database connections may take.
const POOL_CLOSE: Duration = Duration::from_secs(1);

/// How long requests that are under way may take after the service was told to stop.
const HTTP_DRAIN: Duration = Duration::from_secs(10);

/// How long the worker may take to let go of its runs.
const WORKER_DRAIN: Duration = Duration::from_secs(15);

/// How long either may take when the database has died: what they wait for will not come.
const DEAD_DATABASE_DRAIN: Duration = Duration::from_millis(500);

/// A lease ends this long after its worker was last heard of.
const LEASE_TTL: Duration = Duration::from_secs(15);

/// Where the database is, and the server if it is the service's own.
struct OpenDatabase {
    storage: Storage,
    embedded: Option<EmbeddedPostgres>,
}

impl OpenDatabase {
    /// Without a data directory only `DATABASE_URL` can be opened.
    async fn open(settings: &Database, data_dir: Option<&DataDir>) -> anyhow::Result<Self> {
        if let Some(url) = &settings.database_url {
            let options = PgConnectOptions::from_str(url).map_err(|_| {
                anyhow::anyhow!("DATABASE_URL is no PostgreSQL URL (postgres://user@host/database)")
            })?;
            let server = format!("{}:{}", options.get_host(), options.get_port());
            let storage = Storage::connect(options)
                .await
                .with_context(|| format!("cannot connect to DATABASE_URL ({server})"))?;
            return Ok(Self { storage, embedded: None });
        }
        let data_dir = data_dir.context("the embedded database needs a data directory")?;
        let settings = embedded_postgres::Settings {
            bin_dir: settings.pg_bin_dir.clone(),
            trampoline: own_executable()?,
        };
        let embedded = EmbeddedPostgres::start(data_dir, &settings).await?;
        let storage = Storage::connect(embedded.connect_options())
            .await
            .context("cannot connect to the embedded database")?;
        Ok(Self { storage, embedded: Some(embedded) })
    }

    async fn close(self) {
        // Connections that are in use when the database has died come back only when their users give up.
        if tokio::time::timeout(POOL_CLOSE, self.storage.close()).await.is_err() {
            warn!("some database connections were still in use");
        }
        if let Some(embedded) = self.embedded
            && let Err(error) = embedded.stop().await
        {
            error!("the embedded database did not stop cleanly: {error}");
        }
    }
}

fn own_executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the path of this program")
}

fn lock_data_dir(settings: &Database) -> anyhow::Result<DataDir> {
    let path = match &settings.data_dir {
        Some(path) => std::path::absolute(path).context("cannot make the data directory's path absolute")?,
        None => DataDir::default_path()?,
    };
    Ok(DataDir::lock(&path)?)
}

/// `estimatord migrate`.
///
/// # Errors
/// When the database cannot be reached or a migration fails.
pub async fn migrate(settings: &Database) -> anyhow::Result<()> {
    // With a database of the operator's the data directory has no part in it.
    let data_dir = match &settings.database_url {
        Some(_) => None,
        None => Some(lock_data_dir(settings)?),
    };
    let database = OpenDatabase::open(settings, data_dir.as_ref()).await?;
    let migrated = database.storage.migrate().await.context("a migration failed");
    database.close().await;
    migrated
}

/// `estimatord serve`.
///
/// # Errors
/// When the service cannot start; the message says what to do.
pub async fn serve(settings: &Serve) -> anyhow::Result<ExitCode> {
    let token = api_token(settings)?;
    let data_dir = lock_data_dir(&settings.database)?;
    // Before anything takes long, so that a port in use is said at once.
    let listeners = Listeners::open(settings).await?;
    let stop = stop_signal()?;
    // Dropping the start half-way stops what it had started.
    let mut database = tokio::select! {
        opened = OpenDatabase::open(&settings.database, Some(&data_dir)) => opened?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let served = serve_with(settings, token, &data_dir, listeners, &mut database, stop).await;
    database.close().await;
    served
}

async fn serve_with(
    settings: &Serve,
    token: Option<String>,
    data_dir: &DataDir,
    listeners: Listeners,
    database: &mut OpenDatabase,
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    if settings.no_migrate {
        database.storage.check_schema().await?;
    } else {
        database.storage.migrate().await.context("a migration failed")?;
    }
    let artifacts_dir = settings.artifacts_dir.clone().unwrap_or_else(|| data_dir.path().join("artifacts"));
    let uploads = data_dir.path().join("uploads");
    for private in [&artifacts_dir, &uploads] {
        make_private_dir(private).with_context(|| format!("cannot make {}", private.display()))?;
    }
    let artifacts = Artifacts::open(&artifacts_dir, &uploads)
        .with_context(|| format!("cannot use {} for artifacts", artifacts_dir.display()))?;
    let vault = vault(settings, data_dir.path())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let wakeup = Arc::new(Notify::new());
    let figures = RunFigures::default();

    let worker = match settings.role {
        Role::Api => None,
        Role::All | Role::Worker => Some(tokio::spawn(
            Worker::new(
                database.storage.clone(),
                artifacts.clone(),
                make_backend(settings, data_dir.path(), artifacts.clone(), vault.clone())?,
                Arc::clone(&clock),
                worker_settings(settings, data_dir.path(), vault.clone(), figures.clone())?,
                Arc::clone(&wakeup),
                stop.clone(),
            )
            .run(),
        )),
    };
    // With port 0 the machine has chosen one.
    let address = match &listeners.api {
        Some(listener) => Some(listener.local_addr().context("cannot tell the address listened on")?),
        None => None,
    };
    let api = api::Api::new(api::ApiSettings {
        storage: database.storage.clone(),
        artifacts,
        limits: Limits {
            max_unpacked_bytes: settings.max_snapshot_bytes,
            max_files: settings.max_snapshot_files,
            // What is sent is compressed at best and framed at worst.
            max_upload_bytes: settings.max_snapshot_bytes.saturating_mul(2),
        },
        one_off_target: settings.one_off_target.clone(),
        clock,
        wakeup,
        token,
        vault,
        figures,
        shutdown: stop.clone(),
    });
    let http = listeners.api.map(|listener| answer(listener, api.router(), stop.clone().cancelled_owned()));
    // Until the worker has let go of its runs somebody may want to know how it is.
    let probes_stop = CancellationToken::new();
    if let Some(listener) = &listeners.probes {
        let address = listener.local_addr().context("cannot tell the address of probes")?;
        info!("probes and figures: http://{address}/metrics");
    }
    let probes = listeners
        .probes
        .map(|listener| answer(listener, api.probes(), probes_stop.clone().cancelled_owned()));
    announce(settings.role, address, data_dir.path(), database);

    let end = wait_for_the_end(database, &stop).await;
    stop.cancel();
    match end {
        End::Told => {
            drain(http, worker, HTTP_DRAIN, WORKER_DRAIN).await;
            probes_stop.cancel();
            drain(probes, None, HTTP_DRAIN, WORKER_DRAIN).await;
            Ok(ExitCode::SUCCESS)
        }
        // Nothing can be finished without the database, and whoever starts the service anew should not have to wait.
        End::DatabaseDied => {
            drain(http, worker, DEAD_DATABASE_DRAIN, DEAD_DATABASE_DRAIN).await;
            Ok(ExitCode::from(DATABASE_DIED))
        }
    }
}

/// What secrets are encrypted with. A data directory's own key is no use where others have a part in the database.
fn vault(settings: &Serve, data_dir: &Path) -> anyhow::Result<Option<Vault>> {
    if let Some(path) = &settings.secret_key_file {
        return Ok(Some(Vault::from_file(path)?));
    }
    if let Some(text) = std::env::var_os("ESTIMATORD_SECRET_KEY").filter(|text| !text.is_empty()) {
        let vault =
            Vault::from_text(&text.to_string_lossy()).context("ESTIMATORD_SECRET_KEY cannot be used")?;
        return Ok(Some(vault));
    }
    if settings.database.database_url.is_some() {
        info!("no secret key: passwords of registries and credentials of datastores are refused");
        return Ok(None);
    }
    Ok(Some(Vault::of_data_dir(data_dir, entropy())?))
}

/// Other people's source trees and results are nobody else's business. A directory that is there keeps its mode.
fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn make_backend(
    settings: &Serve,
    data_dir: &Path,
    artifacts: Artifacts,
    vault: Option<Vault>,
) -> anyhow::Result<Backends> {
    let process = process::Settings {
        data_dir: data_dir.to_owned(),
        supervisor: own_executable()?,
        cancel_grace: settings.cancel_grace(),
        build_timeout: settings.build_timeout(),
        max_environments_bytes: settings.max_environments_bytes,
        uv: settings.uv.clone(),
        conda: settings.conda.clone(),
        conda_channel_alias: settings.conda_channel_alias.clone(),
    };
    Backends::new(process, settings.cluster_interval(), artifacts, vault)
        .context("cannot use the data directory for runs")
}

fn worker_settings(
    settings: &Serve,
    data_dir: &Path,
    vault: Option<Vault>,
    figures: RunFigures,
) -> anyhow::Result<worker::Settings> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(worker::Settings {
        node: worker::node_id(data_dir, entropy()).context("cannot name this worker node")?,
        lease_ttl: LEASE_TTL,
        poll_interval: Duration::from_secs(2),
        observe_interval: Duration::from_millis(200),
        cluster_interval: settings.cluster_interval(),
        slots: settings.worker_slots,
        default_target_limit: settings
            .max_concurrent_runs
            .unwrap_or_else(|| u32::try_from(cpus).unwrap_or(u32::MAX)),
        limits: settings.limits(),
        max_data_cache_bytes: settings.max_data_cache_bytes,
        vault,
        figures,
    })
}

/// The one line that says that the service is ready, and where.
fn announce(role: Role, address: Option<SocketAddr>, data_dir: &Path, database: &OpenDatabase) {
    let kind = if database.embedded.is_some() { "embedded" } else { "DATABASE_URL" };
    let data_dir = data_dir.display();
    match address {
        Some(address) => {
            let workers = if role == Role::Api { ", API only" } else { "" };
            info!(
                service.address = %address,
                "ready: http://{address}/docs/ (data in {data_dir}, database: {kind}{workers})"
            );
        }
        None => info!("ready: worker only (data in {data_dir}, database: {kind})"),
    }
}

/// Why the service ends.
enum End {
    /// By a signal.
    Told,
    /// The embedded database is gone.
    DatabaseDied,
}

async fn wait_for_the_end(database: &mut OpenDatabase, stop: &CancellationToken) -> End {
    let Some(embedded) = &mut database.embedded else {
        stop.cancelled().await;
        return End::Told;
    };
    tokio::select! {
        () = stop.cancelled() => End::Told,
        how = embedded.exited() => {
            error!("the embedded database ended by itself ({how}); stopping, so that it is started anew");
            End::DatabaseDied
        }
    }
}

async fn drain(
    http: Option<JoinHandle<io::Result<()>>>,
    worker: Option<JoinHandle<()>>,
    http_limit: Duration,
    worker_limit: Duration,
) {
    if let Some(http) = http {
        match tokio::time::timeout(http_limit, http).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => error!("the HTTP server failed: {error}"),
            Ok(Err(error)) => error!("the HTTP server panicked: {error}"),
            Err(_) => warn!("some requests took too long and were cut off"),
        }
    }
    if let Some(worker) = worker {
        match tokio::time::timeout(worker_limit, worker).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!("the worker panicked: {error}"),
            Err(_) => warn!("the worker took too long; its leases end by themselves"),
        }
    }
}

/// Where requests come in.
struct Listeners {
    api: Option<TcpListener>,
    probes: Option<TcpListener>,
}

impl Listeners {
    async fn open(settings: &Serve) -> anyhow::Result<Self> {
        let api = match settings.role {
            Role::Worker => None,
            Role::All | Role::Api => Some(listen(settings.listen, "--listen or ESTIMATORD_LISTEN").await?),
        };
        let probes = match settings.probe_listen {
            Some(address) => Some(listen(address, "--probe-listen or ESTIMATORD_PROBE_LISTEN").await?),
            None => None,
        };
        Ok(Self { api, probes })
    }
}

async fn listen(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another address with {option}"))
}

fn answer(
    listener: TcpListener,
    router: axum::Router,
    stopped: WaitForCancellationFutureOwned,
) -> JoinHandle<io::Result<()>> {
    tokio::spawn(axum::serve(listener, router).with_graceful_shutdown(stopped).into_future())
}

/// The token that callers must send. An address that others can reach needs one.
fn api_token(settings: &Serve) -> anyhow::Result<Option<String>> {
    let token = match &settings.api_token_file {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the token in {}", file.display()))?;
            let token = text.trim();
            if token.len() < 16 {
                bail!("the token in {} is shorter than 16 characters: too easy to guess", file.display());
            }
            Some(token.to_owned())
        }
    };
    let others_can_reach_it = settings.role != Role::Worker && !settings.listen.ip().is_loopback();
    if token.is_none() && others_can_reach_it {
        bail!(
            "refusing to listen on {} without a token: this service runs the code that it is sent. Name a file that \
             holds one with --api-token-file or ESTIMATORD_API_TOKEN_FILE, or listen on 127.0.0.1",
            settings.listen
        );
    }
    Ok(token)
}

/// Cancelled by the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        info!("stopping: runs under way go on without the service; a second signal ends it at once");
        stop.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(token)
}

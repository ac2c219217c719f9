//! The life of the service: what is started in which order, and stopped in which.

pub(crate) mod access;
pub(crate) mod isolation;
mod tokens;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::{
        prctl::set_dumpable,
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::{Uid, gethostname},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{error, info, warn};

use crate::{
    api::{self, AccessSettings},
    artifacts::{Artifacts, Limits},
    backend::{Backends, ServiceAddresses, process},
    clock::{Clock, SystemClock, entropy},
    config::{Database, Role, Serve},
    domain::{base_url::BaseUrl, datastore_places::Places, webhook::allow_list::AllowList},
    embedded_postgres::DataDir,
    figures::RunFigures,
    http_server,
    installation::{self, OpenDatabase, secret_key},
    telemetry::LogFilter,
    vault::Vault,
    webhooks::Dispatcher,
    worker::{self, Worker},
};

pub use self::tokens::{TokenOutcome, token};

/// The exit status when the embedded database died under the service: whoever supervises it starts it again
/// (`EX_SOFTWARE` of sysexits).
const DATABASE_DIED: u8 = 70;

/// Connections of followers, of callers, of the database, and files: a limit against leaks rather than for use.
const MAX_OPEN_FILES: u64 = 65_536;

/// How long requests that are under way may take after the service was told to stop.
const HTTP_DRAIN: Duration = Duration::from_secs(10);

/// How long the worker may take to let go of its runs.
const WORKER_DRAIN: Duration = Duration::from_secs(15);

/// How long receivers of webhooks may take with what they are being sent.
const WEBHOOK_DRAIN: Duration = Duration::from_secs(5);

/// How long either may take when the database has died: what they wait for will not come.
const DEAD_DATABASE_DRAIN: Duration = Duration::from_millis(500);

/// A lease ends this long after its worker was last heard of.
const LEASE_TTL: Duration = Duration::from_secs(15);

/// `estimatord migrate`.
///
/// # Errors
/// When the database cannot be reached or a migration fails.
pub async fn migrate(settings: &Database) -> anyhow::Result<()> {
    // With a database of the operator's the data directory has no part in it.
    let data_dir = match &settings.database_url {
        Some(_) => None,
        None => Some(installation::lock_data_dir(settings)?),
    };
    let database = OpenDatabase::open(settings, data_dir.as_ref()).await?;
    let migrated = database.storage.migrate().await;
    database.close().await;
    Ok(migrated?)
}

/// `estimatord serve`.
///
/// # Errors
/// When the service cannot start; the message says what to do.
pub async fn serve(settings: &Serve, log_filter: &LogFilter) -> anyhow::Result<ExitCode> {
    allow_many_files();
    heed_log_signals(log_filter.clone())?;
    // Nobody of the same user, a run among them, reads this process's memory and environment.
    set_dumpable(false).context("cannot close this process to others")?;
    let access = access::settings(settings)?;
    let data_dir = installation::lock_data_dir(&settings.database)?;
    // Before anything takes long, so that a port in use is said at once.
    let listeners = Listeners::open(settings).await?;
    data_dir.note_addresses(&listeners.addresses()?).context("cannot note where the service listens")?;
    let stop = stop_signal()?;
    // Dropping the start half-way stops what it had started.
    let mut database = tokio::select! {
        opened = OpenDatabase::open(&settings.database, Some(&data_dir)) => opened?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let served = serve_with(settings, access, &data_dir, listeners, &mut database, stop, log_filter).await;
    database.close().await;
    served
}

async fn serve_with(
    settings: &Serve,
    access: AccessSettings,
    data_dir: &DataDir,
    listeners: Listeners,
    database: &mut OpenDatabase,
    told: CancellationToken,
    log_filter: &LogFilter,
) -> anyhow::Result<ExitCode> {
    // The first sign of the end is that the service is not ready any more; requests are taken a little longer.
    let stop = CancellationToken::new();
    if settings.no_migrate {
        database.storage.check_schema().await?;
    } else {
        database.storage.migrate().await?;
    }
    access::somebody_is_known(settings, &access, &database.storage).await?;
    let artifacts_dir = settings.artifacts_dir.clone().unwrap_or_else(|| data_dir.path().join("artifacts"));
    let uploads = data_dir.path().join("uploads");
    for private in [&artifacts_dir, &uploads] {
        make_private_dir(private).with_context(|| format!("cannot make {}", private.display()))?;
    }
    let artifacts = Artifacts::open(&artifacts_dir, &uploads)
        .with_context(|| format!("cannot use {} for artifacts", artifacts_dir.display()))?;
    let datastore_places = access::datastore_places(settings, &access, data_dir.path(), &artifacts_dir);
    let vault = secret_key::of_service(&settings.secret_key, &settings.database, data_dir.path())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let wakeup = Arc::new(Notify::new());
    let figures = RunFigures::default();

    if settings.role != Role::Api {
        isolation::isolate_runs(settings, data_dir.path(), &[artifacts_dir, uploads])?;
    }
    // With port 0 the machine has chosen one.
    let address = match &listeners.api {
        Some(listener) => Some(listener.local_addr().context("cannot tell the address listened on")?),
        None => None,
    };
    let service_addresses =
        ServiceAddresses { public: settings.service_url.clone(), local: address.and_then(local_url) };
    let worker = match settings.role {
        Role::Api => None,
        Role::All | Role::Worker => Some(tokio::spawn(
            Worker::new(
                database.storage.clone(),
                artifacts.clone(),
                make_backend(settings, data_dir.path(), artifacts.clone(), vault.clone())?,
                Arc::clone(&clock),
                worker_settings(
                    settings,
                    data_dir.path(),
                    vault.clone(),
                    datastore_places.clone(),
                    service_addresses,
                    figures.clone(),
                )?,
                Arc::clone(&wakeup),
                told.clone(),
            )
            .run(),
        )),
    };
    let receivers = AllowList::new(settings.webhook_allow.clone());
    let webhooks = match (settings.role, &vault) {
        (Role::All | Role::Api, Some(vault)) if !receivers.is_empty() => {
            let dispatcher = Dispatcher::new(
                database.storage.clone(),
                vault.clone(),
                Arc::clone(&clock),
                receivers.clone(),
                figures.clone(),
                told.clone(),
            )?;
            Some(tokio::spawn(dispatcher.run()))
        }
        _ => None,
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
        access,
        max_queued_runs: settings.max_queued_runs,
        caller_limit: settings.max_active_runs_per_caller,
        max_requests_per_minute: settings.max_requests_per_minute,
        webhook_receivers: receivers,
        datastore_places,
        cors_origins: access::origins(settings)?,
        trusted_proxies: access::trusted_proxies(settings),
        vault,
        figures,
        log_filter: log_filter.clone(),
        draining: told.clone(),
        shutdown: stop.clone(),
    });
    if settings.role == Role::Api {
        tokio::spawn(api.keep_deadlines(told.clone()));
    }
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

    let end = wait_for_the_end(database, &told).await;
    told.cancel();
    if matches!(end, End::Told) && http.is_some() {
        tokio::time::sleep(settings.drain_delay()).await;
    }
    stop.cancel();
    match end {
        End::Told => {
            let mut is_clean = Task::http(http).ends(HTTP_DRAIN).await;
            is_clean &= Task::worker(worker).ends(WORKER_DRAIN).await;
            // What is not recorded is sent again by whoever comes next.
            is_clean &= Task::webhooks(webhooks).ends(WEBHOOK_DRAIN).await;
            probes_stop.cancel();
            is_clean &= Task::http(probes).ends(HTTP_DRAIN).await;
            Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        // Nothing can be finished without the database, and whoever starts the service anew should not have to wait.
        End::DatabaseDied => {
            Task::http(http).ends(DEAD_DATABASE_DRAIN).await;
            Task::worker(worker).ends(DEAD_DATABASE_DRAIN).await;
            Ok(ExitCode::from(DATABASE_DIED))
        }
    }
}

/// SIGUSR1 has a step more logged, SIGUSR2 as much as configured: also where no API can be asked.
fn heed_log_signals(log_filter: LogFilter) -> anyhow::Result<()> {
    let failed = "cannot wait for signals";
    let mut more = signal(SignalKind::user_defined1()).context(failed)?;
    let mut restore = signal(SignalKind::user_defined2()).context(failed)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = more.recv() => log_filter.more(),
                Some(()) = restore.recv() => log_filter.restore(),
                else => return,
            }
        }
    });
    Ok(())
}

/// Every follower is a connection, and every connection a file: more of them than the usual soft limit, where the hard one allows it.
fn allow_many_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = MAX_OPEN_FILES.min(hard);
        if soft < wanted { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        warn!("the limit of open files stays as it is: {error}");
    }
}

/// Other people's source trees and results are nobody else's business. A directory that is there keeps its mode.
fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(crate) fn make_backend(
    settings: &Serve,
    data_dir: &Path,
    artifacts: Artifacts,
    vault: Option<Vault>,
) -> anyhow::Result<Backends> {
    let process = process::Settings {
        data_dir: data_dir.to_owned(),
        supervisor: installation::own_executable()?,
        cancel_grace: settings.cancel_grace(),
        build_timeout: settings.build_timeout(),
        max_environments_bytes: settings.max_environments_bytes,
        uv: settings.uv.clone(),
        conda: settings.conda.clone(),
        conda_channel_alias: settings.conda_channel_alias.clone(),
        isolation: settings.isolation(Uid::effective().is_root()),
    };
    Backends::new(process, settings.cluster_interval(), artifacts, vault)
        .context("cannot use the data directory for runs")
}

fn worker_settings(
    settings: &Serve,
    data_dir: &Path,
    vault: Option<Vault>,
    datastore_places: Places,
    service_addresses: ServiceAddresses,
    figures: RunFigures,
) -> anyhow::Result<worker::Settings> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(worker::Settings {
        node: worker::node_id(data_dir, entropy()).context("cannot name this worker node")?,
        host: gethostname().context("cannot name this machine")?.to_string_lossy().into_owned(),
        lease_ttl: LEASE_TTL,
        poll_interval: Duration::from_secs(2),
        observe_interval: Duration::from_millis(200),
        cluster_interval: settings.cluster_interval(),
        slots: settings.worker_slots,
        default_target_limit: settings
            .max_concurrent_runs
            .unwrap_or_else(|| u32::try_from(cpus).unwrap_or(u32::MAX)),
        caller_limit: settings.max_active_runs_per_caller,
        listens: !settings.no_database_listen,
        limits: settings.limits(),
        max_data_cache_bytes: settings.max_data_cache_bytes,
        datastore_places,
        keep_runs: settings.keep_runs,
        vault,
        service_addresses,
        figures,
    })
}

/// How those on this machine reach what listens on an address.
fn local_url(address: SocketAddr) -> Option<BaseUrl> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port())).parse().ok()
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

/// What the service does beside others, until it is told to stop.
struct Task {
    name: &'static str,
    /// What is said when it does not come to its end in time.
    late: &'static str,
    handle: Option<JoinHandle<()>>,
}

impl Task {
    const fn http(handle: Option<JoinHandle<()>>) -> Self {
        Self { name: "HTTP server", late: "some requests took too long and were cut off", handle }
    }

    const fn worker(handle: Option<JoinHandle<()>>) -> Self {
        Self { name: "worker", late: "the worker took too long; its leases end by themselves", handle }
    }

    const fn webhooks(handle: Option<JoinHandle<()>>) -> Self {
        Self { name: "sender of webhooks", late: "the sender of webhooks took too long", handle }
    }

    /// Waits until it has come to its end. Whether it did, in time and without a fault.
    async fn ends(self, limit: Duration) -> bool {
        let Some(handle) = self.handle else { return true };
        match tokio::time::timeout(limit, handle).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error!("the {} panicked: {error}", self.name),
            Err(_) => error!("{}", self.late),
        }
        false
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

    fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let each = self.api.iter().chain(&self.probes);
        each.map(|one| one.local_addr().context("cannot tell the address listened on")).collect()
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
) -> JoinHandle<()> {
    tokio::spawn(http_server::serve(listener, router, stopped))
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

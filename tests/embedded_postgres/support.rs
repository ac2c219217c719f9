//! A place to run the service in, as root or as an ordinary user, that leaves nothing behind.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, Uid, User, chown};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

/// Generous: the machine may be busy with other builds.
const PATIENCE: Duration = Duration::from_secs(45);

/// Who runs the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever runs the tests.
    Us,
    /// Not root: `nobody` when the tests run as root.
    Ordinary,
    /// A user id without an entry in the user database; needs root.
    Unknown,
    /// Root as in a container: without the right to look into the processes of others. Needs root.
    ConfinedRoot,
}

impl Who {
    /// Whether it is another user than the one of the tests.
    fn is_other(self) -> bool {
        Uid::effective().is_root() && matches!(self, Self::Ordinary | Self::Unknown)
    }
}

/// Whether the tests run as root. Says why a test does nothing when not.
pub fn root_or_skip() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("skipped: this scenario needs root");
    }
    root
}

/// Waits for a condition; panics when it does not come true.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A scratch directory with a data directory (not made yet) and, if need be, the binary in it.
pub struct Scratch {
    pub data: PathBuf,
    who: Who,
    binary: PathBuf,
    root: PathBuf,
    _dir: TempDir,
}

impl Scratch {
    pub fn new(who: Who) -> Self {
        let dir = TempDir::with_prefix("estimatord-test-").unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_estimatord"));
        if who.is_other() {
            // The build directory may be closed to others.
            let copy = root.join("estimatord");
            if fs::hard_link(&binary, &copy).is_err() {
                fs::copy(&binary, &copy).unwrap();
            }
            binary = copy;
            chown(&root, Some(Uid::from_raw(id_of(who))), None).unwrap();
        }
        Self { data: root.join("data"), who, binary, root, _dir: dir }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn cluster(&self) -> PathBuf {
        self.data.join("pg")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.data.join("postgres.log")).unwrap_or_default()
    }

    /// The service's command, for this scratch's user.
    pub fn command(&self) -> Command {
        self.command_as(self.who)
    }

    fn command_as(&self, who: Who) -> Command {
        let mut command = if who.is_other() {
            let id = id_of(who);
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={id}"))
                .arg(format!("--regid={id}"))
                .arg("--clear-groups")
                .arg(&self.binary);
            command
        } else if who == Who::ConfinedRoot {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]).arg(&self.binary);
            command
        } else {
            Command::new(&self.binary)
        };
        for name in ["PG_BIN_DIR", "DATABASE_URL", "ESTIMATORD_DATA_DIR"] {
            command.env_remove(name);
        }
        // These name another server, and have to be without effect.
        command.env("PGDATA", "/nowhere").env("PGPORT", "1").env("PGHOST", "nowhere");
        command.current_dir("/").arg("serve-postgres-only").arg("--data-dir").arg(&self.data);
        command
    }

    /// Starts the service; not yet ready.
    pub fn spawn(&self) -> Service {
        Service::spawn(self.command(), &self.root)
    }

    /// Starts the service and waits until it is ready.
    pub fn serve(&self) -> Service {
        let mut service = self.spawn();
        service.ready();
        service
    }

    /// The same data, but the service run by whoever runs the tests.
    pub fn serve_as_us(&self) -> Service {
        let mut service = Service::spawn(self.command_as(Who::Us), &self.root);
        service.ready();
        service
    }

    /// Runs a service that ends by itself: its exit code and what it said.
    pub fn refused(&self, set: impl FnOnce(&mut Command)) -> (i32, String) {
        self.refused_as(self.who, set)
    }

    /// The same, run by somebody else.
    pub fn refused_as(&self, who: Who, set: impl FnOnce(&mut Command)) -> (i32, String) {
        let mut command = self.command_as(who);
        set(&mut command);
        let mut service = Service::spawn(command, &self.root);
        let status = service.wait();
        (status.code().unwrap_or(-1), service.stderr())
    }

    /// The pid of the running server.
    pub fn postmaster(&self) -> i32 {
        let file = fs::read_to_string(self.cluster().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    /// Who owns the cluster: the account the server runs under.
    pub fn owner(&self) -> (u32, u32) {
        let found = fs::metadata(self.cluster()).unwrap();
        (found.uid(), found.gid())
    }

    /// The processes that work in the cluster.
    pub fn processes(&self) -> Vec<i32> {
        working_in(&self.root)
    }

    /// A command under the cluster's account.
    pub fn as_owner(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if Uid::effective().is_root() {
            let (uid, gid) = self.owner();
            command.uid(uid).gid(gid);
        }
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Not `until`: a panic while panicking would leave the rest.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = working_in(&self.root);
            for pid in &left {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn id_of(who: Who) -> u32 {
    match who {
        Who::Ordinary => User::from_name("nobody").unwrap().expect("an account `nobody`").uid.as_raw(),
        Who::Unknown => 54_321,
        Who::Us | Who::ConfinedRoot => Uid::effective().as_raw(),
    }
}

/// Processes whose working directory is below `root`. Zombies have none.
fn working_in(root: &Path) -> Vec<i32> {
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(root)))
        .filter_map(pid)
        .collect()
}

/// The installed server binaries, for tests that start one by hand.
pub fn postgres_binary() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|dir| dir.join("postgres")).collect::<Vec<_>>())
        .unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    on_path
        .into_iter()
        .chain(debian.map(|entry| entry.path().join("bin/postgres")))
        .find(|path| path.exists())
        .expect("PostgreSQL server binaries: apt-get install postgresql")
}

/// A service, killed at the latest when the test ends.
pub struct Service {
    child: Child,
    stdout: Receiver<String>,
    stderr: PathBuf,
    socket: Option<PathBuf>,
}

impl Service {
    fn spawn(mut command: Command, root: &Path) -> Self {
        let stderr = (0..).map(|n| root.join(format!("stderr-{n}"))).find(|path| !path.exists()).unwrap();
        let file = File::create(&stderr).unwrap();
        // As a shell does it for a job: Ctrl-C goes to this group.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, stdout) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, stdout, stderr, socket: None }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits for the line that says where the socket is.
    pub fn ready(&mut self) {
        let line =
            self.stdout.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("not ready: {}", self.stderr()));
        self.socket = line.strip_prefix("ready ").map(PathBuf::from);
    }

    pub fn socket(&self) -> &Path {
        self.socket.as_deref().expect("ready")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub fn signal_group(&self, signal: Signal) {
        killpg(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        until("the service's end", || self.child.try_wait().unwrap())
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait().code()
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnectOptions::new_without_pgpass()
            .socket(self.socket())
            .port(5432)
            .username("estimatord")
            .database("estimatord")
            .ssl_mode(PgSslMode::Disable)
            .connect()
            .await
            .unwrap()
    }

    /// Commits one more row.
    pub async fn insert(&self, value: i32) {
        let mut connection = self.connect().await;
        sqlx::query("CREATE TABLE IF NOT EXISTS kept (value int)").execute(&mut connection).await.unwrap();
        sqlx::query("INSERT INTO kept VALUES ($1)").bind(value).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// The committed rows.
    pub async fn rows(&self) -> Vec<i32> {
        let mut connection = self.connect().await;
        let rows =
            sqlx::query_scalar("SELECT value FROM kept ORDER BY value").fetch_all(&mut connection).await;
        connection.close().await.unwrap();
        rows.unwrap()
    }

    pub async fn setting(&self, name: &str) -> String {
        let mut connection = self.connect().await;
        sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut connection).await.unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

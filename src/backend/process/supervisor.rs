//! The supervisor: one small process per attempt that starts the script, outlives the service, and says how it
//! ended once nothing of it is left.
//!
//! It is single-threaded and synchronous, keeps no connection to the service once the script runs, and is told what to do by files and
//! SIGTERM. An attempt is started at most once: whoever writes `supervisor.json` under the lock is the only one ever in this life of the
//! machine, and after a restart `launch.json` tells that there was one.

use std::{
    collections::HashSet,
    fs::TryLockError,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use nix::{
    errno::Errno,
    sys::{
        prctl::{set_child_subreaper, set_dumpable},
        resource::{UsageWho, getrusage},
        signal::Signal,
        time::TimeVal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stdout, getpid, setsid},
};

use super::{
    super::{BackendError, Exit, ExitReason},
    begin::{self, Ready},
    confinement,
    container::{ContainerControl, contained},
    descendants, files,
    layout::{self, AttemptDir},
    records::{CancelRequest, Launch, Started, Supervisor},
    signals::Signals,
};
use crate::clock::{Clock as _, SystemClock};

/// What the service says on standard input: that `launch.json` is there, and that it will be there after a restart of the machine too.
/// Before that nothing may begin.
pub(super) const PLANNED: u8 = b'p';
/// See [`PLANNED`].
pub(super) const BEGIN: u8 = b'b';
/// Said by exit code when another supervisor has the attempt.
pub(super) const HELD_BY_ANOTHER: u8 = 75;
/// Between two looks at processes that were killed and are not gone yet.
const KILL_INTERVAL: Duration = Duration::from_millis(20);
/// This program itself, also where its file was replaced since it was started.
pub(super) const OWN_BINARY: &str = "/proc/self/exe";
/// A disk may be full when the script ends; how it ended is worth waiting for.
const EXIT_WRITE_TRIES: u32 = 600;

/// Arguments of the hidden subcommand `supervise`.
#[derive(Debug, clap::Args)]
pub struct Supervise {
    /// The attempt's directory.
    directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum SuperviseError {
    #[error("{action}: {source}")]
    Io { action: &'static str, source: io::Error },
    #[error(transparent)]
    Record(#[from] BackendError),
    #[error("launch.json is missing")]
    NoLaunch,
    #[error("the service ended before it said that the script may begin")]
    Abandoned,
    #[error(
        "told to end by a signal that no cancel request explains: the machine or an operator wants it gone"
    )]
    Interrupted,
    #[error("the container's runtime does not say how the script ended")]
    Unknown,
}

fn during<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> SuperviseError {
    move |error| SuperviseError::Io { action, source: error.into() }
}

/// Runs `supervise` for the attempt in the given directory, until every process of it is gone.
#[must_use]
pub fn supervise(args: Supervise) -> ExitCode {
    match run(&AttemptDir::at(args.directory)) {
        Ok(code) => code,
        Err(error) => {
            // Standard error is `supervisor.log`.
            note(&format!("{error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(directory: &AttemptDir) -> Result<ExitCode, SuperviseError> {
    // Nobody of the same user looks into this process, or attaches to it.
    set_dumpable(false).map_err(during("close this process to others"))?;
    // Fails only when this process leads its group already, and then it is as far from the terminal as wanted.
    let _ = setsid();
    // Making a process takes as long as planning what it is to be.
    let waiting = begin::process();
    if let Err(abandoned) = wait_for(PLANNED)
        && !is_of_older_service(directory)?
    {
        return Err(abandoned);
    }
    let lock = layout::open_lock_file(&directory.lock()).map_err(during("open supervisor.lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(ExitCode::from(HELD_BY_ANOTHER)),
        Err(TryLockError::Error(source)) => {
            return Err(SuperviseError::Io { action: "lock supervisor.lock", source });
        }
    }
    if directory.supervisor().exists() || directory.exit().exists() {
        return Ok(ExitCode::SUCCESS);
    }
    let launch: Launch = layout::read_json(&directory.launch())?.ok_or(SuperviseError::NoLaunch)?;
    let signals = Signals::install().map_err(during("install signal handlers"))?;
    set_child_subreaper(true).map_err(during("become the reaper of orphans"))?;
    let ready = Ready::make(directory, &launch, waiting);
    let give_up = |ready: io::Result<Ready<'_>>| {
        ready.map_or(Ok(()), Ready::give_up).map_err(during("end what waits to become the script"))
    };
    if launch.boot_id.is_some()
        && let Err(abandoned) = wait_for(BEGIN)
    {
        give_up(ready)?;
        return Err(abandoned);
    }
    layout::write_json_whole(&directory.supervisor(), &identify().map_err(during("read /proc"))?)
        .map_err(during("write supervisor.json"))?;
    // The service writes `cancel` before it looks for `supervisor.json`, and here it is the other way round: one of
    // the two always sees what the other wrote.
    if let Some(request) = layout::read_json::<CancelRequest>(&directory.cancel())? {
        give_up(ready)?;
        write_exit(directory, &canceled_before_start(&request))?;
        return Ok(ExitCode::SUCCESS);
    }
    let result = start_and_watch(directory, &launch, ready, &signals);
    if let Some(temporary) = &launch.temporary_directory {
        // What is left there belongs to nobody; failing to remove it changes nothing about the run.
        let _ = files::remove_tree(temporary);
    }
    write_exit(directory, &result?)?;
    // Held until here, so that nobody sees a free lock before `exit.json`.
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

/// Whether a service of an older version started this, whose binary was replaced since: it says nothing, and what it wrote is on the disk.
fn is_of_older_service(directory: &AttemptDir) -> Result<bool, SuperviseError> {
    let launch = layout::read_json::<Launch>(&directory.launch())?;
    Ok(launch.is_some_and(|launch| launch.boot_id.is_none()))
}

/// Waits until the service says this.
fn wait_for(word: u8) -> Result<(), SuperviseError> {
    let mut said = [0];
    match io::stdin().read_exact(&mut said) {
        Ok(()) if said == [word] => Ok(()),
        Ok(()) => Err(SuperviseError::Abandoned),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(SuperviseError::Abandoned),
        Err(source) => Err(SuperviseError::Io { action: "listen to the service", source }),
    }
}

/// Says something in `supervisor.log`, which is standard error. That it cannot be said (the disk may be full, which is when there is
/// something to say) must end nothing: `eprintln!` would panic.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{} {text}", SystemClock.now().to_rfc3339());
}

fn identify() -> io::Result<Supervisor> {
    let pid = getpid().as_raw();
    let own = descendants::find(pid).ok_or_else(|| io::Error::other("this process is not in /proc"))?;
    Ok(Supervisor { pid, start_ticks: own.start_ticks, boot_id: descendants::boot_id()? })
}

/// How an attempt ended that was cancelled before it began.
pub(super) const fn canceled_before_start(request: &CancelRequest) -> Exit {
    Exit {
        reason: ExitReason::Canceled,
        exit_code: None,
        signal: None,
        started_at: None,
        finished_at: request.requested_at,
        cpu_seconds: None,
        peak_memory_bytes: None,
        start_error: None,
        build_error: None,
        remark: None,
    }
}

fn write_exit(directory: &AttemptDir, exit: &Exit) -> Result<(), SuperviseError> {
    for _ in 1..EXIT_WRITE_TRIES {
        match layout::write_json(&directory.exit(), exit) {
            Ok(()) => return Ok(()),
            // The script removed it: no trying brings it back.
            Err(error) if !directory.root().is_dir() => return Err(during("write exit.json")(error)),
            Err(error) => {
                note(&format!("write exit.json, will try again: {error}"));
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
    layout::write_json(&directory.exit(), exit).map_err(during("write exit.json"))
}

fn start_and_watch(
    directory: &AttemptDir,
    launch: &Launch,
    ready: io::Result<Ready<'_>>,
    signals: &Signals,
) -> Result<Exit, SuperviseError> {
    let (main, mut disk) = match ready.and_then(Ready::begin) {
        Ok(begun) => begun,
        Err(error) => {
            return Ok(Exit {
                reason: ExitReason::Exited,
                exit_code: None,
                signal: None,
                started_at: None,
                finished_at: SystemClock.now(),
                cpu_seconds: None,
                peak_memory_bytes: None,
                start_error: Some(format!("cannot start {}: {error}", launch.program.display())),
                build_error: None,
                remark: None,
            });
        }
    };
    let began = Instant::now();
    let started_at = SystemClock.now();
    // Not reaped yet, so it is in /proc even if it has ended.
    let start_ticks = descendants::find(main.as_raw()).map(|process| process.start_ticks);
    let started = Started { pid: main.as_raw(), start_ticks, started_at };
    if let Err(error) = layout::write_json_whole(&directory.started(), &started) {
        // The script runs and how it ends will be known: no reason to end it.
        note(&format!("write started.json: {error}"));
    }
    // The service waits for the end of this process's standard output.
    if let Err(error) = dup2_stdout(io::stderr()) {
        note(&format!("tell the service that the script has begun: {error}"));
    }
    // A duration too long for the clock is none.
    let deadline =
        launch.max_run_duration_seconds.and_then(|seconds| began.checked_add(Duration::from_secs(seconds)));

    let mut tree = Tree { main, user: launch.confinement.user, end: None, empty: false };
    let reason = loop {
        tree.reap().map_err(during("wait for processes"))?;
        if tree.end.is_some() {
            break Some(ExitReason::Exited);
        }
        if signals.terminate() {
            break directory.cancel().exists().then_some(ExitReason::Canceled);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break Some(ExitReason::MaxRunDurationExceeded);
        }
        let is_news = || signals.terminate() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if disk.is_over(is_news) {
            break Some(ExitReason::DiskLimitExceeded);
        }
        let wake = [deadline, disk.next_look()].into_iter().flatten().min();
        signals.wait(wake).map_err(during("wait for a signal"))?;
    };
    let grace = match reason {
        Some(ExitReason::Exited) => launch.leftovers_grace(),
        _ => launch.cancel_grace(),
    };
    tree.end_all(signals, grace).map_err(during("end the processes"))?;
    if let Some(container) = &launch.container {
        end_container(container);
    }
    // Without a reason there is no `exit.json`: the attempt will be found lost, which is what it is.
    let reason = reason.ok_or(SuperviseError::Interrupted)?;
    let exit = exit(reason, tree.end, started_at);
    let remark = disk.into_remark().or_else(|| cut_short(launch, exit.signal));
    let exit = Exit { remark, ..exit };
    match &launch.container {
        Some(container) => contained::exit(exit, container, &launch.log).ok_or(SuperviseError::Unknown),
        None => Ok(exit),
    }
}

/// The program that was started is only the container's messenger. Nothing is written before the container is gone,
/// however long its runtime takes to say so.
fn end_container(container: &ContainerControl) {
    while let Err(error) = container.end() {
        note(&format!("{error}"));
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn exit(reason: ExitReason, end: Option<WaitStatus>, started_at: DateTime<Utc>) -> Exit {
    let (exit_code, signal) = match end {
        Some(WaitStatus::Exited(_, code)) => (Some(code), None),
        Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
        _ => (None, None),
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
    Exit {
        reason,
        exit_code,
        signal,
        started_at: Some(started_at),
        // The wall clock may have been set back meanwhile.
        finished_at: SystemClock.now().max(started_at),
        cpu_seconds: usage.map(|usage| seconds(usage.user_time()) + seconds(usage.system_time())),
        // The kernel counts in KiB.
        peak_memory_bytes: usage.and_then(|usage| u64::try_from(usage.max_rss()).ok()?.checked_mul(1024)),
        start_error: None,
        build_error: None,
        remark: None,
    }
}

fn seconds(time: TimeVal) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds of processor time fit a double many times over")]
    let value = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    value
}

/// What the script's signal tells of a limit.
fn cut_short(launch: &Launch, signal: Option<i32>) -> Option<String> {
    let bytes = launch.confinement.limits.file_bytes?;
    (signal == Some(Signal::SIGXFSZ as i32)).then(|| {
        format!("a file would have become larger than the {bytes} bytes that --run-file-bytes allows")
    })
}

/// Everything that descends from the supervisor.
struct Tree {
    /// The process that was started.
    main: Pid,
    /// The user that nobody else has, where there is one.
    user: Option<u32>,
    /// How it ended.
    end: Option<WaitStatus>,
    /// Whether nothing is left: as the reaper of orphans the supervisor has no descendants once it has no children.
    empty: bool,
}

impl Tree {
    /// Takes note of every child that has ended.
    fn reap(&mut self) -> nix::Result<()> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return Ok(()),
                Ok(status) if status.pid() == Some(self.main) => self.end = Some(status),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => {
                    self.empty = true;
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// TERM to all, grace, KILL to all, until nothing is left.
    fn end_all(&mut self, signals: &Signals, grace: Duration) -> io::Result<()> {
        let own = getpid().as_raw();
        let mut told = HashSet::new();
        let kill_at = Instant::now().checked_add(grace);
        loop {
            self.reap()?;
            if self.empty {
                self.sweep();
                return Ok(());
            }
            if kill_at.is_some_and(|at| Instant::now() >= at) {
                break;
            }
            // Looked up again after every death: a dying process may leave new ones.
            for process in descendants::of(own)? {
                if told.insert(process) {
                    report(descendants::signal(process, Signal::SIGTERM), process);
                    // A stopped process would never hear it.
                    report(descendants::signal(process, Signal::SIGCONT), process);
                }
            }
            signals.wait(kill_at)?;
        }
        loop {
            self.sweep();
            for process in descendants::of(own)? {
                report(descendants::signal(process, Signal::SIGKILL), process);
            }
            // What was forked between the look and the signal is found the next time round.
            signals.wait(Instant::now().checked_add(KILL_INTERVAL))?;
            self.reap()?;
            if self.empty {
                self.sweep();
                return Ok(());
            }
        }
    }

    /// Ends whatever the script's user still has, wherever it hides: by descent all of it is ours, by its user it is beyond doubt.
    fn sweep(&self) {
        let Some(user) = self.user else { return };
        loop {
            match confinement::end_all(Path::new(OWN_BINARY), user) {
                Ok(0) => break,
                Ok(left) => note(&format!("{left} processes of user {user} were killed")),
                Err(error) => {
                    note(&format!("end the processes of user {user}, will try again: {error}"));
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
        if let Err(error) = confinement::remove_left_files(user) {
            note(&format!("remove what user {user} left in everybody's directories: {error}"));
        }
    }
}

/// A process that cannot be signalled (it changed its user) is waited for like the others.
fn report(result: io::Result<()>, process: descendants::Process) {
    if let Err(error) = result {
        note(&format!("signal {}: {error}", process.pid));
    }
}

//! Running the installer: output into logs as it comes, a time limit, and nothing left running.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::Path,
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, time::Instant};

use super::{
    super::{container::ContainerControl, layout},
    account::Account,
    workshop::{Installer, Parts},
};
use crate::domain::{rules::grammar::pip, secret::Secret};

/// How much of a command's output is kept to explain a failure.
const KEPT_OUTPUT: usize = 64 * 1024;
/// How long the end of a container is waited for when its command is given up.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest explanation.
const MESSAGE_LIMIT: usize = 2000;
/// How many lines are shown of output that names no error.
const UNEXPLAINED_LINES: usize = 20;

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// Where the output of a build goes, without the passwords in it.
pub(in super::super) struct BuildLog {
    files: Vec<File>,
    secrets: Vec<String>,
    /// The beginning of a line: a password may come in two pieces.
    begun: Vec<u8>,
}

impl Drop for BuildLog {
    fn drop(&mut self) {
        // Whoever waits for the command to end has been told already when the log cannot be written.
        let _ = self.flush();
    }
}

impl BuildLog {
    pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { files: vec![layout::open_log(path)?], secrets: Vec::new(), begun: Vec::new() })
    }

    /// Also writes to a second file, emptied first: there others find what happened.
    pub(in super::super) fn also(&self, path: &Path) -> io::Result<Self> {
        let mut files = self.files.iter().map(File::try_clone).collect::<io::Result<Vec<_>>>()?;
        let options = &mut File::options();
        // Beside environments that every user of a run can reach; it may name what others install.
        files.push(options.create(true).write(true).truncate(true).mode(0o600).open(path)?);
        Ok(Self { files, secrets: self.secrets.clone(), begun: Vec::new() })
    }

    /// Hides a text wherever it comes up, besides the passwords in addresses.
    pub(in super::super) fn hide(&mut self, secret: &Secret) {
        let lines = secret.expose().lines().filter(|line| !line.is_empty());
        self.secrets.extend(lines.map(str::to_owned));
    }

    /// A text without what is hidden.
    pub(super) fn masked(&self, text: &str) -> String {
        let text = pip::without_credentials(text);
        self.secrets.iter().fold(text, |text, secret| text.replace(secret, HIDDEN))
    }

    pub(in super::super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Takes output as it comes, and writes it when its line is whole.
    pub(in super::super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.begun.extend_from_slice(bytes);
        let whole =
            self.begun.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map_or(0, |end| end + 1);
        // What has no lines is not kept for ever.
        let whole = if self.begun.len() - whole > KEPT_OUTPUT { self.begun.len() } else { whole };
        let rest = self.begun.split_off(whole);
        self.flush()?;
        self.begun = rest;
        Ok(())
    }

    /// Writes what has no end of a line yet.
    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.begun);
        let written = self.masked(&String::from_utf8_lossy(&bytes));
        self.files.iter_mut().try_for_each(|file| file.write_all(written.as_bytes()))
    }
}

/// Why a command gave no result.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum CommandError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Failed(String),
    #[error("not finished in time: stopped")]
    TimedOut,
}

/// Kills a process group when it goes out of scope: also when the future that waits is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Gone already is as good.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// Ends a container when it goes out of scope: it does not end with the program that started it.
struct Contained(Option<ContainerControl>);

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(container) = self.0.take() {
            // Waited for, because whoever gets the lock next writes to the same place; but not for ever. When it cannot be
            // ended, the one who builds there next is told.
            let (sender, ended) = std::sync::mpsc::channel();
            std::thread::spawn(move || sender.send(container.end().is_ok()));
            let _ = ended.recv_timeout(END_TIMEOUT);
        }
    }
}

/// Ends what an account has running when it goes out of scope.
struct OfAccount(Option<Account>);

impl Drop for OfAccount {
    fn drop(&mut self) {
        if let Some(account) = self.0.take() {
            account.end_soon();
        }
    }
}

/// Runs a command to its end, output into the log. The command, and what it starts, holds `lock` open, so that
/// the lock is not free before all of them are gone, even if this service is killed; unless it is confined.
pub(in super::super) async fn run(
    installer: impl Into<Installer>,
    lock: &File,
    log: &mut BuildLog,
    deadline: Instant,
) -> Result<String, CommandError> {
    let Parts { mut command, container, account } = installer.into().into_parts();
    // A package that has the lock in hand can let go of it, and write to it. Who is not to be trusted with it has an end that is
    // certain: all of its user's processes, or a place that Landlock forgets.
    let mut lock = Some(lock);
    if let Some(account) = account.as_ref().filter(|account| account.is_confined()) {
        command = account.command(command.as_std())?;
        lock = None;
    }
    let mut of_account = OfAccount(account);
    if let Some(container) = container.clone() {
        tokio::task::spawn_blocking(move || container.end())
            .await
            .map_err(io::Error::other)?
            .map_err(|error| CommandError::Failed(error.to_string()))?;
    }
    let mut contained = Contained(container);
    let (reader, writer) = io::pipe()?;
    let reader = OwnedFd::from(reader);
    let stdin = match lock {
        Some(lock) => Stdio::from(lock.try_clone()?),
        None => Stdio::null(),
    };
    command.stdin(stdin).stdout(writer.try_clone()?).stderr(writer);
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn()?;
    // With it goes our copy of the writing end: the end of the output can be seen.
    drop(command);
    let group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw));
    let mut output = pipe::Receiver::from_owned_fd(reader)?;
    let mut kept = Vec::new();
    let read = async {
        let mut buffer = vec![0; 8192];
        loop {
            let count = output.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<_, io::Error>(());
            }
            log.bytes(&buffer[..count])?;
            kept.extend_from_slice(&buffer[..count]);
            if kept.len() > 2 * KEPT_OUTPUT {
                kept.drain(..kept.len() - KEPT_OUTPUT);
            }
        }
    };
    let status = tokio::time::timeout_at(deadline, async {
        let ((), status) = tokio::try_join!(read, child.wait())?;
        Ok::<_, io::Error>(status)
    })
    .await
    .map_err(|_| CommandError::TimedOut)??;
    drop(group);
    // It was removed when it ended.
    contained.0 = None;
    if let Some(account) = of_account.0.take() {
        // What has got away from the group is not left either.
        tokio::task::spawn_blocking(move || account.end()).await.map_err(io::Error::other)??;
    }
    let text = String::from_utf8_lossy(&kept).into_owned();
    log.flush()?;
    if status.success() { Ok(text) } else { Err(CommandError::Failed(meaningful(&log.masked(&text)))) }
}

/// What a person needs of an installer's output: from the first complaint to the end, without the drawing.
pub(super) fn meaningful(output: &str) -> String {
    let lines: Vec<(&str, &str)> = output
        .lines()
        .map(|line| (line, line.trim_start_matches([' ', '×', '╰', '├', '─', '▶', '│']).trim_end()))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    let complains = |line: &str| {
        line.trim_start().starts_with('×') || line.starts_with("error:") || line.starts_with("ERROR")
    };
    let from = lines
        .iter()
        .position(|(line, _)| complains(line))
        .unwrap_or_else(|| lines.len().saturating_sub(UNEXPLAINED_LINES));
    let text = lines[from..].iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n");
    if text.is_empty() {
        return "the installer failed without saying why".to_owned();
    }
    shorten(&text)
}

/// Begin and end, when it is too long for both.
fn shorten(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= MESSAGE_LIMIT {
        return text.to_owned();
    }
    let half = MESSAGE_LIMIT / 2;
    let start: String = characters[..half].iter().collect();
    let end: String = characters[characters.len() - half..].iter().collect();
    format!("{start}\n… (the build log has all of it) …\n{end}")
}

/// The instant at which a build that begins now has taken too long.
pub(super) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    // Too far for the clock is as good as a year.
    now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    #[test]
    fn the_complaint_is_kept_and_the_drawing_left_out() {
        let output =
            "Using CPython 3.11\nResolved nothing\n  × No solution found:\n  ╰─▶ Because a is missing, no.\n";
        assert_eq!(meaningful(output), "No solution found:\nBecause a is missing, no.");
        assert_eq!(meaningful("a\n\nerror: broken\n  caused by b\n"), "error: broken\ncaused by b");
        assert_eq!(meaningful("just this\n"), "just this");
        assert_eq!(meaningful(""), "the installer failed without saying why");
    }

    #[test]
    fn a_long_complaint_keeps_both_ends() {
        let text = format!("error: {}ä{}the end", "x".repeat(3000), "y".repeat(3000));
        let short = meaningful(&text);
        assert!(short.starts_with("error: ") && short.ends_with("the end") && short.chars().count() < 2100);
    }

    #[tokio::test]
    async fn output_is_logged_and_time_is_limited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let lock = layout::open_lock_file(&directory.path().join("lock")).unwrap();
        let mut log = BuildLog::open(&path).unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let far = deadline(Duration::from_secs(60));
        let out = run(shell("echo out; echo err >&2"), &lock, &mut log, far).await.unwrap();
        assert_eq!(out, "out\nerr\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "out\nerr\n");
        let failed = run(shell("echo error: no; exit 3"), &lock, &mut log, far).await.unwrap_err();
        assert_eq!(failed.to_string(), "error: no");
        // The background process holds the output open: only killing the whole group ends this.
        let soon = deadline(Duration::from_millis(100));
        let late = run(shell("sleep 600 & sleep 600"), &lock, &mut log, soon).await;
        assert!(matches!(late, Err(CommandError::TimedOut)));
    }

    #[tokio::test]
    async fn passwords_are_neither_in_the_log_nor_in_the_message() {
        let directory = tempfile::tempdir().unwrap();
        let (path, second) = (directory.path().join("log"), directory.path().join("second"));
        let lock = layout::open_lock_file(&directory.path().join("lock")).unwrap();
        let mut log = BuildLog::open(&path).unwrap();
        log.hide(&Secret::new("of-the-registry".to_owned()));
        let mut log = log.also(&second).unwrap();
        let mut command = Command::new("/bin/sh");
        // The second one comes in two pieces.
        let script = "echo got https://user:SECRET@host/x.whl and of-the-registry >&2; printf 'error: https://u:SEC'; \
            sleep 0.3; printf 'RET@host'; exit 1";
        command.args(["-c", script]);
        let far = deadline(Duration::from_secs(60));
        let failed = run(command, &lock, &mut log, far).await.unwrap_err();
        assert_eq!(failed.to_string(), "error: https://***@host");
        for log in [path, second] {
            let expected = "got https://***@host/x.whl and ***\nerror: https://***@host";
            assert_eq!(std::fs::read_to_string(log).unwrap(), expected);
        }
        assert_eq!(log.masked("https://a:b@c of-the-registry"), "https://***@c ***");
    }
}

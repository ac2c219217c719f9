//! What a program that a definition names says when it is asked something, within the confinement of the run: it may be a file of
//! the source tree.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{Confinement, Program, enter::start, sweep::end_all};

/// Between two looks whether it has answered.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// More than this nobody asked for.
const LONGEST_ANSWER: u64 = 1 << 20;

/// What a program writes to standard output, when it ends with exit code 0 in time; `None` when it does not. Nothing of it is left
/// afterwards.
pub(in super::super) async fn output(
    own: &Path,
    confinement: Confinement,
    program: Program,
    patience: Duration,
) -> io::Result<Option<String>> {
    let own = own.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let answer = ask(&own, &confinement, program, patience);
        // Whatever it left behind would be there when the run's directories are filled.
        let ended = confinement.user.map_or(Ok(0), |user| end_all(&own, user));
        ended.and(answer)
    });
    asked.await.map_err(io::Error::other)?
}

fn ask(
    own: &Path,
    confinement: &Confinement,
    program: Program,
    patience: Duration,
) -> io::Result<Option<String>> {
    // A file and no pipe: whoever keeps a pipe open is waited for.
    let mut answer = tempfile::tempfile()?;
    let output = answer.try_clone()?;
    let mut child = start(own, confinement, program, |command| {
        command.stdout(Stdio::from(output)).stderr(Stdio::null()).process_group(0).current_dir("/");
    })?;
    let give_up = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= give_up {
            break None;
        }
        std::thread::sleep(LOOK_INTERVAL);
    };
    if let Ok(pid) = i32::try_from(child.id()) {
        // What it started is asked nothing; gone already is as good.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let Some(status) = status else {
        child.wait()?;
        return Ok(None);
    };
    if status.success() { read(&mut answer).map(Some) } else { Ok(None) }
}

fn read(answer: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    answer.rewind()?;
    answer.take(LONGEST_ANSWER).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

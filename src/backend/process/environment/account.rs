//! As whom packages are built. Building runs their code: it must get at no more than the run that wants them.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::process::Command;

use super::super::{
    confinement::{self, Confinement, Limits, Places, Program},
    descendants,
};

/// How long the end of what was given up is waited for.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two looks for processes that were killed.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How the processes of a build are known: by a variable that all of them have.
const MARK: &str = "ESTIMATORD_BUILD";

/// The account that builds for one attempt, and what it is kept within.
#[derive(Clone, Debug)]
pub(super) struct Account {
    own_binary: PathBuf,
    data_dir: PathBuf,
    confinement: Confinement,
    mark: String,
    temporary: PathBuf,
}

impl Account {
    /// The user of an attempt, which may write in `temporary` and in what it is given. With Landlock it reads `read` and what every
    /// program needs; without a user it is the service's own.
    pub(super) fn new(
        own_binary: &Path,
        data_dir: &Path,
        user: Option<u32>,
        temporary: &Path,
        read: Option<Vec<PathBuf>>,
    ) -> io::Result<Self> {
        let places = read.map(|read| Places { read, write: vec![temporary.to_owned()] });
        // What runs may take is measured by what scripts need; compilers need more.
        let confinement = Confinement { user, limits: Limits::default(), places };
        let (own_binary, data_dir) = (own_binary.to_owned(), data_dir.to_owned());
        // Its name is random, and of this build alone.
        let mark = temporary.to_string_lossy().into_owned();
        let account = Self { own_binary, data_dir, confinement, mark, temporary: temporary.to_owned() };
        if user.is_some() {
            // What a service that was killed had building for the attempt. Without a user it cannot be told by the new mark.
            account.end()?;
        }
        account.give(temporary)?;
        Ok(account)
    }

    /// Whether it is kept from anything that the service may do.
    pub(super) const fn is_confined(&self) -> bool {
        self.confinement.user.is_some() || self.confinement.places.is_some()
    }

    /// The variable by which its processes are known.
    pub(super) fn mark(&self) -> (String, String) {
        (MARK.to_owned(), self.mark.clone())
    }

    /// Where installers keep what they fetch. Of one that is confined it is its own, for this build alone: what is built by one must
    /// not be taken by another for what an index has.
    pub(super) fn cache(&self, name: &str) -> PathBuf {
        let shared = self.data_dir.join("cache");
        if self.is_confined() { self.temporary.join("cache").join(name) } else { shared.join(name) }
    }

    /// Lets it also read these, where that is restricted.
    pub(super) fn reading(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        if let Some(places) = &mut self.confinement.places {
            places.read.extend(paths.into_iter().filter(|path| path.exists() && path.parent().is_some()));
        }
        self
    }

    /// Lets it also write in a directory, where that is restricted.
    pub(super) fn writing(mut self, directory: &Path) -> Self {
        if let Some(places) = &mut self.confinement.places {
            places.write.push(directory.to_owned());
        }
        self
    }

    /// The command, as this account runs it, where it is confined.
    pub(super) fn command(&self, command: &process::Command) -> io::Result<Command> {
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let variables = command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?))));
        let program = Program {
            path: command.get_program().into(),
            arguments: command.get_args().map(text).collect(),
            environment: variables.collect(),
        };
        let mut wrapped = confinement::order(&self.own_binary, &self.confinement, program)?;
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        wrapped.arg0("estimatord");
        Ok(wrapped.into())
    }

    /// Gives it a directory with all that is in there. Nothing in there may be anybody else's.
    pub(super) fn give(&self, directory: &Path) -> io::Result<()> {
        let Some(user) = self.confinement.user else { return Ok(()) };
        confinement::open_way(&self.data_dir, directory)?;
        confinement::give(directory, user)
    }

    /// Takes a directory back, and ends whatever could still change it.
    pub(super) fn take_back(&self, directory: &Path) -> io::Result<()> {
        self.end()?;
        if self.confinement.user.is_some() { confinement::take_back(directory) } else { Ok(()) }
    }

    /// What a program of the environment says; none when it fails or takes too long.
    pub(super) async fn ask(
        &self,
        program: &Path,
        arguments: &[&str],
        variables: &[(String, String)],
        patience: Duration,
    ) -> io::Result<Option<String>> {
        let program = Program {
            path: program.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: variables.to_vec(),
        };
        confinement::output(&self.own_binary, self.confinement.clone(), program, patience).await
    }

    /// Ends all of its processes: those of its user, else those that can be told to be of this build.
    pub(super) fn end(&self) -> io::Result<()> {
        if let Some(user) = self.confinement.user {
            return confinement::end_all(&self.own_binary, user).map(drop);
        }
        let entry = format!("{MARK}={}", self.mark);
        let mut empty = 0;
        let give_up = Instant::now() + END_TIMEOUT;
        // Twice in a row: a process may slip past one look by forking during it.
        while empty < 2 {
            let found = descendants::living(|pid| {
                descendants::carries(pid, &entry) || descendants::works_in(pid, &self.temporary)
            })?;
            if found.is_empty() {
                empty += 1;
                continue;
            }
            empty = 0;
            if Instant::now() >= give_up {
                let text = "processes of a build were killed and are still there";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            for process in found {
                descendants::signal(process, Signal::SIGKILL)?;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// The same for who cannot wait for ever.
    pub(super) fn end_soon(self) {
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(self.end().is_ok()));
        // What goes on is ended with the attempt.
        let _ = ended.recv_timeout(END_TIMEOUT);
    }
}

/// Reads what a build wrote: a file, and not a link to somebody else's.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        let text = format!("{} is not the file that the installer writes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    fs::read_to_string(path)
}

//! Starting the script itself. What takes time is done before it is known whether it may begin.

use std::{
    io,
    os::unix::{fs::lchown, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::unistd::Pid;

use super::{
    confinement::{self, Program, Standing, Waiting},
    disk_watch::DiskWatch,
    layout::{self, AttemptDir},
    records::Launch,
    supervisor::OWN_BINARY,
};

/// A process that becomes the script, once it is known what that is.
pub(super) fn process() -> io::Result<Waiting> {
    Waiting::start(Path::new(OWN_BINARY), |command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // A script that signals its own group must not hit the supervisor.
        command.process_group(0);
    })
}

/// A script that can begin at once.
pub(super) struct Ready<'a> {
    launch: &'a Launch,
    disk: DiskWatch<'a>,
    waiting: Waiting,
}

impl<'a> Ready<'a> {
    /// Makes everything ready, and gives the script's user what is to be its own. There is no process of that user yet. The lock of
    /// the attempt must be held: what runs would be ended.
    pub(super) fn make(
        directory: &'a AttemptDir,
        launch: &'a Launch,
        waiting: io::Result<Waiting>,
    ) -> io::Result<Self> {
        let waiting = waiting?;
        if let Some(user) = launch.confinement.user
            && let Err(error) = hand_over(directory, user)
        {
            waiting.dismiss()?;
            return Err(io::Error::new(error.kind(), format!("give its files to user {user}: {error}")));
        }
        // Before the script can write anything.
        let disk = DiskWatch::new(directory.root(), &launch.confinement);
        Ok(Self { launch, disk, waiting })
    }

    /// It is not to begin.
    pub(super) fn give_up(self) -> io::Result<()> {
        self.waiting.dismiss()
    }

    /// Begins. Whoever supervises waits for it as for every other child.
    pub(super) fn begin(self) -> io::Result<(Pid, DiskWatch<'a>)> {
        let Self { launch, disk, waiting } = self;
        if let Err(error) = make_temporary(launch) {
            waiting.dismiss()?;
            return Err(error);
        }
        let child = match &launch.container {
            Some(_) => {
                waiting.dismiss()?;
                start_runtime(launch)?
            }
            None => {
                let program = Program {
                    path: launch.program.clone(),
                    arguments: launch.arguments.clone(),
                    environment: launch.environment.clone(),
                };
                let (directory, log) = (launch.working_directory.clone(), launch.log.clone());
                waiting.becomes(&launch.confinement, program, Some(Standing { directory, log }))?
            }
        };
        Ok((i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?, disk))
    }
}

/// Gives a script's user what is to be its own.
fn hand_over(directory: &AttemptDir, user: u32) -> io::Result<()> {
    confinement::end_all(Path::new(OWN_BINARY), user)?;
    confinement::take_over(directory, user)
}

fn make_temporary(launch: &Launch) -> io::Result<()> {
    let Some(temporary) = &launch.temporary_directory else { return Ok(()) };
    layout::create_private_dir(temporary)?;
    lchown(temporary, launch.confinement.user, launch.confinement.user)
}

/// Starts the program of a container's runtime, which confines by its own means.
fn start_runtime(launch: &Launch) -> io::Result<Child> {
    let output = layout::open_log(&launch.log)?;
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).env_clear().envs(launch.environment.iter().cloned());
    command.current_dir(&launch.working_directory).stdin(Stdio::null());
    command.stderr(output.try_clone()?).stdout(output).process_group(0);
    command.spawn()
}

//! Starting a program within a confinement.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{
    Confinement, Program,
    apply::{ORDER, Order, Standing},
};

/// Starts a program within a confinement by way of `own` binary; `set_up` says where its output goes and the like. The process that
/// is started is the one that becomes the program.
///
/// # Errors
/// When it cannot be started, in the words of whoever could not.
pub(super) fn start(
    own: &Path,
    confinement: &Confinement,
    program: Program,
    set_up: impl FnOnce(&mut Command),
) -> io::Result<Child> {
    Waiting::start(own, set_up)?.becomes(confinement, program, None)
}

/// A command that starts a program within a confinement, for who wants to start it himself: what it is told comes in the environment,
/// which nobody but the service reads and which is gone when the program begins.
pub(in super::super) fn order(
    own: &Path,
    confinement: &Confinement,
    program: Program,
) -> io::Result<Command> {
    let order = Order::Become { confinement: Box::new(confinement.clone()), program, standing: None };
    let mut command = Command::new(own);
    command.arg("confine").env_clear().env(ORDER, serde_json::to_string(&order)?);
    Ok(command)
}

/// Gives an order to a new process, which is `own` binary, and waits until it is obeyed. Answers what it says of why it could not.
pub(super) fn give(
    own: &Path,
    order: &Order,
    set_up: impl FnOnce(&mut Command),
) -> io::Result<(Child, String)> {
    Waiting::start(own, set_up)?.obeys(order)
}

/// A process that waits for its order.
pub(in super::super) struct Waiting {
    child: Child,
    ours: UnixStream,
}

impl Waiting {
    /// Starts one, which is `own` binary; `set_up` says where its output goes and the like.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(in super::super) fn start(own: &Path, set_up: impl FnOnce(&mut Command)) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(own);
        set_up(&mut command);
        command.arg0("estimatord").arg("confine").env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
        // With the command goes what this side has of theirs: it would wait for itself.
        Ok(Self { child: command.spawn()?, ours })
    }

    /// Has it become a program within a confinement, and stand there where it does not already.
    ///
    /// # Errors
    /// When it cannot, in its own words.
    pub(in super::super) fn becomes(
        self,
        confinement: &Confinement,
        program: Program,
        standing: Option<Standing>,
    ) -> io::Result<Child> {
        let order = Order::Become { confinement: Box::new(confinement.clone()), program, standing };
        let (mut child, said) = self.obeys(&order)?;
        if said.is_empty() {
            return Ok(child);
        }
        child.wait()?;
        Err(io::Error::other(said))
    }

    /// Has it end without one.
    ///
    /// # Errors
    /// When nobody can say whether it has.
    pub(in super::super) fn dismiss(self) -> io::Result<()> {
        let Self { mut child, ours } = self;
        drop(ours);
        child.wait().map(drop)
    }

    /// Gives it the order, and waits until it is obeyed. Answers what it says of why it could not.
    fn obeys(self, order: &Order) -> io::Result<(Child, String)> {
        let Self { mut child, mut ours } = self;
        let told = ours.write_all(&serde_json::to_vec(order)?).and_then(|()| ours.shutdown(Shutdown::Write));
        let mut said = String::new();
        let heard = ours.read_to_string(&mut said);
        match (told, heard) {
            // What it says explains more than that it did not listen.
            (_, Ok(_)) if !said.is_empty() => Ok((child, said)),
            (Ok(()), Ok(_)) => Ok((child, said)),
            (Err(error), _) | (_, Err(error)) => {
                // It obeyed nothing: what it does with half an order is to end.
                let status = child.wait()?;
                Err(io::Error::new(
                    error.kind(),
                    format!("it ended before it was told what to do ({status}): {error}"),
                ))
            }
        }
    }
}

//! What has become of an attempt, as its records and the processes of this machine tell.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{
    super::{Attempt, BackendError, Exit, Observation},
    ProcessBackend, descendants, layout,
    layout::AttemptDir,
    leftovers,
    records::{Begun, CancelRequest, Loss, Started, Supervisor},
    supervisor, this_boot,
};
use crate::clock::{Clock as _, SystemClock};

/// How long after the grace of a cancel a supervisor may be found stopped.
const STOPPED_PATIENCE: Duration = Duration::from_secs(5);

impl ProcessBackend {
    /// What has become of an attempt.
    pub(super) async fn look_at(&self, attempt: &Attempt) -> Result<Observation, BackendError> {
        let directory = self.directory(attempt);
        if let Some(exit) = layout::read_json::<Exit>(&directory.exit())? {
            return Ok(Observation::Exited(exit));
        }
        if let Some(loss) = layout::read_json::<Loss>(&directory.lost())? {
            return Ok(Observation::Lost { detail: loss.detail });
        }
        let boot = this_boot()?;
        let has_launch = match Begun::of(&directory, &boot)? {
            Begun::BeforeRestart(_) => return self.lost_by_restart(attempt, &directory).await,
            Begun::No => false,
            Begun::Now(_) => true,
        };
        let Some(supervisor) = layout::read_json::<Supervisor>(&directory.supervisor())? else {
            return self.observe_without_record(attempt, &directory, has_launch).await;
        };
        if Self::supervisor_is_alive(&directory)? {
            let process =
                descendants::Process { pid: supervisor.pid, parent: 0, start_ticks: supervisor.start_ticks };
            self.keep_going(&directory, process)?;
            return alive(&directory);
        }
        // It may have written this and gone after the first look.
        if let Some(exit) = layout::read_json::<Exit>(&directory.exit())? {
            return Ok(Observation::Exited(exit));
        }
        let killed =
            leftovers::end(&self.settings.supervisor, attempt, &directory, Some(&supervisor)).await?;
        let when = if supervisor.boot_id == boot {
            "ended without saying how the run went"
        } else {
            "is gone since the machine was restarted"
        };
        let pid = supervisor.pid;
        lost(
            &directory,
            format!("its supervisor (pid {pid}) {when}; {killed} processes were left and killed"),
        )
    }

    /// What there is of an attempt whose `supervisor.json` is missing: nothing yet, or what a script has left of it.
    async fn observe_without_record(
        &self,
        attempt: &Attempt,
        directory: &AttemptDir,
        has_launch: bool,
    ) -> Result<Observation, BackendError> {
        let failed = |source| BackendError::Io { action: "look for a supervisor".to_owned(), source };
        // Without a directory there is nothing that its supervisor could say: what is left is ended below.
        if has_launch && descendants::supervisor_of(directory.root()).map_err(failed)?.is_some() {
            return alive(directory);
        }
        // It may have written this and gone between the two looks.
        if let Some(exit) = layout::read_json::<Exit>(&directory.exit())? {
            return Ok(Observation::Exited(exit));
        }
        let was_started = directory.started().exists();
        // Without the record that precedes a supervisor none can be on the way: what there is has lost its directory.
        let killed = if has_launch && !was_started {
            0
        } else {
            leftovers::end(&self.settings.supervisor, attempt, directory, None).await?
        };
        if was_started {
            let detail = format!(
                "its supervisor and the record of it are gone; {killed} processes were left and killed"
            );
            return lost(directory, detail);
        }
        if killed > 0 {
            return lost(
                directory,
                format!("its directory was removed; {killed} processes were left and killed"),
            );
        }
        // A supervisor that is only beginning sees the request too, and ends the same way.
        let request = layout::read_json::<CancelRequest>(&directory.cancel())?;
        Ok(request.map_or(Observation::NotFound, |request| {
            Observation::Exited(supervisor::canceled_before_start(&request))
        }))
    }

    /// What there is of an attempt that was begun before the machine was restarted: a container at most.
    async fn lost_by_restart(
        &self,
        attempt: &Attempt,
        directory: &AttemptDir,
    ) -> Result<Observation, BackendError> {
        leftovers::end(&self.settings.supervisor, attempt, directory, None).await?;
        lost(directory, "the machine was restarted, and with it went the run's processes".to_owned())
    }

    /// Continues a supervisor that somebody stopped: it could keep no time and hear of no cancel. One that is stopped again and again
    /// until long after a cancel is killed; what it leaves is ended by the next look.
    fn keep_going(
        &self,
        directory: &AttemptDir,
        supervisor: descendants::Process,
    ) -> Result<(), BackendError> {
        if !descendants::is_stopped(supervisor.pid) {
            return Ok(());
        }
        let request = layout::read_json::<CancelRequest>(&directory.cancel())?;
        let patience = self.settings.cancel_grace.saturating_mul(2).saturating_add(STOPPED_PATIENCE);
        let is_overdue = request.is_some_and(|request| {
            (SystemClock.now() - request.requested_at).to_std().is_ok_and(|since| since > patience)
        });
        let signal = if is_overdue { Signal::SIGKILL } else { Signal::SIGCONT };
        descendants::signal(supervisor, signal).map_err(|source| BackendError::Io {
            action: format!("continue the supervisor of {}", directory.root().display()),
            source,
        })
    }

    fn supervisor_is_alive(directory: &AttemptDir) -> Result<bool, BackendError> {
        layout::is_locked(&directory.lock()).map_err(|source| BackendError::Io {
            action: format!("look at {}", directory.lock().display()),
            source,
        })
    }
}

/// How far an attempt is whose supervisor lives.
fn alive(directory: &AttemptDir) -> Result<Observation, BackendError> {
    let started = layout::read_json::<Started>(&directory.started())?;
    Ok(started
        .map_or(Observation::Starting, |started| Observation::Running { started_at: started.started_at }))
}

/// Says that an attempt is lost, now and whenever it is asked again.
fn lost(directory: &AttemptDir, detail: String) -> Result<Observation, BackendError> {
    let loss = Loss { detail };
    layout::create_private_dir(directory.root())
        .and_then(|()| layout::write_json(&directory.lost(), &loss))
        .map_err(|source| BackendError::Io { action: "write lost.json".to_owned(), source })?;
    Ok(Observation::Lost { detail: loss.detail })
}

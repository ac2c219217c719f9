//! What goes to the pods, and what comes back from them.

use std::{fs, io, path::PathBuf, sync::PoisonError};

use tokio::task::spawn_blocking;

use super::{
    super::{
        Attempt, AttemptFile, Observation, StagingArea,
        process::{
            files,
            layout::{self, BUILD_LOG, STD_LOG},
            script_module,
        },
    },
    KubernetesBackend, Reached, kind,
    logs::Log,
    pod::{pack_bundle, unpack_returned},
};
use crate::domain::{
    kubernetes::{Kind, PACKAGES, SCRIPT, SeenPod, WORKER, is_worker, object_name},
    staging::{Place, Root},
};

/// Where the module for scripts is, below the pods' home.
pub(super) const MODULE: &str = "azureml";

/// What came back, below the attempt's directory.
const RETURNED: &str = "returned";

impl KubernetesBackend {
    /// Packs source tree and data into the artifact store, unless they are there.
    pub(super) async fn pack(&self, attempt: &Attempt) -> io::Result<()> {
        let (run, number) = (attempt.run_id, attempt.number);
        if self.artifacts.has_bundle(run, number).await.map_err(io::Error::other)? {
            return Ok(());
        }
        let directory = self.files.directory(attempt);
        if !directory.work().is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the attempt was not prepared on this worker",
            ));
        }
        let site = script_module::place(&self.files.settings().data_dir)?;
        let module = site.parent().unwrap_or(&site).to_owned();
        let scratch = layout::scratch(&self.files.settings().data_dir)?;
        let tar = spawn_blocking(move || {
            let home = [("data", directory.data()), ("records", directory.records()), (MODULE, module)];
            pack_bundle(&directory.work(), &home, tempfile::tempfile_in(scratch)?)
        })
        .await
        .map_err(io::Error::other)??;
        self.artifacts.put_bundle(run, number, tar).await.map_err(io::Error::other)
    }

    fn returned(&self, attempt: &Attempt) -> PathBuf {
        self.files.directory(attempt).root().join(RETURNED)
    }

    /// Unpacks what the pods have sent since it was last unpacked.
    pub(super) async fn unpack(&self, attempt: &Attempt) -> io::Result<()> {
        let (run, number) = (attempt.run_id, attempt.number);
        let mut sent = self.artifacts.list_returned(run, number).await.map_err(io::Error::other)?;
        if sent.is_empty() {
            return Ok(());
        }
        // Where several wrote the same file, that of the first node counts.
        sent.sort_by(|a, b| a.part.cmp(&b.part));
        let versions: Vec<String> =
            sent.iter().map(|one| format!("{} {} {}", one.part, one.is_final, one.version)).collect();
        let version = versions.join("\n");
        let into = self.returned(attempt);
        let unpacked = {
            let known = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&(run, number)) == Some(&version)
        };
        if unpacked && into.is_dir() {
            return Ok(());
        }
        let root = self.files.directory(attempt).root().to_owned();
        layout::create_private_dir(&root)?;
        let fresh = tempfile::Builder::new().prefix("returned.partial-").tempdir_in(&root)?;
        for one in &sent {
            let tar = self.artifacts.open_returned(run, number, &one.part, one.is_final).await;
            let (tar, place) = (tar.map_err(io::Error::other)?, fresh.path().to_owned());
            spawn_blocking(move || unpack_returned(tar, &place)).await.map_err(io::Error::other)??;
        }
        match fs::remove_dir_all(&into) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::rename(fresh.path(), &into)?,
        }
        // It is no longer there to be removed.
        let _ = fresh.keep();
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).insert((run, number), version);
        Ok(())
    }

    /// Why not everything is here that a script wrote, where it ran and has ended. What is handed over is handed over before a pod
    /// ends: nothing comes later.
    pub(super) async fn missing(&self, attempt: &Attempt) -> io::Result<Option<String>> {
        let outcome = self.notes(attempt).outcome().await.map_err(io::Error::other)?;
        let has_run = match outcome {
            Some(Observation::Exited(exit)) => exit.started_at.is_some(),
            Some(Observation::Lost { .. } | Observation::Preempted { .. }) => true,
            _ => false,
        };
        let pods = match kind(attempt) {
            Kind::Job => 1,
            Kind::MpiJob => usize::try_from(attempt.plan.node_count).unwrap_or(usize::MAX),
        };
        let sent = self.artifacts.list_returned(attempt.run_id, attempt.number).await;
        let came = sent.map_err(io::Error::other)?.iter().filter(|one| one.is_final).count();
        Ok((has_run && came < pods).then(|| {
            format!(
                "{came} of {pods} pod(s) handed over all that the script wrote: the rest was lost with its pod, which was taken away or \
                 could not reach this service"
            )
        }))
    }

    /// Has every log followed that there is; waits for the rest of those whose attempt has ended.
    pub(super) async fn bring_logs(&self, attempt: &Attempt) -> io::Result<()> {
        let notes = self.notes(attempt);
        if notes.submission().await.map_err(io::Error::other)?.is_none() {
            return Ok(());
        }
        let has_ended = notes.outcome().await.map_err(io::Error::other)?.is_some();
        let Reached { cluster, watch } = self.reached().await.map_err(io::Error::other)?;
        let name = object_name(attempt.run_id, attempt.number);
        let (mut known, is_current) = watch.known(&name, kind(attempt) == Kind::MpiJob);
        if has_ended && !is_current {
            // After an end the view has to be up to date; before it there is time.
            known = self.known(attempt, true).await.map_err(io::Error::other)?;
        }
        for (log, ended) in self.logs_of(attempt, &known.pods()) {
            self.logs.follow(cluster, &log, ended || has_ended);
            if has_ended {
                self.logs.finish(&log).await;
            }
        }
        Ok(())
    }

    /// The logs that there are of an attempt, and whether their containers have ended.
    fn logs_of(&self, attempt: &Attempt, pods: &[SeenPod]) -> Vec<(Log, bool)> {
        let directory = self.files.directory(attempt);
        let failed = |pod: &SeenPod| {
            pod.pod.terminated(WORKER).is_some_and(|ended| ended.exit_code != 0)
                && pod.pod.status.phase == "Failed"
        };
        let mut logs = Vec::new();
        for seen in pods {
            let pod = &seen.pod;
            let name = pod.metadata.name.clone();
            let index = name.rsplit('-').next().unwrap_or_default().to_owned();
            let containers = if is_worker(pod) {
                // What the ranks say comes through the launcher; of the packages one log is enough.
                let packages = if index == "0" { BUILD_LOG.to_owned() } else { String::new() };
                let worker =
                    if failed(seen) { format!("azureml-logs/worker_{index}_log.txt") } else { String::new() };
                vec![(PACKAGES, packages), (WORKER, worker)]
            } else {
                vec![(PACKAGES, BUILD_LOG.to_owned()), (SCRIPT, STD_LOG.to_owned())]
            };
            for (container, file) in containers.into_iter().filter(|(_, file)| !file.is_empty()) {
                let Some(status) = pod.container(container) else { continue };
                let ended = status.state.terminated.is_some();
                if !ended && status.state.running.is_none() {
                    continue;
                }
                let position = format!("log-positions/{}", file.replace('/', "_"));
                logs.push((
                    Log {
                        pod: name.clone(),
                        container: container.to_owned(),
                        file: directory.logs().join(&file),
                        position: directory.root().join(position),
                    },
                    ended || seen.gone,
                ));
            }
        }
        logs
    }

    pub(super) fn listed_logs(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        let mut found = files::list(&self.files.directory(attempt).logs(), "", "")?;
        found.extend(self.list(attempt, "work/logs", "logs/")?);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) fn listed_records(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        self.list(attempt, "home/records", "")
    }

    pub(super) fn listed_outputs(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        let mut found = self.list(attempt, "work/outputs", "")?;
        found.retain(|file| !files::is_partial_upload(&file.name));
        Ok(found)
    }

    pub(super) fn listed_place(&self, attempt: &Attempt, place: &Place) -> io::Result<Vec<AttemptFile>> {
        let root = match place.root {
            Root::Data => "home/data",
            Root::Work => "work",
        };
        self.list(attempt, &format!("{root}/{}", place.path), "")
    }

    fn list(&self, attempt: &Attempt, below: &str, prefix: &str) -> io::Result<Vec<AttemptFile>> {
        let returned = self.returned(attempt);
        if returned.is_dir() { files::list(&returned, below, prefix) } else { Ok(Vec::new()) }
    }

    /// Where data is staged before the start; where what came back lies after the end.
    pub(super) fn area(&self, attempt: &Attempt) -> StagingArea {
        let (staged, returned) = (self.files.area(attempt), self.returned(attempt));
        if returned.is_dir() {
            return StagingArea { data: returned.join("home/data"), work: returned.join("work"), ..staged };
        }
        staged
    }
}

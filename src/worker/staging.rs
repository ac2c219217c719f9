//! A run's data: found before anything is prepared, put in place before the start, sent at the end.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{Context, Settings};
use crate::{
    artifacts::Artifacts,
    backend::{Attempt, Backend, StagingArea},
    datastores::{self, Cache, DataError, Downloaded, Found, LocalFile, Store},
    domain::{
        datastore_access::Credentials,
        ids::SnapshotId,
        plan::{InputMode, Plan, PlannedInput},
        project::{Project, Qualified},
        staging::{self, Place, Root, components},
    },
    storage::{StorageError, datastores::DatastoreAccess},
    vault::purposes,
};

/// Where source trees lie on a datastore that they are staged on.
const SNAPSHOTS: &str = "estimatord/snapshots";

/// Why data could not be staged or sent.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum StagingError {
    /// The datastore's side, or the machine's.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The database's side.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// How something gets in place.
#[derive(Debug)]
enum How {
    /// By a link to a folder or file of this machine.
    Link(PathBuf),
    /// By a copy of its own.
    Copy(Found),
    /// By a copy that other runs use as well.
    Share(Found),
}

/// Something that is read.
#[derive(Debug)]
struct Reading {
    /// What it is to people.
    label: String,
    store: Store,
    how: How,
    place: Place,
    /// Where the definition wants it besides.
    also_at: Option<Place>,
}

/// Everything that a run reads, found.
#[derive(Debug, Default)]
pub(in crate::worker) struct Sources {
    readings: Vec<Reading>,
    /// The datastore that the source tree is staged on.
    pub(in crate::worker) share: Option<Store>,
}

/// Opens a datastore with its credentials.
fn open(kept: &Qualified, access: &DatastoreAccess, settings: &Settings) -> Result<Store, DataError> {
    let datastore = &access.datastore;
    let unusable =
        |detail: String| DataError::Credentials { datastore: datastore.name.as_str().to_owned(), detail };
    let credentials = match &access.sealed_credentials {
        None => None,
        Some(sealed) => {
            let vault = settings
                .vault
                .as_ref()
                .ok_or_else(|| unusable("this worker has no secret key to decrypt them with".to_owned()))?;
            let purpose = purposes::datastore_credentials(kept);
            let text = vault.open(&purpose, sealed).map_err(|error| unusable(error.to_string()))?;
            // What does not parse is not repeated: it is secret.
            let members = serde_json::from_str(text.expose())
                .map_err(|_| unusable("they are no JSON object".to_owned()))?;
            Credentials::read(datastore.url.kind(), &members).map_err(|error| unusable(error.to_string()))?
        }
    };
    datastores::open(datastore, &access.options, credentials.as_ref(), &settings.datastore_places)
}

/// Every datastore that is named, open.
async fn stores<'a, B>(
    context: &Context<B>,
    project: &Project,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<HashMap<String, Store>, StagingError> {
    let mut names: Vec<String> = names.into_iter().cloned().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let found = context.storage.datastore_access(project, &names).await?;
    let mut stores = HashMap::new();
    for name in names {
        let access = found.iter().find(|access| access.datastore.name.as_str() == name);
        let access = access.ok_or_else(|| DataError::NotRegistered(name.clone()))?;
        let kept = project.qualified(&name);
        stores.insert(name, open(&kept, access, &context.settings)?);
    }
    Ok(stores)
}

/// Finds everything that a run reads, and puts its source tree on the datastore that it is to lie on.
pub(in crate::worker) async fn locate<B>(
    context: &Context<B>,
    project: &Project,
    plan: &Plan,
) -> Result<Sources, StagingError> {
    let data = &plan.data;
    if let Some((input, other)) = staging::overlap(plan) {
        return Err(DataError::Overlap {
            input: input.name.clone(),
            place: input.path_on_compute.clone().unwrap_or_default(),
            other: other.name.clone(),
        }
        .into());
    }
    let names = data.inputs.iter().map(|input| &input.datastore);
    let names = names.chain(data.resume_from.iter().map(|place| &place.datastore));
    let stores = stores(context, project, names.chain(&data.source_datastore)).await?;
    let store =
        |name: &String| stores.get(name).cloned().ok_or_else(|| DataError::NotRegistered(name.clone()));
    let mut sources = Sources::default();
    for input in data.inputs.iter().filter(|input| input.mode != InputMode::Upload) {
        let store = store(&input.datastore)?;
        let (place, seen) = (staging::staged_place(input), staging::place(input));
        sources.readings.push(Reading {
            label: format!("the input `{}`", input.name),
            how: how(&store, input).await?,
            store,
            also_at: (seen != place).then_some(seen),
            place,
        });
    }
    if let Some(checkpoint) = &data.resume_from {
        let store = store(&checkpoint.datastore)?;
        let found = datastores::find(&store, &components(&checkpoint.path).join("/"), None).await?;
        sources.readings.push(Reading {
            label: "the checkpoint of `resume_from`".to_owned(),
            how: How::Copy(found),
            store,
            place: staging::checkpoint_place(checkpoint),
            also_at: None,
        });
    }
    if let Some(name) = &data.source_datastore {
        let store = store(name)?;
        share_snapshot(&context.artifacts, &store, &plan.snapshot_id).await?;
        sources.share = Some(store);
    }
    Ok(sources)
}

async fn how(store: &Store, input: &PlannedInput) -> Result<How, DataError> {
    let (folder, pattern) = staging::folder_and_pattern(input);
    if input.mode != InputMode::Download
        && pattern.is_none()
        && let Some(place) = store.place_of(&folder)?
    {
        return Ok(How::Link(place));
    }
    let found = datastores::find(store, &folder, pattern.as_deref()).await?;
    // A copy that the script was promised for itself, and of a folder there is no need for another.
    let own = input.mode == InputMode::Download || store.is_folder();
    Ok(if own { How::Copy(found) } else { How::Share(found) })
}

/// Puts everything in place that is not there yet; what the history says of it.
pub(in crate::worker) async fn stage<B: Backend>(
    context: &Context<B>,
    attempt: &Attempt,
    sources: &Sources,
) -> Result<Vec<String>, DataError> {
    let area = context.backend.staging(attempt);
    let cache = Cache::new(area.cache.clone(), context.settings.max_data_cache_bytes);
    let mut notes = Vec::new();
    for reading in &sources.readings {
        let target = absolute(&area, &reading.place);
        lead_to(&area, &reading.place, &reading.label)?;
        // Nothing is there before all of it is: it was put there by an earlier try.
        if target.symlink_metadata().is_err() {
            notes.push(put(reading, &target, &cache).await?);
        }
        if let Some(place) = &reading.also_at {
            lead_to(&area, place, &reading.label)?;
            link(&target, &absolute(&area, place), reading)?;
        }
    }
    for input in uploads(&attempt.plan) {
        let label = format!("the input `{}`", input.name);
        let place = staging::place(input);
        lead_to(&area, &place, &label)?;
        make_directory(&absolute(&area, &place), &label)?;
    }
    Ok(notes)
}

async fn put(reading: &Reading, target: &Path, cache: &Cache) -> Result<String, DataError> {
    let Reading { label, store, how, .. } = reading;
    let said = |done: Downloaded| {
        format!("{label}: copied {} files with {} bytes, sha256 {}", done.files, done.bytes, done.sha256)
    };
    match how {
        How::Link(path) => {
            match symlink(path, target) {
                Ok(()) => {}
                // Another worker prepares the same attempt and was faster.
                Err(_) if target.is_symlink() => {}
                Err(source) => return Err(DataError::Io { path: target.to_owned(), source }),
            }
            Ok(format!("{label}: read where it lies in `{}`", store.name))
        }
        How::Copy(found) => datastores::download(store, found, target).await.map(said),
        How::Share(found) => match cache.place(store, found, target).await? {
            Some(done) => Ok(said(done)),
            None => Ok(format!("{label}: {} files, copied before", found.files.len())),
        },
    }
}

/// Makes a link where the definition wants the data.
fn link(target: &Path, place: &Path, reading: &Reading) -> Result<(), DataError> {
    match symlink(target, place) {
        Ok(()) => Ok(()),
        Err(_) if fs::read_link(place).is_ok_and(|there| there == target) => Ok(()),
        Err(_) if place.symlink_metadata().is_ok() => Err(in_the_way(&reading.label, place)),
        Err(source) => Err(DataError::Io { path: place.to_owned(), source }),
    }
}

/// Makes the directories that lead to a place.
fn lead_to(area: &StagingArea, place: &Place, label: &str) -> Result<(), DataError> {
    let mut directory = root(area, place.root).to_owned();
    fs::create_dir_all(&directory).map_err(|source| DataError::Io { path: directory.clone(), source })?;
    let mut parts = components(&place.path);
    parts.pop();
    for part in parts {
        directory.push(part);
        make_directory(&directory, label)?;
    }
    Ok(())
}

/// Makes one directory. A link to one is none: it may lead out of the attempt, into a datastore.
fn make_directory(place: &Path, label: &str) -> Result<(), DataError> {
    match fs::create_dir(place) {
        Ok(()) => Ok(()),
        Err(source) => match place.symlink_metadata() {
            Ok(there) if there.is_dir() => Ok(()),
            Ok(_) => Err(in_the_way(label, place)),
            Err(_) => Err(DataError::Io { path: place.to_owned(), source }),
        },
    }
}

fn in_the_way(input: &str, place: &Path) -> DataError {
    DataError::InTheWay { input: input.to_owned(), place: place.display().to_string() }
}

fn root(area: &StagingArea, root: Root) -> &Path {
    match root {
        Root::Data => &area.data,
        Root::Work => &area.work,
    }
}

fn absolute(area: &StagingArea, place: &Place) -> PathBuf {
    root(area, place.root).join(&place.path)
}

fn uploads(plan: &Plan) -> impl Iterator<Item = &PlannedInput> {
    plan.data.inputs.iter().filter(|input| input.mode == InputMode::Upload)
}

/// The inputs whose directories, which the script was to write into, are not there any more.
pub(in crate::worker) fn uploads_that_are_gone<'a>(area: &StagingArea, plan: &'a Plan) -> Vec<&'a str> {
    let is_gone = |input: &&PlannedInput| {
        let place = staging::place(input);
        let mut path = root(area, place.root).to_owned();
        // A link on the way is not followed either when files are listed.
        !components(&place.path).into_iter().all(|part| {
            path.push(part);
            path.symlink_metadata().is_ok_and(|there| there.is_dir())
        })
    };
    uploads(plan).filter(is_gone).map(|input| input.name.as_str()).collect()
}

/// Sends what the script wrote for datastores.
pub(in crate::worker) async fn send<B: Backend>(
    context: &Context<B>,
    project: &Project,
    attempt: &Attempt,
) -> Result<(), StagingError> {
    let stores = stores(context, project, uploads(&attempt.plan).map(|input| &input.datastore)).await?;
    // What one input cannot be sent for keeps nobody from sending the others.
    let mut errors = Vec::new();
    for input in uploads(&attempt.plan) {
        let Some(store) = stores.get(&input.datastore) else { continue };
        if let Err(error) = send_input(context, attempt, store, input).await {
            errors.push(error);
        }
    }
    Ok(DataError::unsent(errors, 0)?)
}

async fn send_input<B: Backend>(
    context: &Context<B>,
    attempt: &Attempt,
    store: &Store,
    input: &PlannedInput,
) -> Result<(), DataError> {
    let place = staging::place(input);
    let files = context.backend.staged_files(attempt, &place).await;
    let files = files.map_err(|source| DataError::Io { path: place.path.into(), source })?;
    let files = files.into_iter().map(|file| LocalFile {
        path: file.name.clone(),
        bytes: file.bytes,
        open: Box::new(move || file.open()),
    });
    let folder = components(&input.path).join("/");
    datastores::upload(store, &folder, files.collect(), input.overwrite).await
}

fn snapshot_name(id: &SnapshotId) -> String {
    format!("{}.tar", id.as_str().trim_start_matches("sha256:"))
}

/// Puts a source tree on a datastore, unless it is there: its name is made of its content.
async fn share_snapshot(artifacts: &Artifacts, store: &Store, id: &SnapshotId) -> Result<(), DataError> {
    let name = snapshot_name(id);
    match datastores::find(store, &format!("{SNAPSHOTS}/{name}"), None).await {
        Ok(_) => return Ok(()),
        Err(DataError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let unreadable = |source| DataError::Io { path: name.clone().into(), source };
    let tar = artifacts.open_snapshot(id).await.map_err(|error| unreadable(io::Error::other(error)))?;
    let bytes = tar.metadata().map_err(unreadable)?.len();
    let file = LocalFile { path: name.clone(), bytes, open: Box::new(move || Ok(tar)) };
    datastores::upload(store, SNAPSHOTS, vec![file], true).await
}

/// The tar of a source tree from the datastore that it was put on.
pub(in crate::worker) async fn fetch_snapshot(
    store: &Store,
    id: &SnapshotId,
    beside: &Path,
) -> Result<fs::File, DataError> {
    let unwritable = |source| DataError::Io { path: beside.to_owned(), source };
    let parent = beside.parent().unwrap_or(beside);
    let scratch =
        tempfile::Builder::new().prefix("work.partial-tar-").tempdir_in(parent).map_err(unwritable)?;
    let tar = scratch.path().join("tar");
    let found = datastores::find(store, &format!("{SNAPSHOTS}/{}", snapshot_name(id)), None).await?;
    datastores::download(store, &found, &tar).await?;
    fs::File::open(tar).map_err(unwritable)
}

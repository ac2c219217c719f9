//! What a script puts into a folder so that the service, which may be root, reads or writes elsewhere.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::domain::{
    datastore::{Datastore, DatastoreUrl},
    datastore_access::DatastoreOptions,
    datastore_places::Places,
};

/// A folder, and beside it what must not be reached from it.
struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir_all(scene.folder().join("open/real")).unwrap();
        fs::write(scene.folder().join("open/real/notes"), "mine").unwrap();
        fs::create_dir_all(scene.secrets().join("deeper")).unwrap();
        for name in ["notes", "deeper/notes"] {
            fs::write(scene.secrets().join(name), "secret").unwrap();
        }
        scene
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn secrets(&self) -> PathBuf {
        self.directory.path().join("secrets")
    }

    fn store(&self) -> Store {
        self.open(&self.folder(), &Places::default()).unwrap()
    }

    fn open(&self, folder: &Path, places: &Places) -> Result<Store, DataError> {
        let url = url::Url::from_file_path(folder).unwrap();
        let url = DatastoreUrl::parse(url.as_str()).unwrap();
        let datastore = Datastore { name: "st".parse().unwrap(), url };
        open(&datastore, &DatastoreOptions::default(), None, places)
    }
}

fn local(path: &str) -> LocalFile {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"sent").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    LocalFile { path: path.to_owned(), bytes: 4, open: Box::new(move || Ok(file)) }
}

fn is_link<T: std::fmt::Debug>(result: Result<T, DataError>, at: &str) {
    match result {
        Err(DataError::Link { path, .. }) => assert_eq!(path, at),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_link_is_not_read_wherever_it_leads() {
    let scene = Scene::new();
    symlink(scene.secrets().join("notes"), scene.folder().join("open/notes")).unwrap();
    symlink(scene.secrets(), scene.folder().join("open/out")).unwrap();
    symlink("real", scene.folder().join("open/within")).unwrap();
    let store = scene.store();
    is_link(find(&store, "open/notes", None).await, "open/notes");
    is_link(find(&store, "open/out/notes", None).await, "open/out");
    is_link(find(&store, "open/out", None).await, "open/out");
    is_link(find(&store, "open/out/deeper", Some("open/out/deeper/*")).await, "open/out");
    is_link(find(&store, "open/within/notes", None).await, "open/within");
    is_link(store.place_of("open/out"), "open/out");
    is_link(store.place_of("open/notes"), "open/notes");
    assert_eq!(store.place_of("open/real").unwrap(), Some(scene.folder().join("open/real")));
    assert_eq!(store.place_of("open/real/notes").unwrap(), Some(scene.folder().join("open/real/notes")));
    let listed = find(&store, "open", None).await.unwrap_err();
    assert!(listed.is_permanent());
    assert!(listed.to_string().contains("has a symbolic link at `open/"), "{listed}");
    assert_eq!(find(&store, "open/real", None).await.unwrap().files.len(), 1);
}

#[tokio::test]
async fn nothing_is_written_through_a_link_and_a_link_itself_is_replaced() {
    let scene = Scene::new();
    symlink(scene.secrets(), scene.folder().join("open/out")).unwrap();
    symlink(scene.secrets().join("notes"), scene.folder().join("open/notes")).unwrap();
    let store = scene.store();
    is_link(upload(&store, "open/out", vec![local("made")], true).await, "open/out");
    is_link(upload(&store, "open/out/new", vec![local("made")], true).await, "open/out");
    is_link(upload(&store, "open", vec![local("notes")], false).await, "open/notes");
    upload(&store, "open", vec![local("notes")], true).await.unwrap();
    assert_eq!(fs::read_to_string(scene.folder().join("open/notes")).unwrap(), "sent");
    assert_eq!(fs::read_to_string(scene.secrets().join("notes")).unwrap(), "secret");
    assert_eq!(fs::read_dir(scene.secrets()).unwrap().count(), 2, "nothing was made there");
    let left: Vec<_> = fs::read_dir(scene.folder().join("open")).unwrap().flatten().collect();
    assert_eq!(left.len(), 3, "nothing partial is left: {left:?}");
}

#[tokio::test]
async fn a_name_of_a_file_elsewhere_is_replaced_and_not_written_into() {
    let scene = Scene::new();
    fs::hard_link(scene.secrets().join("notes"), scene.folder().join("open/notes")).unwrap();
    upload(&scene.store(), "open", vec![local("notes")], true).await.unwrap();
    assert_eq!(fs::read_to_string(scene.secrets().join("notes")).unwrap(), "secret");
}

#[tokio::test]
async fn a_folder_that_becomes_a_link_between_two_steps_leads_nowhere() {
    let scene = Scene::new();
    let store = scene.store();
    let found = find(&store, "open/real", None).await.unwrap();
    fs::remove_dir_all(scene.folder().join("open/real")).unwrap();
    symlink(scene.secrets(), scene.folder().join("open/real")).unwrap();
    is_link(download(&store, &found, &scene.directory.path().join("in/copy")).await, "open/real");
    assert_eq!(fs::read_dir(scene.directory.path().join("in")).unwrap().count(), 0);
}

/// Exchanged all the time, as fast as it goes, while it is read and written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_exchanged_for_a_link_meanwhile_leads_nowhere() {
    let scene = Scene::new();
    let store = scene.store();
    let (folder, link) = (scene.folder().join("open/real"), scene.folder().join("open/link"));
    symlink(scene.secrets(), &link).unwrap();
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !has_ended.load(Ordering::Relaxed) {
                nix::fcntl::renameat2(
                    nix::fcntl::AT_FDCWD,
                    &folder,
                    nix::fcntl::AT_FDCWD,
                    &link,
                    nix::fcntl::RenameFlags::RENAME_EXCHANGE,
                )
                .unwrap();
            }
        });
        let work = async {
            for round in 0..200 {
                let target = scene.directory.path().join(format!("in/{round}"));
                if let Ok(found) = find(&store, "open/real", None).await
                    && download(&store, &found, &target).await.is_ok()
                {
                    assert_eq!(fs::read_to_string(target.join("notes")).unwrap(), "mine");
                }
                // Refused, or in the real one: the secret one stays as it is.
                drop(upload(&store, "open/real", vec![local("made")], true).await);
                assert_eq!(fs::read_dir(scene.secrets()).unwrap().count(), 2);
            }
            has_ended.store(true, Ordering::Relaxed);
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
    });
}

#[test]
fn a_folder_that_is_a_link_itself_must_lead_where_a_datastore_may_be() {
    let scene = Scene::new();
    let allowed = scene.folder().display().to_string();
    let places = Places::new(Some(vec![allowed.parse().unwrap()]), &[&scene.secrets().to_string_lossy()]);
    symlink(scene.secrets(), scene.folder().join("open/own")).unwrap();
    symlink("/etc", scene.folder().join("open/etc")).unwrap();
    symlink("real", scene.folder().join("open/within")).unwrap();
    let refused = |name: &str| scene.open(&scene.folder().join("open").join(name), &places).unwrap_err();
    assert!(refused("own").to_string().contains("the service's own files"), "{}", refused("own"));
    assert!(refused("etc").to_string().contains("leads to /etc"), "{}", refused("etc"));
    scene.open(&scene.folder().join("open/within"), &places).unwrap();
    // The operator's own link to a disk.
    let beside = scene.directory.path().join("disk");
    symlink(scene.folder(), &beside).unwrap();
    let listed = beside.display().to_string();
    let places = Places::new(Some(vec![listed.parse().unwrap()]), &[]);
    scene.open(&beside.join("open/real"), &places).unwrap();
    // Anywhere is not among the service's own files either.
    let anywhere = Places::new(None, &[&scene.secrets().to_string_lossy()]);
    assert!(scene.open(&scene.folder().join("open/own"), &anywhere).is_err());
}

//! Data of a run: there before its script starts, sent when it has ended.

use std::{fs, path::PathBuf};

use estimatord::{
    clock::{Clock as _, SystemClock},
    domain::{
        datastore::{Datastore, DatastoreUrl},
        datastore_access::DatastoreOptions,
        ids::RunId,
        plan::{DataLocation, InputKind, InputMode, PlannedInput},
        run::{Cause, Status},
    },
    storage::{datastores::DatastoreAccess, runs::Run},
};
use sqlx::PgPool;

use crate::{Stage, exited, scripted::Prepare};

impl Stage {
    /// A datastore in a folder of its own, with these files.
    async fn datastore(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.dir.path().join("stores").join(name);
        fs::create_dir_all(&folder).expect("made");
        for (path, content) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, content).expect("written");
        }
        let url = format!("file://{}", folder.display());
        let access = DatastoreAccess {
            datastore: Datastore {
                name: name.parse().expect("a name"),
                url: DatastoreUrl::parse(&url).expect("an address"),
            },
            options: DatastoreOptions::default(),
            sealed_credentials: None,
        };
        self.storage.of(&Default::default()).put_datastore(&access, SystemClock.now()).await.expect("stored");
        folder
    }

    fn staged(&self, id: RunId, path: &str) -> PathBuf {
        self.dir.path().join("compute").join(id.to_string()).join(path)
    }
}

fn input(name: &str, datastore: &str, path: &str, mode: InputMode) -> PlannedInput {
    PlannedInput {
        name: name.to_owned(),
        kind: InputKind::DataReference,
        datastore: datastore.to_owned(),
        path: path.to_owned(),
        mode,
        path_on_compute: None,
        overwrite: false,
        variable: format!("AZUREML_DATAREFERENCE_{name}"),
    }
}

fn content(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn staged_run(stage: &Stage, change: impl FnOnce(&mut Run)) -> RunId {
    let id = stage.accept(change).await;
    stage.until(id, "starting", |run| run.status == Status::Starting).await;
    id
}

#[sqlx::test]
async fn data_is_in_place_before_the_script_starts(pool: PgPool) {
    let stage = Stage::new(pool);
    let files = [("sets/2026/a.csv", "1"), ("sets/2026/deep/b.csv", "22"), ("c/model.npz", "weights")];
    let folder = stage.datastore("mystore", &files).await;
    let worker = stage.start_worker("a");
    let id = staged_run(&stage, |run| {
        let mut wanted = input("wanted", "mystore", "sets", InputMode::Mount);
        wanted.path_on_compute = Some("data/in".to_owned());
        run.plan.data.inputs = vec![
            input("copied", "mystore", "sets/2026", InputMode::Download),
            input("linked", "mystore", "sets/2026", InputMode::Mount),
            wanted,
        ];
        run.plan.data.resume_from =
            Some(DataLocation { datastore: "mystore".into(), path: "c/model.npz".into() });
    })
    .await;
    assert_eq!(content(stage.staged(id, "data/inputs/copied/2026/deep/b.csv")), "22");
    assert!(!stage.staged(id, "data/inputs/copied/2026").is_symlink());
    assert_eq!(
        fs::read_link(stage.staged(id, "data/inputs/linked/2026")).expect("a link"),
        folder.join("sets/2026")
    );
    assert_eq!(content(stage.staged(id, "work/data/in/2026/a.csv")), "1");
    assert_eq!(content(stage.staged(id, "data/resume_from/model.npz")), "weights");
    let notes = stage.details(id, "data").await;
    assert!(notes[0].starts_with("the input `copied`: copied 2 files with 3 bytes, sha256 "), "{notes:?}");
    assert_eq!(notes[1], "the input `linked`: read where it lies in `mystore`");
    stage.backend.set(id, exited(0));
    assert_eq!(stage.until_ended(id).await.status, Status::Completed);
    assert_eq!(content(folder.join("sets/2026/a.csv")), "1", "cleaning up follows no link");
    worker.stop().await;
}

#[sqlx::test]
async fn missing_data_fails_the_run_before_anything_is_prepared(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.datastore("mystore", &[]).await;
    let worker = stage.start_worker("a");
    let id = stage
        .accept(|run| {
            run.max_attempts = 3;
            run.plan.data.inputs = vec![input("d", "mystore", "sets/2026", InputMode::Download)];
        })
        .await;
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause, run.attempt), (Status::Failed, Some(Cause::DispatchFailed), 1));
    assert_eq!(run.detail.as_deref(), Some("the datastore `mystore` has nothing at `sets/2026`"));
    let id = stage.accept(|run| run.plan.data.inputs = vec![input("d", "gone", "", InputMode::Mount)]).await;
    let run = stage.until_ended(id).await;
    assert_eq!(run.detail.as_deref(), Some("the datastore `gone` is not registered any more"));
    worker.stop().await;
}

#[sqlx::test]
async fn an_input_that_is_wanted_in_another_is_refused_before_anything_is_written(pool: PgPool) {
    let stage = Stage::new(pool);
    let folder = stage.datastore("mystore", &[("sets/a.csv", "1")]).await;
    let worker = stage.start_worker("a");
    let id = stage
        .accept(|run| {
            let at = |name: &str, place: &str| PlannedInput {
                path_on_compute: Some(place.to_owned()),
                ..input(name, "mystore", "sets", InputMode::Mount)
            };
            run.plan.data.inputs = vec![at("outer", "x"), at("inner", "x/y")];
        })
        .await;
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause), (Status::Failed, Some(Cause::DispatchFailed)));
    let detail = run.detail.expect("a detail");
    assert!(detail.contains("`inner`") && detail.contains("`outer`"), "{detail}");
    assert!(!folder.join("sets/y").is_symlink(), "nothing is written into the datastore");
    worker.stop().await;
}

#[sqlx::test]
async fn nothing_is_put_in_place_through_a_link(pool: PgPool) {
    let stage = Stage::new(pool);
    let folder = stage.datastore("mystore", &[("sets/a.csv", "1")]).await;
    for (mode, place) in [(InputMode::Mount, "x/y"), (InputMode::Upload, "x/y"), (InputMode::Upload, "x")] {
        let id = stage
            .accept(|run| {
                let mut input = input("d", "mystore", "sets", mode);
                input.path_on_compute = Some(place.to_owned());
                run.plan.data.inputs = vec![input];
            })
            .await;
        // As a link in the source tree would be.
        fs::create_dir_all(stage.staged(id, "work")).expect("made");
        std::os::unix::fs::symlink(folder.join("sets"), stage.staged(id, "work/x")).expect("a link");
        let worker = stage.start_worker("a");
        let run = stage.until_ended(id).await;
        assert_eq!((run.status, run.cause), (Status::Failed, Some(Cause::DispatchFailed)), "{place}");
        let link = stage.staged(id, "work/x");
        let expected = format!("the input `d` cannot be put at `{}`: something lies there", link.display());
        assert_eq!(run.detail.expect("a detail"), expected);
        assert_eq!(fs::read_dir(folder.join("sets")).expect("there").count(), 1, "{place}");
        worker.stop().await;
    }
}

#[sqlx::test]
async fn what_the_script_wrote_for_a_datastore_is_sent_at_the_end(pool: PgPool) {
    let stage = Stage::new(pool);
    let folder = stage.datastore("mystore", &[]).await;
    let worker = stage.start_worker("a");
    let id = staged_run(&stage, |run| {
        run.plan.data.inputs = vec![input("out", "mystore", "results/7", InputMode::Upload)];
    })
    .await;
    let place = stage.staged(id, "data/inputs/out/7");
    fs::create_dir(place.join("deep")).expect("the place is there");
    fs::write(place.join("deep/model.npz"), "weights").expect("written");
    stage.backend.set(id, exited(0));
    assert_eq!(stage.until_ended(id).await.status, Status::Completed);
    assert_eq!(content(folder.join("results/7/deep/model.npz")), "weights");
    worker.stop().await;
}

#[sqlx::test]
async fn a_run_whose_results_cannot_be_sent_has_not_completed(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.datastore("mystore", &[("results/model.npz", "an older one")]).await;
    let worker = stage.start_worker("a");
    let id = staged_run(&stage, |run| {
        run.max_attempts = 3;
        run.plan.data.inputs = vec![input("out", "mystore", "results", InputMode::Upload)];
    })
    .await;
    fs::write(stage.staged(id, "data/inputs/out/results/model.npz"), "weights").expect("written");
    stage.backend.set(id, exited(0));
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause, run.exit_code), (Status::Failed, Some(Cause::Internal), Some(0)));
    let detail = run.detail.expect("a detail");
    assert!(detail.contains("`mystore` has something else at `results/model.npz` already"), "{detail}");
    worker.stop().await;
}

#[sqlx::test]
async fn a_place_that_the_script_took_away_is_said(pool: PgPool) {
    let stage = Stage::new(pool);
    let folder = stage.datastore("mystore", &[]).await;
    let worker = stage.start_worker("a");
    let id = staged_run(&stage, |run| {
        run.plan.data.inputs =
            ["kept", "removed", "linked"].map(|name| input(name, "mystore", name, InputMode::Upload)).into();
    })
    .await;
    let place = |name: &str| stage.staged(id, &format!("data/inputs/{name}/{name}"));
    fs::write(place("kept").join("a"), "1").expect("written");
    fs::remove_dir(place("removed")).expect("removed");
    fs::remove_dir(place("linked")).expect("removed");
    let elsewhere = stage.datastore("elsewhere", &[]).await;
    std::os::unix::fs::symlink(elsewhere, place("linked")).expect("a link");
    stage.backend.set(id, exited(0));
    assert_eq!(stage.until_ended(id).await.status, Status::Completed);
    assert_eq!(content(folder.join("kept/a")), "1");
    let notes = stage.details(id, "data").await;
    let expected = ["removed", "linked"].map(|name| {
        format!("the input `{name}`: nothing is sent, because the script removed its directory or put something else there")
    });
    assert_eq!(notes, expected);
    worker.stop().await;
}

#[sqlx::test]
async fn what_a_run_without_container_cannot_heed_is_said(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.datastore("mystore", &[("sets/a", "1")]).await;
    let worker = stage.start_worker("a");
    let id = staged_run(&stage, |run| {
        let mut input = input("d", "mystore", "sets", InputMode::Mount);
        input.path_on_compute = Some("/mnt/in".to_owned());
        run.plan.data.inputs = vec![input];
        run.definition.insert("framework_version".to_owned(), "7.0.0".into());
    })
    .await;
    let notes = stage.details(id, "data").await;
    assert!(
        notes[1].starts_with("the input `d`: its `path_on_compute` `/mnt/in` is not heeded"),
        "{notes:?}"
    );
    let notes = stage.details(id, "environment").await;
    assert!(notes.iter().any(|note| note.contains("`framework_version` `7.0.0` is not heeded")), "{notes:?}");
    worker.stop().await;
}

#[sqlx::test]
async fn a_worker_that_takes_over_finds_what_was_staged(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.datastore("mystore", &[("a/x", "1")]).await;
    stage.backend.on_prepare(Prepare::Hang);
    let first = stage.start_worker("a");
    let id = stage
        .accept(|run| run.plan.data.inputs = vec![input("d", "mystore", "a", InputMode::Download)])
        .await;
    stage.until(id, "preparing", |run| run.status == Status::Preparing).await;
    first.kill();
    stage.backend.on_prepare(Prepare::Succeed);
    let second = stage.start_worker("a");
    stage.until(id, "starting", |run| run.status == Status::Starting).await;
    assert_eq!(content(stage.staged(id, "data/inputs/d/a/x")), "1");
    second.stop().await;
}

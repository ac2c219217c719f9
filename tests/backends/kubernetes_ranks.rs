//! MPIJobs: what the real operator was seen to do (facts 4.x), and what the backend makes of it.

use estimatord::backend::{Backend as _, BackendError, ExitReason, Observation};

use crate::{
    fake_kubernetes::{Options, Play, name_of, runs_processes},
    harness::{Lab as _, content, scripts, until},
    kubernetes::Kubernetes,
    kubernetes_facts::{count, exited, lab, mpi, name, settled, started, submit, waits_for, with},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_the_operator_refuses_ranks_and_says_why() {
    let lab = with(Options { has_mpi: false, ..Options::new("/nowhere") }).await;
    let (backend, attempt) = (lab.backend(), mpi(lab.attempt("exits.py", &[])));
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    let error = backend.ensure_submitted(&attempt, &environment).await.unwrap_err();
    assert!(matches!(&error, BackendError::Refused(why) if why.contains("MPI operator")), "{error:?}");
    // Jobs go on as ever.
    started(&lab, lab.attempt("exits.py", &[])).await;
    let found = backend.reach(&attempt.backend).await.unwrap();
    assert!(found.contains("v1.36.2") && found.contains("1 Job(s) and 0 MPIJob(s)"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_end_as_their_launcher_does_when_no_worker_is_left() {
    for (code, expected) in [(0, Some(0)), (2, Some(2))] {
        let lab = lab().await;
        let (backend, attempt, launcher) = started(&lab, mpi(lab.attempt("exits.py", &[]))).await;
        lab.cluster.log(&launcher, "script", "from the ranks\n");
        lab.cluster.end(&launcher, "script", code);
        assert_eq!(exited(&backend, &attempt).await.exit_code, expected);
        // Fact 4.6: workers that stayed would keep their GPUs.
        let workers = lab.cluster.list("pods").iter().filter(|pod| name_of(pod).contains("-worker-")).count();
        assert_eq!(workers, 0);
        let logs = backend.log_files(&attempt).await.unwrap();
        assert_eq!(content(&logs, "user_logs/std_log.txt"), "from the ranks\n");
        backend.remove(&attempt).await.unwrap();
        lab.cluster.until("all of it to go", |cluster| (count(cluster, "jobs") == 0).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_some_nodes_handed_over_is_kept_and_what_is_missing_is_said() {
    let lab = lab().await;
    let (backend, attempt, launcher) = started(&lab, mpi(lab.attempt("exits.py", &[]))).await;
    assert_eq!(backend.missing_files(&attempt).await.unwrap(), None, "it has not ended");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(7);
    header.set_mode(0o644);
    tar.append_data(&mut header, "work/outputs/model", &b"weights"[..]).unwrap();
    let part = format!("{}-worker-1", name(&attempt)).parse().unwrap();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(tar.into_inner().unwrap().into())]);
    lab.artifacts.put_returned(attempt.run_id, 1, &part, true, body, 1 << 20).await.unwrap();
    lab.cluster.end(&launcher, "script", 0);
    exited(&backend, &attempt).await;
    assert_eq!(content(&backend.output_files(&attempt).await.unwrap(), "model"), "weights");
    let missing = backend.missing_files(&attempt).await.unwrap().unwrap();
    assert!(missing.starts_with("1 of 2 pod(s) handed over"), "{missing}");
}

/// Fact 4.2: `Failed` alone is not the end, and nobody else ends it.
#[tokio::test(flavor = "multi_thread")]
async fn ranks_whose_worker_is_evicted_are_ended() {
    let lab = lab().await;
    let (backend, attempt, _) = started(&lab, mpi(lab.attempt("exits.py", &[]))).await;
    lab.cluster.disrupt(&format!("{}-worker-1", name(&attempt)), "EvictionByEvictionAPI");
    let Observation::Preempted { detail } = settled(&backend, &attempt).await else { panic!("preempted") };
    assert!(detail.contains("-worker-1"), "{detail}");
    assert_eq!((count(&lab.cluster, "mpijobs"), count(&lab.cluster, "pods")), (0, 0));
}

/// Fact 4.4: the operator neither replaces nor mentions it.
#[tokio::test(flavor = "multi_thread")]
async fn ranks_whose_worker_dies_are_lost() {
    let lab = lab().await;
    let (backend, attempt, _) = started(&lab, mpi(lab.attempt("exits.py", &[]))).await;
    lab.cluster.end(&format!("{}-worker-0", name(&attempt)), "worker", 1);
    let Observation::Lost { detail } = settled(&backend, &attempt).await else { panic!("lost") };
    assert!(detail.contains("-worker-0"), "{detail}");
}

/// Fact 4.3: it would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn ranks_whose_worker_fails_before_there_is_a_launcher_are_ended() {
    let lab = lab().await;
    lab.cluster.play(|plays| {
        let fails = Play { exit_code: Some(1), lines: vec!["no route to host"], ..Play::default() };
        plays.scripted.insert("stage", fails);
    });
    let (backend, attempt) = (lab.backend(), mpi(lab.attempt("exits.py", &[])));
    submit(&backend, &attempt).await;
    let why = exited(&backend, &attempt).await.start_error.unwrap();
    assert!(why.contains("no route to host"), "{why}");
    assert_eq!(count(&lab.cluster, "mpijobs"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_are_cancelled_with_all_of_their_pods() {
    let lab = lab().await;
    let (backend, attempt, _) = started(&lab, mpi(lab.attempt("exits.py", &[]))).await;
    backend.cancel(&attempt).await.unwrap();
    assert_eq!(exited(&backend, &attempt).await.reason, ExitReason::Canceled);
    for plural in ["mpijobs", "jobs", "pods", "secrets"] {
        assert_eq!(count(&lab.cluster, plural), 0, "{plural}");
    }
}

/// Fact 4.3 again: nobody else has a clock before there is a launcher.
#[tokio::test(flavor = "multi_thread")]
async fn ranks_whose_image_is_missing_wait_and_are_given_up() {
    let mut lab = lab().await;
    lab.settings.pending_timeout_seconds = Some(2);
    let (backend, mut attempt) = (lab.backend(), mpi(lab.attempt("exits.py", &[])));
    attempt.plan.environment.image = Some("registry.example/none:1".into());
    lab.cluster.play(|plays| plays.missing_images.push("registry.example/none:1".into()));
    submit(&backend, &attempt).await;
    waits_for(&backend, &attempt, "ImagePullBackOff").await;
    assert!(exited(&backend, &attempt).await.start_error.unwrap().contains("registry.example/none:1"));
    assert_eq!((count(&lab.cluster, "mpijobs"), count(&lab.cluster, "pods")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_that_run_too_long_are_ended() {
    let lab = lab().await;
    let mut attempt = mpi(lab.attempt("exits.py", &[]));
    attempt.plan.max_run_duration_seconds = Some(1);
    let (backend, attempt, _) = started(&lab, attempt).await;
    assert_eq!(exited(&backend, &attempt).await.reason, ExitReason::MaxRunDurationExceeded);
    assert_eq!(count(&lab.cluster, "pods"), 0);
}

/// An operator that is installed anew takes its kind away for a while: nothing is concluded from that.
#[tokio::test(flavor = "multi_thread")]
async fn ranks_whose_kind_is_not_known_for_a_while_go_on() {
    let lab = lab().await;
    let (backend, attempt, launcher) = started(&lab, mpi(lab.attempt("exits.py", &[]))).await;
    lab.cluster.set_mpi(false);
    lab.cluster.drop_watches();
    until("the answer that says nothing", async || {
        matches!(lab.backend().observe(&attempt).await, Err(BackendError::Unavailable(_))).then_some(())
    })
    .await;
    lab.cluster.set_mpi(true);
    lab.cluster.end(&launcher, "script", 0);
    assert_eq!(exited(&backend, &attempt).await.exit_code, Some(0));
}

/// The pods are real processes; what stands for `sshd` is the rank itself, and what stands for `mpirun` waits for the ranks. What the
/// workers write is handed over when the operator, at the launcher's end, takes them away.
#[tokio::test(flavor = "multi_thread")]
async fn what_ranks_write_on_each_node_comes_back_when_the_operator_takes_the_nodes_away() {
    if !runs_processes() {
        return;
    }
    let lab = Kubernetes::new().await;
    let note = lab.note("written");
    lab.cluster.program(
        "sshd",
        &format!(
            "#!/bin/sh\ntrap 'echo late >outputs/$HOSTNAME.late; exit 0' TERM\ntest -f exits.py || exit 1\nmkdir -p outputs/all\n\
             echo \"$HOSTNAME\" >outputs/all/first\necho weights >outputs/$HOSTNAME\necho x >>{note}\n\
             while :; do sleep 0.05; done\n"
        ),
    );
    lab.cluster.program(
        "mpirun",
        &format!(
            "#!/bin/sh\nuntil [ \"$(wc -l <{note})\" = 2 ]; do sleep 0.05; done\nprintf '%s\\n' \"$@\"\n"
        ),
    );
    let (backend, mut attempt) = (lab.backend(), mpi(lab.attempt("exits.py", &["--lr", "0.1 $(x)"])));
    attempt.plan.process_count_per_node = 2;
    submit(&backend, &attempt).await;
    let exit = exited(&backend, &attempt).await;
    assert_eq!((exit.reason, exit.exit_code), (ExitReason::Exited, Some(0)));
    assert_eq!(backend.missing_files(&attempt).await.unwrap(), None);
    let outputs = backend.output_files(&attempt).await.unwrap();
    for index in 0..2 {
        let worker = format!("{}-worker-{index}", name(&attempt));
        assert_eq!(content(&outputs, &worker), "weights\n");
        assert_eq!(content(&outputs, &format!("{worker}.late")), "late\n", "TERM was heard, and waited for");
    }
    let first = content(&outputs, "all/first");
    assert_eq!(
        first.trim(),
        format!("{}-worker-0", name(&attempt)),
        "of two files of one name the first node's counts"
    );
    let logs = backend.log_files(&attempt).await.unwrap();
    let words: Vec<String> = content(&logs, "user_logs/std_log.txt").lines().map(ToOwned::to_owned).collect();
    assert_eq!(words[..2], ["-n", "4"], "{words:?}");
    assert!(words.ends_with(&["exits.py".to_owned(), "--lr".to_owned(), "0.1 $(x)".to_owned()]), "{words:?}");
    assert_eq!(count(&lab.cluster, "pods"), 1, "the launcher's, with its log");
}

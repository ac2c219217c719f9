//! `kill -9`, of everything there is.

use std::fs;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Scratch, Who, postgres_binary, root_or_skip, until};

/// A process of the test's own, ended with it.
struct Own(Child);

impl Own {
    fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
    if signal == Signal::SIGSTOP {
        // It stops when it is next scheduled; a signal sent meanwhile would be seen to first.
        until("the process has stopped", || is_stopped(pid).then_some(()));
    }
}

/// Whether a process is in the state `T` (proc(5), field 3).
fn is_stopped(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
}

#[tokio::test]
async fn the_server_follows_a_killed_service() {
    for who in [Who::Us, Who::Ordinary] {
        let scratch = Scratch::new(who);
        let mut service = scratch.serve();
        service.insert(1).await;
        service.signal(Signal::SIGKILL);
        service.wait();
        until("the server's end by the death signal", || scratch.processes().is_empty().then_some(()));
        assert!(scratch.log().trim_end().ends_with("database system is shut down"), "{}", scratch.log());
        assert_eq!(scratch.serve().rows().await, [1]);
    }
}

#[tokio::test]
async fn a_start_right_after_the_kill_takes_over() {
    let scratch = Scratch::new(Who::Us);
    for round in 1..=3 {
        let mut service = scratch.serve();
        service.insert(round).await;
        service.signal(Signal::SIGKILL);
        service.wait();
    }
    assert_eq!(scratch.serve().rows().await, [1, 2, 3]);
}

#[tokio::test]
async fn a_server_that_does_not_react_is_waited_for() {
    let scratch = Scratch::new(Who::Us);
    let mut service = scratch.serve();
    service.insert(1).await;
    let postmaster = scratch.postmaster();
    // It cannot end before this one does. Were it stopped itself, the kernel would continue it when its parent is gone.
    let child = scratch.processes().into_iter().find(|pid| *pid != postmaster).unwrap();
    send(child, Signal::SIGSTOP);
    service.signal(Signal::SIGKILL);
    service.wait();

    let mut next = scratch.spawn();
    until("the next service waits", || next.stderr().contains("earlier PostgreSQL").then_some(()));
    assert!(next.stderr().contains(&format!(" {postmaster}")), "{}", next.stderr());
    assert_eq!(scratch.postmaster(), postmaster);
    send(child, Signal::SIGCONT);
    next.ready();
    assert_ne!(scratch.postmaster(), postmaster);
    assert_eq!(next.rows().await, [1]);
}

#[tokio::test]
async fn a_child_that_outlives_its_server_is_waited_for() {
    takes_over_from_a_child(Who::Us).await;
}

#[tokio::test]
async fn a_child_that_outlives_its_server_is_waited_for_even_unseen() {
    if root_or_skip() {
        takes_over_from_a_child(Who::ConfinedRoot).await;
    }
}

/// Two generations of processes on one cluster would destroy it.
async fn takes_over_from_a_child(who: Who) {
    let scratch = Scratch::new(who);
    let mut service = scratch.serve();
    service.insert(1).await;
    let postmaster = scratch.postmaster();
    let child = scratch.processes().into_iter().find(|pid| *pid != postmaster).unwrap();
    send(child, Signal::SIGSTOP);
    send(postmaster, Signal::SIGKILL);
    assert_eq!(service.wait().code(), Some(70));
    until("only the stopped child is left", || (scratch.processes() == [child]).then_some(()));

    let mut next = scratch.spawn();
    until("the next service waits", || next.stderr().contains("earlier PostgreSQL").then_some(()));
    let seen = next.stderr().contains(&format!("pid {child}"));
    assert_eq!(seen, who == Who::Us, "{}", next.stderr());
    send(child, Signal::SIGCONT);
    next.ready();
    assert_eq!(next.rows().await, [1]);
}

#[tokio::test]
async fn a_server_nobody_looks_after_is_ended() {
    let scratch = Scratch::new(Who::Us);
    let service = scratch.serve();
    service.insert(1).await;
    assert_eq!(service.stop(), Some(0));

    let mut by_hand = scratch.as_owner(postgres_binary());
    by_hand.arg("-D").arg(scratch.cluster()).args(["-c", "listen_addresses=", "-c"]);
    by_hand.arg(format!("unix_socket_directories={}", scratch.data.join("pg.sock").display()));
    let orphan = Own::spawn(&mut by_hand);
    let pid_file = scratch.cluster().join("postmaster.pid");
    until("the orphan is up", || fs::read_to_string(&pid_file).ok()?.contains("ready").then_some(()));

    // The orphan stays a zombie until the end of the test, and must not matter.
    let next = scratch.serve();
    assert_ne!(scratch.postmaster(), orphan.pid());
    assert_eq!(next.rows().await, [1]);
}

#[tokio::test]
async fn a_killed_server_ends_the_service_with_70() {
    let scratch = Scratch::new(Who::Us);
    let mut service = scratch.serve();
    service.insert(1).await;
    send(scratch.postmaster(), Signal::SIGKILL);
    assert_eq!(service.wait().code(), Some(70));
    assert!(service.stderr().contains("SIGKILL"), "{}", service.stderr());

    assert_eq!(scratch.serve().rows().await, [1]);
}

#[tokio::test]
async fn acknowledged_rows_survive_the_end_of_everything_at_once() {
    let scratch = Scratch::new(Who::Us);
    let mut service = scratch.serve();
    service.insert(1).await;
    service.insert(2).await;
    let server = scratch.processes();
    assert!(server.len() > 1, "{server:?}");
    service.signal(Signal::SIGKILL);
    for pid in server {
        // The first kills make the others end by themselves.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    service.wait();

    let next = scratch.serve();
    assert_eq!(next.rows().await, [1, 2]);
    assert!(scratch.log().contains("automatic recovery in progress"), "{}", scratch.log());
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_stranger_is_no_obstacle() {
    let scratch = Scratch::new(Who::Us);
    let service = scratch.serve();
    service.insert(1).await;
    let pid_file = scratch.cluster().join("postmaster.pid");
    let content = fs::read_to_string(&pid_file).unwrap();
    let own_pid = scratch.postmaster().to_string();
    assert_eq!(service.stop(), Some(0));

    // Of the server's own account, as only such a one makes PostgreSQL hesitate. And it stands in the cluster.
    let mut sleep = scratch.as_owner("sleep");
    let stranger = Own::spawn(sleep.arg("600").current_dir(scratch.cluster()));
    let zombie = Own::spawn(&mut scratch.as_owner("true"));
    for other in [&stranger, &zombie] {
        let stale = content.replacen(&own_pid, &other.pid().to_string(), 1);
        fs::write(&pid_file, &stale).unwrap();
        fs::write(scratch.data.join("pg.sock/.s.PGSQL.5432.lock"), &stale).unwrap();
        let next = scratch.serve();
        assert_eq!(next.rows().await, [1]);
        assert_eq!(next.stop(), Some(0));
    }
    assert!(fs::read_link(format!("/proc/{}/cwd", stranger.pid())).is_ok(), "the stranger is alive");
}

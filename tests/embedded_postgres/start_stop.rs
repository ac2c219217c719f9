//! The ordinary course of things.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid, User, getpgid};

use crate::support::{Scratch, Service, Who, root_or_skip, until};

/// What must be true of every server, whoever runs it.
async fn assert_sound(scratch: &Scratch, service: &Service) {
    assert_eq!(service.setting("fsync").await, "on");
    assert_eq!(service.setting("listen_addresses").await, "");
    assert_eq!(service.setting("data_checksums").await, "on");
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(service.socket()), 0o700);
    assert_eq!(mode(&scratch.cluster()), 0o700);
    let leftovers = ["pg.init", "postgres.log.old"].map(|name| scratch.data.join(name).exists());
    assert_eq!(leftovers, [false, false]);
}

#[tokio::test]
async fn root_runs_the_server_under_another_account() {
    if !root_or_skip() {
        return;
    }
    let scratch = Scratch::new(Who::Us);
    let service = scratch.serve();
    assert_sound(&scratch, &service).await;
    let account = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).unwrap()).unwrap();
    assert_eq!(scratch.owner(), (account.uid.as_raw(), account.gid.as_raw()));
    // No group of root's is left to the server.
    let status = fs::read_to_string(format!("/proc/{}/status", scratch.postmaster())).unwrap();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
    assert_eq!(groups.trim(), account.gid.to_string());
    assert_eq!(service.stop(), Some(0));
}

#[tokio::test]
async fn an_ordinary_user_runs_the_server_itself() {
    let scratch = Scratch::new(Who::Ordinary);
    let service = scratch.serve();
    assert_sound(&scratch, &service).await;
    assert_ne!(scratch.owner().0, 0);
    assert_eq!(service.stop(), Some(0));
}

#[tokio::test]
async fn sigterm_stops_in_order_and_a_restart_has_the_data() {
    let scratch = Scratch::new(Who::Us);
    let service = scratch.serve();
    service.insert(1).await;
    assert_eq!(service.stop(), Some(0));
    assert_eq!(scratch.processes(), [0; 0]);
    assert!(!scratch.cluster().join("postmaster.pid").exists());
    assert!(scratch.log().trim_end().ends_with("database system is shut down"), "{}", scratch.log());

    let again = scratch.serve();
    assert_eq!(again.rows().await, [1]);
    assert_eq!(again.stop(), Some(0));
}

#[tokio::test]
async fn root_goes_on_with_the_cluster_of_an_ordinary_user() {
    if !root_or_skip() {
        return;
    }
    let scratch = Scratch::new(Who::Ordinary);
    let service = scratch.serve();
    service.insert(1).await;
    assert_eq!(service.stop(), Some(0));
    let owner = scratch.owner();

    let as_root = scratch.serve_as_us();
    assert_eq!(as_root.rows().await, [1]);
    assert_eq!(as_root.stop(), Some(0));
    assert_eq!(scratch.owner(), owner);
}

#[test]
fn ctrl_c_reaches_only_the_service_which_stops_the_server() {
    let scratch = Scratch::new(Who::Us);
    let mut service = scratch.serve();
    let group = getpgid(Some(Pid::from_raw(scratch.postmaster()))).unwrap();
    assert_ne!(group.as_raw(), service.pid());
    service.signal_group(Signal::SIGINT);
    assert_eq!(service.wait().code(), Some(0));
    assert_eq!(scratch.processes(), [0; 0]);
    assert!(scratch.log().trim_end().ends_with("database system is shut down"), "{}", scratch.log());
}

#[test]
fn sigterm_during_the_first_start_leaves_nothing_half() {
    let scratch = Scratch::new(Who::Us);
    let mut service = scratch.spawn();
    until("initdb at work", || scratch.data.join("pg.init").exists().then_some(()));
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait().code(), Some(0), "{}", service.stderr());
    assert_eq!(scratch.serve().stop(), Some(0));
}

#[tokio::test]
async fn what_an_interrupted_initdb_left_is_no_cluster() {
    let scratch = Scratch::new(Who::Us);
    fs::create_dir_all(scratch.data.join("pg.init/base")).unwrap();
    fs::write(scratch.data.join("pg.init/PG_VERSION"), "15\n").unwrap();
    if Uid::effective().is_root() {
        fs::set_permissions(&scratch.data, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let service = scratch.serve();
    assert_sound(&scratch, &service).await;
}

#[tokio::test]
async fn a_long_path_has_its_socket_elsewhere() {
    let mut scratch = Scratch::new(Who::Us);
    scratch.data = scratch.root().join("d".repeat(120)).join("data");
    let service = scratch.serve();
    let socket = service.socket().to_owned();
    assert!(!socket.starts_with(&scratch.data), "{}", socket.display());
    assert_sound(&scratch, &service).await;
    service.insert(1).await;
    assert_eq!(service.stop(), Some(0));
    assert!(!socket.exists());
    // The same place again, also with a directory left there by a killed service.
    let mut again = scratch.serve();
    assert_eq!(again.socket(), socket);
    again.signal(Signal::SIGKILL);
    again.wait();
    let last = scratch.serve();
    assert_eq!(last.rows().await, [1]);
    assert_eq!(last.stop(), Some(0));
}

#[tokio::test]
async fn a_path_may_contain_anything() {
    let mut scratch = Scratch::new(Who::Us);
    scratch.data = scratch.root().join("it's a, \"odd\" $path é");
    let service = scratch.serve();
    assert!(service.socket().starts_with(&scratch.data));
    service.insert(1).await;
    assert_eq!(service.stop(), Some(0));
}

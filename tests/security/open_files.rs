//! What processes have open: files of whoever started the service, and files that nobody sees any more.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use crate::{
    runs::{SECRET, answers, data_dir, default_command, is_root, notes, start, submit},
    service::Service,
};

/// A file that was removed while it is open is on the disk as before, whichever process has it open.
#[test]
fn files_without_a_name_are_counted_too() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    let service = start(dir.path(), &["--run-disk-bytes", "33554432"]);
    let written = "for _ in range(16): os.write(file, bytes(4 << 20))\ntime.sleep(60)\n";
    let open = "import mmap, os, time\nfile = os.open('outputs/u', os.O_RDWR | os.O_CREAT)\nos.unlink('outputs/u')\n";
    let mapped = "os.ftruncate(file, 64 << 20)\nmemory = mmap.mmap(file, 64 << 20)\nos.close(file)\n\
                  memory.write(bytes(64 << 20))\ntime.sleep(60)\n";
    let nameless = "import os, time\nfile = os.open('outputs', os.O_RDWR | os.O_TMPFILE)\n";
    for script in [format!("{open}{written}"), format!("{nameless}{written}"), format!("{open}{mapped}")] {
        let run = submit(&service, &script, &[]);
        let ended = service.until_status(&run, &["Failed"]);
        let detail = ended["detail"].as_str().expect("text");
        assert!(detail.contains("--run-disk-bytes allows 33554432"), "{script}: {ended:#}");
    }
    answers(&service);
}

/// Whoever starts the service may have something open that is nobody else's.
#[test]
fn what_was_open_when_the_service_was_started_is_open_to_no_run_and_no_database() {
    if !is_root() {
        return;
    }
    let (dir, notes) = (data_dir(), notes());
    let secret = notes.path().join("of-whoever-started-it");
    fs::write(&secret, "secret").expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("set");
    let key = notes.path().join("key");
    fs::write(&key, SECRET).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    let served = default_command(dir.path());
    let mut command = Command::new("sh");
    command.args(["-c", "exec 8< \"$1\" 9< \"$0\"; shift; exec \"$@\" --secret-key-file /dev/fd/8"]);
    command.arg(&secret).arg(&key).arg(served.get_program()).args(served.get_args());
    for (name, value) in served.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env_remove("ESTIMATORD_SECRET_KEY").stdin(Stdio::null());
    let service = Service::started(command, dir.path());
    let script = "import os\n\
                  for number in range(3, 100):\n\
                  \x20   try: print(number, os.readlink('/proc/self/fd/%d' % number))\n\
                  \x20   except OSError: pass\n\
                  print('looked')\n";
    let run = submit(&service, script, &[]);
    service.until_status(&run, &["Completed"]);
    let log = service.log_text(&run);
    assert!(log.contains("looked") && !log.contains(notes.path().to_str().expect("UTF-8")), "{log}");
    let postmaster = fs::read_to_string(dir.path().join("pg/postmaster.pid")).expect("read");
    let postmaster = postmaster.lines().next().expect("a pid").trim().to_owned();
    let open = fs::read_dir(format!("/proc/{postmaster}/fd")).expect("listed").flatten();
    let open: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(!open.is_empty() && open.iter().all(|path| !path.starts_with(notes.path())), "{open:?}");
    // It is the service's own still.
    let own = fs::read_link(format!("/proc/{}/fd/9", service.pid())).expect("open");
    assert_eq!(own, secret);
}

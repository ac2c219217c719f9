//! Scripts that try to get at what is not theirs, on the machine of the service.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::service::{self, Service, command, is_alive, until};

/// The users that runs get by default.
const USERS: std::ops::RangeInclusive<u64> = 70_000..=79_999;
/// Somebody without rights, as whom the service runs where it is not to be root. `initdb` wants somebody who has a name.
const NOBODY: u32 = 65_534;
/// Told to the service in secret.
pub(crate) const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";

/// Whether this can be tested: only root can give runs users of their own.
pub(crate) fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("not root: what only root can do is not tested");
    }
    is_root
}

/// A data directory as a service that is root makes it: everybody may pass through, nobody look.
pub(crate) fn data_dir() -> tempfile::TempDir {
    let dir = service::data_dir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("set");
    dir
}

/// A service as it is started by default, with a secret in its environment, and with a Python that every user can run.
pub(crate) fn default_command(data_dir: &Path) -> Command {
    let mut command = command(data_dir);
    command.env_remove("ESTIMATORD_RUN_UIDS").env("ESTIMATORD_SECRET_KEY", SECRET);
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

pub(crate) fn start(data_dir: &Path, options: &[&str]) -> Service {
    let mut command = default_command(data_dir);
    command.args(options);
    Service::started(command, data_dir)
}

/// Why a service did not start.
fn refused(mut command: Command) -> String {
    let output = command.output().expect("started");
    assert!(!output.status.success(), "it started");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A place outside of the data directory where everybody may write.
pub(crate) fn notes() -> tempfile::TempDir {
    let everybody = fs::Permissions::from_mode(0o777);
    let notes = tempfile::Builder::new().prefix("estimatord-notes-").permissions(everybody).tempdir();
    let notes = notes.expect("made");
    // Whatever the umask.
    fs::set_permissions(notes.path(), fs::Permissions::from_mode(0o777)).expect("set");
    notes
}

pub(crate) fn submit(service: &Service, script: &str, arguments: &[&str]) -> String {
    let mut definition = service.definition(script);
    let parameters = arguments.iter().map(|argument| ((*argument).to_owned(), json!("")));
    definition["script_params"] = Value::Object(parameters.collect());
    service.submit(&definition)
}

pub(crate) fn answers(service: &Service) {
    assert_eq!(service.call("GET", "/readyz", None).status, 200, "the service is up");
}

/// The processes that a user has.
fn processes_of(user: u64) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("listed").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        ids.split_ascii_whitespace().any(|id| id == user.to_string()) && is_alive(*pid)
    })
    .collect()
}

/// The number that is the first word of what a run printed.
fn printed_number(service: &Service, run: &str) -> u64 {
    let log = service.log_text(run);
    log.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{log}"))
}

/// A program that makes whoever runs it root, if it can: prints who it is.
fn setuid_program(directory: &Path) -> PathBuf {
    let path = directory.join("id");
    fs::copy("/usr/bin/id", &path).expect("copied");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("set");
    path
}

fn supervisor(data_dir: &Path, run: &str) -> i32 {
    let record = data_dir.join("runs").join(run).join("1/supervisor.json");
    let record: Value = serde_json::from_slice(&fs::read(record).expect("read")).expect("JSON");
    record["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a number")
}

/// Everything that a run could want, and what it got of it.
fn what_a_run_gets(service: &Service, data_dir: &Path, notes: &Path, service_user: u32) -> Value {
    let other = submit(service, "import time\ntime.sleep(60)\n", &[]);
    let run = service.until_status(&other, &["Running"]);
    assert_eq!(run["status"], "Running");
    let started = data_dir.join("runs").join(&other).join("1/started.json");
    let started: Value = serde_json::from_slice(&fs::read(started).expect("read")).expect("JSON");
    let mut victims = vec![i64::from(service.pid()), i64::from(supervisor(data_dir, &other))];
    victims.push(started["pid"].as_i64().expect("a number"));
    let sockets: Vec<String> = fs::read_dir(data_dir.join("pg.sock")).map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|entry| entry.path().to_str().expect("UTF-8").to_owned()).collect(),
    );
    let told = json!({
        "data_dir": data_dir, "other": other, "kill": victims, "secret": SECRET, "service_user": service_user,
        "setuid": setuid_program(notes), "sockets": sockets,
        "private": ["artifacts", "artifacts/snapshots", "uploads", "secret.key", "pg", "pg/PG_VERSION", "pg.lock", "pg.sock",
            "postgres.log", "service.lock", "cache"],
        "attempt": ["work", "work/train.py", "logs", "logs/user_logs/std_log.txt", "records", "data", "launch.json", "home", "tmp",
            "supervisor.json", "supervisor.lock", "supervisor.log", "exit.json", "user"],
    });
    let run = submit(service, include_str!("scripts/reaches.py"), &[&told.to_string()]);
    service.until_status(&run, &["Completed"]);
    assert!(service.log_text(&run).contains("output that was opened anew"));
    let got = service.call("GET", &format!("/v1/runs/{run}/outputs/got.json"), None).json();
    answers(service);
    assert_eq!(service.run(&other)["status"], "Running", "the other run is left alone");
    for victim in victims {
        assert!(is_alive(victim.try_into().expect("a pid")), "{victim} lives");
    }
    service.call("POST", &format!("/v1/runs/{other}/cancel"), None);
    service.until_status(&other, &["Canceled"]);
    got
}

#[test]
fn a_run_gets_at_nothing_that_is_not_its_own() {
    if !is_root() {
        return;
    }
    let (dir, notes) = (data_dir(), notes());
    let service = start(dir.path(), &[]);
    let got = what_a_run_gets(&service, dir.path(), notes.path(), 0);
    assert_eq!(got["got"], json!([]), "{got:#}");
    assert!(USERS.contains(&got["user"].as_u64().expect("a number")), "{got:#}");
}

/// A package of the source tree runs code while it is built: as the run's user, and not as the service.
#[test]
fn slow_a_package_gets_at_nothing_while_it_is_built() {
    if !is_root() {
        return;
    }
    let (dir, notes) = (data_dir(), notes());
    let service = start(dir.path(), &[]);
    let told = json!({"data_dir": dir.path(), "notes": notes.path(), "service": service.pid()});
    let backend = include_str!("scripts/build_backend.py").replace("@TOLD@", &told.to_string());
    let project = "[build-system]\nrequires = []\nbuild-backend = \"spy\"\nbackend-path = [\".\"]\n";
    let snapshot = service.upload(&[
        ("train.py", "import spied\nprint(spied.WORD)\n"),
        ("pkg/spy.py", &backend),
        ("pkg/pyproject.toml", project),
    ]);
    let definition = json!({"source_directory": snapshot, "compute_target": "local", "entry_script": "train.py",
        "use_docker": false, "pip_packages": ["spied @ file:./pkg"]});
    let run = service.submit(&definition);
    let ended = until("the run has ended", || {
        let run = service.run(&run);
        (!run["finished_at"].is_null()).then_some(run)
    });
    let got =
        fs::read_to_string(notes.path().join("got")).unwrap_or_else(|error| panic!("{error}: {ended:#}"));
    let mut users = std::collections::BTreeSet::new();
    for line in got.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["got"], json!([]), "{line:#}");
        users.insert(line["user"].as_u64().expect("a number"));
    }
    assert!(users.len() == 1 && users.iter().all(|user| USERS.contains(user)), "{users:?}");
    assert_eq!(ended["status"], "Completed", "{ended:#}");
    assert_eq!(service.log_text(&run), "built\n");
    answers(&service);
}

/// With its token a script reads its own run, as long as that lives, and does nothing else; our own command line takes it up.
#[test]
fn a_script_reads_its_own_run_and_no_other() {
    let dir = data_dir();
    let file = dir.path().join("tokens");
    fs::write(&file, "root the-token-of-the-operator\n").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    let mut command = default_command(dir.path());
    command.args(["--api-token-file", file.to_str().expect("UTF-8")]);
    let mut service = Service::started(command, dir.path());
    service.token = Some("the-token-of-the-operator".to_owned());
    let other = submit(&service, "print('other')", &[]);
    service.until_status(&other, &["Completed"]);
    let script = "import os, sys, urllib.request, urllib.error\n\
        def ask(method, path, token=os.environ['ESTIMATORD_TOKEN']):\n\
        \x20   headers = {'authorization': 'Bearer ' + token} if token else {}\n\
        \x20   request = urllib.request.Request(os.environ['ESTIMATORD_URL'] + path, method=method, headers=headers)\n\
        \x20   try: return urllib.request.urlopen(request).status\n\
        \x20   except urllib.error.HTTPError as error: return error.code\n\
        own, other = '/v1/runs/' + os.environ['AZUREML_RUN_ID'], '/v1/runs/' + sys.argv[1]\n\
        print(ask('GET', own), ask('GET', own + '/events'), ask('GET', own, None), ask('GET', other), ask('GET', '/v1/runs'),\n\
        \x20     ask('POST', own + '/cancel'), ask('GET', own + '/attempts/1/bundle'), ask('PUT', own + '/attempts/1/returned/x'))\n\
        print(os.environ['ESTIMATORD_TOKEN'])\n";
    let run = submit(&service, script, &[&other]);
    service.until_status(&run, &["Completed"]);
    let log = service.log_text(&run);
    let (answers, token) = log.trim_end().split_once('\n').expect("two lines");
    assert_eq!(answers, "200 200 401 401 401 401 401 401");
    service.token = Some(token.to_owned());
    assert_eq!(service.call("GET", &format!("/v1/runs/{run}"), None).status, 401, "it has ended");
}

#[test]
fn with_landlock_a_run_gets_at_nothing_either() {
    if !is_root() {
        return;
    }
    let (dir, notes) = (data_dir(), notes());
    let service = start(dir.path(), &["--run-sandbox", "landlock"]);
    // What a user of its own could read and write.
    fs::write(notes.path().join("open"), "to everybody").expect("written");
    let script = "import sys\n\
                  for path, mode in ((sys.argv[1] + '/open', 'r'), (sys.argv[1] + '/made', 'w'), ('/tmp/made-by-a-run', 'w')):\n\
                  \x20   try: open(path, mode); print('got', path)\n\
                  \x20   except PermissionError: print('refused')\n";
    let run = submit(&service, script, &[notes.path().to_str().expect("UTF-8")]);
    service.until_status(&run, &["Completed"]);
    assert_eq!(service.log_text(&run), "refused\n".repeat(3));
    answers(&service);
}

/// The same user for all, and Landlock in between: what a service can do that is not root.
#[test]
fn a_service_without_root_keeps_runs_away_with_landlock() {
    if !is_root() {
        return;
    }
    let (dir, notes) = (data_dir(), notes());
    nix::unistd::chown(dir.path(), Some(NOBODY.into()), Some(NOBODY.into())).expect("given");
    let mut command = default_command(dir.path());
    command.args(["--run-sandbox", "landlock"]).uid(NOBODY).gid(NOBODY);
    let service = Service::started(command, dir.path());
    let got = what_a_run_gets(&service, dir.path(), notes.path(), NOBODY);
    // The one thing that Landlock does not restrict before Linux 7: a socket that has a path.
    let others = got["got"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|what| !what.as_str().expect("text").starts_with("connect to"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&Value>::new(), "{got:#}");
    assert_eq!(got["user"], NOBODY);
}

/// Without Landlock a run of the same user could do much; it does not read what the service keeps in memory.
#[test]
fn a_service_without_root_is_closed_to_runs_and_promises_no_more() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    nix::unistd::chown(dir.path(), Some(NOBODY.into()), Some(NOBODY.into())).expect("given");
    let without_root = |options: &[&str]| {
        let mut command = default_command(dir.path());
        command.args(options).uid(NOBODY).gid(NOBODY);
        command
    };
    let said = refused(without_root(&["--run-uids", "70000-70009"]));
    assert!(said.contains("only root can start processes as other users"), "{said}");
    let said = refused(without_root(&["--run-processes", "10"]));
    assert!(said.contains("it would count the service's too"), "{said}");
    let service = Service::started(without_root(&[]), dir.path());
    let script = "import os, sys\n\
                  for pid in (int(sys.argv[1]), os.getppid()):\n\
                  \x20   for name in ('environ', 'mem', 'maps'):\n\
                  \x20       try: open('/proc/%d/%s' % (pid, name), 'rb').read(1); print('got', name)\n\
                  \x20       except OSError: print('refused')\n\
                  print([line for line in open('/proc/self/status') if line.startswith('NoNewPrivs')][0].split()[1])\n";
    let run = submit(&service, script, &[&service.pid().to_string()]);
    service.until_status(&run, &["Completed"]);
    assert_eq!(service.log_text(&run), format!("{}1\n", "refused\n".repeat(6)));
}

#[test]
fn what_a_run_leaves_behind_is_ended_and_removed() {
    if !is_root() {
        return;
    }
    let (dir, notes) = (data_dir(), notes());
    let service = start(dir.path(), &[]);
    let note = notes.path().join("daemons");
    let everybodys = everybodys().join(":");
    let arguments = [note.to_str().expect("UTF-8"), &everybodys];
    let run = submit(&service, include_str!("scripts/leaves.py"), &arguments);
    service.until_status(&run, &["Completed"]);
    nothing_is_left(&note, printed_number(&service, &run), 3);
    answers(&service);
}

/// Directories that everybody may write into: those that are on every machine, and one that is on most.
fn everybodys() -> Vec<&'static str> {
    let is_open = |path: &str| {
        fs::symlink_metadata(path)
            .is_ok_and(|found| found.is_dir() && found.permissions().mode() & 0o1002 == 0o1002)
    };
    let mut directories = vec!["/tmp", "/var/tmp", "/dev/shm"];
    directories.extend(is_open("/run/lock").then_some("/run/lock"));
    directories
}

fn nothing_is_left(note: &Path, user: u64, daemons: usize) {
    assert!(USERS.contains(&user), "{user}");
    let pids = fs::read_to_string(note).expect("read");
    assert_eq!(pids.lines().count(), daemons);
    for pid in pids.lines() {
        assert!(!is_alive(pid.parse().expect("a pid")), "{pid} lives");
    }
    assert_eq!(processes_of(user), Vec::<i32>::new());
    for directory in everybodys() {
        assert!(!Path::new(directory).join(format!("left-by-{user}")).exists(), "{directory}");
    }
}

/// Its supervisor is killed while the run hides its processes: by their user they are found.
#[test]
fn a_run_that_hides_is_found_without_its_supervisor() {
    if !is_root() {
        return;
    }
    let (dir, notes) = (data_dir(), notes());
    let service = start(dir.path(), &[]);
    let note = notes.path().join("daemons");
    let everybodys = everybodys().join(":");
    let arguments = [note.to_str().expect("UTF-8"), &everybodys, "stays"];
    let run = submit(&service, include_str!("scripts/leaves.py"), &arguments);
    let user = until("it hides", || {
        let log = service.log_text(&run);
        log.split_ascii_whitespace().next().and_then(|word| word.parse().ok())
    });
    kill(nix::unistd::Pid::from_raw(supervisor(dir.path(), &run)), Signal::SIGKILL).expect("killed");
    let run = service.until_status(&run, &["Failed"]);
    assert_eq!(run["cause"], "compute_lost", "{run:#}");
    nothing_is_left(&note, user, 3);
    answers(&service);
}

#[test]
fn a_run_that_forks_on_and_on_is_held_and_ended() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    let service = start(dir.path(), &["--run-processes", "24"]);
    let run = submit(&service, include_str!("scripts/forks.py"), &[]);
    service.until_status(&run, &["Completed"]);
    let log = service.log_text(&run);
    let words: Vec<&str> = log.split_ascii_whitespace().collect();
    assert_eq!(words[2], "True", "it was refused: {log}");
    assert!(words[1].parse::<u32>().expect("a number") < 24, "{log}");
    assert_eq!(processes_of(words[0].parse().expect("a number")), Vec::<i32>::new());
    answers(&service);
}

#[test]
fn limits_hold_and_the_end_says_which() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    let limits = ["--run-memory-bytes", "536870912", "--run-open-files", "64", "--run-file-bytes", "8388608"];
    let service = start(dir.path(), &[&limits[..], &["--run-disk-bytes", "33554432"]].concat());
    let memory = submit(&service, "bytearray(1 << 30)\n", &[]);
    let files = submit(&service, "files = [open('/dev/null') for _ in range(100)]\n", &[]);
    let one = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n\
               with open('outputs/large', 'wb') as file:\n\x20   for _ in range(16): file.write(bytes(1 << 20)); file.flush()\n";
    let one = submit(&service, one, &[]);
    let core = submit(&service, "import os\nos.abort()\n", &[]);
    let ends = |run: &str| service.until_status(run, &["Failed"]);
    ends(&memory);
    assert!(service.log_text(&memory).contains("MemoryError"), "{}", service.log_text(&memory));
    ends(&files);
    assert!(service.log_text(&files).contains("Too many open files"), "{}", service.log_text(&files));
    let ended = ends(&one);
    assert!(ended["detail"].as_str().expect("text").contains("--run-file-bytes"), "{ended:#}");
    let ended = ends(&core);
    assert_eq!(ended["signal"], 6, "{ended:#}");
    let last = everybodys().pop().expect("one");
    for place in ["outputs", "/dev/shm", "/tmp", last] {
        let script = "import sys, time\nplace = sys.argv[1]\n\
                      for n in range(16):\n\x20   open('%s/filler-%d' % (place, n), 'wb').write(bytes(4 << 20))\n\
                      time.sleep(60)\n";
        let run = submit(&service, script, &[place]);
        let ended = ends(&run);
        assert_eq!(ended["cause"], "script_failed", "{ended:#}");
        assert!(
            ended["detail"].as_str().expect("text").contains("--run-disk-bytes allows 33554432"),
            "{ended:#}"
        );
        assert!(!Path::new(place).join("filler-0").exists() || place == "outputs", "{place}");
    }
    answers(&service);
}

/// Deeper than any stack: whoever goes down into it does not come back.
#[test]
fn a_run_that_nests_directories_brings_nobody_down() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    let service = start(dir.path(), &[]);
    let script = "import os\nopen('outputs/kept', 'w').close()\nos.chdir('outputs')\n\
                  for _ in range(20000):\n\x20   os.mkdir('a')\n\x20   os.chdir('a')\n";
    let run = submit(&service, script, &[]);
    service.until_status(&run, &["Completed"]);
    assert_eq!(service.call("GET", &format!("/v1/runs/{run}/outputs/kept"), None).status, 200);
    let attempt = dir.path().join("runs").join(&run);
    // Removing a directory takes a file system a millisecond or several.
    let deadline = Instant::now() + Duration::from_secs(240);
    while attempt.exists() {
        answers(&service);
        assert!(Instant::now() < deadline, "not in time: what it left is removed");
        std::thread::sleep(Duration::from_millis(100));
    }
    answers(&service);
}

/// An interpreter of the source tree is asked who it is before the run begins: by the run's user.
#[test]
fn an_interpreter_of_the_source_tree_is_nobody_before_the_run_either() {
    if !is_root() {
        return;
    }
    let (dir, notes) = (data_dir(), notes());
    let service = start(dir.path(), &[]);
    let interpreter = format!(
        "#!/bin/sh\nid -u >> {0}/users\ncat {1}/service.lock >> {0}/stolen\nexec /usr/bin/python3 \"$@\"\n",
        notes.path().display(),
        dir.path().display()
    );
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text, mode) in [("train.py", "print('ran')\n", 0o644), ("python", &*interpreter, 0o755)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, path, text.as_bytes()).expect("packed");
    }
    let bytes = archive.into_inner().expect("packed");
    let answer = service.send("POST", "/v1/snapshots", Some(("application/x-tar", bytes)));
    let snapshot = answer.json()["id"].as_str().expect("an id").to_owned();
    let definition = json!({"source_directory": snapshot, "compute_target": "local", "entry_script": "train.py",
        "use_docker": false,
        "environment_definition": {"python": {"user_managed_dependencies": true, "interpreter_path": "./python"}}});
    let run = service.submit(&definition);
    service.until_status(&run, &["Completed"]);
    assert_eq!(service.log_text(&run).lines().last(), Some("ran"));
    let users = fs::read_to_string(notes.path().join("users")).expect("read");
    assert!(users.lines().count() >= 2, "before and as the run: {users}");
    for user in users.lines() {
        assert!(USERS.contains(&user.parse().expect("a number")), "{users}");
    }
    assert_eq!(fs::read_to_string(notes.path().join("stolen")).expect("made"), "");
}

#[test]
fn what_cannot_be_kept_apart_is_refused_at_the_start() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    let artifacts = dir.path().join("artifacts");
    fs::create_dir(&artifacts).expect("made");
    fs::set_permissions(&artifacts, fs::Permissions::from_mode(0o755)).expect("set");
    let said = refused(default_command(dir.path()));
    assert!(said.contains("would get at") && said.contains("/artifacts"), "{said}");
    fs::set_permissions(&artifacts, fs::Permissions::from_mode(0o700)).expect("set");
    let mut occupied = default_command(dir.path());
    occupied.args(["--run-uids", "60000-70000"]);
    assert!(refused(occupied).contains("somebody's on every machine"));
    let service = start(dir.path(), &[]);
    let run = submit(&service, "print('ran')\n", &[]);
    service.until_status(&run, &["Completed"]);
}

//! A container as a real process: a root file system made of this machine's own and the pod's volumes, and processes that see no
//! others. It runs as whoever runs the tests, which has to be root: `runAsUser` is not heeded.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use super::logs::Logs;

/// What an image has on its PATH.
const PATH: &str = "/service-bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the root and becomes the container: `$1` is the root, then the service's program and a directory of others, pairs of place
/// and path up to `--`, the working directory, and the command.
const ENTER: &str = r#"set -e
root=$1 program=$2 programs=$3; shift 3
mount --make-rprivate /
mount -t tmpfs none "$root"
for top in /*; do
    case $top in /proc|/dev|/sys|/tmp|/work|/run|/lost+found) continue ;; esac
    if [ -L "$top" ]; then cp -P "$top" "$root$top"
    elif [ -d "$top" ]; then mkdir "$root$top"; mount --rbind "$top" "$root$top"; fi
done
mkdir "$root/proc" "$root/dev" "$root/tmp" "$root/service-bin"
chmod 1777 "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
touch "$root/service-bin/estimatord"
mount --bind "$program" "$root/service-bin/estimatord"
for own in "$programs"/*; do
    if [ -f "$own" ]; then touch "$root/service-bin/${own##*/}"; mount --bind "$own" "$root/service-bin/${own##*/}"; fi
done
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$(dirname "$root$2")"; touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    shift 2
done
shift
directory=$1; shift
exec chroot "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$directory" "$@" </dev/null 2>&1
"#;

/// A container that runs.
pub struct Running {
    child: Child,
    reading: Option<JoinHandle<()>>,
}

/// What Kubernetes makes of `$(NAME)` and `$$`.
pub fn expanded(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        if let Some(more) = rest.strip_prefix('$') {
            out.push('$');
            rest = more;
        } else if let Some((name, more)) = rest.strip_prefix('(').and_then(|more| more.split_once(')')) {
            match env.iter().find(|(known, _)| known == name) {
                Some((_, value)) => out += value,
                None => out += &format!("$({name})"),
            }
            rest = more;
        } else {
            out.push('$');
        }
    }
    out + rest
}

fn environment(pod: &str, container: &Value, secret: impl Fn(&str, &str) -> String) -> Vec<(String, String)> {
    let mut env = vec![
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOSTNAME".to_owned(), pod.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
    ];
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap_or_default().to_owned();
        let from = &variable["valueFrom"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let value = match from["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => pod.to_owned(),
            Some(other) => panic!("{other} is not known here"),
            None if from["secretKeyRef"].is_object() => {
                secret(&text(&from["secretKeyRef"]["name"]), &text(&from["secretKeyRef"]["key"]))
            }
            None => expanded(variable["value"].as_str().unwrap_or_default(), &env),
        };
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
    env
}

/// Starts a container.
pub fn start(
    pod: &str,
    container: &Value,
    secret: impl Fn(&str, &str) -> String,
    root: &Path,
    mounts: &[(PathBuf, String)],
    (program, programs): (&Path, &Path),
    logs: Arc<Logs>,
) -> Running {
    fs::create_dir_all(root).unwrap();
    let env = environment(pod, container, secret);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"])
        .args([root, program, programs]);
    // Those that are mounted in others come after them.
    let mut mounts = mounts.to_vec();
    mounts.sort_by_key(|(_, path)| path.matches('/').count());
    for (place, path) in &mounts {
        command.arg(place).arg(path);
    }
    command.arg("--").arg(container["workingDir"].as_str().unwrap_or("/"));
    for list in ["command", "args"] {
        for word in container[list].as_array().into_iter().flatten() {
            let word = expanded(word.as_str().unwrap_or_default(), &env);
            // No image is here that has one: a test brings its own.
            command.arg(if word == "/usr/sbin/sshd" { "sshd" } else { &word });
        }
    }
    let mut child = command
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let (pod, output) = (pod.to_owned(), child.stdout.take().unwrap());
    let reading = tokio::spawn(async move {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            logs.line(&pod, &name, &line);
            line.clear();
        }
    });
    Running { child, reading: Some(reading) }
}

impl Running {
    /// Waits for its end, and for all that it wrote. Answers the exit code as a container runtime does.
    pub async fn wait(&mut self) -> i32 {
        let status = self.child.wait().await.unwrap();
        if let Some(reading) = self.reading.take() {
            reading.await.unwrap();
        }
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// The first process of the container, once it is in its root.
    fn first(&self) -> Option<Pid> {
        let outer = self.child.id()?;
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        let first: i32 = children.split_whitespace().next()?.parse().ok()?;
        let root = fs::read_link(format!("/proc/{first}/root")).ok()?;
        (root != Path::new("/")).then_some(Pid::from_raw(first))
    }

    /// Waits until it is in its root: a real runtime starts it there. It may have ended by then.
    pub async fn entered(&mut self) {
        while self.first().is_none() && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Runs a command in the container, as probes and hooks do; whether it succeeded. One that has ended has no place for it.
    pub async fn exec(&self, command: &Value) -> bool {
        let Some(first) = self.first() else { return true };
        let words = command.as_array().into_iter().flatten().filter_map(Value::as_str);
        let status = Command::new("nsenter")
            .args(["--mount", "--pid", "--root", "--wd=/", "--target", &first.to_string()])
            .args(words)
            .env("PATH", PATH)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await;
        status.is_ok_and(|status| status.success())
    }

    fn signal(&self, signal: Signal) {
        if let Some(first) = self.first() {
            let _ = kill(first, signal);
        }
    }

    /// TERM for the first process, which a real one ignores unless it has asked for it.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// KILL for all.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }
}

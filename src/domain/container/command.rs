//! The command line of `docker run` and `podman run`.

use super::ContainerRuntime;

/// A place of the machine that a container sees, at the same or another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On the machine, absolute.
    pub source: String,
    /// In the container, absolute.
    pub target: String,
    /// Whether it can be read only.
    pub read_only: bool,
}

impl Mount {
    /// A place at the same path inside and outside, so that a path means the same on both sides.
    #[must_use]
    pub fn same(path: String, read_only: bool) -> Self {
        Self { target: path.clone(), source: path, read_only }
    }

    /// The value of `--mount`, which is one line of comma-separated values.
    fn value(&self) -> String {
        let field = |key: &str, path: &str| {
            let text = format!("{key}={path}");
            if text.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", text.replace('"', "\"\""))
            } else {
                text
            }
        };
        let mut value =
            format!("type=bind,{},{}", field("source", &self.source), field("target", &self.target));
        if self.read_only {
            value.push_str(",readonly");
        }
        value
    }
}

/// One container, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// Which runtime starts it.
    pub runtime: ContainerRuntime,
    /// Its name: one attempt has one.
    pub name: &'a str,
    /// By which containers of this service are told from others, `key=value`.
    pub label: &'a str,
    /// The image, by name or by id. It is there: nothing is pulled at the start.
    pub image: &'a str,
    /// The size of `/dev/shm` in Docker's grammar.
    pub shm_size: Option<&'a str>,
    /// Whether it is given the machine's GPUs.
    pub gpus: bool,
    /// User and group of its processes; the image's own where absent.
    pub user: Option<(u32, u32)>,
    /// Where its command starts.
    pub working_directory: &'a str,
    /// What it sees of the machine.
    pub mounts: &'a [Mount],
    /// Arguments of the definition's own, as they were sent.
    pub arguments: &'a [String],
    /// What runs in it, one element an argument.
    pub command: &'a [&'a str],
}

/// An argument of the definition that would be taken for the image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` in the docker arguments belongs to no option: it would be taken for the image. Write an option with its value \
     as `--option=value`"
)]
pub struct StrayArgument(pub String);

/// Refuses arguments that are neither options nor can be the value of one.
///
/// # Errors
/// With the first such argument.
pub fn check_arguments(arguments: &[String]) -> Result<(), StrayArgument> {
    let mut may_be_value = false;
    for argument in arguments {
        let is_option = argument.len() > 1 && argument.starts_with('-') && argument != "--";
        if !is_option && !may_be_value {
            return Err(StrayArgument(argument.clone()));
        }
        may_be_value = is_option && !argument.contains('=');
    }
    Ok(())
}

/// What the runtime's program is started with.
#[must_use]
pub fn run_arguments(container: &Container<'_>) -> Vec<String> {
    // By these the container is found again. Twice: before and after what the definition says, so that neither an
    // option of it nor a word that it smuggles in as the image makes a container that cannot be found.
    let identity = ["--name", container.name, "--label", container.label];
    let mut arguments = vec!["run".to_owned()];
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    add(&identity);
    // The same network as a script without a container has.
    add(&["--network", "host"]);
    if let Some(size) = container.shm_size {
        add(&["--shm-size", size]);
    }
    if container.gpus {
        match container.runtime {
            ContainerRuntime::Docker => add(&["--gpus", "all"]),
            // Podman takes GPUs by their CDI name, in every version that can give any.
            ContainerRuntime::Podman => add(&["--device", "nvidia.com/gpu=all"]),
        }
    }
    if let Some((user, group)) = container.user {
        add(&["--user", &format!("{user}:{group}")]);
    }
    arguments.extend_from_slice(container.arguments);
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    add(&identity);
    // Supervised in the foreground, removed when it ends, and never restarted behind our back.
    add(&["--rm", "--init", "--detach=false", "--tty=false", "--interactive=false", "--pull", "never"]);
    // The script writes its own log: a copy of what the runtime would keep serves nobody.
    add(&["--log-driver", "none"]);
    // Docker's init passes signals on to the whole process group when told to; Podman's processes are told one by one.
    add(&["--env", "TINI_KILL_PROCESS_GROUP=1"]);
    for mount in container.mounts {
        add(&["--mount", &mount.value()]);
    }
    add(&["--workdir", container.working_directory]);
    let (program, rest) = container.command.split_first().unwrap_or((&"/bin/sh", &[]));
    add(&["--entrypoint", program, container.image]);
    add(rest);
    arguments
}

/// A command that prepares something in a container: it looks at an image, or builds for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool<'a> {
    /// The container's name.
    pub name: &'a str,
    /// By which such containers are found, `key=value`.
    pub label: &'a str,
    /// The image, by name or by id.
    pub image: &'a str,
    /// User and group; the image's own where absent.
    pub user: Option<(u32, u32)>,
    /// What it sees of the machine.
    pub mounts: &'a [Mount],
    /// Names of variables whose values the runtime's program finds in its own environment: they may hold secrets.
    pub variables: &'a [String],
    /// Where its command starts.
    pub working_directory: &'a str,
}

/// What the runtime's program is started with for a tool; the command follows.
#[must_use]
pub fn tool_arguments(tool: &Tool<'_>, program: &str) -> Vec<String> {
    let mut arguments = vec!["run".to_owned()];
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["--name", tool.name, "--label", tool.label, "--rm", "--init", "--pull", "never"]);
    add(&["--network", "host"]);
    if let Some((user, group)) = tool.user {
        add(&["--user", &format!("{user}:{group}")]);
    }
    for variable in tool.variables {
        add(&["--env", variable]);
    }
    for mount in tool.mounts {
        add(&["--mount", &mount.value()]);
    }
    add(&["--workdir", tool.working_directory, "--entrypoint", program, tool.image]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container<'a>(mounts: &'a [Mount], arguments: &'a [String]) -> Container<'a> {
        Container {
            runtime: ContainerRuntime::Docker,
            name: "estimatord-1-1",
            label: "estimatord.attempt=1.1",
            image: "sha256:00",
            shm_size: Some("2g"),
            gpus: false,
            user: None,
            working_directory: "/data/work",
            mounts,
            arguments,
            command: &["/bin/sh", "/data/run.sh"],
        }
    }

    #[test]
    fn the_whole_command_line() {
        let mounts = [Mount::same("/data/work".into(), false), Mount::same("/data/env".into(), true)];
        assert_eq!(
            run_arguments(&container(&mounts, &[])).join(" "),
            "run --name estimatord-1-1 --label estimatord.attempt=1.1 --network host --shm-size 2g \
             --name estimatord-1-1 --label estimatord.attempt=1.1 \
             --rm --init --detach=false --tty=false --interactive=false --pull never --log-driver none \
             --env TINI_KILL_PROCESS_GROUP=1 \
             --mount type=bind,source=/data/work,target=/data/work \
             --mount type=bind,source=/data/env,target=/data/env,readonly \
             --workdir /data/work --entrypoint /bin/sh sha256:00 /data/run.sh"
        );
    }

    #[test]
    fn a_tool_s_command_line() {
        let tool = Tool {
            name: "estimatord-build-1",
            label: "estimatord.build=1",
            image: "sha256:00",
            user: Some((10, 20)),
            mounts: &[Mount::same("/e".into(), false)],
            variables: &["UV_INDEX_URL".into()],
            working_directory: "/e",
        };
        assert_eq!(
            tool_arguments(&tool, "/bin/uv").join(" "),
            "run --name estimatord-build-1 --label estimatord.build=1 --rm --init --pull never --network host \
             --user 10:20 --env UV_INDEX_URL --mount type=bind,source=/e,target=/e --workdir /e \
             --entrypoint /bin/uv sha256:00"
        );
    }

    #[test]
    fn gpus_are_asked_for_in_each_runtime_s_words() {
        let docker = Container { gpus: true, ..container(&[], &[]) };
        assert!(run_arguments(&docker).windows(2).any(|pair| pair == ["--gpus", "all"]));
        let podman = Container { runtime: ContainerRuntime::Podman, ..docker };
        let arguments = run_arguments(&podman);
        assert!(arguments.windows(2).any(|pair| pair == ["--device", "nvidia.com/gpu=all"]));
        assert!(!arguments.contains(&"--gpus".to_owned()));
    }

    #[test]
    fn the_user_is_named_where_it_is_not_the_image_s() {
        let container = Container { user: Some((1000, 100)), shm_size: None, ..container(&[], &[]) };
        let arguments = run_arguments(&container);
        assert!(arguments.windows(2).any(|pair| pair == ["--user", "1000:100"]));
        assert!(!arguments.contains(&"--shm-size".to_owned()));
    }

    #[test]
    fn what_the_definition_says_comes_before_what_must_hold() {
        let own = ["--name=mine", "-d", "--shm-size=8g"].map(str::to_owned);
        let arguments = run_arguments(&container(&[], &own));
        let place = |word: &str| arguments.iter().position(|argument| argument == word).unwrap();
        let last = |word: &str| arguments.iter().rposition(|argument| argument == word).unwrap();
        // Of options that are given twice the last one counts.
        assert!(place("--name=mine") < last("--name"));
        assert!(place("-d") < place("--detach=false"));
        assert!(place("--shm-size") < place("--shm-size=8g"));
        assert!(last("--name") < place("sha256:00"));
    }

    #[test]
    fn paths_with_commas_and_quotes_are_one_field() {
        let mount = Mount { source: "/a,b\"c".into(), target: "/t".into(), read_only: true };
        assert_eq!(mount.value(), "type=bind,\"source=/a,b\"\"c\",target=/t,readonly");
    }

    #[test]
    fn a_word_that_belongs_to_no_option_is_refused() {
        let check = |words: &[&str]| {
            check_arguments(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        for good in [&[][..], &["--network", "none"], &["-v=/a:/b", "--cap-add=X"], &["-e", "A=1", "-e", "B"]]
        {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for (bad, word) in [
            (&["alpine"][..], "alpine"),
            (&["--network=none", "sh"], "sh"),
            (&["-e", "A", "b"], "b"),
            (&["--"], "--"),
            (&["-"], "-"),
            (&[""], ""),
        ] {
            assert_eq!(check(bad), Err(StrayArgument(word.to_owned())), "{bad:?}");
        }
    }
}

//! Registry passwords on their way to the runtime: from the service's memory through a socket to a credential helper,
//! which is this binary under another name. Nothing of it is on a disk, in an environment or in a command line.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Map, Value, json};
use tokio::{io::AsyncWriteExt as _, net::UnixListener, task::JoinHandle};

use crate::backend::RegistryLogin;

/// The name by which runtimes find the helper on `PATH`.
pub const HELPER: &str = "docker-credential-estimatord";
/// What its name ends with in the runtimes' configuration.
const HELPER_SUFFIX: &str = "estimatord";
/// Tells the helper where to ask.
const SOCKET_VARIABLE: &str = "ESTIMATORD_CREDENTIALS";
/// The names under which the runtimes know Docker's own registry.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "https://index.docker.io/v1/"];

/// A configuration directory for one pull, gone with this value.
pub(super) struct Login {
    directory: tempfile::TempDir,
    answering: JoinHandle<()>,
}

impl Drop for Login {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Login {
    /// Makes a configuration in which the registry's password comes from this service.
    pub(super) fn new(
        own_binary: &Path,
        registry: &str,
        login: &RegistryLogin,
        environment: &[(String, String)],
    ) -> io::Result<Self> {
        // The addresses of sockets hold about 100 bytes: not below the data directory, whose name may be long.
        let directory = tempfile::Builder::new().prefix("estd-login-").tempdir()?;
        symlink(own_binary, directory.path().join(HELPER))?;
        let configuration = configuration(own_configuration(environment), registry);
        fs::write(directory.path().join("config.json"), serde_json::to_vec(&configuration)?)?;
        let listener = UnixListener::bind(directory.path().join("socket"))?;
        let answer = json!({"Username": login.username, "Secret": login.password.expose()}).to_string();
        let answering = tokio::spawn(async move {
            // Whoever may enter the directory is the service's user.
            while let Ok((mut stream, _)) = listener.accept().await {
                // A helper that has gone away needs no answer.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { directory, answering })
    }

    /// What the runtime is started with besides its usual environment.
    pub(super) fn environment(&self, usual: &[(String, String)]) -> Vec<(String, String)> {
        let directory = self.directory.path().to_string_lossy().into_owned();
        let path = usual.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
        vec![
            ("PATH".to_owned(), format!("{directory}:{path}")),
            ("DOCKER_CONFIG".to_owned(), directory.clone()),
            ("REGISTRY_AUTH_FILE".to_owned(), format!("{directory}/config.json")),
            (SOCKET_VARIABLE.to_owned(), format!("{directory}/socket")),
        ]
    }
}

/// The operator's own configuration of the runtime's program: proxies and the like go on holding.
fn own_configuration(environment: &[(String, String)]) -> Map<String, Value> {
    let variable = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let directory = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(home).join(".docker")));
    // None, or one that cannot be read, is the same to a pull that brings its own credentials.
    directory
        .and_then(|directory| fs::read(directory.join("config.json")).ok())
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn configuration(mut own: Map<String, Value>, registry: &str) -> Map<String, Value> {
    let is_hub = DOCKER_HUB.contains(&registry);
    let names = if is_hub { DOCKER_HUB.to_vec() } else { vec![registry] };
    // A context is a file beside the configuration, which is not there any more; its address is in the environment or
    // the default one.
    own.remove("currentContext");
    if let Some(Value::Object(kept)) = own.get_mut("auths") {
        for name in &names {
            kept.remove(*name);
        }
    }
    let helpers = own.entry("credHelpers").or_insert_with(|| Value::Object(Map::new()));
    if !helpers.is_object() {
        *helpers = Value::Object(Map::new());
    }
    if let Value::Object(helpers) = helpers {
        for name in names {
            helpers.insert(name.to_owned(), HELPER_SUFFIX.into());
        }
    }
    own
}

/// Runs as the credential helper that Docker and Podman ask: one word says what, the registry comes on standard input.
#[must_use]
pub fn credential_helper() -> ExitCode {
    match answer(std::env::args().nth(1).as_deref()) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // The protocol: what is wrong goes to standard output.
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(question: Option<&str>) -> io::Result<String> {
    match question {
        Some("get") => {
            let mut registry = String::new();
            io::stdin().read_to_string(&mut registry)?;
            let socket = std::env::var(SOCKET_VARIABLE).map_err(io::Error::other)?;
            let mut stream = UnixStream::connect(socket)?;
            stream.flush()?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            let mut credentials: Map<String, Value> = serde_json::from_str(&text)?;
            credentials.insert("ServerURL".to_owned(), registry.trim().into());
            Ok(Value::Object(credentials).to_string())
        }
        Some("list") => Ok("{}".to_owned()),
        _ => Err(io::Error::other("this helper only gets: nothing is stored or erased")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_s_settings_stay_and_the_registry_asks_the_helper() {
        let own = json!({"proxies": {"default": {}}, "currentContext": "far", "auths": {"r:5000": {"auth": "x"}, "s": {}},
            "credHelpers": {"gcr.io": "gcloud"}});
        let Value::Object(own) = own else { unreachable!("an object was written") };
        let made = Value::Object(configuration(own, "r:5000"));
        let expected = json!({"proxies": {"default": {}}, "auths": {"s": {}},
            "credHelpers": {"gcr.io": "gcloud", "r:5000": "estimatord"}});
        assert_eq!(made, expected);
        let hub = configuration(Map::new(), "docker.io");
        assert_eq!(hub["credHelpers"]["https://index.docker.io/v1/"], "estimatord");
    }

    #[tokio::test]
    async fn the_password_is_in_no_file() {
        let login = RegistryLogin {
            username: "user".to_owned(),
            password: crate::domain::secret::Secret::new("c4n4ry".to_owned()),
        };
        let made = Login::new(Path::new("/bin/true"), "r:5000", &login, &[]).unwrap();
        let directory = made.directory.path().to_owned();
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.extension().is_some() {
                assert!(!fs::read_to_string(&path).unwrap().contains("c4n4ry"));
            }
        }
        let environment = made.environment(&[("PATH".to_owned(), "/usr/bin".to_owned())]);
        assert!(environment.iter().all(|(_, value)| !value.contains("c4n4ry")));
        let socket = environment.into_iter().find(|(name, _)| name == SOCKET_VARIABLE).unwrap().1;
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            UnixStream::connect(socket)?.read_to_string(&mut text)?;
            Ok::<_, io::Error>(text)
        });
        let answered: Value = serde_json::from_str(&read.await.unwrap().unwrap()).unwrap();
        assert_eq!(answered, json!({"Username": "user", "Secret": "c4n4ry"}));
        drop(made);
        assert!(!directory.exists());
    }
}

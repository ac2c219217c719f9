//! What is asked of an API server. Every call ends: with an answer, or after a while without.

use std::{future::Future, path::Path, time::Duration};

use futures_util::AsyncBufRead;
use http::{Method, Request};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::BackendError;
use crate::domain::kubernetes::{self, Kind, KubernetesSettings, MANAGED_BY, Pod, RUN_LABEL, Workload};

/// How long a call may take, with what the client tries again by itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that is silent for so long is made anew: the other end may be gone without a word. Watches end sooner by
/// themselves ([`WATCH_SECONDS`]).
const SILENCE: Duration = Duration::from_secs(90);
/// How long the API server keeps a watch open.
pub(super) const WATCH_SECONDS: u32 = 60;

/// What came of a call.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// There is no such object, namespace or kind.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or the object is another one.
    #[error("{0}")]
    Conflict(String),
    /// It may not be, or is not valid.
    #[error("{0}")]
    Refused(String),
    /// Nothing is known of what became of it.
    #[error("{0}")]
    Unavailable(String),
}

impl From<CallError> for BackendError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(said) | CallError::NotFound(said) => Self::Refused(said),
            CallError::Conflict(said) | CallError::Unavailable(said) => Self::Unavailable(said),
        }
    }
}

/// A namespace of a cluster.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    namespace: String,
}

/// The path of the objects of a kind.
fn collection(kind: Kind, namespace: &str) -> String {
    match kind {
        Kind::Job => format!("/apis/batch/v1/namespaces/{namespace}/jobs"),
        Kind::MpiJob => format!("/apis/kubeflow.org/v2beta1/namespaces/{namespace}/mpijobs"),
    }
}

fn query(parameters: &[(&str, &str)]) -> String {
    let one =
        |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    parameters.iter().map(one).collect::<Vec<_>>().join("&")
}

/// A sentence for people of what the client found.
fn explained(error: kube::Error) -> CallError {
    let status = match error {
        kube::Error::Api(status) => status,
        other => return CallError::Unavailable(format!("the API server does not answer: {}", chain(&other))),
    };
    let said = format!("the API server says: {}", status.message);
    match status.code {
        404 => CallError::NotFound(said),
        409 => CallError::Conflict(said),
        401 => CallError::Unavailable(format!(
            "{said}: the credentials in the kubeconfig are not (or no longer) valid"
        )),
        // A quota is full now, and not for ever.
        403 if status.message.contains("exceeded quota") => CallError::Unavailable(said),
        // A namespace on its way out, a webhook that does not answer.
        403 if status.message.contains("being terminated") => CallError::Refused(said),
        400 | 403 | 405 | 413 | 415 | 422 => CallError::Refused(said),
        _ => CallError::Unavailable(said),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(explained),
        Err(_) => Err(CallError::Unavailable(format!(
            "the API server did not answer within {} s",
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

impl Cluster {
    /// Reads how the cluster is reached. Nothing is asked of it yet.
    pub(super) async fn new(settings: &KubernetesSettings) -> Result<Self, BackendError> {
        let unusable = |error: &dyn std::error::Error, what: &str| {
            BackendError::Unavailable(format!("{what} cannot be used: {}", chain(error)))
        };
        let mut config = match &settings.kubeconfig {
            Some(path) => {
                let what = format!("the kubeconfig {path}");
                let file = Kubeconfig::read_from(Path::new(path)).map_err(|error| unusable(&error, &what))?;
                let options =
                    KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
                let config = Config::from_custom_kubeconfig(file, &options).await;
                config.map_err(|error| unusable(&error, &what))?
            }
            None => Config::incluster()
                .map_err(|error| unusable(&error, "the account of the pod that this worker is to run in"))?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(SILENCE);
        let client = Client::try_from(config).map_err(|error| unusable(&error, "the way to the cluster"))?;
        Ok(Self { client, namespace: settings.namespace.clone() })
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, CallError> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let request = request.body(body).map_err(|error| CallError::Refused(error.to_string()))?;
        let answer: Value = in_time(self.client.request(request)).await?;
        kubernetes::read(answer).map_err(|error| {
            CallError::Unavailable(format!("the API server's answer to {path} cannot be read: {error}"))
        })
    }

    /// Makes the object of an attempt. What the server does not know in it is refused.
    pub(super) async fn create(&self, kind: Kind, object: &Value) -> Result<Workload, CallError> {
        let path = format!("{}?fieldValidation=Strict", collection(kind, &self.namespace));
        self.call(Method::POST, &path, Some(object)).await.map_err(|error| match (kind, error) {
            (Kind::MpiJob, CallError::NotFound(said)) if !said.contains("namespaces") => {
                CallError::Refused(format!(
                    "the cluster has no MPIJob (kubeflow.org/v2beta1): its MPI operator is missing ({said})"
                ))
            }
            (_, error) => error,
        })
    }

    /// The object of an attempt as it is now; none if there is none.
    pub(super) async fn get(&self, kind: Kind, name: &str) -> Result<Option<Workload>, CallError> {
        match self.call(Method::GET, &format!("{}/{name}", collection(kind, &self.namespace)), None).await {
            Ok(object) => Ok(Some(object)),
            Err(CallError::NotFound(said)) if said.contains(name) => Ok(None),
            // The kind itself is not known (any more): that says nothing of the object.
            Err(CallError::NotFound(said)) => Err(CallError::Unavailable(said)),
            Err(error) => Err(error),
        }
    }

    /// The pods of an attempt as they are now.
    pub(super) async fn pods(&self, selector: &str) -> Result<Vec<Pod>, CallError> {
        #[derive(serde::Deserialize)]
        struct Pods {
            #[serde(default)]
            items: Vec<Pod>,
        }
        let selector = query(&[("labelSelector", selector)]);
        let path = format!("/api/v1/namespaces/{}/pods?{selector}", self.namespace);
        self.call(Method::GET, &path, None).await.map(|pods: Pods| pods.items)
    }

    /// The objects of a run, or of all runs, of a kind.
    pub(super) async fn list(&self, kind: Kind, run: Option<&str>) -> Result<Vec<Workload>, CallError> {
        #[derive(serde::Deserialize)]
        struct Workloads {
            #[serde(default)]
            items: Vec<Workload>,
        }
        let mut selector = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
        match run {
            Some(run) => selector += &format!(",{RUN_LABEL}={run}"),
            None => selector += &format!(",{RUN_LABEL}"),
        }
        let path =
            format!("{}?{}", collection(kind, &self.namespace), query(&[("labelSelector", &selector)]));
        match self.call(Method::GET, &path, None).await {
            Ok(Workloads { items }) => Ok(items),
            // Without the MPI operator there are none of its objects.
            Err(CallError::NotFound(_)) if kind == Kind::MpiJob => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Asks for the end of an object: it is there until the last of its pods is gone. One that is not there, or that is another
    /// one by now, is fine.
    pub(super) async fn delete(&self, kind: Kind, name: &str, uid: &str) -> Result<(), CallError> {
        // Without a word about it the pods of a Job would be left running.
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground",
            "preconditions": {"uid": uid},
        });
        let path = format!("{}/{name}", collection(kind, &self.namespace));
        match self.call::<Value>(Method::DELETE, &path, Some(&options)).await {
            Ok(_) | Err(CallError::NotFound(_) | CallError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a secret; one that is there already is the same one.
    pub(super) async fn create_secret(&self, secret: &Value) -> Result<(), CallError> {
        let path = format!("/api/v1/namespaces/{}/secrets?fieldValidation=Strict", self.namespace);
        match self.call::<Value>(Method::POST, &path, Some(secret)).await {
            Ok(_) | Err(CallError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The version of the API server.
    pub(super) async fn version(&self) -> Result<String, CallError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        self.call(Method::GET, "/version", None).await.map(|version: Version| version.git_version)
    }

    /// The log of a container, each line with its time, from the second of `since` on.
    pub(super) async fn log(
        &self,
        pod: &str,
        container: &str,
        since: Option<&str>,
        follow: bool,
    ) -> Result<impl AsyncBufRead + Send + Unpin + use<>, CallError> {
        let mut parameters = vec![("container", container), ("timestamps", "true")];
        if follow {
            parameters.push(("follow", "true"));
        }
        if let Some(since) = since {
            parameters.push(("sinceTime", since));
        }
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/log?{}", self.namespace, query(&parameters));
        let request =
            Request::get(path).body(Vec::new()).map_err(|error| CallError::Refused(error.to_string()))?;
        in_time(self.client.request_stream(request)).await.map(Box::pin)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

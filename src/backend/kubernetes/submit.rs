//! What is made on the cluster: the object of an attempt, and the secrets that go with it.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tracing::info;

use super::{
    super::{ActualEnvironment, Attempt, BackendError, process::script_environment},
    KubernetesBackend, Reached,
    cluster::CallError,
    files, kind,
    notes::Submission,
};
use crate::{
    clock::{Clock as _, SystemClock},
    domain::{
        container::registry_of,
        kubernetes::{
            ATTEMPT_LABEL, Kind, RUN_LABEL, SCRIPT_TOKEN, Workload, object_name, registry_secret,
            token_secret,
        },
        render::{Subject, kubernetes as rendering},
    },
};

impl KubernetesBackend {
    /// What is handed to the cluster.
    pub(super) fn object(&self, attempt: &Attempt, environment: &ActualEnvironment) -> Value {
        let variables = variables(attempt);
        let service = self.service(attempt, &environment.interpreter, &variables);
        rendering::object(&Subject { plan: &attempt.plan, definition: None }, &service)
    }

    pub(super) fn service<'a>(
        &'a self,
        attempt: &Attempt,
        interpreter: &'a str,
        variables: &'a [(String, String)],
    ) -> rendering::Service<'a> {
        rendering::Service {
            run_id: attempt.run_id,
            attempt: attempt.number,
            settings: &self.target,
            interpreter,
            variables,
            grace_seconds: self.files.settings().cancel_grace.as_secs().max(1),
        }
    }

    /// The secrets of an attempt: what its pods need and nobody else shall see. They go with the object.
    pub(super) fn secrets(&self, attempt: &Attempt, object: &Workload) -> Result<Vec<Value>, BackendError> {
        let name = object_name(attempt.run_id, attempt.number);
        let vault = self.vault.as_ref().ok_or_else(no_key)?;
        let owner = match kind(attempt) {
            Kind::Job => json!({"apiVersion": "batch/v1", "kind": "Job"}),
            Kind::MpiJob => json!({"apiVersion": "kubeflow.org/v2beta1", "kind": "MPIJob"}),
        };
        let metadata = |secret: &str| {
            let mut owner = owner.clone();
            owner["name"] = json!(name);
            owner["uid"] = json!(object.metadata.uid);
            json!({"name": secret, "labels": object.metadata.labels, "ownerReferences": [owner]})
        };
        let token = vault.attempt_token(attempt.run_id, attempt.number);
        let script_token = vault.script_token(attempt.run_id, attempt.number);
        let mut secrets = vec![json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
            "metadata": metadata(&token_secret(&name)),
            "data": {
                "token": BASE64_STANDARD.encode(token.expose()),
                SCRIPT_TOKEN: BASE64_STANDARD.encode(script_token.expose()),
            },
        })];
        if let Some(login) = &attempt.registry {
            let container = &attempt.plan.environment.container;
            let image = attempt.plan.environment.image.as_deref().unwrap_or_default();
            let address = container.registry_address.clone().unwrap_or_else(|| registry_of(image).to_owned());
            let auth = BASE64_STANDARD.encode(format!("{}:{}", login.username, login.password.expose()));
            let config = json!({"auths": {address: {
                "username": login.username, "password": login.password.expose(), "auth": auth,
            }}});
            secrets.push(json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "immutable": true,
                "metadata": metadata(&registry_secret(&name)),
                "data": {".dockerconfigjson": BASE64_STANDARD.encode(config.to_string())},
            }));
        }
        Ok(secrets)
    }

    /// Makes the attempt's object unless it is there, and what belongs to it.
    pub(super) async fn submit(
        &self,
        attempt: &Attempt,
        environment: &ActualEnvironment,
    ) -> Result<(), BackendError> {
        let (notes, kind) = (self.notes(attempt), kind(attempt));
        let Reached { cluster, watch } = self.reached().await?;
        let name = object_name(attempt.run_id, attempt.number);
        let mut submission = match notes.submission().await? {
            Some(submission) => submission,
            None => Submission { intended_at: SystemClock.now(), uid: None },
        };
        // Written before it is made: from now on its absence has to be proved.
        notes.write_submission(&submission).await?;
        if kind == Kind::MpiJob {
            watch.with_mpi_jobs();
        }
        let object = match cluster.create(kind, &self.object(attempt, environment)).await {
            Ok(object) => {
                info!("the {} {name} is made", kind.as_str());
                object
            }
            Err(CallError::Conflict(said)) => {
                let found = cluster.get(kind, &name).await?;
                let found = found.ok_or(BackendError::Unavailable(said))?;
                if !is_of(&found, attempt) {
                    let why = format!("there is a {} {name} that is not this service's", kind.as_str());
                    return Err(BackendError::Refused(why));
                }
                info!("the {} {name} is there already: it was made before", kind.as_str());
                found
            }
            Err(error) => return Err(error.into()),
        };
        if object.metadata.deletion_timestamp.is_none() {
            for secret in self.secrets(attempt, &object)? {
                cluster.create_secret(&secret).await?;
            }
        }
        submission.uid = Some(object.metadata.uid.clone());
        notes.write_submission(&submission).await?;
        // Whoever stops it first says so and then looks for the object: one of the two sees the other.
        if notes.stop().await?.is_some() {
            cluster.delete(kind, &name, &object.metadata.uid).await?;
        }
        Ok(())
    }
}

/// Whether an object is that of an attempt, and not another one of its name.
pub(super) fn is_of(object: &Workload, attempt: &Attempt) -> bool {
    object.metadata.labels.get(RUN_LABEL) == Some(&attempt.run_id.to_string())
        && object.metadata.labels.get(ATTEMPT_LABEL) == Some(&attempt.number.to_string())
}

/// What a script is told of its run, with the places that its files have in a pod.
pub(super) fn variables(attempt: &Attempt) -> Vec<(String, String)> {
    let home = Path::new(rendering::HOME);
    let work = Path::new(rendering::area().work);
    let mut variables = script_environment::of_the_run(attempt, &home.join("records"), work).to_vec();
    let site = home.join(files::MODULE).join("site");
    variables.push(("PYTHONPATH".to_owned(), site.to_string_lossy().into_owned()));
    variables
}

pub(super) fn no_key() -> BackendError {
    BackendError::Refused(
        "pods are let in by a token that is made with the service's secret key, and this worker has none: name one with \
         --secret-key-file or ESTIMATORD_SECRET_KEY, the same for every part of the service"
            .to_owned(),
    )
}

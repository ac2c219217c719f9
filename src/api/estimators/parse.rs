//! `POST /v1/estimators/parse`

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    api::{error::ApiError, etag, extract::ApiSource, problem::Problem},
    domain::{
        finding::Finding,
        python::estimator::{self, FoundEstimator},
    },
};

/// A source as people have it; the example of the operation.
const EXAMPLE: &str = r#"from azureml.core import Datastore, Experiment, Workspace
from azureml.train.dnn import Chainer, Mpi

ws = Workspace.from_config()
data = Datastore.get(ws, "training_data")
params = {
    "--epochs": 20,
    "--learning-rate": 2e-3,
    "--data": data.path("digits").as_mount(),
}
estimator = Chainer(
    source_directory="./digits",
    compute_target=ws.compute_targets["cpu-cluster"],
    entry_script="train.py",
    script_params=params,
    node_count=2,
    distributed_training=Mpi(process_count_per_node=2),
    framework_version="7.0.0",
)
run = Experiment(ws, "digits").submit(estimator)
"#;

/// What was read of one call.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ParsedEstimator {
    /// Where the call begins, counted from 1.
    #[schema(minimum = 1, example = 11)]
    pub line: usize,
    /// Where the call begins, counted from 1 in characters.
    #[schema(minimum = 1, example = 13)]
    pub column: usize,
    /// The name that its result is assigned to; null when it is assigned to none.
    #[schema(example = "estimator")]
    pub assigned_to: Option<String>,
    /// The arguments of the call as members of a definition, in their order. What could not be read is left out.
    #[schema(value_type = Object)]
    pub definition: Map<String, Value>,
    /// What was left out (`value-to-fill-in`, severity error) or assumed. Their pointers lead into `definition`.
    pub findings: Vec<Finding>,
}

/// What a source says about estimators.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ParsedSource {
    /// Every call of `Chainer(…)`, in the order of the source; at least one.
    pub items: Vec<ParsedEstimator>,
    /// The name of the experiment, when the source names exactly one as a literal.
    #[schema(example = "digits")]
    pub experiment_name: Option<String>,
}

impl From<FoundEstimator> for ParsedEstimator {
    fn from(found: FoundEstimator) -> Self {
        Self {
            line: found.line,
            column: found.column,
            assigned_to: found.assigned_to,
            definition: found.definition,
            findings: found.findings,
        }
    }
}

/// Read estimator definitions from Python source
///
/// Takes the script or the notebook cells that make an Azure ML SDK v1 `Chainer` estimator and answers the same definition as
/// JSON. The source is parsed and never executed: literals, names with one value and the SDK's own objects are read; for
/// everything else a finding says where it stands and what to write. Nothing is judged and nothing is stored: send the
/// definition to `validate_estimator` or `create_estimator` once the findings of severity error are seen to.
#[utoipa::path(
    post, path = "/v1/estimators/parse", tag = "estimators",
    request_body(
        content = String, content_type = "text/x-python",
        description = "Python 3 source, at most 1 MiB. Lines of IPython (`%…`, `!…`, `…?`) are passed over",
        example = json!(EXAMPLE),
    ),
    responses(
        (status = 200, description = "What the source says", body = ParsedSource),
        (status = 413, description = "The source is too large", body = Problem),
        (status = 415, description = "The Content-Type is not text/x-python", body = Problem),
        (status = 422, description = "The source does not parse, or makes no `Chainer` estimator; `findings` says which", body = Problem),
    ),
)]
pub async fn parse_estimator(ApiSource(source): ApiSource) -> Result<Response, ApiError> {
    let reading = estimator::read(&source).map_err(ApiError::Source)?;
    let answer = ParsedSource {
        items: reading.items.into_iter().map(ParsedEstimator::from).collect(),
        experiment_name: reading.experiment_name,
    };
    etag::json(StatusCode::OK, &answer)
}

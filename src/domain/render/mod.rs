//! One definition in other words: what the deprecation of the class asks people to move to, and what the engines take.
//!
//! Each format is a pure function of the resolved plan. What a format cannot say is listed beside the text, parameter by
//! parameter: a rendering that silently left something out would be another run.

mod azureml_v2;
mod engines;
pub mod kubernetes;
mod notes;
mod packages;
mod quoting;
mod resources;
mod sbatch;
mod script_run_config;
pub(in crate::domain) mod shell;
#[cfg(test)]
pub(crate) mod testing;
mod yaml;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{definition::Definition, plan::Plan};

pub use sbatch::{PYTHON_PATH, STATUS_DIR, data_variables, minutes as slurm_minutes};

/// What a definition can be rendered as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Python for SDK v1: a `ScriptRunConfig` with an `Environment` of its own.
    ScriptRunConfig,
    /// YAML of an Azure ML v2 command job.
    #[serde(rename = "azureml-v2")]
    AzuremlV2,
    /// A batch script for Slurm.
    Sbatch,
    /// YAML of a Kubernetes `Job`, or of an `MPIJob` (`kubeflow.org/v2beta1`) where there is MPI.
    Kubernetes,
}

impl Format {
    /// Every format, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::ScriptRunConfig, Self::AzuremlV2, Self::Sbatch, Self::Kubernetes];

    /// The word as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScriptRunConfig => "script-run-config",
            Self::AzuremlV2 => "azureml-v2",
            Self::Sbatch => "sbatch",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// The media type of its text.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::ScriptRunConfig => "text/x-python",
            Self::AzuremlV2 | Self::Kubernetes => "application/yaml",
            Self::Sbatch => "text/x-shellscript",
        }
    }

    /// A name for a file with it.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::ScriptRunConfig => "submit.py",
            Self::AzuremlV2 => "job.yml",
            Self::Sbatch => "job.sbatch",
            Self::Kubernetes => "job.yaml",
        }
    }
}

/// How near a format comes to what a parameter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Equivalence {
    /// It says the same.
    Exact,
    /// It says nearly the same; the note says what differs.
    Approximate,
    /// It cannot say it.
    None,
}

impl Equivalence {
    /// The word as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Approximate => "approximate",
            Self::None => "none",
        }
    }
}

/// Something that a text does not say, or says in another way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotExpressed {
    /// The parameter.
    #[schema(example = "vm_priority")]
    pub parameter: String,
    /// `approximate` or `none`.
    pub equivalence: Equivalence,
    /// Why, and what to do about it.
    pub note: String,
}

/// A definition in other words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rendering {
    /// As what.
    pub format: Format,
    /// The media type of the text.
    #[schema(example = "text/x-python")]
    pub media_type: String,
    /// A name for a file with the text.
    #[schema(example = "submit.py")]
    pub file_name: String,
    /// The text.
    pub text: String,
    /// What the text could not express, in the order of the signature; parameters that are not given are not in it.
    pub not_expressed: Vec<NotExpressed>,
}

/// What is rendered.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The resolved plan: everything that the text says comes from it, but for the name of an environment of one's own.
    pub plan: &'a Plan,
    /// The definition that it was made of: says which parameters were given, for the list of what is not expressed. Without
    /// it that list is empty; the text is the same.
    pub definition: Option<&'a Definition>,
}

impl Subject<'_> {
    /// Whether the definition gives a parameter: null, and what is empty, is "not given".
    #[must_use]
    pub fn gives(&self, parameter: &str) -> bool {
        match self.definition.and_then(|definition| definition.body().get(parameter)) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(members)) => !members.is_empty(),
            Some(Value::Bool(_) | Value::Number(_)) => true,
        }
    }
}

/// Renders a definition.
#[must_use]
pub fn render(format: Format, subject: &Subject<'_>) -> Rendering {
    let (text, mut not_expressed) = match format {
        Format::ScriptRunConfig => script_run_config::render(subject),
        Format::AzuremlV2 => azureml_v2::render(subject),
        Format::Sbatch => sbatch::render(subject),
        Format::Kubernetes => kubernetes::render(subject),
    };
    not_expressed.sort_by_key(|entry| super::definition::rank(&entry.parameter));
    Rendering {
        format,
        media_type: format.media_type().to_owned(),
        file_name: format.file_name().to_owned(),
        text,
        not_expressed,
    }
}

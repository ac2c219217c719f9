//! What the documentation says of the Chainer framework images.

mod vm_sizes;

use serde::Serialize;
use utoipa::ToSchema;

pub use vm_sizes::{VM_SIZES, VmSize, vm_size};

/// The framework's name, as the class states it.
pub const NAME: &str = "Chainer";

/// The version that is used when none is given.
pub const DEFAULT_VERSION: &str = "5.1.0";

/// The versions that the class supports.
pub const SUPPORTED_VERSIONS: [&str; 2] = ["5.1.0", "7.0.0"];

/// The Python version of every framework image.
pub const PYTHON_VERSION: &str = "3.6.2";

/// The documented image without CUDA.
pub const BASE_IMAGE_CPU: &str = "mcr.microsoft.com/azureml/base:intelmpi2018.3-ubuntu16.04";

/// The documented image with CUDA.
pub const BASE_IMAGE_GPU: &str =
    "mcr.microsoft.com/azureml/base-gpu:intelmpi2018.3-cuda9.0-cudnn7-ubuntu16.04";

/// The channels that conda packages come from, in order.
pub const CONDA_CHANNELS: [&str; 2] = ["anaconda", "conda-forge"];

/// The size of shared memory in a container when none is given.
pub const DEFAULT_SHM_SIZE: &str = "2g";

/// What chainer 5.1.0 and 7.0.0 need held back, for running and for building them, one requirement a line.
///
/// Tried: numpy 1.26 loses `numpy.float` and 2.x `numpy.sctypes`; setuptools 74 loses `distutils.msvccompiler`, which
/// `numpy.distutils` imports; protobuf 3.21 cannot read chainer's caffe descriptors.
pub const PIP_CONSTRAINTS: &str = include_str!("chainer-constraints.txt");

/// The image that a framework environment is based on.
#[must_use]
pub const fn base_image(gpu: bool) -> &'static str {
    if gpu { BASE_IMAGE_GPU } else { BASE_IMAGE_CPU }
}

/// The pip packages that a framework environment is built with, in order.
#[must_use]
pub fn builder_packages(version: &str, gpu: bool) -> Vec<String> {
    let mut packages =
        vec!["azureml-defaults".to_owned(), format!("chainer=={version}"), "mpi4py==3.0.0".to_owned()];
    if gpu {
        packages.push("cupy-cuda90".to_owned());
    }
    packages
}

/// One line of the documented table of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Component {
    /// What is in the image.
    #[schema(example = "horovod")]
    pub name: &'static str,
    /// Its version in the image without CUDA; null when it is not in there.
    pub cpu: Option<&'static str>,
    /// Its version in the image with CUDA.
    pub gpu: Option<&'static str>,
}

const fn both(name: &'static str, version: &'static str) -> Component {
    Component { name, cpu: Some(version), gpu: Some(version) }
}

const fn gpu_only(name: &'static str, version: &'static str) -> Component {
    Component { name, cpu: None, gpu: Some(version) }
}

const fn contents_of(chainer: &'static str, cupy: &'static str) -> [Component; 12] {
    [
        both("Python", PYTHON_VERSION),
        gpu_only("CUDA", "9.0"),
        gpu_only("cuDNN", "7.6.3"),
        gpu_only("NCCL", "2.4.8"),
        both("azureml-defaults", "latest"),
        both("Intel MPI", "2018.3.222"),
        both("horovod", "0.15.2"),
        both("miniconda", "4.5.11"),
        both("chainer", chainer),
        gpu_only("cupy-cuda90", cupy),
        both("git", "2.7.4"),
        both("Ubuntu", "16.04"),
    ]
}

static CONTENTS_5_1_0: [Component; 12] = contents_of("5.1.0", "5.2.0");
static CONTENTS_7_0_0: [Component; 12] = contents_of("7.0.0", "7.0.0");

/// The documented contents of the images of a version; nothing for an unsupported one.
#[must_use]
pub fn contents(version: &str) -> &'static [Component] {
    match version {
        "5.1.0" => &CONTENTS_5_1_0,
        "7.0.0" => &CONTENTS_7_0_0,
        _ => &[],
    }
}

/// A version of the framework, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FrameworkVersion {
    /// The version.
    #[schema(example = "7.0.0")]
    pub version: String,
    /// The documented contents of its images.
    pub contents: Vec<Component>,
    /// What an environment without GPUs is built with by pip.
    pub builder_packages_cpu: Vec<String>,
    /// What an environment with GPUs is built with by pip.
    pub builder_packages_gpu: Vec<String>,
}

/// The framework, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FrameworkView {
    /// `Chainer`.
    pub name: String,
    /// The SDK class that definitions are written for.
    pub class: String,
    /// The version that is used when none is given.
    pub default_version: String,
    /// The versions that a definition may name.
    pub supported_versions: Vec<String>,
    /// Each of them in detail.
    pub versions: Vec<FrameworkVersion>,
    /// The Python version that environments are built with.
    pub python_version: String,
    /// The documented image without CUDA.
    pub base_image_cpu: String,
    /// The documented image with CUDA.
    pub base_image_gpu: String,
    /// The channels that conda packages come from, in order.
    pub conda_channels: Vec<String>,
    /// The VM sizes that a one-off target may have.
    pub vm_sizes: Vec<VmSize>,
}

/// The framework in full.
#[must_use]
pub fn view() -> FrameworkView {
    let mut versions = Vec::new();
    for version in SUPPORTED_VERSIONS {
        versions.push(FrameworkVersion {
            version: version.to_owned(),
            contents: contents(version).to_vec(),
            builder_packages_cpu: builder_packages(version, false),
            builder_packages_gpu: builder_packages(version, true),
        });
    }
    FrameworkView {
        name: NAME.to_owned(),
        class: "azureml.train.dnn.Chainer".to_owned(),
        default_version: DEFAULT_VERSION.to_owned(),
        supported_versions: SUPPORTED_VERSIONS.map(ToOwned::to_owned).to_vec(),
        versions,
        python_version: PYTHON_VERSION.to_owned(),
        base_image_cpu: BASE_IMAGE_CPU.to_owned(),
        base_image_gpu: BASE_IMAGE_GPU.to_owned(),
        conda_channels: CONDA_CHANNELS.map(ToOwned::to_owned).to_vec(),
        vm_sizes: VM_SIZES.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_version_has_its_contents() {
        for version in SUPPORTED_VERSIONS {
            let chainer = contents(version).iter().find(|c| c.name == "chainer").unwrap();
            assert_eq!(chainer.cpu, Some(version));
        }
        assert!(SUPPORTED_VERSIONS.contains(&DEFAULT_VERSION));
        assert!(contents("6.0.0").is_empty());
        let cupy = contents("5.1.0").iter().find(|c| c.name == "cupy-cuda90").unwrap();
        assert_eq!((cupy.cpu, cupy.gpu), (None, Some("5.2.0")));
    }

    #[test]
    fn the_view_can_be_written() {
        let text = serde_json::to_string(&view()).unwrap();
        assert!(text.contains("mpi4py==3.0.0") && text.contains("STANDARD_NC6"));
    }
}

//! Which packages provide a module, where their names differ or several do.

use std::collections::BTreeSet;

use crate::domain::rules::grammar::pip::normalized;

/// Import to packages. The first is the one to suggest; an ending `*` stands for any rest. Sorted by import.
#[rustfmt::skip]
static TABLE: &[(&str, &[&str])] = &[
    ("Bio", &["biopython"]),
    ("Crypto", &["pycryptodome", "pycrypto"]),
    ("Cython", &["Cython"]),
    ("IPython", &["ipython"]),
    ("Levenshtein", &["python-Levenshtein", "Levenshtein"]),
    ("MeCab", &["mecab-python3"]),
    ("MySQLdb", &["mysqlclient"]),
    ("OpenSSL", &["pyOpenSSL"]),
    ("PIL", &["Pillow", "pillow-simd"]),
    ("absl", &["absl-py"]),
    ("attr", &["attrs"]),
    ("azure", &["azure-core", "azure-*"]),
    ("azure.storage.blob", &["azure-storage-blob", "azure-storage"]),
    ("azureml", &["azureml-core", "azureml*"]),
    ("bs4", &["beautifulsoup4"]),
    ("chainer", &["chainer"]),
    ("chainermn", &["chainer", "chainermn"]),
    ("cupy", &["cupy-cuda90", "cupy*"]),
    ("cupyx", &["cupy-cuda90", "cupy*"]),
    ("cv2", &["opencv-python-headless", "opencv*", "py-opencv", "libopencv"]),
    ("dateutil", &["python-dateutil"]),
    ("dotenv", &["python-dotenv"]),
    ("faiss", &["faiss-cpu", "faiss*"]),
    ("fitz", &["PyMuPDF"]),
    ("git", &["GitPython"]),
    ("google", &["protobuf", "google*"]),
    ("google.cloud", &["google-cloud-core", "google-cloud-*"]),
    ("google.cloud.storage", &["google-cloud-storage"]),
    ("google.protobuf", &["protobuf", "libprotobuf"]),
    ("graphviz", &["graphviz", "python-graphviz"]),
    ("h5py", &["h5py"]),
    ("hydra", &["hydra-core"]),
    ("imblearn", &["imbalanced-learn"]),
    ("jose", &["python-jose"]),
    ("jwt", &["PyJWT"]),
    ("lightgbm", &["lightgbm"]),
    ("magic", &["python-magic"]),
    ("mpl_toolkits", &["matplotlib"]),
    ("onnx_chainer", &["onnx-chainer"]),
    ("osgeo", &["GDAL"]),
    ("pkg_resources", &["setuptools"]),
    ("psycopg2", &["psycopg2-binary", "psycopg2"]),
    ("pylab", &["matplotlib"]),
    ("pythoncom", &["pywin32"]),
    ("pywt", &["PyWavelets"]),
    ("ruamel.yaml", &["ruamel.yaml"]),
    ("serial", &["pyserial"]),
    ("skimage", &["scikit-image"]),
    ("sklearn", &["scikit-learn", "scikit-learn*", "sklearn"]),
    ("skopt", &["scikit-optimize"]),
    ("slugify", &["python-slugify"]),
    ("tables", &["tables", "pytables"]),
    ("tensorboard", &["tensorboard", "tensorflow*"]),
    ("tensorflow", &["tensorflow", "tensorflow*", "intel-tensorflow"]),
    ("torch", &["torch", "pytorch*"]),
    ("umap", &["umap-learn"]),
    ("win32api", &["pywin32"]),
    ("wx", &["wxPython"]),
    ("yaml", &["PyYAML"]),
    ("zmq", &["pyzmq"]),
];

/// What well-known packages bring along: package to the names of modules.
#[rustfmt::skip]
static BROUGHT: &[(&str, &[&str])] = &[
    ("anaconda", &["numpy", "scipy", "pandas", "matplotlib", "sklearn", "skimage", "yaml", "h5py", "tqdm", "requests", "PIL", "six", "bs4", "dateutil", "pytz", "seaborn", "joblib", "IPython", "tables", "Cython", "pkg_resources", "setuptools"]),
    ("chainer", &["numpy", "six", "filelock", "google", "typing_extensions", "setuptools", "pkg_resources"]),
    ("chainercv", &["chainer", "numpy", "PIL", "six", "filelock", "google"]),
    ("chainerrl", &["chainer", "numpy", "gym", "scipy", "PIL", "six", "filelock", "google"]),
    ("cupy*", &["numpy", "fastrlock"]),
    ("gensim", &["numpy", "scipy", "six", "smart_open"]),
    ("gym", &["numpy", "scipy", "cloudpickle", "six"]),
    ("horovod", &["cloudpickle", "psutil", "yaml", "six"]),
    ("keras", &["numpy", "scipy", "yaml", "h5py", "six"]),
    ("librosa", &["numpy", "scipy", "sklearn", "joblib", "numba", "audioread", "soundfile", "resampy", "six"]),
    ("lightgbm", &["numpy", "scipy", "sklearn"]),
    ("matplotlib", &["numpy", "cycler", "kiwisolver", "pyparsing", "dateutil", "six"]),
    ("nltk", &["six", "tqdm", "regex", "joblib", "click"]),
    ("opencv*", &["numpy"]),
    ("optuna", &["numpy", "scipy", "sqlalchemy", "alembic", "tqdm", "colorlog"]),
    ("pandas", &["numpy", "dateutil", "pytz", "six"]),
    ("python-dateutil", &["six"]),
    ("pytorch*", &["numpy", "typing_extensions"]),
    ("requests", &["urllib3", "certifi", "idna", "chardet"]),
    ("scikit-image", &["numpy", "scipy", "matplotlib", "networkx", "PIL", "imageio", "pywt", "dateutil", "six"]),
    ("scikit-learn*", &["numpy", "scipy", "joblib", "threadpoolctl"]),
    ("scipy", &["numpy"]),
    ("seaborn", &["numpy", "scipy", "pandas", "matplotlib", "dateutil", "pytz", "six"]),
    ("statsmodels", &["numpy", "scipy", "pandas", "patsy", "dateutil", "pytz", "six"]),
    ("tensorflow*", &["numpy", "six", "google", "absl", "h5py", "tensorboard", "wrapt", "termcolor", "grpc", "keras"]),
    ("torch", &["numpy", "typing_extensions"]),
    ("torchvision", &["numpy", "torch", "PIL", "six"]),
    ("xgboost", &["numpy", "scipy"]),
];

/// The packages that an import is satisfied by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The one to suggest.
    pub(crate) suggested: String,
    /// How many parts of the dotted name decided.
    pub(crate) parts: usize,
    accepted: Vec<&'static str>,
}

/// The packages that provide `import module` or `from module import names`.
pub(crate) fn of(module: &str, names: &[String]) -> Wanted {
    let longer = names.iter().map(|name| format!("{module}.{name}"));
    let found = longer.chain([module.to_owned()]).filter_map(|dotted| longest(&dotted)).max_by_key(|f| f.1);
    let top = module.split('.').next().unwrap_or_default();
    match found {
        Some((packages, parts)) => Wanted {
            suggested: packages.first().map_or_else(|| top.to_owned(), |name| (*name).to_owned()),
            parts,
            accepted: packages.to_vec(),
        },
        None => Wanted { suggested: top.replace('_', "-"), parts: 1, accepted: Vec::new() },
    }
}

/// The entry for the longest beginning of a dotted name.
fn longest(dotted: &str) -> Option<(&'static [&'static str], usize)> {
    let parts: Vec<&str> = dotted.split('.').take(4).collect();
    (1..=parts.len()).rev().find_map(|count| {
        let name = parts[..count].join(".");
        let at = TABLE.binary_search_by_key(&name.as_str(), |(import, _)| import).ok()?;
        Some((TABLE[at].1, count))
    })
}

/// Whether any of the installed packages (PEP 503 names) provides an import, `top` being the first part of its name.
pub(crate) fn is_any_installed(wanted: &Wanted, top: &str, installed: &BTreeSet<String>) -> bool {
    if installed.iter().any(|name| wanted.accepted.iter().any(|pattern| fits(pattern, name))) {
        return true;
    }
    // Packages that are named after their module, with or without the word that many put before or behind it.
    let plain = normalized(top);
    let spellings = [
        plain.clone(),
        format!("python-{plain}"),
        format!("py{plain}"),
        format!("py-{plain}"),
        format!("{plain}-python"),
    ];
    if spellings.iter().any(|name| installed.contains(name)) {
        return true;
    }
    BROUGHT
        .iter()
        .any(|(package, modules)| modules.contains(&top) && installed.iter().any(|name| fits(package, name)))
}

/// Whether an installed package is the one of a table's entry.
fn fits(pattern: &str, installed: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => installed.starts_with(beginning),
        None => normalized(pattern) == installed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(module: &str, installed: &[&str]) -> bool {
        let installed = installed.iter().map(|name| normalized(name)).collect();
        let top = module.split('.').next().unwrap();
        is_any_installed(&of(module, &[]), top, &installed)
    }

    #[test]
    fn the_tables_can_be_searched() {
        assert!(TABLE.is_sorted_by_key(|(import, _)| import));
        assert!(TABLE.iter().all(|(_, packages)| !packages.is_empty() && !packages[0].ends_with('*')));
        assert!(BROUGHT.is_sorted_by_key(|(package, _)| package));
    }

    #[test]
    fn suggestions() {
        for (module, names, suggested) in [
            ("sklearn.svm", vec![], "scikit-learn"),
            ("google", vec!["protobuf"], "protobuf"),
            ("google.cloud", vec!["storage"], "google-cloud-storage"),
            ("google.cloud", vec!["vision"], "google-cloud-core"),
            ("mpl_toolkits.mplot3d", vec!["Axes3D"], "matplotlib"),
            ("my_tool.x", vec![], "my-tool"),
            ("pandas", vec![], "pandas"),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            assert_eq!(of(module, &names).suggested, suggested, "{module}");
        }
    }

    #[test]
    fn what_provides_what() {
        for (module, package) in [
            ("cv2", "opencv_contrib_python"),
            ("PIL.Image", "pillow"),
            ("torch", "pytorch-cpu"),
            ("numpy.linalg", "pandas"),
            ("tensorflow.keras", "tensorflow-gpu"),
            ("Levenshtein", "python-levenshtein"),
            ("hydra", "hydra_core"),
            ("azureml.core", "azureml-defaults"),
            ("ruamel.yaml", "ruamel.yaml"),
        ] {
            assert!(is_there(module, &[package]), "{module}");
        }
        for (module, package) in [
            ("sklearn", "numpy"),
            ("pandas", "numpy"),
            ("azure.storage.blob", "azureml-core"),
            ("torch", "torchtext"),
        ] {
            assert!(!is_there(module, &[package]), "{module}");
        }
    }
}

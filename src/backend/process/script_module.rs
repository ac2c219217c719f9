//! The Python module that lets unmodified Azure ML scripts log: written below the data directory, once per version.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{environment::digest, layout};

/// Every file of it, with its path.
const FILES: [(&str, &str); 12] = [
    ("module/azureml/core/__init__.py", include_str!("python/module/azureml/core/__init__.py")),
    ("module/azureml/core/_files.py", include_str!("python/module/azureml/core/_files.py")),
    ("module/azureml/core/_recorder.py", include_str!("python/module/azureml/core/_recorder.py")),
    ("module/azureml/core/_values.py", include_str!("python/module/azureml/core/_values.py")),
    ("module/azureml/core/_workspace_only.py", include_str!("python/module/azureml/core/_workspace_only.py")),
    ("module/azureml/core/dataset.py", include_str!("python/module/azureml/core/dataset.py")),
    ("module/azureml/core/datastore.py", include_str!("python/module/azureml/core/datastore.py")),
    ("module/azureml/core/experiment.py", include_str!("python/module/azureml/core/experiment.py")),
    ("module/azureml/core/model.py", include_str!("python/module/azureml/core/model.py")),
    ("module/azureml/core/run.py", include_str!("python/module/azureml/core/run.py")),
    ("module/azureml/core/workspace.py", include_str!("python/module/azureml/core/workspace.py")),
    ("site/sitecustomize.py", include_str!("python/site/sitecustomize.py")),
];

/// Where it lies, whole: the directory to put first on `PYTHONPATH`.
pub(in crate::backend) fn place(data_dir: &Path) -> io::Result<PathBuf> {
    let content: String = FILES.iter().map(|(path, text)| format!("{path}\n{text}\n")).collect();
    // By its content: an attempt that runs keeps the version that it was started with.
    let tools = data_dir.join("tools");
    let root = tools.join(format!("azureml-{}", &digest(content.as_bytes())[..16]));
    if !root.exists() {
        layout::create_private_dir(&tools)?;
        let partial = tempfile::Builder::new().prefix("azureml.partial-").tempdir_in(&tools)?;
        for (path, text) in FILES {
            let path = partial.path().join(path);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, text)?;
        }
        readable(partial.path())?;
        match fs::rename(partial.path(), &root) {
            // It is no longer there to be removed.
            Ok(()) => drop(partial.keep()),
            // Another one was faster.
            Err(_) if root.exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(root.join("site"))
}

/// In a container the script may be another user.
fn readable(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            readable(&path)?;
        } else {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_placed_whole_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let site = place(directory.path()).unwrap();
        for (path, text) in FILES {
            assert_eq!(fs::read_to_string(site.parent().unwrap().join(path)).unwrap(), text);
        }
        assert_eq!(place(directory.path()).unwrap(), site);
        assert_eq!(fs::read_dir(directory.path().join("tools")).unwrap().count(), 1);
    }
}

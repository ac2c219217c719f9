//! Runs are kept apart as the operator wants it, or the service does not start.

use std::path::{Path, PathBuf};

use nix::{
    sys::stat::{Mode, umask},
    unistd::Uid,
};

use crate::{backend::process, config::Serve, installation};

/// Makes sure that runs can be kept apart as the operator wants it.
pub(super) fn isolate_runs(settings: &Serve, data_dir: &Path, private: &[PathBuf]) -> anyhow::Result<()> {
    let isolation = settings.isolation(Uid::effective().is_root());
    if isolation.users.is_some() {
        // What is built for runs must be readable to them. What is private is so by the directory that it is in.
        umask(Mode::from_bits_truncate(0o022));
    }
    check(settings, data_dir, private)?;
    Ok(process::make_room_for_isolation(&isolation)?)
}

/// Whether runs can be kept apart as the operator wants it, and from the directories in `private`. What it tries it removes again.
///
/// # Errors
/// When they cannot; what to do is in the message.
pub(crate) fn check(settings: &Serve, data_dir: &Path, private: &[PathBuf]) -> anyhow::Result<()> {
    let keys = &settings.secret_key;
    let files = settings
        .access
        .api_token_file
        .iter()
        .chain(&keys.secret_key_file)
        .chain(&keys.other_secret_key_files);
    let private: Vec<PathBuf> = private.iter().chain(files).cloned().collect();
    let own_binary = installation::own_executable()?;
    let surroundings = process::Surroundings { data_dir, own_binary: &own_binary, private: &private };
    Ok(process::check_isolation(&settings.isolation(Uid::effective().is_root()), &surroundings)?)
}

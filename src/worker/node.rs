//! The name of a worker node.

use std::{io, path::Path};

use uuid::Uuid;

/// The name of the worker node on this data directory, made at its first start and kept beside the data: processes that
/// were started from a directory can be watched from that directory only.
///
/// # Errors
/// When the directory cannot be read or written.
pub fn node_id(data_dir: &Path, random: [u8; 16]) -> io::Result<String> {
    let file = data_dir.join("node-id");
    match std::fs::read_to_string(&file) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = uuid::Builder::from_random_bytes(random).into_uuid();
    write_whole(&file, &id)?;
    Ok(id.to_string())
}

/// Written beside and renamed, so that a crash leaves no empty name behind.
fn write_whole(file: &Path, id: &Uuid) -> io::Result<()> {
    let beside = file.with_extension("new");
    std::fs::write(&beside, format!("{id}\n"))?;
    std::fs::File::open(&beside)?.sync_all()?;
    std::fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_made_once_and_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = node_id(dir.path(), [7; 16]).expect("made");
        let second = node_id(dir.path(), [8; 16]).expect("read");
        assert_eq!(first, second);
    }

    #[test]
    fn an_empty_file_of_a_crash_is_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("node-id"), "").expect("written");
        assert!(!node_id(dir.path(), [7; 16]).expect("made").is_empty());
    }
}

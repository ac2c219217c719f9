//! Zip. The central directory is walked here first: the `zip` crate keeps all of it in memory and
//! merges equal names, so number and names are judged before it sees the file.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
};

use ::zip::{
    CompressionMethod, ZipArchive, ZipReadOptions,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

use super::{
    super::{
        collect::Collector,
        error::SnapshotError,
        names::{normalise, readable},
    },
    Reading, copy,
};

const FORMAT: &str = "zip";
const END_BYTES: u64 = 22;
const END: &[u8] = b"PK\x05\x06";
const ENTRY_BYTES: usize = 46;
const ENTRY: &[u8] = b"PK\x01\x02";
/// The longest link target that is read.
const MAX_TARGET_BYTES: u64 = 4096;

pub(super) fn read(upload: File, collector: &mut Collector<'_>) -> Result<(), SnapshotError> {
    let mut upload = BufReader::with_capacity(1 << 16, upload);
    let names = directory(&mut upload, collector)?;
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive =
        ZipArchive::with_config(config, upload).map_err(|error| refusal(error, "", collector))?;
    if archive.len() != names || archive.has_duplicate_names() {
        return Err(corrupt("its directory can be read in two ways"));
    }
    for index in 0..names {
        member(&mut archive, index, collector)?;
    }
    Ok(())
}

fn member(
    archive: &mut ZipArchive<BufReader<File>>,
    index: usize,
    collector: &mut Collector<'_>,
) -> Result<(), SnapshotError> {
    let data = archive.by_index_data(index).map_err(|error| refusal(error, "", collector))?;
    let raw = data.name_raw().to_vec();
    let entry = readable(&raw);
    collector.count_member()?;
    if data.encrypted() {
        return Err(SnapshotError::Encrypted { entry });
    }
    if !matches!(data.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(SnapshotError::Compression { entry });
    }
    if std::str::from_utf8(&raw).is_err() {
        return Err(SnapshotError::NameNotUtf8 { entry });
    }
    // An ASCII name may have its real spelling in a Unicode extra field. Other names are taken as the UTF-8
    // that they are, flagged or not: some archivers forget the flag.
    let name = match data.name() {
        Ok(name) if raw.is_ascii() => name.into_owned().into_bytes(),
        _ => raw,
    };
    let path = normalise(&name, true)?;
    // The upper bits are a Unix mode only where the archive was made on Unix; elsewhere they are made up.
    let mode = data.unix_mode().unwrap_or(0);
    let kind = mode & 0o170_000;
    if name.ends_with(b"/") || kind == 0o040_000 {
        return match path {
            _ if data.size() > 0 => Err(corrupt("a directory has contents")),
            Some(path) => collector.directory(path),
            None => Ok(()),
        };
    }
    if !matches!(kind, 0 | 0o100_000 | 0o120_000) {
        return Err(SnapshotError::SpecialFile { entry, what: "a device, a pipe or a socket" });
    }
    let path = path.ok_or(SnapshotError::EmptyName)?;
    let options = ZipReadOptions::new().enforce_header_consistency(true);
    let mut file =
        archive.by_index_with_options(index, options).map_err(|error| refusal(error, &entry, collector))?;
    let reading = Reading { format: FORMAT, limit: collector.max_unpacked_bytes(), entry: &path };
    if kind == 0o120_000 {
        let mut target = Vec::new();
        (&mut file).take(MAX_TARGET_BYTES).read_to_end(&mut target).map_err(|error| reading.error(&error))?;
        return collector.link(path, target, false);
    }
    copy(&mut file, &reading, collector)?;
    collector.file(path, mode & 0o100 != 0)
}

/// Walks the central directory: how many entries, each name once, nothing after the end.
fn directory(upload: &mut BufReader<File>, collector: &Collector<'_>) -> Result<usize, SnapshotError> {
    let broken = |error: io::Error| Reading { format: FORMAT, limit: 0, entry: "" }.error(&error);
    let length = upload.seek(SeekFrom::End(0)).map_err(broken)?;
    let tail_start = length.saturating_sub(END_BYTES + u64::from(u16::MAX));
    upload.seek(SeekFrom::Start(tail_start)).map_err(broken)?;
    let mut tail = Vec::new();
    upload.by_ref().take(END_BYTES + u64::from(u16::MAX)).read_to_end(&mut tail).map_err(broken)?;
    let starts_like_zip = |upload: &mut BufReader<File>| -> io::Result<bool> {
        let mut magic = [0; 4];
        upload.seek(SeekFrom::Start(0))?;
        Ok(upload.read_exact(&mut magic).is_ok() && (magic == *b"PK\x03\x04" || magic == *END))
    };
    let Some(end) = tail.windows(END.len()).rposition(|window| window == END) else {
        return Err(if starts_like_zip(upload).map_err(broken)? {
            SnapshotError::Truncated { format: FORMAT, detail: "its directory is missing" }
        } else {
            SnapshotError::NoArchive { format: FORMAT }
        });
    };
    let record = &tail[end..];
    let comment = u64::from(number(record, 20, 2).ok_or_else(|| cut("it ends inside its end record"))?);
    let here = record.len() as u64 - END_BYTES;
    if here > comment {
        return Err(SnapshotError::TrailingGarbage { format: FORMAT });
    } else if here < comment {
        return Err(cut("it ends inside its comment"));
    }
    let field = |at, bytes| number(record, at, bytes).unwrap_or(0);
    let (count, size, start) = (field(10, 2), field(12, 4), field(16, 4));
    if count == 0xffff || size == u32::MAX || start == u32::MAX {
        return Err(SnapshotError::Zip64);
    }
    if field(4, 2) != 0 || field(6, 2) != 0 || field(8, 2) != count {
        return Err(corrupt("it is one part of several"));
    }
    if u64::from(count) > collector.max_members() {
        return Err(collector.too_many_files());
    }
    if u64::from(start) + u64::from(size) != tail_start + end as u64 {
        return Err(corrupt("its directory is not where its end record says"));
    }
    upload.seek(SeekFrom::Start(u64::from(start))).map_err(broken)?;
    let mut directory = upload.by_ref().take(u64::from(size));
    let mut names = BTreeSet::new();
    for _ in 0..count {
        let mut fixed = [0; ENTRY_BYTES];
        directory.read_exact(&mut fixed).map_err(broken)?;
        if !fixed.starts_with(ENTRY) {
            return Err(corrupt("an entry of its directory is broken"));
        }
        let field = |at| number(&fixed, at, 2).unwrap_or(0);
        let mut name = vec![0; field(28) as usize];
        directory.read_exact(&mut name).map_err(broken)?;
        let rest = u64::from(field(30) + field(32));
        io::copy(&mut directory.by_ref().take(rest), &mut io::sink()).map_err(broken)?;
        let entry = readable(&name);
        if !names.insert(name) {
            return Err(SnapshotError::Duplicate { entry });
        }
    }
    if directory.limit() != 0 {
        return Err(corrupt("its directory holds more entries than its end record says"));
    }
    Ok(names.len())
}

/// A little-endian number of a record.
fn number(record: &[u8], at: usize, bytes: usize) -> Option<u32> {
    Some(record.get(at..at + bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}

fn corrupt(detail: &str) -> SnapshotError {
    SnapshotError::Corrupt { format: FORMAT, detail: detail.to_owned() }
}

const fn cut(detail: &'static str) -> SnapshotError {
    SnapshotError::Truncated { format: FORMAT, detail }
}

fn refusal(error: ZipError, entry: &str, collector: &Collector<'_>) -> SnapshotError {
    match error {
        ZipError::Io(error) => {
            Reading { format: FORMAT, limit: collector.max_unpacked_bytes(), entry }.error(&error)
        }
        other => SnapshotError::Corrupt { format: FORMAT, detail: other.to_string() },
    }
}

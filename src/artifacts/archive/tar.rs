//! Tar, read block by block.
//!
//! The `tar` crate's own iterator reads long names and pax records into memory without a bound, stops
//! silently at a missing end and skips what it does not know. Here every one of these is a refusal, so only its header
//! type is used.

use std::io::{self, Read};

use ::tar::{EntryType, Header};

use super::{
    super::{
        collect::Collector,
        error::SnapshotError,
        names::{normalise, readable},
    },
    Reading, copy,
};

const BLOCK: usize = 512;
const INSIDE_A_BLOCK: &str = "it ends inside a block";
/// The longest name or pax record set that is read: far more than the longest accepted path needs.
const MAX_EXTENSION_BYTES: u64 = 64 * 1024;

/// What extension headers said of the member that follows them.
#[derive(Default)]
struct Pending {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Pending {
    const fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }
}

/// The pax records that matter here.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

pub(super) fn read(
    source: &mut dyn Read,
    format: &'static str,
    collector: &mut Collector<'_>,
) -> Result<(), SnapshotError> {
    let mut tar = Tar { source, format, limit: collector.max_unpacked_bytes() };
    let mut pending = Pending::default();
    let mut first = true;
    loop {
        let block = match tar.block() {
            // Less than one header, or nothing.
            Ok(None) | Err(SnapshotError::Truncated { detail: INSIDE_A_BLOCK, .. }) if first => {
                return Err(SnapshotError::NoArchive { format });
            }
            Ok(None) => {
                return Err(SnapshotError::Truncated { format, detail: "its end marker is missing" });
            }
            Ok(Some(block)) => block,
            Err(error) => return Err(error),
        };
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let header = Header::from_byte_slice(&block);
        if first && header.cksum().is_err() {
            return Err(SnapshotError::NoArchive { format });
        }
        first = false;
        tar.check_sum(header)?;
        let size = header.entry_size().map_err(|_| tar.corrupt("a size field is no number"))?;
        match header.entry_type() {
            EntryType::XGlobalHeader => {
                let pax = tar.pax(size)?;
                if pax.path.is_some() || pax.link.is_some() || pax.size.is_some() || pax.sparse {
                    return Err(tar.corrupt("a global header renames or resizes all members"));
                }
            }
            EntryType::XHeader if pending.pax.is_none() => pending.pax = Some(tar.pax(size)?),
            EntryType::GNULongName if pending.long_name.is_none() => {
                pending.long_name = Some(tar.long_name(size)?)
            }
            EntryType::GNULongLink if pending.long_link.is_none() => {
                pending.long_link = Some(tar.long_name(size)?)
            }
            EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {
                return Err(tar.corrupt("two headers describe one member"));
            }
            kind => tar.member(kind, header, size, std::mem::take(&mut pending), collector)?,
        }
    }
    if !pending.is_empty() {
        return Err(SnapshotError::Truncated { format, detail: "a described member is missing" });
    }
    tar.only_zeros_follow()
}

struct Tar<'a> {
    source: &'a mut dyn Read,
    format: &'static str,
    limit: u64,
}

impl Tar<'_> {
    fn corrupt(&self, detail: &str) -> SnapshotError {
        SnapshotError::Corrupt { format: self.format, detail: detail.to_owned() }
    }

    fn reading<'a>(&self, entry: &'a str) -> Reading<'a> {
        Reading { format: self.format, limit: self.limit, entry }
    }

    /// The next block; `None` at the end of the data.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, SnapshotError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(SnapshotError::Truncated { format: self.format, detail: INSIDE_A_BLOCK });
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.reading("").error(&error)),
            }
        }
        Ok(Some(block))
    }

    fn check_sum(&self, header: &Header) -> Result<(), SnapshotError> {
        let bytes = header.as_bytes();
        let sum: u32 =
            bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        match header.cksum() {
            Ok(stated) if stated == sum => Ok(()),
            _ => Err(self.corrupt("a header's checksum is wrong")),
        }
    }

    /// The data of an extension header, padding consumed.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, SnapshotError> {
        if size > MAX_EXTENSION_BYTES {
            return Err(self.corrupt("a name or its pax records are longer than 64 KiB"));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut data = Vec::with_capacity(size.next_multiple_of(BLOCK));
        while data.len() < size {
            match self.block()? {
                Some(block) => data.extend_from_slice(&block),
                None => {
                    return Err(SnapshotError::Truncated {
                        format: self.format,
                        detail: "it ends inside a name",
                    });
                }
            }
        }
        data.truncate(size);
        Ok(data)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, SnapshotError> {
        let mut name = self.extension(size)?;
        // GNU tar ends the name with one NUL; any other NUL is judged with the name.
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// `LENGTH KEY=VALUE\n` records. The length decides, not the line break: a value may hold one.
    fn pax(&mut self, size: u64) -> Result<Pax, SnapshotError> {
        let data = self.extension(size)?;
        let broken = || self.corrupt("a pax record is broken");
        let mut pax = Pax::default();
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let space = rest.iter().take(20).position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length: usize = std::str::from_utf8(&rest[..space])
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(broken)?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(broken());
            }
            let record = &rest[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let twice = match key {
                b"path" => pax.path.replace(value.to_vec()).is_some(),
                b"linkpath" => pax.link.replace(value.to_vec()).is_some(),
                b"size" => {
                    let number = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                    pax.size.replace(number.ok_or_else(broken)?).is_some()
                }
                _ => {
                    pax.sparse |= key.starts_with(b"GNU.sparse.");
                    false
                }
            };
            if twice {
                return Err(self.corrupt("a pax record stands twice"));
            }
            rest = &rest[length..];
        }
        Ok(pax)
    }

    /// A member that is no extension header.
    fn member(
        &mut self,
        kind: EntryType,
        header: &Header,
        size: u64,
        pending: Pending,
        collector: &mut Collector<'_>,
    ) -> Result<(), SnapshotError> {
        let pax = pending.pax.unwrap_or_default();
        if pax.path.is_some() && pending.long_name.is_some()
            || pax.link.is_some() && pending.long_link.is_some()
        {
            return Err(self.corrupt("a member is named twice"));
        }
        let raw = pax.path.or(pending.long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let entry = readable(&raw);
        collector.count_member()?;
        if pax.sparse || kind.is_gnu_sparse() {
            return Err(SnapshotError::Sparse { entry });
        }
        // Only sizes beyond 8 GiB need the pax record; where the two differ, readers disagree about what the
        // archive holds.
        match pax.size {
            Some(stated) if stated > self.limit => {
                return Err(SnapshotError::TooManyBytes { limit: self.limit, entry });
            }
            Some(stated) if stated != size => return Err(self.corrupt("a member has two different sizes")),
            _ => {}
        }
        let path = normalise(&raw, false)?;
        let target = || {
            pax.link.or(pending.long_link).or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
        };
        match kind {
            EntryType::Regular | EntryType::Continuous => match path {
                // Archives from before 1988 write directories as files with a slash at the end.
                path if raw.ends_with(b"/") && size == 0 => {
                    path.map_or(Ok(()), |path| collector.directory(path))
                }
                Some(path) if !raw.ends_with(b"/") => {
                    let mode = header.mode().map_err(|_| self.corrupt("a mode field is no number"))?;
                    self.file(path, mode, size, collector)
                }
                _ => Err(self.corrupt("a directory has contents")),
            },
            EntryType::Directory if size == 0 => path.map_or(Ok(()), |path| collector.directory(path)),
            EntryType::Symlink | EntryType::Link if size == 0 => {
                let path = path.ok_or(SnapshotError::EmptyName)?;
                collector.link(path, target().unwrap_or_default(), kind == EntryType::Link)
            }
            EntryType::Directory | EntryType::Symlink | EntryType::Link => {
                Err(self.corrupt("a directory or link has contents"))
            }
            EntryType::Char | EntryType::Block => Err(SnapshotError::SpecialFile { entry, what: "a device" }),
            EntryType::Fifo => Err(SnapshotError::SpecialFile { entry, what: "a named pipe" }),
            _ => Err(SnapshotError::SpecialFile { entry, what: "of a kind that is not known here" }),
        }
    }

    fn file(
        &mut self,
        path: String,
        mode: u32,
        size: u64,
        collector: &mut Collector<'_>,
    ) -> Result<(), SnapshotError> {
        let reading = self.reading(&path);
        let cut = || SnapshotError::Truncated { format: self.format, detail: "it ends inside a file" };
        let read = copy(&mut (&mut *self.source).take(size), &reading, collector)?;
        if read != size {
            return Err(cut());
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let skipped = io::copy(&mut (&mut *self.source).take(padding), &mut io::sink());
        if skipped.map_err(|error| reading.error(&error))? != padding {
            return Err(cut());
        }
        collector.file(path, mode & 0o100 != 0)
    }

    fn only_zeros_follow(&mut self) -> Result<(), SnapshotError> {
        let mut buffer = [0; 8192];
        loop {
            match self.source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) if buffer[..count].iter().all(|byte| *byte == 0) => {}
                Ok(_) => return Err(SnapshotError::TrailingGarbage { format: self.format }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // All that the gzip decoder says of bytes after the end that are no further gzip member.
                Err(error) if error.to_string() == "invalid gzip header" => {
                    return Err(SnapshotError::TrailingGarbage { format: self.format });
                }
                Err(error) => return Err(self.reading("").error(&error)),
            }
        }
    }
}

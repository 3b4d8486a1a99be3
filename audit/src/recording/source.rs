//! Where the files of one recording are.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::PathBuf;

use super::{MANIFEST, segment_name};

/// Longest manifest, in bytes: a session of a day has at most some ten thousand segments of 200 bytes.
const MAX_MANIFEST: u64 = 16 << 20;

/// The files of one recording.
pub trait Source {
    /// The manifest; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    fn manifest(&self) -> io::Result<Option<Vec<u8>>>;

    /// The names of all segments (`*.seg`) there are, in any order.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn segments(&self) -> io::Result<Vec<String>>;

    /// Segment `number`; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn segment(&self, number: u32) -> io::Result<Option<Box<dyn Read + '_>>>;
}

/// A directory.
#[derive(Clone, Debug)]
pub struct Directory(pub PathBuf);

impl Source for Directory {
    fn manifest(&self) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = found(File::open(self.0.join(MANIFEST)))? else {
            return Ok(None);
        };
        let mut manifest = Vec::new();
        file.take(MAX_MANIFEST).read_to_end(&mut manifest)?;
        Ok(Some(manifest))
    }

    fn segments(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if is_segment(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn segment(&self, number: u32) -> io::Result<Option<Box<dyn Read + '_>>> {
        let file = found(File::open(self.0.join(segment_name(number))))?;
        Ok(file.map(|file| Box::new(BufReader::with_capacity(64 << 10, file)) as _))
    }
}

/// Whether a file of this name is a segment.
#[must_use]
pub fn is_segment(name: &str) -> bool {
    name.strip_suffix(".seg").is_some()
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(it) => Ok(Some(it)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

//! Where recordings are: directories and object stores.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, bail};
use drawbridge_audit::recording::{Directory, MANIFEST, Source, is_segment, segment_name};
use drawbridge_audit::store::Store;
use futures_util::TryStreamExt;
use tokio::runtime::{Builder, Runtime};

/// Longest file that is fetched, in bytes: a segment is closed at 1 MiB, and a chunk may make it 3 MiB.
const MAX_FILE: u64 = 16 << 20;
/// How deep directories are searched: namespace, session and recording lie below the store's own.
const MAX_DEPTH: usize = 16;

/// A recording that was found.
pub(crate) struct Recording {
    /// Where: a path or URL.
    pub(crate) name: String,
    /// Its files.
    pub(crate) source: Box<dyn Source>,
}

/// All recordings at `places`, in the order of their ids, which is that of time, place by place.
pub(crate) fn find(places: &[String]) -> anyhow::Result<Vec<Recording>> {
    let mut found = Vec::new();
    for place in places {
        let mut here = match place.strip_prefix("file://") {
            Some(path) => local(Path::new(path)),
            None if place.contains("://") => remote(place),
            None => local(Path::new(place)),
        }
        .with_context(|| format!("cannot look for recordings in {place}"))?;
        if here.is_empty() {
            bail!("there is no recording in {place}");
        }
        here.sort_by(|a, b| id(&a.name).cmp(id(&b.name)));
        found.append(&mut here);
    }
    Ok(found)
}

/// The one recording at `place`.
pub(crate) fn only(place: &str) -> anyhow::Result<Recording> {
    let mut found = find(&[place.to_owned()])?;
    match (found.pop(), found.len()) {
        (Some(recording), 0) => Ok(recording),
        (_, others) => bail!("there are {} recordings in {place}; name one", others + 1),
    }
}

/// The last part of a name: a recording's id, unless somebody renamed it.
fn id(name: &str) -> &str {
    name.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(name)
}

fn is_recording_file(name: &str) -> bool {
    name == MANIFEST || is_segment(name)
}

fn local(path: &Path) -> anyhow::Result<Vec<Recording>> {
    let mut found = Vec::new();
    walk(path, MAX_DEPTH, &mut found)?;
    Ok(found
        .into_iter()
        .map(|path| Recording {
            name: path.display().to_string(),
            source: Box::new(Directory(path)),
        })
        .collect())
}

/// Symbolic links are not followed below `path`: who wrote recordings shall not choose what is read.
fn walk(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut is_recording = false;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                walk(&entry.path(), depth - 1, found)?;
            }
        } else {
            is_recording |= is_recording_file(&entry.file_name().to_string_lossy());
        }
    }
    if is_recording {
        found.push(path.to_owned());
    }
    Ok(())
}

fn remote(url: &str) -> anyhow::Result<Vec<Recording>> {
    let runtime = Rc::new(Builder::new_current_thread().enable_all().build()?);
    let store = Store::open(url)?;
    let mut recordings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    runtime.block_on(async {
        let mut objects = store.list("");
        while let Some(object) = objects.try_next().await? {
            let (parent, name) = object.key.rsplit_once('/').unwrap_or(("", &object.key));
            if is_recording_file(name) {
                let files = recordings.entry(parent.to_owned()).or_default();
                files.push(name.to_owned());
            }
        }
        anyhow::Ok(())
    })?;
    let found = recordings.into_iter().map(|(key, files)| Recording {
        name: store.location(&key),
        source: Box::new(Remote {
            runtime: Rc::clone(&runtime),
            store: store.clone(),
            key,
            files,
        }) as _,
    });
    Ok(found.collect())
}

/// A recording in an object store; a segment in memory at a time.
struct Remote {
    runtime: Rc<Runtime>,
    store: Store,
    key: String,
    files: Vec<String>,
}

impl Remote {
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if !self.files.iter().any(|file| file == name) {
            return Ok(None);
        }
        let key = match &self.key[..] {
            "" => name.to_owned(),
            parent => format!("{parent}/{name}"),
        };
        match self.runtime.block_on(self.store.get(&key, MAX_FILE)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl Source for Remote {
    fn manifest(&self) -> io::Result<Option<Vec<u8>>> {
        self.get(MANIFEST)
    }

    fn segments(&self) -> io::Result<Vec<String>> {
        let segments = self.files.iter().filter(|file| is_segment(file));
        Ok(segments.cloned().collect())
    }

    fn segment(&self, number: u32) -> io::Result<Option<Box<dyn Read + '_>>> {
        let segment = self.get(&segment_name(number))?;
        Ok(segment.map(|bytes| Box::new(Cursor::new(bytes)) as _))
    }
}

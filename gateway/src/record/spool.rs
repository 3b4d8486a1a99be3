//! Where recordings lie until the store has them: one directory each, of this machine alone.
//!
//! ```text
//!   SPOOL/recordings/NAMESPACE/SESSION UID/RECORDING ID/
//!     lock           held while a process writes or delivers it: whoever gets it may take over
//!     opening.json   on the disk before a pod is dialled
//!     00000000.seg   …
//!     reserve        room for the manifest, which is written into it: the disk may be full by then
//!     manifest.json  once it is sealed
//! ```
//!
//! Everything here blocks.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use drawbridge_audit::recording::{MANIFEST, Opening, segment_name};

const LOCK: &str = "lock";
const OPENING: &str = "opening.json";
const RESERVE: &str = "reserve";
/// What a delivered recording's directory ends in while it is removed.
const DONE: &str = ".done";

/// A file that is written and removed to see whether the disk takes it.
const PROBE: &str = "probe";

/// Bytes set aside for a manifest, on top of twice its facts (it holds them in base64): [`STEP`] segments, and the rest.
const RESERVED: u64 = 8 * 1024;
/// So many segments later as much is set aside again: each is some 200 bytes in base64.
const STEP: u32 = 16;
/// Bytes that must fit before it counts as working again: a segment. Otherwise each bit of room would let somebody in,
/// only to be cut a second later.
const ROOM: u64 = 1 << 20;

/// A directory without opening that is older than this was left between its making and its lock.
const ABANDONED: Duration = Duration::from_mins(1);

/// The directory of recordings on this machine, and how much it holds.
#[derive(Clone, Debug)]
pub struct Spool {
    root: PathBuf,
    used: Arc<AtomicU64>,
    most: u64,
    /// One at a time tries whether the disk works.
    probing: Arc<Mutex<()>>,
    /// Directories of sessions and namespaces whose own names are on the disk: no more than there are.
    named: Arc<Mutex<HashSet<PathBuf>>>,
}

/// The directory of one recording, and the right to use it.
#[derive(Debug)]
pub struct Place {
    spool: Spool,
    /// Its path below the spool and below the store alike.
    key: String,
    dir: PathBuf,
    lock: File,
    /// Whether it holds something worth keeping.
    keep: bool,
}

/// A recording that another process left.
#[derive(Debug)]
pub enum Left {
    /// Sealed, but not delivered.
    Sealed(Place),
    /// Not sealed.
    Open(Place, Box<Opening>),
}

impl Spool {
    /// The spool in a directory, which is made if it is not there; `most` bytes at most.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(root: &Path, most: u64) -> io::Result<Self> {
        fs::create_dir_all(root.join("recordings"))?;
        let spool = Self {
            root: fs::canonicalize(root)?,
            used: Arc::default(),
            most,
            probing: Arc::default(),
            named: Arc::default(),
        };
        sync(&spool.root)?;
        spool.measure()?;
        Ok(spool)
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether there is room for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.used() < self.most
    }

    /// Counts anew what is there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn measure(&self) -> io::Result<()> {
        let mut bytes = 0;
        self.each(&mut |dir| {
            bytes += size(dir);
            Ok(())
        })?;
        self.used.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is room again for more than a moment, tried out.
    ///
    /// # Errors
    /// If there is not.
    pub fn probe(&self) -> io::Result<()> {
        if self.used().saturating_add(ROOM.min(self.most / 8)) > self.most {
            return Err(full());
        }
        let _alone = self.probing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.root.join(PROBE);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&vec![0; usize::try_from(ROOM).unwrap_or_default()])?;
            file.sync_all()
        });
        let _ = fs::remove_file(&path); // there is none, or the next one overwrites it
        written
    }

    /// A new place, for nobody else, with room for a manifest and these facts in it. It is gone when it is dropped, unless
    /// it is to be [kept](Place::keep).
    ///
    /// # Errors
    /// If the disk, or the bound, does not take it. Nothing is left then.
    pub fn reserve(&self, opening: &Opening) -> io::Result<Place> {
        let session = &opening.session;
        let key = format!(
            "recordings/{}/{}/{}",
            session.namespace, session.uid, opening.recording
        );
        let dir = self.root.join(&key);
        fs::create_dir_all(&dir)?;
        let lock = match locked(&dir) {
            Ok(Some(lock)) => lock,
            failed => {
                let _ = fs::remove_dir_all(&dir); // or found later, and removed then
                return Err(failed.err().unwrap_or(ErrorKind::AlreadyExists.into()));
            }
        };
        let place = Place {
            spool: self.clone(),
            key,
            dir,
            lock,
            keep: false,
        };
        let facts = serde_json::to_vec(opening)?;
        let length = facts.len() as u64;
        place.set_aside(RESERVED + 2 * length)?;
        place.add(length)?;
        place.write_whole(OPENING, &facts)?;
        place.sync()?;
        self.name(&place.dir)?;
        Ok(place)
    }

    /// Puts the names of a recording's directory, and of those above it, on the disk, as far as they are not.
    fn name(&self, recording: &Path) -> io::Result<()> {
        let mut above = recording.ancestors().skip(1);
        let (Some(session), Some(namespace), Some(all)) =
            (above.next(), above.next(), above.next())
        else {
            return Ok(());
        };
        sync(session)?;
        for (dir, parent) in [(session, namespace), (namespace, all)] {
            if self.named().contains(dir) {
                break; // so are those above it
            }
            sync(parent)?;
        }
        let named = [session, namespace].map(Path::to_owned);
        self.named().extend(named);
        Ok(())
    }

    fn named(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place in this directory, if nobody has it.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn claim(&self, dir: &Path) -> io::Result<Option<Place>> {
        let key = dir.strip_prefix(&self.root).unwrap_or(dir);
        let key = key.to_string_lossy().into_owned();
        Ok(locked(dir)?.map(|lock| Place {
            spool: self.clone(),
            key,
            dir: dir.to_owned(),
            lock,
            keep: true,
        }))
    }

    /// Whether something of this name is here.
    #[must_use]
    pub fn holds(&self, key: &str) -> bool {
        self.root.join(key).exists()
    }

    /// What processes that are gone have left, each now ours. Removes what was delivered or never begun.
    ///
    /// # Errors
    /// If the spool cannot be read. A single recording that cannot is passed over, and told to `skipped`.
    pub fn left(&self, skipped: &mut dyn FnMut(&Path, io::Error)) -> io::Result<Vec<Left>> {
        let mut found = Vec::new();
        self.each(&mut |dir| {
            match self.take_over(dir) {
                Ok(left) => found.extend(left),
                Err(error) => skipped(dir, error),
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn take_over(&self, dir: &Path) -> io::Result<Option<Left>> {
        if dir.to_string_lossy().ends_with(DONE) {
            fs::remove_dir_all(dir)?;
            return Ok(None);
        }
        let Some(mut place) = self.claim(dir)? else {
            return Ok(None); // somebody is at it
        };
        match fs::read(dir.join(OPENING)) {
            Ok(json) => {
                if dir.join(MANIFEST).exists() {
                    return Ok(Some(Left::Sealed(place)));
                }
                let opening = serde_json::from_slice(&json)?;
                Ok(Some(Left::Open(place, opening)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = fs::metadata(dir)?.modified()?;
                let age = SystemTime::now().duration_since(made);
                place.keep = !age.is_ok_and(|age| age > ABANDONED);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Every recording's directory.
    fn each(&self, with: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        for namespace in dirs(&self.root.join("recordings"))? {
            for session in dirs(&namespace)? {
                for recording in dirs(&session)? {
                    with(&recording)?;
                }
            }
        }
        Ok(())
    }
}

impl Place {
    /// Its name in the store.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on it is a recording, and stays until it is [delivered](Place::delivered).
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Puts other facts in place of those that it was [made](Spool::reserve) with. That they are in place is on the disk
    /// after [`Place::sync`], which is to come before any segment; until then, a crash may bring back the first ones.
    ///
    /// # Errors
    /// If the disk does not take them; the first ones stand then.
    pub fn describe(&self, opening: &Opening) -> io::Result<()> {
        self.write_whole(OPENING, &serde_json::to_vec(opening)?)
    }

    /// Sets room aside for the manifest, on top of what there is.
    fn set_aside(&self, bytes: u64) -> io::Result<()> {
        self.add(bytes)?;
        let mut options = File::options();
        let mut reserve = options
            .create(true)
            .append(true)
            .open(self.dir.join(RESERVE))?;
        // Not synced: the file system has room for what it took, and a crash needs none of it.
        reserve.write_all(&vec![0; usize::try_from(bytes).unwrap_or_default()])
    }

    /// Counts bytes that are about to be written.
    ///
    /// # Errors
    /// If they do not fit into the spool.
    pub fn add(&self, bytes: u64) -> io::Result<()> {
        let before = self.spool.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.spool.most {
            sub(&self.spool.used, bytes);
            return Err(full());
        }
        Ok(())
    }

    /// A new, empty segment. Its name is on the disk after [`Place::sync`].
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn segment(&self, number: u32) -> io::Result<File> {
        if number > 0 && number.is_multiple_of(STEP) {
            self.set_aside(RESERVED)?;
        }
        File::create_new(self.dir.join(segment_name(number)))
    }

    /// Puts the names of its files on the disk.
    ///
    /// # Errors
    /// If the disk does not take them.
    pub fn sync(&self) -> io::Result<()> {
        sync(&self.dir)
    }

    /// Puts the manifest on the disk. From then on the recording is whole.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn seal(&self, manifest: &[u8]) -> io::Result<()> {
        let (reserve, length) = (self.dir.join(RESERVE), manifest.len() as u64);
        let mut options = File::options();
        let mut file = options
            .create(true)
            .truncate(false) // its blocks are what was set aside
            .write(true)
            .open(&reserve)?;
        let before = file.metadata()?.len();
        file.write_all(manifest)?;
        file.set_len(length)?;
        file.sync_all()?;
        fs::rename(reserve, self.dir.join(MANIFEST))?;
        sub(&self.spool.used, before);
        self.spool.used.fetch_add(length, Ordering::Relaxed);
        self.sync()
    }

    /// Removes everything: the store has it.
    ///
    /// # Errors
    /// If it cannot be removed; what is left is removed by the next look at the spool.
    pub fn delivered(self) -> io::Result<()> {
        let bytes = size(&self.dir);
        let mut done = self.dir.clone().into_os_string();
        done.push(DONE);
        // At once: half of a recording would look like one that was interrupted.
        fs::rename(&self.dir, &done)?;
        sub(&self.spool.used, bytes);
        fs::remove_dir_all(&done)?;
        self.prune();
        Ok(())
    }

    /// A file that is there whole or not at all, and stays after [`Place::sync`].
    fn write_whole(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = self.dir.join(format!("{name}.draft"));
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, self.dir.join(name))
    }

    /// Removes the directories above if they are empty now.
    fn prune(&self) {
        for dir in self.dir.ancestors().skip(1).take(2) {
            // First: who makes it anew meanwhile must not take it for the old one.
            self.spool.named().remove(dir);
            if fs::remove_dir(dir).is_err() {
                return; // not empty, or somebody else's
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A connection that never came about leaves nothing.
        if !self.keep {
            let bytes = size(&self.dir);
            if fs::remove_dir_all(&self.dir).is_ok() {
                sub(&self.spool.used, bytes);
                self.prune();
            }
        }
        let _ = self.lock.unlock(); // closing it does so, too
    }
}

fn full() -> io::Error {
    io::Error::new(ErrorKind::StorageFull, "the spool holds as much as it may")
}

fn sub(used: &AtomicU64, bytes: u64) {
    let less = |used: u64| Some(used.saturating_sub(bytes));
    let _ = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less); // it always answers Some
}

/// Puts the names in a directory on the disk.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The lock of a directory, if nobody has it.
fn locked(dir: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The directories in a directory; none if it is gone.
fn dirs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    dirs.sort();
    Ok(dirs)
}

/// Bytes of the files in a directory, as far as they can be read.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.len())
        .sum()
}

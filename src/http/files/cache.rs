//! Files that are open, by name: what is asked for again within a second is not looked up again.
//!
//! Bounded by descriptors. Shared by all loops; held for a look-up only, never while a file is opened or read.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::asset::{Asset, Content, Description, entity_tag};
use crate::http::content_coding::Coding;
use crate::http::date::unix_seconds;

/// How long a name stands for the file that was found under it. (That the file itself has not changed is seen each time.)
const FRESH: Duration = Duration::from_secs(1);
/// Files held open.
const DESCRIPTORS_MAX: usize = 256;
/// Files up to this size are kept in memory: they leave with their head, in one write.
const SMALL_BYTES_MAX: u64 = 16 << 10;
/// The coarsest clock of a file system that we care for (FAT). Within it, a file can change twice and look the same.
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// What is open.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: HashMap<Box<str>, Arc<Entry>>,
    descriptors: usize,
}

/// A file in the codings that there are.
#[derive(Debug)]
pub(crate) struct Entry {
    pub since: Instant,
    pub plain: Opened,
    pub coded: Vec<(Coding, Opened)>,
}

/// An open file as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub asset: Asset,
    file: Arc<File>,
    stamp: Stamp,
}

/// What changes whenever a file's content does: its inode when it is replaced, its status change time (which nobody can
/// set) when it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

impl Cache {
    /// The file that was found under this name less than a second before `now`.
    pub fn get(&self, name: &str, now: Instant) -> Option<Arc<Entry>> {
        self.shelf().entries.get(name).filter(|entry| entry.is_fresh(now)).map(Arc::clone)
    }

    /// Keeps a file, if there is room or room can be made.
    pub fn put(&self, name: &str, entry: &Arc<Entry>, now: Instant) {
        let mut shelf = self.shelf();
        if let Some(former) = shelf.entries.remove(name) {
            shelf.descriptors -= former.descriptors();
        }
        if shelf.descriptors + entry.descriptors() > DESCRIPTORS_MAX {
            shelf.entries.retain(|_, entry| entry.is_fresh(now));
            shelf.descriptors = shelf.entries.values().map(|entry| entry.descriptors()).sum();
        }
        if shelf.descriptors + entry.descriptors() <= DESCRIPTORS_MAX {
            shelf.descriptors += entry.descriptors();
            shelf.entries.insert(name.into(), Arc::clone(entry));
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The file in this coding.
    pub fn in_coding(&self, coding: Option<Coding>) -> &Opened {
        self.coded.iter().find(|(other, _)| Some(*other) == coding).map_or(&self.plain, |(_, opened)| opened)
    }

    fn descriptors(&self) -> usize {
        1 + self.coded.len()
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < FRESH
    }
}

/// What is known of a file without opening it.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub content_type: &'static str,
    pub cache_control: &'a str,
    pub coding: Option<Coding>,
    pub varies: bool,
}

impl Opened {
    /// Takes a file into use; a small one is read.
    ///
    /// Its entity tag is a strong one (RFC 9110 §8.8.1), unless the file changed so lately that it could change once more
    /// and look the same: then the tag is weak, and not that of the later strong one either, so that a copy from that time
    /// is not taken for the final content.
    pub fn new(file: File, metadata: &Metadata, frame: Frame<'_>, now: SystemTime) -> Opened {
        let stamp = Stamp::of(metadata);
        let now_seconds = unix_seconds(now);
        let settled = stamp.changed.0 < now_seconds.saturating_sub(CLOCK_TICK.as_secs()) as i64;
        let identity = [stamp.inode, stamp.changed.0 as u64, stamp.changed.1 as u64].map(u64::to_le_bytes);
        let tag = entity_tag(identity.as_flattened(), stamp.len);
        let file = Arc::new(file);
        let asset = Asset::new(Description {
            content: small_content(&file, stamp.len).unwrap_or_else(|| Content::Disk(Arc::clone(&file))),
            len: stamp.len,
            content_type: frame.content_type,
            tag: if settled { tag } else { format!("W/{}-new\"", tag.trim_end_matches('"')) },
            last_modified: metadata.modified().ok().map(|modified| unix_seconds(modified).min(now_seconds)),
            cache_control: frame.cache_control,
            coding: frame.coding,
            varies: frame.varies,
        });
        Opened { asset, file, stamp }
    }

    /// Whether the file is still what it was. One system call.
    pub fn is_current(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp { inode: metadata.ino(), len: metadata.len(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }
}

fn small_content(file: &File, len: u64) -> Option<Content> {
    if len > SMALL_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(Content::Memory(bytes.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::http::files::scratch::Scratch;

    fn open(path: &std::path::Path, now: SystemTime) -> Opened {
        let file = File::open(path).unwrap();
        let metadata = file.metadata().unwrap();
        let frame = Frame { content_type: "a/b", cache_control: "", coding: None, varies: false };
        Opened::new(file, &metadata, frame, now)
    }

    #[test]
    fn a_tag_is_strong_once_the_file_has_settled() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        fs::write(&path, "one").unwrap();
        let now = SystemTime::now();
        let (fresh, settled) = (open(&path, now), open(&path, now + Duration::from_secs(5)));
        let (fresh, settled) = (fresh.asset.validators().tag, settled.asset.validators().tag);
        assert!(fresh.starts_with("W/\"") && settled.starts_with('"'), "{fresh} {settled}");
        assert_ne!(fresh.trim_start_matches("W/"), settled);

        let old = open(&path, now + Duration::from_secs(5));
        assert!(old.is_current());
        fs::write(&path, "four").unwrap();
        assert!(!old.is_current(), "written to");
        let old = open(&path, now + Duration::from_secs(5));
        assert_ne!(old.asset.validators().tag, settled);
        fs::write(scratch.path().join("b"), "five").unwrap();
        fs::rename(scratch.path().join("b"), &path).unwrap();
        assert!(!old.is_current(), "replaced");
    }

    #[test]
    fn last_modified_is_never_in_the_future() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        fs::write(&path, "").unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let opened = open(&path, now);
        assert_eq!(opened.asset.validators().last_modified, Some(784_111_777));
        assert!(opened.asset.lines().contains("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
    }

    #[test]
    fn large_files_stay_on_disk() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        for (len, in_memory) in [(0, true), (16 << 10, true), ((16 << 10) + 1, false)] {
            fs::write(&path, vec![b'x'; len]).unwrap();
            let opened = open(&path, SystemTime::now());
            assert_eq!(matches!(opened.asset.content, Content::Memory(_)), in_memory, "{len}");
        }
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_stale_first() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a");
        fs::write(&path, "").unwrap();
        let (cache, start) = (Cache::default(), Instant::now());
        let put = |name: usize, at: Instant| {
            let coded = vec![(Coding::Gzip, open(&path, SystemTime::now()))];
            let entry = Entry { since: at, plain: open(&path, SystemTime::now()), coded };
            cache.put(&name.to_string(), &Arc::new(entry), at);
        };
        let held = || {
            let shelf = cache.shelf();
            (shelf.entries.len(), shelf.descriptors)
        };
        (0..100).for_each(|name| put(name, start));
        (0..100).for_each(|name| put(name, start));
        assert_eq!(held(), (100, 200), "putting again replaces");
        (100..200).for_each(|name| put(name, start));
        assert_eq!(held(), (128, 256), "no more than that");
        assert!(cache.get("127", start).is_some() && cache.get("128", start).is_none());
        let later = start + FRESH;
        assert!(cache.get("127", later).is_none(), "stale");
        put(500, later);
        assert_eq!(held(), (1, 2));
        assert!(cache.get("500", later).is_some());
    }
}

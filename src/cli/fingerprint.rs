//! How a model's files look from outside, to see that they were changed without reading them again.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use crate::config::{ModelConfig, ModelSource};

/// Which files they are, their sizes and when they were written. Equal fingerprints: nobody has touched them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    written: (i64, i64),
}

impl Fingerprint {
    /// Of a model's own files and of its chat template; empty for the embedded model.
    pub fn of(model: &ModelConfig) -> Self {
        let mut seen = Vec::new();
        if let ModelSource::File(path) = &model.source {
            look(path, &mut seen);
        }
        if let Some(path) = &model.template {
            look(path, &mut seen);
        }
        Self(seen)
    }

    /// When the youngest of the files was written; `None` for the embedded model.
    pub fn written(&self) -> Option<SystemTime> {
        let (seconds, nanos) = self.0.iter().map(|seen| seen.written).max()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?))
    }

    /// Of one file, or of a folder and the files in it; empty if there is none.
    pub fn of_path(path: &Path) -> Self {
        let mut seen = Vec::new();
        look(path, &mut seen);
        Self(seen)
    }
}

fn look(path: &Path, seen: &mut Vec<Seen>) {
    let Ok(meta) = fs::metadata(path) else { return };
    let written = (meta.mtime(), meta.mtime_nsec());
    seen.push(Seen { device: meta.dev(), inode: meta.ino(), bytes: meta.len(), written });
    if meta.is_dir() {
        let mut files: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|file| file.path()).collect();
        files.sort();
        files.iter().filter(|file| file.is_file()).for_each(|file| look(file, seen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_looks_different() {
        let folder = std::env::temp_dir().join(format!("sconce-fingerprint-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("a");
        assert_eq!(Fingerprint::of_path(&file), Fingerprint::default());
        fs::write(&file, "one").unwrap();
        let (one, all) = (Fingerprint::of_path(&file), Fingerprint::of_path(&folder));
        assert_eq!(Fingerprint::of_path(&file), one);
        fs::write(&file, "longer").unwrap();
        assert_ne!(Fingerprint::of_path(&file), one);
        assert_ne!(Fingerprint::of_path(&folder), all);
        fs::remove_dir_all(&folder).unwrap();
    }
}

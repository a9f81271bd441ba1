//! Replaces models while the server runs: on SIGHUP, and when the configuration file has changed.
//!
//! ```text
//! read the configuration ─▶ open what is new or has changed ─▶ hand all to the server, which has it in place or not at all
//!   │ wrong: keep all          │ can't be served: keep all        (api/models/replace.rs)
//! ```
//!
//! What has not changed is not touched. Invariant: a request is answered by the model that it came to, as long as that
//! lives.

use std::{
    fmt,
    io::{self, Read},
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::Duration,
};

use signal_hook::{consts::SIGHUP, low_level::pipe};

use crate::{
    api::{
        Api, ReloadOutcome,
        models::{ModelState, Replaced},
    },
    config::Config,
};

use super::{Failure, Sources, catalog::Catalog, fingerprint::Fingerprint, load::Summary};

/// How often it is looked whether the configuration file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// SIGHUPs that have come.
pub struct Hangups(UnixStream);

impl Hangups {
    /// From now on a SIGHUP no longer ends the process.
    pub fn watch() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_read_timeout(Some(LOOK_INTERVAL))?;
        pipe::register(SIGHUP, write)?;
        Ok(Self(read))
    }

    /// Waits for one; false when none came for [`LOOK_INTERVAL`].
    fn wait(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 64]), Ok(1..))
    }
}

/// Owns the way from configuration to served models.
pub struct Reloader {
    api: Arc<Api>,
    sources: Sources,
    /// That of the served models.
    config: Config,
    catalog: Catalog,
}

impl Reloader {
    /// Serves the models of a configuration, the first one: those that are loaded at the start have been when this returns.
    pub fn start(api: Arc<Api>, sources: Sources, config: Config) -> Result<Self, Failure> {
        let catalog = Catalog::open(&config, &Catalog::default(), |_| true)?;
        match api.models().replace(catalog.entries(), Duration::ZERO) {
            Replaced::Fully => Ok(Self { api, sources, config, catalog }),
            Replaced::Refused(why) | Replaced::Partly(why) => Err(Failure::Config(why)),
        }
    }

    /// What is served, for people.
    pub fn summaries(&self) -> Vec<Summary> {
        self.catalog.summaries()
    }

    /// Starts the thread that waits for reasons to reload.
    pub fn watch(mut self, mut hangups: Hangups) -> io::Result<()> {
        let mut acted_on = Fingerprint::of_path(self.sources.path());
        let mut seen = acted_on.clone();
        let run = move || {
            loop {
                let told = hangups.wait();
                let now = Fingerprint::of_path(self.sources.path());
                // Twice the same: nobody is writing it any more.
                let changed = now != acted_on && now == seen;
                seen = now;
                if told || changed {
                    log::info!("reloading: {}", if told { "SIGHUP" } else { "the configuration file has changed" });
                    acted_on = seen.clone();
                    let outcome = self.reload();
                    self.api.count_reload(outcome);
                }
            }
        };
        thread::Builder::new().name("reload".to_owned()).spawn(run).map(drop)
    }

    /// Replaces the models whose settings or files have changed.
    fn reload(&mut self) -> ReloadOutcome {
        let config = match self.sources.load() {
            Ok(config) => config,
            Err(error) => return keep(&error),
        };
        if config.server != self.config.server {
            log::warn!("[server] has changed: that takes effect when the server is started again");
        }
        let config = Config { server: self.config.server.clone(), ..config };
        // One that could not be loaded is tried again.
        let failed = |name: &str| {
            let status = self.api.models().status(Some(name));
            status.is_ok_and(|model| matches!(model.state, ModelState::Failed { .. }))
        };
        let catalog = match Catalog::open(&config, &self.catalog, |name| !failed(name)) {
            Ok(catalog) => catalog,
            Err(failure) => return keep(&failure),
        };
        if catalog.is_same(&self.catalog) {
            log::info!("nothing to reload: neither the models' settings nor their files have changed");
            return ReloadOutcome::Unchanged;
        }
        let replaced = self.api.models().replace(catalog.entries(), config.server.drain_timeout);
        if let Replaced::Refused(why) = replaced {
            return keep(&why);
        }
        (self.config, self.catalog) = (config, catalog);
        match replaced {
            Replaced::Partly(why) => {
                log::error!("{why}; that model is not served until this is put right and SIGHUP sent");
                ReloadOutcome::Failed
            }
            _ => ReloadOutcome::Replaced,
        }
    }
}

/// The new models can't be had.
fn keep(why: &dyn fmt::Display) -> ReloadOutcome {
    log::error!("{why}; all is served on as it was");
    ReloadOutcome::Refused
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::PathBuf,
        sync::{
            Weak,
            atomic::{AtomicU64, Ordering::Relaxed},
            mpsc,
        },
    };

    use super::*;
    use crate::{
        api::{Backend, Settings, models::Bounds},
        config::{Low, LowModel},
        demo,
        engine::request::{Event, Flow, GenerateRequest, Prompt, Sink},
    };

    struct Stage {
        path: PathBuf,
        reloader: Reloader,
        /// What the machine has left.
        free: Arc<AtomicU64>,
    }

    impl Stage {
        /// Serves the demo model from a file of this name.
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sconce-reload-{}-{name}.gguf", std::process::id()));
            fs::write(&path, demo::MODEL).unwrap();
            let model = LowModel { path: Some(path.clone()), threads: Some(1), ..LowModel::default() };
            let flags = Low { model: vec![model], ..Low::default() };
            let sources = Sources { flags, file: None };
            let config = sources.load().unwrap();
            let free = Arc::new(AtomicU64::new(64 << 30));
            let left = Arc::clone(&free);
            let bounds = Bounds { free: Box::new(move || Some(left.load(Relaxed))), ..Bounds::default() };
            let api = Api::with_bounds(Settings::default(), bounds).unwrap();
            Self { path, reloader: Reloader::start(api, sources, config).unwrap(), free }
        }

        /// Puts another file in the place of the model's.
        fn replace(&self, bytes: &[u8]) {
            let new = self.path.with_extension("new");
            fs::write(&new, bytes).unwrap();
            fs::rename(&new, &self.path).unwrap();
        }

        fn served(&self) -> Weak<dyn Backend> {
            Arc::downgrade(&self.reloader.api.models().peek().expect("a model is served"))
        }

        fn tokens(&self) -> usize {
            let (tell, told) = mpsc::channel();
            let request =
                GenerateRequest { max_tokens: 4, ignore_eos: true, ..GenerateRequest::new(Prompt::Text("a".into())) };
            self.reloader.api.models().with(None, Duration::MAX, move |model| {
                model.unwrap().submit(request, Box::new(Ends(tell)));
            });
            told.recv().unwrap()
        }
    }

    /// Tells how many tokens there were.
    struct Ends(mpsc::Sender<usize>);

    impl Sink for Ends {
        fn flow(&self) -> Flow {
            Flow::Continue
        }

        fn on_event(&mut self, event: Event) {
            match event {
                Event::Started { .. } | Event::Piece { .. } => {}
                Event::Finished { usage, .. } => self.0.send(usage.completion_tokens).unwrap(),
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }

    /// The demo model without one of its tensors: good to open, impossible to load.
    fn incomplete() -> Vec<u8> {
        let mut bytes = demo::MODEL.to_vec();
        let at = bytes.windows(19).position(|w| w == b"blk.0.attn_q.weight").unwrap();
        bytes[at + 11] = b'Q';
        bytes
    }

    #[test]
    fn what_a_reload_comes_to() {
        let mut it = Stage::new("outcomes");
        assert_eq!(it.reloader.reload(), ReloadOutcome::Unchanged);
        it.replace(demo::MODEL);
        assert_eq!(it.reloader.reload(), ReloadOutcome::Replaced);
        for bad in [b"no model".to_vec(), demo::MODEL[..1 << 20].to_vec(), incomplete()] {
            it.replace(&bad);
            assert_eq!(it.reloader.reload(), ReloadOutcome::Refused);
            assert_eq!(it.tokens(), 4);
        }
        fs::remove_file(&it.path).unwrap();
        assert_eq!(it.reloader.reload(), ReloadOutcome::Refused);
        assert_eq!(it.tokens(), 4);
    }

    #[test]
    fn without_memory_for_two_the_old_one_goes_first() {
        let mut it = Stage::new("memory");
        it.free.store(1 << 20, Relaxed);
        let old = it.served();
        it.replace(demo::MODEL);
        assert_eq!(it.reloader.reload(), ReloadOutcome::Replaced);
        assert!(old.upgrade().is_none() && it.tokens() == 4);
        // What is seen to be bad before is no reason to let the old one go.
        it.replace(b"no model");
        assert_eq!(it.reloader.reload(), ReloadOutcome::Refused);
        assert_eq!(it.tokens(), 4);
        it.replace(&incomplete());
        assert_eq!(it.reloader.reload(), ReloadOutcome::Failed);
        assert!(it.reloader.api.models().peek().is_none());
        it.replace(demo::MODEL);
        assert_eq!(it.reloader.reload(), ReloadOutcome::Replaced);
        assert_eq!(it.tokens(), 4);
    }
}

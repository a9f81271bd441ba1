//! Replaces the served model while the server runs: on SIGHUP, and when the configuration file has changed.
//!
//! ```text
//! read the configuration ─▶ another model, ─▶ memory ─yes─▶ load it ─▶ new requests go to it ─▶ the old one finishes
//!   │ wrong: keep the old     or file?         for both?                                        what it has, is dropped
//!                             │ no: keep        └─no─▶ take nothing, let the old one finish, drop it ─▶ load
//! ```
//!
//! Invariant: a request is answered by the model that it came to, as long as that lives.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use signal_hook::{consts::SIGHUP, low_level::pipe};

use crate::{
    api::{Api, Backend, ReloadOutcome, Served},
    config::{Config, available_bytes, show_bytes},
    engine::{Engine, give_back_memory},
};

use super::{
    Sources,
    fingerprint::Fingerprint,
    load::{self, Loaded, megabytes},
};

/// How often it is looked whether the configuration file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Left free when two models are in memory.
const MEMORY_RESERVE_BYTES: u64 = 256 << 20;

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

/// All engines with requests: the served one's, and those of its predecessors until they have finished.
#[derive(Clone, Default)]
pub struct Engines(Arc<Mutex<Vec<Engine>>>);

impl Engines {
    fn lock(&self) -> MutexGuard<'_, Vec<Engine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, engine: Engine) {
        self.lock().push(engine);
    }

    /// Gives all of them the same time to finish what they have.
    pub fn shutdown(&self, grace: Duration) {
        let engines = self.lock().clone();
        thread::scope(|scope| {
            engines.iter().for_each(|engine| drop(scope.spawn(|| engine.shutdown(grace))));
        });
    }

    /// Waits until an engine that nobody submits to any more has finished what it has, for `grace` at most, and drops it.
    fn retire(&self, Current { engine, served, .. }: Current, grace: Duration) {
        let start = Instant::now();
        // A handler holds on to its model until it has submitted: moments.
        while Arc::strong_count(&served) > 1 {
            thread::park_timeout(Duration::from_millis(1));
        }
        engine.shutdown(grace);
        self.lock().retain(|other| !std::ptr::eq(other.stats(), engine.stats()));
        log::info!(
            "{} as it was before has ended after {:.1} s, {} are given back",
            engine.name(),
            start.elapsed().as_secs_f32(),
            megabytes(served.info().packed_bytes)
        );
        drop((engine, served));
        give_back_memory();
    }
}

/// The model that is served.
struct Current {
    engine: Engine,
    served: Arc<Served>,
    fingerprint: Fingerprint,
}

/// Owns the way from configuration to served model.
pub struct Reloader {
    api: Arc<Api>,
    sources: Sources,
    engines: Engines,
    /// That of the served model, or of the last one.
    config: Config,
    /// `None` when the last one had to go before the next could be loaded, and that failed.
    current: Option<Current>,
}

impl Reloader {
    /// Serves a loaded model, the first one.
    pub fn new(api: Arc<Api>, sources: Sources, config: Config, loaded: Loaded) -> Self {
        let mut reloader = Self { api, sources, engines: Engines::default(), config, current: None };
        reloader.serve(loaded);
        reloader
    }

    pub fn engines(&self) -> Engines {
        self.engines.clone()
    }

    /// Starts the thread that waits for reasons to reload.
    pub fn start(mut self, mut hangups: Hangups) -> io::Result<()> {
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
                    let outcome = self.reload(available_bytes());
                    self.api.count_reload(outcome);
                }
            }
        };
        thread::Builder::new().name("reload".to_owned()).spawn(run).map(drop)
    }

    /// Replaces the model if the configuration or its files ask for that. `available` bytes of memory are free.
    fn reload(&mut self, available: Option<u64>) -> ReloadOutcome {
        let config = match self.sources.load() {
            Ok(config) => config,
            Err(error) => return self.keep(&error),
        };
        if config.server != self.config.server {
            log::warn!("[server] has changed: that takes effect when the server is started again");
        }
        let before = self.current.as_ref().map(|current| &current.fingerprint);
        if config.model == self.config.model && before == Some(&Fingerprint::of(&config.model)) {
            log::info!("nothing to reload: neither the model's settings nor its files have changed");
            return ReloadOutcome::Unchanged;
        }
        let config = Config { server: self.config.server.clone(), ..config };
        match load::open(&config.model).map(|opened| opened.memory_needed()) {
            Err(failure) => self.keep(&failure),
            Ok(needed) if available.is_none_or(|bytes| bytes >= needed + MEMORY_RESERVE_BYTES) => self.beside(config),
            Ok(needed) => {
                let (needed, available) = (show_bytes(needed), show_bytes(available.unwrap_or(0)));
                log::warn!(
                    "no memory for a second model (it needs {needed}, {available} are left): the old one goes first"
                );
                self.instead(config)
            }
        }
    }

    /// Loads the new model while the old one is served.
    fn beside(&mut self, config: Config) -> ReloadOutcome {
        let given_back = self.current.as_ref().map_or(0, |current| current.served.info().packed_bytes);
        if self.current.is_none() {
            self.api.set_loading();
        }
        let loaded = match load::load(&config, given_back, &|share| self.api.set_loading_share(share)) {
            Ok(loaded) => loaded,
            Err(failure) => return self.keep(&failure),
        };
        self.config = config;
        if let Some(old) = self.serve(loaded) {
            let engines = self.engines.clone();
            let finish = move || engines.retire(old, Duration::MAX);
            if let Err(error) = thread::Builder::new().name("retire".to_owned()).spawn(finish) {
                log::error!("the old model stays in memory: {error}");
            }
        }
        ReloadOutcome::Replaced
    }

    /// Lets the old model finish, drops it, and loads the new one then.
    fn instead(&mut self, config: Config) -> ReloadOutcome {
        self.api.set_loading();
        if let Some(old) = self.current.take() {
            self.engines.retire(old, self.config.server.drain_timeout);
        }
        self.beside(config)
    }

    /// Sends new requests to a model; gives the one that had them before.
    fn serve(&mut self, Loaded { engine, served, fingerprint, .. }: Loaded) -> Option<Current> {
        self.engines.add(engine.clone());
        self.api.set_backend(Arc::clone(&served) as Arc<dyn Backend>);
        let (name, seconds) = (served.name().to_owned(), served.info().load_seconds);
        log::info!("serving {name}, loaded in {seconds:.1} s");
        self.current.replace(Current { engine, served, fingerprint })
    }

    /// The new model can't be had.
    fn keep(&self, why: &dyn std::fmt::Display) -> ReloadOutcome {
        match &self.current {
            Some(current) => {
                log::error!("{why}; {} is served on as it was", current.served.name());
                ReloadOutcome::Refused
            }
            None => {
                log::error!("{why}; no model is served until this is put right and SIGHUP sent");
                self.api.set_missing();
                ReloadOutcome::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{
        api::Settings,
        config::{Low, LowModel},
        demo,
        engine::request::{Event, GenerateRequest, Prompt},
    };

    struct Stage {
        path: PathBuf,
        reloader: Reloader,
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
            let loaded = load::load(&config, 0, &|_| {}).unwrap();
            let api = Api::new(Settings::default()).unwrap();
            Self { path, reloader: Reloader::new(api, sources, config, loaded) }
        }

        /// Puts another file in the place of the model's.
        fn replace(&self, bytes: &[u8]) {
            let new = self.path.with_extension("new");
            fs::write(&new, bytes).unwrap();
            fs::rename(&new, &self.path).unwrap();
        }

        fn engine(&self) -> &Engine {
            &self.reloader.current.as_ref().expect("a model is served").engine
        }
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// The demo model without one of its tensors: good to open, impossible to load.
    fn incomplete() -> Vec<u8> {
        let mut bytes = demo::MODEL.to_vec();
        let at = bytes.windows(19).position(|w| w == b"blk.0.attn_q.weight").unwrap();
        bytes[at + 11] = b'Q';
        bytes
    }

    fn tokens(engine: &Engine) -> usize {
        let request =
            GenerateRequest { max_tokens: 4, ignore_eos: true, ..GenerateRequest::new(Prompt::Text("a".into())) };
        match engine.generate(request).last() {
            Some(Event::Finished { usage, .. }) => usage.completion_tokens,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_reload_comes_to() {
        let mut it = Stage::new("outcomes");
        let plenty = Some(64 << 30);
        assert_eq!(it.reloader.reload(plenty), ReloadOutcome::Unchanged);
        it.replace(demo::MODEL);
        assert_eq!(it.reloader.reload(plenty), ReloadOutcome::Replaced);
        for bad in [b"no model".to_vec(), demo::MODEL[..1 << 20].to_vec(), incomplete()] {
            it.replace(&bad);
            assert_eq!(it.reloader.reload(plenty), ReloadOutcome::Refused);
            assert_eq!(tokens(it.engine()), 4);
        }
        fs::remove_file(&it.path).unwrap();
        assert_eq!(it.reloader.reload(plenty), ReloadOutcome::Refused);
        assert_eq!(tokens(it.engine()), 4);
    }

    #[test]
    fn without_memory_for_two_the_old_one_goes_first() {
        let mut it = Stage::new("memory");
        let old = Arc::downgrade(&it.reloader.current.as_ref().unwrap().served);
        it.replace(demo::MODEL);
        assert_eq!(it.reloader.reload(Some(1 << 20)), ReloadOutcome::Replaced);
        assert!(old.upgrade().is_none() && tokens(it.engine()) == 4);
        // What is seen to be bad before is no reason to let the old one go.
        it.replace(b"no model");
        assert_eq!(it.reloader.reload(Some(1 << 20)), ReloadOutcome::Refused);
        assert_eq!(tokens(it.engine()), 4);
        it.replace(&incomplete());
        assert_eq!(it.reloader.reload(Some(1 << 20)), ReloadOutcome::Failed);
        assert!(it.reloader.current.is_none());
        it.replace(demo::MODEL);
        assert_eq!(it.reloader.reload(Some(1 << 20)), ReloadOutcome::Replaced);
        assert_eq!(tokens(it.engine()), 4);
    }
}

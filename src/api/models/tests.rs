//! The registry with models that are loaded when the test says so.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{Bounds, Entry, Facts, Kind, ModelState, Models, Order, Origin, Replaced, Resident};
use crate::api::{backend::Backend, error::ApiError, tests::toy::Echo};

const SOON: Duration = Duration::from_secs(10);

/// Loads as it is told; counts what is asked of it.
struct Toy {
    outcomes: Mutex<Receiver<Result<(), String>>>,
    begun: Sender<()>,
}

/// The test's side of a toy.
struct Hand {
    toy: Arc<Toy>,
    tell: Sender<Result<(), String>>,
    begins: Receiver<()>,
}

impl Hand {
    fn new() -> Self {
        let ((tell, outcomes), (begun, begins)) = (unbounded(), unbounded());
        Self { toy: Arc::new(Toy { outcomes: Mutex::new(outcomes), begun }), tell, begins }
    }

    /// Loads as often as it is asked to.
    fn ready() -> Self {
        let it = Self::new();
        (0..100).for_each(|_| it.tell.send(Ok(())).unwrap());
        it
    }

    fn entry(&self, name: &str) -> Entry {
        let facts = Facts {
            kind: Kind::Decoder,
            architecture: "parrot".to_owned(),
            parameters: 1,
            file_bytes: 1,
            context: 1,
            memory_bytes_min: 60,
            created: SystemTime::UNIX_EPOCH,
        };
        Entry {
            name: name.to_owned(),
            aliases: vec![format!("{name}:latest")],
            position: 0,
            default: false,
            at_start: false,
            idle_max: None,
            facts,
            origin: Arc::clone(&self.toy) as Arc<dyn Origin>,
        }
    }

    fn loads(&self) -> usize {
        self.begins.len()
    }
}

impl Origin for Toy {
    fn load(&self, order: &Order<'_>) -> Result<Resident, String> {
        self.begun.send(()).unwrap();
        (order.on_progress)(0.5);
        self.outcomes.lock().unwrap().recv_timeout(SOON).unwrap_or_else(|_| panic!("nobody says how it goes"))?;
        Ok(Resident { backend: Echo::new(), bytes: 60, end: Arc::new(|_| ()) })
    }
}

type Answer = Result<Arc<dyn Backend>, ApiError>;

fn ask(models: &Models, name: Option<&str>, patience: Duration) -> Receiver<Answer> {
    let (tell, told) = bounded(1);
    models.with(name, patience, move |answer| tell.send(answer).unwrap());
    told
}

fn get(models: &Models, name: &str) -> Answer {
    ask(models, Some(name), SOON).recv_timeout(SOON).expect("an answer")
}

fn serve(entries: Vec<Entry>, bounds: Bounds) -> Models {
    let models = Models::start(bounds).unwrap();
    assert_eq!(models.replace(entries, Duration::ZERO), Replaced::Fully);
    models
}

fn state(models: &Models, name: &str) -> ModelState {
    models.status(Some(name)).unwrap().state
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn who_comes_first_waits_and_all_get_the_same() {
    let (a, b) = (Hand::ready(), Hand::new());
    let models = serve(vec![Entry { at_start: true, ..a.entry("a") }, b.entry("b")], Bounds::default());
    assert_eq!((a.loads(), state(&models, "b")), (1, ModelState::Unloaded));
    assert!(ask(&models, None, SOON).try_recv().unwrap().is_ok(), "the first is the default, and there: at once");
    let waiting: Vec<_> = ["b", "b:latest", "b"].map(|name| ask(&models, Some(name), SOON)).into();
    b.begins.recv_timeout(SOON).unwrap();
    eventually("it is loaded by half", || state(&models, "b") == ModelState::Loading { percent: 50 });
    assert!(waiting.iter().all(|told| told.is_empty()));
    b.tell.send(Ok(())).unwrap();
    let given: Vec<_> = waiting.iter().map(|told| told.recv_timeout(SOON).unwrap().unwrap()).collect();
    assert_eq!((models.status(Some("b")).unwrap().live, b.loads()), (3, 0));
    drop(given);
    assert_eq!(models.status(Some("b")).unwrap().live, 0);
    let Err(ApiError::UnknownModel { name, known }) = get(&models, "c") else { panic!("there is none") };
    assert_eq!((name.as_str(), known), ("c", vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn nobody_waits_longer_than_he_wants_or_in_too_long_a_line() {
    let b = Hand::new();
    let models = serve(vec![b.entry("b")], Bounds { waiters_max: 2, ..Bounds::default() });
    let patient = ask(&models, Some("b"), SOON);
    let hasty = ask(&models, Some("b"), Duration::from_millis(1)).recv_timeout(SOON).unwrap();
    assert_eq!(hasty.err().unwrap().code(), "queue_timeout");
    let second = ask(&models, Some("b"), SOON);
    assert_eq!(get(&models, "b").err(), Some(ApiError::Busy));
    models.shutdown(Duration::ZERO);
    for told in [patient, second] {
        assert_eq!(told.recv_timeout(SOON).unwrap().err().unwrap().code(), "shutting_down");
    }
    b.tell.send(Ok(())).unwrap();
}

#[test]
fn a_failure_is_told_and_not_repeated_at_once() {
    let b = Hand::new();
    let models = serve(vec![b.entry("b")], Bounds::default());
    b.tell.send(Err("/secret/path: bad".to_owned())).unwrap();
    for _ in 0..2 {
        let error = get(&models, "b").err().unwrap();
        assert_eq!((error.status(), error.code(), error.retry_after_seconds()), (503, "no_model", Some(1)));
        assert!(!error.to_string().contains("secret"));
    }
    let ModelState::Failed { why, .. } = state(&models, "b") else { panic!("it has failed") };
    assert_eq!((why.as_str(), b.loads()), ("/secret/path: bad", 1));
    // Whoever runs the server may have it tried again.
    models.unload("b").unwrap();
    b.tell.send(Ok(())).unwrap();
    assert!(get(&models, "b").is_ok());
}

#[test]
fn the_idle_go_and_the_busy_stay() {
    let (a, b) = (Hand::ready(), Hand::ready());
    let models = serve(vec![a.entry("a"), b.entry("b")], Bounds { bytes_max: Some(100), ..Bounds::default() });
    let held = get(&models, "a").unwrap();
    let Err(ApiError::NoRoom { model, busy, .. }) = get(&models, "b") else { panic!("there is no room") };
    assert_eq!((model.as_str(), busy), ("b", vec!["a".to_owned()]));
    assert_eq!(models.unload("a"), Ok(()));
    assert_eq!(state(&models, "a"), ModelState::Retiring);
    drop(held);
    eventually("a is gone", || state(&models, "a") == ModelState::Unloaded);
    drop(get(&models, "b").unwrap());
    models.keep(Some("b"), Some(Duration::ZERO)).unwrap();
    eventually("b is gone", || state(&models, "b") == ModelState::Unloaded);
    assert_eq!(models.list().iter().map(|model| model.memory_bytes).sum::<u64>(), 0);
}

#[test]
fn models_are_replaced_all_or_nothing() {
    let (a, b, c) = (Hand::ready(), Hand::ready(), Hand::new());
    let models = serve(vec![a.entry("a"), b.entry("b")], Bounds::default());
    let held = get(&models, "b").unwrap();
    // c can't be loaded: a and b stay.
    c.tell.send(Err("bad".to_owned())).unwrap();
    let refused = models.replace(vec![Entry { at_start: true, ..c.entry("c") }], Duration::ZERO);
    assert_eq!(refused, Replaced::Refused("bad".to_owned()));
    assert!(get(&models, "a").is_ok() && get(&models, "b").is_ok() && get(&models, "c").is_err());
    // b was in use, so what takes its place is loaded first; a is what it was under another alias.
    c.tell.send(Ok(())).unwrap();
    let other = Entry { aliases: vec!["x".to_owned()], ..a.entry("a") };
    assert_eq!(models.replace(vec![other, c.entry("b")], Duration::ZERO), Replaced::Fully);
    assert_eq!((a.loads(), b.loads(), c.loads()), (1, 1, 2));
    assert!(get(&models, "x").is_ok() && get(&models, "a:latest").is_err());
    assert_eq!(models.status(Some("b")).unwrap().live, 0, "who had the old one has it still");
    let weak = Arc::downgrade(&b.toy);
    drop(held);
    drop(b);
    eventually("the old b is forgotten", || weak.upgrade().is_none());
}

#[test]
fn who_waits_for_a_model_that_is_replaced_gets_the_next() {
    let (a, b) = (Hand::ready(), Hand::new());
    let models = serve(vec![a.entry("a"), b.entry("b")], Bounds::default());
    let (first, second) = (ask(&models, Some("b"), SOON), Hand::ready());
    b.begins.recv_timeout(SOON).unwrap();
    // The old one is being loaded, and cannot be stopped: who waits for it gets it.
    assert_eq!(models.replace(vec![a.entry("a"), second.entry("b")], Duration::ZERO), Replaced::Fully);
    let later = ask(&models, Some("b"), SOON);
    b.tell.send(Ok(())).unwrap();
    for told in [first, later] {
        assert!(told.recv_timeout(SOON).unwrap().is_ok());
    }
    assert_eq!(second.loads(), 1);
}

//! The responses that are kept, for all threads.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::Value;

use crate::http::Reply;

use super::{
    items,
    store::{Bounds, Entry, Store},
};

/// What `/v1/responses` has answered. A running one in the background is held by the reply that it is to make: without
/// it, nobody waits, and the engine drops the work.
pub struct Responses(Mutex<Store<Reply>>);

impl Default for Responses {
    fn default() -> Self {
        Self(Mutex::new(Store::new(Bounds::default())))
    }
}

/// What became of the wish to end a response.
pub enum Cancelled {
    /// As it is now; one that had ended stays as it was.
    Now(String),
    NotInBackground,
    Unknown,
}

impl Responses {
    fn lock(&self) -> MutexGuard<'_, Store<Reply>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a new one, which is or will be as `response` says.
    pub fn insert(&self, id: &str, response: &Value, input: Vec<Arc<str>>, ended: bool, background: bool) {
        let entry = Entry { response: response.to_string(), input, ended, background, run: None };
        self.lock().insert(id, entry, Instant::now());
    }

    /// How it is now, unless it has ended before.
    pub fn update(&self, id: &str, response: &Value, ended: bool) {
        let response = response.to_string();
        self.lock().update(id, Instant::now(), |entry| {
            if !entry.ended {
                (entry.response, entry.ended) = (response, ended);
            }
        });
    }

    /// Has the work on one go on as long as it is kept. One that is not kept any more ends.
    pub fn hold(&self, id: &str, work: Reply) {
        // What is not taken is dropped when the lock is free again.
        let mut work = Some(work);
        self.lock().update(id, Instant::now(), |entry| {
            if !entry.ended {
                entry.run = work.take();
            }
        });
    }

    /// As it is told.
    pub fn response(&self, id: &str) -> Option<String> {
        self.lock().get(id, Instant::now()).map(|entry| entry.response.clone())
    }

    /// All items that it was made from.
    pub fn input(&self, id: &str) -> Option<Vec<Arc<str>>> {
        self.lock().get(id, Instant::now()).map(|entry| entry.input.clone())
    }

    /// The items of the whole conversation, its own output at the end; the error says how far it is.
    pub fn conversation(&self, id: &str) -> Option<Result<Vec<Arc<str>>, String>> {
        let (response, mut items) =
            self.lock().get(id, Instant::now()).map(|entry| (entry.response.clone(), entry.input.clone()))?;
        let response: Value = serde_json::from_str(&response).unwrap_or_default();
        match response["status"].as_str() {
            Some("completed" | "incomplete") => {}
            status => return Some(Err(status.unwrap_or("unknown").to_owned())),
        }
        items.extend(response["output"].as_array().into_iter().flatten().map(items::text));
        Some(Ok(items))
    }

    /// Forgets one; false if there is none.
    pub fn remove(&self, id: &str) -> bool {
        let removed = self.lock().remove(id);
        removed.is_some()
    }

    /// Ends one in the background.
    pub fn cancel(&self, id: &str) -> Cancelled {
        let cancelled = self.lock().update(id, Instant::now(), |entry| {
            if !entry.background {
                return (None, Cancelled::NotInBackground);
            }
            if !entry.ended {
                let mut response: Value = serde_json::from_str(&entry.response).unwrap_or_default();
                response["status"] = "cancelled".into();
                (entry.response, entry.ended) = (response.to_string(), true);
            }
            (entry.run.take(), Cancelled::Now(entry.response.clone()))
        });
        cancelled.map_or(Cancelled::Unknown, |(_work, cancelled)| cancelled)
    }
}

//! The grammars that were compiled last.

use std::{collections::HashMap, sync::Arc};

use super::Grammar;

/// Some megabytes each, and more for large ones.
const GRAMMARS_MAX: usize = 32;

/// By source; the one that has not been asked for the longest gives way.
#[derive(Default)]
pub struct Cache {
    grammars: HashMap<Arc<str>, (Grammar, u64)>,
    asked: u64,
}

impl Cache {
    pub fn get(&mut self, key: &str) -> Option<Grammar> {
        self.asked += 1;
        let (grammar, asked) = self.grammars.get_mut(key)?;
        *asked = self.asked;
        Some(grammar.clone())
    }

    pub fn insert(&mut self, key: Arc<str>, grammar: Grammar) {
        if self.grammars.len() >= GRAMMARS_MAX && !self.grammars.contains_key(&key) {
            let oldest = self.grammars.iter().min_by_key(|(_, (_, asked))| *asked).map(|(key, _)| Arc::clone(key));
            oldest.and_then(|key| self.grammars.remove(&key));
        }
        self.asked += 1;
        self.grammars.insert(key, (grammar, self.asked));
    }
}

//! Full blocks by what they hold. Keys and values of 32 tokens follow from these tokens and all before them, so a sequence
//! that begins as another did can use the other's blocks as they are.
//!
//! A block is named by a hash chain: the name of the block before it (at the start, of the tenant), and its own tokens. A
//! name only finds a block. What is handed out is compared in full: its tokens, and that the block before it is the very
//! one that was found before it, down to the tenant. So a collision of names costs a miss, never another's cache.
//!
//! The hash is SipHash-1-3 (Aumasson and Bernstein 2012), the standard library's, under two random keys, 64 bits from each:
//! who chooses prompts can't compute names, so can't make two collide to keep others out of the cache, and it needs no crate.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
};

use super::blocks::{BLOCK_TOKENS, BlockId};

/// Whose prompts share a cache with each other and with nobody else's: timing tells what is cached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(pub Arc<str>);

/// The name of a full block or, where a chain begins, of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(pub u128);

/// Gives names. Which ones differs from run to run; nothing else depends on that.
#[derive(Debug, Default)]
pub struct Namer([RandomState; 2]);

impl Namer {
    /// Where the chains of a tenant begin; `None` is the cache that all share who don't ask for one of their own.
    pub fn root(&self, tenant: Option<&Tenant>) -> Name {
        Name(self.hash(&tenant))
    }

    /// The full block that follows `before`.
    pub fn next(&self, before: Name, tokens: &[u32]) -> Name {
        Name(self.hash(&(before, tokens)))
    }

    fn hash(&self, value: &impl std::hash::Hash) -> u128 {
        let [high, low] = self.0.each_ref().map(|state| u128::from(state.hash_one(value)));
        high << 64 | low
    }
}

/// What a block follows.
#[derive(Debug, Clone, Copy)]
pub enum Before<'a> {
    /// It is the first of a tenant's sequence.
    Start(Option<&'a Tenant>),
    Block(BlockId),
}

/// What has been checked of a block's past: entries are numbered, and a number is never used again.
#[derive(Debug, Clone, PartialEq)]
enum Past {
    Start(Option<Tenant>),
    Entry(u64),
}

#[derive(Debug)]
struct Entry {
    number: u64,
    name: Name,
    past: Past,
    tokens: [u32; BLOCK_TOKENS],
}

/// The blocks that can be found.
#[derive(Debug)]
pub struct PrefixIndex {
    by_name: HashMap<Name, BlockId>,
    /// By block id.
    entries: Vec<Option<Entry>>,
    entries_total: u64,
}

impl PrefixIndex {
    pub fn new(blocks: usize) -> Self {
        Self { by_name: HashMap::new(), entries: (0..blocks).map(|_| None).collect(), entries_total: 0 }
    }

    /// The block of this name, if it really holds `tokens` behind `before`.
    pub fn find(&self, before: Before, name: Name, tokens: &[u32]) -> Option<BlockId> {
        let block = *self.by_name.get(&name)?;
        let entry = self.entry(block)?;
        (entry.tokens == tokens && Some(&entry.past) == self.past(before).as_ref()).then_some(block)
    }

    /// Makes a block findable. Not if `before` is not: then nobody could come to it. Another block of that name is no
    /// longer findable: it is returned.
    pub fn insert(&mut self, block: BlockId, before: Before, name: Name, tokens: &[u32]) -> Option<BlockId> {
        let (past, tokens) = (self.past(before)?, tokens.try_into().ok()?);
        self.forget(block);
        let namesake = self.by_name.get(&name).copied();
        if let Some(namesake) = namesake {
            self.forget(namesake);
        }
        self.entries_total += 1;
        self.by_name.insert(name, block);
        self.entries[block.0 as usize] = Some(Entry { number: self.entries_total, name, past, tokens });
        namesake
    }

    pub fn forget(&mut self, block: BlockId) {
        if let Some(entry) = self.entries[block.0 as usize].take() {
            self.by_name.remove(&entry.name);
        }
    }

    pub fn holds(&self, block: BlockId) -> bool {
        self.entry(block).is_some()
    }

    fn entry(&self, block: BlockId) -> Option<&Entry> {
        self.entries[block.0 as usize].as_ref()
    }

    fn past(&self, before: Before) -> Option<Past> {
        match before {
            Before::Start(tenant) => Some(Past::Start(tenant.cloned())),
            Before::Block(block) => self.entry(block).map(|entry| Past::Entry(entry.number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u32; BLOCK_TOKENS] = [1; BLOCK_TOKENS];
    const B: [u32; BLOCK_TOKENS] = [2; BLOCK_TOKENS];
    const START: Before = Before::Start(None);

    #[test]
    fn names_follow_from_tenant_past_and_tokens() {
        let namer = Namer::default();
        let tenants = [None, Some(Tenant("a".into())), Some(Tenant("b".into()))];
        let mut names: Vec<Name> = tenants.iter().map(|tenant| namer.root(tenant.as_ref())).collect();
        for root in 0..3 {
            for first in [A, B] {
                let first = namer.next(names[root], &first);
                names.extend([first, namer.next(first, &A), namer.next(first, &B)]);
            }
        }
        let different: std::collections::HashSet<Name> = names.iter().copied().collect();
        assert_eq!(different.len(), names.len());
        assert_eq!(namer.next(names[0], &A), namer.next(names[0], &A));
    }

    /// All blocks get one name: the worst that a hash can do.
    #[test]
    fn a_collision_hands_nothing_out() {
        let name = Name(7);
        let mut index = PrefixIndex::new(4);
        let tenant = Tenant("a".into());
        index.insert(BlockId(0), START, name, &A);
        assert_eq!(index.find(START, name, &A), Some(BlockId(0)));
        assert_eq!(index.find(START, name, &B), None, "other tokens");
        assert_eq!(index.find(Before::Start(Some(&tenant)), name, &A), None, "another's");
        assert_eq!(index.find(Before::Block(BlockId(0)), name, &A), None, "another place");
        assert_eq!(index.insert(BlockId(1), Before::Start(Some(&tenant)), name, &A), Some(BlockId(0)));
        assert!(!index.holds(BlockId(0)), "the name is the other's now");
    }

    #[test]
    fn a_block_is_not_found_behind_another_past() {
        let [first, second] = [Name(1), Name(2)];
        let mut index = PrefixIndex::new(4);
        index.insert(BlockId(0), START, first, &A);
        index.insert(BlockId(1), Before::Block(BlockId(0)), second, &A);
        assert_eq!(index.find(Before::Block(BlockId(0)), second, &A), Some(BlockId(1)));
        // Another block comes to the first one's place and name, even with what is the same hash.
        index.insert(BlockId(0), START, first, &B);
        assert_eq!(index.find(Before::Block(BlockId(0)), second, &A), None);
        // Behind a block that is not findable nothing is.
        index.forget(BlockId(0));
        index.insert(BlockId(2), Before::Block(BlockId(0)), Name(3), &A);
        assert!(!index.holds(BlockId(2)));
    }
}

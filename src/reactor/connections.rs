//! The connections of one loop, in slots that are used again.
//!
//! Invariant: an id finds the value it was given for, or nothing. A slot that is left is given out again with its next
//! generation.

/// One connection of one loop. A slot that is used again has another generation, so an id never means two clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

/// Tokens carry an id in 64 bits.
const _: () = assert!(usize::BITS >= 64, "tokens need 64-bit pointers");

impl ConnId {
    pub(crate) fn to_token(self) -> mio::Token {
        mio::Token((self.generation as usize) << 32 | self.index as usize)
    }

    pub(crate) fn from_token(token: mio::Token) -> ConnId {
        ConnId { index: token.0 as u32, generation: (token.0 >> 32) as u32 }
    }
}

/// Slots in one block of memory.
const BLOCK_SLOTS: usize = 256;

/// The connections of a loop, in blocks that stay where they are: growing moves nothing and wastes at most a block.
pub(crate) struct Connections<T> {
    blocks: Vec<Box<[Option<Occupant<T>>]>>,
    ids: Ids,
}

struct Occupant<T> {
    generation: u32,
    value: T,
}

/// Gives out ids. It is apart from the slots, so that a connection can be named before it is there.
#[derive(Default)]
pub(crate) struct Ids {
    /// Ids whose slots were left, in their next generation.
    free: Vec<ConnId>,
    /// Indices below this one have been given out.
    next: u32,
}

impl Ids {
    /// An id that nobody else has, until it is released.
    pub fn reserve(&mut self) -> ConnId {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            ConnId { index: self.next - 1, generation: 0 }
        })
    }

    pub fn release(&mut self, id: ConnId) {
        // One less than 2^31 generations, so that no token of a connection equals those of the loop itself.
        self.free.push(ConnId { generation: (id.generation + 1) & 0x7fff_ffff, ..id });
    }
}

impl<T> Connections<T> {
    pub fn new() -> Connections<T> {
        Connections { blocks: Vec::new(), ids: Ids::default() }
    }

    /// Connections, those that only have an id so far included.
    pub fn len(&self) -> usize {
        self.ids.next as usize - self.ids.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn insert(&mut self, value: T) -> ConnId {
        let id = self.ids.reserve();
        self.put(id, value);
        id
    }

    /// Puts a value where its reserved id will find it.
    pub fn put(&mut self, id: ConnId, value: T) {
        let (block, slot) = place(id);
        while self.blocks.len() <= block {
            self.blocks.push((0..BLOCK_SLOTS).map(|_| None).collect());
        }
        self.blocks[block][slot] = Some(Occupant { generation: id.generation, value });
    }

    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        self.get_with_ids(id).0
    }

    /// A connection, and the ids for those that it opens.
    pub fn get_with_ids(&mut self, id: ConnId) -> (Option<&mut T>, &mut Ids) {
        let (block, slot) = place(id);
        let occupant = self.blocks.get_mut(block).and_then(|block| block[slot].as_mut());
        let value = occupant.filter(|occupant| occupant.generation == id.generation);
        (value.map(|occupant| &mut occupant.value), &mut self.ids)
    }

    pub fn ids_mut(&mut self) -> &mut Ids {
        &mut self.ids
    }

    pub fn remove(&mut self, id: ConnId) -> Option<T> {
        let (block, slot) = place(id);
        let occupant = self.blocks.get_mut(block)?[slot].take_if(|occupant| occupant.generation == id.generation)?;
        self.ids.release(id);
        Some(occupant.value)
    }

    /// The ids of all connections.
    pub fn ids(&self) -> Vec<ConnId> {
        let slots = self.blocks.iter().flatten().zip(0..);
        let ids = |(slot, index): (&Option<Occupant<T>>, u32)| {
            slot.as_ref().map(|occupant| ConnId { index, generation: occupant.generation })
        };
        slots.filter_map(ids).collect()
    }
}

/// The block and the slot of an id.
fn place(id: ConnId) -> (usize, usize) {
    let index = id.index as usize;
    (index / BLOCK_SLOTS, index % BLOCK_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_finds_nobody_in_a_slot_used_again() {
        let mut connections = Connections::new();
        let first = connections.insert(1);
        assert_eq!(connections.remove(first), Some(1));
        let second = connections.insert(2);
        assert_eq!((first.index, first.generation + 1), (second.index, second.generation));
        assert_eq!(connections.get_mut(first), None);
        assert_eq!(connections.remove(first), None);
        assert_eq!(connections.get_mut(second), Some(&mut 2));
        assert_eq!((connections.len(), connections.ids()), (1, vec![second]));
    }

    #[test]
    fn a_reserved_id_finds_nobody_until_it_is_used() {
        let mut connections = Connections::new();
        let old = connections.insert(1);
        connections.remove(old);
        let id = connections.ids_mut().reserve();
        assert_eq!(id.index, old.index);
        assert_eq!(connections.get_mut(id), None);
        assert_eq!(connections.remove(id), None);
        assert_eq!((connections.len(), connections.ids()), (1, vec![]));
        connections.put(id, 2);
        assert_eq!(connections.get_mut(old), None);
        assert_eq!(connections.ids(), vec![id]);
        assert_eq!(connections.get_mut(id), Some(&mut 2));
    }

    /// Random insertions and removals over several blocks, against a plain list.
    #[test]
    fn an_id_finds_its_own_value_or_nothing() {
        let steps = if cfg!(miri) { 1_500 } else { 30_000u64 };
        let (mut connections, mut model, mut gone) = (Connections::new(), Vec::new(), Vec::new());
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for step in 0..steps {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Grows to some blocks, then shrinks, over and over.
            let grow = if step / 1_000 % 2 == 0 { 3 } else { 1 };
            if random % 4 < grow || model.is_empty() {
                model.push((connections.insert(step), step));
            } else {
                let (id, value) = model.swap_remove(random as usize / 4 % model.len());
                assert_eq!(connections.remove(id), Some(value), "step {step}");
                gone.push(id);
            }
            assert_eq!(connections.len(), model.len(), "step {step}");
        }
        assert!(model.iter_mut().all(|(id, value)| connections.get_mut(*id) == Some(value)));
        assert!(gone.iter().all(|id| connections.get_mut(*id).is_none()));
        let mut ids = connections.ids();
        ids.sort_by_key(|id| id.index);
        model.sort_by_key(|(id, _)| id.index);
        assert!(ids.iter().eq(model.iter().map(|(id, _)| id)));
    }

    #[test]
    fn tokens_round_trip() {
        let id = ConnId { index: 7, generation: 0x7fff_ffff };
        assert_eq!(ConnId::from_token(id.to_token()), id);
    }
}

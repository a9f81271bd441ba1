//! The connections of one loop, in slots that are used again.
//!
//! Invariant: an id finds the value it was given for, or nothing. Each removal moves the slot to its next generation.

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

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

pub(crate) struct Connections<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Connections<T> {
    pub fn new() -> Connections<T> {
        Connections { slots: Vec::new(), free: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn insert(&mut self, value: T) -> ConnId {
        let value = Some(value);
        let Some(index) = self.free.pop() else {
            self.slots.push(Slot { generation: 0, value });
            return ConnId { index: self.slots.len() as u32 - 1, generation: 0 };
        };
        let slot = &mut self.slots[index as usize];
        slot.value = value;
        ConnId { index, generation: slot.generation }
    }

    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_mut() } else { None }
    }

    pub fn remove(&mut self, id: ConnId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        let value = slot.value.take()?;
        // One less than 2^31 generations, so that no token of a connection equals those of the loop itself.
        slot.generation = (slot.generation + 1) & 0x7fff_ffff;
        self.free.push(id.index);
        Some(value)
    }

    /// The ids of all connections.
    pub fn ids(&self) -> Vec<ConnId> {
        let ids = self.slots.iter().enumerate().filter(|(_, slot)| slot.value.is_some());
        ids.map(|(index, slot)| ConnId { index: index as u32, generation: slot.generation }).collect()
    }
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
    fn tokens_round_trip() {
        let id = ConnId { index: 7, generation: 0x7fff_ffff };
        assert_eq!(ConnId::from_token(id.to_token()), id);
    }
}

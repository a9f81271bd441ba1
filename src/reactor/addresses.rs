//! How many connections each address has open, over all loops.
//!
//! Invariants: an address is in the table while it has a seat, so the table is as large as there are connections at
//! most; a seat is given back exactly once, when it is dropped, whatever becomes of its connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Who counts as one: an IPv4 address, or the /64 of an IPv6 address, which is what one customer usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6Prefix([u8; 8]),
}

impl Source {
    fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Source::V6Prefix([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The table, shared by the loops. Its hash is keyed at random: clients choose their addresses.
#[derive(Debug)]
pub(crate) struct Addresses {
    seats_max: usize,
    taken: Mutex<HashMap<Source, usize>>,
}

impl Addresses {
    /// Up to `seats_max` connections from each address.
    pub fn new(seats_max: usize) -> Addresses {
        Addresses { seats_max, taken: Mutex::default() }
    }

    /// A seat for a connection from `address`, unless it has them all.
    pub fn seat(self: &Arc<Addresses>, address: IpAddr) -> Option<Seat> {
        let source = Source::of(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let seats = taken.entry(source).or_default();
        if *seats < self.seats_max {
            *seats += 1;
            return Some(Seat { addresses: Arc::clone(self), source });
        }
        if *seats == 0 {
            taken.remove(&source);
        }
        None
    }
}

/// The right of one connection to be open.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Arc<Addresses>,
    source: Source,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.addresses.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut seats) = taken.entry(self.source) {
            *seats.get_mut() -= 1;
            if *seats.get() == 0 {
                seats.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_source_has_its_own_seats_and_gets_them_back() {
        let addresses = Arc::new(Addresses::new(2));
        let first = addresses.seat(ip("10.0.0.1")).unwrap();
        let _second = addresses.seat(ip("::ffff:10.0.0.1")).expect("a mapped address is the same one");
        assert!(addresses.seat(ip("10.0.0.1")).is_none());
        let _other = addresses.seat(ip("10.0.0.2")).unwrap();
        drop(first);
        assert!(addresses.seat(ip("10.0.0.1")).is_some());

        let _near = [addresses.seat(ip("2001:db8:0:1::1")), addresses.seat(ip("2001:db8:0:1:ffff::2"))];
        assert!(addresses.seat(ip("2001:db8:0:1::3")).is_none());
        assert!(addresses.seat(ip("2001:db8:0:2::3")).is_some());
    }

    #[test]
    fn the_table_forgets_who_has_left_or_never_came_in() {
        let addresses = Arc::new(Addresses::new(1));
        drop(addresses.seat(ip("10.0.0.1")));
        assert!(Arc::new(Addresses::new(0)).seat(ip("10.0.0.1")).is_none());
        assert!(addresses.taken.lock().unwrap().is_empty());
        let none = Arc::new(Addresses::new(0));
        assert!(none.seat(ip("10.0.0.1")).is_none() && none.taken.lock().unwrap().is_empty());
    }
}

//! Names to addresses: asked of the system in threads of their own, since that blocks, and remembered for a while.
//!
//! The threads start with the first name; addresses need none. Invariants: a name is asked for once, however many wait
//! for it; the table and the queue have bounds.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Threads that ask. One name that nobody answers must not hold up all others.
const THREADS_MAX: usize = 4;

/// Names that are being asked for.
const ASKED_MAX: usize = 64;

/// Names that are remembered.
const KNOWN_MAX: usize = 256;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// The addresses of a name in the order of the system's preference, or why there are none.
pub(crate) type Addresses = Result<Vec<IpAddr>, String>;

/// Takes what a look-up found, on the thread that looked.
pub(crate) type OnResolved = dyn Fn(String, Addresses) + Send + Sync;

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LookUp {
    Known(Vec<IpAddr>),
    /// [`Resolver::on_resolved`] will be called with it.
    Asked,
    /// Too many names are being asked for.
    Busy,
}

/// `W` names who waits.
pub(crate) struct Resolver<W> {
    known: HashMap<String, Known>,
    asked: HashMap<String, Vec<W>>,
    ttl: Duration,
    names: (Sender<String>, Receiver<String>),
    threads: usize,
}

struct Known {
    addresses: Vec<IpAddr>,
    until: Instant,
}

impl<W> Resolver<W> {
    pub fn new(ttl: Duration) -> Resolver<W> {
        Resolver { known: HashMap::new(), asked: HashMap::new(), ttl, names: bounded(ASKED_MAX), threads: 0 }
    }

    /// Looks a name up. A thread that has to be started for it gets what `on_resolved` makes.
    pub fn look_up(
        &mut self,
        name: &str,
        waiter: W,
        now: Instant,
        on_resolved: impl FnOnce() -> Arc<OnResolved>,
    ) -> LookUp {
        if let Some(known) = self.known.get(name).filter(|known| now < known.until) {
            return LookUp::Known(known.addresses.clone());
        }
        if let Some(waiting) = self.asked.get_mut(name) {
            waiting.push(waiter);
            return LookUp::Asked;
        }
        if self.asked.len() >= ASKED_MAX || !self.ask(name, on_resolved) {
            return LookUp::Busy;
        }
        self.asked.insert(name.to_string(), vec![waiter]);
        LookUp::Asked
    }

    /// Remembers what was found, and gives those who waited for it.
    pub fn on_resolved(&mut self, name: String, found: &Addresses, now: Instant) -> Vec<W> {
        let waiting = self.asked.remove(&name).unwrap_or_default();
        if let Ok(addresses) = found {
            if self.known.len() >= KNOWN_MAX {
                self.known.retain(|_, known| now < known.until);
            }
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(name, Known { addresses: addresses.clone(), until: now + self.ttl });
        }
        waiting
    }

    /// Hands a name to the threads, of which there are no more than names to ask for.
    fn ask(&mut self, name: &str, on_resolved: impl FnOnce() -> Arc<OnResolved>) -> bool {
        if self.threads < THREADS_MAX.min(self.asked.len() + 1) {
            let (names, on_resolved) = (self.names.1.clone(), on_resolved());
            let thread = thread::Builder::new().name("resolver".into());
            // They end when the resolver is dropped, and with it the last sender.
            match thread.spawn(move || names.iter().for_each(|name| resolve(name, &*on_resolved))) {
                Ok(_) => self.threads += 1,
                Err(e) => log::warn!("cannot start a thread to resolve names: {e}"),
            }
        }
        self.threads > 0 && self.names.0.try_send(name.to_string()).is_ok()
    }
}

fn resolve(name: String, on_resolved: &OnResolved) {
    // The port is left out again: it has nothing to do with the name.
    let found = (&*name, 0).to_socket_addrs().map_err(|e| e.to_string());
    let found = found.map(|addrs| addrs.map(|addr| addr.ip()).take(ADDRESSES_MAX).collect::<Vec<_>>());
    let found = found.and_then(|found| if found.is_empty() { Err("no address".into()) } else { Ok(found) });
    on_resolved(name, found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const TTL: Duration = Duration::from_secs(30);

    fn local() -> Addresses {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }

    /// A resolver that asks nobody, since it may start no thread.
    fn resolver() -> Resolver<u32> {
        Resolver { threads: THREADS_MAX, ..Resolver::new(TTL) }
    }

    fn nobody() -> Arc<OnResolved> {
        Arc::new(|_, _| {})
    }

    #[test]
    fn a_name_is_asked_for_once_and_remembered_for_a_while() {
        let (mut resolver, now) = (resolver(), Instant::now());
        assert_eq!(resolver.look_up("a", 1, now, nobody), LookUp::Asked);
        assert_eq!(resolver.look_up("a", 2, now, nobody), LookUp::Asked);
        assert_eq!(resolver.names.1.try_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(resolver.on_resolved("a".into(), &local(), now), [1, 2]);
        assert_eq!(resolver.look_up("a", 3, now + TTL / 2, nobody), LookUp::Known(local().unwrap()));
        assert_eq!(resolver.look_up("a", 4, now + TTL, nobody), LookUp::Asked);
        assert_eq!(resolver.on_resolved("a".into(), &Err("gone".into()), now + TTL), [4]);
        assert_eq!(resolver.look_up("a", 5, now + TTL, nobody), LookUp::Asked, "a failure is not remembered");
    }

    #[test]
    fn the_table_and_the_queue_have_bounds() {
        let (mut resolver, now) = (resolver(), Instant::now());
        for name in 0..ASKED_MAX {
            assert_eq!(resolver.look_up(&name.to_string(), 0, now, nobody), LookUp::Asked);
        }
        assert_eq!(resolver.look_up("one more", 0, now, nobody), LookUp::Busy);
        for name in 0..3 * KNOWN_MAX {
            resolver.on_resolved(name.to_string(), &local(), now);
            assert!(resolver.known.len() <= KNOWN_MAX);
        }
    }

    #[test]
    fn the_system_is_asked_by_a_thread() {
        let (sender, found) = bounded(1);
        let on_resolved = Arc::new(move |name, addresses| drop(sender.send((name, addresses))));
        let mut resolver = Resolver::new(TTL);
        assert_eq!(resolver.look_up("localhost", 0, Instant::now(), || on_resolved), LookUp::Asked);
        let (name, addresses) = found.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(name, "localhost");
        assert!(addresses.unwrap().iter().all(IpAddr::is_loopback));
    }
}

//! Who gets which connection: the ones in use, the idle ones, and the requests that wait, of each host.
//!
//! Knows no socket and no clock: connections and waiting requests are names that the caller chose, the time is an
//! argument. Invariant: a host has no request waiting while fewer than its share of connections are in use.
//!
//! The connection that became idle last is used first, so that those which are not needed grow old and go.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::url::Origin;

/// Bounds of one loop's pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolLimits {
    pub in_use_per_host_max: usize,
    pub waiting_per_host_max: usize,
    pub idle_per_host_max: usize,
    pub idle_max: usize,
}

#[derive(Debug)]
pub(crate) struct Pool<C, W> {
    limits: PoolLimits,
    hosts: HashMap<Origin, Host<C, W>>,
    idle: usize,
}

/// One host. It is forgotten when nothing is left of it.
#[derive(Debug)]
struct Host<C, W> {
    /// Connections that have a request or are being made.
    in_use: usize,
    /// The latest last.
    idle: Vec<Idle<C>>,
    waiting: VecDeque<W>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
    until: Instant,
}

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acquired<C> {
    /// An idle connection.
    Reuse(C),
    /// The right to make one.
    Connect,
    /// A place in the queue.
    Queued,
    /// Nothing: the queue is full.
    Busy,
}

/// What becomes of a connection that is no longer used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Released<C, W> {
    /// A waiting request gets it, or the right to make one in its place.
    Next { waiter: W, connection: Option<C> },
    /// It is idle, and this one, perhaps itself, is too many and is to be closed.
    Idle { excess: Option<C> },
    /// There is none.
    Gone,
}

impl<C: Copy + PartialEq, W: PartialEq> Pool<C, W> {
    pub fn new(limits: PoolLimits) -> Pool<C, W> {
        Pool { limits, hosts: HashMap::new(), idle: 0 }
    }

    /// Finds a connection for a request. One that the server may be about to close is left to its fate.
    pub fn acquire(&mut self, origin: &Origin, waiter: W, now: Instant) -> Acquired<C> {
        if !self.hosts.contains_key(origin) {
            let none = Host { in_use: 0, idle: Vec::new(), waiting: VecDeque::new() };
            self.hosts.insert(origin.clone(), none);
        }
        let Some(host) = self.hosts.get_mut(origin) else { return Acquired::Busy };
        let acquired = if host.in_use >= self.limits.in_use_per_host_max {
            if host.waiting.len() < self.limits.waiting_per_host_max {
                host.waiting.push_back(waiter);
                Acquired::Queued
            } else {
                Acquired::Busy
            }
        } else {
            host.in_use += 1;
            match host.idle.pop_if(|idle| now < idle.until) {
                Some(idle) => {
                    self.idle -= 1;
                    Acquired::Reuse(idle.connection)
                }
                None => Acquired::Connect,
            }
        };
        self.tidy(origin);
        acquired
    }

    /// A request has done with its connection; `connection` is that one when it can take another.
    pub fn release(
        &mut self,
        origin: &Origin,
        connection: Option<C>,
        now: Instant,
        idle_timeout: Duration,
    ) -> Released<C, W> {
        let Some(host) = self.hosts.get_mut(origin) else { return Released::Idle { excess: connection } };
        if let Some(waiter) = host.waiting.pop_front() {
            return Released::Next { waiter, connection };
        }
        host.in_use = host.in_use.saturating_sub(1);
        let Some(connection) = connection else {
            self.tidy(origin);
            return Released::Gone;
        };
        host.idle.push(Idle { connection, since: now, until: now + idle_timeout });
        self.idle += 1;
        let excess = if host.idle.len() > self.limits.idle_per_host_max {
            Some(host.idle.remove(0))
        } else if self.idle > self.limits.idle_max {
            // Only at its bound does the pool look at all hosts.
            let hosts = self.hosts.values_mut().filter(|host| !host.idle.is_empty());
            hosts.min_by_key(|host| host.idle.first().map(|idle| idle.since)).map(|host| host.idle.remove(0))
        } else {
            None
        };
        if excess.is_some() {
            self.idle -= 1;
            self.hosts.retain(|_, host| !host.is_empty());
        }
        Released::Idle { excess: excess.map(|idle| idle.connection) }
    }

    /// An idle connection has gone.
    pub fn forget(&mut self, origin: &Origin, connection: C) {
        if let Some(host) = self.hosts.get_mut(origin) {
            let before = host.idle.len();
            host.idle.retain(|idle| idle.connection != connection);
            self.idle -= before - host.idle.len();
            self.tidy(origin);
        }
    }

    /// A waiting request has gone.
    pub fn cancel(&mut self, origin: &Origin, waiter: &W) {
        if let Some(host) = self.hosts.get_mut(origin) {
            host.waiting.retain(|other| other != waiter);
            self.tidy(origin);
        }
    }

    /// Whether a connection is kept idle.
    pub fn is_idle(&self, origin: &Origin, connection: C) -> bool {
        self.hosts.get(origin).is_some_and(|host| host.idle.iter().any(|idle| idle.connection == connection))
    }

    fn tidy(&mut self, origin: &Origin) {
        if self.hosts.get(origin).is_some_and(Host::is_empty) {
            self.hosts.remove(origin);
        }
    }
}

impl<C, W> Host<C, W> {
    fn is_empty(&self) -> bool {
        self.in_use == 0 && self.idle.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const LIMITS: PoolLimits =
        PoolLimits { in_use_per_host_max: 2, waiting_per_host_max: 2, idle_per_host_max: 2, idle_max: 3 };
    const IDLE: Duration = Duration::from_secs(10);

    fn origin(name: &str) -> Origin {
        Origin::parse(name).unwrap()
    }

    fn excess(connection: u32) -> Released<u32, u32> {
        Released::Idle { excess: Some(connection) }
    }

    #[test]
    fn the_latest_is_used_first_and_an_old_one_never() {
        let (mut pool, a, now) = (Pool::<u32, u32>::new(LIMITS), origin("a"), Instant::now());
        assert_eq!(pool.acquire(&a, 0, now), Acquired::Connect);
        assert_eq!(pool.acquire(&a, 0, now), Acquired::Connect);
        assert_eq!(pool.release(&a, Some(1), now, IDLE), Released::Idle { excess: None });
        assert_eq!(pool.release(&a, Some(2), now, IDLE), Released::Idle { excess: None });
        assert_eq!(pool.acquire(&a, 0, now), Acquired::Reuse(2));
        assert_eq!(pool.acquire(&origin("b"), 0, now), Acquired::Connect, "another host's are not shared");
        assert_eq!(pool.acquire(&a, 0, now + IDLE), Acquired::Connect, "1 has grown old");
        pool.forget(&a, 1);
        pool.forget(&a, 1);
        assert_eq!((pool.idle, pool.release(&a, None, now, IDLE)), (0, Released::Gone));
    }

    #[test]
    fn a_host_has_a_share_and_then_a_queue() {
        let (mut pool, a, now) = (Pool::<u32, u32>::new(LIMITS), origin("a"), Instant::now());
        let seen: Vec<_> = (10..15).map(|waiter| pool.acquire(&a, waiter, now)).collect();
        use Acquired::*;
        assert_eq!(seen, [Connect, Connect, Queued, Queued, Busy]);
        assert_eq!(pool.acquire(&origin("b"), 20, now), Connect);
        assert_eq!(pool.release(&a, Some(1), now, IDLE), Released::Next { waiter: 12, connection: Some(1) });
        assert_eq!(pool.acquire(&a, 15, now), Queued);
        pool.cancel(&a, &13);
        assert_eq!(pool.release(&a, None, now, IDLE), Released::Next { waiter: 15, connection: None });
        assert_eq!(pool.release(&a, None, now, IDLE), Released::Gone);
        assert_eq!(pool.acquire(&a, 16, now), Connect);
    }

    #[test]
    fn too_many_idle_ones_are_closed_the_oldest_first() {
        let (mut pool, now) = (Pool::<u32, u32>::new(LIMITS), Instant::now());
        let mut release = |name: &str, connection: u32| {
            let later = now + Duration::from_secs(u64::from(connection));
            pool.acquire(&origin(name), 0, later + 2 * IDLE);
            pool.release(&origin(name), Some(connection), later, IDLE)
        };
        assert_eq!(release("a", 1), Released::Idle { excess: None });
        assert_eq!(release("a", 2), Released::Idle { excess: None });
        assert_eq!(release("a", 3), excess(1), "over the host's share");
        assert_eq!(release("b", 4), Released::Idle { excess: None });
        assert_eq!(release("c", 5), excess(2), "over the share of all");
        assert_eq!(pool.idle, 3);
        let none = PoolLimits { idle_per_host_max: 0, ..LIMITS };
        let mut pool = Pool::<u32, u32>::new(none);
        pool.acquire(&origin("a"), 0, now);
        assert_eq!(pool.release(&origin("a"), Some(1), now, IDLE), excess(1));
        assert!(pool.hosts.is_empty());
    }

    /// Random requests against a plain model: bounds hold, nobody waits without cause, and nothing is left at the end.
    #[test]
    fn bounds_hold_whatever_happens() {
        for seed in 1..100u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |bound: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as usize % bound
            };
            let names: Vec<Origin> = ["a", "b", "c"].map(origin).into();
            let (mut pool, mut now) = (Pool::<u32, u32>::new(LIMITS), Instant::now());
            // By host: connections in use, idle ones, and requests that wait.
            let mut used: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            let mut idle: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            let mut waiting: BTreeMap<usize, VecDeque<u32>> = BTreeMap::new();
            let mut names_given = 0;
            for _ in 0..500 {
                let host = next(3);
                names_given += 1;
                now += Duration::from_secs(next(4) as u64);
                match next(5) {
                    0 | 1 => match pool.acquire(&names[host], names_given, now) {
                        Acquired::Reuse(connection) => {
                            let at = idle.entry(host).or_default().iter().position(|c| *c == connection);
                            idle.entry(host).or_default().remove(at.unwrap());
                            used.entry(host).or_default().push(connection);
                        }
                        Acquired::Connect => used.entry(host).or_default().push(names_given),
                        Acquired::Queued => waiting.entry(host).or_default().push_back(names_given),
                        Acquired::Busy => assert_eq!(waiting[&host].len(), 2, "seed {seed}"),
                    },
                    2 | 3 => {
                        let Some(connection) = used.entry(host).or_default().pop() else { continue };
                        let good = Some(connection).filter(|_| next(3) > 0);
                        match pool.release(&names[host], good, now, IDLE) {
                            Released::Next { waiter, connection } => {
                                assert_eq!(waiting.entry(host).or_default().pop_front(), Some(waiter), "seed {seed}");
                                assert_eq!(connection, good);
                                used.entry(host).or_default().push(connection.unwrap_or(names_given));
                            }
                            Released::Idle { excess } => {
                                idle.entry(host).or_default().push(good.unwrap());
                                idle.values_mut().for_each(|host| host.retain(|c| Some(*c) != excess));
                            }
                            Released::Gone => assert_eq!(good, None),
                        }
                    }
                    _ => {
                        if let Some(waiter) = waiting.entry(host).or_default().pop_back() {
                            pool.cancel(&names[host], &waiter);
                        }
                        if let Some(connection) = idle.entry(host).or_default().pop() {
                            pool.forget(&names[host], connection);
                        }
                    }
                }
                let count = |of: &BTreeMap<usize, Vec<u32>>| of.values().map(Vec::len).sum::<usize>();
                assert_eq!(pool.idle, count(&idle), "seed {seed}");
                assert!(pool.idle <= 3 && used.values().all(|host| host.len() <= 2), "seed {seed}");
                for host in 0..3 {
                    let waits = waiting.get(&host).is_some_and(|waiting| !waiting.is_empty());
                    assert!(!waits || used[&host].len() == 2, "seed {seed}: a request waits without cause");
                }
            }
            for (host, name) in names.iter().enumerate() {
                waiting.entry(host).or_default().drain(..).for_each(|waiter| pool.cancel(name, &waiter));
                let gone = used.entry(host).or_default().drain(..).map(|_| pool.release(name, None, now, IDLE));
                assert!(gone.into_iter().all(|released| released == Released::Gone), "seed {seed}");
                idle.entry(host).or_default().drain(..).for_each(|connection| pool.forget(name, connection));
            }
            assert!(pool.hosts.is_empty() && pool.idle == 0, "seed {seed}");
        }
    }
}

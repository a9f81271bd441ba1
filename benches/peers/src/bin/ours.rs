//! Sconce: one event loop, unless the third argument says more. `/file` is found as a file of that name in a static directory.

use std::io;
use std::path::Path;
use std::thread;

use peers::{Args, HELLO, MESSAGE, TICK, stamp};
use sconce::http::{Broadcast, Event, Files, Reply, Request, Router, Server, ServerConfig};

/// An event of `/flood`, which no slow reader keeps up with.
const FLOOD_BYTES: usize = 16 << 10;

fn main() -> io::Result<()> {
    let Args { addr, file, threads } = Args::parse();
    let (events, flood) = (Broadcast::new(), Broadcast::new());
    let (to_events, to_flood) = (events.clone(), flood.clone());
    thread::spawn(move || {
        let large = "x".repeat(FLOOD_BYTES);
        loop {
            thread::sleep(TICK);
            events.send(&Event::new(&stamp()));
            flood.send(&Event::new(&large));
        }
    });

    let router = Router::new()
        .get("/", |_: &Request<'_>| HELLO)
        .get("/json", |_: &Request<'_>| Reply::json(&MESSAGE))
        .static_dir("/", Files::new(file.parent().unwrap_or(Path::new("/")))?)
        .get("/heap", |_: &Request<'_>| heap_bytes().to_string())
        .get("/events", move |_: &Request<'_>| to_events.subscribe(&[]))
        .get("/flood", move |_: &Request<'_>| to_flood.subscribe(&[]));
    let config = ServerConfig { threads, connections_max: 30_000, ..ServerConfig::default() };
    Server::bind(addr.as_str(), config)?.serve(router)
}

/// Bytes in use of the allocator, in all arenas.
fn heap_bytes() -> usize {
    // SAFETY: reads the allocator's own counters.
    let counts = unsafe { libc::mallinfo2() };
    counts.uordblks + counts.hblkhd
}

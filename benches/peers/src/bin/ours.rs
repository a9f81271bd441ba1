//! Sconce: one event loop, unless the third argument says more. `/file` is found as a file of that name in a static directory.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use peers::{Args, HELLO, MESSAGE, TICK, stamp};
use sconce::http::{Files, Reply, Request, Router, Server, ServerConfig, Sse};

type Clients = Arc<Mutex<Vec<Sse>>>;

/// An event of `/flood`, which no slow reader keeps up with.
const FLOOD_BYTES: usize = 16 << 10;

fn main() -> io::Result<()> {
    let Args { addr, file, threads } = Args::parse();
    let clients = Clients::default();
    let flooded = Clients::default();
    let (ticking, flooding) = (Arc::clone(&clients), Arc::clone(&flooded));
    thread::spawn(move || {
        let flood = "x".repeat(FLOOD_BYTES);
        loop {
            thread::sleep(TICK);
            send(&ticking, &stamp());
            send(&flooding, &flood);
        }
    });

    let router = Router::new()
        .get("/", |_: &Request<'_>| HELLO)
        .get("/json", |_: &Request<'_>| Reply::json(&MESSAGE))
        .static_dir("/", Files::new(file.parent().unwrap_or(Path::new("/")))?)
        .get("/heap", |_: &Request<'_>| heap_bytes().to_string())
        .get("/events", move |_: &Request<'_>| stream(&clients))
        .get("/flood", move |_: &Request<'_>| stream(&flooded));
    let config = ServerConfig { threads, connections_max: 30_000, ..ServerConfig::default() };
    Server::bind(addr.as_str(), config)?.serve(router)
}

fn stream(clients: &Mutex<Vec<Sse>>) -> Reply {
    let (reply, responder) = Reply::later();
    clients.lock().unwrap_or_else(PoisonError::into_inner).push(responder.sse(&[]));
    reply
}

/// A reader that lags misses events.
fn send(clients: &Mutex<Vec<Sse>>, event: &str) {
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    clients.retain(|client| !client.is_closed());
    clients.iter().filter(|client| !client.is_behind()).for_each(|client| client.event(event));
}

/// Bytes in use of the allocator, in all arenas.
fn heap_bytes() -> usize {
    // SAFETY: reads the allocator's own counters.
    let counts = unsafe { libc::mallinfo2() };
    counts.uordblks + counts.hblkhd
}

//! Sconce: one event loop.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use peers::{Args, HELLO, MESSAGE, TICK, stamp};
use sconce::http::{Reply, Request, Router, Server, ServerConfig, Sse, Status};

type Clients = Arc<Mutex<Vec<Sse>>>;

fn main() -> io::Result<()> {
    let Args { addr, file } = Args::parse();
    let clients = Clients::default();
    let ticking = Arc::clone(&clients);
    thread::spawn(move || tick(&ticking));

    let router = Router::new()
        .get("/", |_: &Request<'_>| HELLO)
        .get("/json", |_: &Request<'_>| match serde_json::to_vec(&MESSAGE) {
            Ok(body) => Reply::bytes(Status::OK, "application/json", body),
            Err(_) => Reply::empty(Status::INTERNAL_SERVER_ERROR),
        })
        .get("/file", move |_: &Request<'_>| match std::fs::read(&file) {
            Ok(body) => Reply::bytes(Status::OK, "application/octet-stream", body),
            Err(_) => Reply::empty(Status::NOT_FOUND),
        })
        .get("/heap", |_: &Request<'_>| heap_bytes().to_string())
        .get("/events", move |_: &Request<'_>| {
            let (reply, responder) = Reply::later();
            clients.lock().unwrap_or_else(PoisonError::into_inner).push(responder.sse(&[]));
            reply
        });
    let config = ServerConfig { threads: 1, connections_max: 30_000, ..ServerConfig::default() };
    Server::bind(addr.as_str(), config)?.serve(router)
}

fn tick(clients: &Mutex<Vec<Sse>>) {
    loop {
        thread::sleep(TICK);
        let event = stamp();
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| !client.is_closed());
        clients.iter().for_each(|client| client.event(&event));
    }
}

/// Bytes in use of the allocator, in all arenas.
fn heap_bytes() -> usize {
    // SAFETY: reads the allocator's own counters.
    let counts = unsafe { libc::mallinfo2() };
    counts.uordblks + counts.hblkhd
}

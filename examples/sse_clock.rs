//! A clock as server-sent events: one thread makes the time, every client gets it.
//!
//! `cargo run --example sse_clock -- 127.0.0.1:8080`, then `curl -N http://127.0.0.1:8080/`.

use std::env;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sconce::http::{Reply, Request, Router, Server, ServerConfig, Sse};

/// The streams of the clients that are there.
type Clients = Arc<Mutex<Vec<Sse>>>;

fn tick(clients: Clients) {
    let start = Instant::now();
    loop {
        thread::sleep(Duration::from_secs(1));
        let seconds = start.elapsed().as_secs();
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| !client.is_closed());
        clients.iter().for_each(|client| client.event(&format!("{seconds} seconds up")));
    }
}

fn main() -> io::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let clients = Clients::default();
    let ticking = Arc::clone(&clients);
    thread::spawn(move || tick(ticking));

    let router = Router::new().get("/", move |_: &Request<'_>| {
        let (reply, responder) = Reply::later();
        clients.lock().unwrap_or_else(PoisonError::into_inner).push(responder.sse(&[]));
        reply
    });
    // Streams without an end would keep a drain waiting.
    let config = ServerConfig { drain_timeout: Duration::from_secs(1), ..ServerConfig::default() };
    let server = Server::bind(addr.as_str(), config)?;
    println!("http://{}/", server.local_addr());
    server.serve(router)
}

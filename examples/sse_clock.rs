//! A clock as server-sent events: one thread makes the time, every client gets it.
//!
//! ```sh
//! cargo run --no-default-features --example sse_clock -- 127.0.0.1:8080
//! curl -N http://127.0.0.1:8080/
//! ```

use std::env;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use sconce::http::{Broadcast, Event, Request, Router, Server, ServerConfig};

fn tick(clock: &Broadcast) {
    let start = Instant::now();
    loop {
        thread::sleep(Duration::from_secs(1));
        let seconds = start.elapsed().as_secs();
        clock.send(&Event::new(&format!("{seconds} seconds up, {} listen", clock.listeners())));
    }
}

fn main() -> io::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let clock = Broadcast::new();
    let listeners = clock.clone();
    thread::spawn(move || tick(&clock));

    let router = Router::new().get("/", move |_: &Request<'_>| listeners.subscribe(&[]));
    // Streams without an end would keep a drain waiting.
    let config = ServerConfig { drain_timeout: Duration::from_secs(1), ..ServerConfig::default() };
    let server = Server::bind(addr.as_str(), config)?;
    println!("http://{}/", server.local_addr());
    server.serve(router)
}

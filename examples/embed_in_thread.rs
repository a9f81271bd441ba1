//! A server inside another program: it runs in threads of its own, is watched and ended by a handle, and touches no
//! signals. Asks itself, says what the server did, and ends.
//!
//! ```sh
//! cargo run --no-default-features --example embed_in_thread -- 127.0.0.1:0
//! ```

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sconce::http::{Client, ClientConfig, ClientRequest, Method, Request, Router, Server, ServerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let jobs = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&jobs);
    let router = Router::new().get("/jobs", move |_: &Request<'_>| format!("{} jobs", seen.load(Ordering::Relaxed)));

    let config = ServerConfig { threads: 1, ..ServerConfig::default() };
    let running = Server::bind(addr.as_str(), config)?.start(router)?;
    let handle = running.handle();

    // This thread goes on with the work of the program.
    jobs.fetch_add(3, Ordering::Relaxed);

    let client = Client::start(ClientConfig::default())?;
    let url = format!("http://{}/jobs", running.local_addr());
    let answer = client.fetch(ClientRequest::new(Method::Get, &url)?)?;
    println!("{url}: {}", answer.status);
    println!("{}", String::from_utf8(answer.collect(1 << 10)?)?);

    for (number, done) in handle.stats().iter().enumerate() {
        let (requests, connections) = (done.requests, done.accepted);
        println!("loop {number}: {requests} requests on {connections} connections, {} bytes out", done.bytes_out);
    }

    // From any thread: no new clients, running answers finish, the rest is cut.
    handle.drain(Duration::from_secs(5));
    running.join()?;
    println!("drained");
    Ok(())
}

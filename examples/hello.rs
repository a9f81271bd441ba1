//! The smallest HTTP server.
//!
//! ```sh
//! cargo run --no-default-features --example hello -- 127.0.0.1:8080
//! curl http://127.0.0.1:8080/
//! ```

use std::env;
use std::io;

use sconce::http::{Request, Router, Server, ServerConfig};

fn hello(_: &Request<'_>) -> &'static str {
    "Hello, World!"
}

fn main() -> io::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = Server::bind(addr.as_str(), ServerConfig::default())?;
    println!("http://{}/", server.local_addr());
    server.serve(Router::new().get("/", hello))
}

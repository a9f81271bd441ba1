//! Serves a directory: `cargo run --release --example static_site -- public 127.0.0.1:8080`.
//!
//! With entity tags, conditions, ranges and compressed twins (`app.js.br`, `app.js.gz`); see `Router::static_dir` for what is
//! never served.

use std::env;
use std::io;

use sconce::http::{Files, Router, Server, ServerConfig};

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".into());
    let addr = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());

    let files = Files::new(&directory)?.precompressed(true);
    let server = Server::bind(addr.as_str(), ServerConfig::default())?;
    println!("{directory} on http://{}/", server.local_addr());
    server.serve(Router::new().static_dir("/", files))
}

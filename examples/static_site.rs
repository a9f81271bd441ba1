//! Serves a directory, with entity tags, conditions, ranges and compressed twins (`app.js.br`, `app.js.gz`);
//! see `Router::static_dir` for what is never served.
//!
//! ```sh
//! cargo run --no-default-features --example static_site -- 127.0.0.1:8080 static
//! curl -i http://127.0.0.1:8080/
//! curl -i -r 0-99 http://127.0.0.1:8080/app.js
//! ```

use std::env;
use std::io;

use sconce::http::{Files, Router, Server, ServerConfig};

fn main() -> io::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let directory = env::args().nth(2).unwrap_or_else(|| ".".into());

    let files = Files::new(&directory)?.precompressed(true);
    let server = Server::bind(addr.as_str(), ServerConfig::default())?;
    println!("{directory} on http://{}/", server.local_addr());
    server.serve(Router::new().static_dir("/", files))
}

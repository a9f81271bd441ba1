//! A reverse proxy that streams both ways.
//!
//! Bodies pass through as they come, at the pace of the slower side. A client that leaves ends what is asked for it; an
//! answer that breaks off reaches the client broken off; a server that is not there is a 502, a slow one a 504.
//!
//! ```sh
//! cargo run --no-default-features --example hello -- 127.0.0.1:9000
//! cargo run --no-default-features --example proxy -- 127.0.0.1:8080 http://127.0.0.1:9000
//! curl -i http://127.0.0.1:8080/
//! ```

use std::env;
use std::io;
use std::sync::Arc;

use sconce::http::client::{ClientError, ClientRequest};
use sconce::http::{Body, InvalidHeader, Method, Reply, Request, Router, Server, ServerConfig, Status};

const METHODS: [Method; 7] =
    [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options, Method::Patch];

/// The same request for the server behind.
fn onward(origin: &str, request: &Request<'_>, body: Body) -> Result<ClientRequest, Reply> {
    let query = request.query_string().map_or(String::new(), |query| format!("?{query}"));
    let url = format!("{origin}{}{query}", request.path());
    let ask = ClientRequest::new(request.method(), &url).map_err(ClientError::from)?;
    let refused = |_: InvalidHeader| Reply::empty(Status::BAD_REQUEST);
    let ask = ask.headers_of(request).header("Via", "1.1 sconce").map_err(refused)?;
    let ask = ask.header("X-Forwarded-For", request.peer().ip().to_string()).map_err(refused)?;
    Ok(ask.body_stream(body))
}

fn proxy(origin: &str, request: &Request<'_>, body: Body) -> Result<Reply, Reply> {
    let ask = onward(origin, request, body)?;
    Ok(request.client().reply(ask, |outcome| match outcome {
        Ok(answer) => answer.into_reply().header("Via", "1.1 sconce"),
        Err(error) => error.into(),
    }))
}

fn main() -> io::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let origin: Arc<str> = env::args().nth(2).unwrap_or_else(|| "http://127.0.0.1:9000".into()).into();
    let router = METHODS.into_iter().fold(Router::new(), |router, method| {
        let origin = Arc::clone(&origin);
        router.route_streamed(method, "/{*path}", move |request: &Request<'_>, body| proxy(&origin, request, body))
    });
    let server = Server::bind(addr.as_str(), ServerConfig::default())?;
    println!("http://{}/ for {origin}", server.local_addr());
    server.serve(router)
}

//! tiny_http: it reads each connection on a thread of its own; one more thread answers, and one makes the events.
//! It offers no way to set TCP_NODELAY.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use peers::{Args, HELLO, MESSAGE, TICK, event};
use tiny_http::{Header, Request, Response, Server};

/// The sockets of event streams. A stream is bytes in a response of unknown length, ended by the connection's end.
type Clients = Mutex<Vec<Box<dyn Write + Send>>>;

fn answer(request: Request, path: &std::path::Path, clients: &Clients) -> io::Result<()> {
    match request.url() {
        "/" => request.respond(Response::from_string(HELLO)),
        "/json" => {
            let json = serde_json::to_vec(&MESSAGE)?;
            request.respond(Response::from_data(json).with_header(content_type("application/json")))
        }
        "/file" => request.respond(Response::from_file(File::open(path)?)),
        "/events" => {
            let mut client = request.into_writer();
            client.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
                  Connection: close\r\n\r\n",
            )?;
            client.flush()?;
            clients.lock().unwrap_or_else(PoisonError::into_inner).push(client);
            Ok(())
        }
        _ => request.respond(Response::empty(404)),
    }
}

fn content_type(value: &str) -> Header {
    Header::from_bytes("Content-Type", value).expect("a type of this file")
}

fn tick(clients: &Clients) {
    loop {
        thread::sleep(TICK);
        let event = event();
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain_mut(|client| client.write_all(event.as_bytes()).and_then(|()| client.flush()).is_ok());
    }
}

fn main() -> io::Result<()> {
    let Args { addr, file, .. } = Args::parse();
    let server = Server::http(addr).map_err(io::Error::other)?;
    let clients = Arc::new(Clients::default());
    let ticking = Arc::clone(&clients);
    thread::spawn(move || tick(&ticking));
    for request in server.incoming_requests() {
        // A client that goes away is no news in a load test.
        let _ = answer(request, &file, &clients);
    }
    Ok(())
}

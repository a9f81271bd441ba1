//! ntex with one worker on its own epoll runtime; the file through ntex-files.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;

use ntex::channel::mpsc::{self, Sender};
use ntex::time::{Millis, interval};
use ntex::web::{self, App, HttpRequest, HttpResponse, HttpServer, types};
use ntex_files::NamedFile;
use peers::{Args, HELLO, MESSAGE, TICK, event};

type Piece = Result<ntex::util::Bytes, io::Error>;

thread_local! {
    /// The worker's streams; there is one worker.
    static CLIENTS: RefCell<Vec<Sender<Piece>>> = const { RefCell::new(Vec::new()) };
}

async fn hello() -> &'static str {
    HELLO
}

async fn json() -> HttpResponse {
    HttpResponse::Ok().json(&MESSAGE)
}

async fn file(request: HttpRequest, path: types::State<PathBuf>) -> io::Result<HttpResponse> {
    Ok(NamedFile::open(path.get_ref())?.into_response(&request))
}

async fn events() -> HttpResponse {
    let (sender, receiver) = mpsc::channel();
    CLIENTS.with_borrow_mut(|clients| clients.push(sender));
    HttpResponse::Ok().content_type("text/event-stream").streaming(receiver)
}

/// Runs beside the handlers of the worker that it was started in.
async fn tick() {
    let ticks = interval(Millis(TICK.as_millis() as u32));
    loop {
        ticks.tick().await;
        let event = ntex::util::Bytes::from(event());
        CLIENTS.with_borrow_mut(|clients| clients.retain(|client| client.send(Ok(event.clone())).is_ok()));
    }
}

#[ntex::main]
async fn main() -> io::Result<()> {
    let Args { addr, file: path, .. } = Args::parse();
    let app = async move || {
        ntex::rt::spawn(tick());
        App::new()
            .state(path.clone())
            .route("/", web::get().to(hello))
            .route("/json", web::get().to(json))
            .route("/file", web::get().to(file))
            .route("/events", web::get().to(events))
    };
    HttpServer::new(app).workers(1).bind(addr)?.run().await
}

//! actix-web with one worker; the file through actix-files.

use std::io;
use std::path::PathBuf;

use actix_files::NamedFile;
use actix_web::{App, HttpResponse, HttpServer, Responder, web};
use bytes::Bytes;
use peers::{Args, HELLO, MESSAGE, TICK, event};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

async fn hello() -> &'static str {
    HELLO
}

async fn json() -> impl Responder {
    web::Json(MESSAGE)
}

async fn file(path: web::Data<PathBuf>) -> io::Result<NamedFile> {
    NamedFile::open(path.as_path())
}

async fn events(sender: web::Data<broadcast::Sender<Bytes>>) -> impl Responder {
    HttpResponse::Ok().content_type("text/event-stream").streaming(BroadcastStream::new(sender.subscribe()))
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let Args { addr, file: path, .. } = Args::parse();
    let (sender, _) = broadcast::channel(16);
    let ticking = sender.clone();
    actix_web::rt::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            // Nobody listening is no failure.
            let _ = ticking.send(Bytes::from(event()));
        }
    });
    let (path, sender) = (web::Data::new(path), web::Data::new(sender));
    let app = move || {
        App::new()
            .app_data(path.clone())
            .app_data(sender.clone())
            .route("/", web::get().to(hello))
            .route("/json", web::get().to(json))
            .route("/file", web::get().to(file))
            .route("/events", web::get().to(events))
    };
    HttpServer::new(app).workers(1).tcp_nodelay(true).bind(addr)?.run().await
}

//! axum on one tokio thread; the file through tower-http.

use std::convert::Infallible;
use std::io;

use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use futures_util::{Stream, StreamExt};
use peers::{Args, HELLO, MESSAGE, TICK, stamp};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tower_http::services::ServeFile;

fn events(sender: &broadcast::Sender<Event>) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    Sse::new(BroadcastStream::new(sender.subscribe()).filter_map(|event| async { event.ok().map(Ok) }))
}

async fn serve(args: Args) -> io::Result<()> {
    let (sender, _) = broadcast::channel(16);
    let ticking = sender.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            // Nobody listening is no failure.
            let _ = ticking.send(Event::default().data(stamp()));
        }
    });
    let router = Router::new()
        .route("/", get(|| async { HELLO }))
        .route("/json", get(|| async { Json(MESSAGE) }))
        .route_service("/file", ServeFile::new(args.file))
        .route("/events", get(move || async move { events(&sender) }));
    let listener = TcpListener::bind(args.addr).await?.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, router).await
}

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(Args::parse()))
}

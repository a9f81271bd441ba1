//! Notes kept in memory, as JSON.
//!
//! ```sh
//! cargo run --no-default-features --features json,compression --example json_api -- 127.0.0.1:8080
//! curl -i http://127.0.0.1:8080/notes -H 'Content-Type: application/json' -d '{"text":"buy milk"}'
//! curl 'http://127.0.0.1:8080/notes?limit=10'
//! curl -X PUT http://127.0.0.1:8080/notes/1 -H 'Content-Type: application/json' -d '{"text":"buy oats"}'
//! curl http://127.0.0.1:8080/notes/1
//! curl http://127.0.0.1:8080/notes/one
//! curl -i -X DELETE http://127.0.0.1:8080/notes/1
//! ```

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sconce::http::layers::{Compression, Cors, InboundId, access_log_to, compression, cors, request_id};
use sconce::http::{BadJson, BadParam, Method, Reply, Request, Router, Server, ServerConfig, Status};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
}

static NOTES: Mutex<BTreeMap<u64, Note>> = Mutex::new(BTreeMap::new());

fn notes() -> MutexGuard<'static, BTreeMap<u64, Note>> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn list(request: &Request<'_>) -> Result<Reply, BadParam> {
    let limit = request.query_param("limit")?.unwrap_or(100);
    Ok(Reply::json(&notes().iter().take(limit).collect::<BTreeMap<_, _>>()))
}

fn create(request: &Request<'_>) -> Result<Reply, BadJson> {
    let mut notes = notes();
    let id = notes.last_key_value().map_or(1, |(last, _)| last + 1);
    let note = notes.entry(id).or_insert(request.json()?);
    Ok(Reply::json(note).with_status(Status::CREATED).header("Location", format!("/notes/{id}")))
}

fn read(request: &Request<'_>) -> Result<Reply, BadParam> {
    Ok(notes().get(&request.path_param("id")?).map_or(Reply::empty(Status::NOT_FOUND), Reply::json))
}

fn replace(request: &Request<'_>) -> Result<Reply, Reply> {
    let mut notes = notes();
    let note = notes.get_mut(&request.path_param("id")?).ok_or(Reply::empty(Status::NOT_FOUND))?;
    *note = request.json()?;
    Ok(Reply::json(note))
}

fn remove(request: &Request<'_>) -> Result<Status, BadParam> {
    Ok(notes().remove(&request.path_param("id")?).map_or(Status::NOT_FOUND, |_| Status::NO_CONTENT))
}

fn main() -> io::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let policy = Cors::any_origin().methods(&[Method::Put, Method::Delete]).headers(&["content-type"]);
    let router = Router::new().layer(access_log_to(|line| println!("{line}"))).layer(request_id(InboundId::Kept));
    let router = router.layer(cors(policy)).layer(compression(Compression::default()));
    let router = router.get("/notes", list).post("/notes", create);
    let router = router.get("/notes/{id}", read).put("/notes/{id}", replace).delete("/notes/{id}", remove);
    let server = Server::bind(addr.as_str(), ServerConfig::default())?;
    println!("http://{}/notes", server.local_addr());
    server.serve(router)
}

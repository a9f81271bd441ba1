//! What the types of `http` and `reactor` promise to threads: this compiles, or a promise is broken.

use sconce::http::client::{Client, ClientError, ClientRequest};
use sconce::http::{
    Answer, Body, Broadcast, Files, LoopStats, Reply, Responder, Router, Running, Server, ServerConfig, ServerHandle,
    Sse, Stream, Upgraded,
};
use sconce::reactor::{Config, Control, Counters, FileRange, Handle, Listener, Loops, Output, SharedBytes};

fn moves<T: Send>() {}

fn is_shared<T: Send + Sync>() {}

#[test]
fn what_goes_to_other_threads_and_what_they_may_share() {
    // Owned by one thread at a time.
    moves::<Reply>();
    moves::<Responder>();
    moves::<Body>();
    moves::<Upgraded>();
    moves::<Answer>();
    moves::<ClientRequest>();
    moves::<Server>();
    moves::<Running>();
    moves::<Listener>();
    moves::<Loops<()>>();
    moves::<Output>();

    // Used by several at once.
    is_shared::<Router>();
    is_shared::<Files>();
    is_shared::<Stream>();
    is_shared::<Sse>();
    is_shared::<Broadcast>();
    is_shared::<Client>();
    is_shared::<ClientError>();
    is_shared::<ServerConfig>();
    is_shared::<ServerHandle>();
    is_shared::<LoopStats>();
    is_shared::<Config>();
    is_shared::<Control<()>>();
    is_shared::<Counters>();
    is_shared::<Handle<()>>();
    is_shared::<FileRange>();
    is_shared::<SharedBytes>();
}

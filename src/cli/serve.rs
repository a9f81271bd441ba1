//! `sconce serve`: binds, answers probes while models load, serves until a signal, drains. SIGHUP replaces models.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    api::{self, Api, Settings, models::Bounds},
    config::{ServerConfig, available_bytes},
    http::{self, Limits, Server},
};

use super::{
    Failure,
    args::ServeArgs,
    configure,
    load::Summary,
    reload::{Hangups, Reloader},
};

/// Streams that outlive the drain are told so, and get this long to read it.
const FAREWELL: Duration = Duration::from_secs(1);

pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let (config, sources) = configure(args.common, args.server.into_flags(args.model), "info")?;
    let settings = config.server.clone();
    let cant_watch = |error| Failure::Run(format!("can't watch for signals: {error}"));
    let hangups = Hangups::watch().map_err(cant_watch)?;
    let server = bind(&settings)?;
    let address = server.local_addr();
    let hosts = address.ip().is_loopback().then(|| settings.hosts.clone());
    let bounds = Bounds {
        bytes_max: settings.models_bytes_max,
        free: Box::new(available_bytes),
        waiters_max: settings.queue_max,
    };
    let api_settings = Settings { queue_timeout: settings.queue_timeout, ping_interval: settings.ping_interval, hosts };
    let api = Api::with_bounds(api_settings, bounds)
        .map_err(|error| Failure::Run(format!("can't start a thread: {error}")))?;
    let running = server.start(api::router(&api)).map_err(|error| Failure::Run(format!("can't serve: {error}")))?;
    api.watch(running.handle());

    let reloader = Reloader::start(Arc::clone(&api), sources, config)?;
    // Nobody may be reading: that is no reason not to serve.
    let _ = greet(address, &reloader.summaries(), &settings);
    reloader.watch(hangups).map_err(cant_watch)?;

    let drain_timeout = settings.drain_timeout;
    let drain = move || {
        api.set_draining();
        // Takes nothing new, lets what runs finish, and tells the rest before the connections are cut.
        let finish = move || api.models().shutdown(drain_timeout);
        if let Err(error) = thread::Builder::new().name("drain".to_owned()).spawn(finish) {
            log::warn!("streams that outlive the drain will be cut without a word: {error}");
        }
    };
    running.run_until_signal(drain).map_err(|error| Failure::Run(format!("the server failed: {error}")))
}

fn bind(settings: &ServerConfig) -> Result<Server, Failure> {
    let limits = Limits {
        head_timeout: settings.head_timeout,
        idle_timeout: settings.idle_timeout,
        body_bytes_max: settings.body_bytes_max,
        sse_ping: settings.ping_interval,
        ..Limits::default()
    };
    let config = http::ServerConfig {
        threads: settings.loops.unwrap_or_else(loops),
        connections_max: settings.connections_max,
        drain_timeout: settings.drain_timeout + FAREWELL,
        limits,
        ..http::ServerConfig::default()
    };
    let address = settings.address;
    Server::bind(address, config).map_err(|error| {
        Failure::Run(match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {} on {} is taken: stop the other server, or choose another port with --port (0 takes a free one)",
                address.port(),
                address.ip()
            ),
            io::ErrorKind::PermissionDenied => {
                format!("port {} needs privileges: choose one above 1023 with --port", address.port())
            }
            _ => format!("can't listen on {address}: {error}"),
        })
    })
}

/// Loops move bytes and tokens, which is little beside the model: one, and another for each 8 CPUs.
fn loops() -> usize {
    1 + thread::available_parallelism().map_or(1, usize::from) / 8
}

/// The first lines: where, what, and what to try.
fn greet(address: SocketAddr, summaries: &[Summary], settings: &ServerConfig) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let shown = match address.ip().is_unspecified() {
        true => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        false => address,
    };
    writeln!(out, "Sconce {} on http://{address}", env!("CARGO_PKG_VERSION"))?;
    for (what, words) in summaries.iter().flatten() {
        writeln!(out, "  {what:<8} {words}")?;
    }
    if !address.ip().is_loopback() {
        writeln!(out, "  open     everyone who can reach {address} can use it: there are no keys")?;
    }
    if !settings.hosts.is_empty() {
        writeln!(out, "  hosts    {}", settings.hosts.join(", "))?;
    }
    writeln!(out, "Try")?;
    writeln!(out, "  a browser at http://{shown}")?;
    writeln!(
        out,
        "  curl -N http://{shown}/generate_stream -d '{{\"prompt\": \"Once upon a time\", \"max_tokens\": 50}}'"
    )?;
    writeln!(out, "  curl http://{shown}/health")?;
    out.flush()
}

//! A directory served over HTTP.

use std::borrow::Cow;
use std::hash::RandomState;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::answer::{answer, failure};
use super::cache::{Cache, Entry, Frame, Opened};
use super::mime;
use super::path::{Hidden, SafePath};
use super::root::{Found, Root};
use crate::http::content_coding::{Coding, choose};
use crate::http::date::unix_seconds;
use crate::http::reply::{Reply, check_header};
use crate::http::request::Request;
use crate::http::router::Router;
use crate::http::types::Status;

/// The files below a directory.
///
/// ```no_run
/// use sconce::http::{Files, Router};
///
/// let assets = Files::new("public/assets")?.precompressed(true).cache_control("public, max-age=31536000, immutable");
/// let pages = Files::new("public")?.fallback("index.html");
/// let router = Router::new().static_dir("/assets", assets).static_dir("/", pages);
/// # std::io::Result::Ok(())
/// ```
///
/// What a path of a URL may name is narrow: see [`Router::static_dir`]. Files should be replaced by renaming, not written
/// in place: who is being sent a file that changes gets a mixture, with any server.
#[derive(Debug)]
#[must_use = "files are served once they are given to `Router::static_dir`"]
pub struct Files {
    root: Root,
    index: String,
    fallback: Option<String>,
    cache_control: String,
    precompressed: bool,
    hidden: Hidden,
    cache: Cache,
    random: RandomState,
}

/// What a URL leads to.
enum Target {
    File(Arc<Entry>),
    /// A directory whose URL lacks its last slash.
    Directory,
    Nothing,
}

impl Files {
    /// Serves what is below `root`, by default: `index.html` for a directory, `Cache-Control: no-cache` (a browser keeps its
    /// copy, but asks each time whether it is still good), no compressed twins, no hidden files.
    ///
    /// # Errors
    /// When `root` is no directory, or may not be read.
    pub fn new(root: impl AsRef<Path>) -> io::Result<Files> {
        Ok(Files {
            root: Root::new(root.as_ref())?,
            index: "index.html".into(),
            fallback: None,
            cache_control: "no-cache".into(),
            precompressed: false,
            hidden: Hidden::Refused,
            cache: Cache::default(),
            random: RandomState::new(),
        })
    }

    /// The value of `Cache-Control` (RFC 9111 §5.2), for example `public, max-age=31536000, immutable` for files whose name
    /// changes with their content. Empty: no such line.
    ///
    /// # Panics
    /// On a value with a control character in it, which is a mistake of the program.
    pub fn cache_control(mut self, value: impl Into<String>) -> Files {
        self.cache_control = value.into();
        if let Err(error) = check_header("Cache-Control", &self.cache_control) {
            panic!("the value {:?} cannot be sent: {error}", self.cache_control);
        }
        self
    }

    /// The file that stands for a directory. A directory without it is a 404: nothing is listed.
    pub fn index(mut self, name: impl Into<String>) -> Files {
        self.index = name.into();
        self
    }

    /// The file, below the root, that answers where there is none, with 200: for applications of a single page, whose paths
    /// only their script knows. A path with the extension of a file (`/lost.js`) stays a 404, so that no page is run as a script.
    pub fn fallback(mut self, name: impl Into<String>) -> Files {
        self.fallback = Some(name.into());
        self
    }

    /// Whether `app.js.br`, `app.js.zst` and `app.js.gz` are sent in place of `app.js` to clients that accept them
    /// (RFC 9110 §12.5.3). They must be made from the same content; nobody compares.
    pub fn precompressed(mut self, yes: bool) -> Files {
        self.precompressed = yes;
        self
    }

    /// Whether names that begin with a dot are served. `.well-known` at the top always is (RFC 8615).
    pub fn hidden(mut self, yes: bool) -> Files {
        self.hidden = if yes { Hidden::Served } else { Hidden::Refused };
        self
    }

    /// Answers a request for `raw`: the path below the root, still percent-encoded, without its first slash.
    fn serve(&self, request: &Request<'_>, raw: &str) -> Reply {
        let now = SystemTime::now();
        let reply = self.find(request, raw, now).and_then(|target| match target {
            Target::File(entry) => {
                let asset = &entry.in_coding(choice(request, &entry)).asset;
                answer(request, asset, unix_seconds(now), &self.random)
            }
            Target::Directory => Ok(redirect_into(request)),
            Target::Nothing => Ok(failure(Status::NOT_FOUND, &format!("no such path: {}", request.path()))),
        });
        reply.unwrap_or_else(|error| {
            log::error!("{} cannot be read: {error}", request.path());
            failure(Status::SERVICE_UNAVAILABLE, "the file cannot be read now").header("Retry-After", "1")
        })
    }

    fn find(&self, request: &Request<'_>, raw: &str, now: SystemTime) -> io::Result<Target> {
        let Some(path) = SafePath::parse(raw, self.hidden) else { return Ok(Target::Nothing) };
        let name = match (path.is_directory, &*path.name) {
            (true, "") => Cow::Borrowed(&*self.index),
            (true, name) => Cow::Owned(format!("{name}/{}", self.index)),
            (false, _) => Cow::Borrowed(&*path.name),
        };
        match (self.open(request, &name, now)?, &self.fallback) {
            (Target::Nothing, Some(fallback)) if mime::known(&path.name).is_none() => self.open(request, fallback, now),
            // An index that is a directory is none.
            (Target::Directory, _) if path.is_directory => Ok(Target::Nothing),
            (target, _) => Ok(target),
        }
    }

    /// The file with this name and its compressed twins, from the cache if nothing has changed.
    fn open(&self, request: &Request<'_>, name: &str, now: SystemTime) -> io::Result<Target> {
        let since = Instant::now();
        let known = self.cache.get(name, since);
        if let Some(entry) = known.filter(|entry| entry.in_coding(choice(request, entry)).is_current()) {
            return Ok(Target::File(entry));
        }
        let (file, metadata) = match self.root.open(name)? {
            Found::File(file, metadata) => (file, metadata),
            Found::Directory => return Ok(Target::Directory),
            Found::Nothing => return Ok(Target::Nothing),
        };
        let mut twins = Vec::new();
        for coding in Coding::ALL.into_iter().filter(|_| self.precompressed) {
            if let Found::File(file, metadata) = self.root.open(&format!("{name}{}", coding.suffix()))? {
                twins.push((coding, file, metadata));
            }
        }
        let varies = !twins.is_empty();
        let (content_type, cache_control) = (mime::of(name), &*self.cache_control);
        let frame = |coding| Frame { content_type, cache_control, coding, varies };
        let twin = |(coding, file, metadata)| (coding, Opened::new(file, &metadata, frame(Some(coding)), now));
        let plain = Opened::new(file, &metadata, frame(None), now);
        let entry = Arc::new(Entry { since, plain, coded: twins.into_iter().map(twin).collect() });
        self.cache.put(name, &entry, since);
        Ok(Target::File(entry))
    }
}

fn choice(request: &Request<'_>, entry: &Entry) -> Option<Coding> {
    choose(request, entry.coded.iter().map(|(coding, _)| *coding))
}

/// To the same path with a slash behind it, so that relative links in the index work.
///
/// The reference is a relative one (RFC 9110 §10.2.2): whatever the path looks like, it leads to no other host, and it
/// holds behind a proxy that took a prefix off.
fn redirect_into(request: &Request<'_>) -> Reply {
    let name = request.path().rsplit('/').next().unwrap_or_default();
    let query = request.query_string().map(|query| format!("?{query}")).unwrap_or_default();
    Reply::empty(Status::MOVED_PERMANENTLY).header("Location", format!("./{name}/{query}"))
}

impl Router {
    /// Serves the files below a directory under `prefix` (`/assets`, or `/` for everything that no other route has), by GET
    /// and HEAD, with entity tags, conditions and ranges (RFC 9110 §8.8, §13, §14).
    ///
    /// A path is decoded once. One that could leave the directory, in whatever encoding, is a 404, as are empty names, `.`,
    /// backslashes, control characters, drives and hidden files. A symbolic link is followed as far as it stays inside.
    ///
    /// # Panics
    /// On a prefix that cannot be a route, as [`route`](Router::route) does.
    pub fn static_dir(self, prefix: &str, files: Files) -> Router {
        let prefix = prefix.trim_end_matches('/');
        let router = if prefix.is_empty() { self } else { self.get(prefix, redirect_into) };
        router.get(&format!("{prefix}/{{*path}}"), move |request: &Request<'_>| {
            files.serve(request, request.raw_param("path").unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests;

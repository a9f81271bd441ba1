//! How output leaves, and how connections end once it has.

use std::mem;

use mio::Interest;

use super::EventLoop;
use crate::reactor::Protocol;
use crate::reactor::connections::ConnId;
use crate::reactor::entry::{Close, Phase};
use crate::reactor::output::Written;

/// Connections that wait with output at a time. A thousand that ask in one turn, or a message to ten thousand, would else
/// fill as many buffers; as many as the pool keeps cost nothing.
const DIRTY_MAX: usize = 64;

impl<P: Protocol> EventLoop<P> {
    /// Writes what became dirty since the last time. What becomes dirty by that, because its share of the turn has gone
    /// or its protocol goes on, is flushed in the next turn.
    pub(super) fn flush(&mut self) {
        let mut dirty = mem::replace(&mut self.dirty, mem::take(&mut self.spare));
        for id in dirty.drain(..) {
            self.flush_one(id);
        }
        self.late.append(&mut self.dirty);
        self.spare = dirty;
    }

    /// Does not let output pile up while one event or message after another is handled.
    pub(super) fn flush_if_many(&mut self) {
        if self.dirty.len() >= DIRTY_MAX {
            self.flush();
        }
    }

    fn flush_one(&mut self, id: ConnId) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        entry.dirty = false;
        if matches!(entry.phase, Phase::Aborted) {
            entry.transport.reset_on_close();
            return self.remove(id);
        }
        let before = entry.transport.output.len();
        let written = match entry.transport.flush(self.poll.registry(), id.to_token(), &mut self.pool) {
            Ok(written) => written,
            Err(e) => {
                log::debug!("a connection broke while writing: {e}");
                // What was sent may be cut anywhere: no peer may take that for an orderly end.
                entry.transport.reset_on_close();
                return self.remove(id);
            }
        };
        let after = entry.transport.output.len();
        self.tally.bytes_out += before.saturating_sub(after) as u64;
        entry.on_flushed(before, after, self.now, self.config.write_stall_timeout);
        match entry.phase {
            Phase::Open => {
                self.call(id, P::on_flushed);
                self.run_again(id);
            }
            Phase::Flushing(close) if after == 0 => self.finish(id, close),
            Phase::Connecting | Phase::Flushing(_) | Phase::Lingering { .. } | Phase::Aborted => self.arm(id),
        }
        if written == Written::Share {
            self.mark_dirty(id);
        }
    }

    /// Ends a connection whose output has left: at once, or after the peer's end.
    fn finish(&mut self, id: ConnId, close: Close) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        if entry.transport.ended || (close == Close::Direct && entry.transport.is_drained()) {
            return self.remove(id);
        }
        let watched = entry.transport.watch(self.poll.registry(), id.to_token(), Interest::READABLE);
        if watched.and_then(|()| entry.transport.finish()).is_err() {
            return self.remove(id);
        }
        entry.linger(self.now);
        self.arm(id);
        self.run_again(id);
    }
}

//! Where the servers differ, and the reasons.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::corpus::Case;
use crate::exchange::Outcome;
use crate::servers::Peer;

/// A case, and what each server made of it.
pub struct Row {
    pub case: Case,
    pub ours: Outcome,
    pub peers: Vec<Outcome>,
}

impl Row {
    /// What this server did that the corpus does not expect.
    pub fn unexpected(&self) -> Option<String> {
        let expected = &self.case.events;
        let (mut taken, mut refused, mut closes) = (Vec::new(), None, false);
        for event in expected {
            match event.strip_suffix(" close") {
                _ if event.starts_with(|first: char| first.is_ascii_digit()) => refused = event.get(..3),
                Some(event) => (closes, _) = (true, taken.push(event)),
                None => taken.push(event),
            }
        }
        let as_expected = match (refused, closes) {
            // What is incomplete takes the probe for a part of itself.
            (None, false) => self.ours.taken.iter().zip(&taken).all(|(ours, event)| ours == event),
            _ => self.ours.taken == taken && self.ours.refused.as_deref() == refused && !self.ours.goes_on,
        };
        (!as_expected).then(|| format!("{}: expected {expected:?}, and it was {}", self.case.name, self.ours))
    }

    /// Whether a peer has read something else. Which status a refusal has is a matter of taste.
    fn differs(&self, peer: &Outcome) -> bool {
        self.ours.taken != peer.taken
            || self.ours.refused.is_some() != peer.refused.is_some()
            || self.ours.goes_on != peer.goes_on
    }

    fn differs_at_all(&self) -> bool {
        self.peers.iter().any(|peer| self.differs(peer))
    }

    /// Whether we take something that every peer refuses.
    fn is_lax(&self) -> bool {
        self.ours.refused.is_none() && self.peers.iter().all(|peer| peer.refused.is_some())
    }
}

/// Why we differ: each reason with its cases.
pub struct Reasons(Vec<(String, Vec<String>)>);

impl Reasons {
    /// Reads paragraphs: a reason, then the names of its cases, each behind a dash.
    pub fn read(path: &Path) -> Reasons {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let paragraph = |text: &str| {
            let cases = text.lines().filter_map(|line| line.strip_prefix("- ").map(String::from)).collect();
            let reason: Vec<&str> = text.lines().filter(|line| !line.starts_with("- ")).collect();
            (reason.join(" "), cases)
        };
        Reasons(text.trim_end().split("\n\n").map(paragraph).collect())
    }

    fn of(&self, case: &str) -> Option<&str> {
        let (reason, _) = self.0.iter().find(|(_, cases)| cases.iter().any(|name| name == case))?;
        Some(reason)
    }

    /// Reasons for differences that there are not.
    pub fn unused(&self, rows: &[Row]) -> Vec<String> {
        let named = self.0.iter().flat_map(|(_, cases)| cases);
        let differs = |name: &&String| rows.iter().any(|row| row.case.name == **name && row.differs_at_all());
        named
            .filter(|name| !differs(name))
            .map(|name| format!("{name}: there is a reason, but no difference"))
            .collect()
    }
}

/// The table of differences, and those that have no reason.
pub fn table(rows: &[Row], peers: &[Peer], reasons: &Reasons) -> (String, Vec<String>) {
    let mut text = String::from(
        "# Where this server, hyper and nginx read the same bytes differently\n\n\
         Written by `tests/differential`; the bytes stand in `valid.txt` and `refused.txt` under the names of the cases. Shown is\n\
         what each server took for a request, the status of what it refused, and whether it then went on with the next request\n\
         of the connection. Which status a refusal has counts as no difference.\n\n",
    );
    let _ = writeln!(text, "{}\n", summary(rows, peers));
    let names = peers.iter().map(|peer| format!(" {} |", peer.name)).collect::<String>();
    let _ = writeln!(text, "| case | rule | ours |{names} why |\n|---|---|---|{}---|", "---|".repeat(peers.len()));

    let mut unexplained = Vec::new();
    for row in rows.iter().filter(|row| row.differs_at_all()) {
        let name = &row.case.name;
        let reason = reasons.of(name).unwrap_or_default();
        let theirs = row.peers.iter().map(|peer| if row.differs(peer) { peer.to_string() } else { "the same".into() });
        let read: Vec<String> = [row.ours.to_string()].into_iter().chain(theirs).collect();
        if reason.is_empty() {
            let lax = if row.is_lax() { ", and nobody else takes it" } else { "" };
            unexplained.push(format!("{name}: there is no reason for: {}{lax}", read.join(" | ")));
        }
        let cells = [&[name.clone(), row.case.rule.clone()][..], &read, &[reason.to_string()]].concat();
        let cells = cells.iter().map(|cell| format!(" {} |", cell.replace('|', "\\|"))).collect::<String>();
        let _ = writeln!(text, "|{cells}");
    }
    (text, unexplained)
}

/// How many cases each peer reads in another way.
pub fn summary(rows: &[Row], peers: &[Peer]) -> String {
    let mut text = format!("{} cases.", rows.len());
    for (at, peer) in peers.iter().enumerate() {
        let count = |holds: &dyn Fn(&Row, &Outcome) -> bool| {
            rows.iter().filter(|row| row.differs(&row.peers[at]) && holds(row, &row.peers[at])).count()
        };
        let stricter = count(&|row, peer| row.ours.refused.is_some() && peer.refused.is_none());
        let laxer = count(&|row, peer| row.ours.refused.is_none() && peer.refused.is_some());
        let otherwise = count(&|_, _| true) - stricter - laxer;
        let _ = write!(
            text,
            " Beside {}: stricter in {stricter}, laxer in {laxer}, different in another way in {otherwise}.",
            peer.name
        );
    }
    text
}

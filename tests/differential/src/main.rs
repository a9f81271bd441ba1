//! Sends the corpus of tests/data/h1 to this server, to hyper and to nginx: `cargo run` in this directory.
//!
//! Every server echoes what it has read, so that one sees not only whether a request was taken but which. Behind each case
//! goes another request, a probe: whether it is answered shows what became of the connection. The differences are written
//! to DIFFERENCES.md beside the corpus, with the reasons of reasons.txt; one without a reason, or a reason without a
//! difference, fails the run. So does an answer of this server that the corpus does not expect.

#[path = "../../../src/http/h1/corpus.rs"]
mod corpus;
mod exchange;
mod report;
mod servers;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use exchange::outcome;
use report::{Reasons, Row};
use servers::Servers;

fn main() -> ExitCode {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/h1");
    let directory = data.to_str().expect("the path of the sources is UTF-8");
    let servers = Servers::start();
    let cases = |file: &str| corpus::read(directory, file).into_iter();

    let rows: Vec<Row> = cases("valid.txt")
        .chain(cases("refused.txt"))
        .map(|case| Row {
            ours: outcome(servers.ours(), &case.input),
            peers: servers.peers().iter().map(|peer| outcome(peer.addr, &case.input)).collect(),
            case,
        })
        .collect();
    // The peers have bounds of their own, so these are for us alone.
    let bounds =
        cases("limits.txt").map(|case| Row { ours: outcome(servers.ours(), &case.input), peers: Vec::new(), case });
    let mut faults: Vec<String> = bounds.filter_map(|row| row.unexpected()).collect();
    faults.extend(rows.iter().filter_map(Row::unexpected));

    let reasons = Reasons::read(&data.join("reasons.txt"));
    let (table, unexplained) = report::table(&rows, servers.peers(), &reasons);
    faults.extend(unexplained);
    match servers.missing() {
        Some(missing) => println!("{missing}, so the table is not written, and reasons without a difference are not looked for"),
        None => {
            faults.extend(reasons.unused(&rows));
            fs::write(data.join("DIFFERENCES.md"), table).expect("the directory of the corpus can be written");
        }
    }
    println!("{}", report::summary(&rows, servers.peers()));
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! A [`Report`] for people.

use std::fmt::Write;

use super::{
    measure::Case,
    report::{Report, Speed},
};
use crate::cli::words::{count, megabytes};

/// The whole page; with `old`, each line says how many times as fast it is.
pub fn render(report: &Report, old: Option<&Report>) -> String {
    let mut page = String::new();
    // Writing to a String can't fail.
    let _ = header(&mut page, report).and_then(|()| speeds(&mut page, report, old));
    page
}

fn header(page: &mut String, Report { version, machine, model, .. }: &Report) -> std::fmt::Result {
    writeln!(page, "Sconce {version} on {}, {} threads, {} kernels", machine.cpu, machine.threads, machine.kernels)?;
    writeln!(
        page,
        "{}: {}, {} parameters, mostly {}, {} in memory; loaded in {:.2} s\n",
        model.name,
        model.architecture,
        count(model.parameters),
        model.weights_type,
        megabytes(model.packed_bytes),
        model.load_seconds
    )?;
    let (one, all) = (machine.one_thread, machine.all_threads);
    let together = format!("{} threads", machine.threads);
    writeln!(page, "{:<40}{:>10}{together:>12}", "The machine at most", "1 thread")?;
    let rows = [
        ("memory read, GB/s".to_owned(), one.read_gb_per_second, all.read_gb_per_second),
        (format!("int8, GMAC/s ({})", machine.int8), one.int8_gmac_per_second, all.int8_gmac_per_second),
        ("f32, GMAC/s".to_owned(), one.f32_gmac_per_second, all.f32_gmac_per_second),
    ];
    for (what, one, all) in rows {
        writeln!(page, "  {what:<38}{one:>10.1}{all:>12.1}")?;
    }
    Ok(())
}

fn speeds(page: &mut String, report: &Report, old: Option<&Report>) -> std::fmt::Result {
    let columns = |page: &mut String, title: &str| {
        let versus = if old.is_some() { "   × old" } else { "" };
        let (read, macs) = ("GB/s, of most", "GMAC/s, of most");
        writeln!(page, "\n{title:<24}{:>10}  {:<17}{read:>14}{macs:>18}{versus}", "tokens/s", "slowest–fastest")
    };
    let line = |page: &mut String, what: String, case: Case, speed: &Speed| {
        let spread = format!("{}–{}", rate(speed.tokens_per_second_min), rate(speed.tokens_per_second_max));
        write!(
            page,
            "  {what:<22}{:>10}  {spread:<17}{:>8.1}  {:>3.0} %{:>11.1}  {:>3.0} %",
            rate(speed.tokens_per_second),
            speed.gb_per_second,
            100.0 * speed.of_memory,
            speed.gmac_per_second,
            100.0 * speed.of_int8
        )?;
        match old.map(|old| old.speed(case)) {
            None => writeln!(page),
            Some(None) => writeln!(page, "       –"),
            Some(Some(before)) => writeln!(page, "{:>8.2}", speed.tokens_per_second / before.tokens_per_second),
        }
    };
    if !report.prefill.is_empty() {
        columns(page, "Prefill")?;
    }
    for one in &report.prefill {
        line(page, format!("{:>5} tokens", one.tokens), Case::Prefill { tokens: one.tokens }, &one.speed)?;
    }
    let mut depth = None;
    for one in &report.decode {
        if depth.replace(one.depth) != Some(one.depth) {
            columns(page, &format!("Decode behind {} tokens", one.depth))?;
        }
        let sequences = if one.width == 1 { "sequence" } else { "sequences" };
        let case = Case::Decode { width: one.width, depth: one.depth };
        line(page, format!("{:>5} {sequences}", one.width), case, &one.speed)?;
    }
    Ok(())
}

/// Three digits say all there is to say.
fn rate(value: f64) -> String {
    format!("{value:.*}", if value < 100.0 { 1 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::{
        machine::{Machine, Rates},
        measure::Sample,
        report::ModelFigures,
    };

    fn report(seconds: f64) -> Report {
        let rates = Rates { read_gb_per_second: 10.0, int8_gmac_per_second: 100.0, f32_gmac_per_second: 20.0 };
        let mut report = Report {
            version: "1".to_owned(),
            machine: Machine {
                cpu: "Toy".to_owned(),
                threads: 2,
                kernels: "portable".to_owned(),
                int8: "plain code".to_owned(),
                one_thread: rates,
                all_threads: rates,
            },
            model: ModelFigures {
                name: "m".to_owned(),
                architecture: "llama".to_owned(),
                weights_type: "q8_0".to_owned(),
                parameters: 3_400_000,
                file_bytes: 1,
                packed_bytes: 5_000_000,
                load_seconds: 0.25,
                resident_bytes: 0,
            },
            prefill: Vec::new(),
            decode: Vec::new(),
        };
        let sample = Sample { seconds, tokens: 512, bytes: 1_000_000_000, macs: 50_000_000_000 };
        report.add(Case::Prefill { tokens: 512 }, &[sample; 3]);
        report.add(Case::Decode { width: 8, depth: 0 }, &[sample, Sample { seconds: 2.0 * seconds, ..sample }]);
        report
    }

    #[test]
    fn a_page() {
        let page = render(&report(1.0), None);
        for line in [
            "m: llama, 3.4 M parameters, mostly q8_0, 5.0 MB in memory; loaded in 0.25 s",
            "    512 tokens                 512  512–512               1.0   10 %       50.0   50 %",
            "      8 sequences              384  256–512               0.8    8 %       37.5   38 %",
        ] {
            assert!(page.lines().any(|l| l == line), "no {line:?} in\n{page}");
        }
    }

    #[test]
    fn beside_an_old_one() {
        let mut old = report(2.0);
        old.decode.clear();
        let old: Report = serde_json::from_str(&serde_json::to_string(&old).unwrap()).unwrap();
        let page = render(&report(1.0), Some(&old));
        assert!(page.lines().any(|l| l.contains("512 tokens") && l.ends_with("    2.00")), "{page}");
        assert!(page.lines().any(|l| l.contains("8 sequences") && l.ends_with(" –")), "{page}");
    }
}

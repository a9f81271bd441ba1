//! Prometheus text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats): one HELP and one TYPE line a
//! family, no exemplars, no OpenMetrics types, so that strict parsers take it.

use std::fmt::{Display, Write};

use super::cells::Histogram;

/// The media type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An exposition being written.
#[derive(Default)]
pub struct Text {
    out: String,
}

/// Label names and values of a sample.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    /// Opens a family: its samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub fn sample(&mut self, name: &str, labels: Labels, value: impl Display) {
        self.out.push_str(name);
        if !labels.is_empty() {
            for (i, (label, value)) in labels.iter().enumerate() {
                let _ = write!(self.out, "{}{label}=\"", if i == 0 { '{' } else { ',' });
                for c in value.chars() {
                    match c {
                        '\\' => self.out.push_str("\\\\"),
                        '"' => self.out.push_str("\\\""),
                        '\n' => self.out.push_str("\\n"),
                        c => self.out.push(c),
                    }
                }
                self.out.push('"');
            }
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (bound, below) in histogram.cumulative() {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            self.sample(&bucket, &[("le", &bound)], below);
            count = below;
        }
        self.sample(&format!("{name}_sum"), &[], histogram.sum_seconds());
        self.sample(&format!("{name}_count"), &[], count);
    }

    pub fn into_string(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_the_format_says() {
        let mut text = Text::default();
        text.counter("a_total", "Things.", 3);
        text.family("b", "gauge", "Labelled.");
        text.sample("b", &[("x", "q\"\\\n"), ("y", "1")], 0.5);
        assert_eq!(
            text.into_string(),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n# HELP b Labelled.\n# TYPE b gauge\n\
             b{x=\"q\\\"\\\\\\n\",y=\"1\"} 0.5\n"
        );
    }
}

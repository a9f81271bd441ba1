//! Where each key of a configuration file stands, for errors that are found after parsing.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

/// Lines of the keys of a file: in `[table]`, or in the so-manieth `[[table]]`.
#[derive(Debug, Default)]
pub struct Lines(HashMap<(String, usize, String), usize>);

impl Lines {
    /// Of a text that is TOML; of another there are none.
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        let Ok(root) = DeTable::parse(text) else { return lines };
        for (name, value) in root.get_ref() {
            match value.get_ref() {
                DeValue::Table(table) => lines.add(text, name.get_ref(), 0, table),
                DeValue::Array(entries) => {
                    for (index, entry) in entries.iter().enumerate() {
                        if let DeValue::Table(table) = entry.get_ref() {
                            lines.add(text, name.get_ref(), index, table);
                        }
                    }
                }
                _ => {}
            }
        }
        lines
    }

    fn add(&mut self, text: &str, name: &str, index: usize, table: &DeTable) {
        for key in table.keys() {
            let before = text.get(..key.span().start).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            self.0.insert((name.to_owned(), index, key.get_ref().to_string()), line);
        }
    }

    /// The line of `key`, counted from 1.
    pub fn get(&self, table: &str, index: usize, key: &str) -> Option<usize> {
        self.0.get(&(table.to_owned(), index, key.to_owned())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found() {
        let text = "# a\n[server]\nport = 1\n[[model]]\nname = \"a\"\n\n[[model]]\npath = \"b\"\nname = \"b\"\n";
        let lines = Lines::of(text);
        for (table, index, key, line) in [
            ("server", 0, "port", Some(3)),
            ("model", 0, "name", Some(5)),
            ("model", 1, "path", Some(8)),
            ("model", 1, "name", Some(9)),
            ("model", 0, "path", None),
            ("model", 2, "name", None),
        ] {
            assert_eq!(lines.get(table, index, key), line, "{table} {index} {key}");
        }
        assert_eq!(Lines::of("[server").get("server", 0, "port"), None);
    }
}

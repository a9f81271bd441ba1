//! The tokens that are put around one text, and between two.

use serde_json::Value;

use super::{TokenizerError, kind, steps, unsupported};

/// By their names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Around<'a> {
    pub before: Option<&'a str>,
    pub between: Vec<&'a str>,
    pub after: Option<&'a str>,
}

impl<'a> Around<'a> {
    pub fn read(post_processor: Option<&'a Value>) -> Result<Self, TokenizerError> {
        let mut around = Self::default();
        for step in steps(post_processor, "processors")? {
            let named = |key: &str| step.get(key).and_then(|pair| pair.get(0)).and_then(Value::as_str);
            match kind(step) {
                // It only moves offsets.
                "ByteLevel" => {}
                "TemplateProcessing" => around.template(step)?,
                "BertProcessing" => {
                    around =
                        Self { before: named("cls"), between: named("sep").into_iter().collect(), after: named("sep") };
                }
                "RobertaProcessing" => {
                    let between = [named("sep"); 2].into_iter().flatten().collect();
                    around = Self { before: named("cls"), between, after: named("sep") };
                }
                other => return Err(unsupported(format!("post_processor {other}"))),
            }
        }
        Ok(around)
    }

    fn template(&mut self, step: &'a Value) -> Result<(), TokenizerError> {
        let refused = |list: &str| Err(unsupported(format!("the template {}", step[list])));
        match &parts(step, "single")[..] {
            [before, after]
                if before.len() <= 1 && after.len() <= 1 && self.before.is_none() && self.after.is_none() =>
            {
                (self.before, self.after) = (before.first().copied(), after.first().copied());
            }
            [before] if before.is_empty() => {}
            _ => return refused("single"),
        }
        match &mut parts(step, "pair")[..] {
            [_, between, _] => self.between = std::mem::take(between),
            _ if step.get("pair").is_none_or(Value::is_null) => {}
            _ => return refused("pair"),
        }
        Ok(())
    }
}

/// The special tokens before the first text, after it, after the second.
fn parts<'a>(step: &'a Value, list: &str) -> Vec<Vec<&'a str>> {
    let mut parts = vec![Vec::new()];
    for part in step.get(list).and_then(Value::as_array).into_iter().flatten() {
        let token = part.get("SpecialToken").and_then(|token| token.get("id")).and_then(Value::as_str);
        match (token, parts.last_mut()) {
            (Some(token), Some(last)) => last.push(token),
            _ => parts.push(Vec::new()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(step: Value, before: Option<&str>, between: &[&str], after: Option<&str>) {
        let expected = Around { before, between: between.to_vec(), after };
        assert_eq!(Around::read(Some(&step)).unwrap(), expected, "{step}");
    }

    fn template(single: &[&str], pair: &[&str]) -> Value {
        let part = |name: &&str| match *name {
            "A" | "B" => json!({ "Sequence": { "id": name } }),
            token => json!({ "SpecialToken": { "id": token } }),
        };
        let parts = |names: &[&str]| names.iter().map(part).collect::<Vec<_>>();
        json!({ "type": "TemplateProcessing", "single": parts(single), "pair": parts(pair) })
    }

    #[test]
    fn templates_say_what_stands_around_texts() {
        let bert = template(&["CLS", "A", "SEP"], &["CLS", "A", "SEP", "B", "SEP"]);
        check(bert.clone(), Some("CLS"), &["SEP"], Some("SEP"));
        check(
            json!({ "type": "Sequence", "processors": [{ "type": "ByteLevel" }, bert] }),
            Some("CLS"),
            &["SEP"],
            Some("SEP"),
        );
        check(template(&["bos", "A"], &["bos", "A", "bos", "B"]), Some("bos"), &["bos"], None);
        check(template(&["A"], &["A", "B"]), None, &[], None);
        let named = |kind: &str| json!({ "type": kind, "cls": ["<s>", 0], "sep": ["</s>", 2] });
        check(named("RobertaProcessing"), Some("<s>"), &["</s>", "</s>"], Some("</s>"));
        check(named("BertProcessing"), Some("<s>"), &["</s>"], Some("</s>"));
        for odd in [template(&["x", "y", "A"], &[]), template(&["A", "B"], &[]), json!({ "type": "Other" })] {
            assert!(Around::read(Some(&odd)).is_err(), "{odd}");
        }
    }
}

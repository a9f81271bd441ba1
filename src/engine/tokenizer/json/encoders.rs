//! WordPiece and unigram models, the tokenizers of encoders.

use serde_json::Value;
use tokenizers::normalizers::BertNormalizer;

use super::{
    super::{sentencepiece::SPACE, unigram::Unigram, wordpiece::WordPiece},
    Encoder, File, Kind, Spelled, Spelling, TokenizerError, Vocabulary, flag, kind, unsupported,
};

/// What WordPiece writes before tokens that go on with a word.
pub(super) const CONTINUED: &str = "##";
/// What the crate assumes where the file says nothing.
const WORD_CHARS_MAX: usize = 100;

impl File {
    pub(super) fn word_piece(&self, tokens: &[(String, Kind)]) -> Result<Spelled, TokenizerError> {
        let normalizer = match self.normalizer.as_ref().filter(|step| !step.is_null()) {
            Some(step) if kind(step) == "BertNormalizer" => BertNormalizer::new(
                flag(step, "clean_text", true),
                flag(step, "handle_chinese_chars", true),
                step.get("strip_accents").and_then(Value::as_bool),
                flag(step, "lowercase", true),
            ),
            other => return Err(unsupported(format!("WordPiece with the normalizer {other:?}"))),
        };
        match self.pre_tokenizer.as_ref().map(kind) {
            Some("BertPreTokenizer") => {}
            other => return Err(unsupported(format!("WordPiece with the pre_tokenizer {other:?}"))),
        }
        let spelled = tokens.iter().map(|(text, kind)| match (kind, text.strip_prefix(CONTINUED)) {
            (Kind::Normal, Some(rest)) => (rest.to_owned(), *kind),
            (Kind::Normal, None) if !text.is_empty() => (format!("{SPACE}{text}"), *kind),
            _ => (text.clone(), *kind),
        });
        let vocabulary = Vocabulary::new(Spelling::Text, spelled, self.unknown(tokens))?;
        let word_chars_max = self.model.max_input_chars_per_word.unwrap_or(WORD_CHARS_MAX);
        let kind = Encoder::WordPiece(WordPiece::new(normalizer, word_chars_max)?);
        Ok(Spelled { vocabulary, kind, leading_space: true })
    }

    /// `json` is the file, which the crate reads for itself.
    pub(super) fn unigram(&self, tokens: &[(String, Kind)], json: &[u8]) -> Result<Spelled, TokenizerError> {
        let unknown = self.unknown(tokens);
        if unknown.is_none() && !self.model.byte_fallback {
            return Err(unsupported("a unigram model without an unknown token"));
        }
        let file: Value = serde_json::from_slice(json).map_err(|e| TokenizerError::Json(e.to_string()))?;
        let special = |id: u32| {
            let kind = tokens.get(id as usize).map(|token| token.1);
            matches!(kind, Some(Kind::Control | Kind::Unknown))
        };
        let model = Unigram::new(self.normalizer.as_ref(), self.pre_tokenizer.as_ref(), &file["model"], special)?;
        let vocabulary = Vocabulary::new(Spelling::Text, tokens.iter().map(|(text, kind)| (text, *kind)), unknown)?;
        Ok(Spelled { vocabulary, kind: Encoder::Unigram(model), leading_space: true })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::engine::tokenizer::{Frame, Markup, NamedTokens, Special, Tokenizer};

    const TEXTS: [&str; 14] = [
        "",
        " ",
        "hello world",
        "Hello,   WORLD!",
        "worlds unworldly hellohello",
        "Grüße naïve",
        "日本語 text",
        "a.b-c $5 ~x`",
        "tab\tand\nline\u{0}\u{7}\u{200b}",
        "hello\u{a0}world\u{3000}!",
        "zzz unknown q",
        "wwwwwwwwwww wwwwwwwwwwww",
        "🙂 hello",
        "¿hello?",
    ];

    /// Our tokens are those of the crate, but that no text becomes a special token.
    #[track_caller]
    fn check(file: &serde_json::Value, frame: Frame) {
        let json = file.to_string();
        let ours = Tokenizer::from_json(json.as_bytes(), &NamedTokens::default()).unwrap();
        let theirs = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        for text in TEXTS {
            let expected = theirs.encode(text, true).unwrap();
            assert_eq!(ours.encode(text, Special::Add, Markup::Literal), expected.get_ids(), "{text:?}");
        }
        assert_eq!(ours.frame(), frame);
        for special in ["[SEP]", "</s>"] {
            let ids = ours.encode(special, Special::None, Markup::Literal);
            assert!(ids.iter().all(|id| Some(*id) != ours.token_to_id(special)), "{special} became {ids:?}");
        }
    }

    #[test]
    fn word_pieces_are_those_of_the_crate() {
        let tokens = [
            "[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world", "##s", "##hello", "un", "##world", "##ly", ",", ".",
            "!", "-", "$", "5", "~", "`", "a", "b", "c", "x", "gru", "##ße", "##ss", "##e", "grusse", "naive", "日",
            "本", "語", "text", "tab", "and", "line", "w", "##w", "¿", "?", "Hello", "WORLD",
        ];
        let vocab: serde_json::Map<_, _> = (0..).zip(tokens).map(|(id, token)| (token.into(), json!(id))).collect();
        let special = |id: u32| json!({ "id": id, "content": tokens[id as usize], "special": true });
        let part = |id: &str| json!({ "SpecialToken": { "id": id, "type_id": 0 } });
        let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
        let known = |id: &str, number: u32| json!({ "id": id, "ids": [number], "tokens": [id] });
        for (lowercase, strip) in
            [(true, json!(null)), (false, json!(null)), (true, json!(false)), (false, json!(true))]
        {
            let file = json!({
                "version": "1.0",
                "added_tokens": (0..4).map(special).collect::<Vec<_>>(),
                "normalizer": {
                    "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                    "strip_accents": strip, "lowercase": lowercase,
                },
                "pre_tokenizer": { "type": "BertPreTokenizer" },
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [part("[CLS]"), text("A"), part("[SEP]")],
                    "pair": [part("[CLS]"), text("A"), part("[SEP]"), text("B"), part("[SEP]")],
                    "special_tokens": { "[CLS]": known("[CLS]", 2), "[SEP]": known("[SEP]", 3) },
                },
                "model": {
                    "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 11, "vocab": vocab,
                },
            });
            check(&file, Frame { before: Some(2), between: &[3], after: Some(3) });
        }
    }

    #[test]
    fn unigrams_are_those_of_the_crate() {
        let tokens = [
            ("<s>", 0.0),
            ("<pad>", 0.0),
            ("</s>", 0.0),
            ("<unk>", 0.0),
            ("▁", -2.0),
            ("▁hello", -4.0),
            ("▁world", -4.5),
            ("s", -5.0),
            ("h", -7.0),
            ("e", -6.0),
            ("l", -6.5),
            ("o", -6.2),
            ("he", -6.0),
            ("llo", -6.1),
            ("w", -5.5),
            ("ww", -6.0),
            ("un", -5.0),
            ("world", -6.0),
            ("ly", -5.2),
            ("!", -4.0),
            (",", -4.0),
            ("text", -6.0),
            ("▁a", -4.1),
        ];
        let special = |id: usize| json!({ "id": id, "content": tokens[id].0, "special": true });
        let file = json!({
            "version": "1.0",
            "added_tokens": (0..4).map(special).collect::<Vec<_>>(),
            "normalizer": { "type": "NFKC" },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "WhitespaceSplit" },
                { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true },
            ] },
            "post_processor": {
                "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true,
                "add_prefix_space": true,
            },
            "model": { "type": "Unigram", "unk_id": 3, "byte_fallback": false, "vocab": tokens },
        });
        check(&file, Frame { before: Some(0), between: &[2, 2], after: Some(2) });
    }
}

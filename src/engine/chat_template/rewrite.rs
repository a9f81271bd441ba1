//! Rewrites a template's source so that operators are calls of functions: `a + b` becomes `__add(a, b)` (`operators` says
//! why). Marks for training (`{% generation %}`), which print nothing, become comments.
//!
//! Reads just as much of the syntax as that takes: blocks, strings, brackets, the order of operators. What it does not
//! understand it leaves as it is, for the compiler to judge. Lines stay where they are.

/// Brackets within brackets.
const DEPTH_MAX: usize = 100;

/// `source` with calls for operators.
pub fn rewrite(source: &str) -> String {
    let mut written = String::with_capacity(source.len() * 5 / 4);
    let mut rest = source;
    let mut is_raw = false;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).chain(rest.find("{#")).min() {
        written.push_str(&rest[..at]);
        rest = &rest[at..];
        let (open, _) = rest.split_at(2);
        if open == "{#" {
            let end = rest.find("#}").map_or(rest.len(), |end| end + 2);
            written.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        // With what trims the white space before.
        let begin = if rest[2..].starts_with(['-', '+']) { 3 } else { 2 };
        let body = &rest[begin..];
        let Some(tokens) = tokens(body, if open == "{{" { "}}" } else { "%}" }) else { break };
        let length = tokens.last().map_or(0, |token| token.end);
        let block = &rest[..begin + length + 2];
        let words: Vec<&str> = tokens.iter().take(2).map(|token| &body[token.start..token.end]).collect();
        match (open, words.as_slice()) {
            ("{%", ["endraw", ..]) => is_raw = false,
            _ if is_raw => {
                written.push_str(&block[..begin]);
                rest = body;
                continue;
            }
            ("{%", ["raw", ..]) => is_raw = true,
            _ => {}
        }
        if open == "{%" && matches!(words.first(), Some(&("generation" | "endgeneration"))) {
            // A comment, so that white space around it is trimmed as it is around a tag.
            written.push_str(&block.replacen("{%", "{#", 1).replacen("%}", "#}", 1));
        } else {
            written.push_str(&block[..begin]);
            let mut rewriter = Rewriter { text: &body[..length], tokens: &tokens, next: 0, depth: 0 };
            if open == "{%" {
                written.push_str(&rewriter.take()); // the statement's own word
            }
            written.push_str(&rewriter.sequence());
            written.push_str(&block[begin + length..]);
        }
        rest = &rest[block.len()..];
    }
    written + rest
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    /// A string or a number.
    Literal,
    Operator,
    /// The white space and the dash before the end of a block.
    End,
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

/// The tokens up to `close`; the last is what stands before it. `None`: the block does not end.
fn tokens(text: &str, close: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let blank = text[at..].len() - text[at..].trim_start().len();
        let start = at + blank;
        let rest = &text[start..];
        let first = rest.chars().next()?;
        let dash = usize::from(first == '-' || first == '+');
        if depth == 0 && rest[dash..].starts_with(close) {
            tokens.push(Token { kind: Kind::End, start: at, end: start + dash });
            return Some(tokens);
        }
        let (kind, length) = match first {
            '"' | '\'' => (Kind::Literal, string_length(rest, first)?),
            c if c.is_alphabetic() || c == '_' => (Kind::Word, run(rest, |c| c.is_alphanumeric() || c == '_')),
            c if c.is_ascii_digit() => (Kind::Literal, number_length(rest)),
            c => {
                match c {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                let double = ["**", "//", "==", "!=", "<=", ">="].iter().any(|two| rest.starts_with(two));
                (Kind::Operator, if double { 2 } else { c.len_utf8() })
            }
        };
        tokens.push(Token { kind, start, end: start + length });
        at = start + length;
    }
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn string_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn number_length(text: &str) -> usize {
    let digits = run(text, |c| c.is_alphanumeric() || c == '_');
    let rest = &text[digits..];
    let fraction = match rest.strip_prefix('.').map(|rest| run(rest, |c| c.is_alphanumeric() || c == '_')) {
        Some(length) if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => 1 + length,
        _ => 0,
    };
    let length = digits + fraction;
    match text[length..].strip_prefix(['-', '+']) {
        Some(exponent) if text[..length].ends_with(['e', 'E']) => length + 1 + run(exponent, |c| c.is_ascii_digit()),
        _ => length,
    }
}

/// Words that end an operand, but for `not` and `in` behind `is`.
const SEPARATORS: [&str; 7] = ["and", "or", "not", "in", "if", "else", "recursive"];

struct Rewriter<'a> {
    text: &'a str,
    tokens: &'a [Token],
    next: usize,
    depth: usize,
}

impl<'a> Rewriter<'a> {
    fn peek(&self) -> Option<(Kind, &'a str)> {
        self.tokens.get(self.next).map(|token| (token.kind, &self.text[token.start..token.end]))
    }

    /// The text before the next token, since the one before.
    fn gap(&self) -> &'a str {
        let end = self.next.checked_sub(1).map_or(0, |last| self.tokens[last].end);
        self.tokens.get(self.next).map_or("", |token| &self.text[end..token.start])
    }

    /// The next token with the text before it.
    fn take(&mut self) -> String {
        let taken = [self.gap(), self.peek().map_or("", |(_, text)| text)].concat();
        self.next += 1;
        taken
    }

    /// Expressions and what separates them, up to a closing bracket or the end.
    fn sequence(&mut self) -> String {
        let mut written = String::new();
        while let Some((kind, text)) = self.peek() {
            match (kind, text) {
                (Kind::Operator, ")" | "]" | "}") if self.depth > 0 => break,
                _ if self.at_operand() => written.push_str(&self.sums()),
                _ => written.push_str(&self.take()),
            }
        }
        written
    }

    /// Whether an operand begins here.
    fn at_operand(&self) -> bool {
        match self.peek() {
            Some((Kind::Word, word)) => !SEPARATORS.contains(&word),
            Some((Kind::Literal, _)) => true,
            Some((Kind::Operator, text)) => matches!(text, "(" | "[" | "{" | "-" | "+"),
            Some((Kind::End, _)) | None => false,
        }
    }

    /// In the order of Jinja: `+` and `-` bind loosest, then `~`, then `*`, `/`, `//` and `%`.
    fn sums(&mut self) -> String {
        self.chain(Self::concatenations, &["+", "-"])
    }

    fn concatenations(&mut self) -> String {
        self.chain(Self::products, &["~"])
    }

    fn products(&mut self) -> String {
        self.chain(Self::powers, &["*", "/", "//", "%"])
    }

    fn powers(&mut self) -> String {
        self.chain(Self::operand, &["**"])
    }

    fn chain(&mut self, operand: impl Fn(&mut Self) -> String, operators: &[&str]) -> String {
        let mut left = operand(self);
        while let Some((Kind::Operator, operator)) = self.peek().filter(|(_, text)| operators.contains(text)) {
            let function = match operator {
                "+" => "__add",
                "~" => "__concat",
                "*" => "__mul",
                "%" => "__mod",
                _ => "",
            };
            let before = self.gap();
            self.next += 1;
            let right = operand(self);
            left = match function {
                "" => format!("{left}{before}{operator}{right}"),
                _ => {
                    // What is left of the operand stays before the call, so that words do not run together.
                    let space = left.len() - left.trim_start().len();
                    format!("{}{function}({}{before},{right})", &left[..space], &left[space..])
                }
            };
        }
        left
    }

    /// Signs, a value, and all that is attached to it: brackets, attributes, filters, tests.
    fn operand(&mut self) -> String {
        let mut written = String::new();
        while let Some((Kind::Operator, "-" | "+")) = self.peek() {
            written.push_str(&self.take());
        }
        loop {
            match self.peek() {
                Some((Kind::Operator, "(" | "[" | "{")) if self.depth < DEPTH_MAX => {
                    written.push_str(&self.take());
                    self.depth += 1;
                    written.push_str(&self.sequence());
                    self.depth -= 1;
                    written.push_str(&self.take());
                }
                Some((Kind::Operator, "." | "|")) => {
                    written.push_str(&self.take());
                    // Behind a dot, any word is a name.
                    if let Some((Kind::Word | Kind::Literal, _)) = self.peek() {
                        written.push_str(&self.take());
                    }
                }
                Some((Kind::Word, "is")) => {
                    written.push_str(&self.take());
                    while let Some((Kind::Word, "not" | "in")) = self.peek() {
                        written.push_str(&self.take());
                    }
                }
                Some((Kind::Word, word)) if !SEPARATORS.contains(&word) => written.push_str(&self.take()),
                Some((Kind::Literal, _)) => written.push_str(&self.take()),
                _ => return written,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_become_calls() {
        for (source, expected) in [
            ("a + b {{ a }} {% if a %}", "a + b {{ a }} {% if a %}"),
            ("{{ a + b }}", "{{ __add(a , b) }}"),
            ("{{- a+b*c ~ 'x+y' -}}", "{{- __add(a,__concat(__mul(b,c) , 'x+y')) -}}"),
            ("{{ a - b + c }}", "{{ __add(a - b , c) }}"),
            ("{{ -a ** 2 % 3 }}", "{{ __mod(-a ** 2 , 3) }}"),
            (
                "{{ a | f(x + 1) + b.c[d ~ 'e'] is string }}",
                "{{ __add(a | f(__add(x , 1)) , b.c[__concat(d , 'e')] is string) }}",
            ),
            ("{% set x = a + b if c ~ d else e %}", "{% set x = __add(a , b) if __concat(c , d) else e %}"),
            ("{% for x in a + b if not x.y is not none %}", "{% for x in __add(a , b) if not x.y is not none %}"),
            ("{{ {'a': {'b': c + 1}} }}", "{{ {'a': {'b': __add(c , 1)}} }}"),
            ("{{ '{% }}' ~ \"\\\"}}\" }}", "{{ __concat('{% }}' , \"\\\"}}\") }}"),
            (
                "{# a + b #}{% raw %}{{ a + b }}{% endraw %}{{ a+1.5e-3 }}",
                "{# a + b #}{% raw %}{{ a + b }}{% endraw %}{{ __add(a,1.5e-3) }}",
            ),
            ("{% generation %}x{%- endgeneration -%}", "{# generation #}x{#- endgeneration -#}"),
            ("{{ a[1:-1] + x[::-1] }}", "{{ __add(a[1:-1] , x[::-1]) }}"),
            ("{{ (a + b).c + 1 }}", "{{ __add((__add(a , b)).c , 1) }}"),
            ("{{ a + ", "{{ a + "),
            ("{{ a + 'b }}", "{{ a + 'b }}"),
            ("{%- if a %}x{% elif b + c %}{%+ endif %}", "{%- if a %}x{% elif __add(b , c) %}{%+ endif %}"),
            ("{{ call.name ~ set.with }}", "{{ __concat(call.name , set.with) }}"),
            ("{% macro m(a, b=c + 1) %}", "{% macro m(a, b=__add(c , 1)) %}"),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }
}

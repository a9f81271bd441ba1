//! Paths with parameters, as a tree of their segments.
//!
//! Knows no method and no handler: it finds values by path. Of several patterns that match, the one that is fixed for
//! longest wins, whatever the order in which they were added: `/a/b` before `/a/{x}` before `/{*rest}`. A look-up visits
//! each node at most once, so its cost is bounded by the patterns, not by the path. It stores nothing: a parameter is read
//! out of path and pattern when somebody asks for it.

#[derive(Debug)]
pub(crate) struct RouteTree<T> {
    root: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    fixed: Vec<(Box<str>, Node<T>)>,
    param: Option<(Box<str>, Box<Node<T>>)>,
    rest: Option<(Box<str>, T)>,
    value: Option<T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment<'a> {
    Fixed(&'a str),
    /// `{name}`: any one segment that is not empty.
    Param(&'a str),
    /// `{*name}`: the rest of the path, slashes included.
    Rest(&'a str),
}

impl<T> Default for Node<T> {
    fn default() -> Node<T> {
        Node { fixed: Vec::new(), param: None, rest: None, value: None }
    }
}

impl<T> Default for RouteTree<T> {
    fn default() -> RouteTree<T> {
        RouteTree { root: Node::default() }
    }
}

impl<T: Default> RouteTree<T> {
    /// The value of a pattern, made if it is new.
    ///
    /// # Errors
    /// A pattern that cannot work, said in a sentence.
    pub fn entry(&mut self, pattern: &str) -> Result<&mut T, String> {
        let mut node = &mut self.root;
        for segment in parse(pattern)? {
            node = match segment {
                Segment::Fixed(text) => {
                    let at = node.fixed.iter().position(|(fixed, _)| **fixed == *text).unwrap_or_else(|| {
                        node.fixed.push((text.into(), Node::default()));
                        node.fixed.len() - 1
                    });
                    &mut node.fixed[at].1
                }
                Segment::Param(name) => {
                    let (known, next) = node.param.get_or_insert_with(|| (name.into(), Box::default()));
                    check_name(pattern, known, name)?;
                    next
                }
                Segment::Rest(name) => {
                    let (known, value) = node.rest.get_or_insert_with(|| (name.into(), T::default()));
                    check_name(pattern, known, name)?;
                    return Ok(value);
                }
            };
        }
        Ok(node.value.get_or_insert_default())
    }
}

impl<T> RouteTree<T> {
    /// The value for a path: the best match that is `wanted`, else the best match.
    pub fn find(&self, path: &str, wanted: impl Fn(&T) -> bool) -> Option<&T> {
        let mut search = Search { wanted, second_best: None };
        let found = search.visit(&self.root, Some(path.strip_prefix('/')?));
        found.or(search.second_best)
    }

    /// All values with their patterns.
    pub fn into_entries(self) -> Vec<(String, T)> {
        let mut entries = Vec::new();
        self.root.collect("", &mut entries);
        entries
    }
}

impl<T> Node<T> {
    fn collect(self, prefix: &str, entries: &mut Vec<(String, T)>) {
        entries.extend(self.value.map(|value| (prefix.to_string(), value)));
        entries.extend(self.rest.map(|(name, value)| (format!("{prefix}/{{*{name}}}"), value)));
        if let Some((name, node)) = self.param {
            node.collect(&format!("{prefix}/{{{name}}}"), entries);
        }
        for (text, node) in self.fixed {
            node.collect(&format!("{prefix}/{text}"), entries);
        }
    }
}

/// What the path has at the place that the pattern calls `{name}`, still percent-encoded.
pub(crate) fn param<'a>(pattern: &str, path: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = path.strip_prefix('/')?;
    for segment in pattern.strip_prefix('/')?.split('/') {
        let (head, tail) = split_segment(rest);
        match Segment::of(segment) {
            Segment::Param(known) if known == name => return Some(head),
            Segment::Rest(known) => return (known == name).then_some(rest),
            Segment::Param(_) | Segment::Fixed(_) => rest = tail?,
        }
    }
    None
}

/// The first segment of a path, and what is left behind its slash.
fn split_segment(path: &str) -> (&str, Option<&str>) {
    // Segments are short: a plain loop beats a search that has to be set up.
    match path.bytes().position(|b| b == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

struct Search<'t, T, F> {
    wanted: F,
    second_best: Option<&'t T>,
}

impl<'t, T, F: Fn(&T) -> bool> Search<'t, T, F> {
    /// The best match below `node` for what is left of the path; `None` is its end.
    fn visit(&mut self, node: &'t Node<T>, path: Option<&str>) -> Option<&'t T> {
        let Some(path) = path else { return self.check(node.value.as_ref()?) };
        let (segment, tail) = split_segment(path);
        // An empty segment is compared by its length alone: reading no bytes where there is no memory is slow on some CPUs.
        let is_here = |fixed: &str| fixed.len() == segment.len() && (segment.is_empty() || fixed == segment);
        if let Some((_, next)) = node.fixed.iter().find(|(fixed, _)| is_here(fixed))
            && let Some(found) = self.visit(next, tail)
        {
            return Some(found);
        }
        if let Some((_, next)) = &node.param
            && !segment.is_empty()
            && let Some(found) = self.visit(next, tail)
        {
            return Some(found);
        }
        self.check(&node.rest.as_ref()?.1)
    }

    fn check(&mut self, value: &'t T) -> Option<&'t T> {
        if (self.wanted)(value) {
            return Some(value);
        }
        self.second_best.get_or_insert(value);
        None
    }
}

impl<'a> Segment<'a> {
    fn of(segment: &'a str) -> Segment<'a> {
        match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => name.strip_prefix('*').map_or(Segment::Param(name), Segment::Rest),
            None => Segment::Fixed(segment),
        }
    }
}

fn parse(pattern: &str) -> Result<Vec<Segment<'_>>, String> {
    let path = pattern.strip_prefix('/').ok_or_else(|| format!("the pattern {pattern:?} does not begin with /"))?;
    let segments: Vec<Segment<'_>> = path.split('/').map(Segment::of).collect();
    match segments.iter().position(|segment| matches!(segment, Segment::Rest(_))) {
        Some(at) if at + 1 < segments.len() => Err(format!("{{*rest}} is not last in {pattern:?}")),
        _ => Ok(segments),
    }
}

fn check_name(pattern: &str, known: &str, name: &str) -> Result<(), String> {
    if known == name {
        return Ok(());
    }
    Err(format!("the parameter {{{name}}} of {pattern:?} is called {{{known}}} in another pattern"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERNS: [&str; 10] = [
        "/",
        "/a",
        "/a/",
        "/a/{x}",
        "/a/b",
        "/a/{x}/c/{y}",
        "/a/b/d",
        "/files/{*path}",
        "/files/special",
        "/{one}/only",
    ];

    fn tree() -> RouteTree<String> {
        let mut tree = RouteTree::default();
        PATTERNS.iter().for_each(|pattern| *tree.entry(pattern).unwrap() = pattern.to_string());
        tree
    }

    #[track_caller]
    fn check(path: &str, expected: Option<(&str, &[(&str, &str)])>) {
        let tree = tree();
        let found = tree.find(path, |_| true);
        assert_eq!(found.map(String::as_str), expected.map(|(pattern, _)| pattern), "{path}");
        for (name, value) in expected.map_or(&[][..], |(_, params)| params) {
            assert_eq!(param(found.unwrap(), path, name), Some(*value), "{path}");
        }
        assert_eq!(found.and_then(|pattern| param(pattern, path, "other")), None, "{path}");
    }

    #[test]
    fn the_most_fixed_pattern_wins() {
        check("/", Some(("/", &[])));
        check("/a", Some(("/a", &[])));
        check("/a/", Some(("/a/", &[])));
        check("/a/z", Some(("/a/{x}", &[("x", "z")])));
        check("/a/b", Some(("/a/b", &[])));
        check("/a/b/d", Some(("/a/b/d", &[])));
        // Back from the fixed branch to the parameter.
        check("/a/b/c/e", Some(("/a/{x}/c/{y}", &[("x", "b"), ("y", "e")])));
        check("/a//c/e", None);
        check("/files/", Some(("/files/{*path}", &[("path", "")])));
        check("/files/a/b%2f", Some(("/files/{*path}", &[("path", "a/b%2f")])));
        check("/files/special", Some(("/files/special", &[])));
        check("/files/special/x", Some(("/files/{*path}", &[("path", "special/x")])));
        check("/files", None);
        check("/z/only", Some(("/{one}/only", &[("one", "z")])));
        check("/a/only", Some(("/a/{x}", &[("x", "only")])));
        check("", None);
        check("*", None);
        check("a", None);
    }

    #[test]
    fn an_unwanted_match_gives_way_to_a_wanted_one() {
        let tree = tree();
        let find = |wanted: &str| tree.find("/a/b", |value| value == wanted).cloned();
        assert_eq!(find("/a/{x}").as_deref(), Some("/a/{x}"));
        assert_eq!(find("none").as_deref(), Some("/a/b"), "else the best is given");
    }

    #[test]
    fn patterns_that_cannot_work_are_refused() {
        for pattern in ["", "a", "/{*rest}/x", "/a/{other}", "/files/{*other}"] {
            assert!(tree().entry(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let mut entries: Vec<String> = tree()
            .into_entries()
            .into_iter()
            .map(|(pattern, value)| {
                assert_eq!(pattern, if value == "/" { "/" } else { &value });
                pattern
            })
            .collect();
        entries.sort();
        let mut expected = PATTERNS.map(String::from).to_vec();
        expected.sort();
        assert_eq!(entries, expected);
    }

    /// Against trying every pattern in order of its specificity.
    #[test]
    fn random_paths_find_what_a_naive_search_finds() {
        let tree = tree();
        let words = ["a", "b", "c", "d", "", "files", "special", "only", "z"];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let paths = if cfg!(miri) { 100 } else { 20_000 };
        for _ in 0..paths {
            let mut path = String::new();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            for n in 0..1 + random % 5 {
                path.push('/');
                path.push_str(words[(random >> (8 * n)) as usize % words.len()]);
            }
            let matches = |pattern: &&&str| {
                let (mut wanted, mut given) = (pattern[1..].split('/'), path[1..].split('/'));
                loop {
                    match (wanted.next(), given.next()) {
                        (None, None) => return true,
                        (Some(w), Some(_)) if w.starts_with("{*") => return true,
                        (Some(w), Some(g)) if w.starts_with('{') && !g.is_empty() => {}
                        (Some(w), Some(g)) if w == g => {}
                        _ => return false,
                    }
                }
            };
            // Fixed before parameter before rest, segment by segment.
            let rank = |pattern: &&&str| {
                let class = |s: &str| {
                    if s.starts_with("{*") {
                        '2'
                    } else if s.starts_with('{') {
                        '1'
                    } else {
                        '0'
                    }
                };
                pattern[1..].split('/').map(class).collect::<String>()
            };
            let naive = PATTERNS.iter().filter(matches).min_by_key(rank).map(|p| p.to_string());
            assert_eq!(tree.find(&path, |_| true).cloned(), naive, "{path}");
        }
    }
}

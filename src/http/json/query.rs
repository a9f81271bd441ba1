//! Reads `a=1&b=x&b=y` into a type, by serde's data model.
//!
//! Names and values are decoded as forms are. A value is text, and the type that is asked for says how it is read.
//! Values of one name belong together wherever they stand.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::http::extract::refusal;
use crate::http::reply::Reply;
use crate::http::request::percent_decoded;
use crate::http::types::Status;

/// Reads a whole query, without its `?`.
pub(super) fn read<'de, T: Deserialize<'de>>(query: &'de str) -> Result<T, BadQuery> {
    T::deserialize(Query(query))
}

struct Query<'de>(&'de str);

impl<'de> Query<'de> {
    /// Each name once, with its values in order.
    fn into_fields(self) -> Vec<(Cow<'de, str>, Values<'de>)> {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<_> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (percent_decoded(name, true), percent_decoded(value, true)))
            .collect();
        // Sorted, since a look through the names for each name is slow for as many as a client can send.
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut fields: Vec<(Cow<'de, str>, Values<'de>)> = Vec::new();
        for (name, text) in pairs {
            match fields.last_mut() {
                Some((last, values)) if *last == name => values.texts.push(text),
                _ => fields.push((name.clone(), Values { name, texts: vec![text] })),
            }
        }
        fields
    }
}

impl<'de> Deserializer<'de> for Query<'de> {
    type Error = BadQuery;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BadQuery> {
        visitor.visit_map(MapDeserializer::new(self.into_fields().into_iter()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, BadQuery> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The values of one name; at least one.
struct Values<'de> {
    name: Cow<'de, str>,
    texts: Vec<Cow<'de, str>>,
}

impl<'de> Values<'de> {
    /// Hands the only value to `read`; what goes wrong with it is said with its name.
    fn one<T>(self, read: impl FnOnce(Cow<'de, str>) -> Result<T, BadQuery>) -> Result<T, BadQuery> {
        let Values { name, mut texts } = self;
        match (texts.pop(), texts.len()) {
            (Some(text), 0) => read(text).map_err(|BadQuery(reason)| BadQuery(format!("{name:?}: {reason}"))),
            (_, others) => Err(BadQuery(format!("{name:?} comes {} times, not once", others + 1))),
        }
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(self) -> Result<T, BadQuery> {
        self.one(|text| text.parse().map_err(|error| BadQuery(format!("{error}"))))
    }
}

impl<'de> IntoDeserializer<'de, BadQuery> for Values<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A method for each type that is parsed from its text.
macro_rules! parsed {
    ($($method:ident $visit:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BadQuery> {
            visitor.$visit(self.parsed()?)
        })*
    };
}

impl<'de> Deserializer<'de> for Values<'de> {
    type Error = BadQuery;

    parsed! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8
        deserialize_i16 visit_i16
        deserialize_i32 visit_i32
        deserialize_i64 visit_i64
        deserialize_i128 visit_i128
        deserialize_u8 visit_u8
        deserialize_u16 visit_u16
        deserialize_u32 visit_u32
        deserialize_u64 visit_u64
        deserialize_u128 visit_u128
        deserialize_f32 visit_f32
        deserialize_f64 visit_f64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BadQuery> {
        self.one(|text| match text {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BadQuery> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, BadQuery> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &str, _: &[&str], visitor: V) -> Result<V::Value, BadQuery> {
        self.one(|text| visitor.visit_enum(text.into_deserializer()))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BadQuery> {
        let Values { name, texts } = self;
        let each = texts.into_iter().map(|text| Values { name: name.clone(), texts: vec![text] });
        visitor.visit_seq(SeqDeserializer::new(each))
    }

    /// A name that nobody asks for may come as often as it likes.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BadQuery> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier
    }
}

/// Why a query is not what the handler needs, as a sentence without a full stop that names the parameter: a 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadQuery(String);

impl fmt::Display for BadQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the query: {}", self.0)
    }
}

impl std::error::Error for BadQuery {}

impl From<BadQuery> for Reply {
    fn from(error: BadQuery) -> Reply {
        refusal(Status::BAD_REQUEST, error)
    }
}

impl de::Error for BadQuery {
    fn custom<T: fmt::Display>(message: T) -> Self {
        BadQuery(message.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Order {
        Up,
        Down,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Id(u32);

    #[derive(Debug, Deserialize, PartialEq)]
    struct Page<'a> {
        limit: u8,
        #[serde(default)]
        offset: i64,
        q: Option<&'a str>,
        #[serde(default)]
        tag: Vec<String>,
        order: Option<Order>,
        exact: Option<bool>,
        after: Option<Id>,
    }

    fn page(limit: u8) -> Page<'static> {
        Page { limit, offset: 0, q: None, tag: vec![], order: None, exact: None, after: None }
    }

    #[track_caller]
    fn check(query: &str, expected: Result<Page<'_>, &str>) {
        assert_eq!(read::<Page<'_>>(query).map_err(|error| error.0), expected.map_err(String::from), "{query}");
    }

    #[test]
    fn queries_as_a_struct() {
        check("limit=7", Ok(page(7)));
        check("&limit=%37&&", Ok(page(7)));
        check("limit=7&other=1&other=2", Ok(page(7)));
        check("limit=7&offset=-3&q=", Ok(Page { offset: -3, q: Some(""), ..page(7) }));
        check("tag=a+b&limit=7&t%61g=%26", Ok(Page { tag: vec!["a b".into(), "&".into()], ..page(7) }));
        check("limit=7&order=down&exact=true", Ok(Page { order: Some(Order::Down), exact: Some(true), ..page(7) }));
        check("limit=7&after=9", Ok(Page { after: Some(Id(9)), ..page(7) }));
    }

    #[test]
    fn errors_say_which_name() {
        check("", Err("missing field `limit`"));
        check("limit=7&limit=8", Err("\"limit\" comes 2 times, not once"));
        check("limit=many", Err("\"limit\": invalid digit found in string"));
        check("limit", Err("\"limit\": cannot parse integer from empty string"));
        check("limit=7&exact=1", Err("\"exact\": provided string was not `true` or `false`"));
        check("limit=7&order=left", Err("\"order\": unknown variant `left`, expected `up` or `down`"));
        // A value that had to be decoded cannot be borrowed.
        check("limit=7&q=a+b", Err("\"q\": invalid type: string \"a b\", expected a borrowed string"));
    }

    #[test]
    fn a_map_takes_any_names() {
        let seen: BTreeMap<String, Vec<u8>> = read("b=1&a=2&b=3").unwrap();
        assert_eq!(seen, BTreeMap::from([("a".into(), vec![2]), ("b".into(), vec![1, 3])]));
        assert_eq!(read::<BTreeMap<String, u8>>("").unwrap(), BTreeMap::new());
        assert!(read::<Vec<u8>>("a=1").is_err());
        assert!(read::<u8>("a=1").is_err());
    }
}

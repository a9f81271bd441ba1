//! The key-value part of a GGUF file: typed, checked access by key.
//!
//! Values stay where they are in the file; only keys and positions are kept. Everything was walked once when the file
//! was read, so access can't leave it. Integers convert between widths where the value fits, as writers differ in
//! the widths they choose.

use std::sync::Arc;

use super::{Bytes, cursor::Cursor, error::GgufError};

/// More keys than any real file has (they have dozens).
const KEYS_MAX: u64 = 1 << 16;

/// The type of a value or of an array's elements, as the GGUF specification numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    pub(super) fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; `None` for strings and arrays.
    fn fixed_bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "a bool",
            Self::String => "a string",
            Self::Array => "an array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// A value as the file has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Any of the eight integer types.
    Integer(i128),
    Float(f64),
    Bool(bool),
    /// Bytes that ought to be UTF-8.
    String(&'a [u8]),
    Array(Array<'a>),
}

impl Value<'_> {
    fn describe(&self) -> String {
        match self {
            Value::Integer(i) => format!("the integer {i}"),
            Value::Float(x) => format!("the number {x}"),
            Value::Bool(b) => format!("{b}"),
            Value::String(_) => "a string".into(),
            Value::Array(array) => format!("an array of {} x {}", array.len(), array.element.name()),
        }
    }
}

/// An array of values of one type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    count: usize,
    /// The elements, end to end.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn element(&self) -> ValueType {
        self.element
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.bytes, 0);
        let element = self.element;
        (0..self.count).map_while(move |_| scalar(&mut cursor, element).ok())
    }
}

/// The strings of an array, in order, as bytes: tokens are not always UTF-8.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        self.cursor.string(&String::new).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// What [`Metadata::get`] can give.
pub trait FromValue<'a>: Sized {
    /// For the error: what the key must be.
    const WANTED: &'static str;

    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! integers {
    ($($t:ident, $one:literal, $many:literal;)*) => {$(
        impl FromValue<'_> for $t {
            const WANTED: &'static str = $one;

            fn from_value(value: Value<'_>) -> Option<Self> {
                match value {
                    Value::Integer(i) => $t::try_from(i).ok(),
                    _ => None,
                }
            }
        }

        impl FromValue<'_> for Vec<$t> {
            const WANTED: &'static str = $many;

            fn from_value(value: Value<'_>) -> Option<Self> {
                match value {
                    Value::Array(array) => array.iter().map($t::from_value).collect(),
                    _ => None,
                }
            }
        }
    )*};
}

integers! {
    u32, "an integer that fits u32", "an array of integers that fit u32";
    i32, "an integer that fits i32", "an array of integers that fit i32";
    u64, "an integer that fits u64", "an array of integers that fit u64";
    usize, "an integer that is not negative", "an array of integers that are not negative";
}

impl FromValue<'_> for f32 {
    const WANTED: &'static str = "a floating-point number";

    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Float(x) => Some(x as f32),
            _ => None,
        }
    }
}

impl FromValue<'_> for Vec<f32> {
    const WANTED: &'static str = "an array of floating-point numbers";

    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Array(array) => array.iter().map(f32::from_value).collect(),
            _ => None,
        }
    }
}

impl FromValue<'_> for bool {
    const WANTED: &'static str = "a bool";

    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }
}

impl FromValue<'_> for Vec<bool> {
    const WANTED: &'static str = "an array of bools";

    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Array(array) => array.iter().map(bool::from_value).collect(),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const WANTED: &'static str = "a UTF-8 string";

    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Strings<'a> {
    const WANTED: &'static str = "an array of strings";

    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::Array(array) if array.element == ValueType::String => {
                Some(Strings { cursor: Cursor::new(array.bytes, 0), left: array.count })
            }
            _ => None,
        }
    }
}

/// Where a value is in the file.
#[derive(Debug, Clone)]
struct Entry {
    key: Box<str>,
    kind: ValueType,
    /// First byte of the value.
    at: usize,
}

/// A file's keys and values. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metadata {
    bytes: Bytes,
    /// Sorted by key.
    entries: Arc<[Entry]>,
}

impl Metadata {
    /// Walks `count` pairs from the cursor on, and leaves it behind them.
    pub(super) fn read(bytes: &Bytes, cursor: &mut Cursor<'_>, count: u64) -> Result<Self, GgufError> {
        if count > KEYS_MAX {
            return Err(GgufError::invalid("header", format!("{count} metadata keys, at most {KEYS_MAX} make sense")));
        }
        let mut entries = Vec::new();
        for index in 0..count {
            let key = cursor.string(&|| format!("metadata key {index}"))?;
            let key = std::str::from_utf8(key)
                .map_err(|_| GgufError::invalid(format!("metadata key {index}"), "its name is not UTF-8"))?;
            let what = || format!("the value of key {key:?}");
            let id = cursor.u32(&what)?;
            let kind = ValueType::from_id(id)
                .ok_or_else(|| GgufError::invalid(format!("key {key:?}"), format!("value type {id} does not exist")))?;
            let at = cursor.position();
            skip(cursor, kind, key)?;
            entries.push(Entry { key: key.into(), kind, at });
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].key == pair[1].key) {
            return Err(GgufError::invalid(format!("key {:?}", pair[0].key), "given twice"));
        }
        Ok(Self { bytes: bytes.clone(), entries: entries.into() })
    }

    /// The value of `key` as the file has it.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        let index = self.entries.binary_search_by(|entry| (*entry.key).cmp(key)).ok()?;
        let entry = &self.entries[index];
        let mut cursor = Cursor::new(&self.bytes, entry.at);
        match entry.kind {
            ValueType::Array => array(&mut cursor, key).ok().map(Value::Array),
            kind => scalar(&mut cursor, kind).ok(),
        }
    }

    /// The value of `key`, which must be there.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, GgufError> {
        self.find(key)?.ok_or_else(|| GgufError::MissingKey(key.into()))
    }

    /// The value of `key` if it is there; an error if it is there and is something else.
    pub fn find<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(found) => Ok(Some(found)),
            None => Err(GgufError::WrongType { key: key.into(), wanted: T::WANTED, found: value.describe() }),
        }
    }

    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        self.get(key)
    }

    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        self.get(key)
    }

    pub fn usize(&self, key: &str) -> Result<usize, GgufError> {
        self.get(key)
    }

    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        self.get(key)
    }

    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        self.get(key)
    }

    pub fn str(&self, key: &str) -> Result<&str, GgufError> {
        self.get(key)
    }

    pub fn strings(&self, key: &str) -> Result<Strings<'_>, GgufError> {
        self.get(key)
    }

    pub fn u32s(&self, key: &str) -> Result<Vec<u32>, GgufError> {
        self.get(key)
    }

    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, GgufError> {
        self.get(key)
    }

    pub fn f32s(&self, key: &str) -> Result<Vec<f32>, GgufError> {
        self.get(key)
    }

    /// All keys, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.key)
    }
}

/// Steps over a value, checking that all of it is there.
fn skip(cursor: &mut Cursor<'_>, kind: ValueType, key: &str) -> Result<(), GgufError> {
    let what = || format!("the value of key {key:?}");
    match kind {
        ValueType::Array => {
            array(cursor, key)?;
        }
        ValueType::String => {
            cursor.string(&what)?;
        }
        ValueType::Bool => match cursor.take(1, &what)?[0] {
            0 | 1 => {}
            other => {
                return Err(GgufError::invalid(format!("key {key:?}"), format!("a bool must be 0 or 1, not {other}")));
            }
        },
        fixed => {
            cursor.take(fixed.fixed_bytes().unwrap_or(0) as u64, &what)?;
        }
    }
    Ok(())
}

/// Reads an array's head and walks its elements.
fn array<'a>(cursor: &mut Cursor<'a>, key: &str) -> Result<Array<'a>, GgufError> {
    let what = || format!("the array of key {key:?}");
    let id = cursor.u32(&what)?;
    let invalid = |why: String| GgufError::invalid(format!("key {key:?}"), why);
    let element = ValueType::from_id(id).ok_or_else(|| invalid(format!("element type {id} does not exist")))?;
    let count = cursor.u64(&what)?;
    let mut elements = cursor.clone();
    let bytes = match element.fixed_bytes() {
        Some(size) => {
            let bytes = count.checked_mul(size as u64).ok_or_else(|| invalid(format!("{count} elements overflow")))?;
            cursor.take(bytes, &what)?
        }
        None if element == ValueType::Array => return Err(invalid("arrays of arrays are not supported".into())),
        None => {
            // A string takes at least the eight bytes of its length, so a lying count ends the loop at the file's end.
            for _ in 0..count {
                cursor.string(&what)?;
            }
            elements.take((cursor.position() - elements.position()) as u64, &what)?
        }
    };
    let count = usize::try_from(count).map_err(|_| invalid(format!("{count} elements are too many")))?;
    Ok(Array { element, count, bytes })
}

/// Reads one value that is not an array.
fn scalar<'a>(cursor: &mut Cursor<'a>, kind: ValueType) -> Result<Value<'a>, GgufError> {
    let what = String::new;
    if kind == ValueType::String {
        return cursor.string(&what).map(Value::String);
    }
    let size = kind.fixed_bytes().unwrap_or(0);
    let taken = cursor.take(size as u64, &what)?;
    let mut wide = [0; 8];
    wide[..size].copy_from_slice(taken);
    let bits = u64::from_le_bytes(wide);
    Ok(match kind {
        ValueType::I8 => Value::Integer(bits as i8 as i128),
        ValueType::I16 => Value::Integer(bits as i16 as i128),
        ValueType::I32 => Value::Integer(bits as i32 as i128),
        ValueType::I64 => Value::Integer(bits as i64 as i128),
        ValueType::F32 => Value::Float(f32::from_bits(bits as u32) as f64),
        ValueType::F64 => Value::Float(f64::from_bits(bits)),
        ValueType::Bool => Value::Bool(bits != 0),
        _ => Value::Integer(bits as i128),
    })
}

//! Terminal sizes: what clients send on channel 4, checked and written anew.
//!
//! Servers decode the *channel* as one stream of JSON and stop for good at the first value they dislike; the next resize
//! then blocks everything else on the connection. So nothing a client wrote is forwarded: a size is read from it, and
//! sent as [`Size::json`].

use std::fmt;

use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most bytes kept of an object that is not complete yet. A size takes 30; the rest is room for extra keys.
const PENDING: usize = 1024;

/// Width and height of a terminal in character cells, each 1 to 65535 (the servers' `uint16`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    width: u16,
    height: u16,
}

impl Size {
    /// Most bytes that [`Size::json`] writes: `{"Width":65535,"Height":65535}`.
    pub const JSON: usize = 30;

    /// `None` if either is 0, which no terminal has and containerd ignores.
    #[must_use]
    pub const fn new(width: u16, height: u16) -> Option<Self> {
        if width == 0 || height == 0 {
            None
        } else {
            Some(Self { width, height })
        }
    }

    /// Columns, 1 to 65535.
    #[must_use]
    pub const fn width(self) -> u16 {
        self.width
    }

    /// Rows, 1 to 65535.
    #[must_use]
    pub const fn height(self) -> u16 {
        self.height
    }

    /// Exactly `{"Width":W,"Height":H}`: the form every server takes.
    #[must_use]
    pub fn json(self) -> String {
        format!(r#"{{"Width":{},"Height":{}}}"#, self.width, self.height)
    }
}

/// Reads the sizes of one connection.
///
/// Takes what the servers take: keys in any case, other keys, white space, several objects in a message, one object over
/// several messages. Sizes with a 0, a number above 65535, a fraction, a string and so on are passed over, and so is the
/// rest of a message that is not JSON; the next good size works in every case.
///
/// One reading differs from the servers': a message that is a good size by itself counts as one, even if it could also be
/// the inside of an object begun in an earlier message. This is what keeps half an object from blocking the sizes after it.
#[derive(Clone, Debug, Default)]
pub struct ResizeParser {
    /// The beginning of an object; at most [`PENDING`] bytes.
    pending: Vec<u8>,
}

impl ResizeParser {
    /// Takes the data of one resize message and returns the last good size it completed, if any.
    pub fn push(&mut self, data: &[u8]) -> Option<Size> {
        if self.pending.is_empty() {
            return self.scan(data);
        }
        if self.pending.len() + data.len() <= PENDING {
            let mut joined = std::mem::take(&mut self.pending);
            joined.extend_from_slice(data);
            let size = self.scan(&joined);
            if size.is_some() {
                return size;
            }
        } else {
            self.pending.clear();
        }
        let joined = std::mem::take(&mut self.pending);
        let size = self.scan(data);
        // Nothing new in the message by itself: it may still be the middle of the object begun earlier.
        if size.is_none() && !joined.is_empty() {
            self.pending = joined;
        }
        size
    }

    /// Reads `data` from its start, keeps what may be the beginning of an object, returns the last good size.
    fn scan(&mut self, data: &[u8]) -> Option<Size> {
        let mut last = None;
        let mut values = serde_json::Deserializer::from_slice(data).into_iter::<Seen>();
        loop {
            match values.next() {
                Some(Ok(seen)) => last = seen.0.or(last),
                Some(Err(error)) if error.is_eof() => {
                    let rest = data[values.byte_offset()..].trim_ascii_start();
                    if rest.first() == Some(&b'{') && rest.len() <= PENDING {
                        self.pending.extend_from_slice(rest);
                    }
                    return last;
                }
                Some(Err(_)) | None => return last,
            }
        }
    }
}

/// One JSON value, and the size if it is an object that holds a good one.
struct Seen(Option<Size>);

/// One member of that object.
enum Member {
    /// `null` leaves a field as it was (Go's rule).
    Null,
    /// A `uint16`.
    Number(u16),
    /// Anything else, which would stop a server.
    Other,
}

enum Key {
    Width,
    Height,
    Other,
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(One)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Name)
    }
}

struct Whole;
struct One;
struct Name;

impl Visitor<'_> for Name {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(if key.eq_ignore_ascii_case("width") {
            Key::Width
        } else if key.eq_ignore_ascii_case("height") {
            Key::Height
        } else {
            Key::Other
        })
    }
}

/// The visitor methods for values that are read over: all of JSON but what the implementor handles itself.
macro_rules! read_over {
    ($value:expr; $($method:ident: $type:ty),*) => {
        $(fn $method<E>(self, _: $type) -> Result<Self::Value, E> { Ok($value) })*
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok($value)
        }
    };
}

impl<'de> Visitor<'de> for Whole {
    type Value = Seen;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a terminal size")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        let (mut width, mut height, mut good) = (0, 0, true);
        while let Some(key) = map.next_key::<Key>()? {
            let field = match key {
                Key::Width => &mut width,
                Key::Height => &mut height,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            match map.next_value::<Member>()? {
                Member::Null => {}
                Member::Number(number) => *field = number,
                Member::Other => good = false,
            }
        }
        Ok(Seen(Size::new(width, height).filter(|_| good)))
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen(None))
    }

    read_over!(Seen(None); visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str);
}

impl<'de> Visitor<'de> for One {
    type Value = Member;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number of cells")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Member, E> {
        Ok(u16::try_from(number).map_or(Member::Other, Member::Number))
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    read_over!(Member::Other; visit_bool: bool, visit_i64: i64, visit_f64: f64, visit_str: &str);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn size(width: u16, height: u16) -> Option<Size> {
        Size::new(width, height)
    }

    #[test]
    fn every_form_the_servers_take_is_read() {
        for (text, expected) in [
            (r#"{"Width":80,"Height":24}"#, size(80, 24)),
            ("{\"Width\":80,\"Height\":24}\n", size(80, 24)),
            (r#"{"height":25,"width":81}"#, size(81, 25)),
            (r#"{"WIDTH":81,"hEiGhT":25}"#, size(81, 25)),
            (r#"{"\u0057idth":81,"Height":25}"#, size(81, 25)),
            ("  {\n\"Width\" : 80 ,\t\"Height\":\r24 }  ", size(80, 24)),
            (
                r#"{"Width":80,"Height":24,"X":{"Width":1,"a":[1,{}]},"y":"}{"}"#,
                size(80, 24),
            ),
            (
                r#"{"Width":80,"Height":24}{"Width":81,"Height":25}"#,
                size(81, 25),
            ),
            (r#"{"Width":80,"Height":24} null {}"#, size(80, 24)),
            (r#"{"Width":1,"Width":2,"Height":3}"#, size(2, 3)),
            (r#"{"Width":2,"Width":null,"Height":3}"#, size(2, 3)),
            (r#"{"Width":65535,"Height":65535}"#, size(65535, 65535)),
        ] {
            assert_eq!(
                ResizeParser::default().push(text.as_bytes()),
                expected,
                "{text}"
            );
        }
    }

    const BAD: &[&str] = &[
        "",
        " ",
        "{}",
        "null",
        "true",
        "5",
        r#""80x24""#,
        "[80,24]",
        r#"[{"Width":80,"Height":24}]"#,
        "not json",
        "}",
        "{{",
        "nul",
        r#"{"Width":80"#,
        r#"{"Width":80,"Height":24"#,
        r#"{"a":""#,
        r#"{"a":"\"#,
        r#"{"Cols":80,"Rows":24}"#,
        r#"{"Width":0,"Height":24}"#,
        r#"{"Width":80,"Height":0}"#,
        r#"{"Width":80}"#,
        r#"{"Width":null,"Height":24}"#,
        r#"{"Width":65536,"Height":24}"#,
        r#"{"Width":70000,"Height":24}"#,
        r#"{"Width":-1,"Height":24}"#,
        r#"{"Width":80.5,"Height":24}"#,
        r#"{"Width":80.0,"Height":24}"#,
        r#"{"Width":8e1,"Height":24}"#,
        r#"{"Width":1e999,"Height":24}"#,
        r#"{"Width":99999999999999999999999,"Height":24}"#,
        r#"{"Width":"80","Height":24}"#,
        r#"{"Width":[80],"Height":24}"#,
        r#"{"Width":{"a":80},"Height":24}"#,
        r#"{"Width":true,"Height":24}"#,
        "{\"\u{1}\":1}",
    ];

    #[test]
    fn a_bad_size_is_passed_over_and_the_next_good_one_works() {
        for bad in BAD {
            let mut parser = ResizeParser::default();
            assert_eq!(parser.push(bad.as_bytes()), None, "{bad}");
            assert_eq!(
                parser.push(br#"{"Width":81,"Height":25}"#),
                size(81, 25),
                "after {bad}"
            );
            assert_eq!(
                parser.push(br#"{"Width":82,"Height":26}"#),
                size(82, 26),
                "after {bad}"
            );
            let mut parser = ResizeParser::default();
            for again in BAD {
                parser.push(bad.as_bytes());
                parser.push(again.as_bytes());
                assert_eq!(
                    parser.push(b"{\"Width\":9,\"Height\":8}\n"),
                    size(9, 8),
                    "after {bad} and {again}"
                );
            }
        }
        let mut parser = ResizeParser::default();
        assert_eq!(parser.push(b"\xff\xfe{\"Width\":1,\"Height\":1}"), None);
        assert_eq!(parser.push(b"{\"\xff\":1}"), None);
        assert_eq!(parser.push(br#"{"Width":81,"Height":25}"#), size(81, 25));
    }

    #[test]
    fn what_is_kept_of_an_unfinished_object_is_bounded() {
        let mut parser = ResizeParser::default();
        for _ in 0..10_000 {
            parser.push(br#"{"a":[1,2,3,"#);
            assert!(parser.pending.len() <= PENDING);
        }
        parser.push(&vec![b'['; 1 << 16]);
        parser.push(format!("{{{}", " ".repeat(1 << 16)).as_bytes());
        assert!(parser.pending.capacity() <= 2 * PENDING);
        assert_eq!(parser.push(br#"{"Width":81,"Height":25}"#), size(81, 25));
    }

    #[test]
    fn a_size_is_written_in_the_one_form() {
        let widest = Size::new(65535, 65535).expect("not zero").json();
        assert_eq!(widest, r#"{"Width":65535,"Height":65535}"#);
        assert_eq!(widest.len(), Size::JSON);
    }

    proptest! {
        #[test]
        fn a_size_split_anywhere_is_read_once(
            (width, height) in (1u16.., 1u16..),
            cuts in vec(any::<prop::sample::Index>(), 0..6),
            extra in "[a-z{}\\[\\]]{0,8}",
        ) {
            let text = format!(r#" {{"x":"{extra}","Height":{height},"y":[{{}}],"width":{width}}}"#);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut parser = ResizeParser::default();
            let sizes: Vec<_> = cuts.windows(2).filter_map(|cut| parser.push(&text.as_bytes()[cut[0]..cut[1]])).collect();
            prop_assert_eq!(sizes, Vec::from_iter(size(width, height)));
        }

        #[test]
        fn no_input_stops_the_next_good_size(junk in vec(vec(prop::sample::select(br#"{}[]":,0eE.-\ nultWidthHeg"#.to_vec()), 0..40), 0..8)) {
            let mut parser = ResizeParser::default();
            for data in junk {
                parser.push(&data);
            }
            prop_assert_eq!(parser.push(br#"{"Width":81,"Height":25}"#), size(81, 25));
        }
    }
}

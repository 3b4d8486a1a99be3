//! Bodies in Kubernetes' protobuf, which kubectl sends from 1.32 for what it makes itself (`create token`, `auth can-i`,
//! `create namespace` and so on) and does not send again as JSON when that is refused. Only those kinds are understood. Pure.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages in messages; none here has more than six.
const DEEPEST: u32 = 16;

/// Messages by name, their fields by number: name and type.
type Messages = HashMap<String, HashMap<u64, String>>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    serde_saphyr::from_str(include_str!("protobuf.yaml")).expect("a test reads it")
});

/// The object in a body; `None` if it is none, or of a kind not understood.
pub(super) fn object(body: &[u8]) -> Option<Value> {
    let envelope = message("Unknown", body.strip_prefix(MAGIC)?, 0)?;
    let said = &envelope["typeMeta"];
    let raw = BASE64_STANDARD.decode(envelope["raw"].as_str().unwrap_or_default());
    let mut object = message(said["kind"].as_str()?, &raw.ok()?, 0)?;
    json_patch::merge(&mut object, said);
    Some(object)
}

fn message(name: &str, data: &[u8], depth: u32) -> Option<Value> {
    let known = MESSAGES.get(name).filter(|_| depth < DEEPEST)?;
    let mut found = Map::new();
    for (number, wire) in fields(data)? {
        let Some(field) = known.get(&number) else {
            continue;
        };
        let (key, kind) = field.split_once(' ').unwrap_or((field, ""));
        if let Some(kind) = kind.strip_prefix('*') {
            let list = found.entry(key).or_insert_with(|| json!([]));
            list.as_array_mut()?.push(decode(kind, &wire, depth)?);
        } else if let (Some(kind), Wire::Bytes(entry)) = (kind.strip_prefix('%'), &wire) {
            let (mut name, mut value) = (json!(""), json!(""));
            for (number, wire) in fields(entry)? {
                match number {
                    1 => name = decode("", &wire, depth)?,
                    _ => value = decode(kind, &wire, depth)?,
                }
            }
            let map = found.entry(key).or_insert_with(|| json!({}));
            map[name.as_str()?] = value;
        } else {
            let value = decode(kind, &wire, depth)?;
            // Go sends what is empty, too.
            if value != "" && !value.is_null() && !(kind == "i" && value == 0) {
                found.insert(key.to_owned(), value);
            }
        }
    }
    Some(Value::Object(found))
}

fn decode(kind: &str, wire: &Wire<'_>, depth: u32) -> Option<Value> {
    Some(match (kind, wire) {
        ("", Wire::Bytes(text)) => std::str::from_utf8(text).ok()?.into(),
        ("y", Wire::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
        ("i" | "n", Wire::Number(number)) => number.cast_signed().into(),
        ("b", Wire::Number(number)) => (*number != 0).into(),
        ("t", time) => match decode("Time", time, depth)?["seconds"].as_i64() {
            Some(seconds) => Timestamp::from_second(seconds).ok()?.to_string().into(),
            None => Value::Null,
        },
        (kind, Wire::Bytes(data)) => message(kind, data, depth + 1)?,
        _ => return None,
    })
}

/// A field as it was sent. The API has no numbers of fixed length where they matter here.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn fields(mut data: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let (tag, value) = (varint(&mut data)?, varint(&mut data)?);
        let wire = match tag & 7 {
            0 => Wire::Number(value),
            2 => Wire::Bytes(data.split_off(..usize::try_from(value).ok()?)?),
            _ => return None,
        };
        found.push((tag >> 3, wire));
    }
    Some(found)
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *data.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(number: u8, data: &[u8]) -> Vec<u8> {
        let length = u8::try_from(data.len()).unwrap();
        [&[number << 3 | 2, length], data].concat()
    }

    fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn an_object_of_a_known_kind_is_understood() {
        let label = [bytes(1, b"app"), bytes(2, b"web")].concat();
        let time = [0x08, 0x80, 0xa3, 0x05]; // 86400
        let meta = [
            bytes(1, b"one"),
            bytes(2, b""),
            bytes(8, &time),
            bytes(11, &label),
            bytes(14, b"x"),
        ]
        .concat();
        let data = [bytes(1, b"k"), bytes(2, &[0xff])].concat();
        let secret = [bytes(1, &meta), bytes(2, &data), vec![5 << 3, 0]].concat();
        assert_eq!(
            object(&envelope("v1", "Secret", &secret)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Secret", "data": {"k": "/w=="}, "immutable": false,
                "metadata": {"name": "one", "creationTimestamp": "1970-01-02T00:00:00Z", "labels": {"app": "web"},
                             "finalizers": ["x"]},
            })
        );
        assert_eq!(object(&envelope("v1", "Pod", b"")), None);
    }

    #[test]
    fn every_message_a_field_is_of_is_known() {
        for (name, fields) in MESSAGES.iter() {
            for field in fields.values() {
                let kind = field.split_once(' ').map_or("", |(_, kind)| kind);
                let kind = kind.trim_start_matches(['*', '%']);
                let known =
                    matches!(kind, "" | "i" | "n" | "b" | "t" | "y") || MESSAGES.contains_key(kind);
                assert!(known, "{name}.{field}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_not_without_a_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = object(&[MAGIC, &raw].concat());
            for kind in ["Secret", "ClusterRole", "SubjectAccessReview", "TokenRequest"] {
                let _ = object(&envelope("v1", kind, &raw));
            }
        }
    }
}

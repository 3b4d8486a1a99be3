//! Bodies in Kubernetes' protobuf, which kubectl sends from 1.32 for what it makes itself (`create token`, `auth can-i`,
//! `create namespace` and so on) and does not send again as JSON when that is refused. Only those kinds are understood. Pure.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json, value::Serializer};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

static MESSAGES: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let file = protox_parse::parse("kubernetes.proto", include_str!("kubernetes.proto"));
    let mut pool = DescriptorPool::global(); // it has Timestamp
    let added = pool.add_file_descriptor_proto(file.expect("a test reads it"));
    added.expect("a test reads it");
    pool
});

/// The object in a body; `None` if it is none, or of a kind not understood.
pub(super) fn object(body: &[u8]) -> Option<Value> {
    let envelope = message("Unknown", body.strip_prefix(MAGIC)?)?;
    let said = &envelope["typeMeta"];
    let raw = BASE64_STANDARD.decode(envelope["raw"].as_str().unwrap_or_default());
    let mut object = message(said["kind"].as_str()?, &raw.ok()?)?;
    json_patch::merge(&mut object, said);
    // Go sends what is empty, too: an object not yet created was created in 1970.
    json_patch::merge(
        &mut object,
        &json!({"metadata": {"creationTimestamp": null}}),
    );
    Some(object)
}

fn message(name: &str, data: &[u8]) -> Option<Value> {
    let kind = MESSAGES.get_message_by_name(name)?;
    let message = DynamicMessage::decode(kind, data).ok()?;
    let options = SerializeOptions::new().stringify_64_bit_integers(false);
    message.serialize_with_options(Serializer, &options).ok()
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
            bytes(8, b""),
            bytes(9, &time),
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
                "metadata": {"name": "one", "deletionTimestamp": "1970-01-02T00:00:00Z", "labels": {"app": "web"},
                             "finalizers": ["x"]},
            })
        );
        assert_eq!(object(&envelope("v1", "Pod", b"")), None);
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

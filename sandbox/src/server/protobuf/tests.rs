//! Which bodies are understood.

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

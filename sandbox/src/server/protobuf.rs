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

/// Messages and their fields: number, name, type if it is no text. `i` is an integer that is absent if 0, `n` one that is
/// not, `b` a boolean, `t` a time, `y` bytes, anything else a message; `*` is a list and `%` a map from texts. After the
/// `.proto` files of the API.
const MESSAGES: &str = "
    ObjectMeta 1name 2generateName 3namespace 4selfLink 5uid 6resourceVersion 7generation:i 8creationTimestamp:t \
        9deletionTimestamp:t 10deletionGracePeriodSeconds:n 11labels:% 12annotations:% \
        13ownerReferences:*OwnerReference 14finalizers:*
    OwnerReference 1kind 3name 4uid 5apiVersion 6controller:b 7blockOwnerDeletion:b
    LabelSelector 1matchLabels:% 2matchExpressions:*LabelSelectorRequirement
    LabelSelectorRequirement 1key 2operator 3values:*
    DeleteOptions 1gracePeriodSeconds:n 2preconditions:Preconditions 3orphanDependents:b 4propagationPolicy 5dryRun:*
    Preconditions 1uid 2resourceVersion
    Namespace 1metadata:ObjectMeta 2spec:NamespaceSpec
    NamespaceSpec 1finalizers:*
    ServiceAccount 1metadata:ObjectMeta 2secrets:*ObjectReference 3imagePullSecrets:*LocalObjectReference \
        4automountServiceAccountToken:b
    ObjectReference 1kind 2namespace 3name 4uid 5apiVersion 6resourceVersion 7fieldPath
    LocalObjectReference 1name
    ConfigMap 1metadata:ObjectMeta 2data:% 3binaryData:%y 4immutable:b
    Secret 1metadata:ObjectMeta 2data:%y 3type 4stringData:% 5immutable:b
    Role 1metadata:ObjectMeta 2rules:*PolicyRule
    ClusterRole 1metadata:ObjectMeta 2rules:*PolicyRule 3aggregationRule:AggregationRule
    AggregationRule 1clusterRoleSelectors:*LabelSelector
    PolicyRule 1verbs:* 2apiGroups:* 3resources:* 4resourceNames:* 5nonResourceURLs:*
    RoleBinding 1metadata:ObjectMeta 2subjects:*Subject 3roleRef:RoleRef
    ClusterRoleBinding 1metadata:ObjectMeta 2subjects:*Subject 3roleRef:RoleRef
    Subject 1kind 2apiGroup 3name 4namespace
    RoleRef 1apiGroup 2kind 3name
    TokenRequest 1metadata:ObjectMeta 2spec:TokenRequestSpec
    TokenRequestSpec 1audiences:* 3boundObjectRef:BoundObjectReference 4expirationSeconds:i
    BoundObjectReference 1kind 2apiVersion 3name 4uid
    TokenReview 1metadata:ObjectMeta 2spec:TokenReviewSpec
    TokenReviewSpec 1token 2audiences:*
    SelfSubjectReview 1metadata:ObjectMeta
    SelfSubjectAccessReview 1metadata:ObjectMeta 2spec:SubjectAccess
    SubjectAccess 1resourceAttributes:ResourceAttributes 2nonResourceAttributes:NonResourceAttributes
    SubjectAccessReview 1metadata:ObjectMeta 2spec:SubjectAccessReviewSpec
    LocalSubjectAccessReview 1metadata:ObjectMeta 2spec:SubjectAccessReviewSpec
    SubjectAccessReviewSpec 1resourceAttributes:ResourceAttributes 2nonResourceAttributes:NonResourceAttributes 3user \
        4groups:* 6uid
    SelfSubjectRulesReview 1metadata:ObjectMeta 2spec:SelfSubjectRulesReviewSpec
    SelfSubjectRulesReviewSpec 1namespace
    ResourceAttributes 1namespace 2verb 3group 4version 5resource 6subresource 7name
    NonResourceAttributes 1path 2verb
    Unknown 1typeMeta:TypeMeta 2raw:y
    TypeMeta 1apiVersion 2kind
";

type Fields = HashMap<u64, (&'static str, &'static str)>;

fn messages() -> &'static HashMap<&'static str, Fields> {
    static ALL: LazyLock<HashMap<&'static str, Fields>> = LazyLock::new(|| {
        let message = |line: &'static str| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            let fields = words.filter_map(|word| {
                let (field, kind) = word.split_once(':').unwrap_or((word, ""));
                let digits = field.find(|c: char| !c.is_ascii_digit())?;
                Some((field[..digits].parse().ok()?, (&field[digits..], kind)))
            });
            Some((name, fields.collect()))
        };
        MESSAGES.lines().filter_map(message).collect()
    });
    &ALL
}

/// The object in a body; `None` if it is none, or of a kind not understood.
pub(super) fn object(body: &[u8]) -> Option<Value> {
    let envelope = message("Unknown", body.strip_prefix(MAGIC)?, 0)?;
    let (version, kind) = (
        &envelope["typeMeta"]["apiVersion"],
        &envelope["typeMeta"]["kind"],
    );
    let raw = envelope["raw"].as_str().unwrap_or_default();
    let mut object = message(kind.as_str()?, &BASE64_STANDARD.decode(raw).ok()?, 0)?;
    object["apiVersion"] = version.clone();
    object["kind"] = kind.clone();
    Some(object)
}

/// One field as it was sent.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn message(name: &str, mut data: &[u8], depth: u32) -> Option<Value> {
    let fields = messages().get(name).filter(|_| depth < DEEPEST)?;
    let mut found = Map::new();
    while !data.is_empty() {
        let (number, value) = field(&mut data)?;
        let Some((key, kind)) = fields.get(&number) else {
            continue;
        };
        if let Some(kind) = kind.strip_prefix('*') {
            let list = found.entry(*key).or_insert_with(|| json!([]));
            let item = decode(kind, &value, depth)?;
            list.as_array_mut()?.push(item);
        } else if let Some(kind) = kind.strip_prefix('%') {
            let Wire::Bytes(mut entry) = value else {
                return None;
            };
            let (mut name, mut value) = (String::new(), json!(""));
            while !entry.is_empty() {
                match field(&mut entry)? {
                    (1, Wire::Bytes(text)) => name = String::from_utf8(text.to_vec()).ok()?,
                    (2, sent) => value = decode(kind, &sent, depth)?,
                    _ => {}
                }
            }
            found.entry(*key).or_insert_with(|| json!({}))[name] = value;
        } else {
            let value = decode(kind, &value, depth)?;
            // Go sends what is empty, too.
            let empty = value == "" || value.is_null() || *kind == "i" && value == 0;
            if !empty {
                found.insert((*key).to_owned(), value);
            }
        }
    }
    Some(Value::Object(found))
}

fn decode(kind: &str, value: &Wire<'_>, depth: u32) -> Option<Value> {
    Some(match (kind, value) {
        ("", Wire::Bytes(text)) => std::str::from_utf8(text).ok()?.into(),
        ("y", Wire::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
        ("i" | "n", Wire::Number(number)) => number.cast_signed().into(),
        ("b", Wire::Number(number)) => (*number != 0).into(),
        ("t", Wire::Bytes(data)) => time(data)?,
        (kind, Wire::Bytes(data)) => message(kind, data, depth + 1)?,
        _ => return None,
    })
}

fn time(mut data: &[u8]) -> Option<Value> {
    let mut seconds = None;
    while !data.is_empty() {
        if let (1, Wire::Number(number)) = field(&mut data)? {
            seconds = Some(number.cast_signed());
        }
    }
    let Some(seconds) = seconds else {
        return Some(Value::Null);
    };
    Some(Timestamp::from_second(seconds).ok()?.to_string().into())
}

fn field<'a>(data: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = varint(data)?;
    let value = match tag & 7 {
        0 => Wire::Number(varint(data)?),
        1 => Wire::Bytes(data.split_off(..8)?),
        2 => {
            let length = usize::try_from(varint(data)?).ok()?;
            Wire::Bytes(data.split_off(..length)?)
        }
        5 => Wire::Bytes(data.split_off(..4)?),
        _ => return None,
    };
    Some((tag >> 3, value))
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
        for (name, fields) in messages() {
            for (field, kind) in fields.values() {
                let kind = kind.trim_start_matches(['*', '%']);
                let known = matches!(kind, "" | "i" | "n" | "b" | "t" | "y")
                    || messages().contains_key(kind);
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

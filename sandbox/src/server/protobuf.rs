//! Bodies in Kubernetes' protobuf, which kubectl sends from 1.32 for what it makes itself (`create token`, `auth can-i`,
//! `create namespace` and so on) and does not send again as JSON when that is refused. Only those kinds are understood. Pure.

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_STANDARD};
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
    // Go sends what is empty, too: an object not yet created was created in 1970.
    let metadata = json!({"creationTimestamp": null});
    let known =
        json!({"kind": said["kind"], "apiVersion": said["apiVersion"], "metadata": metadata});
    json_patch::merge(&mut object, &known);
    Some(object)
}

fn message(name: &str, data: &[u8]) -> Option<Value> {
    let kind = MESSAGES.get_message_by_name(name)?;
    let message = DynamicMessage::decode(kind, data).ok()?;
    let options = SerializeOptions::new().stringify_64_bit_integers(false);
    message.serialize_with_options(Serializer, &options).ok()
}

#[cfg(test)]
mod tests;

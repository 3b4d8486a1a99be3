//! Who and what a record is about: the same words in recordings and in audit events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A `ConsoleSession`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a namesake made later has another.
    pub uid: String,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The pod's name; its namespace is the session's.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The container that was entered.
    pub container: String,
    /// The node it ran on; empty if unknown.
    pub node: String,
}

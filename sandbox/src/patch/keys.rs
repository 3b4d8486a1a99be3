//! How the lists and maps of built-in kinds are merged, for strategic merge patch and for apply alike.

/// How a list of a built-in kind is merged. What is not told here is replaced as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Replaced as a whole.
    Atomic,
    /// Of scalars, each there once.
    Set,
    /// Of objects, told apart by these fields. A strategic merge patch knows but the first.
    Map(&'static [&'static str]),
}

/// `(field the list's object is in, field of the list, how)`. The parent is empty where the name says enough; the parent
/// of what is in an item of a list is the list.
const LISTS: &[(&str, &str, List)] = &[
    ("metadata", "finalizers", List::Set),
    ("metadata", "ownerReferences", List::Map(&["uid"])),
    // `secrets` and `webhooks` are at the root of their objects.
    ("", "secrets", List::Map(&["name"])),
    ("", "webhooks", List::Map(&["name"])),
    ("webhooks", "matchConditions", List::Map(&["name"])),
    ("status", "conditions", List::Map(&["type"])),
    ("status", "addresses", List::Map(&["type"])),
    ("status", "podIPs", List::Map(&["ip"])),
    ("status", "hostIPs", List::Map(&["ip"])),
    ("status", "resourceClaimStatuses", List::Map(&["name"])),
    ("spec", "containers", List::Map(&["name"])),
    ("spec", "initContainers", List::Map(&["name"])),
    ("spec", "ephemeralContainers", List::Map(&["name"])),
    ("spec", "volumes", List::Map(&["name"])),
    ("spec", "imagePullSecrets", List::Map(&["name"])),
    ("spec", "hostAliases", List::Map(&["ip"])),
    ("spec", "resourceClaims", List::Map(&["name"])),
    ("spec", "schedulingGates", List::Map(&["name"])),
    (
        "spec",
        "topologySpreadConstraints",
        List::Map(&["topologyKey", "whenUnsatisfiable"]),
    ),
    ("spec", "podCIDRs", List::Set),
    // Of a Service.
    ("spec", "ports", List::Map(&["port", "protocol"])),
    ("", "env", List::Map(&["name"])),
    ("", "volumeMounts", List::Map(&["mountPath"])),
    ("", "volumeDevices", List::Map(&["devicePath"])),
    ("resources", "claims", List::Map(&["name"])),
    (
        "containers",
        "ports",
        List::Map(&["containerPort", "protocol"]),
    ),
    (
        "initContainers",
        "ports",
        List::Map(&["containerPort", "protocol"]),
    ),
    (
        "ephemeralContainers",
        "ports",
        List::Map(&["containerPort", "protocol"]),
    ),
];

/// Objects that have one owner as a whole: selectors and references.
const ATOMIC_MAPS: &[&str] = &[
    "claimRef",
    "configMapKeyRef",
    "fieldRef",
    "involvedObject",
    "labelSelector",
    "localObjectReference",
    "namespaceSelector",
    "nodeSelector",
    "nodeSelectorTerms",
    "objectSelector",
    "podSelector",
    "regarding",
    "related",
    "resourceFieldRef",
    "roleRef",
    "secretKeyRef",
    "selector",
];

/// How the list `field` of an object in `parent` is merged.
#[must_use]
pub fn list(parent: &str, field: &str) -> List {
    LISTS
        .iter()
        .find(|(at, name, _)| *name == field && (at.is_empty() || *at == parent))
        .map_or(List::Atomic, |(_, _, how)| *how)
}

/// Whether the object `field` has one owner.
#[must_use]
pub fn atomic_map(field: &str) -> bool {
    ATOMIC_MAPS.contains(&field)
}

/// What a missing key of a list's item stands for.
#[must_use]
pub fn default_of(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}

//! What a request asks for: method, path, query to [`Attributes`], as Kubernetes' `RequestInfo` has it. Pure.

use std::str::FromStr;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::{selector::exact_name, status::Failure, status::Result, status::qualified};

/// What is asked for, as authorization and admission see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the lower-case method for
    /// paths that are no resource.
    pub verb: String,
    /// Whether it is about a resource; if not, only `path` and `verb` mean something.
    pub resource_request: bool,
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// Empty for what is in none, and for all.
    pub namespace: String,
    /// `pods`
    pub resource: String,
    /// `exec`; empty for none.
    pub subresource: String,
    /// Empty for collections, but for a list or watch whose field selector names one object.
    pub name: String,
    /// As it was asked for.
    pub path: String,
    /// Its options.
    pub query: Query,
}

impl Attributes {
    /// A question about a resource (`pods`, `pods/exec`); empty for what does not matter.
    pub(crate) fn about(
        verb: &str,
        group: &str,
        namespace: &str,
        resource: &str,
        name: &str,
    ) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Self {
            verb: verb.to_owned(),
            resource_request: true,
            group: group.to_owned(),
            version: "v1".to_owned(),
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// The store's name for the resource, with the subresource: `consolesessions.drawbridge.dev/status`.
    pub(crate) fn qualified(&self) -> String {
        let resource = qualified(&self.group, &self.resource);
        let both = format!("{resource}/{}", self.subresource);
        both.trim_end_matches('/').to_owned()
    }
}

/// What a method, a path and a query ask for.
pub(crate) fn attributes(method: &Method, path: &str, query: &str) -> Attributes {
    let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let query = Query::parse(query);
    let mut asked = resource(method, &path, &query).unwrap_or_default();
    if !asked.resource_request {
        asked.verb = method.as_str().to_ascii_lowercase();
    }
    (asked.path, asked.query) = (path, query);
    asked
}

/// `None` for a path that is no resource.
fn resource(method: &Method, path: &str, query: &Query) -> Option<Attributes> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, mut parts) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return None,
    };
    let mut namespace = "";
    if let ["namespaces", name, rest @ ..] = parts {
        namespace = name;
        // A namespace's own subresources are about the namespace, anything else is about what is in it.
        if !matches!(rest, [] | ["status" | "finalize", ..]) {
            parts = rest;
        }
    }
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    let mut name = part(1);
    let verb = match (method.as_str(), name.is_empty()) {
        ("GET" | "HEAD", true) if query.flag("watch") => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    };
    let named = exact_name(query.get("fieldSelector")).unwrap_or_default();
    if matches!(verb, "list" | "watch") {
        name = &named;
    }
    let mut asked = Attributes::about(verb, group, namespace, part(0), name);
    (asked.version, asked.subresource) = (version.to_owned(), part(2).to_owned());
    Some(asked)
}

/// A parsed query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The pairs in the order they come in.
    pub fn parse(query: &str) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The first value; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// Gives a parameter a value, whatever it had.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(0, (name.to_owned(), value.to_owned()));
    }

    /// A number; `None` for none.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let mut values = self.all(name).filter(|value| !value.is_empty());
        let number = values.next().map(str::parse).transpose();
        number.map_err(|_| Failure::bad_request(format!("{name} must be a number")))
    }

    /// A boolean as Kubernetes reads one: anything but `0` and `false` is true, even nothing.
    pub fn flag(&self, name: &str) -> bool {
        let value = self.all(name).next().unwrap_or("0");
        value != "0" && !value.eq_ignore_ascii_case("false")
    }
}

#[cfg(test)]
mod tests;

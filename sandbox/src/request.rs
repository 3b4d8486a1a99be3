//! What a request asks for: method, path, query to [`Attributes`], as Kubernetes' RequestInfo has it. Pure.

use http::Method;

/// What is asked for, as authorization and admission see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
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
    /// Empty for collections.
    pub name: String,
    /// As it was asked for.
    pub path: String,
}

/// What a method, a path and a query ask for.
#[must_use]
pub fn attributes(_method: &Method, _path: &str, _query: &str) -> Attributes {
    todo!("request")
}

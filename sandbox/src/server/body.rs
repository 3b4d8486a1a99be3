//! Bodies: of requests, read within bounds, and of answers, in the form `Accept` asks for.

use std::fmt::Display;

use bytes::Bytes;
use http::header::{self, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Asked, Body, protobuf};
use crate::status::{Failure, Result};

/// What is said in prose.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
/// Longest body of a request, in bytes: Kubernetes' own limit.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// Warnings in one answer, and characters in one of them.
const MAX_WARNINGS: [usize; 2] = [50, 1024];

/// The form of an answer, always JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// Metadata alone.
    Partial,
}

/// A header's text; empty if absent or no text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// The first offer in `Accept` that `known` makes something of, from its parameters `as` and `v`. Nobody needs protobuf
/// alone: clients offer JSON with it.
pub(crate) fn choose<T>(
    headers: &HeaderMap,
    known: impl Fn(Option<&str>, &str) -> Option<T>,
) -> Option<T> {
    let mut offers = text(headers, &header::ACCEPT).split(',');
    offers.find_map(|offer| {
        let parts: Vec<&str> = offer.split(';').map(str::trim).collect();
        let part = |name| parts.iter().find_map(|part| part.strip_prefix(name));
        let ours = ["", JSON, "application/*", "*/*"].contains(&parts[0]);
        ours.then(|| known(part("as="), part("v=").unwrap_or_default()))?
    })
}

/// The form of an answer about objects.
pub(super) fn form(headers: &HeaderMap) -> Result<Form> {
    let form = choose(headers, |form, version| match form {
        None => Some(Form::Plain),
        Some("Table") if version == "v1" => Some(Form::Table),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Form::Partial),
        _ => None,
    });
    let why = "only the following media types are accepted: application/json";
    form.ok_or_else(|| Failure::new(406, why))
}

/// A request's body.
pub(super) async fn read(body: Incoming) -> Result<Bytes> {
    let why = format!("no whole body of at most {MAX_BODY} bytes");
    let body = Limited::new(body, MAX_BODY).collect().await;
    Ok(body.map_err(|_| Failure::new(413, why))?.to_bytes())
}

/// `Content-Type` without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let media = text(headers, &header::CONTENT_TYPE).split(';').next();
    media.unwrap_or_default().trim()
}

/// An object or a patch in JSON (or what nobody says the type of), YAML or, if its kind is understood, protobuf; `{}` for
/// no body at all.
pub(super) async fn object(request: Asked) -> Result<Value> {
    let (parts, incoming) = request.into_parts();
    let body = &*read(incoming).await?;
    match media_type(&parts.headers) {
        _ if body.is_empty() => Ok(json!({})),
        "application/vnd.kubernetes.protobuf" => protobuf::object(body).ok_or_else(unsupported),
        media if media.ends_with("yaml") => serde_saphyr::from_slice(body).map_err(wrong),
        media if media.ends_with("json") || media.is_empty() => {
            serde_json::from_slice(body).map_err(wrong)
        }
        _ => Err(unsupported()),
    }
}

fn wrong(why: impl Display) -> Failure {
    Failure::bad_request(format!("the body does not parse: {why}"))
}

/// 415
pub(super) fn unsupported() -> Failure {
    let why = "the body of the request is of a type that is not accepted here";
    Failure::new(415, why)
}

/// An answer in JSON.
pub(super) fn answer(code: u16, body: &Value, warnings: &[String]) -> Response<Body> {
    let mut response = typed(code, JSON, format!("{body}\n"));
    for warning in warnings.iter().take(MAX_WARNINGS[0]) {
        let text = warning.chars().take(MAX_WARNINGS[1]).collect::<String>();
        // Quoted as in JSON, which is quoted as a header is.
        let text = json!(text);
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - {text}").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// An answer of another type.
pub(crate) fn typed(code: u16, media: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

#[cfg(test)]
mod tests;

//! Bodies: of requests, read within bounds, and of answers, in the form `Accept` asks for.

use std::fmt::Display;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WARNING};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Body, protobuf};
use crate::status::Failure;

/// What is said in prose.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
/// Longest body of a request, in bytes: Kubernetes' own limit.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// Warnings in one answer.
const MAX_WARNINGS: usize = 50;
/// Longest warning, in characters.
const MAX_WARNING: usize = 1024;

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

/// The first offer in `Accept` that `known` makes something of, from its parameters `as`, `g` and `v`. Nobody needs
/// protobuf alone: clients offer JSON with it.
pub(crate) fn choose<T>(
    headers: &HeaderMap,
    known: impl Fn(&str, &str, &str) -> Option<T>,
) -> Option<T> {
    let offers = headers.get_all(ACCEPT).iter();
    let mut offers: Vec<&str> = offers.filter_map(|line| line.to_str().ok()).collect();
    if offers.is_empty() {
        offers.push("*/*");
    }
    offers
        .iter()
        .flat_map(|line| line.split(','))
        .find_map(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let part = |name: &str| {
                let mut parts = parts.clone().filter_map(|part| part.split_once('='));
                parts
                    .find(|(key, _)| *key == name)
                    .map_or("", |(_, value)| value)
            };
            let ours = [JSON, "application/*", "*/*"].contains(&media);
            ours.then(|| known(part("as"), part("g"), part("v")))?
        })
}

/// The form of an answer about objects.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let form = choose(headers, |form, group, version| {
        match (form, group, version) {
            ("", ..) => Some(Form::Plain),
            ("Table", "meta.k8s.io", "v1") => Some(Form::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                Some(Form::Partial)
            }
            _ => None,
        }
    });
    let why = "only the following media types are accepted: application/json";
    form.ok_or_else(|| Failure::new(406, why))
}

/// A request's body.
pub(super) async fn read(body: Incoming) -> Result<Bytes, Failure> {
    let why = format!("no whole body of at most {MAX_BODY} bytes");
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(|_| Failure::new(413, why))?;
    Ok(body.to_bytes())
}

/// `Content-Type` without parameters; JSON if absent.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = text(headers, &CONTENT_TYPE).split(';').next();
    match value.unwrap_or_default().trim() {
        "" | "*/*" => JSON,
        media => media,
    }
}

/// An object or a patch in JSON, YAML or, if its kind is understood, protobuf; `{}` for no body at all.
pub(super) async fn object(request: Request<Incoming>) -> Result<Value, Failure> {
    let (parts, incoming) = request.into_parts();
    let body = &*read(incoming).await?;
    let why =
        |error: &dyn Display| Failure::bad_request(format!("the body does not parse: {error}"));
    match media_type(&parts.headers) {
        _ if body.is_empty() => Ok(json!({})),
        "application/vnd.kubernetes.protobuf" => protobuf::object(body).ok_or_else(unsupported),
        "application/yaml" | "application/apply-patch+yaml" => {
            serde_saphyr::from_slice(body).map_err(|error| why(&error))
        }
        media if media == JSON || media.ends_with("+json") => {
            serde_json::from_slice(body).map_err(|error| why(&error))
        }
        _ => Err(unsupported()),
    }
}

/// 415
pub(super) fn unsupported() -> Failure {
    let why = "the body of the request is of a type that is not accepted here";
    Failure::new(415, why)
}

/// An answer in JSON.
pub(super) fn answer(code: u16, body: &Value, warnings: &[String]) -> Response<Body> {
    let mut response = typed(code, JSON, format!("{body}\n"));
    for warning in warnings.iter().take(MAX_WARNINGS) {
        let warning: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_WARNING)
            .collect();
        let warning = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{warning}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// An answer of another type.
pub(crate) fn typed(code: u16, media: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_had_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let protobuf = "application/vnd.kubernetes.protobuf";
        let either = format!("{protobuf},application/json");
        for (accept, want) in [
            ("*/*", Some(Form::Plain)),
            ("application/json", Some(Form::Plain)),
            (&either, Some(Form::Plain)),
            (protobuf, None),
            ("text/html", None),
            (old, Some(Form::Plain)),
            (table, Some(Form::Table)),
            (partial, Some(Form::Partial)),
        ] {
            let mut headers = HeaderMap::new();
            assert_eq!(form(&headers).ok(), Some(Form::Plain));
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(form(&headers).ok(), want, "{accept}");
        }
    }
}

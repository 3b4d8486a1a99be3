//! Bodies: of requests, read within bounds, and of answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WARNING};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Body, protobuf};
use crate::status::Failure;

/// Longest body of a request, in bytes: Kubernetes' own limit.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// Warnings in one answer.
const MAX_WARNINGS: usize = 50;
/// Longest warning, in characters.
const MAX_WARNING: usize = 1024;

/// A request's body.
pub(super) async fn read(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {MAX_BODY}"),
        )),
        Err(error) => Err(Failure::bad_request(format!(
            "couldn't read the request's body: {error}"
        ))),
    }
}

/// `Content-Type` without parameters; empty if absent.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// An object in JSON, YAML or, if its kind is understood, protobuf.
pub(super) fn object(media_type: &str, body: &[u8]) -> Result<Value, Failure> {
    match media_type {
        "" | "*/*" | "application/json" => json(body),
        "application/yaml" => yaml(body),
        "application/vnd.kubernetes.protobuf" => protobuf::object(body)
            .ok_or_else(|| unsupported(&["application/json", "application/yaml"])),
        _ => Err(unsupported(&["application/json", "application/yaml"])),
    }
}

pub(super) fn json(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })
}

pub(super) fn yaml(body: &[u8]) -> Result<Value, Failure> {
    serde_saphyr::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))
}

/// 415
pub(super) fn unsupported(accepted: &[&str]) -> Failure {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    Failure::new(415, "UnsupportedMediaType", message)
}

/// An answer in JSON.
pub(super) fn answer(code: u16, body: &Value, warnings: &[String]) -> Response<Body> {
    let mut text = body.to_string();
    text.push('\n');
    let mut response = typed(code, "application/json", text);
    for warning in warnings.iter().take(MAX_WARNINGS) {
        let warning: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_WARNING)
            .flat_map(|c| {
                matches!(c, '"' | '\\')
                    .then_some('\\')
                    .into_iter()
                    .chain([c])
            })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{warning}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// An answer of another type.
pub(super) fn typed(code: u16, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A body that is sent piece by piece, each at once; it ends with the sender.
pub(super) fn streamed(pieces: mpsc::Receiver<Bytes>) -> Body {
    let frames = stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), pieces))
    });
    Body::new(StreamBody::new(frames))
}

//! The page with a terminal in it: files built into this program, with the headers that keep a browser strict about them.
//!
//! They are the same for everybody, hold no secret, and are served without a credential; what the page then asks for needs the
//! session's token, which it is given after the `#` of its address and which is therefore never part of a request's target.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::refusal::Body;

/// One file of the page.
struct Asset {
    /// Below `ui/`; the page itself is `index.html`.
    path: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

/// What the build script made, or the page that tells what it needs.
static ASSETS: &[Asset] = &include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// What is asked for below `/ui`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/ui`: the address without its slash, below which relative addresses would miss.
    NoSlash,
    /// A file, by its path below `/ui/`; the page itself is `index.html`. It need not exist.
    File(String),
}

/// Only scripts and styles of this very host, connections to it alone, nothing embedded, and no way out by a form, a `<base>`
/// or a frame. No `unsafe-inline`, for styles neither; and no string becomes script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The clipboard is for the person's own keys and buttons; the page uses nothing else of what browsers offer.
const PERMISSIONS: &str = "clipboard-read=(self), clipboard-write=(self), accelerometer=(), autoplay=(), camera=(), \
    display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), hid=(), magnetometer=(), microphone=(), \
    midi=(), payment=(), publickey-credentials-get=(), screen-wake-lock=(), serial=(), usb=(), xr-spatial-tracking=()";

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// A file whose name carries a hash of its content never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// The page names the files of its own version: it is asked for anew every time, and mostly not sent again.
const ASK_AGAIN: &str = "no-cache";

/// The answer to a request for a part of the page.
#[must_use]
pub fn serve(page: &Page, method: &Method, headers: &HeaderMap) -> Response<Body> {
    let mut response = match page {
        _ if *method != Method::GET && *method != Method::HEAD => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        Page::NoSlash => {
            let mut response = text(StatusCode::PERMANENT_REDIRECT, "ui/\n");
            // Relative: what stands before it, a prefix or a proxy's own path, stays.
            response
                .headers_mut()
                .insert(LOCATION, HeaderValue::from_static("ui/"));
            response
        }
        Page::File(path) => match ASSETS.iter().position(|asset| asset.path == path) {
            Some(number) => file(number, headers),
            None => text(StatusCode::NOT_FOUND, "there is no such page here\n"),
        },
    };
    protect(response.headers_mut());
    response
}

fn text(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn file(number: usize, asked: &HeaderMap) -> Response<Body> {
    let asset = &ASSETS[number];
    let (coding, bytes) = choose(asset, asked);
    let tag = tag(number, coding);
    let mut response = if matches(asked, &tag) {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::from(Bytes::from_static(bytes)))
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind(asset.path)));
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static(if asset.path.starts_with("assets/") {
            FOR_EVER
        } else {
            ASK_AGAIN
        }),
    );
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// The smallest form of a file that the client takes, and that form's name.
fn choose(asset: &Asset, asked: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
    if let Some(bytes) = asset.brotli.filter(|_| takes(asked, "br")) {
        return (Some("br"), bytes);
    }
    if let Some(bytes) = asset.gzip.filter(|_| takes(asked, "gzip")) {
        return (Some("gzip"), bytes);
    }
    (None, asset.plain)
}

/// Whether `Accept-Encoding` names a coding, or everything, and not with a weight of zero (RFC 9110, section 12.5.3).
fn takes(headers: &HeaderMap, coding: &str) -> bool {
    let mut answer = None;
    let lines = headers.get_all(ACCEPT_ENCODING).iter();
    for item in lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
    {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts
            .filter_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")))
            .any(|weight| {
                weight
                    .trim()
                    .parse::<f32>()
                    .is_ok_and(|weight| weight <= 0.0)
            });
        if name.eq_ignore_ascii_case(coding) {
            return !refused;
        }
        if name == "*" {
            answer = Some(!refused);
        }
    }
    answer.unwrap_or(false)
}

/// A strong tag: every form of a file has its own.
fn tag(number: usize, coding: Option<&str>) -> String {
    static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let hash = |asset: &Asset| URL_SAFE_NO_PAD.encode(&Sha256::digest(asset.plain)[..12]);
        ASSETS.iter().map(hash).collect()
    });
    format!("\"{}-{}\"", HASHES[number], coding.unwrap_or("plain"))
}

/// Whether the client has this very form already. `If-None-Match` compares weakly (RFC 9110, section 13.1.2).
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|item| item == "*" || item.strip_prefix("W/").unwrap_or(item) == tag)
}

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // For browsers that know no `frame-ancestors`.
        (X_FRAME_OPTIONS, "DENY"),
        (OPENER_POLICY, "same-origin"),
        (RESOURCE_POLICY, "same-origin"),
        (PERMISSIONS_POLICY, PERMISSIONS),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests;

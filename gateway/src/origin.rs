//! Which web pages may ask: those of this very host, and those the administrator lists. Pure.
//!
//! A browser sends a WebSocket request for any page, so the page must be looked at. Programs send no `Origin`; cookies are
//! never a credential here, so a page that passes still has to bring a token.

use std::str::FromStr;

use http::header::{HOST, ORIGIN};
use http::uri::{Authority, Uri};
use http::{HeaderMap, HeaderValue};

use crate::refusal::{Kind, Refusal};

/// One allowed origin: scheme, host and port, e.g. `https://console.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// Not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is a scheme and a host, with a port if it is not the scheme's own: https://console.example.com:8443"
)]
pub struct NotAnOrigin;

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        // `Uri` gives a bare origin the path `/`; an origin has none in its text.
        if text.ends_with('/') {
            return Err(NotAnOrigin);
        }
        let uri: Uri = text.parse().map_err(|_| NotAnOrigin)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(NotAnOrigin);
        };
        let default = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err(NotAnOrigin),
        };
        if uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(NotAnOrigin);
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            host: authority.host().to_ascii_lowercase(),
            port: port(authority, default)?,
        })
    }
}

fn port(authority: &Authority, default: u16) -> Result<u16, NotAnOrigin> {
    let after_host = &authority.as_str()[authority.host().len()..];
    match (after_host, authority.port_u16()) {
        ("", _) => Ok(default),
        (_, Some(port)) => Ok(port),
        (_, None) => Err(NotAnOrigin), // a colon without a number that fits
    }
}

/// Refuses a request that a page of another site made.
///
/// # Errors
/// [`Kind::ForeignOrigin`] when `Origin` is there and is neither of the host the request was sent to nor among `allowed`:
/// `null`, two of them, and what cannot be read included.
pub fn check(headers: &HeaderMap, allowed: &[Origin]) -> Result<(), Refusal> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let origin = match (origins.next(), origins.next()) {
        (None, _) => return Ok(()),
        (Some(origin), None) => origin,
        (Some(_), Some(_)) => return Err(foreign()),
    };
    let origin: Origin = text(origin)?.parse().map_err(|_| foreign())?;
    if allowed.contains(&origin) || same_host(headers, &origin)? {
        return Ok(());
    }
    Err(foreign())
}

fn same_host(headers: &HeaderMap, origin: &Origin) -> Result<bool, Refusal> {
    let Some(host) = headers.get(HOST) else {
        return Ok(false);
    };
    // The port that `Host` leaves out is the one of the scheme the page was loaded with.
    let named: Result<Origin, _> = format!("{}://{}", origin.scheme, text(host)?).parse();
    Ok(named.is_ok_and(|named| named == *origin))
}

fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    value.to_str().map_err(|_| foreign())
}

fn foreign() -> Refusal {
    Refusal::new(
        Kind::ForeignOrigin,
        "this page's origin may not use the gateway; the administrator can allow it with --allow-origin",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(host: &str, origins: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("a value"));
        for origin in origins {
            headers.append(
                ORIGIN,
                HeaderValue::from_bytes(origin.as_bytes()).expect("a value"),
            );
        }
        headers
    }

    #[test]
    fn only_pages_of_this_host_or_of_the_list_may_ask() {
        let allowed = ["https://console.example.com".parse().expect("an origin")];
        for (host, origins, ok) in [
            ("gw.example.com", &[][..], true),
            ("gw.example.com", &["https://gw.example.com"][..], true),
            ("gw.example.com", &["https://GW.example.com:443"][..], true),
            (
                "gw.example.com:8443",
                &["https://gw.example.com:8443"][..],
                true,
            ),
            ("gw.example.com", &["https://console.example.com"][..], true),
            (
                "gw.example.com",
                &["https://console.example.com:444"][..],
                false,
            ),
            ("gw.example.com", &["http://console.example.com"][..], false),
            (
                "gw.example.com",
                &["https://gw.example.com:8443"][..],
                false,
            ),
            (
                "gw.example.com",
                &["https://gw.example.com.evil.example"][..],
                false,
            ),
            ("gw.example.com", &["https://evil.example"][..], false),
            ("gw.example.com", &["null"][..], false),
            ("gw.example.com", &[""][..], false),
            ("gw.example.com", &["file://"][..], false),
            ("gw.example.com", &["https://gw.example.com/"][..], false),
            ("gw.example.com", &["https://x@gw.example.com"][..], false),
            (
                "gw.example.com",
                &["https://gw.example.com", "https://gw.example.com"][..],
                false,
            ),
            (
                "gw.example.com",
                &["https://gw.example.com\u{e9}"][..],
                false,
            ),
        ] {
            assert_eq!(
                check(&headers(host, origins), &allowed).is_ok(),
                ok,
                "{host} {origins:?}"
            );
        }
    }

    #[test]
    fn a_request_without_a_host_is_nobodys_page() {
        let mut headers = headers("gw.example.com", &["https://gw.example.com"]);
        headers.remove(HOST);
        assert!(check(&headers, &[]).is_err());
    }

    proptest! {
        #[test]
        fn no_origin_passes_that_does_not_end_in_our_host(host in "[a-z.:0-9]{0,12}", origin in "[ -~]{0,40}") {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(&host).expect("visible"));
            headers.insert(ORIGIN, HeaderValue::from_str(&origin).expect("visible"));
            if check(&headers, &[]).is_ok() {
                let bare = host.split(':').next().unwrap_or_default();
                prop_assert!(origin.to_ascii_lowercase().contains(bare) && origin.contains("://"));
            }
        }
    }
}

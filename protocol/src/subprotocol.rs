//! Subprotocols: what a client offers, the bearer token it may hide among the offers, and what both sides settle on.

mod upstream;

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use thiserror::Error;

pub use upstream::{SelectedError, UPSTREAM_OFFER, UpstreamOffer, UpstreamOfferError};

use crate::encoding::Encoding;
use crate::frame::Opcode;
use crate::transcode::Streams;

/// Most items in all `Sec-WebSocket-Protocol` lines of one request. Clients send up to six.
pub const MAX_ITEMS: usize = 32;

/// Most bytes in all `Sec-WebSocket-Protocol` lines of one request: room for a token of 12 KiB.
pub const MAX_BYTES: usize = 16 * 1024;

/// What the item that carries a token begins with (kubernetes/kubernetes#47740). Case matters.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// Go's `base64.RawURLEncoding`: no padding, trailing bits allowed.
const BEARER_BASE64: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// A subprotocol of exec and attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subprotocol {
    /// None: what a peer speaks that names no subprotocol. The same as [`Subprotocol::Channel`] but for the header.
    Unnamed,
    /// `channel.k8s.io`
    Channel,
    /// `base64.channel.k8s.io`
    Base64,
    /// `v4.channel.k8s.io`
    V4,
    /// `v4.base64.channel.k8s.io`
    V4Base64,
    /// `v5.channel.k8s.io`
    V5,
}

/// How the end of the remote process is told on channel 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusFormat {
    /// Success: nothing. Failure: its message, in words.
    Text,
    /// A Kubernetes `Status` object in either case.
    Json,
}

impl Subprotocol {
    /// All of them, oldest first.
    pub const ALL: [Self; 6] = [
        Self::Unnamed,
        Self::Channel,
        Self::Base64,
        Self::V4,
        Self::V4Base64,
        Self::V5,
    ];

    /// The name in `Sec-WebSocket-Protocol`; empty for [`Subprotocol::Unnamed`], which must not be written there.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unnamed => "",
            Self::Channel => "channel.k8s.io",
            Self::Base64 => "base64.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V4Base64 => "v4.base64.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }

    /// The subprotocol of that name. Case matters.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.name() == name)
    }

    /// How data messages are laid out.
    #[must_use]
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::Base64 | Self::V4Base64 => Encoding::Base64,
            Self::Unnamed | Self::Channel | Self::V4 | Self::V5 => Encoding::Binary,
        }
    }

    /// The opcode to send data messages with. Either is accepted: the servers do not look, and the Python client sends
    /// text on every subprotocol.
    #[must_use]
    pub const fn data_opcode(self) -> Opcode {
        match self.encoding() {
            Encoding::Binary => Opcode::Binary,
            Encoding::Base64 => Opcode::Text,
        }
    }

    /// How the end of the process is told.
    #[must_use]
    pub const fn status_format(self) -> StatusFormat {
        match self {
            Self::Unnamed | Self::Channel | Self::Base64 => StatusFormat::Text,
            Self::V4 | Self::V4Base64 | Self::V5 => StatusFormat::Json,
        }
    }

    /// Whether the end of stdin can be told: the message `FF 00`.
    #[must_use]
    pub const fn has_stdin_close(self) -> bool {
        matches!(self, Self::V5)
    }
}

/// A bearer token. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer(String);

impl Bearer {
    /// The token itself, to authenticate with and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Bearer {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Bearer(…)")
    }
}

/// What a client offers, all `Sec-WebSocket-Protocol` lines together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The token from the bearer item, if there is one and it is not empty.
    pub bearer: Option<Bearer>,
    /// The subprotocols we know, in the client's order, each once.
    known: Vec<Subprotocol>,
    /// Whether the client offered anything, known or not.
    any: bool,
}

/// Why an offer is refused: 400 for the first two, 401 for those about the token. None holds a byte of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum OfferError {
    /// More than [`MAX_ITEMS`].
    #[error("more than {MAX_ITEMS} subprotocols offered")]
    TooManyItems,
    /// More than [`MAX_BYTES`].
    #[error("more than {MAX_BYTES} bytes of subprotocols offered")]
    TooLong,
    /// Two items carry a token, even if one or both are empty.
    #[error("more than one bearer token among the subprotocols: send one")]
    ManyBearers,
    /// The token is not base64url without padding.
    #[error("the bearer token among the subprotocols is not base64url without padding")]
    BearerEncoding,
    /// The token is base64url, but not of UTF-8.
    #[error("the bearer token among the subprotocols is not UTF-8")]
    BearerNotText,
    /// Nothing but the token was offered, so there is nothing the server could answer with.
    #[error(
        "a bearer token is the only subprotocol offered: offer v5.channel.k8s.io or v4.channel.k8s.io beside it"
    )]
    BearerAlone,
}

impl OfferError {
    /// Whether the token is at fault: the request is then unauthenticated (401), whatever else it carries.
    #[must_use]
    pub const fn is_about_bearer(self) -> bool {
        match self {
            Self::TooManyItems | Self::TooLong => false,
            Self::ManyBearers | Self::BearerEncoding | Self::BearerNotText | Self::BearerAlone => {
                true
            }
        }
    }
}

impl Offer {
    /// Reads the values of all `Sec-WebSocket-Protocol` lines, in order. Each is a comma list; empty items count for
    /// nothing.
    ///
    /// # Errors
    /// The rules for the token are Kubernetes' own (`apiserver/pkg/authentication/request/websocket/protocol.go`); the
    /// bounds are [`MAX_ITEMS`] and [`MAX_BYTES`].
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, OfferError> {
        let mut offer = Self {
            bearer: None,
            known: Vec::new(),
            any: false,
        };
        let mut bearer = None;
        let (mut items, mut bytes, mut others) = (0, 0, false);
        for line in lines {
            bytes += line.len();
            if bytes > MAX_BYTES {
                return Err(OfferError::TooLong);
            }
            for item in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if item.is_empty() {
                    continue;
                }
                items += 1;
                if items > MAX_ITEMS {
                    return Err(OfferError::TooManyItems);
                }
                offer.any = true;
                if let Some(encoded) = item.strip_prefix(BEARER.as_bytes()) {
                    if bearer.replace(decode_bearer(encoded)?).is_some() {
                        return Err(OfferError::ManyBearers);
                    }
                    continue;
                }
                others = true;
                let known = str::from_utf8(item).ok().and_then(Subprotocol::from_name);
                if let Some(protocol) = known.filter(|protocol| !offer.known.contains(protocol)) {
                    offer.known.push(protocol);
                }
            }
        }
        offer.bearer = bearer.filter(|token| !token.0.is_empty());
        if offer.bearer.is_some() && !others {
            return Err(OfferError::BearerAlone);
        }
        Ok(offer)
    }

    /// The subprotocols we know among those offered, in the client's order, each once. Empty when nothing was offered.
    #[must_use]
    pub fn protocols(&self) -> &[Subprotocol] {
        &self.known
    }

    /// The first subprotocol in the client's order that is allowed. A client that offers nothing at all offers
    /// [`Subprotocol::Unnamed`]; one that offers only what we do not know gets `None`.
    pub fn negotiate(&self, allowed: impl Fn(Subprotocol) -> bool) -> Option<Subprotocol> {
        if self.any {
            self.known
                .iter()
                .copied()
                .find(|protocol| allowed(*protocol))
        } else {
            Some(Subprotocol::Unnamed).filter(|protocol| allowed(*protocol))
        }
    }

    /// The subprotocol to speak with the client when the upstream speaks `upstream`: the client's order, except that v5
    /// promises an end of stdin which only a v5 upstream can be told. Then v4 goes first if the client offers it, and
    /// v5 is out of the question for a session that needs the end of stdin ([`loses_stdin_end`]).
    #[must_use]
    pub fn negotiate_for(&self, upstream: Subprotocol, streams: Streams) -> Option<Subprotocol> {
        let first = self.negotiate(|_| true)?;
        if first.has_stdin_close() && !upstream.has_stdin_close() {
            let v4 = self
                .negotiate(|protocol| matches!(protocol, Subprotocol::V4 | Subprotocol::V4Base64));
            return v4.or_else(|| {
                self.negotiate(|protocol| !loses_stdin_end(protocol, upstream, streams))
            });
        }
        Some(first)
    }
}

/// Whether a client would wait for something that cannot happen: it will tell the end of stdin, the remote process waits
/// for that end (`cat`, `tar -x`), and the upstream has no word for it. On a TTY the byte `04` is that word.
#[must_use]
pub fn loses_stdin_end(client: Subprotocol, upstream: Subprotocol, streams: Streams) -> bool {
    client.has_stdin_close() && !upstream.has_stdin_close() && streams.stdin && !streams.tty
}

fn decode_bearer(encoded: &[u8]) -> Result<Bearer, OfferError> {
    let token = BEARER_BASE64
        .decode(encoded)
        .map_err(|_| OfferError::BearerEncoding)?;
    String::from_utf8(token)
        .map(Bearer)
        .map_err(|_| OfferError::BearerNotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Result<Offer, OfferError> {
        Offer::parse(lines.iter().map(|line| line.as_bytes()))
    }

    const TOKEN: &str = "base64url.bearer.authorization.k8s.io.bXl0b2tlbg";

    #[test]
    fn the_first_subprotocol_in_the_clients_order_wins() {
        use Subprotocol::{Base64, Channel, Unnamed, V4, V4Base64, V5};
        for (lines, expected) in [
            (&[][..], Some(Unnamed)),
            (&[""], Some(Unnamed)),
            (&[" , ,"], Some(Unnamed)),
            (&["v5.channel.k8s.io,v4.channel.k8s.io"], Some(V5)),
            (
                &["v4.base64.channel.k8s.io, v5.channel.k8s.io"],
                Some(V4Base64),
            ),
            (&["base64.binary.k8s.io, v4.channel.k8s.io"], Some(V4)),
            (
                &["v3.channel.k8s.io", "v4.channel.k8s.io , channel.k8s.io"],
                Some(V4),
            ),
            (&["channel.k8s.io"], Some(Channel)),
            (&["base64.channel.k8s.io"], Some(Base64)),
            (&["v3.channel.k8s.io"], None),
            (&["v2.channel.k8s.io", "v1.channel.k8s.io"], None),
            (&["v5.base64.channel.k8s.io"], None),
            (&["V4.channel.k8s.io"], None),
            (&["binary.k8s.io"], None),
            (&["v4.channel.k8s.io;q=1"], None),
        ] {
            assert_eq!(
                parse(lines).expect("readable").negotiate(|_| true),
                expected,
                "{lines:?}"
            );
        }
        let offer = parse(&["v5.channel.k8s.io, v4.channel.k8s.io"]).expect("readable");
        assert_eq!(offer.negotiate(|protocol| protocol != V5), Some(V4));
        assert_eq!(offer.negotiate(|_| false), None);
        assert_eq!(
            parse(&[])
                .expect("readable")
                .negotiate(|protocol| protocol != Unnamed),
            None
        );
        assert_eq!(
            Offer::parse([&b"\xff\xfe"[..], b"v4.channel.k8s.io"])
                .expect("readable")
                .protocols(),
            [V4]
        );
    }

    #[test]
    fn the_bearer_item_is_split_off_and_every_doubt_refuses_it() {
        let with = |item: &str| parse(&[item, "v4.channel.k8s.io"]);
        let prefix = |encoded: &str| format!("{BEARER}{encoded}");
        for (encoded, token) in [
            ("bXl0b2tlbg", "mytoken"),
            ("YT9iPmN-", "a?b>c~"),
            ("w6k", "é"),
        ] {
            let offer = with(&prefix(encoded)).expect("good token");
            assert_eq!(offer.bearer.as_ref().map(Bearer::expose), Some(token));
            assert_eq!(offer.protocols(), [Subprotocol::V4]);
            assert!(!format!("{offer:?}").contains(token));
        }
        for (encoded, error) in [
            ("bXl0b2tlbg==", OfferError::BearerEncoding),
            ("YT9iPmN/", OfferError::BearerEncoding),
            ("YT9iPmN+", OfferError::BearerEncoding),
            ("bXl0b2tlb", OfferError::BearerEncoding),
            ("bXl 0b2tlbg", OfferError::BearerEncoding),
            ("_w", OfferError::BearerNotText),
        ] {
            assert_eq!(with(&prefix(encoded)), Err(error), "{encoded}");
            assert!(error.is_about_bearer());
        }
        assert_eq!(with(BEARER).expect("empty is absent").bearer, None);
        assert_eq!(
            parse(&[BEARER])
                .expect("empty is absent")
                .negotiate(|_| true),
            None
        );
        assert_eq!(parse(&[TOKEN]), Err(OfferError::BearerAlone));
        assert_eq!(parse(&[TOKEN, " , "]), Err(OfferError::BearerAlone));
        assert_eq!(
            parse(&[TOKEN, TOKEN, "v4.channel.k8s.io"]),
            Err(OfferError::ManyBearers)
        );
        assert_eq!(
            parse(&[BEARER, TOKEN, "v4.channel.k8s.io"]),
            Err(OfferError::ManyBearers)
        );
        assert_eq!(parse(&[BEARER, BEARER]), Err(OfferError::ManyBearers));
        // The prefix in another case is just a subprotocol nobody knows.
        let upper = parse(&["Base64URL.bearer.authorization.k8s.io.bXl0b2tlbg, v4.channel.k8s.io"])
            .expect("readable");
        assert_eq!(
            (upper.bearer.is_none(), upper.protocols()),
            (true, &[Subprotocol::V4][..])
        );
        // Token and only unknown subprotocols: authenticated, then refused for want of a subprotocol.
        let unknown = parse(&[TOKEN, "binary.k8s.io"]).expect("readable");
        assert!(unknown.bearer.is_some() && unknown.negotiate(|_| true).is_none());
    }

    #[test]
    fn offers_are_bounded_in_items_and_bytes() {
        let items = |count: usize| vec!["x"; count].join(",");
        assert!(parse(&[&items(MAX_ITEMS)]).is_ok());
        assert_eq!(
            parse(&[&items(MAX_ITEMS), "x"]),
            Err(OfferError::TooManyItems)
        );
        assert!(parse(&[&"x".repeat(MAX_BYTES)]).is_ok());
        assert_eq!(
            parse(&[&"x".repeat(MAX_BYTES), "x"]),
            Err(OfferError::TooLong)
        );
        assert!(
            !OfferError::TooLong.is_about_bearer() && !OfferError::TooManyItems.is_about_bearer()
        );
    }

    #[test]
    fn v5_is_declined_only_where_the_end_of_stdin_would_be_lost() {
        use Subprotocol::{Base64, V4, V4Base64, V5};
        let all = Streams {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let terminal = Streams {
            stderr: false,
            tty: true,
            ..all
        };
        let no_stdin = Streams {
            stdin: false,
            ..all
        };
        let both = parse(&["v5.channel.k8s.io, v4.channel.k8s.io"]).expect("readable");
        let kubectl = parse(&["v5.channel.k8s.io"]).expect("readable");
        let odd = parse(&["v5.channel.k8s.io, base64.channel.k8s.io"]).expect("readable");
        for (offer, upstream, streams, expected) in [
            (&both, V5, all, Some(V5)),
            (&both, V4, all, Some(V4)),
            (&both, V4, terminal, Some(V4)),
            (&both, V4Base64, no_stdin, Some(V4)),
            (&kubectl, V5, all, Some(V5)),
            (&kubectl, V4, all, None),
            (&kubectl, V4, terminal, Some(V5)),
            (&kubectl, V4, no_stdin, Some(V5)),
            (&odd, V4, all, Some(Base64)),
            (&odd, V4, terminal, Some(V5)),
        ] {
            assert_eq!(
                offer.negotiate_for(upstream, streams),
                expected,
                "{offer:?} {upstream:?} {streams:?}"
            );
        }
    }
}

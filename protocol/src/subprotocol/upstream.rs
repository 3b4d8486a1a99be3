//! What we offer an upstream, and what it chose.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::Subprotocol;

/// What we offer an upstream, in order of preference.
///
/// The servers read only the first header line, and answer an offer of nothing with an empty header, so the offer is
/// always one line, and empty only if [`Subprotocol::Unnamed`] is what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamOffer(Vec<Subprotocol>);

/// What is offered unless somebody says otherwise: v5 for the end of stdin, v4 because every server has it.
pub const UPSTREAM_OFFER: [Subprotocol; 2] = [Subprotocol::V5, Subprotocol::V4];

impl Default for UpstreamOffer {
    fn default() -> Self {
        Self(UPSTREAM_OFFER.to_vec())
    }
}

/// Why a list of subprotocols cannot be offered to an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpstreamOfferError {
    /// A name that no exec server knows.
    #[error(
        "unknown subprotocol {0:?}: use v5.channel.k8s.io, v4.channel.k8s.io, v4.base64.channel.k8s.io, channel.k8s.io or base64.channel.k8s.io"
    )]
    Unknown(String),
    /// A name twice.
    #[error("{0} is listed twice")]
    Twice(&'static str),
}

impl FromStr for UpstreamOffer {
    type Err = UpstreamOfferError;

    /// Reads a comma list of names. The empty list offers nothing, and so asks for [`Subprotocol::Unnamed`].
    fn from_str(list: &str) -> Result<Self, UpstreamOfferError> {
        let mut offered = Vec::new();
        for name in list.split(',').map(str::trim) {
            let protocol = Subprotocol::from_name(name)
                .filter(|protocol| *protocol != Subprotocol::Unnamed || list.trim().is_empty())
                .ok_or_else(|| UpstreamOfferError::Unknown(name.to_owned()))?;
            if offered.contains(&protocol) {
                return Err(UpstreamOfferError::Twice(protocol.name()));
            }
            offered.push(protocol);
        }
        Ok(Self(offered))
    }
}

impl fmt::Display for UpstreamOffer {
    /// The list as [`UpstreamOffer::from_str`] reads it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, protocol) in self.0.iter().enumerate() {
            formatter.write_str(if index == 0 { "" } else { ", " })?;
            formatter.write_str(protocol.name())?;
        }
        Ok(())
    }
}

/// An upstream's answer does not fit what it was offered; nothing may be sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SelectedError {
    /// It chose none although some were offered.
    #[error("the upstream chose no subprotocol")]
    Nothing,
    /// It chose one that was not offered.
    #[error("the upstream chose a subprotocol that was not offered")]
    NotOffered,
}

impl UpstreamOffer {
    /// The value of the one `Sec-WebSocket-Protocol` line to send; `None` to send no such line.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        Some(self.to_string()).filter(|value| !value.is_empty())
    }

    /// What the upstream chose. `header` is the value of `Sec-WebSocket-Protocol` in its response.
    ///
    /// # Errors
    /// It must be one of those offered, and nothing (or the empty header that Go servers send) if none was.
    pub fn selected(&self, header: Option<&[u8]>) -> Result<Subprotocol, SelectedError> {
        let name = header.unwrap_or_default().trim_ascii();
        let chosen = str::from_utf8(name).ok().and_then(Subprotocol::from_name);
        match chosen {
            Some(protocol) if self.0.contains(&protocol) => Ok(protocol),
            Some(Subprotocol::Unnamed) => Err(SelectedError::Nothing),
            _ => Err(SelectedError::NotOffered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_may_choose_only_what_it_was_offered() {
        let default = UpstreamOffer::default();
        assert_eq!(
            default.header().as_deref(),
            Some("v5.channel.k8s.io, v4.channel.k8s.io")
        );
        assert_eq!(
            default.selected(Some(b"v4.channel.k8s.io")),
            Ok(Subprotocol::V4)
        );
        assert_eq!(default.selected(None), Err(SelectedError::Nothing));
        assert_eq!(default.selected(Some(b"")), Err(SelectedError::Nothing));
        assert_eq!(
            default.selected(Some(b"channel.k8s.io")),
            Err(SelectedError::NotOffered)
        );
        assert_eq!(
            default.selected(Some(b"v5.channel.k8s.io, v4.channel.k8s.io")),
            Err(SelectedError::NotOffered)
        );
        let nothing: UpstreamOffer = "".parse().expect("offers nothing");
        assert_eq!(nothing.header(), None);
        assert_eq!(nothing.selected(Some(b"")), Ok(Subprotocol::Unnamed));
        assert_eq!(nothing.selected(None), Ok(Subprotocol::Unnamed));
        assert_eq!(
            nothing.selected(Some(b"v4.channel.k8s.io")),
            Err(SelectedError::NotOffered)
        );
        let base64: UpstreamOffer = "v4.base64.channel.k8s.io,base64.channel.k8s.io"
            .parse()
            .expect("known names");
        assert_eq!(base64.to_string().parse(), Ok(base64));
        for bad in [
            "v3.channel.k8s.io",
            "v4.channel.k8s.io,",
            "v4.channel.k8s.io,v4.channel.k8s.io",
        ] {
            assert!(bad.parse::<UpstreamOffer>().is_err(), "{bad}");
        }
    }
}

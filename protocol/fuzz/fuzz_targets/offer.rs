//! Offers of subprotocols: no lines make the parser panic, keep more than its bound, or leak a token.
#![no_main]

use drawbridge_protocol::subprotocol::{Bearer, MAX_BYTES, Offer, Subprotocol, UpstreamOffer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: Vec<&[u8]>| {
    if let Ok(offer) = Offer::parse(lines.iter().copied()) {
        assert!(offer.protocols().len() <= Subprotocol::ALL.len());
        let chosen = offer.negotiate(|_| true);
        assert_eq!(chosen, offer.negotiate(|protocol| Some(protocol) == chosen));
        if let Some(token) = offer.bearer.as_ref().map(Bearer::expose) {
            assert!(!token.is_empty() && token.len() <= MAX_BYTES);
            assert_eq!(format!("{:?}", offer.bearer), "Some(Bearer(…))");
        }
    }
    for line in lines {
        let _ = UpstreamOffer::default().selected(Some(line));
        if let Some(offer) = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.parse::<UpstreamOffer>().ok())
        {
            assert_eq!(offer.to_string().parse(), Ok(offer));
        }
    }
});

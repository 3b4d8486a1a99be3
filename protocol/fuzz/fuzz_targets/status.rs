//! Statuses: what is read makes sense, what is written fits and is read back.
#![no_main]

use drawbridge_protocol::status::{MAX_JSON, Reason, Received, Status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for received in Received::parse(bytes)
        .into_iter()
        .chain([Received::from_prose(bytes)])
    {
        assert_eq!(received.prose().is_none(), received == Received::Success);
        assert!(!matches!(received, Received::Exit { code: 0, .. }));
    }
    assert_ne!(Received::from_prose(bytes), Received::Success);
    let text = String::from_utf8_lossy(bytes);
    for status in [
        Status::internal(&*text),
        Status::new(Reason::Forbidden, &*text),
    ] {
        for json in [status.channel_json(), status.http_json()] {
            assert!(json.len() <= MAX_JSON);
            assert!(matches!(
                Received::parse(&json),
                Some(Received::Failure { .. })
            ));
        }
    }
});

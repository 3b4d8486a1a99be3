//! Terminal sizes: whatever came before, the next good size works.
#![no_main]

use drawbridge_protocol::resize::{ResizeParser, Size};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|messages: Vec<&[u8]>| {
    let mut parser = ResizeParser::default();
    for message in messages {
        if let Some(size) = parser.push(message) {
            let json = size.json();
            assert!(json.len() <= Size::JSON);
            assert_eq!(ResizeParser::default().push(json.as_bytes()), Some(size));
        }
    }
    let good = Size::new(81, 25);
    assert_eq!(parser.push(br#"{"Width":81,"Height":25}"#), good);
    assert_eq!(parser.push(br#"{"height":25,"width":81}"#), good);
});

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn named(name: &str) -> Subprotocol {
    choose(name, Release::V1_36).unwrap()
}

fn report(name: &str, end: &End, release: Release) -> String {
    let told = named(name).report(end.clone(), "sh -c exit 3", release);
    told.unwrap_or_default()
}

#[test]
fn the_end_is_told_in_each_releases_words() {
    const V4: &str = "v4.channel.k8s.io";
    let prose = "command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3";
    let translated =
        "command terminated with non-zero exit code: command terminated with exit code 3";
    for (name, release, metadata, message) in [
        (V5, Release::V1_36, true, translated),
        (V4, Release::V1_20, true, prose),
        ("v4.base64.channel.k8s.io", Release::V1_36, false, prose),
    ] {
        let status: Value = serde_json::from_str(&report(name, &Ok(3), release)).unwrap();
        assert_eq!(status["message"], message, "{name}");
        assert_eq!(status.get("metadata").is_some(), metadata, "{name}");
        assert_eq!(status["details"]["causes"][0]["message"], "3", "{name}");
        let success: Value = serde_json::from_str(&report(name, &Ok(0), release)).unwrap();
        assert_eq!(success["status"], "Success", "{name}");
        let failed = report(name, &Err("x".to_owned()), release);
        assert_eq!(failed.contains("causes"), metadata, "{name}");
    }
    for name in ["", "channel.k8s.io", "base64.channel.k8s.io"] {
        assert_eq!(report(name, &Ok(3), Release::V1_36), prose);
        assert_eq!(report(name, &Ok(0), Release::V1_36), "");
    }
}

#[test]
fn the_clients_order_counts_unless_v5_is_known() {
    let (old, new) = (Release::V1_20, Release::V1_30);
    let choose = |offer, release| choose(offer, release).map(|protocol| protocol.0);
    let v4_v5 = "v4.channel.k8s.io, v5.channel.k8s.io";
    assert_eq!(choose(v4_v5, new), Some(V5));
    assert_eq!(choose(v4_v5, old), Some("v4.channel.k8s.io"));
    assert_eq!(choose("", new), Some(""));
    assert_eq!(choose(V5, old), None);
    assert_eq!(choose("v3.channel.k8s.io", new), None);
    assert_eq!(choose("v5.base64.channel.k8s.io", new), None);
    let two = "v4.base64.channel.k8s.io, channel.k8s.io";
    assert_eq!(choose(two, new), Some("v4.base64.channel.k8s.io"));
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_again_and_nothing_panics(channel in 0u8..5, data: Vec<u8>) {
        for protocol in ALL.map(Subprotocol) {
            let frame = protocol.encode(channel, &data);
            prop_assert_eq!(protocol.decode(frame.payload()), Some((channel, data.clone().into())));
            let _ = protocol.decode(&data);
        }
    }
}

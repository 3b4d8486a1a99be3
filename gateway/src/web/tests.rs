use http_body_util::BodyExt as _;
use proptest::prelude::*;

use super::*;

fn ask(path: &str, headers: &[(HeaderName, &str)]) -> Response<Body> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, HeaderValue::from_str(value).expect("a header"));
    }
    serve(&Page::File(path.into()), &Method::GET, &map)
}

fn header(response: &Response<Body>, name: impl http::header::AsHeaderName) -> &str {
    let value = response.headers().get(name).expect("is there");
    value.to_str().expect("text")
}

async fn body(response: Response<Body>) -> Bytes {
    let body = response.into_body().collect().await.expect("is whole");
    body.to_bytes()
}

#[tokio::test]
async fn the_page_is_there_whether_npm_was_or_not() {
    let response = ask("index.html", &[]);
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, CONTENT_TYPE), "text/html; charset=utf-8");
    let page = body(response).await;
    assert!(page.starts_with(b"<!doctype html>"), "{page:?}");
}

#[tokio::test]
async fn every_file_the_page_names_is_there_and_is_text_of_its_kind() {
    let page = String::from_utf8(body(ask("index.html", &[])).await.to_vec()).expect("text");
    for name in page.split('"').filter_map(|part| part.strip_prefix("./")) {
        let response = ask(name, &[]);
        assert_eq!(response.status(), 200, "{name}");
        assert_ne!(
            header(&response, CONTENT_TYPE),
            "application/octet-stream",
            "{name}"
        );
        assert!(!body(response).await.is_empty(), "{name}");
    }
    assert!(!page.contains("://"), "the page names another host");
}

#[test]
fn every_answer_carries_the_policy_and_none_allows_inline_code() {
    let no_slash = serve(&Page::NoSlash, &Method::GET, &HeaderMap::new());
    let post = serve(
        &Page::File("index.html".into()),
        &Method::POST,
        &HeaderMap::new(),
    );
    for (response, code) in [
        (ask("index.html", &[]), 200),
        (ask("nothing", &[]), 404),
        (no_slash, 308),
        (post, 405),
    ] {
        assert_eq!(response.status(), code);
        let policy = header(&response, CONTENT_SECURITY_POLICY);
        for directive in [
            "default-src 'none'",
            "script-src 'self';",
            "style-src 'self';",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(directive), "{policy}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
        assert_eq!(header(&response, REFERRER_POLICY), "no-referrer");
        assert_eq!(header(&response, X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(header(&response, OPENER_POLICY), "same-origin");
        assert!(header(&response, PERMISSIONS_POLICY).contains("camera=()"));
    }
}

#[test]
fn the_page_is_asked_for_anew_and_what_it_names_is_kept_for_ever() {
    for (number, asset) in ASSETS.iter().enumerate() {
        let response = file(number, &HeaderMap::new());
        let want = if asset.path.starts_with("assets/") {
            FOR_EVER
        } else {
            ASK_AGAIN
        };
        assert_eq!(header(&response, CACHE_CONTROL), want, "{}", asset.path);
        assert_eq!(header(&response, VARY), "accept-encoding");
    }
    assert_eq!(header(&ask("nothing", &[]), CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    for (number, asset) in ASSETS.iter().enumerate() {
        let first = ask(asset.path, &[(ACCEPT_ENCODING, "gzip")]);
        let tag = header(&first, ETAG).to_owned();
        for sent in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"x\", {tag}"),
            "*".into(),
        ] {
            let again = ask(
                asset.path,
                &[(ACCEPT_ENCODING, "gzip"), (IF_NONE_MATCH, &sent)],
            );
            assert_eq!(again.status(), 304, "{sent}");
            assert_eq!(header(&again, ETAG), tag);
            assert!(body(again).await.is_empty());
        }
        let other = ask(asset.path, &[(IF_NONE_MATCH, "\"x\"")]);
        assert_eq!(other.status(), 200);
        if asset.gzip.is_some() {
            assert_ne!(super::tag(number, None), super::tag(number, Some("gzip")));
        }
    }
}

const FORMS: Asset = Asset {
    path: "assets/x.js",
    plain: b"plain",
    brotli: Some(b"brotli"),
    gzip: Some(b"gzip"),
};

fn chosen(accepted: &[&str]) -> Option<&'static str> {
    let mut headers = HeaderMap::new();
    for line in accepted {
        headers.append(ACCEPT_ENCODING, HeaderValue::from_str(line).expect("text"));
    }
    choose(&FORMS, &headers).0
}

#[test]
fn a_client_gets_the_smallest_form_it_takes() {
    for (accepted, want) in [
        (&[][..], None),
        (&["identity"], None),
        (&["gzip, deflate, br, zstd"], Some("br")),
        (&["gzip", "br"], Some("br")),
        (&["GZIP;q=0.5"], Some("gzip")),
        (&["br;q=0, gzip"], Some("gzip")),
        (&["br; q=0.000, gzip; Q=0"], None),
        (&["*"], Some("br")),
        (&["*, br;q=0"], Some("gzip")),
        (&["*;q=0"], None),
        (&["brotli, gzipped"], None),
    ] {
        assert_eq!(chosen(accepted), want, "{accepted:?}");
    }
}

#[tokio::test]
async fn the_forms_of_a_file_are_labelled_and_differ() {
    for asset in ASSETS {
        for (coding, bytes) in [("br", asset.brotli), ("gzip", asset.gzip)] {
            let Some(bytes) = bytes else { continue };
            assert!(bytes.len() < asset.plain.len(), "{}", asset.path);
            let response = ask(asset.path, &[(ACCEPT_ENCODING, coding)]);
            assert_eq!(header(&response, CONTENT_ENCODING), coding);
            assert_eq!(body(response).await, bytes);
        }
        let response = ask(asset.path, &[]);
        assert!(!response.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(body(response).await, asset.plain);
    }
}

#[test]
fn the_address_without_its_slash_leads_to_the_one_with_it() {
    let response = serve(&Page::NoSlash, &Method::GET, &HeaderMap::new());
    assert_eq!(header(&response, LOCATION), "ui/");
}

proptest! {
    #[test]
    fn no_other_path_finds_anything(path in "[./a-z%\\\\]{0,40}") {
        prop_assume!(path != "index.html");
        prop_assert_eq!(ask(&path, &[]).status(), 404);
    }

    #[test]
    fn no_accept_encoding_makes_it_panic(value in "[ -~]{0,60}") {
        let coding = chosen(&[&value]);
        prop_assert!(coding.is_none() || value.contains('*') || value.to_lowercase().contains(coding.expect("some")));
    }
}

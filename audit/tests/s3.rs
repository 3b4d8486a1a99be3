//! A store on S3, proved against a server that speaks it and that nobody here wrote.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![cfg(feature = "store")]

#[path = "common/s3.rs"]
mod s3;

use bytes::Bytes;
use drawbridge_audit::store::{Error, Store};
use futures_util::TryStreamExt as _;

/// A server with one bucket, `audit`; its address.
async fn server(dir: &tempfile::TempDir) -> String {
    std::fs::create_dir(dir.path().join("audit")).unwrap();
    s3::server(dir.path()).await
}

fn store(endpoint: &str, secret: &str) -> Store {
    let settings = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Store::configured("s3://audit/some/prefix", settings).unwrap()
}

#[tokio::test]
async fn s3_keeps_what_it_is_given_and_lists_and_deletes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server(&dir).await, "secret");
    let key = "recordings/shop/6f1c/one/00000000.seg";
    assert!(store.get(key, 10).await.unwrap_err().is_not_found());
    let segment: Bytes = (0..=255_u8).cycle().take(1 << 20).collect();
    store.put(key, Bytes::from_static(b"first")).await.unwrap();
    store.put(key, segment.clone()).await.unwrap();
    store
        .put("recordings/shop/other/x", Bytes::new())
        .await
        .unwrap();
    assert_eq!(store.get(key, 1 << 20).await.unwrap(), segment);
    assert!(matches!(
        store.get(key, 1000).await,
        Err(Error::TooLong { .. })
    ));
    let found: Vec<_> = store
        .list("recordings/shop/6f1c")
        .try_collect()
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].key.as_str(), found[0].bytes), (key, 1 << 20));
    assert_eq!(store.location(key), format!("s3://audit/some/prefix/{key}"));
    store.delete(key).await.unwrap();
    let left: Vec<_> = store.list("recordings").try_collect().await.unwrap();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn a_wrong_secret_is_an_error_that_does_not_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&server(&dir).await, "guessed");
    let error = store.put("x", Bytes::new()).await.unwrap_err();
    assert!(!format!("{error:?} {store:?}").contains("guessed"));
}

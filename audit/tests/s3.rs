//! A store on S3, proved against a server that speaks it and that nobody here wrote.

#![cfg(feature = "store")]

use bytes::Bytes;
use drawbridge_audit::store::{Error, Store};
use futures_util::TryStreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

/// A server with one bucket, `audit`, for one key pair; its address.
async fn server(dir: &std::path::Path) -> String {
    std::fs::create_dir(dir.join("audit")).unwrap();
    let mut service = S3ServiceBuilder::new(FileSystem::new(dir).unwrap());
    service.set_auth(SimpleAuth::from_single("key", "secret"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let builder = Builder::new(TokioExecutor::new());
                let served = builder.serve_connection(TokioIo::new(socket), service);
                let _ = served.await; // the client hangs up as it likes
            });
        }
    });
    format!("http://{addr}")
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
    let store = store(&server(dir.path()).await, "secret");
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
    let store = store(&server(dir.path()).await, "guessed");
    let error = store.put("x", Bytes::new()).await.unwrap_err();
    assert!(!format!("{error:?} {store:?}").contains("guessed"));
}

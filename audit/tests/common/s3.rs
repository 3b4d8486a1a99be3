//! A server that speaks S3 and that nobody here wrote.

use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

/// A server whose buckets are the directories in `dir`, for the key pair `key` and `secret`; its address.
pub(crate) async fn server(dir: &Path) -> String {
    let mut service = S3ServiceBuilder::new(FileSystem::new(dir).unwrap());
    service.set_auth(SimpleAuth::from_single("key", "secret"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
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
    format!("http://{address}")
}

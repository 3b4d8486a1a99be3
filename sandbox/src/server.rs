//! TLS, HTTP and the way of a request: who asks, may they, what goes wrong by order, then the answer.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::cluster::Cluster;

/// Body of an answer.
pub type Body = http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>;

/// Serves the API until the sandbox stops.
pub async fn serve(_cluster: Arc<Cluster>, _listener: TcpListener) {
    todo!("server")
}

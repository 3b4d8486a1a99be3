//! An admission webhook whose answer the path chooses: facts about webhooks name it in a configuration of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Longest review read, in bytes: an API server takes objects of 3 MiB.
const MAX_REVIEW: usize = 4 << 20;

/// Where it is, and whom to trust.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    /// `https://address:port`
    pub(crate) url: String,
    /// The authority's certificate, as `caBundle` wants it.
    pub(crate) bundle: String,
}

impl Webhook {
    /// Serves on an address the API server can reach us at, as long as the process lives.
    pub(crate) async fn start(us: SocketAddr) -> Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let cert =
            CertificateParams::new(vec![us.ip().to_string()])?.signed_by(&key, &authority)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let listener = TcpListener::bind((us.ip(), 0))
            .await
            .with_context(|| format!("failed to listen on {}", us.ip()))?;
        let url = format!("https://{}", listener.local_addr()?);
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls))));
        Ok(Self {
            url,
            bundle: STANDARD.encode(authority.pem()),
        })
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return; // a fact may name the wrong authority
            };
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = Limited::new(body, MAX_REVIEW).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    let review: Value = serde_json::from_slice(&body)?;
    let Some(response) = respond(&path, &review["request"]) else {
        let mut response = Response::new(Full::new(Bytes::from_static(b"out of order")));
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(response);
    };
    let mut response = response;
    response["uid"] = review["request"]["uid"].clone();
    let review = json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response});
    let mut response = Response::new(Full::new(Bytes::from(review.to_string())));
    response
        .headers_mut()
        .insert("content-type", "application/json".parse()?);
    Ok(response)
}

/// What the webhook at a path says to a request; `None`: that it is broken.
fn respond(path: &str, request: &Value) -> Option<Value> {
    let changed = |patch: Value| json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())});
    Some(match path {
        "/allow" => json!({"allowed": true}),
        "/deny" => json!({"allowed": false}),
        "/deny-with-words" => {
            json!({"allowed": false, "status": {"message": "not on my watch", "code": 418, "reason": "Teapot"}})
        }
        "/warn" => json!({"allowed": true, "warnings": ["mind the gap"]}),
        "/label" => {
            changed(json!([{"op": "add", "path": "/metadata/labels", "value": {"stamped": "yes"}}]))
        }
        // What it was asked, for the fact to look at: the object carries the request.
        "/show" => {
            let mut asked = request.clone();
            for big in ["object", "oldObject"] {
                asked[big] = (!asked[big].is_null()).into();
            }
            changed(
                json!([{"op": "add", "path": "/data", "value": {"asked": asked.to_string(),
                "user": request["userInfo"]["username"], "operation": request["operation"],
                "name": request["name"], "namespace": request["namespace"],
                "resource": request["resource"].to_string(), "kind": request["kind"].to_string(),
                "options": request["options"]["kind"], "dryRun": request["dryRun"].to_string(),
                "object": (!request["object"].is_null()).to_string(),
                "oldObject": (!request["oldObject"].is_null()).to_string()}}]),
            )
        }
        _ => return None,
    })
}

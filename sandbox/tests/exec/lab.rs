//! A sandbox for a test, and a client that sees every frame.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drawbridge_sandbox::auth::Identity;
use drawbridge_sandbox::store::Key;
use drawbridge_sandbox::{Call, Change, Cluster, Options, Release, Sandbox};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it took too long")
}

/// Waits until this is something.
pub(crate) async fn soon<T>(look: impl Fn() -> Option<T>) -> T {
    within(async {
        loop {
            match look() {
                Some(seen) => return seen,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
}

impl Lab {
    pub(crate) async fn start(release: Release) -> Self {
        let options = Options {
            release,
            ..Options::default()
        };
        Self {
            sandbox: Sandbox::start(options).await.unwrap(),
        }
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        self.sandbox.cluster()
    }

    /// About a pod of this name.
    fn call(&self, name: &str) -> Call {
        let kind = self.cluster().kinds.find("", "v1", "pods").unwrap();
        let who = Identity::sandbox("system:test");
        Call::new(who, &kind, "default", name, "")
    }

    /// A pod `web` with these containers, once `done` says so of it.
    pub(crate) async fn pod(&self, spec: Value, done: impl Fn(&Value) -> bool) -> Arc<Value> {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        for container in pod["spec"]["containers"].as_array_mut().unwrap() {
            container["image"] = "busybox".into();
        }
        let call = self.call("");
        let written = self.cluster().write(&call, Change::Create, &pod).await;
        written.unwrap();
        self.until(done).await
    }

    /// A pod with one container `app` that only waits.
    pub(crate) async fn sleeper(&self) -> Arc<Value> {
        self.pod(json!({"containers": [{"name": "app"}]}), running)
            .await
    }

    /// Deletes the pod with this grace, in seconds.
    pub(crate) async fn delete(&self, grace: i64) {
        let options = DeleteOptions {
            grace_period_seconds: Some(grace),
            ..DeleteOptions::default()
        };
        let deleted = self.cluster().delete(&self.call("web"), &options).await;
        deleted.unwrap();
    }

    /// Waits until the pod is so.
    pub(crate) async fn until(&self, done: impl Fn(&Value) -> bool) -> Arc<Value> {
        let key = Key {
            resource: "pods".into(),
            namespace: "default".to_owned(),
            name: "web".to_owned(),
        };
        within(async {
            loop {
                let store = &self.cluster().store;
                let mut watch = store.watch("pods", "", store.revision());
                let pod = store.get(&key).unwrap_or_default();
                if done(&pod) {
                    return pod;
                }
                watch.next().await.unwrap();
            }
        })
        .await
    }

    pub(crate) async fn connect(&self, kubelet: bool) -> TlsStream<TcpStream> {
        let cluster = self.cluster();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(cluster.pki.authority.as_bytes()).unwrap())
            .unwrap();
        let issued = cluster.pki.client("admin", &["system:masters"]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let address = if kubelet {
            cluster.kubelet
        } else {
            cluster.address
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// Opens a WebSocket; what came instead if it is refused.
    pub(crate) async fn try_open(
        &self,
        path: &str,
        offer: &str,
    ) -> Result<Shell, Response<Option<Vec<u8>>>> {
        let kubelet = !path.starts_with("/api");
        let stream = self.connect(kubelet).await;
        let mut request = format!("wss://127.0.0.1{path}")
            .into_client_request()
            .unwrap();
        request.headers_mut().insert(
            "sec-websocket-protocol",
            HeaderValue::from_str(offer).unwrap(),
        );
        let opened = Box::pin(tokio_tungstenite::client_async(request, stream));
        match within(opened).await {
            Ok((socket, _)) => Ok(Shell {
                socket,
                base64: offer.contains("base64"),
            }),
            Err(Error::Http(response)) => Err(*response),
            Err(other) => panic!("{other}"),
        }
    }

    /// Opens an exec into the pod.
    pub(crate) async fn exec(&self, query: &str, offer: &str) -> Shell {
        self.open("exec", query, offer).await
    }

    /// Opens an exec or attach.
    pub(crate) async fn open(&self, what: &str, query: &str, offer: &str) -> Shell {
        let path = format!("/api/v1/namespaces/default/pods/web/{what}?{query}");
        match self.try_open(&path, offer).await {
            Ok(shell) => shell,
            Err(response) => panic!("{response:?}"),
        }
    }

    /// Sends a request as it is and reads the answer to its end.
    pub(crate) async fn raw(&self, head: &str) -> String {
        let mut stream = self.connect(false).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The end may come without TLS being told.
        let _ = within(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A GET's answer: status and body.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    /// Processes that carry the sandbox's mark and have this in their command line.
    pub(crate) fn processes(&self, wanted: &str) -> Vec<u32> {
        let read = |pid: u32, file: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let dir = self.cluster().dir.display().to_string();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .filter(|pid| {
                read(*pid, "environ").contains(&dir) && read(*pid, "cmdline").contains(wanted)
            })
            .collect()
    }
}

/// Whether a pod's containers all run.
pub(crate) fn running(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// An open exec or attach.
pub(crate) struct Shell {
    pub(crate) socket: WebSocketStream<TlsStream<TcpStream>>,
    base64: bool,
}

/// What came until the end.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By channel.
    pub(crate) data: BTreeMap<u8, Vec<u8>>,
    /// Code of the Close; `None` if the connection just broke off.
    pub(crate) close: Option<u16>,
}

impl Told {
    pub(crate) fn text(&self, channel: u8) -> String {
        let data = self.data.get(&channel).cloned().unwrap_or_default();
        String::from_utf8_lossy(&data).into_owned()
    }
}

impl Shell {
    /// Sends data on a channel.
    pub(crate) async fn send(&mut self, channel: u8, data: &[u8]) {
        use base64::Engine as _;
        let message = if self.base64 {
            let text = base64::prelude::BASE64_STANDARD.encode(data);
            Message::text(format!("{channel}{text}"))
        } else {
            Message::binary([&[channel][..], data].concat())
        };
        within(self.socket.send(message)).await.unwrap();
    }

    /// The next data: channel and bytes.
    pub(crate) async fn next(&mut self) -> Option<Result<(u8, Vec<u8>), Message>> {
        use base64::Engine as _;
        match within(self.socket.next()).await?.ok()? {
            Message::Binary(data) => Some(Ok((data[0], data[1..].to_vec()))),
            Message::Text(text) => {
                let data = base64::prelude::BASE64_STANDARD.decode(&text[1..]).unwrap();
                Some(Ok((text.as_bytes()[0] - b'0', data)))
            }
            other => Some(Err(other)),
        }
    }

    /// Waits until this was written on channel 1, and returns all that was.
    pub(crate) async fn until(&mut self, wanted: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            match self.next().await {
                Some(Ok((1, data))) => seen.push_str(&String::from_utf8_lossy(&data)),
                Some(Ok((3, data))) => {
                    panic!("ended: {} after {seen}", String::from_utf8_lossy(&data))
                }
                Some(_) => {}
                None => panic!("broke off after {seen}"),
            }
        }
        seen
    }

    /// Waits for the end, and tells whether it was a reset.
    pub(crate) async fn was_reset(mut self) -> bool {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(_)) => {}
                Some(Err(Error::Io(error))) => {
                    return error.kind() == std::io::ErrorKind::ConnectionReset;
                }
                _ => return false,
            }
        }
    }

    /// Everything until the end.
    pub(crate) async fn end(mut self) -> Told {
        let mut told = Told::default();
        while let Some(next) = self.next().await {
            match next {
                Ok((channel, data)) => told.data.entry(channel).or_default().extend(data),
                Err(Message::Close(frame)) => told.close = frame.map(|frame| frame.code.into()),
                Err(_) => {}
            }
        }
        told
    }
}

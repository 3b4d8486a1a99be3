//! A real `nats-server` with `JetStream`, killed and started again in the middle.
#![cfg(feature = "nats")]

mod common;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, stream};
use common::{Server, event, free_port, numbers, start, until};
use drawbridge_audit::event::Record;
use futures_util::StreamExt as _;

const SUBJECT: &str = "audit.shells";
const STREAM: &str = "AUDIT";

fn server(dir: &Path, port: u16) -> Server {
    let args = [
        "-a".to_owned(),
        "127.0.0.1".to_owned(),
        "-p".to_owned(),
        port.to_string(),
        "-js".to_owned(),
        "-sd".to_owned(),
        dir.join("jetstream").display().to_string(),
    ];
    Server::start("nats-server", &args, &dir.join("nats.log"))
}

const USER: &str = "drawbridge";
const PASSWORD: &str = "correct horse battery staple";

/// A server that speaks TLS and wants a password; and the files with its authority's certificate and the password.
fn guarded(dir: &Path, port: u16) -> (Server, PathBuf, PathBuf) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let path = |name: &str| dir.join(name);
    let quoted = |name: &str| format!("\"{}\"", path(name).display());
    std::fs::write(path("server.crt"), issued.cert.pem()).expect("written");
    let key = issued.signing_key.serialize_pem();
    std::fs::write(path("server.key"), key).expect("written");
    std::fs::write(path("password"), format!("{PASSWORD}\n")).expect("written");
    let text = format!(
        "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: {store} }}\n\
         tls {{ cert_file: {cert}, key_file: {key} }}\n\
         authorization {{ user: {USER:?}, password: {PASSWORD:?} }}\n",
        store = quoted("jetstream"),
        cert = quoted("server.crt"),
        key = quoted("server.key"),
    );
    std::fs::write(path("nats.conf"), text).expect("written");
    let args = ["-c".to_owned(), path("nats.conf").display().to_string()];
    let server = Server::start("nats-server", &args, &path("nats.log"));
    (server, path("server.crt"), path("password"))
}

async fn context(port: u16) -> jetstream::Context {
    connected(port, async_nats::ConnectOptions::new()).await
}

async fn connected(port: u16, options: async_nats::ConnectOptions) -> jetstream::Context {
    let mut client = None;
    until("nats-server answers", async || {
        let options = options.clone();
        client = options.connect(format!("localhost:{port}")).await.ok();
        client.is_some()
    })
    .await;
    jetstream::new(client.expect("connected"))
}

/// Everything the stream has stored.
async fn stored(context: &jetstream::Context) -> Vec<Vec<u8>> {
    let mut stream = context.get_stream(STREAM).await.expect("there");
    let count = stream.info().await.expect("known").state.messages;
    let consumer = stream
        .create_consumer(pull::Config::default())
        .await
        .expect("made");
    let mut lines = Vec::new();
    while (lines.len() as u64) < count {
        let mut batch = consumer
            .fetch()
            .max_messages(1000)
            .messages()
            .await
            .expect("fetched");
        while let Some(message) = batch.next().await {
            let message = message.expect("a message");
            message.ack().await.expect("acknowledged");
            lines.push(message.payload.to_vec());
        }
    }
    lines
}

fn records(lines: &[Vec<u8>]) -> Vec<Record> {
    lines
        .iter()
        .map(|line| serde_json::from_slice(line).expect("a record"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_server_is_killed_and_this_process_restarts_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let first = server(dir.path(), port);
    let sink = format!("nats://127.0.0.1:{port}/{SUBJECT}#tls=false");
    let (log, running) = start(dir.path(), &sink).await;
    for number in 0..100 {
        log.emit(event(number)); // no stream takes these yet
    }
    let jetstream = context(port).await;
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        storage: stream::StorageType::File,
        duplicate_window: Duration::from_mins(2),
        ..stream::Config::default()
    };
    jetstream.create_stream(config).await.expect("made");
    for number in 100..2000 {
        log.emit(event(number));
    }
    until("some are stored", async || {
        !stored(&jetstream).await.is_empty()
    })
    .await;
    first.kill();
    for number in 2000..3000 {
        log.emit(event(number));
    }
    running.stop().await;
    let (log, running) = start(dir.path(), &sink).await;
    for number in 3000..4000 {
        log.emit(event(number));
    }
    let _second = server(dir.path(), port);
    let jetstream = context(port).await;
    for number in 4000..5000 {
        log.emit(event(number));
    }
    let wanted: HashSet<usize> = (0..5000).collect();
    until("all are stored", async || {
        numbers(&records(&stored(&jetstream).await)) == wanted
    })
    .await;
    running.stop().await;
    until("the end is stored", async || {
        let records = records(&stored(&jetstream).await);
        let stopped = records
            .iter()
            .filter(|record| record.kind == drawbridge_audit::event::Type::Stopped);
        stopped.count() >= 2
    })
    .await;
    let lines = stored(&jetstream).await;
    let ids: HashSet<_> = records(&lines).iter().map(|record| record.id).collect();
    assert_eq!(
        ids.len(),
        lines.len(),
        "within its window the stream drops what is sent twice"
    );
    common::verify(lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tls_and_a_password_takes_events_of_who_has_both_and_of_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let (_server, ca, password) = guarded(dir.path(), port);
    let options = async_nats::ConnectOptions::new()
        .require_tls(true)
        .add_root_certificates(ca.clone())
        .user_and_password(USER.to_owned(), PASSWORD.to_owned());
    let jetstream = connected(port, options).await;
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        ..stream::Config::default()
    };
    jetstream.create_stream(config).await.expect("made");
    let (ca, password) = (ca.display(), password.display());
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "a guess\n").expect("written");
    let wrong = wrong.display();
    for (number, options) in [
        "tls=false".to_owned(),
        format!("user={USER}&password-file={password}"), // trusts the system's authorities alone
        format!("ca={ca}&user={USER}&password-file={wrong}"),
        format!("ca={ca}"),
    ]
    .iter()
    .enumerate()
    {
        let spool = dir.path().join(number.to_string());
        let sink = format!("nats://localhost:{port}/{SUBJECT}#{options}");
        let (log, running) = start(&spool, &sink).await;
        log.emit(event(number));
        running.stop().await; // it tries for a moment
        assert!(stored(&jetstream).await.is_empty(), "{options}");
    }
    let options = format!("ca={ca}&user={USER}&password-file={password}");
    let sink = format!("nats://localhost:{port}/{SUBJECT}#{options}");
    let (log, running) = start(dir.path(), &sink).await;
    for number in 0..500 {
        log.emit(event(number));
    }
    let wanted: HashSet<usize> = (0..500).collect();
    until("all are stored", async || {
        numbers(&records(&stored(&jetstream).await)) == wanted
    })
    .await;
    running.stop().await;
}

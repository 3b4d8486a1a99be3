//! A Kafka broker that nobody here wrote: `tansu` (`cargo install tansu`), away before this process starts and frozen
//! in the middle. It keeps its records in memory, so it is not killed.
#![cfg(feature = "kafka")]

mod common;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use common::{Server, event, free_port, numbers, start, until};
use drawbridge_audit::event::{Record, Type};
use krafka::Kafka;
use krafka::admin::{CreateTopicsOptions, NewTopic};
use krafka::consumer::AutoOffsetReset;

const TOPIC: &str = "audit";

fn server(dir: &Path, port: u16) -> Server {
    let url = format!("tcp://127.0.0.1:{port}");
    let args = [
        "broker".to_owned(),
        format!("--listener-url={url}"),
        format!("--advertised-listener-url={url}"),
        "--storage-engine=memory://tansu/".to_owned(),
    ];
    Server::start("tansu", &args, &dir.join("tansu.log"))
}

async fn make_topic(port: u16) {
    let mut cluster = None;
    until("tansu answers", async || {
        let builder = Kafka::builder(format!("127.0.0.1:{port}"));
        cluster = builder.connect().await.ok();
        cluster.is_some()
    })
    .await;
    let admin = cluster.expect("connected").admin();
    let made = admin
        .create_topics(
            [NewTopic::new(TOPIC, 1, 1).expect("a topic")],
            CreateTopicsOptions::default(),
        )
        .await
        .expect("answered");
    for made in made.into_values() {
        made.expect("made");
    }
}

/// Everything in the topic, and each record's key and `id`.
async fn stored(port: u16) -> Vec<(Record, String, String)> {
    let cluster = Kafka::builder(format!("127.0.0.1:{port}"))
        .connect()
        .await
        .expect("connected");
    let consumer = cluster
        .consumer_without_group()
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .max_poll_records(100_000) // in one go: after full pages the last, short one may be empty at first
        .build()
        .await
        .expect("made");
    consumer.assign(TOPIC, vec![0]).await.expect("assigned");
    let mut records = Vec::new();
    loop {
        let more = consumer.poll(Duration::from_secs(2)).await.expect("polled");
        if more.is_empty() {
            return records;
        }
        for record in more {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            let id = record.headers.iter().find(|(name, _)| *name == "id");
            let id = id.and_then(|(_, value)| value.as_deref().map(text));
            records.push((
                serde_json::from_slice(record.value.as_deref().expect("a value"))
                    .expect("a record"),
                record.key.as_deref().map(text).expect("a key"),
                id.expect("an id"),
            ));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_broker_is_away_and_this_process_restarts_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let sink = format!("kafka://127.0.0.1:{port}/{TOPIC}#tls=false");
    let (log, running) = start(dir.path(), &sink).await;
    for number in 0..500 {
        log.emit(event(number)); // nobody is there
    }
    running.stop().await;
    let server = server(dir.path(), port);
    make_topic(port).await;
    let (log, running) = start(dir.path(), &sink).await;
    for number in 500..1000 {
        log.emit(event(number));
    }
    until("some are stored", async || !stored(port).await.is_empty()).await;
    server.signal("STOP");
    for number in 1000..1500 {
        log.emit(event(number));
    }
    running.stop().await;
    let (log, running) = start(dir.path(), &sink).await;
    for number in 1500..2000 {
        log.emit(event(number));
    }
    server.signal("CONT");
    let wanted: HashSet<usize> = (0..2000).collect();
    until("all are stored", async || {
        let records: Vec<Record> = stored(port)
            .await
            .into_iter()
            .map(|(record, ..)| record)
            .collect();
        numbers(&records) == wanted
    })
    .await;
    running.stop().await;
    for (record, key, id) in stored(port).await {
        assert_eq!((key, id), (record.instance, record.id.to_string()));
        assert!(record.kind != Type::EventsDropped);
    }
}

//! A sink that is down for five minutes at 1,000 events a second, and this process restarted in between: nothing is lost.
//! Its number of events as fast as they go, and (`just audit-soak`) with its time, too.
#![cfg(feature = "log")]

mod common;

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drawbridge_audit::event::{Record, Type};
use drawbridge_audit::log::Log;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use uuid::Uuid;

#[derive(Debug, Default)]
struct Received {
    numbers: HashSet<usize>,
    ids: HashSet<Uuid>,
    lines: usize,
}

/// Takes everything, on the address it is given, from now on.
async fn receive(addr: SocketAddr, received: Arc<Mutex<Received>>) {
    let listener = TcpListener::bind(addr).await.expect("binds");
    while let Ok((io, _)) = listener.accept().await {
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let received = Arc::clone(&received);
                async move {
                    let body = request.into_body().collect().await;
                    let body = body.expect("a body").to_bytes();
                    let mut received = received.lock().expect("not poisoned");
                    for line in body
                        .split(|byte| *byte == b'\n')
                        .filter(|line| !line.is_empty())
                    {
                        let record: Record = serde_json::from_slice(line).expect("a record");
                        received.lines += 1;
                        received.ids.insert(record.id);
                        if record.kind == Type::Connected {
                            let number = record.facts.message.expect("a number");
                            received.numbers.insert(number.parse().expect("a number"));
                        }
                    }
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(io), service).await; // the client hangs up
        });
    }
}

/// Writes events `from..to`: sixteen at a time, or 1,000 a second.
async fn write(log: &Log, from: usize, to: usize, paced: bool) {
    if paced {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        for number in from..to {
            if number % 10 == 0 {
                tick.tick().await;
            }
            log.emit(common::event(number));
        }
        return;
    }
    let writers = (0..16).map(|which| {
        let log = log.clone();
        tokio::spawn(async move {
            for number in (from + which..to).step_by(16) {
                log.record(common::event(number)).await.expect("written");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("wrote");
    }
}

async fn soak(events: usize, paced: bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let addr: SocketAddr = ([127, 0, 0, 1], common::free_port()).into();
    let sink = format!("webhook:http://{addr}/#tls=false");
    let (log, running) = common::start_with(dir.path(), &sink, 1 << 30).await;
    write(&log, 0, events / 2, paced).await;
    running.stop().await;
    let (log, running) = common::start_with(dir.path(), &sink, 1 << 30).await;
    write(&log, events / 2, events, paced).await;
    let received: Arc<Mutex<Received>> = Arc::default();
    tokio::spawn(receive(addr, Arc::clone(&received)));
    common::until("all are received", async || {
        received.lock().expect("not poisoned").numbers.len() == events
    })
    .await;
    running.stop().await;
    let received = received.lock().expect("not poisoned");
    println!(
        "{events} events, {} lines received, {} of them twice",
        received.lines,
        received.lines - received.ids.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_of_what_is_written_while_a_sink_is_down() {
    soak(60_000, false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes: just audit-soak"]
async fn nothing_is_lost_at_1000_events_a_second_with_a_sink_down_for_five_minutes() {
    soak(300_000, true).await;
}

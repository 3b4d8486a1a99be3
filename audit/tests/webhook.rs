//! A webhook that fails, hangs and returns: nothing is lost, and every batch is signed.
#![cfg(feature = "log")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use drawbridge_audit::event::Record;
use drawbridge_audit::log::{Log, Running};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const SECRET: &str = "correct horse battery staple";

/// How the receiver behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Takes,
    Fails,
    /// Takes the batch, and answers that it did not.
    Lies,
    /// Hangs up without an answer.
    HangsUp,
    /// Reads the batch, and never answers.
    Hangs,
    /// Takes no more than three events at once.
    Small,
}

#[derive(Debug)]
struct Receiver {
    mood: Mood,
    /// Requests in each mood.
    requests: HashMap<&'static str, usize>,
    records: Vec<Record>,
}

type Shared = Arc<Mutex<Receiver>>;

async fn answer(
    request: Request<Incoming>,
    receiver: Shared,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let signature = head.headers["drawbridge-signature"].to_str().expect("text");
    let (time, mac) = signature
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v1="))
        .expect("both");
    let mut signed = format!("{time}.").into_bytes();
    signed.extend_from_slice(&body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, &signed, &hex::decode(mac).expect("hex"))
        .expect("signed by who knows the secret");
    let records: Vec<Record> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a record"))
        .collect();
    assert_eq!(head.headers["drawbridge-events"], records.len().to_string());
    let mood = count(&receiver);
    if mood == Mood::Hangs {
        std::future::pending::<()>().await;
    }
    let mut receiver = receiver.lock().expect("not poisoned");
    let code = match mood {
        Mood::Takes | Mood::Lies => {
            receiver.records.extend(records);
            if mood == Mood::Takes { 204 } else { 503 }
        }
        Mood::Small if records.len() <= 3 => {
            receiver.records.extend(records);
            200
        }
        Mood::Small => 413,
        Mood::Fails => 500,
        Mood::HangsUp | Mood::Hangs => return Err(std::io::Error::other("hangs up")),
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = code.try_into().expect("a status");
    Ok(response)
}

/// Counts a request, and says how it is to be answered.
fn count(receiver: &Shared) -> Mood {
    let mut receiver = receiver.lock().expect("not poisoned");
    let mood = receiver.mood;
    let name = match mood {
        Mood::Takes => "takes",
        Mood::Fails => "fails",
        Mood::Lies => "lies",
        Mood::HangsUp => "hangs up",
        Mood::Hangs => "hangs",
        Mood::Small => "small",
    };
    *receiver.requests.entry(name).or_default() += 1;
    mood
}

async fn receive(listener: TcpListener, receiver: Shared) {
    while let Ok((io, _)) = listener.accept().await {
        let receiver = Arc::clone(&receiver);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&receiver)));
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(io), service).await; // hangs up on purpose
        });
    }
}

async fn start(dir: &std::path::Path, url: &str) -> (Log, Running) {
    let secret = dir.join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    let sink = format!("webhook:{url}#tls=false&secret-file={}", secret.display());
    common::start(dir, &sink).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_hangs_up_and_returns_gets_every_event_across_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/audit", listener.local_addr().expect("bound"));
    let receiver: Shared = Arc::new(Mutex::new(Receiver {
        mood: Mood::Takes,
        requests: HashMap::new(),
        records: Vec::new(),
    }));
    tokio::spawn(receive(listener, Arc::clone(&receiver)));
    let seen = |mood: &'static str| {
        let receiver = Arc::clone(&receiver);
        async move || {
            receiver
                .lock()
                .expect("not poisoned")
                .requests
                .get(mood)
                .is_some_and(|count| *count >= 1)
        }
    };
    let mut number = 0;
    let (mut log, mut running) = start(dir.path(), &url).await;
    for (mood, name) in [
        (Mood::Fails, "fails"),
        (Mood::HangsUp, "hangs up"),
        (Mood::Lies, "lies"),
        (Mood::Small, "small"),
        (Mood::Takes, "takes"),
    ] {
        receiver.lock().expect("not poisoned").mood = mood;
        for _ in 0..500 {
            log.emit(common::event(number));
            number += 1;
        }
        common::until(name, seen(name)).await;
        // In the middle of it, the process is restarted.
        running.stop().await;
        (log, running) = start(dir.path(), &url).await;
    }
    let have =
        async || common::numbers(&receiver.lock().expect("not poisoned").records).len() == number;
    common::until("everything", have).await;
    running.stop().await;
    let receiver = receiver.lock().expect("not poisoned");
    let mut by_id: HashMap<_, usize> = HashMap::new();
    for record in &receiver.records {
        *by_id.entry(record.id).or_default() += 1;
    }
    assert_eq!(
        common::numbers(&receiver.records).len(),
        number,
        "nothing is lost"
    );
    let again = by_id.values().filter(|count| **count > 1).count();
    assert!(again > 0, "the lie made duplicates, and their ids tell");
    let known: std::collections::HashSet<_> = receiver
        .records
        .iter()
        .map(|record| (record.id, &record.instance, record.seq))
        .collect();
    assert_eq!(known.len(), by_id.len(), "one id, one event");
}

/// Longer than a receiver may take (30 s), and than the pause after it.
const TOO_LONG: Duration = Duration::from_secs(31);

#[tokio::test]
async fn a_receiver_that_hangs_is_given_up_in_time_and_gets_everything_once_it_works() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/audit", listener.local_addr().expect("bound"));
    let receiver: Shared = Arc::new(Mutex::new(Receiver {
        mood: Mood::Hangs,
        requests: HashMap::new(),
        records: Vec::new(),
    }));
    tokio::spawn(receive(listener, Arc::clone(&receiver)));
    let hung = |times: usize| {
        let receiver = Arc::clone(&receiver);
        async move || {
            let receiver = receiver.lock().expect("not poisoned");
            receiver.requests.get("hangs") == Some(&times)
        }
    };
    let (log, running) = start(dir.path(), &url).await;
    for number in 0..100 {
        log.emit(common::event(number));
    }
    // Each attempt is given up when its time is over, and made again; not before.
    for times in 1..=3 {
        common::until("an attempt", hung(times)).await;
        tokio::time::pause();
        tokio::time::advance(TOO_LONG).await;
        tokio::time::resume();
    }
    common::until("another attempt", hung(4)).await;
    assert!(receiver.lock().expect("not poisoned").records.is_empty());
    receiver.lock().expect("not poisoned").mood = Mood::Takes;
    tokio::time::pause();
    tokio::time::advance(TOO_LONG).await;
    tokio::time::resume();
    let have =
        async || common::numbers(&receiver.lock().expect("not poisoned").records).len() == 100;
    common::until("everything", have).await;
    running.stop().await;
    let receiver = receiver.lock().expect("not poisoned");
    let ids: std::collections::HashSet<_> =
        receiver.records.iter().map(|record| record.id).collect();
    assert_eq!(ids.len(), receiver.records.len(), "each was taken once");
}

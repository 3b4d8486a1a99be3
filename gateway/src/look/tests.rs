//! Who may look, and at what: whole requests against a store in a directory.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use drawbridge_audit::event::{Event, Type};
use drawbridge_audit::keys::{KeySet, SigningKey};
use drawbridge_audit::log::Log;
use drawbridge_audit::recording::{
    Encoder, End, Level, MANIFEST, Manifest, Mode, Opening, Seal, SegmentWriter, Settings, Stream,
    Subprotocols, VERSION, Verdict, segment_name,
};
use drawbridge_audit::store::Store;
use drawbridge_audit::subject::{Pod, Session};
use drawbridge_protocol::frame::{self, Opcode};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

use crate::credential::tests::jwt;
use crate::gate::tests::{World, good, head, websocket};
use crate::look::library::Library;
use crate::look::proof::Keys;
use crate::session::tests::object_with;

/// A `UUIDv7` of 2030-01-01.
const ID: Uuid = Uuid::from_u128(0x01b8_e9ed_8400_7000_8000_0000_0000_0001);

/// The key that recordings are signed with.
static KEY: LazyLock<SigningKey> = LazyLock::new(SigningKey::generate);

/// What a recording of session `6f1c` says first.
pub(crate) fn opening(id: Uuid, recipients: Vec<String>) -> Opening {
    Opening {
        version: VERSION,
        recording: id,
        session: Session {
            namespace: "shop".into(),
            name: "fix-cart".into(),
            uid: "6f1c".into(),
        },
        user: "alice@example.com".into(),
        pod: Pod {
            name: "web".into(),
            uid: "p-1".into(),
            container: "app".into(),
            node: "n1".into(),
        },
        mode: Mode::Exec,
        argv: vec!["sh".into()],
        tty: true,
        stdin: true,
        subprotocols: Subprotocols::default(),
        started_at: "2030-01-01T00:00:00Z".parse().expect("a time"),
        settings: Settings {
            level: Level::Required,
            keystrokes: false,
            payloads: false,
            recipients,
        },
        gateway: "gw-1".into(),
        legal_hold: false,
    }
}

/// Puts a recording into `store` that shows `text`, in two segments; `sealed`: with its manifest.
async fn put(store: &Store, opening: &Opening, text: &str, sealed: bool) {
    let directory = format!("recordings/shop/6f1c/{}", opening.recording);
    let mut encoder = Encoder::new(opening);
    let mut writer = SegmentWriter::new(opening).expect("begins");
    encoder.resize(Duration::ZERO, 80, 24);
    encoder.data(Duration::from_millis(500), Stream::Stdout, text.as_bytes());
    let first = writer
        .write(&encoder.take().expect("lines"))
        .expect("writes");
    writer.close();
    let end = End {
        reason: "Completed".into(),
        exit_code: Some(0),
    };
    encoder.end(Duration::from_secs(2), &end);
    let second = writer
        .write(&encoder.take().expect("lines"))
        .expect("writes");
    for (number, segment) in [first, second].into_iter().enumerate() {
        let name = segment_name(u32::try_from(number).expect("small"));
        let key = format!("{directory}/{name}");
        store.put(&key, segment.into()).await.expect("puts");
    }
    if sealed {
        let manifest = writer.seal(Seal {
            verdict: Verdict::Complete,
            end: Some(end),
            transfers: Vec::new(),
            gaps: Vec::new(),
            cut: 0,
            sealed_by: "gw-1".into(),
        });
        let file = manifest.sign(&KEY);
        let key = format!("{directory}/{MANIFEST}");
        store.put(&key, file.into()).await.expect("puts");
    }
}

/// A manifest's place in the store.
fn manifest_key(id: Uuid) -> String {
    format!("recordings/shop/6f1c/{id}/{MANIFEST}")
}

/// A gateway with a session `fix-cart`, one `audit-cart` that may look at it, and a store.
async fn world() -> (World, Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::directory(dir.path()).expect("a store");
    let keys: KeySet = [KEY.public()].into_iter().collect();
    world_believing(Keys::Here(Some(keys)), store, dir).await
}

/// The same, with these keys.
async fn world_believing(
    keys: Keys,
    store: Store,
    dir: tempfile::TempDir,
) -> (World, Store, tempfile::TempDir) {
    let world = World::with(Some(Library::new(store.clone(), keys))).await;
    let mut observer = object_with("/spec/mode", "Observe".into());
    observer.metadata.uid = Some("0b5e".into());
    observer.metadata.name = Some("audit-cart".into());
    let status = observer.status.as_mut().expect("granted");
    status.target = None;
    status.observed = Some(drawbridge_crds::v1alpha1::ObservedSession {
        session: "fix-cart".into(),
        uid: "6f1c".into(),
    });
    world.set(observer);
    (world, store, dir)
}

fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {token}\r\n\r\n")
}

#[tokio::test]
async fn one_who_may_look_sees_the_recordings_of_that_session() {
    let (world, store, _dir) = world().await;
    put(&store, &opening(ID, Vec::new()), "hello\r\n", true).await;
    let base = "/sessions/shop/fix-cart/recordings";
    let observer = jwt("0b5e", "good");
    for (token, by) in [(observer.as_str(), base), ("auditor", base)] {
        let (code, body) = world.ask(&get(by, token)).await;
        assert_eq!(code, 200, "{body}");
        let list: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(list["viewer"], "alice@example.com");
        let item = &list["recordings"][0];
        assert_eq!(
            (
                &item["id"],
                &item["state"],
                &item["durationSeconds"],
                &item["end"]["exitCode"]
            ),
            (
                &ID.to_string().into(),
                &"Complete".into(),
                &2.0.into(),
                &0.into()
            ),
            "{item}"
        );
        let (code, body) = world.ask(&get(&format!("{by}/{ID}"), token)).await;
        assert_eq!(code, 200, "{body}");
        assert!(body.contains("payloadType"), "{body}");
        let (head, cast) = world.whole(&get(&format!("{by}/{ID}/cast"), token)).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        let text = String::from_utf8(cast).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(r#"{"version":2,"#), "{text}");
        assert!(text.contains(r#","o","hello\r\n"]"#), "{text}");
        assert!(lines.last().expect("some").contains("\"z\""), "{text}");
    }
    // By the name of the one who looks, too.
    let own = "/sessions/shop/audit-cart/recordings";
    assert_eq!(world.ask(&get(own, &observer)).await.0, 200);
}

#[tokio::test]
async fn every_look_is_on_record_before_anything_is_shown() {
    let (world, store, _dir) = world().await;
    put(&store, &opening(ID, Vec::new()), "hello\r\n", true).await;
    let observer = jwt("0b5e", "good");
    let all = "/sessions/shop/fix-cart/recordings";
    let base = format!("{all}/{ID}");
    for path in [all, &base] {
        assert_eq!(world.ask(&get(path, &observer)).await.0, 200);
    }
    let (head, _) = world.whole(&get(&format!("{base}/cast"), &observer)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(world.ask(&get(all, "auditor")).await.0, 200);
    {
        let told = world.told.lock().expect("not poisoned");
        let kinds: Vec<Type> = told.iter().map(Event::kind).collect();
        let expected = [
            (Type::Listed, None, Some("0b5e")),
            (Type::Downloaded, Some(ID.to_string()), Some("0b5e")),
            (Type::Replayed, Some(ID.to_string()), Some("0b5e")),
            (Type::Listed, None, None), // by right, not by a session
        ];
        assert_eq!(kinds, expected.each_ref().map(|(kind, ..)| *kind));
        for (event, (_, recording, observer)) in told.iter().zip(expected) {
            let facts = serde_json::to_value(event.facts()).expect("JSON");
            assert_eq!(facts["session"]["uid"], "6f1c");
            assert_eq!(facts["user"], "alice@example.com");
            assert_eq!(facts["recording"]["id"].as_str(), recording.as_deref());
            assert_eq!(facts["observer"]["uid"].as_str(), observer);
        }
    }
}

#[tokio::test]
async fn nothing_is_shown_that_cannot_be_put_on_record() {
    let (mut world, store, _dir) = world().await;
    put(&store, &opening(ID, Vec::new()), "hello\r\n", true).await;
    let observer = jwt("0b5e", "good");
    let base = format!("/sessions/shop/fix-cart/recordings/{ID}");
    let (log, emitted) = Log::for_tests(8);
    drop(emitted); // nobody writes any more
    Arc::get_mut(&mut world.door.gate)
        .expect("nobody else has it")
        .log = log;
    let all = "/sessions/shop/fix-cart/recordings";
    for path in [all, &base, &format!("{base}/cast")] {
        let (code, body) = world.ask(&get(path, &observer)).await;
        assert_eq!(code, 503, "{body}");
        assert!(body.contains("audit log"), "{body}");
    }
}

#[tokio::test]
async fn nobody_else_sees_anything_of_them() {
    let (world, store, _dir) = world().await;
    put(&store, &opening(ID, Vec::new()), "hello\r\n", true).await;
    let observer = jwt("0b5e", "good");
    let shell = jwt("6f1c", "good");
    for rest in [
        String::new(),
        format!("/{ID}"),
        format!("/{ID}/cast"),
        format!("/{ID}/live"),
    ] {
        for (what, path, token, code) in [
            (
                "the shell's own token",
                "shop/fix-cart",
                shell.as_str(),
                403,
            ),
            ("another session", "shop/other", &observer, 403),
            ("another namespace", "prod/fix-cart", &observer, 403),
            (
                "a forged token",
                "shop/fix-cart",
                &jwt("0b5e", "forged"),
                401,
            ),
            (
                "an identity without the right",
                "shop/fix-cart",
                "nobody-special",
                403,
            ),
            ("nobody's token", "shop/fix-cart", "unknown", 401),
            ("an identity, another session", "shop/other", "auditor", 403),
        ] {
            let uri = format!("/sessions/{path}/recordings{rest}");
            let (got, body) = world.message(&get(&uri, token)).await;
            assert_eq!(got, code, "{what} {uri}: {body}");
            assert!(!body.contains("hello"), "{body}");
        }
        let uri = format!("/sessions/shop/fix-cart/recordings{rest}");
        let request = format!("GET {uri} HTTP/1.1\r\nHost: gw\r\n\r\n");
        assert_eq!(world.message(&request).await.0, 401, "no token: {uri}");
    }
}

#[tokio::test]
async fn one_who_may_look_opens_nothing_else() {
    let (world, _store, _dir) = world().await;
    let observer = jwt("0b5e", "good");
    for path in [
        "/api/v1/namespaces/shop/pods/web",
        "/sessions/shop/audit-cart/console",
        "/sessions/shop/fix-cart",
        "/sessions/shop/fix-cart/console",
    ] {
        assert_eq!(world.message(&get(path, &observer)).await.0, 403, "{path}");
    }
    for path in ["/api", "/sessions/shop/audit-cart"] {
        // An ordinary identity is nobody outside of recordings.
        assert_eq!(world.message(&get(path, "auditor")).await.0, 401, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_sealed_is_listed_and_shown_as_far_as_it_is_there() {
    let (world, store, _dir) = world().await;
    put(&store, &opening(ID, Vec::new()), "so far\r\n", false).await;
    let observer = jwt("0b5e", "good");
    let base = "/sessions/shop/fix-cart/recordings";
    let (_, body) = world.ask(&get(base, &observer)).await;
    let list: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(list["recordings"][0]["state"], "Unsealed");
    let (_, cast) = world
        .whole(&get(&format!("{base}/{ID}/cast"), &observer))
        .await;
    assert!(String::from_utf8_lossy(&cast).contains("so far"));
    let (code, _) = world
        .message(&get(&format!("{base}/{ID}"), &observer))
        .await;
    assert_eq!(code, 404, "there is no manifest yet");
}

#[tokio::test]
async fn an_encrypted_recording_is_listed_and_not_shown() {
    let (world, store, _dir) = world().await;
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".to_owned();
    put(&store, &opening(ID, vec![recipient]), "secret\r\n", true).await;
    let observer = jwt("0b5e", "good");
    let base = "/sessions/shop/fix-cart/recordings";
    let (_, body) = world.ask(&get(base, &observer)).await;
    assert!(body.contains(r#""encrypted":true"#), "{body}");
    let (code, message) = world
        .message(&get(&format!("{base}/{ID}/cast"), &observer))
        .await;
    assert_eq!(code, 409, "{message}");
}

/// What the list says of the one recording: state, reason, and whether it names the key.
async fn state(world: &World) -> (String, String, bool) {
    let list = get("/sessions/shop/fix-cart/recordings", &jwt("0b5e", "good"));
    let (code, body) = world.ask(&list).await;
    assert_eq!(code, 200, "{body}");
    let list: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let item = &list["recordings"][0];
    let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let signed = text("signedBy") == KEY.id().to_string();
    assert_eq!(signed, !item["signedBy"].is_null());
    (text("state"), text("reason"), signed)
}

#[tokio::test]
async fn a_verdict_is_shown_only_if_a_published_key_vouches_for_it() {
    let (world, store, _dir) = world().await;
    put(&store, &opening(ID, Vec::new()), "hello\r\n", true).await;
    assert_eq!(
        state(&world).await,
        ("Complete".to_owned(), String::new(), true)
    );
    let key = manifest_key(ID);
    let file = store.get(&key, 1 << 20).await.expect("there");
    let manifest = Manifest::read(&file).expect("a manifest");
    // By another key: it may be right, but nobody here knows.
    let by_another = manifest.sign(&SigningKey::generate());
    store.put(&key, by_another.into()).await.expect("puts");
    let (is, why, signed) = state(&world).await;
    assert_eq!((is.as_str(), signed), ("Unverified", false));
    assert!(why.starts_with("signature not verified: "), "{why}");
    let cast = get(
        &format!("/sessions/shop/fix-cart/recordings/{ID}/cast"),
        &jwt("0b5e", "good"),
    );
    assert!(world.whole(&cast).await.0.starts_with("HTTP/1.1 200"));
    // Another verdict under the right signature.
    let mut forged: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    let other = Manifest {
        duration_seconds: 1.0,
        ..manifest
    };
    let other: serde_json::Value = serde_json::from_slice(&other.sign(&KEY)).expect("an envelope");
    forged["payload"] = other["payload"].clone();
    let forged = forged.to_string();
    store.put(&key, forged.into()).await.expect("puts");
    let (is, why, _) = state(&world).await;
    assert_eq!(is, "Broken");
    assert!(why.starts_with("manifest: the signature by key"), "{why}");
    let (code, message) = world.message(&cast).await;
    assert_eq!(code, 409, "{message}");
    assert!(message.contains("the signature by key"), "{message}");
    // Another recording's, well signed.
    let elsewhere = Uuid::from_u128(ID.as_u128() - 1);
    put(&store, &opening(elsewhere, Vec::new()), "hello\r\n", true).await;
    let borrowed = store.get(&manifest_key(elsewhere), 1 << 20).await;
    store
        .put(&key, borrowed.expect("there"))
        .await
        .expect("puts");
    let (is, why, _) = state(&world).await;
    assert_eq!(
        (is.as_str(), why.as_str()),
        ("Broken", "manifest: it is another recording's")
    );
}

#[tokio::test]
async fn without_the_public_keys_nothing_is_said_to_be_verified() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::directory(dir.path()).expect("a store");
    let (world, store, _dir) = world_believing(Keys::Here(None), store, dir).await;
    put(&store, &opening(ID, Vec::new()), "hello\r\n", true).await;
    let (is, why, signed) = state(&world).await;
    assert_eq!((is.as_str(), signed), ("Unverified", false));
    assert!(why.contains("the public keys cannot be read"), "{why}");
}

#[tokio::test]
async fn a_replay_breaks_off_where_a_segment_is_changed_and_does_not_begin_where_one_is_not_there()
{
    let (world, store, _dir) = world().await;
    let observer = jwt("0b5e", "good");
    let directory = format!("recordings/shop/6f1c/{ID}");
    let (first, second) = (
        format!("{directory}/{}", segment_name(0)),
        format!("{directory}/{}", segment_name(1)),
    );
    let request = get(
        &format!("/sessions/shop/fix-cart/recordings/{ID}/cast"),
        &observer,
    );
    for (what, is, place) in [
        ("changed", "Complete", ""),
        ("first changed", "Complete", "segment 0"),
        ("swapped", "Broken", "segment 0: it has"),
        ("gone", "Broken", "segment 1: it is not there"),
        ("added", "Broken", "manifest: there are segments"),
    ] {
        put(&store, &opening(ID, Vec::new()), "hello\r\n", true).await;
        let (one, two) = (
            store.get(&first, 1 << 20).await.expect("there"),
            store.get(&second, 1 << 20).await.expect("there"),
        );
        let flip = |bytes: &bytes::Bytes| {
            let mut bytes = bytes.to_vec();
            *bytes.last_mut().expect("some") ^= 1;
            bytes.into()
        };
        match what {
            "changed" => store.put(&second, flip(&two)).await.expect("puts"),
            "first changed" => store.put(&first, flip(&one)).await.expect("puts"),
            "swapped" => {
                store.put(&first, two).await.expect("puts");
                store.put(&second, one).await.expect("puts");
            }
            "gone" => store.delete(&second).await.expect("deletes"),
            _ => {
                let third = format!("{directory}/{}", segment_name(2));
                store.put(&third, one).await.expect("puts");
            }
        }
        let (state, why, _) = state(&world).await;
        assert_eq!(state, is, "{what}: {why}");
        if what == "changed" {
            let (head, cast) = world.broken(&request).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let cast = String::from_utf8_lossy(&cast);
            assert!(cast.contains("hello") && !cast.contains("\"z\""), "{cast}");
            continue;
        }
        let (code, message) = world.message(&request).await;
        assert_eq!(code, 409, "{what}: {message}");
        assert!(message.contains(place), "{what}: {message}");
        assert!(why.starts_with(place) || is == "Complete", "{what}: {why}");
    }
}

/// A console of the shell's session, recorded, and the pod's side of it.
async fn console(world: &mut World) -> (DuplexStream, tokio::net::TcpStream) {
    let target = "/sessions/shop/fix-cart/console";
    let mut client = world
        .connect(&websocket(target, "v4.channel.k8s.io", ""))
        .await;
    assert_eq!(head(&mut client).await.0, 101);
    let pod = world.pod.recv().await.expect("dialled");
    (client, pod)
}

async fn print(pod: &mut tokio::net::TcpStream, text: &str) {
    let mut bytes = Vec::new();
    let payload = [b"\x01", text.as_bytes()].concat();
    frame::write(Opcode::Binary, &payload, None, &mut bytes);
    pod.write_all(&bytes).await.expect("writes");
}

/// Reads until what was read ends with something.
async fn until(client: &mut DuplexStream, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        seen.push(client.read_u8().await.expect("frames"));
    }
}

/// The id of the one recording that is being made.
async fn live_id(world: &World, token: &str) -> String {
    let (_, body) = world
        .ask(&get("/sessions/shop/fix-cart/recordings", token))
        .await;
    let list: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let item = &list["recordings"][0];
    assert_eq!(
        (&item["state"], &item["live"]),
        (&"Open".into(), &true.into()),
        "{body}"
    );
    item["id"].as_str().expect("text").to_owned()
}

/// A live view, and the code of the answer.
async fn view(world: &World, id: &str, token: &str) -> (u16, DuplexStream, String) {
    let target = format!("/sessions/shop/fix-cart/recordings/{id}/live");
    let request = websocket(&target, super::live::SUBPROTOCOL, "").replace(&good(), token);
    let mut client = world.connect(&request).await;
    let (code, _, head) = head(&mut client).await;
    (code, client, head)
}

/// What a live view shows until it shows `text`.
async fn shows(socket: &mut WebSocketStream<DuplexStream>, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        match socket.next().await {
            Some(Ok(Message::Binary(lines))) => {
                assert!(lines.ends_with(b"\n"), "whole lines");
                seen.push_str(std::str::from_utf8(&lines).expect("text"));
            }
            Some(Ok(Message::Ping(_))) => {}
            other => panic!("{other:?} before {text:?}: {seen}"),
        }
    }
    seen
}

/// The beginning and the end of every live view that is on record, in the order they ended.
fn views(world: &World) -> Vec<[serde_json::Value; 2]> {
    let told = world.told.lock().expect("not poisoned");
    let facts = |kind| {
        let of_kind = told.iter().filter(move |event| event.kind() == kind);
        of_kind.map(|event| serde_json::to_value(event.facts()).expect("JSON"))
    };
    facts(Type::LiveViewEnded)
        .map(|ended| {
            let mut began = facts(Type::LiveViewed);
            let began = began.find(|began| began["connection"] == ended["connection"]);
            [began.expect("it began"), ended]
        })
        .collect()
}

async fn closed(socket: &mut WebSocketStream<DuplexStream>) -> (u16, String) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => {
                return (frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(_)) => {}
            other => panic!("{other:?} instead of a Close"),
        }
    }
}

#[tokio::test]
async fn who_follows_a_session_sees_what_was_and_what_comes_and_the_user_is_told() {
    let (mut world, _store, _dir) = world().await;
    let observer = jwt("0b5e", "good");
    let (mut user, mut pod) = console(&mut world).await;
    print(&mut pod, "before\r\n").await;
    until(&mut user, "before").await;
    let id = live_id(&world, &observer).await;
    for (token, code) in [
        (good().as_str(), 403),
        ("nobody-special", 403),
        ("unknown", 401),
    ] {
        assert_eq!(view(&world, &id, token).await.0, code, "{token}");
    }
    let other = Uuid::now_v7().to_string();
    assert_eq!(view(&world, &other, &observer).await.0, 404);
    for token in [observer.as_str(), "auditor"] {
        let (code, client, head) = view(&world, &id, token).await;
        assert_eq!(code, 101, "{head}");
        assert!(
            head.contains("sec-websocket-protocol: live.drawbridge.dev\r\n"),
            "{head}"
        );
        let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let seen = shows(&mut socket, "before").await;
        assert!(seen.starts_with(r#"{"version":2,"#), "{seen}");
        until(&mut user, "alice@example.com is watching this session").await;
        let begun = std::time::Instant::now();
        print(&mut pod, "after\r\n").await;
        shows(&mut socket, "after").await;
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        drop(socket);
        until(&mut user, "is no longer watching this session").await;
        let [opened, ended] = views(&world).pop().expect("on record");
        assert_eq!(ended["reason"], "viewer_left");
        assert!(ended["durationSeconds"].as_f64().expect("told") > 0.0);
        assert!(opened["durationSeconds"].is_null());
        for field in ["connection", "session", "user", "client", "recording"] {
            assert!(!opened[field].is_null(), "{field}");
            assert_eq!(opened[field], ended[field]);
        }
    }
    // When the session's connection ends, so does following it.
    let (_, client, _) = view(&world, &id, &observer).await;
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    shows(&mut socket, "after").await;
    drop(pod);
    assert_eq!(closed(&mut socket).await.0, 1000);
}

#[tokio::test]
async fn a_revoked_viewer_is_cut_and_the_one_who_was_watched_goes_on() {
    let (mut world, _store, _dir) = world().await;
    let observer = jwt("0b5e", "good");
    let (mut user, mut pod) = console(&mut world).await;
    print(&mut pod, "before\r\n").await;
    until(&mut user, "before").await;
    let id = live_id(&world, &observer).await;
    let (_, client, _) = view(&world, &id, &observer).await;
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    shows(&mut socket, "before").await;
    let mut revoked = object_with("/spec/revoked", true.into());
    revoked.metadata.uid = Some("0b5e".into());
    revoked.metadata.name = Some("audit-cart".into());
    world.set(revoked);
    assert_eq!(
        closed(&mut socket).await,
        (1008, "your session was revoked".to_owned())
    );
    until(&mut user, "is no longer watching").await;
    let [_, ended] = views(&world).pop().expect("on record");
    assert_eq!(ended["reason"], "stopped");
    print(&mut pod, "on\r\n").await;
    until(&mut user, "on").await;
}

#[tokio::test]
async fn an_identity_that_loses_its_right_is_cut_within_half_a_minute() {
    let (mut world, _store, _dir) = world().await;
    let (mut user, mut pod) = console(&mut world).await;
    print(&mut pod, "before\r\n").await;
    until(&mut user, "before").await;
    let id = live_id(&world, "auditor").await;
    let (_, client, _) = view(&world, &id, "auditor").await;
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    shows(&mut socket, "before").await;
    let half_a_minute = async || {
        tokio::time::pause();
        tokio::time::advance(super::ASK_AGAIN).await;
        tokio::time::resume();
    };
    half_a_minute().await;
    print(&mut pod, "still allowed\r\n").await;
    shows(&mut socket, "still allowed").await;
    world.auditors.store(false, Ordering::Relaxed);
    half_a_minute().await;
    let (code, why) = closed(&mut socket).await;
    assert_eq!(code, 1008);
    assert!(why.starts_with("you may not look"), "{why}");
    while views(&world).is_empty() {
        tokio::task::yield_now().await;
    }
    let [_, ended] = views(&world).pop().expect("on record");
    assert_eq!(ended["reason"], "not_allowed_any_more");
    assert_eq!(view(&world, &id, "auditor").await.0, 403);
}

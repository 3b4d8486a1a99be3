//! What strangers may do to the port.

use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::*;
use crate::gate::tests::World;

/// Serves one in-memory connection that sends `text` and then keeps quiet; returns all that came back and how long it took.
async fn quiet_after(text: &[u8]) -> (String, Duration) {
    let world = World::new().await;
    let (mut client, ours) = tokio::io::duplex(256 * 1024);
    let door = world.door.clone();
    let begun = Instant::now();
    tokio::spawn(async move {
        let peer = door.peer("198.51.100.9:4711".parse().expect("an address"));
        door.http(Transport::Memory(ours), peer).await;
    });
    let _ = client.write_all(text).await; // it may have been answered before all was sent
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    (
        String::from_utf8_lossy(&answer).into_owned(),
        begun.elapsed(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_waited_for_ten_seconds() {
    for text in [
        &b""[..],
        b"GET /api HTTP/1.1\r\nhost: x\r\n",
        b"GET /api HTT",
    ] {
        let (answer, after) = quiet_after(text).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{answer}"
        );
        assert_eq!(after.as_secs(), 10, "{:?}", String::from_utf8_lossy(text));
    }
}

#[tokio::test(start_paused = true)]
async fn http_2_without_tls_is_told_no_at_once() {
    let (answer, after) =
        quiet_after(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(after.as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn heads_beyond_the_bounds_are_refused_at_once() {
    let many = "x: y\r\n".repeat(120);
    for (text, code) in [
        (
            format!(
                "GET /api HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
                "y".repeat(MAX_HEAD)
            ),
            "431",
        ),
        (format!("GET /api HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
        (
            format!(
                "GET /{} HTTP/1.1\r\nhost: x\r\n\r\n",
                "y".repeat(MAX_HEAD + 10)
            ),
            "4",
        ),
        ("garbage\r\n\r\n".to_owned(), "400"),
    ] {
        let (answer, after) = quiet_after(text.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
        assert_eq!(after.as_secs(), 0, "{answer}");
    }
}

#[tokio::test]
async fn a_flood_of_silent_connections_does_not_shut_out_the_next_one_and_leaves_nothing() {
    let world = World::new().await;
    let listener = Listener::bind(
        "127.0.0.1:0".parse().expect("an address"),
        world.door.clone(),
    )
    .await
    .expect("binds");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(listener.serve());
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(addr).await.expect("connects"));
    }
    let mut client = TcpStream::connect(addr).await.expect("connects");
    client
        .write_all(b"GET /api HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("writes");
    let mut answer = String::new();
    client
        .read_to_string(&mut answer)
        .await
        .expect("answered and closed");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(world.door.lobby.len() <= 64);
    // Those shown out are really gone.
    let gone = silent[0].read(&mut [0]).await;
    assert!(matches!(gone, Ok(0) | Err(_)), "{gone:?}");
    world.door.stop.cancel();
    drop(silent);
    world.door.connections.close();
    world.door.connections.wait().await;
    assert!(world.door.lobby.is_empty());
}

#[tokio::test]
async fn stopping_ends_idle_connections_at_once() {
    let world = World::new().await;
    let (mut client, ours) = tokio::io::duplex(64 * 1024);
    let door = world.door.clone();
    let served = tokio::spawn(async move {
        let peer = door.peer("198.51.100.9:4711".parse().expect("an address"));
        door.http(Transport::Memory(ours), peer).await;
    });
    tokio::task::yield_now().await;
    world.door.stop.cancel();
    served.await.expect("ran");
    assert_eq!(client.read(&mut [0]).await.expect("closed"), 0);
}

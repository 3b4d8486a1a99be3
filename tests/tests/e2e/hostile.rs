//! Requests and frames that no honest client sends end where they came from, and cost neither memory nor the cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use drawbridge_tests::{
    Connection, Event, Nothing, Opening, Request, contains, frame, run_alone, soon,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{exec, granted};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_not_one_is_refused_and_says_why() {
    run_alone(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let whole = exec(&session).request();
        let offer = |line: &str| exec(&session).protocol(line).request();
        // A POST is told what a WebSocket request for the same was told just before; these come without one.
        let post = |n: &str| exec(&session).query("n", n).request().method("POST");
        let nothing = Nothing::yet(test).await?;
        let v8 = whole
            .clone()
            .without("Sec-WebSocket-Version")
            .header("Sec-WebSocket-Version", "8");
        for (request, code, says) in [
            (offer("v3.channel.k8s.io"), 403, "v5.channel.k8s.io"),
            (offer("v5.base64.channel.k8s.io"), 403, "v5.channel.k8s.io"),
            (
                offer("chat, SPDY/3.1+portforward.k8s.io"),
                403,
                "v5.channel.k8s.io",
            ),
            (v8.clone(), 400, "version 13"),
            (
                whole.clone().without("Sec-WebSocket-Version"),
                400,
                "version 13",
            ),
            (
                whole.clone().without("Upgrade").without("Connection"),
                400,
                "Upgrade request required",
            ),
            (
                whole.clone().without("Sec-WebSocket-Key"),
                400,
                "Sec-WebSocket-Key",
            ),
            (
                whole.clone().without("Upgrade").header("Upgrade", "h2c"),
                400,
                "Upgrade request required",
            ),
            (post("1"), 405, "WebSocket"),
            (
                post("2").without("Upgrade").header("Upgrade", "SPDY/3.1"),
                405,
                "WebSocket",
            ),
            (whole.clone().method("PUT"), 405, "GET"),
            (whole.clone().method("DELETE"), 405, "GET"),
            (
                Opening::exec(&session, &[]).request(),
                400,
                "at least one command",
            ),
        ] {
            let answer = Connection::open(&gateway).await?.ask(&request).await?;
            let said = answer
                .refusal(code)
                .with_context(|| format!("{request:?}"))?;
            contains(&said, says).with_context(|| format!("{request:?}"))?;
        }
        let streams = format!(
            "/api/v1/namespaces/{}/pods/web/exec?command=true",
            test.namespace
        );
        let none = Request::upgrade(&streams)
            .token(&session.token)
            .offer("v4.channel.k8s.io");
        contains(
            &Connection::open(&gateway)
                .await?
                .ask(&none)
                .await?
                .refusal(400)?,
            "at least 1 of stdin, stdout, stderr",
        )?;
        let answer = Connection::open(&gateway).await?.ask(&v8).await?;
        ensure!(
            answer.header("sec-websocket-version") == Some("13"),
            "{answer:?}"
        );
        nothing.reached_the_cluster().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_turned_away_without_a_hang() {
    run_alone(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let nothing = Nothing::yet(test).await?;
        // Prior knowledge: the preface of RFC 9113, section 3.4, and an empty SETTINGS frame.
        let mut connection = Connection::open_with(&gateway, &[]).await?;
        ensure!(connection.alpn().is_none());
        connection
            .send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await?;
        let said = connection.until_closed(LIMIT).await?;
        ensure!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 400"),
            "{}",
            drawbridge_tests::text(&said)
        );
        // ALPN: whoever speaks both gets HTTP/1.1; whoever insists gets no connection (RFC 7301, section 3.2).
        ensure!(
            Connection::open_with(&gateway, &["h2", "http/1.1"])
                .await?
                .alpn()
                .as_deref()
                == Some("http/1.1")
        );
        ensure!(
            Connection::open_with(&gateway, &["h2"]).await.is_err(),
            "h2 was agreed on"
        );
        nothing.reached_the_cluster().await?;
        // No ALPN at all is how kubectl dials.
        let mut connection = Connection::open_with(&gateway, &[]).await?;
        ensure!(connection.ask(&exec(&session).request()).await?.code == 101);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_costs_no_memory() {
    run_alone(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let before = gateway.process.rss()?;
        let nothing = Nothing::yet(test).await?;
        let long = "x".repeat(60 * 1024);
        let query = exec(&session).query("command", &long).request();
        Connection::open(&gateway)
            .await?
            .ask(&query)
            .await?
            .refusal(414)?;
        let huge = "x".repeat(4 << 20);
        let many = (0..2000).fold(exec(&session).request(), |request, n| {
            request.header(&format!("x-{n}"), "y")
        });
        for (what, request) in [
            (
                "one header of 4 MiB",
                exec(&session).request().header("X-Long", &huge),
            ),
            (
                "a query of 4 MiB",
                exec(&session).query("command", &huge).request(),
            ),
            (
                "a path of 4 MiB",
                exec(&session).path(&format!("/{huge}")).request(),
            ),
            ("a token of 4 MiB", exec(&session).token(&huge).request()),
            ("2000 headers", many),
        ] {
            let mut connection = Connection::open(&gateway).await?;
            // It may hang up while we are still writing; that is an answer, too.
            let answer = match connection.ask(&request).await {
                Ok(answer) => answer.code,
                Err(_) => 431,
            };
            ensure!(matches!(answer, 400 | 401 | 414 | 431), "{what}: {answer}");
        }
        let many = "v9.channel.k8s.io,".repeat(500);
        Connection::open(&gateway)
            .await?
            .ask(&exec(&session).protocol(&many).request())
            .await?
            .refusal(400)?;
        nothing.reached_the_cluster().await?;
        let grown = gateway.process.rss()?.saturating_sub(before);
        ensure!(grown < 16 << 20, "it grew by {grown} bytes");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_four_mebibytes_ends_the_connection_with_1009() {
    run_alone(async |test| {
        let session = granted(test).await?;
        let gateway = test.gateway();
        let before = gateway.process.rss()?;
        let (head, part) = (
            [0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0],
            vec![0; 1 << 16],
        );
        let opening = Opening::exec(&session, &["sleep", "1000"]).tty();
        let mut connection = Connection::open(&gateway).await?;
        ensure!(connection.ask(&opening.request()).await?.code == 101);
        connection.send(&head).await?; // 1 GiB is announced
        let flood = async { while connection.send(&part).await.is_ok() {} };
        let _ = soon("the gateway stops reading", Duration::from_secs(2), flood).await; // it may also just not read
        let said = connection.until_closed(LIMIT).await?;
        ensure!(
            said.windows(4)
                .any(|bytes| bytes[..2] == [0x88, said_len(&said)]
                    && bytes[2..] == 1009_u16.to_be_bytes()),
            "{said:?}"
        );
        // Fragments add up to one message.
        let mut console = opening.open(&gateway).await?;
        let parts = async {
            console.send_raw(frame(0x02, &vec![0; 1 << 20])).await?;
            for _ in 0..8 {
                console.send_raw(frame(0x00, &vec![0; 1 << 20])).await?;
            }
            anyhow::Ok(())
        };
        let _ = parts.await; // it may hang up while we are still writing
        let close = loop {
            match console.event().await? {
                Event::Closed(code) => break code,
                Event::Gone(_) => break None,
                _ => {}
            }
        };
        ensure!(close.is_none_or(|code| code == 1009), "{close:?}");
        let grown = gateway.process.rss()?.saturating_sub(before);
        ensure!(grown < 16 << 20, "it grew by {grown} bytes");
        Ok(())
    })
    .await;
}

/// Length of the close frame's payload in `said`: of the last frame.
fn said_len(said: &[u8]) -> u8 {
    let at = said
        .iter()
        .rposition(|byte| *byte == 0x88)
        .unwrap_or_default();
    said.get(at + 1).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_protocol_end_the_connection_with_their_code() {
    run_alone(async |test| {
        let session = granted(test).await?;
        let opening = Opening::exec(&session, &["cat"]).tty();
        for (what, bytes, code) in [
            ("an unmasked frame", &[0x82, 0x01, 0x00][..], 1002),
            ("a reserved bit", &[0xc2, 0x81, 0, 0, 0, 0, 0], 1002),
            ("an unknown opcode", &[0x83, 0x81, 0, 0, 0, 0, 0], 1002),
            ("a fragmented ping", &[0x09, 0x80, 0, 0, 0, 0], 1002),
            (
                "a ping of 126 bytes",
                &[0x89, 0xfe, 0, 126, 0, 0, 0, 0],
                1002,
            ),
            (
                "a continuation of nothing",
                &[0x80, 0x81, 0, 0, 0, 0, 0],
                1002,
            ),
        ] {
            let mut console = opening.open(&test.gateway()).await?;
            console.send_raw(bytes.to_vec().into()).await?;
            let close = loop {
                match console.event().await? {
                    Event::Closed(code) => break code,
                    Event::Gone(why) => anyhow::bail!("{what}: gone without a code: {why}"),
                    _ => {}
                }
            };
            ensure!(close == Some(code), "{what}: {close:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_come_drop_by_drop_are_not_waited_for() {
    run_alone(async |test| {
        let session = granted(test).await?;
        let nothing = Nothing::yet(test).await?;
        let begin = Instant::now();
        let mut connection = Connection::open(&test.gateway()).await?;
        let bytes = exec(&session).request().bytes();
        let (most, _) = bytes.split_at(bytes.len() - 2);
        connection.send(most).await?;
        let said = connection.until_closed(LIMIT).await?;
        ensure!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 408"),
            "{}",
            drawbridge_tests::text(&said)
        );
        ensure!(
            begin.elapsed() < Duration::from_secs(15),
            "held for {:?}",
            begin.elapsed()
        );
        nothing.reached_the_cluster().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_message_that_is_not_utf8_never_ends_anybody_elses_console() {
    run_alone(async |test| {
        let session = granted(test).await?;
        let mut bystander = Opening::exec(&session, &["cat"])
            .tty()
            .open(&test.gateway())
            .await?;
        let mut console = Opening::exec(&session, &["cat"])
            .tty()
            .open(&test.gateway())
            .await?;
        console.send_raw(frame(0x81, b"\0\xff\xfe")).await?;
        console.send(Message::Close(None)).await?;
        loop {
            if matches!(console.event().await?, Event::Closed(_) | Event::Gone(_)) {
                break;
            }
        }
        bystander.stdin(b"still here\n").await?;
        bystander.until("still here").await?;
        Ok(())
    })
    .await;
}

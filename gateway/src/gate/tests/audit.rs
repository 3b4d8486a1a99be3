//! What the audit log is told, and when.

use drawbridge_audit::event::Type;

use super::*;

fn kinds(world: &World) -> Vec<Type> {
    let told = world.told.lock().expect("not poisoned");
    told.iter()
        .map(drawbridge_audit::event::Event::kind)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_console_is_on_record_before_its_client_is_told_and_again_when_it_ends() {
    let world = World::new().await;
    let request = websocket(EXEC, "v4.channel.k8s.io", "User-Agent: kubectl/v1.36.0\r\n");
    let mut client = world.connect(&request).await;
    assert_eq!(head(&mut client).await.0, 101);
    assert_eq!(kinds(&world), [Type::Connected]);
    drop(client);
    while kinds(&world).len() < 2 {
        tokio::task::yield_now().await;
    }
    let told = world.told.lock().expect("not poisoned");
    let (opened, ended) = (told[0].facts(), told[1].facts());
    assert_eq!(told[1].kind(), Type::Disconnected);
    assert_eq!(opened.connection, ended.connection);
    let agent = ended
        .client
        .as_ref()
        .and_then(|client| client.user_agent.as_deref());
    assert_eq!(agent, Some("kubectl/v1.36.0"));
    let account = opened
        .upstream
        .as_ref()
        .and_then(|upstream| upstream.user.as_deref());
    assert_eq!(
        account,
        Some("system:serviceaccount:drawbridge-sessions:cs-6f1c")
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_are_on_record_with_what_was_asked_and_no_token() {
    let world = World::new().await;
    let elsewhere = EXEC.replace("/web/", "/db/");
    for (request, code) in [
        (websocket(&elsewhere, "v4.channel.k8s.io", ""), 403),
        (plain("GET", "/nowhere"), 403),
    ] {
        assert_eq!(world.message(&request).await.0, code);
    }
    while kinds(&world).len() < 2 {
        tokio::task::yield_now().await;
    }
    let told = world.told.lock().expect("not poisoned");
    let (known, stranger) = (told[0].facts(), told[1].facts());
    assert_eq!(known.user.as_deref(), Some("alice@example.com"));
    assert_eq!(known.pod.as_ref().map(|pod| pod.name.as_str()), Some("db"));
    assert!(stranger.session.is_none() && stranger.user.is_none());
    let text = serde_json::to_string(&[known, stranger]).expect("JSON");
    assert!(!text.contains(&good()), "{text}");
}

#[tokio::test(start_paused = true)]
async fn no_console_is_opened_that_cannot_be_put_on_record() {
    let mut world = World::new().await;
    let (log, emitted) = Log::for_tests(8);
    drop(emitted); // nobody writes any more
    Arc::get_mut(&mut world.door.gate)
        .expect("nobody else has it")
        .log = log;
    let request = websocket(EXEC, "v4.channel.k8s.io", "");
    let (code, message) = world.message(&request).await;
    assert_eq!(code, 503, "{message}");
    assert!(message.contains("audit log"), "{message}");
}

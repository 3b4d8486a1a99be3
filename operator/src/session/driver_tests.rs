use drawbridge_audit::event::Type;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::world::{ACCOUNT, ANCHOR, BINDING, POD, ROLE, SECRET, SESSION, World, pod};
use super::*;

type Edit = fn(&mut Value);

/// Where in the log the line is that is all of `parts`.
fn place(log: &[String], method: &str, end: &str) -> usize {
    let found = log
        .iter()
        .position(|line| line.starts_with(method) && line.ends_with(end));
    found.unwrap_or_else(|| panic!("{method} …{end} is not in {log:#?}"))
}

#[tokio::test(start_paused = true)]
async fn a_grant_is_made_in_an_order_in_which_nothing_is_ever_too_much() {
    let world = World::new();
    world.pass().await.expect("granted");
    let log = world.api.writes();
    let finalizer = place(&log, "PATCH", "/consolesessions/shell");
    let token = place(&log, "POST", "/token");
    let secret = place(&log, "POST", "/namespaces/shop/secrets");
    let status = place(&log, "PATCH", "/status");
    let event = place(&log, "POST", "/events");
    assert_eq!(finalizer, 0, "{log:#?}");
    for kind in [
        "/serviceaccounts",
        "/drawbridge-sessions/secrets",
        "/roles",
        "/rolebindings",
    ] {
        assert!(place(&log, "POST", kind) < token, "{kind} in {log:#?}");
    }
    assert!(
        place(&log, "POST", "/roles") < place(&log, "POST", "/rolebindings"),
        "{log:#?}"
    );
    assert_eq!(
        [token + 1, secret + 1, status + 1],
        [secret, status, event],
        "{log:#?}"
    );
    assert_eq!(event + 1, log.len(), "{log:#?}");
    let status = world.status();
    assert_eq!(status["credential"]["secret"], "shell-6f1c0000");
    assert_eq!(status["target"]["podUID"], "pod-1");
    assert_eq!(status["conditions"][0]["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn one_who_looks_at_a_session_gets_a_token_and_no_right_in_the_cluster() {
    let world = World::new();
    world.change(SESSION, |session| {
        session["spec"] = json!({
            "user": "alice@example.com", "mode": "Observe", "observe": {"session": "fix-cart"},
        });
    });
    let mut world = World::on(world.api.clone());
    world.pass().await.expect("waits");
    assert_eq!(world.status()["phase"], "Pending");
    let other = SESSION.replace("/shell", "/fix-cart");
    world.api.put(
        &other,
        json!({"metadata": {"name": "fix-cart", "namespace": "shop", "uid": "0bse-1"}}),
    );
    world.watch();
    world.pass().await.expect("granted");
    let status = world.status();
    assert_eq!(
        (&status["phase"], &status["observed"]["uid"]),
        (&json!("Ready"), &json!("0bse-1"))
    );
    assert!(world.api.get(SECRET).is_some() && world.api.get(ACCOUNT).is_some());
    assert_eq!((world.api.get(ROLE), world.api.get(BINDING)), (None, None));
    world.watch();
    world.api.log();
    world.pass().await.expect("at rest");
    assert_eq!(world.api.log(), Vec::<String>::new(), "at rest");
    world.revoke();
    world.pass().await.expect("ended");
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn at_rest_nothing_is_written_or_read() {
    let mut world = World::new();
    world.pass().await.expect("granted");
    world.api.log();
    world.pass().await.expect("at rest");
    assert_eq!(
        world.api.log(),
        Vec::<String>::new(),
        "before the watch shows what was made"
    );
    world.watch();
    world.pass().await.expect("at rest");
    assert_eq!(world.api.log(), Vec::<String>::new(), "after it does");
    let mut successor = World::on(world.api.clone());
    successor.pass().await.expect("at rest");
    assert_eq!(world.api.log(), Vec::<String>::new(), "by another process");
    successor.revoke();
    successor.pass().await.expect("ended");
    successor.watch();
    world.api.log();
    successor.pass().await.expect("at rest");
    assert_eq!(world.api.log(), Vec::<String>::new(), "after the end");
}

#[tokio::test(start_paused = true)]
async fn when_the_pod_cannot_be_read_nothing_is_granted() {
    let world = World::new();
    world.api.fail("GET /api/v1/namespaces/shop/pods", 500);
    world.pass().await.expect_err("cannot decide");
    assert_eq!(world.api.writes(), Vec::<String>::new());
    world.api.heal();
    world.pass().await.expect("granted");
    assert_eq!(world.status()["phase"], "Ready");
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_on_the_way_the_session_is_not_ready_and_says_why() {
    for step in [
        "POST /api/v1/namespaces/drawbridge-sessions/serviceaccounts",
        "POST /api/v1/namespaces/drawbridge-sessions/secrets",
        "/roles",
        "/rolebindings",
        "/token",
        "POST /api/v1/namespaces/shop/secrets",
    ] {
        let mut world = World::new();
        world.api.fail(step, 403);
        world.pass().await.expect_err(step);
        let status = world.status();
        assert_eq!(status["phase"], "Pending", "{step}");
        assert_eq!(status["conditions"][0]["reason"], "Refused", "{step}");
        assert!(status["grantedAt"].is_null(), "{step}");
        assert!(world.api.get(SECRET).is_none(), "{step}: there is no token");
        world.watch();
        world.api.log();
        world.pass().await.expect_err(step);
        let again = world.api.writes();
        assert!(
            !again.iter().any(|line| line.ends_with("/status")),
            "{step}: told once, {again:#?}"
        );
        world.api.heal();
        world.pass().await.expect(step);
        assert_eq!(world.status()["phase"], "Ready", "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_changed_meanwhile_is_not_made_ready() {
    let mut world = World::new();
    world.change(SESSION, |session| session["spec"]["revoked"] = true.into());
    // The watch has not shown the revocation yet.
    let error = world.pass().await.expect_err("stale");
    assert!(matches!(error, Error::Conflict), "{error:?}");
    assert!(world.status().is_null());
    world.watch();
    world.pass().await.expect("revoked");
    assert_eq!(world.status()["phase"], "Revoked");
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_first_and_then_everything_is_taken_away() {
    let mut world = World::granted().await;
    world.revoke();
    world.pass().await.expect("revoked");
    let log = world.api.writes();
    assert_eq!(place(&log, "PATCH", "/status"), 0, "{log:#?}");
    assert_eq!(
        place(&log, "PATCH", "/consolesessions/shell"),
        log.len() - 1,
        "{log:#?}"
    );
    assert!(world.is_clean(), "{:?}", world.api.paths("6f1c0000"));
    let session = world.api.get(SESSION).expect("kept");
    assert_eq!(session["metadata"]["finalizers"], json!([]));
    assert_eq!(session["status"]["endReason"], "Revoked");
    assert_eq!(
        session["status"]["target"]["podUID"], "pod-1",
        "what was granted stays on record"
    );
    assert!(session["status"]["credential"].is_null());
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_told_is_still_carried_out() {
    let mut world = World::granted().await;
    world.revoke();
    world.api.fail("/status", 500);
    world
        .pass()
        .await
        .expect_err("the status cannot be written");
    assert!(world.is_clean(), "{:?}", world.api.paths("6f1c0000"));
    world.api.heal();
    world.watch();
    world.pass().await.expect("told later");
    assert_eq!(world.status()["phase"], "Revoked");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_taken_away_is_tried_again() {
    let mut world = World::granted().await;
    world.revoke();
    world.api.fail(&format!("DELETE {ACCOUNT}"), 500);
    world
        .pass()
        .await
        .expect_err("the account cannot be deleted");
    let held = world.api.get(SESSION).expect("kept")["metadata"]["finalizers"].clone();
    assert_eq!(held, json!([names::FINALIZER]), "held until it is clean");
    world.api.heal();
    world.watch();
    world.pass().await.expect("clean");
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_replaced_pod_ends_the_grant_and_its_return_does_not_revive_it() {
    let mut world = World::granted().await;
    world.api.put(POD, pod("pod-2"));
    world.watch();
    world.pass().await.expect("ended");
    assert_eq!(world.status()["endReason"], "PodReplaced");
    world.api.put(POD, pod("pod-1"));
    world.watch();
    world.pass().await.expect("still ended");
    assert_eq!(world.status()["endReason"], "PodReplaced");
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_has_lost_the_pod_is_not_believed() {
    let mut world = World::granted().await;
    let there = world.api.get(POD).expect("runs");
    world.api.remove(POD);
    world.watch();
    world.api.put(POD, there);
    world.pass().await.expect("asked the API server");
    assert_eq!(world.status()["phase"], "Ready");
    world.api.fail("GET /api/v1/namespaces/shop/pods", 500);
    world.pass().await.expect_err("nobody knows");
    assert_eq!(
        world.status()["phase"],
        "Ready",
        "and nothing is ended on a guess"
    );
}

#[tokio::test(start_paused = true)]
async fn whatever_is_edited_or_deleted_is_as_before_after_one_pass() {
    for path in [ACCOUNT, ANCHOR, ROLE, BINDING, SECRET] {
        let mut world = World::granted().await;
        world.api.remove(path);
        world.watch();
        world
            .pass()
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(world.api.get(path).is_some(), "{path} is back");
        world.watch();
        world.api.log();
        world.pass().await.expect("at rest");
        assert_eq!(world.api.log(), Vec::<String>::new(), "{path}");
    }
    let world = World::granted().await;
    let before = world.api.get(SECRET).expect("made")["data"]["token"].clone();
    let edits: [(&str, Edit); 4] = [
        (ROLE, |role| {
            role["rules"][0]["resourceNames"] = json!(["db-0"]);
        }),
        (ROLE, |role| {
            role["metadata"]["labels"]["drawbridge.dev/session"] = "other".into();
        }),
        (BINDING, |binding| {
            binding["subjects"][0]["name"] = "default".into();
        }),
        (SECRET, |secret| {
            secret["data"]["kubeconfig"] = "eHg=".into();
        }),
    ];
    for (path, edit) in edits {
        let mut world = World::granted().await;
        let good = world.api.get(path).expect("made");
        world.change(path, edit);
        world.watch();
        world
            .pass()
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let now = world.api.get(path).expect("kept");
        if path == SECRET {
            assert_ne!(now["data"]["token"], before, "issued anew");
        } else {
            assert_eq!(
                (&now["rules"], &now["subjects"]),
                (&good["rules"], &good["subjects"]),
                "{path}"
            );
            assert_eq!(
                now["metadata"]["labels"], good["metadata"]["labels"],
                "{path}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_dies_with_its_account_and_its_anchor() {
    for path in [ACCOUNT, ANCHOR] {
        let mut world = World::granted().await;
        let before = world.api.get(SECRET).expect("made")["data"]["token"].clone();
        world.api.remove(path);
        world.watch();
        world.pass().await.expect("repaired");
        assert_ne!(
            world.api.get(SECRET).expect("kept")["data"]["token"],
            before,
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_undoes_every_repair_does_not_keep_the_operator_busy() {
    let mut world = World::granted().await;
    for _ in 0..2 * MAX_REPAIRS {
        world.api.remove(ROLE);
        world.watch();
        world.pass().await.expect("repaired, or put off");
        world.watch();
    }
    let made = world
        .api
        .writes()
        .iter()
        .filter(|line| line.starts_with("POST") && line.ends_with("/roles"))
        .count();
    assert_eq!(made, usize::try_from(MAX_REPAIRS).expect("small"));
    world.revoke();
    world.pass().await.expect("an end is not put off");
    assert!(world.is_clean());

    let mut world = World::granted().await;
    for _ in 0..=MAX_REPAIRS {
        world.api.remove(ROLE);
        world.watch();
        world.pass().await.expect("repaired, or put off");
        world.watch();
    }
    assert!(world.api.get(ROLE).is_none());
    tokio::time::advance(REPAIRS_PER).await;
    world.pass().await.expect("repaired");
    assert!(world.api.get(ROLE).is_some(), "put off, not given up");
}

#[tokio::test(start_paused = true)]
async fn a_binding_to_another_role_is_replaced() {
    let mut world = World::granted().await;
    world.change(BINDING, |binding| {
        binding["roleRef"]["name"] = "admin".into();
    });
    world.watch();
    let error = world.pass().await.expect_err("cannot be updated");
    assert!(
        matches!(error, Error::Conflict),
        "deleted, to be made anew at once: {error:?}"
    );
    world.pass().await.expect("made anew");
    assert_eq!(
        world.api.get(BINDING).expect("there")["roleRef"]["name"],
        "shell-6f1c0000"
    );
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_made_is_not_taken_over() {
    for path in [SECRET, ROLE, BINDING] {
        let mut world = World::new();
        let kind = path.rsplit('/').nth(1).expect("a kind");
        let mut theirs =
            json!({"metadata": {"name": "shell-6f1c0000", "namespace": "shop", "uid": "theirs"}});
        if kind == "rolebindings" {
            theirs["roleRef"] =
                json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"});
        }
        world.api.put(path, theirs);
        let theirs = world.api.get(path);
        world.watch();
        let error = world.pass().await.expect_err(path);
        assert!(
            matches!(error, Error::NameTaken { .. }),
            "{path}: {error:?}"
        );
        assert_eq!(
            world.status()["conditions"][0]["reason"],
            "NameTaken",
            "{path}"
        );
        assert_eq!(world.api.get(path), theirs, "{path} is as it was");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_session_is_released_even_if_nothing_is_known_of_what_was_made() {
    let world = World::granted().await;
    world.change(SESSION, |session| {
        session["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        session["status"] = Value::Null;
    });
    // Another process, whose caches show the session alone.
    let mut blind = World::unwatched(world.api.clone());
    let session = world.api.get(SESSION).expect("there");
    let session: Guarded = serde_json::from_value(session).expect("a session");
    blind
        .feeds
        .sessions
        .apply_watcher_event(&Event::Apply(session));
    blind.pass().await.expect("released");
    assert!(world.api.get(ACCOUNT).is_none() && world.api.get(ANCHOR).is_none());
    assert!(
        world.api.get(SESSION).is_none(),
        "gone with its last finalizer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_parsed_is_skipped_and_can_be_deleted() {
    let mut world = World::granted().await;
    world.change(SESSION, |session| {
        session["spec"]["duration"] = "99999999999999999999h".into();
    });
    world.watch();
    world.pass().await.expect("skipped");
    assert_eq!(world.api.log(), Vec::<String>::new());
    world.change(SESSION, |session| {
        session["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    world.watch();
    world.pass().await.expect("released");
    assert!(world.api.get(SESSION).is_none());
    assert!(world.api.get(ACCOUNT).is_none() && world.api.get(ANCHOR).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_account_without_a_session_is_swept_and_one_in_doubt_is_not() {
    let mut world = World::granted().await;
    world.api.remove(SESSION);
    world.watch();
    world.api.fail(&format!("GET {SESSION}"), 500);
    crate::sweep::sweep(&world.ctx).await;
    assert!(
        world.api.get(ACCOUNT).is_some(),
        "nobody knows whether the session exists"
    );
    world.api.heal();
    crate::sweep::sweep(&world.ctx).await;
    assert!(world.api.get(ACCOUNT).is_none() && world.api.get(ANCHOR).is_none());
    assert!(
        world.api.get(SECRET).is_some(),
        "what is beside the session is left to its owner reference"
    );

    let mut world = World::granted().await;
    world.api.log();
    crate::sweep::sweep(&world.ctx).await;
    assert_eq!(world.api.log(), Vec::<String>::new(), "it exists");
    world.change(SESSION, |session| {
        session["metadata"]["uid"] = "another".into();
    });
    world.watch();
    crate::sweep::sweep(&world.ctx).await;
    assert!(
        world.api.get(ACCOUNT).is_none(),
        "another session of the same name is not its owner"
    );
}

#[tokio::test(start_paused = true)]
async fn a_standby_writes_nothing() {
    let mut world = World::new();
    let ctx = Arc::get_mut(&mut world.ctx).expect("ours alone");
    ctx.leading = CancellationToken::new();
    let stop = ctx.stop.clone();
    let mut pass = std::pin::pin!(world.pass());
    assert!(futures_util::poll!(&mut pass).is_pending());
    assert_eq!(world.api.log(), Vec::<String>::new());
    stop.cancel();
    pass.await.expect("stops without having begun");
    assert_eq!(world.api.log(), Vec::<String>::new());
}

#[test]
fn pauses_grow_to_a_bound_and_differ() {
    assert_eq!(pause(0, 0), Duration::from_millis(250));
    assert_eq!(pause(3, 0), Duration::from_secs(2));
    for failures in [8, 100, u32::MAX] {
        assert_eq!(pause(failures, 0), LONGEST_PAUSE);
        assert!(pause(failures, u64::MAX) <= LONGEST_PAUSE * 5 / 4);
    }
    assert_ne!(pause(5, 1), pause(5, 2));
}

#[test]
fn a_pause_does_not_outlast_the_grant() {
    let now = Timestamp::from_second(1000).expect("in range");
    let minute = Duration::from_mins(1);
    for (ends, pause) in [
        (None, 60),
        (Some(999), 60),
        (Some(1000), 60),
        (Some(1007), 7),
        (Some(2000), 60),
    ] {
        let ends = ends.map(|second| Timestamp::from_second(second).expect("in range"));
        assert_eq!(
            before(minute, ends, now),
            Duration::from_secs(pause),
            "{ends:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_sessions_life_is_told_before_each_status_and_told_once() {
    let mut world = World::new();
    world.pass().await.expect("granted");
    world.watch();
    world.pass().await.expect("nothing to do");
    world.change(SESSION, |session| session["spec"]["revoked"] = true.into());
    world.watch();
    world.pass().await.expect("ended");
    let told: Vec<_> = world
        .told
        .lock()
        .expect("not poisoned")
        .iter()
        .map(|event| (event.kind(), event.facts().clone()))
        .collect();
    let kinds: Vec<_> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Type::Requested, Type::Granted, Type::Revoked]);
    for (_, facts) in &told {
        assert_eq!(facts.user.as_deref(), Some("alice@example.com"));
        assert_eq!(
            facts.session.as_ref().map(|session| session.uid.as_str()),
            Some("6f1c0000-1")
        );
        let pod = facts.pod.as_ref().expect("told");
        assert_eq!(pod.uid.as_deref(), Some("pod-1"));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_granted_that_cannot_be_put_on_record() {
    let world = World::new();
    let (log, emitted) = drawbridge_audit::log::Log::for_tests(8);
    drop(emitted); // nobody writes any more
    let world = World {
        ctx: Arc::new(Ctx {
            log,
            ..Arc::into_inner(world.ctx).expect("nobody else has it")
        }),
        ..world
    };
    assert!(matches!(world.pass().await, Err(Error::Unlogged(_))));
    let status = world.status();
    assert_ne!(status["phase"], "Ready", "{status}");
}

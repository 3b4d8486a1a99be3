//! What no real cluster does on demand: watches that stall, writes that fail, streams cut in the middle of a frame.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, Phase};
use drawbridge_sandbox::faults::{Answer, Faults, RequestFault, StreamFault, WatchFault};
use drawbridge_tests::{
    Cluster, Console, End, Event, Needs, Opening, SYSTEM_NAMESPACE, Session, Test, contains, note,
    run_alone, soon, wait_for,
};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use tokio::sync::watch::Sender;

use crate::shell;

const LIMIT: Duration = Duration::from_secs(30);
/// From the moment the API can be heard again until a cut: a watch is tried again after a pause.
const RECOVERY: Duration = Duration::from_secs(10);

/// Runs a test on a sandbox of its own; does nothing where there are no faults to be had and that is excused.
async fn faulty(body: impl AsyncFnOnce(&Test, &Sender<Faults>) -> Result<()>) {
    // Asked first: nobody need wait for a turn alone on a cluster that has none.
    let there = match Cluster::is_sandbox() {
        Ok(true) => Ok(true),
        _ => Cluster::connect()
            .await
            .and_then(|cluster| cluster.offers(Needs::Faults)),
    };
    if there.expect("a cluster with faults, or DRAWBRIDGE_SKIP=faults") {
        run_alone(async |test| body(test, &test.cluster.faulty()?.cluster().faults).await).await;
    }
}

async fn works(test: &Test, session: &Session) -> Result<()> {
    let end = Opening::exec(session, &["echo", "hello"])
        .open(&test.gateway())
        .await?
        .finish()
        .await?;
    ensure!(end.stdout == b"hello\n", "{end:?}");
    Ok(())
}

/// Revokes a session; its shell is told so within a second.
async fn revoked_in_time(test: &Test, session: &Session, console: Console) -> Result<()> {
    let ended = tokio::spawn(console.finish());
    let asked = Instant::now();
    test.revoke(&session.name).await?;
    let end = soon("the shell is cut", LIMIT, ended).await???;
    contains(&end.failure()?, "revoked")?;
    let late = end.at.saturating_duration_since(asked);
    ensure!(late < Duration::from_secs(1), "{late:?}");
    Ok(())
}

/// A client was told of a failure, or nothing at all: never that all went well.
fn no_success(end: &End) -> Result<()> {
    if end.status.is_some() {
        end.failure().map(drop)
    } else {
        ensure!(end.close != Some(1000), "kubectl would exit 0: {end:?}");
        Ok(())
    }
}

async fn revoked_while(fault: WatchFault) {
    faulty(async |test, faults| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let ended = tokio::spawn(shell(test, &session).await?.finish());
        faults.send_modify(|now| now.watches = fault);
        test.revoke(&session.name).await?;
        // Nobody can know it now. Long enough for a gateway that would end everything in doubt to do so.
        let early = wait_for("a cut", Duration::from_secs(3), async || {
            Ok(ended.is_finished().then_some(()))
        });
        note(format!(
            "cut while the watch was {fault:?}: {}",
            early.await.is_ok()
        ));
        let heard = Instant::now();
        faults.send_modify(|now| now.watches = WatchFault::None);
        let end = soon("the shell is cut", LIMIT, ended).await???;
        contains(&end.failure()?, "revoked")?;
        let late = end.at.saturating_duration_since(heard);
        note(format!("{late:.1?} after the watch could be heard again"));
        ensure!(late < RECOVERY, "{late:?}");
        // And from then on as ever.
        let session = test.session("web", json!({})).await?;
        revoked_in_time(test, &session, shell(test, &session).await?).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_during_a_stalled_watch_cuts_as_soon_as_it_is_heard() {
    revoked_while(WatchFault::Stalled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_during_a_dropped_watch_cuts_as_soon_as_there_is_another() {
    revoked_while(WatchFault::Refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_fell_behind_what_is_remembered_lists_again() {
    faulty(async |test, faults| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let ended = tokio::spawn(shell(test, &session).await?.finish());
        faults.send_modify(|now| now.watches = WatchFault::Refused);
        test.revoke(&session.name).await?;
        // The revisions both programs know are gone when they ask again: 410.
        test.cluster.faulty()?.cluster().store.compact();
        faults.send_modify(|now| now.watches = WatchFault::None);
        let end = soon("the shell is cut", LIMIT, ended).await???;
        contains(&end.failure()?, "revoked")?;
        test.phase(&session.name, Phase::Revoked).await?;
        let next = test.session("web", json!({})).await?;
        works(test, &next).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_needs_nobody_who_can_be_heard() {
    faulty(async |test, faults| {
        test.pod("web").await?;
        let until = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 6)?;
        let session = test.session("web", json!({"notAfter": until})).await?;
        let console = shell(test, &session).await?;
        faults.send_modify(|now| now.watches = WatchFault::Refused);
        faults.send_modify(|now| now.requests.push(every(503)));
        let end = soon("the shell is cut", LIMIT, console.finish()).await??;
        let late = jiff::Timestamp::now().duration_since(until);
        faults.send_replace(Faults::default());
        contains(&end.failure()?, "expired")?;
        ensure!(late < jiff::SignedDuration::from_millis(400), "{late:?}");
        Ok(())
    })
    .await;
}

fn every(code: u16) -> RequestFault {
    RequestFault {
        verb: String::new(),
        resource: String::new(),
        after: 0,
        times: u32::MAX,
        then: Answer::Code(code),
    }
}

/// What the operator writes during one grant: verb, resource, how often. As the API server has seen it.
async fn written(test: &Test) -> Result<BTreeMap<(String, String), u32>> {
    let audit = test.cluster.audit()?;
    let mark = audit.mark()?;
    let session = test.session("web", json!({})).await?;
    let operator = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:drawbridge-operator");
    let mut all = BTreeMap::new();
    for seen in audit.since(mark, |seen| {
        seen.stage == "ResponseComplete"
            && seen.user.username == operator
            && !matches!(seen.verb.as_str(), "get" | "list" | "watch")
    })? {
        let object = seen.object_ref;
        let mut resource = object.resource;
        if !object.group.is_empty() {
            resource = format!("{resource}.{}", object.group);
        }
        if !object.subresource.is_empty() {
            resource = format!("{resource}/{}", object.subresource);
        }
        // What the operator keeps for itself (its lease, its keys) is no part of a grant, and Events are not waited for.
        if object.namespace != SYSTEM_NAMESPACE && !resource.starts_with("events") {
            *all.entry((seen.verb, resource)).or_insert(0) += 1;
        }
    }
    test.delete::<ConsoleSession>(&session.name).await?;
    nothing_left(test).await?;
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_survives_any_of_its_writes_failing_and_leaves_nothing_over() {
    faulty(async |test, faults| {
        test.pod("web").await?;
        let written = written(test).await?;
        note(format!("a grant writes {written:?}"));
        ensure!(written.len() >= 5, "too little: {written:?}");
        for ((verb, resource), times) in written {
            for after in 0..times {
                for code in [409, 429, 500, 503] {
                    faults.send_modify(|now| {
                        now.requests.push(RequestFault {
                            verb: verb.clone(),
                            resource: resource.clone(),
                            after,
                            times: 1,
                            then: Answer::Code(code),
                        });
                    });
                    let what = || format!("{code} after {after} times {verb} {resource}");
                    // Created, not applied: the patches are the operator's alone.
                    let name = test.name("granted");
                    test.create_session(&name, "web", json!({})).await?;
                    let session = test.granted(&name).await.with_context(what)?;
                    works(test, &session).await.with_context(what)?;
                    ensure!(faults.borrow().requests.is_empty(), "not met: {}", what());
                    test.delete::<ConsoleSession>(&session.name).await?;
                    nothing_left(test).await.with_context(what)?;
                }
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_survives_any_of_its_deletions_failing() {
    faulty(async |test, faults| {
        test.pod("web").await?;
        for resource in [
            "serviceaccounts",
            "secrets",
            "roles.rbac.authorization.k8s.io",
            "rolebindings.rbac.authorization.k8s.io",
        ] {
            for then in [Answer::Code(409), Answer::Code(500), Answer::Reset] {
                let session = test.session("web", json!({})).await?;
                faults.send_modify(|now| {
                    now.requests.push(RequestFault {
                        verb: "delete".to_owned(),
                        resource: resource.to_owned(),
                        after: 0,
                        times: 1,
                        then,
                    });
                });
                test.revoke(&session.name).await?;
                test.phase(&session.name, Phase::Revoked)
                    .await
                    .with_context(|| format!("{then:?} for a delete of {resource}"))?;
                // The status is told first, then all is taken away.
                let met = format!("the operator meets {then:?} for a delete of {resource}");
                wait_for(&met, LIMIT, async || {
                    Ok(faults.borrow().requests.is_empty().then_some(()))
                })
                .await?;
            }
        }
        nothing_left(test).await
    })
    .await;
}

/// Waits until nothing made for sessions is left.
async fn nothing_left(test: &Test) -> Result<()> {
    let all = ListParams::default();
    let ours = ListParams::default().labels(names::SESSION_UID_LABEL);
    let client = || test.cluster.client.clone();
    let accounts = Api::<ServiceAccount>::namespaced(client(), names::SESSIONS_NAMESPACE);
    let anchors = Api::<Secret>::namespaced(client(), names::SESSIONS_NAMESPACE);
    wait_for("nothing is left of the sessions", LIMIT, async || {
        let left = [
            accounts.list(&ours).await?.items.len(),
            anchors.list(&ours).await?.items.len(),
            test.api::<Secret>().list(&ours).await?.items.len(),
            test.api::<Role>().list(&all).await?.items.len(),
            test.api::<RoleBinding>().list(&all).await?.items.len(),
        ];
        ensure!(
            left == [0; 5],
            "accounts, anchors, Secrets, Roles, bindings: {left:?}"
        );
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_told_as_a_failure_and_never_as_success() {
    faulty(async |test, faults| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        for fault in [StreamFault::CutMidFrame, StreamFault::Reset] {
            let mut console = shell(test, &session).await?;
            faults.send_modify(|now| now.streams = fault);
            console.stdin(b"echo more\n").await?;
            let end = console.finish().await?;
            faults.send_modify(|now| now.streams = StreamFault::None);
            note(format!("{fault:?}: {}", end.failure().unwrap_or_default()));
            end.failure().with_context(|| format!("{fault:?}"))?;
            works(test, &session).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_in_the_middle_of_a_frame_can_still_be_revoked() {
    faulty(async |test, faults| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let mut console = shell(test, &session).await?;
        faults.send_modify(|now| now.streams = StreamFault::StallMidFrame);
        console.stdin(b"echo more\n").await?;
        revoked_in_time(test, &session, console).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_dies_during_a_command_is_no_success() {
    faulty(async |test, faults| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        let authority = test.cluster.kubelet_authority().context("a sandbox's")?;
        let flag = format!("--kubelet-ca={}", authority.display());
        let direct = test
            .drawbridge
            .kubelet_gateway(&test.cluster, &[&flag])
            .await?;
        let gateway = test.gateway();
        for (name, gateway) in [("the API server", &*gateway), ("the kubelet", &direct)] {
            let mut console = Opening::exec(&session, &["sh", "-c", "echo on; sleep 1000"])
                .open(gateway)
                .await?;
            while console.event().await? != Event::Stdout(b"on\n".to_vec()) {}
            faults.send_modify(|now| now.kubelet_dead = true);
            let end = console.finish().await?;
            no_success(&end).with_context(|| format!("through {name}"))?;
            let refused = Opening::exec(&session, &["true"]).refused(gateway).await;
            note(format!(
                "{name}, while the kubelet is dead: {:?}",
                refused.map(|answer| answer.code)
            ));
            faults.send_modify(|now| now.kubelet_dead = false);
            // The API server of a sandbox needs no port of the kubelet's: it is back before the port is.
            for way in [&*test.gateway(), &direct] {
                let again = wait_for("the kubelet serves again", LIMIT, async || {
                    let console = Opening::exec(&session, &["echo", "hello"])
                        .open(way)
                        .await?;
                    Ok((console.finish().await?.stdout == b"hello\n").then_some(()))
                });
                again.await?;
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_answers_slowly_or_not_at_all_lets_nobody_in() {
    faulty(async |test, faults| {
        test.pod("web").await?;
        let session = test.session("web", json!({})).await?;
        for then in [Answer::Code(500), Answer::Code(429), Answer::Reset] {
            faults.send_modify(|now| {
                now.requests.push(RequestFault {
                    verb: "create".to_owned(),
                    resource: "tokenreviews.authentication.k8s.io".to_owned(),
                    after: 0,
                    times: 1000,
                    then,
                });
            });
            let stranger = test.session("web", json!({})).await?;
            let refused = Opening::exec(&stranger, &["true"])
                .refused(&test.gateway())
                .await
                .with_context(|| format!("{then:?}"))?;
            note(format!("no TokenReview ({then:?}): {}", refused.code));
            ensure!(refused.code >= 500, "{refused:?}");
            faults.send_replace(Faults::default());
        }
        works(test, &session).await
    })
    .await;
}

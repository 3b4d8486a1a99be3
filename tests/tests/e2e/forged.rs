//! A gateway may patch the status of sessions. One that lies there gains nothing: the operator puts right what is its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use drawbridge_crds::v1alpha1::{ConsoleSession, ConsoleSessionStatus, Phase};
use drawbridge_tests::{Test, run, wait_for};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{exec, granted};

const LIMIT: Duration = Duration::from_secs(30);

/// Sessions, as the gateway reaches them.
async fn as_gateway(test: &Test) -> Result<Api<ConsoleSession>> {
    let token = test.drawbridge.token_of("drawbridge-gateway")?;
    let client = test.cluster.client_with_token(&token).await?;
    Ok(Api::namespaced(client, &test.namespace))
}

async fn lie(gateway: &Api<ConsoleSession>, name: &str, status: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"status": status}));
    let params = PatchParams::default();
    gateway.patch_status(name, &params, &patch).await?;
    Ok(())
}

/// What the operator says, without the recordings, which are the gateway's.
fn own(object: &ConsoleSession) -> ConsoleSessionStatus {
    ConsoleSessionStatus {
        recordings: Vec::new(),
        ..object.status.clone().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_forges_in_a_status_is_put_right() {
    run(async |test| {
        let session = granted(test).await?;
        let truth = own(&session.object);
        let (gateway, later) = (
            as_gateway(test).await?,
            Timestamp::now() + SignedDuration::from_hours(8),
        );
        for lie_of in [
            json!({"phase": "Pending"}),
            json!({"conditions": [{
                "type": "Ready", "status": "False", "reason": "Forged", "message": "not so", "lastTransitionTime": later,
            }]}),
            json!({"conditions": null}),
            json!({"credential": {"secret": "another", "expiresAt": later}}),
            json!({"credential": null}),
            json!({"expiresAt": later}),
            json!({"phase": "Pending", "credential": null, "conditions": [], "expiresAt": later}),
        ] {
            lie(&gateway, &session.name, lie_of.clone()).await?;
            let what = format!("{lie_of} is put right");
            wait_for(&what, LIMIT, async || {
                let now = own(&test.api::<ConsoleSession>().get(&session.name).await?);
                // The condition may say that it was not so for a moment.
                let times = now.conditions.iter().zip(&truth.conditions);
                let same = times.clone().all(|(now, then)| now.status == then.status);
                let mut now = now.clone();
                now.conditions.clone_from(&truth.conditions);
                ensure!(same && now == truth, "{now:?}");
                Ok(Some(()))
            })
            .await?;
        }
        exec(&session).open(&test.gateway()).await?.finish().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_can_forge_no_longer_access_and_revive_nothing() {
    run(async |test| {
        let session = granted(test).await?;
        let gateway = as_gateway(test).await?;
        let hours = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
        let end = own(&session.object).expires_at.map(|at| at.0);
        let end = end.unwrap_or_default() + SignedDuration::from_mins(2);
        let forged = json!({"grantedAt": hours(5), "expiresAt": hours(6)});
        lie(&gateway, &session.name, forged).await?;
        let sessions = test.api::<ConsoleSession>();
        wait_for("access ends as it would have", LIMIT, async || {
            let now = own(&sessions.get(&session.name).await?);
            let expires = now.expires_at.map(|at| at.0);
            Ok(expires.is_some_and(|at| at < end).then_some(()))
        })
        .await?;
        test.delete::<k8s_openapi::api::core::v1::Pod>(&session.pod)
            .await?;
        let ended = test.phase(&session.name, Phase::Failed).await?;
        wait_for("the operator lets go of it", LIMIT, async || {
            let now = sessions.get(&session.name).await?;
            let held = now.metadata.finalizers.unwrap_or_default();
            Ok(held.is_empty().then_some(()))
        })
        .await?;
        let mut revived = serde_json::to_value(own(&session.object))?;
        for (key, value) in [
            ("grantedAt", json!(Timestamp::now())),
            ("expiresAt", json!(hours(1))),
            ("endedAt", Value::Null),
            ("endReason", Value::Null),
        ] {
            revived[key] = value;
        }
        // With a pod of the very same name it would go on.
        lie(&gateway, &session.name, revived).await?;
        wait_for("it has ended all the same", LIMIT, async || {
            let now = own(&sessions.get(&session.name).await?);
            let over = now.phase.is_some_and(Phase::ended);
            Ok((over && now.ended_at.is_some()).then_some(()))
        })
        .await?;
        drop(ended);
        Ok(())
    })
    .await;
}

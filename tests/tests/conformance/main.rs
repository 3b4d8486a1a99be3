//! What a Kubernetes API does, request by request: the facts of `tests/conformance/*.yaml`, checked against the sandbox and
//! against a real cluster alike. What differs between them is a bug in the sandbox.

mod compare;
mod fact;
mod run;
mod server;
mod stream;
mod webhook;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::await_condition;
use serde_json::json;

use drawbridge_tests::{Cluster, note, soon, wait_for};

use fact::{Fact, Version, holds};
use run::World;
use server::Server;
use webhook::Webhook;

/// Facts checked at once.
const AT_ONCE: usize = 12;
/// What takes longer is told.
const SLOW: Duration = Duration::from_secs(15);
/// Fewest facts that make the file worth its name.
const FEWEST: usize = 120;
/// Longest wait for the pods the facts share.
const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_the_facts_say() -> Result<()> {
    let clusters = Cluster::all_releases().await?;
    let counts = futures_util::future::try_join_all(clusters.iter().map(check)).await?;
    let failed: usize = counts.iter().sum();
    ensure!(failed == 0, "{failed} facts are not so");
    Ok(())
}

/// Checks every fact that is one on this cluster; returns how many are not so.
async fn check(cluster: &Cluster) -> Result<usize> {
    let version = Version(cluster.version.0, cluster.version.1);
    let mut facts = read()?;
    facts.retain(|fact| holds(version, fact.since, fact.before));
    if let Ok(only) = std::env::var("DRAWBRIDGE_FACT") {
        facts.retain(|fact| fact.name.contains(&only));
    } else {
        ensure!(facts.len() >= FEWEST, "only {} facts", facts.len());
    }
    let run = std::process::id();
    let shared = format!("facts-{run}");
    let world = world(cluster, version, &shared).await?;
    let results = futures_util::stream::iter(facts.iter().enumerate())
        .map(|(n, fact)| {
            let (world, id) = (Arc::clone(&world), format!("fact-{n}-{run}"));
            async move {
                let begin = std::time::Instant::now();
                let result = Box::pin(run::run(&world, fact, &id)).await;
                if begin.elapsed() > SLOW {
                    note(format!("{:.1?} for: {}", begin.elapsed(), fact.name));
                }
                (fact, result)
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<(&Fact, Result<()>)>>()
        .await;
    let ids = (0..facts.len()).map(|n| format!("fact-{n}-{run}"));
    run::clean_up(&world, ids.chain([shared])).await;
    let Version(major, minor) = version;
    let mut failed = 0;
    for (fact, result) in &results {
        if let Err(error) = result {
            failed += 1;
            note(format!(
                "NOT SO on v{major}.{minor}: {}\n{error:#}\n",
                fact.name
            ));
        }
    }
    note(format!(
        "{} facts on v{major}.{minor}, {failed} not so",
        results.len()
    ));
    Ok(failed)
}

fn read() -> Result<Vec<Fact>> {
    fact::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance"))
}

/// A pod to exec into, a webhook, and what the facts call them.
async fn world(cluster: &Cluster, version: Version, shared: &str) -> Result<Arc<World>> {
    let api = Server::api(cluster.config())?;
    let webhook = Webhook::start(api.our_address().await?).await?;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": shared}}))?;
    namespaces
        .create(&PostParams::default(), &namespace)
        .await?;
    let (image, policy, node) = cluster.pod_defaults();
    // Answers whoever attaches.
    let script = "while read line; do echo \"got $line\"; done; sleep 99999";
    let mut spec = json!({
        "containers": [{"name": "main", "image": image, "imagePullPolicy": policy, "stdin": true,
            "command": ["sh", "-c", script], "env": [{"name": "COLOUR", "value": "blue"}]}],
        "terminationGracePeriodSeconds": 0,
    });
    if let Some(node) = node {
        spec["nodeName"] = node.into();
    }
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "shell"}, "spec": spec}))?;
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), shared);
    // The namespace's ServiceAccount, without which no pod is admitted, is made a moment after the namespace.
    let create = wait_for("a pod is admitted", LIMIT, async || {
        Ok(Some(pods.create(&PostParams::default(), &pod).await?))
    });
    create.await?;
    let running = Box::pin(await_condition(pods.clone(), "shell", is_pod_running()));
    let pod = soon("the pod runs", LIMIT, running)
        .await??
        .context("the pod is gone")?;
    let node = pod.spec.and_then(|spec| spec.node_name);
    let node = node.context("a running pod has a node")?;
    let kubelet = kubelet(cluster, &node).await?;
    let known = [
        ("shell", format!("/api/v1/namespaces/{shared}/pods/shell")),
        ("shared", shared.to_owned()),
        ("node", node),
        ("image", image),
        ("webhook", webhook.url),
        ("bundle", webhook.bundle),
    ];
    let known: BTreeMap<String, String> = known
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Ok(Arc::new(World {
        kubelet: api.at(&kubelet),
        api,
        version,
        known,
    }))
}

/// Address of a node's kubelet.
async fn kubelet(cluster: &Cluster, node: &str) -> Result<String> {
    let status = Api::<Node>::all(cluster.client.clone())
        .get(node)
        .await?
        .status
        .context("a node has a status")?;
    let address = status
        .addresses
        .iter()
        .flatten()
        .find(|address| address.type_ == "InternalIP")
        .context("the node has an address")?;
    let port = status
        .daemon_endpoints
        .and_then(|endpoints| endpoints.kubelet_endpoint)
        .context("the kubelet has a port")?
        .port;
    Ok(format!("{}:{port}", address.address))
}

#[test]
fn there_are_at_least_120_facts_for_every_release() -> Result<()> {
    let facts = read()?;
    for release in [20, 30, 36] {
        let version = Version(1, release);
        let count = facts
            .iter()
            .filter(|fact| holds(version, fact.since, fact.before))
            .count();
        assert!(count >= FEWEST, "{count} facts on v1.{release}");
    }
    Ok(())
}

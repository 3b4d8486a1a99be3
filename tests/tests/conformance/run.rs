//! Keeps to the steps of one fact, in a namespace of its own, and tells what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use drawbridge_tests::{soon, text, wait_for};

use crate::compare::{differences, like};
use crate::fact::{Fact, Step, Version, Want, holds};
use crate::server::Server;
use crate::stream::converse;

/// Longest wait for what comes in its own time, and for each event of a watch.
const LIMIT: Duration = Duration::from_secs(90);
/// Longest body read, in bytes. The OpenAPI document of a whole cluster has 2 MiB.
const MAX_BODY: usize = 16 << 20;
/// Longest body shown when a fact fails.
const MAX_SHOWN: usize = 3000;
/// Fields of patches and such that begin as variables do.
const NO_VARIABLES: [&str; 5] = [
    "patch",
    "setElementOrder",
    "deleteFromPrimitiveList",
    "retainKeys",
    "ref",
];

/// What all facts share.
pub(crate) struct World {
    pub(crate) api: Server,
    pub(crate) kubelet: Server,
    pub(crate) version: Version,
    /// Variables.
    pub(crate) known: BTreeMap<String, String>,
}

/// One fact at work.
struct Run<'a> {
    world: &'a World,
    known: BTreeMap<String, String>,
    /// Paths of what is in no namespace and has to be removed.
    made: BTreeSet<String>,
}

/// An answer, read to its end.
struct Answer {
    code: u16,
    headers: http::HeaderMap,
    body: Bytes,
    /// What is wrong with it beside those, if it was more than an answer.
    found: Vec<String>,
}

/// Keeps to a fact.
///
/// # Errors
/// The request whose answer differs, what it should have been and what it was.
pub(crate) async fn run(world: &World, fact: &Fact, id: &str) -> Result<()> {
    let mut known = world.known.clone();
    known.insert("ns".to_owned(), id.to_owned());
    let mut run = Run {
        world,
        known,
        made: BTreeSet::new(),
    };
    let namespace = json!({"metadata": {"name": id, "labels": {"drawbridge.dev/facts": id}}});
    let (code, body) = run
        .administrator("POST", "/api/v1/namespaces", Some(&namespace))
        .await?;
    ensure!(code == 201, "no namespace: {body}");
    let done = run.steps(fact).await;
    for path in std::mem::take(&mut run.made) {
        let _ = run.administrator("DELETE", &path, None).await;
    }
    done
}

/// Deletes the namespaces of facts. Not one by one when each is done: facts about namespaces would have to wait until a
/// controller is through with the others.
pub(crate) async fn clean_up(world: &World, ids: impl Iterator<Item = String>) {
    let run = Run {
        world,
        known: BTreeMap::new(),
        made: BTreeSet::new(),
    };
    for id in ids {
        let path = format!("/api/v1/namespaces/{id}");
        let _ = run.administrator("DELETE", &path, None).await;
    }
}

impl Run<'_> {
    async fn steps(&mut self, fact: &Fact) -> Result<()> {
        for step in &fact.steps {
            if holds(self.world.version, step.since, step.before) {
                self.step(step).await?;
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        let step = self.filled_in(step)?;
        let want = step.want(self.world.version);
        let (method, path) = step.request()?;
        let look = async || {
            let answer = self.ask(&step).await?;
            let mut found = answer.differences(&want);
            if let (Some(events), true) = (&step.events, found.is_empty()) {
                found.extend(answer.events(events, step.ends));
            }
            anyhow::Ok((answer, found))
        };
        let (answer, found) = if step.until {
            let mut last = None;
            let came = wait_for("the answer a fact waits for", LIMIT, async || {
                let (answer, found) = look().await?;
                let came = found.is_empty();
                // What was made by an answer that differs is in the way of a better one.
                if answer.code == 409 && want.is == 201 && last.is_some() {
                    return Ok(Some(()));
                }
                last = Some((answer, found));
                Ok(came.then_some(()))
            });
            match (came.await, last) {
                (_, Some(last)) => last,
                (Err(error), None) => return Err(error),
                (Ok(()), None) => bail!("nothing came"),
            }
        } else {
            look().await.with_context(|| format!("{method} {path}"))?
        };
        if !found.is_empty() {
            bail!("{}", told(&step, &want, &answer, &found)?);
        }
        self.remember(&step, &answer)
    }

    /// Variables of later steps, and what has to be removed in the end.
    fn remember(&mut self, step: &Step, answer: &Answer) -> Result<()> {
        let (method, path) = step.request()?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        for (name, pointer) in &step.save {
            let value = body
                .pointer(pointer)
                .with_context(|| format!("no {pointer} in {body}"))?;
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            self.known.insert(name.clone(), value);
        }
        let stored = body["metadata"]["uid"].is_string();
        if stored && body["metadata"]["namespace"].is_null() && !path.contains("/namespaces/") {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default();
            match method {
                "POST" => self.made.insert(format!("{path}/{name}")),
                "PATCH" | "PUT" => self.made.insert(path.to_owned()),
                _ => false,
            };
        } else if stored && method == "POST" && path.starts_with("/api/v1/namespaces?") {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            self.made.insert(format!("/api/v1/namespaces/{name}"));
        }
        Ok(())
    }

    async fn ask(&self, step: &Step) -> Result<Answer> {
        let (method, path) = step.request()?;
        let mut request = Request::builder().method(method).uri(path);
        let usual = if method == "PATCH" { "merge" } else { "json" };
        let media = match step.media.as_deref().unwrap_or(usual) {
            "json" if method == "PATCH" => "application/json-patch+json",
            "json" => "application/json",
            "merge" => "application/merge-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            "apply" => "application/apply-patch+yaml",
            other => other,
        };
        let body = match (&step.body, &step.raw) {
            (Some(body), None) => Some(body.to_string()),
            (None, Some(raw)) => Some(raw.clone()),
            (None, None) => None,
            (Some(_), Some(_)) => bail!("two bodies"),
        };
        if body.is_some() {
            request = request.header("content-type", media);
        }
        if let Some(user) = &step.user {
            request = request.header("impersonate-user", user);
        }
        for group in &step.groups {
            request = request.header("impersonate-group", group);
        }
        if let Some(token) = step.token.as_ref().filter(|token| !token.is_empty()) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(stream) = &step.stream {
            let key = tokio_tungstenite::tungstenite::handshake::client::generate_key();
            request = request
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", key);
            if let Some(offer) = &stream.offer {
                request = request.header("sec-websocket-protocol", offer);
            }
        }
        for (name, value) in &step.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        let server = if step.kubelet {
            &self.world.kubelet
        } else {
            &self.world.api
        };
        let response = server.send(request, step.token.is_none()).await?;
        let code = response.status().as_u16();
        let headers = response.headers().clone();
        let (body, found) = match (&step.stream, &step.events) {
            (Some(stream), _) if code == 101 => {
                let (seen, found) = converse(response, stream).await?;
                (seen.to_string().into(), found)
            }
            (_, Some(events)) if code == 200 => {
                (lines(response, events.len(), step.ends).await?, Vec::new())
            }
            _ => {
                let body = http_body_util::Limited::new(response.into_body(), MAX_BODY);
                let body = soon("the end of a body", LIMIT, body.collect()).await?;
                (
                    body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes(),
                    Vec::new(),
                )
            }
        };
        Ok(Answer {
            code,
            headers,
            body,
            found,
        })
    }

    async fn administrator(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        let response = self.world.api.send(request, true).await?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((code, serde_json::from_slice(&body)?))
    }

    /// The step with its variables replaced by what they stand for.
    fn filled_in(&self, step: &Step) -> Result<Step> {
        let mut step = step.clone();
        step.texts(&mut |text| {
            *text = self.fill(text)?;
            Ok(())
        })?;
        Ok(step)
    }

    fn fill(&self, text: &str) -> Result<String> {
        let mut parts = text.split('$');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(part.len());
            let (name, rest) = part.split_at(end);
            match self.known.get(name) {
                Some(value) => out.push_str(value),
                None if name.is_empty() || NO_VARIABLES.contains(&name) => {
                    out.push('$');
                    out.push_str(name);
                }
                None => bail!("no variable ${name} in {text:?}"),
            }
            out.push_str(rest);
        }
        Ok(out)
    }
}

impl Answer {
    fn differences(&self, want: &Want) -> Vec<String> {
        let mut found = self.found.clone();
        if self.code != want.is {
            found.push(format!("code: must be {}, is {}", want.is, self.code));
        }
        if let Some(has) = &want.has {
            let have: Option<Value> = serde_json::from_slice(&self.body).ok();
            found.extend(differences(has, have.as_ref()));
        }
        if let Some(text) = &want.text
            && !like(text, &drawbridge_tests::text(&self.body))
        {
            found.push("the body differs".to_owned());
        }
        for (name, value) in &want.answers {
            let have: Vec<&str> = self
                .headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect();
            let right = if value == "ABSENT" {
                have.is_empty()
            } else {
                have.iter().any(|have| like(value, have))
            };
            if !right {
                found.push(format!("header {name}: must be {value:?}, is {have:?}"));
            }
        }
        found
    }

    /// How the events of a watch differ from those that must come.
    fn events(&self, want: &[Value], ends: bool) -> Vec<String> {
        let have: Vec<Value> = text(&self.body)
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let mut found = Vec::new();
        if have.len() < want.len() || (ends && have.len() > want.len()) {
            found.push(format!(
                "{} events must come, {} did",
                want.len(),
                have.len()
            ));
        }
        for (n, (want, have)) in want.iter().zip(&have).enumerate() {
            let differ = differences(want, Some(have));
            found.extend(differ.into_iter().map(|line| format!("event {n} {line}")));
        }
        found
    }
}

/// As many lines of a body as are wanted, or all of it.
async fn lines(response: Response<Incoming>, count: usize, ends: bool) -> Result<Bytes> {
    let mut body = response.into_body();
    let mut all = BytesMut::new();
    loop {
        let have = all[..].split(|byte| *byte == b'\n').count() - 1;
        if (have >= count && !ends) || all.len() > MAX_BODY {
            return Ok(all.freeze());
        }
        match tokio::time::timeout(LIMIT, body.frame()).await {
            Ok(Some(frame)) => {
                if let Ok(data) = frame?.into_data() {
                    all.extend_from_slice(&data);
                }
            }
            Ok(None) => return Ok(all.freeze()),
            Err(_) => bail!("the watch brings no more after {}", text(&all)),
        }
    }
}

fn told(step: &Step, want: &Want, answer: &Answer, found: &[String]) -> Result<String> {
    let (method, path) = step.request()?;
    let mut out = format!("{method} {path}");
    if let Some(user) = &step.user {
        write!(out, "\n  as {user} {:?}", step.groups)?;
    }
    if step.token.is_some() {
        out.push_str("\n  with a token");
    }
    for (name, value) in &step.headers {
        write!(out, "\n  {name}: {value}")?;
    }
    if let Some(body) = &step.body {
        write!(out, "\n  {body}")?;
    }
    if let Some(raw) = &step.raw {
        write!(out, "\n  {raw}")?;
    }
    write!(out, "\nmust be {}", want.is)?;
    if let Some(has) = &want.has {
        write!(out, " {has}")?;
    }
    if let Some(text) = &want.text {
        write!(out, " {text:?}")?;
    }
    let body = text(&answer.body);
    let shown: String = body.chars().take(MAX_SHOWN).collect();
    write!(out, "\nis      {} {}", answer.code, shown.trim_end())?;
    for line in found {
        write!(out, "\n  - {line}")?;
    }
    Ok(out)
}

//! How facts are written: `tests/conformance/README.md` explains it.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// Something a Kubernetes API does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fact {
    /// The sentence it proves.
    #[serde(rename = "fact")]
    pub(crate) name: String,
    /// True from this release on.
    pub(crate) since: Option<Version>,
    /// True before this release.
    pub(crate) before: Option<Version>,
    /// Kept to in this order.
    pub(crate) steps: Vec<Step>,
}

/// `v1.25`
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

/// One request and what must come back.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    #[serde(rename = "GET")]
    get: Option<String>,
    #[serde(rename = "POST")]
    post: Option<String>,
    #[serde(rename = "PUT")]
    put: Option<String>,
    #[serde(rename = "PATCH")]
    patch: Option<String>,
    #[serde(rename = "DELETE")]
    delete: Option<String>,
    #[serde(rename = "OPTIONS")]
    options: Option<String>,
    /// Sent only from this release on.
    pub(crate) since: Option<Version>,
    /// Sent only before this release.
    pub(crate) before: Option<Version>,
    /// Impersonated by the administrator.
    #[serde(rename = "as")]
    pub(crate) user: Option<String>,
    /// Of the impersonated user.
    pub(crate) groups: Vec<String>,
    /// Sent in place of the administrator's certificate; empty: no credential at all.
    pub(crate) token: Option<String>,
    /// To the kubelet instead of the API server.
    pub(crate) kubelet: bool,
    /// Further headers.
    pub(crate) headers: BTreeMap<String, String>,
    /// `json`, `merge`, `strategic`, `apply`, or a media type. Default: `application/json`, for `PATCH` `merge`.
    #[serde(rename = "type")]
    pub(crate) media: Option<String>,
    /// The body, as JSON.
    pub(crate) body: Option<Value>,
    /// The body to the letter.
    pub(crate) raw: Option<String>,
    /// The status code that must come back. Default: 200, for `POST` 201, for a `stream` 101.
    is: Option<u16>,
    /// A part of the JSON that must come back.
    has: Option<Value>,
    /// All of the body that must come back.
    text: Option<String>,
    /// Headers that must come back.
    answers: BTreeMap<String, String>,
    /// What must come back instead from releases before `before`.
    pub(crate) older: Option<Older>,
    /// Variables for the steps after it: JSON pointers into the answer.
    pub(crate) save: BTreeMap<String, String>,
    /// Ask again until it comes.
    pub(crate) until: bool,
    /// The first events of a watch, and no others before them.
    pub(crate) events: Option<Vec<Value>>,
    /// Whether the watch must end after them.
    pub(crate) ends: bool,
    /// A WebSocket of exec or attach.
    pub(crate) stream: Option<Stream>,
}

/// What must come back.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    /// Status code.
    pub(crate) is: u16,
    /// A part of the JSON.
    pub(crate) has: Option<Value>,
    /// All of the body, as text.
    pub(crate) text: Option<String>,
    /// Headers.
    pub(crate) answers: BTreeMap<String, String>,
}

/// What older releases do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Older {
    before: Version,
    is: Option<u16>,
    has: Option<Value>,
    text: Option<String>,
}

/// What a client of exec or attach does and sees.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Stream {
    /// `Sec-WebSocket-Protocol`; none if absent.
    pub(crate) offer: Option<String>,
    /// In this order.
    pub(crate) send: Vec<Send>,
    /// The first message, in hex.
    pub(crate) first: Option<String>,
    /// All of channel 1.
    pub(crate) stdout: Option<String>,
    /// All of channel 2.
    pub(crate) stderr: Option<String>,
    /// All of channel 3: a part of the JSON, or the text.
    pub(crate) status: Option<Value>,
    /// The close code; 0 for a connection that goes without a close frame.
    pub(crate) close: Option<u16>,
}

/// Something a client of exec does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Send {
    /// Bytes for standard input, in the subprotocol's own encoding.
    Stdin(String),
    /// Columns and rows.
    Resize(u16, u16),
    /// A binary message, in hex.
    Hex(String),
    /// A text message.
    Text(String),
    /// Wait for this on standard output.
    Await(String),
    /// A close frame with this code.
    Close(u16),
}

impl Step {
    /// Method and path.
    pub(crate) fn request(&self) -> Result<(&'static str, &str)> {
        let all = [
            ("GET", &self.get),
            ("POST", &self.post),
            ("PUT", &self.put),
            ("PATCH", &self.patch),
            ("DELETE", &self.delete),
            ("OPTIONS", &self.options),
        ];
        let mut named = all
            .iter()
            .filter_map(|(method, path)| Some((*method, path.as_deref()?)));
        let first = named.next().context("a step without a request")?;
        ensure!(named.next().is_none(), "a step with two requests");
        Ok(first)
    }

    /// Every text in it that may name variables.
    pub(crate) fn texts(&mut self, each: &mut dyn FnMut(&mut String) -> Result<()>) -> Result<()> {
        let paths = [
            &mut self.get,
            &mut self.post,
            &mut self.put,
            &mut self.patch,
            &mut self.delete,
            &mut self.options,
        ];
        for text in paths.into_iter().flatten() {
            each(text)?;
        }
        let more = [
            &mut self.user,
            &mut self.token,
            &mut self.raw,
            &mut self.text,
        ];
        for text in more.into_iter().flatten() {
            each(text)?;
        }
        for text in self.groups.iter_mut().chain(self.headers.values_mut()) {
            each(text)?;
        }
        for text in self.answers.values_mut() {
            each(text)?;
        }
        let values = [&mut self.body, &mut self.has];
        for value in values.into_iter().flatten() {
            texts_of(value, each)?;
        }
        for event in self.events.iter_mut().flatten() {
            texts_of(event, each)?;
        }
        if let Some(older) = &mut self.older {
            if let Some(has) = &mut older.has {
                texts_of(has, each)?;
            }
            if let Some(text) = &mut older.text {
                each(text)?;
            }
        }
        if let Some(stream) = &mut self.stream {
            if let Some(offer) = &mut stream.offer {
                each(offer)?;
            }
            for send in &mut stream.send {
                if let Send::Stdin(text) | Send::Await(text) = send {
                    each(text)?;
                }
            }
            if let Some(status) = &mut stream.status {
                texts_of(status, each)?;
            }
        }
        Ok(())
    }

    /// What must come back from a server of this version.
    pub(crate) fn want(&self, version: Version) -> Want {
        let usual = match () {
            () if self.stream.is_some() => 101,
            () if self.post.is_some() => 201,
            () => 200,
        };
        match &self.older {
            Some(older) if version < older.before => Want {
                is: older.is.or(self.is).unwrap_or(usual),
                has: older.has.clone().or_else(|| self.has.clone()),
                text: older.text.clone().or_else(|| self.text.clone()),
                answers: self.answers.clone(),
            },
            _ => Want {
                is: self.is.unwrap_or(usual),
                has: self.has.clone(),
                text: self.text.clone(),
                answers: self.answers.clone(),
            },
        }
    }
}

/// Every text in a value, keys included.
fn texts_of(value: &mut Value, each: &mut dyn FnMut(&mut String) -> Result<()>) -> Result<()> {
    match value {
        Value::String(text) => each(text)?,
        Value::Array(items) => {
            for item in items {
                texts_of(item, each)?;
            }
        }
        Value::Object(fields) => {
            for (mut key, mut value) in std::mem::take(fields) {
                each(&mut key)?;
                texts_of(&mut value, each)?;
                fields.insert(key, value);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether something that is so `since` one release and `before` another is so in this one.
pub(crate) fn holds(version: Version, since: Option<Version>, before: Option<Version>) -> bool {
    since.is_none_or(|since| version >= since) && before.is_none_or(|before| version < before)
}

/// Every fact of the files in a directory, by name of the file.
pub(crate) fn read(dir: &Path) -> Result<Vec<Fact>> {
    let mut files = std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    let mut facts: Vec<Fact> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let more: Vec<Fact> =
            serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
        for fact in &more {
            for step in &fact.steps {
                step.request().with_context(|| fact.name.clone())?;
            }
            ensure!(
                !facts.iter().any(|other| other.name == fact.name),
                "told twice: {}",
                fact.name
            );
        }
        facts.extend(more);
    }
    Ok(facts)
}

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.strip_prefix('v').and_then(|text| text.split_once('.'));
        let Some((major, minor)) = numbers else {
            bail!("{text:?} is no version, e.g. v1.25");
        };
        Ok(Self(major.parse()?, minor.parse()?))
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{error:#}"))
    }
}

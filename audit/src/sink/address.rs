//! A sink as the administrator writes it: `KIND:TARGET#option=value&option=value`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::hash::Sha256;
use crate::sink::file::File;
use crate::sink::kafka::Kafka;
use crate::sink::nats::Nats;
use crate::sink::stdout::Stdout;
use crate::sink::webhook::Webhook;
use crate::sink::{Sink, SinkError};

/// Where events go. Holds no secret: those are in files it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    text: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Stdout,
    File(FileAt),
    Webhook(WebhookAt),
    Nats(NatsAt),
    Kafka(KafkaAt),
}

/// `file:PATH#rotate=100Mi&keep=10`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileAt {
    pub(crate) path: PathBuf,
    /// Bytes after which a new file is begun. 1 KiB at least; default 100 MiB.
    pub(crate) rotate: u64,
    /// Older files kept. 1 to 10,000; default 10.
    pub(crate) keep: u32,
}

/// `webhook:https://HOST/PATH?QUERY#secret-file=PATH&ca=PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebhookAt {
    pub(crate) url: http::Uri,
    /// File with the key of the signature.
    pub(crate) secret_file: Option<PathBuf>,
    /// File with the certificates to trust (PEM). Default: those of the system.
    pub(crate) ca: Option<PathBuf>,
}

/// `nats://HOST:PORT,HOST:PORT/SUBJECT#user=NAME&password-file=PATH&ca=PATH`, or `token-file=PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NatsAt {
    pub(crate) servers: Vec<String>,
    pub(crate) subject: String,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    /// User and the file with the password.
    pub(crate) login: Option<(String, PathBuf)>,
    /// The file with a token.
    pub(crate) token_file: Option<PathBuf>,
}

/// `kafka://HOST:PORT,HOST:PORT/TOPIC#user=NAME&password-file=PATH&mechanism=SCRAM-SHA-512&ca=PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KafkaAt {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    /// User and the file with the password.
    pub(crate) login: Option<(String, PathBuf)>,
    pub(crate) mechanism: Mechanism,
}

/// How a Kafka password is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    ScramSha256,
    #[default]
    ScramSha512,
}

impl Address {
    /// Standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self {
            text: "stdout".to_owned(),
            target: Target::Stdout,
        }
    }

    /// A file that is rotated, with the default options.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            text: format!("file:{}", path.display()),
            target: Target::File(FileAt {
                path,
                rotate: 100 << 20,
                keep: 10,
            }),
        }
    }

    /// Its name in metrics, events and the spool: the kind and a hash of the target, whatever the options are.
    #[must_use]
    pub fn name(&self) -> String {
        let target = self.text.split('#').next().unwrap_or_default();
        let kind = target.split(':').next().unwrap_or_default();
        let hash = Sha256::of(target.as_bytes()).to_string();
        format!("{kind}-{}", &hash[..8])
    }

    /// The sink. Connects to nothing yet.
    pub(crate) async fn open(&self) -> Result<Box<dyn Sink>, SinkError> {
        Ok(match self.target.clone() {
            Target::Stdout => Box::new(Stdout),
            Target::File(at) => Box::new(File::open(at).await?),
            Target::Webhook(at) => Box::new(Webhook::new(at)?),
            Target::Nats(at) => Box::new(Nats::new(at)?),
            Target::Kafka(at) => Box::new(Kafka::new(at)),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, options) = text.split_once('#').unwrap_or((text, ""));
        let mut options = Options::parse(options)?;
        let (kind, rest) = target.split_once(':').unwrap_or((target, ""));
        if rest.contains('@') && kind != "file" {
            return Err(
                "a user name or password does not belong here: put it into a file and name that"
                    .into(),
            );
        }
        let target = match kind {
            "stdout" if rest.is_empty() => Target::Stdout,
            "file" if !rest.is_empty() => Target::File(FileAt {
                path: rest.into(),
                rotate: match options.take("rotate") {
                    Some(size) => bytes(&size)?.max(1024),
                    None => 100 << 20,
                },
                keep: match options.take("keep") {
                    Some(keep) => keep
                        .parse()
                        .ok()
                        .filter(|keep| (1..=10_000).contains(keep))
                        .ok_or("keep is a number from 1 to 10000")?,
                    None => 10,
                },
            }),
            "webhook" => Target::Webhook(webhook(rest, &mut options)?),
            "nats" => Target::Nats(nats(rest, &mut options)?),
            "kafka" => Target::Kafka(kafka(rest, &mut options)?),
            _ => {
                return Err("an audit sink is stdout, file:PATH, webhook:URL, nats://HOST:PORT/SUBJECT or kafka://HOST:PORT/TOPIC".into());
            }
        };
        options.done()?;
        Ok(Self {
            text: text.to_owned(),
            target,
        })
    }
}

fn webhook(url: &str, options: &mut Options) -> Result<WebhookAt, String> {
    let url: http::Uri = url
        .parse()
        .map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let tls = options.tls()?;
    match url.scheme_str() {
        Some("https") if tls => {}
        Some("http") if !tls => {}
        Some("http") => {
            return Err(
                "events would cross the network readable; if that is wanted, add #tls=false".into(),
            );
        }
        _ => return Err("a webhook is https://HOST/PATH, or http:// with #tls=false".into()),
    }
    url.host().ok_or("the URL has no host")?;
    Ok(WebhookAt {
        url,
        secret_file: options.path("secret-file"),
        ca: options.path("ca"),
    })
}

fn nats(rest: &str, options: &mut Options) -> Result<NatsAt, String> {
    let (servers, subject) = servers(rest, "nats://HOST:PORT/SUBJECT")?;
    if subject.contains(['*', '>', ' ']) || subject.split('.').any(str::is_empty) {
        return Err(format!("{subject:?} is no subject to publish to"));
    }
    let at = NatsAt {
        servers: servers.split(',').map(str::to_owned).collect(),
        subject: subject.to_owned(),
        tls: options.tls()?,
        ca: options.path("ca"),
        login: options.login()?,
        token_file: options.path("token-file"),
    };
    if !at.tls && (at.login.is_some() || at.token_file.is_some()) {
        return Err("the password or token would cross the network readable: it needs TLS".into());
    }
    Ok(at)
}

fn kafka(rest: &str, options: &mut Options) -> Result<KafkaAt, String> {
    let (brokers, topic) = servers(rest, "kafka://HOST:PORT/TOPIC")?;
    let login = options.login()?;
    let mechanism = match options.take("mechanism").as_deref() {
        None | Some("SCRAM-SHA-512") => Mechanism::ScramSha512,
        Some("SCRAM-SHA-256") => Mechanism::ScramSha256,
        Some("PLAIN") => Mechanism::Plain,
        Some(other) => {
            return Err(format!(
                "mechanism is SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, not {other:?}"
            ));
        }
    };
    let tls = options.tls()?;
    if mechanism == Mechanism::Plain && login.is_some() && !tls {
        return Err("PLAIN sends the password readable: it needs TLS".into());
    }
    Ok(KafkaAt {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        tls,
        ca: options.path("ca"),
        login,
        mechanism,
    })
}

/// `//HOST:PORT,HOST:PORT/NAME`
fn servers<'a>(rest: &'a str, form: &str) -> Result<(&'a str, &'a str), String> {
    let wrong = || format!("this sink is written {form}");
    let (servers, name) = rest
        .strip_prefix("//")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(wrong)?;
    if servers.split(',').any(str::is_empty) || name.is_empty() || name.contains('/') {
        return Err(wrong());
    }
    Ok((servers, name))
}

/// A number of bytes: digits, and `Ki`, `Mi` or `Gi` behind them if wanted.
///
/// # Errors
/// When it is anything else.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let units = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("", 1)];
    let number = units.into_iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(factor)
    });
    number.ok_or_else(|| format!("{text:?} is no number of bytes; write it like 100Mi"))
}

/// What is behind the `#`.
struct Options(Vec<(String, String)>);

impl Options {
    fn parse(text: &str) -> Result<Self, String> {
        let options: Vec<_> = form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect();
        for (at, (name, _)) in options.iter().enumerate() {
            if options[..at].iter().any(|(before, _)| before == name) {
                return Err(format!("option {name} is there twice"));
            }
        }
        Ok(Self(options))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.take(name).map(PathBuf::from)
    }

    /// A user, and the file with the password.
    fn login(&mut self) -> Result<Option<(String, PathBuf)>, String> {
        match (self.take("user"), self.path("password-file")) {
            (Some(user), Some(file)) => Ok(Some((user, file))),
            (None, None) => Ok(None),
            _ => Err("user and password-file go together".into()),
        }
    }

    /// Whether the connection is encrypted: unless that is refused by name.
    fn tls(&mut self) -> Result<bool, String> {
        match self.take("tls").as_deref() {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!("tls is true or false, not {other:?}")),
        }
    }

    /// Nothing is left that nobody asked for.
    fn done(self) -> Result<(), String> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(format!("this sink has no option {name:?}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Target, String> {
        text.parse().map(|address: Address| address.target)
    }

    #[test]
    fn each_kind_is_read_with_its_options() {
        assert_eq!(parse("stdout"), Ok(Target::Stdout));
        let file = |rotate, keep| {
            Ok(Target::File(FileAt {
                path: "/log/a".into(),
                rotate,
                keep,
            }))
        };
        assert_eq!(parse("file:/log/a"), file(100 << 20, 10));
        assert_eq!(parse("file:/log/a#rotate=2Gi&keep=3"), file(2 << 30, 3));
        assert_eq!(
            parse("webhook:https://siem.example.com/in?x=1#secret-file=/s&ca=/c"),
            Ok(Target::Webhook(WebhookAt {
                url: "https://siem.example.com/in?x=1".parse().expect("a URL"),
                secret_file: Some("/s".into()),
                ca: Some("/c".into()),
            }))
        );
        assert_eq!(
            parse("nats://a:4222,b:4222/audit.shells#token-file=/t"),
            Ok(Target::Nats(NatsAt {
                servers: vec!["a:4222".into(), "b:4222".into()],
                subject: "audit.shells".into(),
                tls: true,
                ca: None,
                login: None,
                token_file: Some("/t".into()),
            }))
        );
        assert_eq!(
            parse("kafka://a:9092/audit#user=alice&password-file=/p"),
            Ok(Target::Kafka(KafkaAt {
                brokers: "a:9092".into(),
                topic: "audit".into(),
                tls: true,
                ca: None,
                login: Some(("alice".into(), "/p".into())),
                mechanism: Mechanism::ScramSha512,
            }))
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "an audit sink is"),
            ("file:", "an audit sink is"),
            ("syslog:x", "an audit sink is"),
            ("stdout#keep=1", "no option \"keep\""),
            ("file:/a#keep=1&keep=2", "twice"),
            ("file:/a#keep=0", "from 1 to 10000"),
            ("file:/a#rotate=many", "no number of bytes"),
            ("webhook:http://siem.example.com/", "readable"),
            ("webhook:https://x:y@siem.example.com/", "password"),
            ("nats://a:4222", "nats://HOST:PORT/SUBJECT"),
            ("nats://a:4222/x.*", "no subject"),
            ("nats://a:4222/x#tls=false&token-file=/t", "readable"),
            ("kafka://a:9092/t#user=alice", "go together"),
            (
                "kafka://a:9092/t#user=alice&password-file=/p&mechanism=PLAIN&tls=false",
                "readable",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_stays_when_options_change_and_differs_between_targets() {
        let name = |text: &str| text.parse::<Address>().expect("an address").name();
        assert_eq!(name("file:/a"), name("file:/a#keep=3"));
        assert_ne!(name("file:/a"), name("file:/b"));
        assert!(name("nats://a:4222/x").starts_with("nats-"));
        assert_eq!(name("file:/a"), Address::file("/a").name());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(stdout|file|webhook|nats|kafka)?[:/#&=a-z0-9@,.%]{0,40}") {
            let _ = text.parse::<Address>();
        }
    }
}

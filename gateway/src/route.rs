//! What a request asks for: method, path and query to a [`Route`], or a refusal. Pure.

mod query;

use drawbridge_protocol::transcode::Streams;
use http::Method;
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use crate::refusal::{Kind, Refusal};
use crate::web::Page;

/// Longest query, in bytes. kubectl puts whole scripts into `command`; the request head must hold it, and every byte may
/// become three when it is encoded again for the upstream.
pub const MAX_QUERY: usize = 48 * 1024;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// One of the documents `kubectl` reads first.
    Discovery(Discovery),
    /// `GET /version`: the API server's.
    Version,
    /// `GET /api/v1/namespaces/{namespace}/pods/{pod}`
    Pod {
        /// Namespace in the path.
        namespace: String,
        /// Pod in the path.
        pod: String,
    },
    /// `…/exec` and `…/attach`
    Stream(Stream),
    /// `GET /sessions/{namespace}/{name}`
    Session {
        /// Namespace in the path.
        namespace: String,
        /// Session in the path.
        name: String,
    },
    /// `GET /sessions/{namespace}/{name}/console`
    Console {
        /// Namespace in the path.
        namespace: String,
        /// Session in the path.
        name: String,
        /// How it wants to be upgraded. A browser's script is not told why a WebSocket was refused, and asks by `POST`.
        transport: Transport,
        /// Container in the query; `None` for none, or an empty one.
        container: Option<String>,
        /// Whether to allocate a TTY. Default: yes.
        tty: bool,
    },
    /// `GET /sessions/{namespace}/{name}/recordings…`
    Look(Look),
    /// `GET /ui/…`: the page with a terminal in it.
    Web(Page),
}

/// A discovery document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// `GET /api`
    Api,
    /// `GET /apis`
    Apis,
    /// `GET /api/v1`
    CoreV1,
}

/// A request for `pods/exec` or `pods/attach`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Which of the two.
    pub action: Action,
    /// How it wants to be upgraded.
    pub transport: Transport,
    /// Namespace in the path.
    pub namespace: String,
    /// Pod in the path.
    pub pod: String,
    /// Container in the query; `None` for none, or an empty one.
    pub container: Option<String>,
    /// Argv in the query; empty for attach.
    pub command: Vec<String>,
    /// Streams in the query. At least one of stdin, stdout, stderr; stderr only without a TTY.
    pub streams: Streams,
}

/// A request for what is recorded of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Namespace in the path.
    pub namespace: String,
    /// Session in the path.
    pub name: String,
    /// What of it.
    pub at: LookAt,
}

/// What of a session's recordings is asked for. Ids are in their usual form: 36 lower-case characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookAt {
    /// `…/recordings`: which there are.
    List,
    /// `…/recordings/{id}`: its manifest.
    Manifest(Uuid),
    /// `…/recordings/{id}/cast`: what happened, for players.
    Cast(Uuid),
    /// `…/recordings/{id}/live`: a WebSocket with what happened until now, and then what happens.
    Live(Uuid),
}

/// What is done with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a command (`pods/exec`).
    Exec,
    /// Attach to its own process (`pods/attach`).
    Attach,
}

impl Action {
    /// The subresource of pods, and the last segment of the path.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
        }
    }
}

/// How a stream wants to be upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `GET`: a WebSocket.
    WebSocket,
    /// `POST`: SPDY, which is checked like the other and then refused.
    Spdy,
}

/// What `method` on `path` and `query` asks for. `prefix` is a path all routes are served under as well: empty, or a
/// leading slash and no trailing one.
///
/// # Errors
/// 403 for what is not served here, 405 for another method, 400 for a query that makes no sense, 414 for a long one.
pub fn route(
    method: &Method,
    path: &str,
    query: Option<&str>,
    prefix: &str,
) -> Result<Route, Refusal> {
    let query = query.unwrap_or_default();
    if query.len() > MAX_QUERY {
        return Err(Refusal::new(
            Kind::TooLong,
            format!(
                "the query has {} bytes, more than {MAX_QUERY}: copy long scripts into the container instead",
                query.len()
            ),
        ));
    }
    let path = path
        .strip_prefix(prefix)
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path);
    let segments: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|segment| {
            percent_decode_str(segment)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
        })
        .collect::<Result<_, _>>()
        .map_err(|_| not_served())?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let route = match segments.as_slice() {
        ["api"] => Route::Discovery(Discovery::Api),
        ["apis"] => Route::Discovery(Discovery::Apis),
        ["api", "v1"] => Route::Discovery(Discovery::CoreV1),
        ["version"] => Route::Version,
        ["api", "v1", "namespaces", namespace, "pods", pod] => Route::Pod {
            namespace: (*namespace).to_owned(),
            pod: (*pod).to_owned(),
        },
        [
            "api",
            "v1",
            "namespaces",
            namespace,
            "pods",
            pod,
            action @ ("exec" | "attach"),
        ] => {
            let action = if *action == "exec" {
                Action::Exec
            } else {
                Action::Attach
            };
            return stream(method, action, namespace, pod, query).map(Route::Stream);
        }
        ["sessions", namespace, name] => Route::Session {
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
        },
        ["sessions", namespace, name, "recordings", rest @ ..] => Route::Look(Look {
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
            at: look_at(rest)?,
        }),
        ["sessions", namespace, name, "console"] => {
            return console(method, namespace, name, query);
        }
        // Answers other methods itself.
        ["ui"] => return Ok(Route::Web(Page::NoSlash)),
        ["ui", ""] => return Ok(Route::Web(Page::File("index.html".to_owned()))),
        ["ui", path @ ..] => return Ok(Route::Web(Page::File(path.join("/")))),
        _ => return Err(not_served()),
    };
    if *method == Method::GET {
        Ok(route)
    } else {
        Err(Refusal::new(Kind::Method, "only GET is served here"))
    }
}

fn look_at(path: &[&str]) -> Result<LookAt, Refusal> {
    let id = |text: &str| {
        Uuid::try_parse(text)
            .ok()
            .filter(|id| id.to_string() == text)
            .ok_or_else(not_served)
    };
    match path {
        [] => Ok(LookAt::List),
        [text] => id(text).map(LookAt::Manifest),
        [text, "cast"] => id(text).map(LookAt::Cast),
        [text, "live"] => id(text).map(LookAt::Live),
        _ => Err(not_served()),
    }
}

fn console(method: &Method, namespace: &str, name: &str, query: &str) -> Result<Route, Refusal> {
    let transport = transport(method)?;
    let mut query = query::Query::parse(query)?;
    Ok(Route::Console {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        transport,
        tty: query.flag_or("tty", true),
        container: container(&mut query),
    })
}

fn transport(method: &Method) -> Result<Transport, Refusal> {
    match *method {
        Method::GET => Ok(Transport::WebSocket),
        Method::POST => Ok(Transport::Spdy),
        _ => Err(Refusal::new(
            Kind::Method,
            "only GET with a WebSocket upgrade is served here",
        )),
    }
}

fn container(query: &mut query::Query) -> Option<String> {
    query
        .take_first("container")
        .filter(|name| !name.is_empty())
}

fn stream(
    method: &Method,
    action: Action,
    namespace: &str,
    pod: &str,
    query: &str,
) -> Result<Stream, Refusal> {
    let transport = transport(method)?;
    let mut query = query::Query::parse(query)?;
    let tty = query.flag_or("tty", false);
    let streams = Streams {
        stdin: query.flag_or("stdin", false),
        stdout: query.flag_or("stdout", false),
        // A terminal has one output; the runtimes turn stderr off silently, so nobody may wait for it.
        stderr: query.flag_or("stderr", false) && !tty,
        tty,
    };
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(Refusal::new(
            Kind::Malformed,
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let command = match action {
        Action::Exec => query.take_all("command"),
        Action::Attach => Vec::new(),
    };
    if action == Action::Exec && command.is_empty() {
        return Err(Refusal::new(
            Kind::Malformed,
            "you must specify at least one command for the container",
        ));
    }
    Ok(Stream {
        action,
        transport,
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container(&mut query),
        command,
        streams,
    })
}

fn not_served() -> Refusal {
    Refusal::new(
        Kind::NotServed,
        "this is a console gateway, not an API server: it serves exec and attach of the pod of one session, and GET of that pod",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(uri: &str) -> Result<Route, (u16, String)> {
        ask(&Method::GET, uri)
    }

    fn ask(method: &Method, uri: &str) -> Result<Route, (u16, String)> {
        let (path, query) = uri
            .split_once('?')
            .map_or((uri, None), |(path, query)| (path, Some(query)));
        route(method, path, query, "/c/prod")
            .map_err(|refusal| (refusal.code(), refusal.public().to_owned()))
    }

    fn exec(query: &str) -> Stream {
        match get(&format!("/api/v1/namespaces/shop/pods/web/exec?{query}")) {
            Ok(Route::Stream(stream)) => stream,
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn what_kubectl_asks_for_is_served_with_the_prefix_and_without() {
        let pod = Route::Pod {
            namespace: "shop".into(),
            pod: "web".into(),
        };
        let id = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);
        let look = |at| {
            Route::Look(Look {
                namespace: "shop".into(),
                name: "fix-cart".into(),
                at,
            })
        };
        for (uri, want) in [
            ("/api", Route::Discovery(Discovery::Api)),
            ("/api?timeout=32s", Route::Discovery(Discovery::Api)),
            ("/apis", Route::Discovery(Discovery::Apis)),
            ("/api/v1", Route::Discovery(Discovery::CoreV1)),
            ("/version", Route::Version),
            ("/api/v1/namespaces/shop/pods/web", pod.clone()),
            ("/api/v1/namespaces/shop/pods/w%65b", pod),
            (
                "/sessions/shop/fix-cart",
                Route::Session {
                    namespace: "shop".into(),
                    name: "fix-cart".into(),
                },
            ),
            (
                "/sessions/shop/fix-cart/console",
                Route::Console {
                    namespace: "shop".into(),
                    name: "fix-cart".into(),
                    transport: Transport::WebSocket,
                    container: None,
                    tty: true,
                },
            ),
            (
                "/sessions/shop/fix-cart/console?tty=false&container=app",
                Route::Console {
                    namespace: "shop".into(),
                    name: "fix-cart".into(),
                    transport: Transport::WebSocket,
                    container: Some("app".into()),
                    tty: false,
                },
            ),
            ("/sessions/shop/fix-cart/recordings", look(LookAt::List)),
            (
                "/sessions/shop/fix-cart/recordings/01890a5d-ac96-774b-bcce-b302099a8057",
                look(LookAt::Manifest(id)),
            ),
            (
                "/sessions/shop/fix-cart/recordings/01890a5d-ac96-774b-bcce-b302099a8057/cast",
                look(LookAt::Cast(id)),
            ),
            (
                "/sessions/shop/fix-cart/recordings/01890a5d-ac96-774b-bcce-b302099a8057/live",
                look(LookAt::Live(id)),
            ),
            ("/ui", Route::Web(Page::NoSlash)),
            ("/ui/", Route::Web(Page::File("index.html".into()))),
            (
                "/ui/assets/x.js?y",
                Route::Web(Page::File("assets/x.js".into())),
            ),
        ] {
            assert_eq!(get(uri), Ok(want.clone()), "{uri}");
            assert_eq!(get(&format!("/c/prod{uri}")), Ok(want), "/c/prod{uri}");
        }
    }

    #[test]
    fn nothing_else_is_served() {
        for uri in [
            "/",
            "",
            "*",
            "/apis/apps/v1",
            "/api/v1/",
            "/api/v1/pods",
            "/api/v1/namespaces/shop/pods",
            "/api/v1/nodes",
            "/api/v1/namespaces/shop/pods/web/portforward",
            "/api/v1/namespaces/shop/pods/web/exec/",
            "/c/prod",
            "/api/v1/namespaces/shop/pods/web%2Fexec/x",
            "//api",
            "/api/../api",
            "/c/production/api",
            "/sessions/shop",
            "/sessions/shop/fix-cart/recordings/",
            "/sessions/shop/fix-cart/recordings/..",
            "/sessions/shop/fix-cart/recordings/%2e%2e%2fother",
            "/sessions/shop/fix-cart/recordings/01890A5D-AC96-774B-BCCE-B302099A8057",
            "/sessions/shop/fix-cart/recordings/01890a5dac96774bbcceb302099a8057",
            "/sessions/shop/fix-cart/recordings/01890a5d-ac96-774b-bcce-b302099a8057/manifest.json",
            "/sessions/shop/fix-cart/recordings/01890a5d-ac96-774b-bcce-b302099a8057/cast/",
            "/api/v1/namespaces/shop/secrets/x",
            "/api/v1/namespaces/shop/pods/%ff",
            "/livez",
            "/metrics",
            "/uix",
            "/assets/x.js",
            "/c/prod/c/prod/api",
        ] {
            assert_eq!(get(uri).expect_err(uri).0, 403, "{uri}");
        }
    }

    #[test]
    fn other_methods_are_refused_but_a_post_to_exec_is_known_for_what_it_is() {
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::HEAD,
            Method::OPTIONS,
        ] {
            assert_eq!(ask(&method, "/api").expect_err("refused").0, 405);
        }
        let post = ask(
            &Method::POST,
            "/api/v1/namespaces/shop/pods/web/exec?command=sh&stdin=1",
        );
        assert!(
            matches!(
                post,
                Ok(Route::Stream(Stream {
                    transport: Transport::Spdy,
                    ..
                }))
            ),
            "{post:?}"
        );
        assert_eq!(
            ask(
                &Method::PUT,
                "/api/v1/namespaces/shop/pods/web/exec?command=sh&stdin=1"
            )
            .expect_err("refused")
            .0,
            405
        );
    }

    #[test]
    fn the_query_is_read_as_the_api_server_reads_it() {
        let stream = exec(
            "command=echo&command=a%3Bb&command=&container=app&stdin=&stdout=yes&tty=0&x=y&stderr=False",
        );
        assert_eq!(stream.command, ["echo", "a;b", ""]);
        assert_eq!(stream.container.as_deref(), Some("app"));
        assert_eq!(
            stream.streams,
            Streams {
                stdin: true,
                stdout: true,
                stderr: false,
                tty: false
            }
        );
        assert_eq!(exec("command=sh&stdout=1&container=").container, None);
        assert_eq!(exec("command=a+b%2B&stdout=1").command, ["a b+"]);
    }

    #[test]
    fn a_terminal_has_no_stderr() {
        let streams = exec("command=sh&stdin=true&stdout=true&stderr=true&tty=true").streams;
        assert_eq!(
            streams,
            Streams {
                stdin: true,
                stdout: true,
                stderr: false,
                tty: true
            }
        );
    }

    #[test]
    fn requests_that_make_no_sense_say_what_is_missing() {
        for (query, text) in [
            (
                "command=sh",
                "you must specify at least 1 of stdin, stdout, stderr",
            ),
            (
                "command=sh&stderr=true&tty=true",
                "you must specify at least 1 of stdin, stdout, stderr",
            ),
            (
                "stdout=true",
                "you must specify at least one command for the container",
            ),
        ] {
            let (code, message) =
                get(&format!("/api/v1/namespaces/shop/pods/web/exec?{query}")).expect_err(query);
            assert_eq!((code, message.as_str()), (400, text), "{query}");
        }
        let attach = get("/api/v1/namespaces/shop/pods/web/attach?stdout=true&command=ignored");
        assert!(matches!(
            attach,
            Ok(Route::Stream(Stream {
                action: Action::Attach,
                ..
            }))
        ));
    }

    #[test]
    fn a_query_longer_than_its_bound_is_refused() {
        let uri = format!(
            "/api/v1/namespaces/shop/pods/web/exec?stdout=1&command={}",
            "x".repeat(MAX_QUERY)
        );
        assert_eq!(get(&uri).expect_err("refused").0, 414);
    }

    proptest! {
        #[test]
        fn no_path_or_query_makes_it_panic_or_names_another_pod(path in "[/a-z%.0-9]{0,60}", query in "[ -~]{0,80}") {
            if let Ok(Route::Stream(stream)) = route(&Method::GET, &path, Some(&query), "") {
                prop_assert!(path.contains("/namespaces/"));
                prop_assert!(stream.streams.stdin || stream.streams.stdout || stream.streams.stderr);
            }
        }
    }
}

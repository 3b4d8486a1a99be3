use drawbridge_crds::v1alpha1::{ConsoleSessionStatus, Credential, RecordingLevel};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Seconds since the epoch of everything below.
const NOON: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

#[expect(clippy::needless_pass_by_value, reason = "reads better at every call")]
fn session(spec: Value) -> ConsoleSession {
    let mut object = json!({
        "apiVersion": "drawbridge.dev/v1alpha1",
        "kind": "ConsoleSession",
        "metadata": {
            "name": "shell", "namespace": "shop", "uid": "6f1c0000-1", "generation": 1, "finalizers": [names::FINALIZER],
        },
        "spec": {"user": "alice@example.com", "target": {"pod": {"name": "web-0"}}},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).expect("a session")
}

fn running() -> PodSeen {
    PodSeen {
        uid: "pod-1".into(),
        deleting: false,
        life: PodLife::Running {
            containers: vec!["main".into(), "log".into(), "debugger".into()],
            named_only: vec!["debugger".into()],
            node: "node-1".into(),
        },
    }
}

fn seen(session: ConsoleSession, now: i64) -> Observed {
    Observed {
        session: Arc::new(session),
        namespace_deleting: false,
        pod: Some(running()),
        recording: RecordingTerms::default(),
        other: None,
        account_made: None,
        now: at(now),
    }
}

/// The pod that access is open to, and between which times.
fn open_to(plan: &Plan) -> (&ResolvedTarget, Timestamp, Timestamp) {
    match &plan.access {
        Access::Open {
            subject: Subject::Pod(target),
            granted_at,
            expires_at,
            ..
        } => (target, *granted_at, *expires_at),
        other => panic!("not open to a pod: {other:?}"),
    }
}

/// Granted at noon for an hour, then changed.
fn granted(change: impl FnOnce(&mut ConsoleSession)) -> ConsoleSession {
    let mut session = session(json!({}));
    session.status = Some(ConsoleSessionStatus {
        phase: Some(Phase::Ready),
        target: Some(ResolvedTarget {
            pod: "web-0".into(),
            pod_uid: "pod-1".into(),
            container: "main".into(),
            containers: vec!["main".into(), "log".into()],
            node: "node-1".into(),
        }),
        credential: Some(Credential {
            secret: "shell-6f1c0000".into(),
            expires_at: Time(at(NOON + 3600)),
        }),
        granted_at: Some(Time(at(NOON))),
        expires_at: Some(Time(at(NOON + 3600))),
        ..ConsoleSessionStatus::default()
    });
    change(&mut session);
    session
}

fn ended(plan: &Plan) -> Option<EndReason> {
    plan.ended.map(|(reason, _)| reason)
}

#[test]
fn access_ends_at_the_deadline_not_after_it() {
    for (age, phase) in [
        (0, Phase::Ready),
        (3599, Phase::Ready),
        (3600, Phase::Expired),
        (99_999, Phase::Expired),
    ] {
        let plan = plan(&seen(granted(|_| ()), NOON + age));
        assert_eq!(plan.phase, phase, "age {age}s");
        if phase == Phase::Expired {
            let end = plan.ended.expect("ended");
            assert_eq!(
                end,
                (EndReason::Expired, at(NOON + 3600)),
                "however late the pass"
            );
        } else {
            assert_eq!(plan.look_again, Some(at(NOON + 3600)));
        }
    }
}

#[test]
fn a_status_alone_neither_revives_a_session_nor_makes_access_longer() {
    let later = || {
        granted(|session| {
            let status = session.status.get_or_insert_default();
            status.granted_at = Some(Time(at(NOON + 3000)));
            status.expires_at = Some(Time(at(NOON + 6600)));
        })
    };
    // Its account shows when it was granted.
    let seen_with = |session, account_made| Observed {
        account_made,
        ..seen(session, NOON + 3001)
    };
    let bounded = plan(&seen_with(later(), Some(at(NOON + 1))));
    let (_, since, expires_at) = open_to(&bounded);
    assert_eq!((since, expires_at), (at(NOON + 61), at(NOON + 3661)));
    // An account that was restored says nothing, nor does one whose API server's clock is a little ahead or behind.
    for made in [-30, 0, 2000] {
        let kept = plan(&seen_with(granted(|_| ()), Some(at(NOON + made))));
        assert_eq!(open_to(&kept).2, at(NOON + 3600), "{made}");
    }
    // What has ended has left nothing.
    let mut revived = later();
    revived.metadata.finalizers = None;
    let plan = plan(&seen_with(revived, None));
    assert_eq!(ended(&plan), Some(EndReason::Revoked));
}

#[test]
fn a_grant_begins_now_and_ends_after_its_duration_or_with_its_window() {
    for (spec, expires) in [
        (json!({}), NOON + 3600),
        (json!({"duration": "1m"}), NOON + 60),
        (json!({"notAfter": "2027-01-15T08:10:00Z"}), NOON + 600),
        (
            json!({"duration": "5m", "notAfter": "2027-01-15T08:10:00Z"}),
            NOON + 300,
        ),
        (json!({"notAfter": "2027-01-15T08:10:00.9Z"}), NOON + 600),
    ] {
        let plan = plan(&seen(session(spec.clone()), NOON));
        let (target, granted_at, expires_at) = open_to(&plan);
        assert_eq!((granted_at, expires_at), (at(NOON), at(expires)), "{spec}");
        assert_eq!(
            (target.pod_uid.as_str(), target.container.as_str()),
            ("pod-1", "main")
        );
    }
}

#[test]
fn how_it_is_recorded_is_fixed_at_the_grant() {
    let off = RecordingTerms {
        level: RecordingLevel::Off,
        ..RecordingTerms::default()
    };
    let recording = |session, terms| {
        let seen = Observed {
            recording: terms,
            ..seen(session, NOON)
        };
        match plan(&seen).access {
            Access::Open { recording, .. } => recording,
            Access::Closed => panic!("not open"),
        }
    };
    assert_eq!(recording(session(json!({})), off), Some(off));
    let kept = |recording| {
        granted(|session| {
            session.status.get_or_insert_default().recording = recording;
        })
    };
    let required = Some(RecordingTerms::default());
    assert_eq!(recording(kept(required), off), required);
    assert_eq!(
        recording(kept(None), off),
        None,
        "granted before there was a choice"
    );
}

#[test]
fn access_is_open_only_inside_its_window() {
    let window = json!({"notBefore": "2027-01-15T08:00:00Z", "notAfter": "2027-01-15T08:10:00Z"});
    for (now, phase, look_again) in [
        (NOON - 1, Phase::Scheduled, Some(at(NOON))),
        (NOON, Phase::Ready, Some(at(NOON + 600))),
        (NOON + 599, Phase::Ready, Some(at(NOON + 600))),
        (NOON + 600, Phase::Expired, None),
    ] {
        let plan = plan(&seen(session(window.clone()), now));
        assert_eq!(
            (plan.phase, plan.look_again),
            (phase, look_again),
            "{now}: {plan:?}"
        );
    }
    assert_eq!(
        ended(&plan(&seen(session(window), NOON + 600))),
        Some(EndReason::WindowMissed)
    );
}

#[test]
fn a_session_waits_for_its_pod_to_exist_and_run() {
    let pods = [
        (None, "PodNotFound"),
        (Some(PodLife::Waiting("Pending".into())), "PodNotRunning"),
        (Some(PodLife::Live), "PodNotRunning"),
    ];
    for (life, reason) in pods {
        let mut seen = seen(session(json!({"notAfter": "2027-01-15T08:10:00Z"})), NOON);
        seen.pod = life.map(|life| PodSeen { life, ..running() });
        let plan = plan(&seen);
        assert_eq!((plan.phase, plan.reason), (Phase::Pending, reason));
        assert_eq!(plan.access, Access::Closed);
        assert_eq!(
            plan.look_again,
            Some(at(NOON + 600)),
            "its window may close meanwhile"
        );
    }
    let mut going = seen(session(json!({})), NOON);
    going.pod = Some(PodSeen {
        deleting: true,
        ..running()
    });
    assert_eq!(plan(&going).reason, "PodDeleting");
}

#[test]
fn what_can_never_be_granted_fails_at_once() {
    let mut finished = seen(session(json!({})), NOON);
    finished.pod = Some(PodSeen {
        life: PodLife::Finished,
        ..running()
    });
    assert_eq!(ended(&plan(&finished)), Some(EndReason::PodFinished));
    let missing = json!({"target": {"pod": {"name": "web-0"}, "container": "nowhere"}});
    assert_eq!(
        ended(&plan(&seen(session(missing), NOON))),
        Some(EndReason::ContainerNotFound)
    );
    let short = plan(&seen(session(json!({"duration": "1s"})), NOON));
    assert_eq!(
        (ended(&short), short.phase),
        (Some(EndReason::InvalidSpec), Phase::Failed)
    );
    assert_eq!(short.message, "duration must be between 1m and 24h");
}

#[test]
fn the_named_container_is_granted_and_no_other_or_all_that_need_no_name() {
    let target = |container| json!({"target": {"pod": {"name": "web-0"}, "container": container}});
    for (spec, default, all) in [
        (target(Some("log")), "log", &["log"][..]),
        (target(Some("debugger")), "debugger", &["debugger"]),
        (target(None), "main", &["main", "log"]),
    ] {
        let plan = plan(&seen(session(spec), NOON));
        let (target, ..) = open_to(&plan);
        assert_eq!(target.container, default);
        assert_eq!(target.containers, all);
        assert!(plan.message.contains(&all.join(", ")), "{}", plan.message);
        assert!(!target.admits("debugger") || default == "debugger");
    }
}

#[test]
fn a_default_container_that_is_a_sidecar_needs_no_name() {
    let mut seen = seen(session(json!({})), NOON);
    seen.pod.as_mut().expect("there").life = PodLife::Running {
        containers: vec!["proxy".into(), "main".into(), "debugger".into()],
        named_only: vec!["proxy".into(), "debugger".into()],
        node: "node-1".into(),
    };
    assert_eq!(open_to(&plan(&seen)).0.containers, ["proxy", "main"]);
}

/// A session that looks at another; `found`: the UID of that one.
fn observing(found: Option<&str>) -> Observed {
    let mut session = session(json!({"mode": "Observe", "observe": {"session": "fix-cart"}}));
    session.spec.target = None;
    Observed {
        pod: None,
        other: found.map(|uid| ObservedSession {
            session: "fix-cart".into(),
            uid: uid.into(),
        }),
        ..seen(session, NOON)
    }
}

#[test]
fn one_who_looks_waits_for_the_session_and_then_keeps_that_very_one() {
    let waiting = plan(&observing(None));
    assert_eq!(
        (waiting.phase, waiting.reason, &waiting.access),
        (Phase::Pending, "SessionNotFound", &Access::Closed)
    );
    let granted = plan(&observing(Some("one")));
    let Access::Open {
        subject: Subject::Session(other),
        expires_at,
        ..
    } = &granted.access
    else {
        panic!("{granted:?}");
    };
    assert_eq!((other.uid.as_str(), *expires_at), ("one", at(NOON + 3600)));
    assert_eq!(
        granted.message,
        format!(
            "alice@example.com may look at session fix-cart and its recordings until {expires_at}"
        )
    );
    // Whatever has its name later, and though it is gone.
    for found in [Some("two"), None] {
        let mut later = observing(found);
        let session = Arc::make_mut(&mut later.session);
        session.status = Some(ConsoleSessionStatus {
            observed: Some(other.clone()),
            granted_at: Some(Time(at(NOON))),
            expires_at: Some(Time(*expires_at)),
            ..ConsoleSessionStatus::default()
        });
        assert_eq!(plan(&later).access, granted.access, "{found:?}");
    }
}

#[test]
fn one_who_looks_is_granted_no_pod_whatever_its_status_says() {
    let mut seen = observing(None);
    let session = Arc::make_mut(&mut seen.session);
    session.status = granted(|_| ()).status;
    seen.pod = Some(running());
    assert_eq!(plan(&seen).access, Access::Closed);
}

#[test]
fn a_grant_ends_with_its_pod() {
    let lives = PodSeen {
        life: PodLife::Live,
        ..running()
    };
    let cases = [
        (Some(lives.clone()), None),
        (Some(running()), None),
        (
            Some(PodSeen {
                life: PodLife::Waiting("Unknown".into()),
                ..running()
            }),
            None,
        ),
        (None, Some(EndReason::PodDeleted)),
        (
            Some(PodSeen {
                deleting: true,
                ..lives.clone()
            }),
            Some(EndReason::PodDeleted),
        ),
        (
            Some(PodSeen {
                uid: "pod-2".into(),
                ..running()
            }),
            Some(EndReason::PodReplaced),
        ),
        (
            Some(PodSeen {
                life: PodLife::Finished,
                ..running()
            }),
            Some(EndReason::PodFinished),
        ),
    ];
    for (pod, reason) in cases {
        let mut seen = seen(granted(|_| ()), NOON + 5);
        seen.pod.clone_from(&pod);
        let plan = plan(&seen);
        assert_eq!(ended(&plan), reason, "{pod:?}");
        assert_eq!(plan.access == Access::Closed, reason.is_some(), "{pod:?}");
    }
}

#[test]
fn a_revocation_beats_everything_but_an_end_on_record() {
    let revoked = granted(|session| {
        session.spec.revoked = true;
        session.metadata.generation = Some(2);
        session.metadata.deletion_timestamp = Some(Time(at(NOON)));
        session.spec.user = "system:anonymous".into();
    });
    let mut seen = seen(revoked, NOON + 99_999);
    seen.pod = None;
    seen.namespace_deleting = true;
    assert_eq!(ended(&plan(&seen)), Some(EndReason::Revoked));
}

#[test]
fn deletion_of_session_or_namespace_ends_access() {
    let deleted = granted(|session| session.metadata.deletion_timestamp = Some(Time(at(NOON))));
    assert_eq!(
        ended(&plan(&seen(deleted, NOON + 5))),
        Some(EndReason::SessionDeleted)
    );
    let mut inside = seen(granted(|_| ()), NOON + 5);
    inside.namespace_deleting = true;
    assert_eq!(ended(&plan(&inside)), Some(EndReason::NamespaceDeleted));
}

#[test]
fn a_spec_changed_where_no_cel_forbids_it_ends_access() {
    let changed = granted(|session| {
        session.metadata.generation = Some(2);
        session.spec.user = "bob@example.com".into();
    });
    assert_eq!(
        ended(&plan(&seen(changed, NOON + 5))),
        Some(EndReason::InvalidSpec)
    );
}

#[test]
fn an_ended_session_stays_ended_whatever_its_status_is_made_to_say() {
    let traces: [fn(&mut ConsoleSessionStatus); 6] = [
        |status| {
            status.phase = None;
            status.end_reason = Some(EndReason::PodDeleted);
        },
        |status| status.phase = Some(Phase::Expired),
        |status| status.phase = Some(Phase::Failed),
        |status| {
            status.phase = Some(Phase::Ready);
            status.end_reason = Some(EndReason::PodDeleted);
        },
        |status| {
            status.phase = Some(Phase::Ready);
            status.ended_at = Some(Time(at(NOON + 1)));
        },
        |status| {
            status.phase = Some(Phase::Revoked);
            status.end_reason = Some(EndReason::Revoked);
            status.ended_at = Some(Time(at(NOON + 1)));
        },
    ];
    for (case, change) in traces.into_iter().enumerate() {
        let session = granted(|session| change(session.status.as_mut().expect("granted")));
        assert!(!needs_subject(&session, at(NOON + 5)), "case {case}");
        let plan = plan(&seen(session, NOON + 5));
        assert_eq!(plan.access, Access::Closed, "case {case}");
        assert!(plan.ended.is_some(), "case {case}");
        assert!(plan.phase.ended(), "case {case}");
    }
}

#[test]
fn a_status_cannot_promise_more_than_the_spec() {
    let longer = granted(|session| {
        let status = session.status.as_mut().expect("granted");
        status.expires_at = Some(Time(at(NOON + 86_400)));
    });
    assert_eq!(plan(&seen(longer, NOON + 3600)).phase, Phase::Expired);
}

#[test]
fn an_ended_session_is_deleted_when_its_time_to_live_is_over() {
    let kept = |ttl: &str, change: fn(&mut ConsoleSession)| {
        let mut session = granted(|session| {
            let status = session.status.as_mut().expect("granted");
            status.phase = Some(Phase::Expired);
            status.end_reason = Some(EndReason::Expired);
            status.ended_at = Some(Time(at(NOON + 3600)));
            session.spec.ttl_after_finished = Some(ttl.parse().expect("a duration"));
        });
        change(&mut session);
        session
    };
    let before = plan(&seen(kept("1h", |_| ()), NOON + 7199));
    assert_eq!(
        (before.delete, before.look_again),
        (false, Some(at(NOON + 7200)))
    );
    let after = plan(&seen(kept("1h", |_| ()), NOON + 7200));
    assert_eq!((after.delete, after.look_again), (true, None));
    assert!(plan(&seen(kept("0s", |_| ()), NOON + 3600)).delete);
    let going = kept("0s", |session| {
        session.metadata.deletion_timestamp = Some(Time(at(NOON)));
    });
    assert!(
        !plan(&seen(going, NOON + 7200)).delete,
        "it is on its way already"
    );
}

#[test]
fn the_pod_is_looked_for_only_when_it_matters() {
    assert!(needs_subject(&session(json!({})), at(NOON)));
    assert!(needs_subject(&granted(|_| ()), at(NOON)));
    assert!(!needs_subject(
        &session(json!({"notBefore": "2027-01-15T08:00:01Z"})),
        at(NOON)
    ));
    assert!(!needs_subject(&session(json!({"revoked": true})), at(NOON)));
}

prop_compose! {
    /// Sessions in every state, with a clock around all their deadlines.
    fn observed()(
        now in -200_i64..200,
        nanos in 0_i32..1_000_000_000,
        not_before in proptest::option::of(-150_i64..150),
        window in proptest::option::of(1_i64..200),
        granted_ago in proptest::option::of(-10_i64..200),
        duration in 60_i64..120,
        expires_shift in -50_i64..50,
        phase in 0_usize..7,
        end in 0_usize..3,
        pod in 0_usize..7,
        revoked in proptest::bool::weighted(0.1),
        deleted in proptest::bool::weighted(0.1),
        namespace_deleting in proptest::bool::weighted(0.1),
    ) -> Observed {
        let mut session = session(json!({"duration": format!("{duration}s"), "revoked": revoked}));
        session.spec.not_before = not_before.map(|second| Time(at(NOON + second)));
        session.spec.not_after = window.map(|width| Time(at(NOON + not_before.unwrap_or(0) + width)));
        session.metadata.deletion_timestamp = deleted.then(|| Time(at(NOON)));
        let phases = [None, Some(Phase::Pending), Some(Phase::Scheduled), Some(Phase::Ready), Some(Phase::Expired),
            Some(Phase::Revoked), Some(Phase::Failed)];
        let mut status = ConsoleSessionStatus { phase: phases[phase], ..ConsoleSessionStatus::default() };
        if let Some(ago) = granted_ago {
            let granted_at = NOON + now - ago;
            status.target = granted(|_| ()).status.expect("granted").target;
            status.granted_at = Some(Time(at(granted_at)));
            status.expires_at = Some(Time(at(granted_at + duration + expires_shift)));
        }
        status.end_reason = (end == 1).then_some(EndReason::PodReplaced);
        status.ended_at = (end == 2).then(|| Time(at(NOON)));
        session.status = Some(status);
        let lives = [PodLife::Live, PodLife::Waiting("Pending".into()), PodLife::Finished];
        Observed {
            session: Arc::new(session),
            namespace_deleting,
            pod: match pod {
                0 => None,
                1 => Some(PodSeen { uid: "pod-2".into(), ..running() }),
                2 => Some(PodSeen { deleting: true, ..running() }),
                3 => Some(running()),
                other => Some(PodSeen { life: lives[other - 4].clone(), ..running() }),
            },
            recording: RecordingTerms::default(),
            other: None,
            account_made: None,
            now: Timestamp::new(NOON + now, nanos).expect("in range"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn access_is_never_open_outside_its_bounds(seen in observed()) {
        let plan = plan(&seen);
        let spec = &seen.session.spec;
        if let Access::Open { subject, granted_at, expires_at, .. } = &plan.access {
            let Subject::Pod(target) = subject else {
                panic!("not asked for: {subject:?}");
            };
            prop_assert!(seen.now < *expires_at);
            prop_assert!(spec.not_after.as_ref().is_none_or(|at| seen.now < at.0 && *expires_at <= at.0));
            let duration = std::time::Duration::from(spec.duration);
            prop_assert!(expires_at.duration_since(*granted_at).unsigned_abs() <= duration);
            prop_assert!(!spec.revoked && !seen.namespace_deleting);
            prop_assert!(seen.session.metadata.deletion_timestamp.is_none());
            prop_assert_eq!(plan.phase, Phase::Ready);
            let pod = seen.pod.as_ref().expect("there is a pod");
            prop_assert_eq!(&pod.uid, &target.pod_uid);
            prop_assert!(!pod.deleting && pod.life != PodLife::Finished);
            match seen.session.status.as_ref().and_then(|status| status.target.as_ref()) {
                Some(first) => prop_assert_eq!(first, target),
                None => prop_assert!(spec.not_before.as_ref().is_none_or(|at| seen.now >= at.0)),
            }
        } else {
            prop_assert_ne!(plan.phase, Phase::Ready);
        }
        prop_assert_eq!(plan.ended.is_some(), plan.phase.ended());
        prop_assert!(plan.look_again.is_none_or(|at| at > seen.now), "a deadline that has passed would spin");
    }

    #[test]
    fn what_has_ended_stays_so(seen in observed(), later in 0_i64..1000) {
        let first = plan(&seen);
        if let Some((reason, ended_at)) = first.ended {
            let mut session = (*seen.session).clone();
            let status = session.status.get_or_insert_default();
            status.phase = Some(first.phase);
            status.end_reason = Some(reason);
            status.ended_at = Some(Time(ended_at));
            session.spec.revoked = false;
            let again = plan(&Observed {
                session: Arc::new(session),
                now: seen.now + SignedDuration::from_secs(later),
                pod: Some(running()),
                other: None,
                account_made: None,
                namespace_deleting: false,
                recording: RecordingTerms::default(),
            });
            prop_assert_eq!((again.phase, again.ended), (first.phase, first.ended));
            prop_assert_eq!(again.access, Access::Closed);
        }
    }
}

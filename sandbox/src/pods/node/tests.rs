use super::*;

fn slot(part: Part, state: Value) -> Slot {
    let id = if state["waiting"].is_null() {
        "sandbox://x".into()
    } else {
        Value::Null
    };
    Slot {
        part,
        state,
        id,
        ..Slot::default()
    }
}

fn ended(code: i32) -> Value {
    json!({"terminated": {"exitCode": code}})
}

fn running() -> Value {
    json!({"running": {}})
}

fn waiting() -> Value {
    json!({"waiting": {}})
}

#[test]
fn the_phase_is_what_the_kubelet_would_say() {
    let main = |state| slot(Part::Main, state);
    for (slots, expected) in [
        (vec![main(waiting())], "Pending"),
        (vec![main(running())], "Running"),
        (vec![main(running()), main(waiting())], "Pending"),
        (vec![main(ended(0)), main(ended(1))], "Failed"),
        (vec![main(ended(0)), main(running())], "Running"),
        (vec![main(ended(0)), main(ended(0))], "Succeeded"),
        (vec![slot(Part::Init, ended(1)), main(waiting())], "Failed"),
        (
            vec![slot(Part::Init, running()), main(waiting())],
            "Pending",
        ),
        (vec![slot(Part::Init, ended(0)), main(running())], "Running"),
        (
            vec![main(running()), slot(Part::Ephemeral, ended(1))],
            "Running",
        ),
    ] {
        let states: Vec<&Value> = slots.iter().map(|slot| &slot.state).collect();
        assert_eq!(phase(&slots), expected, "{states:?}");
    }
}

#[test]
fn a_container_starts_again_as_its_place_and_the_policy_say() {
    for (part, policy, code, again) in [
        (Part::Main, "Always", 0, true),
        (Part::Main, "OnFailure", 0, false),
        (Part::Main, "OnFailure", 1, true),
        (Part::Main, "Never", 1, false),
        (Part::Init, "Always", 0, false),
        (Part::Init, "Always", 1, true),
        (Part::Init, "Never", 1, false),
        (Part::Ephemeral, "Always", 1, false),
    ] {
        let mut slot = slot(part, ended(code));
        slot.start_again(policy, Timestamp::UNIX_EPOCH);
        assert_eq!(slot.code().is_none(), again, "{part:?} {policy} {code}");
    }
}

#[test]
fn the_wait_doubles_up_to_its_limit() {
    let waits = [0, 1, 2, 3, 6, 60].map(|restarts| {
        let mut slot = slot(Part::Main, ended(1));
        slot.restarts = restarts;
        slot.start_again("Always", Timestamp::UNIX_EPOCH);
        slot.due.as_second()
    });
    assert_eq!(waits, [0, 10, 20, 40, 300, 300]);
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let ready = |status: &Value| {
        let conditions = status["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|one| one["type"] == "Ready");
        ready.unwrap()["lastTransitionTime"].clone()
    };
    let mut pod = json!({});
    update(&mut pod, &[slot(Part::Main, waiting())], at(1));
    let first = pod.clone();
    update(&mut pod, &[slot(Part::Main, waiting())], at(2));
    assert_eq!(pod, first);
    update(&mut pod, &[], at(3));
    assert_eq!(
        (ready(&first), ready(&pod)),
        ("1970-01-01T00:00:01Z".into(), "1970-01-01T00:00:03Z".into())
    );
}

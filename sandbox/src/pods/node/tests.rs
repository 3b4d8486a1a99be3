use super::*;

fn ended(code: i32) -> Value {
    json!({"containerID": "x", "state": {"terminated": {"exitCode": code}}})
}

fn running() -> Value {
    json!({"containerID": "x", "state": {"running": {}}})
}

fn waiting() -> Value {
    json!({"state": {"waiting": {}}})
}

#[test]
fn the_phase_is_what_the_kubelet_would_say() {
    let none = Value::Null;
    for (init, main, expected) in [
        (none.clone(), json!([waiting()]), "Pending"),
        (none.clone(), json!([running()]), "Running"),
        (none.clone(), json!([running(), waiting()]), "Pending"),
        (none.clone(), json!([ended(0), ended(1)]), "Failed"),
        (none.clone(), json!([ended(0), running()]), "Running"),
        (none, json!([ended(0), ended(0)]), "Succeeded"),
        (json!([ended(1)]), json!([waiting()]), "Failed"),
        (json!([running()]), json!([waiting()]), "Pending"),
        (json!([ended(0)]), json!([running()]), "Running"),
    ] {
        let status = json!({"initContainerStatuses": init, "containerStatuses": main});
        assert_eq!(phase(&status), expected, "{status}");
    }
}

#[test]
fn a_container_starts_again_as_its_place_and_the_policy_say() {
    for (list, policy, exit, again) in [
        (MAIN, "Always", 0, true),
        (MAIN, "OnFailure", 0, false),
        (MAIN, "OnFailure", 1, true),
        (MAIN, "Never", 1, false),
        (INIT, "Always", 0, false),
        (INIT, "Always", 1, true),
        (INIT, "Never", 1, false),
        (EPHEMERAL, "Always", 1, false),
    ] {
        let told = starts_again(list, policy, exit);
        assert_eq!(told, again, "{list} {policy} {exit}");
    }
}

#[test]
fn the_wait_doubles_up_to_its_limit() {
    let waits = [0, 1, 2, 3, 6, 60].map(wait);
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
    let mut status = json!({"containerStatuses": [{"ready": false}]});
    summarize(&mut status, at(1));
    let first = status.clone();
    summarize(&mut status, at(2));
    assert_eq!(status, first);
    status["containerStatuses"][0]["ready"] = true.into();
    summarize(&mut status, at(3));
    assert_eq!(ready(&first), "1970-01-01T00:00:01Z");
    assert_eq!(ready(&status), "1970-01-01T00:00:03Z");
}

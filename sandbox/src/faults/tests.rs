use serde_json::json;

use super::*;

#[test]
fn a_fault_meets_the_nth_request_of_its_kind_and_no_other() {
    let mut faults = Faults::default();
    faults.requests.push(
        serde_json::from_value(
            json!({"verb": "patch", "resource": "pods/status", "after": 1, "times": 2, "then": {"code": 503}}),
        )
        .unwrap(),
    );
    let got = [
        ("patch", "pods/status", None),
        ("get", "pods/status", None),
        ("patch", "pods", None),
        ("patch", "pods/status", Some(Answer::Code(503))),
        ("patch", "pods/status", Some(Answer::Code(503))),
        ("patch", "pods/status", None),
    ];
    for (verb, resource, answer) in got {
        assert_eq!(faults.answer(verb, resource), answer, "{verb} {resource}");
    }
    assert_eq!(faults, Faults::default());
}

//! Which form of an answer a client gets.

use super::*;

#[test]
fn the_first_form_that_can_be_had_is_taken() {
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
    let protobuf = "application/vnd.kubernetes.protobuf";
    let either = format!("{protobuf},application/json");
    for (accept, want) in [
        ("*/*", Some(Form::Plain)),
        ("application/json", Some(Form::Plain)),
        (&either, Some(Form::Plain)),
        (protobuf, None),
        ("text/html", None),
        (old, Some(Form::Plain)),
        (table, Some(Form::Table)),
        (partial, Some(Form::Partial)),
    ] {
        let mut headers = HeaderMap::new();
        assert_eq!(form(&headers).ok(), Some(Form::Plain));
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        assert_eq!(form(&headers).ok(), want, "{accept}");
    }
}

//! Which form an answer takes: what `Accept` asks for. Pure.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::status::Failure;

/// The form of an answer, always JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// Metadata alone.
    Partial,
}

/// The first form in `Accept` that can be had. Nobody needs protobuf alone: clients offer JSON with it.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let accept: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|one| !one.is_empty())
        .collect();
    if accept.is_empty() {
        return Ok(Form::Plain);
    }
    accept.into_iter().find_map(one).ok_or_else(|| {
        Failure::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        )
    })
}

fn one(accepted: &str) -> Option<Form> {
    let mut parts = accepted.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    if !matches!(media.as_str(), "application/json" | "application/*" | "*/*") {
        return None;
    }
    let mut form = Form::Plain;
    let mut group = "meta.k8s.io";
    let mut version = "v1";
    for part in parts {
        match part.split_once('=') {
            Some(("as", "Table")) => form = Form::Table,
            Some(("as", "PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                form = Form::Partial;
            }
            Some(("as", _)) => return None,
            Some(("g", asked)) => group = asked,
            Some(("v", asked)) => version = asked,
            _ => {}
        }
    }
    let known = form == Form::Plain || group == "meta.k8s.io" && version == "v1";
    known.then_some(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_had_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for (accept, want) in [
            ("", Some(Form::Plain)),
            ("*/*", Some(Form::Plain)),
            ("application/json", Some(Form::Plain)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Form::Plain),
            ),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(Form::Plain),
            ),
            (table, Some(Form::Table)),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Form::Partial),
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(form(&headers).ok(), want, "{accept}");
        }
    }
}

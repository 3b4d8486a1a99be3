//! `metav1.LabelSelector`: which labels it matches. Pure.

use serde_json::Value;

/// Whether `labels` (an object, or `Null` for none) are what a selector asks for. An empty or absent one asks for
/// nothing; a requirement with an operator that does not exist matches nothing.
#[must_use]
pub fn matches(selector: &Value, labels: &Value) -> bool {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let requirements = selector["matchExpressions"].as_array();
    exact
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && requirements.into_iter().flatten().all(|one| {
            let value = one["key"].as_str().and_then(|key| labels.get(key));
            let listed = value.is_some_and(|value| {
                let values = one["values"].as_array();
                values.is_some_and(|values| values.contains(value))
            });
            match one["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_matches_what_it_asks_for() {
        let labels = json!({"app": "web", "tier": "front"});
        for (selector, expected) in [
            (json!(null), true),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchLabels": {"none": "web"}}), false),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "Like"}]}),
                false,
            ),
        ] {
            assert_eq!(matches(&selector, &labels), expected, "{selector}");
        }
        assert!(!matches(
            &json!({"matchLabels": {"app": "web"}}),
            &Value::Null
        ));
    }
}

use super::*;

#[test]
fn every_annotated_list_is_one_and_its_items_have_the_keys() {
    for (of, more) in merged().iter().filter(|(of, _)| !of.starts_with("x-")) {
        let (_, definition) = definitions()
            .iter()
            .find(|(name, _)| name.ends_with(&format!(".{of}")))
            .unwrap_or_else(|| panic!("{of}"));
        let properties = more["properties"].as_object();
        for (field, _) in properties.into_iter().flatten() {
            let list = &definition["properties"][field];
            let Some(keys) = list["x-kubernetes-list-map-keys"].as_array() else {
                assert!(list.as_object().unwrap().len() > 1, "{of} {field}");
                continue;
            };
            assert_eq!(list["type"], "array", "{of} {field}");
            let item = list["items"]["$ref"].as_str().unwrap();
            let item = item.trim_start_matches("#/components/schemas/");
            for key in keys {
                let key = &definitions()[item]["properties"][key.as_str().unwrap()];
                assert!(key.is_object(), "{of} {field}");
            }
        }
    }
}

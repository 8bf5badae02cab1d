//! The OpenAPI document, as it is in the repository. Tests hold it and the operations together.

use super::call::Call;
use crate::http::Response;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn document(_: &mut Call<'_, '_>) -> Response {
    Response::bytes(200, "application/json", DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use serde_json::{Map, Value};

    use super::*;
    use crate::admin::routes::ROUTES;
    use crate::admin::{overrides, plugins, rpc, versions};
    use crate::protocol::configuration::Configuration;
    use crate::protocol::manifest::Manifest;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn object(value: &Value) -> &Map<String, Value> {
        value.as_object().expect("an object")
    }

    /// Each operation with its method and path, as the table of routes has them.
    fn operations(document: &Value) -> Vec<(String, &String, &Value)> {
        let paths = object(&document["paths"]).iter();
        let all = paths.flat_map(|(path, operations)| {
            let operations = object(operations).iter();
            operations.map(move |(method, operation)| (method.to_uppercase(), path, operation))
        });
        all.collect()
    }

    /// All members with this name, wherever they are.
    fn members<'v>(value: &'v Value, name: &str, found: &mut Vec<&'v Value>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get(name));
                object
                    .values()
                    .for_each(|value| members(value, name, found));
            }
            Value::Array(values) => values.iter().for_each(|value| members(value, name, found)),
            _ => {}
        }
    }

    /// The examples of bodies that are JSON, of what may be a request or an answer.
    fn examples(content: &Value) -> Vec<&Value> {
        let json = &content["application/json"];
        let named = json["examples"].as_object();
        let named = named.into_iter().flat_map(|named| named.values());
        let named = named.map(|example| &example["value"]);
        named.chain(json.get("example")).collect()
    }

    #[test]
    fn it_names_the_operations_that_there_are() {
        let document = document();
        let documented: BTreeSet<_> = operations(&document)
            .into_iter()
            .map(|(method, path, operation)| {
                let is_open = operation["security"] == Value::Array(Vec::new());
                (method, path.clone(), is_open)
            })
            .collect();
        let served: BTreeSet<_> = ROUTES
            .iter()
            .map(|route| {
                (
                    route.method.to_owned(),
                    route.path.to_owned(),
                    route.is_open,
                )
            })
            .collect();
        assert_eq!(documented, served);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_examples() {
        let document = document();
        let mut names = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let name = operation["operationId"].as_str().expect("a name");
            assert!(names.insert(name), "{name} is there twice");
            let answers = object(&operation["responses"]);
            let mut contents = vec![&operation["requestBody"]["content"]];
            let good = answers.iter().filter(|(status, _)| status.starts_with('2'));
            contents.extend(good.map(|(_, answer)| &answer["content"]));
            for content in contents.into_iter().filter_map(Value::as_object) {
                for (media_type, content) in content {
                    let has_example = ["example", "examples"]
                        .iter()
                        .any(|name| content.get(name).is_some());
                    let is_archive = media_type == "application/zip";
                    assert!(has_example || is_archive, "{method} {path}: {media_type}");
                }
            }
        }
    }

    #[test]
    fn what_it_refers_to_is_there() {
        let document = document();
        let mut references = Vec::new();
        members(&document, "$ref", &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let reference = reference.as_str().expect("text");
            let pointer = reference.strip_prefix('#').expect("in the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn decode<T: DeserializeOwned>(example: &Value) {
        if let Err(error) = serde_json::from_value::<T>(example.clone()) {
            panic!("{error}: {example}");
        }
    }

    #[test]
    fn examples_of_requests_are_what_operations_take() {
        let document = document();
        for (_, path, operation) in operations(&document) {
            let name = operation["operationId"].as_str().unwrap();
            for example in examples(&operation["requestBody"]["content"]) {
                match name {
                    "PluginAdd" => decode::<plugins::Addition>(example),
                    "PluginSetActiveState" => decode::<plugins::Wanted>(example),
                    "PluginUpdateManifest" => {
                        Manifest::parse(example.to_string().as_bytes()).unwrap();
                    }
                    "PluginUpdateConfiguration" => decode::<Configuration>(example),
                    "PluginRollback" => decode::<versions::Rollback>(example),
                    "PluginCall" => decode::<rpc::Request>(example),
                    "EventPublish" => decode::<rpc::Publication>(example),
                    "PluginUpdateOverrides" => decode::<overrides::Changes>(example),
                    _ => panic!("{path}: {name} is not tried here"),
                }
            }
        }
    }
}

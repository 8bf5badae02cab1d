//! The manifest's capabilities: what a plugin provides to Robots
//! ([Capabilities](crate::protocol#capabilities)), and the rules for them. Calling them is in
//! [`crate::protocol::method`].

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Map, Value};

use super::decode::{ManifestObject, Problems};
use super::is_default;
use crate::error::{FieldProblem, FieldProblemKind};

const KNOWN_TYPES: &str = "\"robot.llm_provider\", \"robot.tool_provider\"";

/// A capability of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type")]
#[non_exhaustive]
pub enum Capability {
    /// A provider of language models.
    #[serde(rename = "robot.llm_provider")]
    RobotLlmProvider {
        /// The provider part of model references such as `provider/model`: a letter or digit, then
        /// letters, digits, `.`, `_` and `-`.
        id: String,
        /// The version, never empty; `v1` in practice.
        version: String,
        /// The display name; may be empty.
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
        /// The description; may be empty.
        #[serde(skip_serializing_if = "String::is_empty")]
        description: String,
    },
    /// A provider of tools that Robots may call.
    #[serde(rename = "robot.tool_provider")]
    RobotToolProvider {
        /// The provider's id: a letter or digit, then letters, digits and `_`.
        id: String,
        /// The version, never empty; `v1` in practice.
        version: String,
        /// The display name; may be empty.
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
        /// The description; may be empty.
        #[serde(skip_serializing_if = "String::is_empty")]
        description: String,
        /// The tools.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tools: Vec<RobotTool>,
        /// Groups of the tools.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        toolsets: Vec<RobotToolset>,
    },
}

/// A tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RobotTool {
    /// The tool's id: a letter or digit, then letters, digits and `_`; unique within the provider.
    pub id: String,
    /// The name for the model.
    pub name: String,
    /// The description for the model.
    pub description: String,
    /// The JSON Schema of the arguments; its top-level `type` is `object`.
    pub input_schema: Map<String, Value>,
    /// The JSON Schema of the output; its top-level `type` is `object`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Map<String, Value>>,
    /// The name for people; falls back to `name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Whether a person must confirm each call.
    #[serde(skip_serializing_if = "is_default")]
    pub requires_confirmation: bool,
    /// Whether it requires a workspace.
    #[serde(skip_serializing_if = "is_default")]
    pub requires_workspace: bool,
    /// Hints about the effects of a call.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: ToolAnnotations,
}

/// The author's hints about a tool's effects; not guarantees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolAnnotations {
    /// The tool changes nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_hint: bool,
    /// The tool may destroy something.
    #[serde(skip_serializing_if = "is_default")]
    pub destructive_hint: bool,
    /// Calling the tool twice has the effect of calling it once.
    #[serde(skip_serializing_if = "is_default")]
    pub idempotent_hint: bool,
    /// The tool reaches beyond the plugin and its host.
    #[serde(skip_serializing_if = "is_default")]
    pub open_world_hint: bool,
}

/// A group of tools that are given to a model together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RobotToolset {
    /// The toolset's id; unique within the provider.
    pub id: String,
    /// The display name.
    pub name: String,
    /// The description.
    pub description: String,
    /// Added to a model's instructions with the tools; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instruction: String,
    /// Whether it requires a workspace.
    #[serde(skip_serializing_if = "is_default")]
    pub requires_workspace: bool,
    /// The ids of its tools, of the same provider.
    pub tools: Vec<String>,
}

impl Capability {
    /// Returns the id of the provider.
    pub fn id(&self) -> &str {
        match self {
            Self::RobotLlmProvider { id, .. } | Self::RobotToolProvider { id, .. } => id,
        }
    }

    pub(super) fn decode(object: &mut ManifestObject<'_>) -> Option<Self> {
        let kind = object.type_name()?;
        match kind.as_str() {
            "robot.llm_provider" => Some(Self::RobotLlmProvider {
                id: object.string("id"),
                version: object.string("version"),
                name: object.string("name"),
                description: object.string("description"),
            }),
            "robot.tool_provider" => Some(Self::RobotToolProvider {
                id: object.string("id"),
                version: object.string("version"),
                name: object.string("name"),
                description: object.string("description"),
                tools: object.objects("tools", |tool| Some(RobotTool::decode(tool))),
                toolsets: object.objects("toolsets", |toolset| Some(RobotToolset::decode(toolset))),
            }),
            _ => {
                object.unknown("type", &kind, KNOWN_TYPES);
                None
            }
        }
    }

    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        let id_path = format!("{path}.id");
        let version = match self {
            Self::RobotLlmProvider { id, version, .. } => {
                problems.check_characters(
                    id_path,
                    id,
                    is_llm_provider_id,
                    "begin with a letter or digit and go on with letters, digits, '.', '_' and '-'",
                );
                version
            }
            Self::RobotToolProvider {
                id,
                version,
                tools,
                toolsets,
                ..
            } => {
                check_tool_id(id_path, id, problems);
                check_tools(path, tools, toolsets, problems);
                version
            }
        };
        if version.is_empty() {
            problems.add(format!("{path}.version"), FieldProblemKind::Empty);
        }
    }
}

impl RobotTool {
    fn decode(object: &mut ManifestObject<'_>) -> Self {
        Self {
            id: object.string("id"),
            name: object.string("name"),
            description: object.string("description"),
            input_schema: object.map("input_schema").unwrap_or_default(),
            output_schema: object.map("output_schema"),
            title: object.string("title"),
            requires_confirmation: object.boolean("requires_confirmation"),
            requires_workspace: object.boolean("requires_workspace"),
            annotations: object
                .object("annotations", ToolAnnotations::decode)
                .unwrap_or_default(),
        }
    }
}

impl ToolAnnotations {
    fn decode(object: &mut ManifestObject<'_>) -> Self {
        Self {
            read_only_hint: object.boolean("readOnlyHint"),
            destructive_hint: object.boolean("destructiveHint"),
            idempotent_hint: object.boolean("idempotentHint"),
            open_world_hint: object.boolean("openWorldHint"),
        }
    }
}

impl RobotToolset {
    fn decode(object: &mut ManifestObject<'_>) -> Self {
        Self {
            id: object.string("id"),
            name: object.string("name"),
            description: object.string("description"),
            instruction: object.string("instruction"),
            requires_workspace: object.boolean("requires_workspace"),
            tools: object.strings("tools"),
        }
    }
}

fn check_tools(
    path: &str,
    tools: &[RobotTool],
    toolsets: &[RobotToolset],
    problems: &mut Problems,
) {
    let mut tool_ids = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let path = format!("{path}.tools[{index}]");
        check_tool_id(format!("{path}.id"), &tool.id, problems);
        if !tool_ids.insert(tool.id.as_str()) {
            duplicate(format!("{path}.id"), &tool.id, problems);
        }
        for (name, schema) in [
            ("input_schema", Some(&tool.input_schema)),
            ("output_schema", tool.output_schema.as_ref()),
        ] {
            if schema.is_some_and(|schema| !describes_object(schema)) {
                let field = format!("{path}.{name}");
                problems.add(field, FieldProblemKind::NotAnObjectSchema);
            }
        }
    }
    let mut toolset_ids = HashSet::new();
    for (index, toolset) in toolsets.iter().enumerate() {
        let path = format!("{path}.toolsets[{index}]");
        if !toolset_ids.insert(toolset.id.as_str()) {
            duplicate(format!("{path}.id"), &toolset.id, problems);
        }
        for (index, tool) in toolset.tools.iter().enumerate() {
            if !tool_ids.contains(tool.as_str()) {
                let found = FieldProblem::piece(tool);
                let field = format!("{path}.tools[{index}]");
                problems.add(field, FieldProblemKind::UnknownTool { found });
            }
        }
    }
}

fn check_tool_id(field: String, id: &str, problems: &mut Problems) {
    problems.check_characters(
        field,
        id,
        |id| first_and_rest(id, |byte| byte == b'_'),
        "begin with a letter or digit and go on with letters, digits and '_'",
    );
}

fn is_llm_provider_id(id: &str) -> bool {
    first_and_rest(id, |byte| matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether this is a letter or digit, followed by those and by what `also` allows.
fn first_and_rest(id: &str, also: fn(u8) -> bool) -> bool {
    id.bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || also(byte))
}

fn duplicate(field: String, value: &str, problems: &mut Problems) {
    // An empty id has been reported already.
    if !value.is_empty() {
        let found = FieldProblem::piece(value);
        problems.add(field, FieldProblemKind::Duplicate { found });
    }
}

fn describes_object(schema: &Map<String, Value>) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object")
}

//! JSON from the command line, a file, or standard input.

use std::io::{self, Read as _};
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::cli::error::CliError;
use crate::cli::private_file::open_named;

/// Bytes that are read: what the API takes.
const SIZE: u64 = 4 * 1024 * 1024;

/// Where an object is.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Object {
    Here(Map<String, Value>),
    File(PathBuf),
    StandardInput,
}

/// Reads an argument that is a JSON object, `@FILE` or `-`.
///
/// # Errors
/// A text that says what is wrong.
pub(in crate::cli) fn object(text: &str) -> Result<Object, String> {
    match (text, text.strip_prefix('@')) {
        ("-", _) => Ok(Object::StandardInput),
        (_, Some(path)) => Ok(Object::File(path.into())),
        _ => parse(text).map(Object::Here),
    }
}

/// Returns the object; an empty one if there is none.
///
/// # Errors
/// [`CliError`] when it cannot be read or is no object.
pub(in crate::cli) fn read_object(object: Option<&Object>) -> Result<Map<String, Value>, CliError> {
    match object {
        None => Ok(Map::new()),
        Some(Object::Here(object)) => Ok(object.clone()),
        Some(Object::File(path)) => {
            let about = |error: CliError| error.about(path.display());
            let file = open_named(path).map_err(CliError::cannot("open it"));
            let text = file.and_then(text).map_err(about)?;
            parse(&text).map_err(|problem| about(problem.into()))
        }
        Some(Object::StandardInput) => {
            let about = |error: CliError| error.about("standard input");
            let text = text(io::stdin().lock()).map_err(about)?;
            parse(&text).map_err(|problem| about(problem.into()))
        }
    }
}

fn text(reader: impl io::Read) -> Result<String, CliError> {
    let mut text = String::new();
    let read = reader.take(SIZE + 1).read_to_string(&mut text);
    read.map_err(CliError::cannot("read it"))?;
    if text.len() as u64 > SIZE {
        return Err(format!("it has more than {SIZE} bytes").into());
    }
    Ok(text)
}

pub(in crate::cli) fn parse(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("write a JSON object, such as {\"name\": \"value\"}".to_owned()),
        Err(error) => Err(format!(
            "this is no JSON: {error}; write an object such as {{\"name\": \"value\"}}"
        )),
    }
}

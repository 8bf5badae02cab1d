//! Placeholder of the sample plugin, until the one built on the SDK takes its place.

use std::path::Path;

use plugin_runner::Result;
use plugin_runner::protocol::Manifest;

pub(crate) fn run() -> Result<()> {
    Ok(())
}

pub(crate) fn manifest(program: &Path) -> Manifest {
    Manifest {
        id: "sample".to_owned(),
        author: "plugin-runner".to_owned(),
        name: "Sample".to_owned(),
        command: program.display().to_string(),
        args: vec!["sample-plugin".to_owned()],
        ..Manifest::default()
    }
}

//! The records of the plugins of a run: those that the arguments name, or the sample's.

use std::collections::HashMap;
use std::path::PathBuf;

use plugin_runner::RuntimeProvider;
use plugin_runner::store::{Record, Source};

use super::arguments::RunArguments;
use crate::cli::data_dir::DataDir;
use crate::cli::error::CliError;
use crate::cli::{sample, source};

/// Returns the plugins that the arguments name.
pub(super) fn records(arguments: &RunArguments) -> Result<Vec<Record>, CliError> {
    let paths = arguments.paths.iter().map(|path| (path, true));
    let external = arguments.external.iter().map(|path| (path, false));
    let mut occurrences: HashMap<PathBuf, usize> = HashMap::new();
    let mut records = Vec::new();
    for (path, supervised) in paths.chain(external) {
        let record = if supervised {
            source::supervised(path)
        } else {
            source::external(path)
        };
        let mut record = record.map_err(|failure| failure.about(path.display()))?;
        if arguments.data.is_some() {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let occurrence = occurrences.entry(path.clone()).or_default();
            record.id = source::lasting_id(&record, &path, *occurrence);
            *occurrence += 1;
        }
        records.push(record);
    }
    Ok(records)
}

/// Returns the record of the sample, in a directory of its own: this very program, or a script where this
/// program is not. In a directory that is kept it is the same plugin in every run.
pub(super) fn sample_record(data: &DataDir, runtime: RuntimeProvider) -> Result<Record, CliError> {
    let dir = data.path().join("sample");
    std::fs::create_dir_all(&dir).map_err(CliError::cannot(format!(
        "create the directory {}",
        dir.display()
    )))?;
    let manifest = if runtime == RuntimeProvider::Local {
        let program = std::env::current_exe();
        sample::manifest(&program.map_err(CliError::cannot("find this program's file"))?)
    } else {
        sample::script(&dir).map_err(CliError::cannot("write the sample's script"))?
    };
    let mut record = Record::supervised(manifest, Source::Directory(dir.clone()));
    if data.is_kept() {
        let path = dir.canonicalize().unwrap_or(dir);
        record.id = source::lasting_id(&record, &path, 0);
    }
    Ok(record)
}

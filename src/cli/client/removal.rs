//! `remove`: a plugin that is not needed any more.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::host::{HostArguments, Need};
use super::progress::waiting;
use super::{ask, output, plugins};
use crate::cli::error::CliError;

const EXAMPLES: &str = "\
Examples:
  plugin-runner remove hello
  plugin-runner remove hello --purge --yes";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Remove {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// Remove its data and its log too.
    #[arg(long)]
    purge: bool,
    /// Do not ask. Only on a terminal there is a question.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    host: HostArguments,
}

/// What the host says that is left.
#[derive(Default, Deserialize)]
struct Removal {
    kept: Option<PathBuf>,
    left: Option<String>,
    descendants: Option<String>,
}

impl Remove {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let connection = self.host.connect(Need::Installed)?;
        let api = &connection.api;
        let plugin = plugins::find(api, &self.plugin)?;
        let called = plugin.called();
        let what = if self.purge {
            ", its data and its log"
        } else {
            ""
        };
        if !self.yes && !ask::confirmed(&format!("remove {called}{what}?"))? {
            return Err("nothing was removed".into());
        }
        let query = if self.purge { "" } else { "?keep_data=true" };
        let path = plugin.path(query);
        let removed: Option<Removal> = waiting(&format!("removing {called}"), || {
            api.change(Method::DELETE, &path, None)
        })?;
        let removal = removed.unwrap_or_default();
        if self.host.json {
            return output::json(&json!({
                "installation": plugin.id,
                "kept": removal.kept,
                "left": removal.left,
                "descendants": removal.descendants,
            }));
        }
        output::line(&format!("{called} is removed"))?;
        if let Some(kept) = removal.kept {
            output::line(&format!("its data is kept in {}", kept.display()))?;
        }
        for left in [removal.left, removal.descendants].into_iter().flatten() {
            output::line(&format!("left for now: {}", Value::from(left)))?;
        }
        Ok(())
    }
}

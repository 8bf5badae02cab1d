//! The command line of a bench: `cargo bench -- [--quick] [--json FILE] [FILTER…]`.

use std::path::PathBuf;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Once, to see that it works; what `cargo test` does.
    Smoke,
    /// Few rounds, for a look while working.
    Quick,
    /// Enough for figures that may be quoted.
    Full,
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) effort: Effort,
    /// Gets one JSON object for each row, appended.
    pub(crate) json: Option<PathBuf>,
    /// Rows whose `bench/group/name` holds any of these are run, and those they are compared with.
    pub(crate) filters: Vec<String>,
}

impl Arguments {
    /// Reads the command line. `cargo bench` passes `--bench`, `cargo test` does not.
    pub(crate) fn read() -> Self {
        let mut read = Self {
            effort: Effort::Smoke,
            json: None,
            filters: Vec::new(),
        };
        let mut quick = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => read.effort = Effort::Full,
                "--quick" => quick = true,
                "--json" => {
                    let file = arguments.next();
                    read.json = Some(file.unwrap_or_else(|| refuse("--json needs a file")).into());
                }
                // What the test harness understands and this does not need.
                "--nocapture" | "--show-output" | "--quiet" | "-q" => {}
                "--test-threads" | "--format" | "--color" => drop(arguments.next()),
                "--help" | "-h" => refuse("cargo bench -- [--quick] [--json FILE] [FILTER…]"),
                option if option.starts_with("--test-threads=") => {}
                option if option.starts_with('-') => refuse(&format!(
                    "unknown option {option}; there are --quick and --json FILE"
                )),
                filter => read.filters.push(filter.to_owned()),
            }
        }
        if quick && read.effort == Effort::Full {
            read.effort = Effort::Quick;
        }
        read
    }

    pub(crate) fn wants(&self, row: &str) -> bool {
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| row.contains(filter.as_str()))
    }
}

fn refuse(text: &str) -> ! {
    eprintln!("{text}");
    std::process::exit(2);
}

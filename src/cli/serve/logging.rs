//! The log of a server on standard error: text, or one JSON object per line. Its level can change while it runs.

use std::io::{self, Write as _};
use std::time::SystemTime;

use log::{LevelFilter, Log, Metadata, Record};
use serde::Serialize;
use simplelog::{ColorChoice, ConfigBuilder, TermLogger, TerminalMode};

use super::settings::LogFormat;
use crate::cli::output::{Paint, json_line};

/// Ten lines for each request.
const LEFT_OUT: &str = "ureq";

/// Begins to log. What is below the level that is set last is left out.
pub(super) fn start(format: LogFormat, level: LevelFilter) {
    // Both fail only if there is a logger already. They get all levels: `log` itself knows the one that counts.
    let _ = match format {
        LogFormat::Json => log::set_boxed_logger(Box::new(JsonLogger)),
        LogFormat::Text => {
            let mut config = ConfigBuilder::new();
            config
                .set_location_level(LevelFilter::Off)
                .set_thread_level(LevelFilter::Off)
                .set_target_level(LevelFilter::Debug)
                .set_time_format_rfc3339()
                .add_filter_ignore_str(LEFT_OUT);
            let colour = if Paint::for_stream(&io::stderr()).is_coloured() {
                ColorChoice::Always
            } else {
                ColorChoice::Never
            };
            TermLogger::init(
                LevelFilter::Trace,
                config.build(),
                TerminalMode::Stderr,
                colour,
            )
        }
    };
    set_level(level);
}

/// Sets the least important level that is logged.
pub(super) fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

struct JsonLogger;

/// The members come in this order.
#[derive(Serialize)]
struct JsonRecord<'a> {
    time: String,
    level: String,
    target: &'a str,
    message: String,
}

impl Log for JsonLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && !metadata.target().starts_with(LEFT_OUT)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = json_line(&JsonRecord {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            level: record.level().as_str().to_lowercase(),
            target: record.target(),
            message: record.args().to_string(),
        });
        // In one write, and without standard error there is no other way.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

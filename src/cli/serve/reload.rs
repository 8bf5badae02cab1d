//! Reading the configuration again while the server runs.

use super::logging;
use super::service::Service;
use super::settings::{Configuration, Effective, Given};

/// Reads the configuration again, applies what can be applied, and names whatever else has changed. Returns what
/// the server runs with from now on: what is wrong changes nothing.
pub(super) fn reload(given: &Given, running: Configuration, service: &Service) -> Configuration {
    let read = Configuration::read(given);
    for warning in &read.warnings {
        log::warn!("{warning}");
    }
    for problem in &read.problems {
        log::error!("{problem}");
    }
    let Some(settings) = &read.settings else {
        log::error!("the configuration is wrong, so nothing of it changes");
        return running;
    };
    if let Err(error) = service.apply(settings) {
        log::error!("{error}; nothing of the configuration changes");
        return running;
    }
    logging::set_level(settings.log_level);
    let token = |configuration: &Configuration| {
        let settings = configuration.settings.as_ref()?;
        settings.admin_token.clone()
    };
    if token(&running) != token(&read) {
        log::warn!("the token of the HTTP API has changed, which counts from the next start on");
    }
    let effective = running.effective.into_iter().zip(read.effective);
    let effective = effective.map(|(old, new)| changed(old, new)).collect();
    log::info!("read the configuration again");
    Configuration {
        effective,
        settings: read.settings,
        ..running
    }
}

/// Says what has changed. Returns what counts.
fn changed(old: Effective, new: Effective) -> Effective {
    if old.value == new.value {
        return new;
    }
    let name = old.setting.name;
    let value = new.value.as_deref().unwrap_or("not set");
    if old.setting.is_reloaded {
        log::info!("{name} is now {value}");
        new
    } else {
        log::warn!("{name} has changed to {value}, which counts from the next start on");
        old
    }
}

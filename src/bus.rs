//! Publishing events: finds the plugins that consume an event and adds it to their queues. Each session
//! delivers the events of its own queue.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::host::Host;

/// For how many plugins a published event was queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishReport {
    /// Number of plugins for which it was queued.
    pub queued: usize,
    /// Number of plugins that consume it but whose queue was full, or for which no delivery thread was
    /// available.
    pub dropped: usize,
}

impl Host {
    /// Publishes an event: every active plugin whose manifest lists `name` receives it once, in the order
    /// of publishing, one at a time. `payload` must encode to a JSON object; its member `event` is set to
    /// the name ([Events](crate::protocol#events)).
    ///
    /// Plugins that are not connected do not receive it, also not later.
    ///
    /// ```
    /// use serde_json::json;
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// # let host = plugin_runner::Host::builder().build()?;
    /// let thread = json!({"id": "d5k2jq45o2dtjn9ct5rg"});
    /// let report = host.publish("EventThreadPublished", &thread)?;
    /// println!("queued for {} plugins, dropped for {}", report.queued, report.dropped);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Blocking
    /// Never waits for a plugin: events are queued, and worker threads deliver them.
    ///
    /// # Errors
    /// - [`Error::Encode`]: the payload does not encode to a JSON object.
    /// - [`Error::ShutDown`]: the host is draining or shut down.
    pub fn publish(&self, name: &str, payload: &impl Serialize) -> Result<PublishReport> {
        let shared = self.shared();
        if shared.context.drain.is_draining() {
            return Err(Error::ShutDown);
        }
        let params = encode(name, payload)
            .map_err(|error| Error::encode("the payload of the event", error))?;
        let mut report = PublishReport::default();
        for session in shared.all_sessions() {
            match session.shared().enqueue_event(name, &params) {
                None => {}
                Some(true) => report.queued += 1,
                Some(false) => report.dropped += 1,
            }
        }
        if report.dropped > 0 {
            log::warn!("event {name}: not queued for {} plugins", report.dropped);
        }
        Ok(report)
    }
}

fn encode(name: &str, payload: &impl Serialize) -> serde_json::Result<Arc<RawValue>> {
    let Value::Object(mut params) = serde_json::to_value(payload)? else {
        return Err(serde::ser::Error::custom("not a JSON object"));
    };
    params.insert("event".to_owned(), name.into());
    Ok(Arc::from(serde_json::value::to_raw_value(&params)?))
}

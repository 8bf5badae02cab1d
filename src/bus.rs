//! Publishing events: finds the plugins that consume an event and adds it to their queues. Each session
//! delivers the events of its own queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::id::InstallationId;
use crate::session::{Delivery, DeliverySender};

/// For how many plugins a published event was queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
        let mut report = PublishReport::default();
        self.fan_out(name, payload, None, |_, is_queued| {
            if is_queued {
                report.queued += 1;
            } else {
                report.dropped += 1;
            }
        })?;
        if report.dropped > 0 {
            log::warn!("event {name}: not queued for {} plugins", report.dropped);
        }
        Ok(report)
    }

    /// [`publish`](Self::publish)es an event, and waits until it is settled at every plugin that it was for:
    /// the plugin has answered or failed to, or has lost it. Returns what became of it at each plugin that
    /// was active and consumes it. For tests, and for callers who must know.
    ///
    /// A handler of a call from a plugin may wait too; that plugin receives the event while its call waits for
    /// the answer. But a plugin that does one thing at a time, or that called from its own event handler,
    /// cannot answer before its call is answered. The event is then [`Delivery::Unanswered`] there, after the
    /// whole timeout: pass a short one.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use plugin_runner::report::Delivery;
    /// use serde_json::json;
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// # let host = plugin_runner::Host::builder().build()?;
    /// let thread = json!({"id": "d5k2jq45o2dtjn9ct5rg"});
    /// let plugins = host.publish_and_wait("EventThreadPublished", &thread, Duration::from_secs(10))?;
    /// for (plugin, delivery) in &plugins {
    ///     println!("{plugin}: {delivery:?}");
    /// }
    /// assert!(plugins.values().all(|delivery| *delivery == Delivery::Delivered));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Blocking
    /// At most `timeout`. The last plugin's answer, the end of its call or of its connection, and the
    /// timeout wake it. After the timeout the event still waits for the plugins that are unanswered.
    ///
    /// # Errors
    /// As [`publish`](Self::publish). A plugin that fails is no error, but in what is returned.
    pub fn publish_and_wait(
        &self,
        name: &str,
        payload: &impl Serialize,
        timeout: Duration,
    ) -> Result<BTreeMap<InstallationId, Delivery>> {
        let deadline = Deadline::after(timeout);
        // At most one message from each plugin.
        let (sender, settled) = unbounded();
        let mut plugins = BTreeMap::new();
        self.fan_out(name, payload, Some(&sender), |plugin, _| {
            plugins.insert(plugin, Delivery::Unanswered);
        })?;
        // Each event has a clone of it until it is settled.
        drop(sender);
        while let Ok((plugin, delivery)) = settled.recv_deadline(deadline.instant()) {
            plugins.insert(plugin, delivery);
        }
        Ok(plugins)
    }

    /// Queues an event at the plugins that consume it, and calls `queued` for each with whether there was
    /// room.
    fn fan_out(
        &self,
        name: &str,
        payload: &impl Serialize,
        publisher: Option<&DeliverySender>,
        mut queued: impl FnMut(InstallationId, bool),
    ) -> Result<()> {
        let shared = self.shared();
        if shared.context.drain.is_draining() {
            return Err(Error::ShutDown);
        }
        let params = encode(name, payload)
            .map_err(|error| Error::encode("the payload of the event", error))?;
        count_by(&shared.context.totals.events_published, 1);
        for session in shared.all_sessions() {
            if let Some(has_room) = session.shared().enqueue_event(name, &params, publisher) {
                queued(session.id(), has_room);
            }
        }
        Ok(())
    }
}

fn encode(name: &str, payload: &impl Serialize) -> serde_json::Result<Arc<RawValue>> {
    let Value::Object(mut params) = serde_json::to_value(payload)? else {
        return Err(serde::ser::Error::custom("not a JSON object"));
    };
    params.insert("event".to_owned(), name.into());
    Ok(Arc::from(serde_json::value::to_raw_value(&params)?))
}

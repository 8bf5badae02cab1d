//! `Overrides`: settings of one plugin that replace the host's. No behaviour.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::process::ProcessLimits;
use crate::protocol::access::AccessShape;

/// Settings of one plugin that replace the host's. `Debug` shows only the names of variables.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Overrides {
    /// Variables that are added to the process's environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<(String, String)>,
    /// The shape in which the plugin receives its credentials, if not the one that its user agent
    /// suggests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_shape: Option<AccessShape>,
    /// The largest message that the plugin accepts, in bytes, if not what its user agent suggests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outgoing_message: Option<usize>,
    /// How the plugin's connection is checked for signs of life, if not by the host's settings. Invalid
    /// settings are logged, and the host's apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How many messages the plugin may send in a second, in place of the host's
    /// [`Limits::inbound_per_second`](crate::Limits::inbound_per_second); 0 means no limit. A change
    /// applies from the next connection on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_per_second: Option<u32>,
    /// The resources that the plugin's process may use; limits that are not set are the host's.
    #[serde(skip_serializing_if = "is_default")]
    pub process_limits: ProcessLimits,
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured, so that a new field cannot be forgotten here.
        let Self {
            environment,
            access_shape,
            outgoing_message,
            health,
            inbound_per_second,
            process_limits,
        } = self;
        let names: Vec<_> = environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Overrides")
            .field("environment", &names)
            .field("access_shape", access_shape)
            .field("outgoing_message", outgoing_message)
            .field("health", health)
            .field("inbound_per_second", inbound_per_second)
            .field("process_limits", process_limits)
            .finish()
    }
}

fn is_default(limits: &ProcessLimits) -> bool {
    *limits == ProcessLimits::default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn overrides_are_read_back_as_they_were_written() {
        assert_eq!(
            serde_json::to_string(&Overrides::default()).unwrap(),
            "{}",
            "what says nothing takes no room"
        );
        let overrides = Overrides {
            environment: vec![("A".to_owned(), "1 = 2\n".to_owned())],
            access_shape: Some(AccessShape::Python),
            outgoing_message: Some(4_096),
            health: Some(
                Health::default()
                    .with_interval(Duration::from_millis(1_500))
                    .with_rpc_ping(true),
            ),
            inbound_per_second: Some(0),
            process_limits: ProcessLimits::default()
                .with_memory(Some(u64::MAX))
                .with_cpu_time(Some(Duration::MAX))
                .with_nice(Some(-20)),
        };
        let text = serde_json::to_string(&overrides).unwrap();
        assert_eq!(serde_json::from_str::<Overrides>(&text).unwrap(), overrides);
    }

    #[test]
    fn what_is_not_known_yet_or_any_more_has_its_default() {
        let text = r#"{"outgoing_message": 7, "health": {"interval": {"secs": 5, "nanos": 0}}, "later": true}"#;
        let overrides: Overrides = serde_json::from_str(text).unwrap();
        assert_eq!(overrides.outgoing_message, Some(7));
        let health = overrides.health.unwrap();
        assert_eq!(
            health,
            Health::default().with_interval(Duration::from_secs(5))
        );
    }
}

//! `Overrides`: settings of one plugin that replace the host's. No behaviour.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::process::ProcessLimits;
use crate::protocol::access::AccessShape;

/// Settings of one plugin that replace the host's. [`Debug`](std::fmt::Debug) shows only the names of
/// variables; serialised it holds their values, for a store.
///
/// ```
/// use plugin_runner::{Health, Overrides};
///
/// let overrides = Overrides::default()
///     .environment([("REGION", "eu")])
///     .health(Health::default().misses_allowed(1));
/// # let _ = overrides;
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) environment: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_shape: Option<AccessShape>,
    #[serde(rename = "outgoing_message", skip_serializing_if = "Option::is_none")]
    pub(crate) outbound_message: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inbound_per_second: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) process_limits: ProcessLimits,
}

impl Overrides {
    /// Variables that are added to the process's environment, in place of earlier ones of the same name. They replace
    /// what the plugin would have from the host's environment, `NO_PROXY` as a whole: without `127.0.0.1` in it, a
    /// plugin with a proxy may not reach its host. What the host itself sets for the plugin's transport comes
    /// after them ([Environment](crate::protocol#environment)). Do not set `STORYDEN_RPC_URL` for a stdio plugin,
    /// nor `PLUGIN_RUNNER_TRANSPORT` for any other: the host does not, and a plugin may go by it.
    #[must_use]
    pub fn environment<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        for (name, value) in variables {
            let name = name.into();
            // Or settings that are changed again and again would grow without end.
            self.environment.retain(|(other, _)| *other != name);
            self.environment.push((name, value.into()));
        }
        self
    }

    /// The shape in which the plugin receives its credentials, if not the one that its user agent
    /// suggests.
    #[must_use]
    pub fn access_shape(mut self, shape: AccessShape) -> Self {
        self.access_shape = Some(shape);
        self
    }

    /// The largest message that the plugin accepts, in bytes, if not what its user agent suggests.
    #[must_use]
    pub fn outbound_message(mut self, bytes: usize) -> Self {
        self.outbound_message = Some(bytes);
        self
    }

    /// How the plugin's connection is checked for signs of life, if not by the host's settings.
    /// [`Manager::set_overrides`](crate::Manager::set_overrides) refuses invalid settings; in a record that was
    /// stored without it they are logged, and the host's apply.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }

    /// How many messages the plugin may send in a second, in place of the host's
    /// [`Limits::inbound_per_second`](crate::Limits::inbound_per_second); 0 means no limit. A change
    /// applies from the next connection on.
    #[must_use]
    pub fn inbound_per_second(mut self, messages: u32) -> Self {
        self.inbound_per_second = Some(messages);
        self
    }

    /// The resources that the plugin's process may use; limits that are not set are the host's.
    #[must_use]
    pub fn process_limits(mut self, limits: ProcessLimits) -> Self {
        self.process_limits = limits;
        self
    }
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured, so that a new field cannot be forgotten here.
        let Self {
            environment,
            access_shape,
            outbound_message,
            health,
            inbound_per_second,
            process_limits,
        } = self;
        let names: Vec<_> = environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Overrides")
            .field("environment", &names)
            .field("access_shape", access_shape)
            .field("outbound_message", outbound_message)
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
            outbound_message: Some(4_096),
            health: Some(
                Health::default()
                    .interval(Duration::from_millis(1_500))
                    .rpc_ping(true),
            ),
            inbound_per_second: Some(0),
            process_limits: ProcessLimits::default()
                .memory(u64::MAX)
                .cpu_time(Duration::MAX)
                .nice(-20),
        };
        let text = serde_json::to_string(&overrides).unwrap();
        assert_eq!(serde_json::from_str::<Overrides>(&text).unwrap(), overrides);
    }

    #[test]
    fn a_variable_that_is_set_again_has_its_new_value_alone() {
        let mut overrides = Overrides::default().environment([("A", "0"), ("B", "0"), ("A", "1")]);
        for value in ["2", "3"] {
            overrides = overrides.environment([("A", value)]);
        }
        let stored = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(overrides.environment, [stored("B", "0"), stored("A", "3")]);
    }

    #[test]
    fn what_is_not_known_yet_or_any_more_has_its_default() {
        let text = r#"{"outgoing_message": 7, "health": {"interval": {"secs": 5, "nanos": 0}}, "later": true}"#;
        let overrides: Overrides = serde_json::from_str(text).unwrap();
        assert_eq!(overrides.outbound_message, Some(7));
        let health = overrides.health.unwrap();
        assert_eq!(health, Health::default().interval(Duration::from_secs(5)));
    }
}

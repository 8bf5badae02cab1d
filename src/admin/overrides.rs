//! A plugin's own settings, in place of the host's: shown, and changed one by one.
//!
//! They are the [`Overrides`] of its record, by the names of their setters. A change has the rules of a JSON merge
//! patch ([RFC 7396](https://www.rfc-editor.org/rfc/rfc7396)): what is absent stays, and `null` clears.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::call::{Call, json};
use super::problem::Problem;
use crate::health::Health;
use crate::http::Response;
use crate::manager::{Installation, ShownOverrides};
use crate::process::ProcessLimits;
use crate::protocol::access::AccessShape;
use crate::store::Overrides;

/// A member of a change: absent, `null`, or a value.
type Change<T> = Option<Option<T>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Changes {
    #[serde(deserialize_with = "present")]
    environment: Change<BTreeMap<String, Option<String>>>,
    #[serde(deserialize_with = "present")]
    access_shape: Change<AccessShape>,
    #[serde(deserialize_with = "present")]
    outbound_message: Change<usize>,
    #[serde(deserialize_with = "object")]
    health: Change<HealthChanges>,
    #[serde(deserialize_with = "present")]
    inbound_per_second: Change<u32>,
    #[serde(deserialize_with = "object")]
    process_limits: Change<LimitChanges>,
}

/// Its members cannot be cleared one by one: what has been set for the plugin has all of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthChanges {
    interval: Option<Seconds>,
    timeout: Option<Seconds>,
    misses_allowed: Option<u32>,
    rpc_ping: Option<bool>,
    busy_limit: Option<Seconds>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitChanges {
    #[serde(deserialize_with = "present")]
    memory: Change<u64>,
    #[serde(deserialize_with = "present")]
    cpu_time: Change<Seconds>,
    #[serde(deserialize_with = "present")]
    processes: Change<u64>,
    #[serde(deserialize_with = "present")]
    open_files: Change<u64>,
    #[serde(deserialize_with = "present")]
    nice: Change<i32>,
}

/// A time in seconds. What is too long to be represented means for ever, as in what is shown.
#[derive(Clone, Copy)]
struct Seconds(Duration);

#[derive(Serialize)]
struct Shown<'a> {
    environment: Variables<'a>,
    #[serde(flatten)]
    others: ShownOverrides,
}

/// Variables: their names alone, or with their values.
#[derive(Serialize)]
#[serde(untagged)]
enum Variables<'a> {
    Names(Vec<&'a str>),
    Values(BTreeMap<&'a str, &'a str>),
}

pub(super) fn get(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let with_values = call.flag("values", false)?;
    shown(&call.manager().get(call.id()?)?, with_values)
}

pub(super) fn change(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let changes: Changes = call.json()?;
    let manager = call.manager();
    let health = &call.host_settings().health;
    let changed = manager.change_overrides(id, |own| changes.apply(own, health));
    shown(&changed?, false)
}

fn shown(installation: &Installation, with_values: bool) -> Result<Response, Problem> {
    let overrides = &installation.record().overrides;
    let variables = overrides.environment.iter();
    let environment = if with_values {
        Variables::Values(variables.map(|(name, value)| (&**name, &**value)).collect())
    } else {
        Variables::Names(variables.map(|(name, _)| &**name).collect())
    };
    let shown = Shown {
        environment,
        others: ShownOverrides::of(overrides),
    };
    json(200, &shown)
}

impl Changes {
    /// Applies the changes. What `health` leaves out is the host's if the plugin has no settings of its own yet.
    fn apply(self, own: &mut Overrides, host: &Health) {
        match self.environment {
            None => {}
            Some(None) => own.environment.clear(),
            Some(Some(variables)) => {
                own.environment
                    .retain(|(name, _)| !variables.contains_key(name));
                let set = variables.into_iter();
                own.environment
                    .extend(set.filter_map(|(name, value)| Some((name, value?))));
            }
        }
        replace(&mut own.access_shape, self.access_shape);
        replace(&mut own.outbound_message, self.outbound_message);
        replace(&mut own.inbound_per_second, self.inbound_per_second);
        if let Some(changes) = self.health {
            let before = own.health.take().unwrap_or_else(|| host.clone());
            own.health = changes.map(|changes| changes.applied(before));
        }
        match self.process_limits {
            None => {}
            Some(None) => own.process_limits = ProcessLimits::default(),
            Some(Some(changes)) => changes.apply(&mut own.process_limits),
        }
    }
}

impl HealthChanges {
    fn applied(self, before: Health) -> Health {
        let time = |changed: Option<Seconds>, before| changed.map_or(before, |Seconds(time)| time);
        Health {
            interval: time(self.interval, before.interval),
            timeout: time(self.timeout, before.timeout),
            misses_allowed: self.misses_allowed.unwrap_or(before.misses_allowed),
            rpc_ping: self.rpc_ping.unwrap_or(before.rpc_ping),
            busy_limit: time(self.busy_limit, before.busy_limit),
        }
    }
}

impl LimitChanges {
    fn apply(self, own: &mut ProcessLimits) {
        replace(&mut own.memory, self.memory);
        let cpu_time = self.cpu_time;
        replace(
            &mut own.cpu_time,
            cpu_time.map(|limit| limit.map(|Seconds(time)| time)),
        );
        replace(&mut own.processes, self.processes);
        replace(&mut own.open_files, self.open_files);
        replace(&mut own.nice, self.nice);
    }
}

fn replace<T>(setting: &mut Option<T>, change: Change<T>) {
    if let Some(changed) = change {
        *setting = changed;
    }
}

/// Tells a member that is `null` from one that is absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Change<T>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// The same for a struct, which would be read from an array too.
fn object<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<Change<T>, D::Error> {
    let object = Option::<Map<String, Value>>::deserialize(from)?;
    let read = object.map(|object| serde_json::from_value(Value::Object(object)));
    read.transpose().map(Some).map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(from)?;
        if seconds < 0.0 {
            return Err(D::Error::custom("a time is not negative"));
        }
        Ok(Self(
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is shown of these settings after this change.
    fn changed(own: &mut Overrides, change: &Value) -> Value {
        let changes: Changes = serde_json::from_value(change.clone()).unwrap();
        changes.apply(own, &Health::default().misses_allowed(7));
        serde_json::to_value(ShownOverrides::of(own)).unwrap()
    }

    #[test]
    fn what_is_shown_can_be_sent_back() {
        let mut own = Overrides::default();
        let all = json!({
            "access_shape": "python",
            "outbound_message": 4096,
            "health": {"interval": 1.5, "timeout": 2.0, "misses_allowed": 1, "rpc_ping": true, "busy_limit": 0.0},
            "inbound_per_second": 10,
            "process_limits": {
                "memory": u64::MAX, "cpu_time": u64::MAX, "processes": 5, "open_files": 64, "nice": -1,
            },
        });
        assert_eq!(changed(&mut own, &all), all);
        assert_eq!(own.process_limits.cpu_time, Some(Duration::MAX));
        assert_eq!(changed(&mut own, &json!({})), all, "nothing was changed");
        let one = json!({"health": null, "process_limits": {"nice": null}, "access_shape": null});
        let left = changed(&mut own, &one);
        assert_eq!(left["health"], Value::Null);
        assert_eq!(left["access_shape"], Value::Null);
        assert_eq!(left["process_limits"]["nice"], Value::Null);
        assert_eq!(left["process_limits"]["open_files"], 64);
        let left = changed(&mut own, &json!({"health": {"interval": 3}}));
        assert_eq!(left["health"]["misses_allowed"], 7, "the host's");
    }

    #[test]
    fn variables_are_set_and_cleared_by_their_names() {
        let mut own = Overrides::default().environment([("A", "0"), ("B", "0"), ("C", "0")]);
        changed(
            &mut own,
            &json!({"environment": {"A": null, "B": "1", "D": "1", "E": null}}),
        );
        let stored = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            own.environment,
            [stored("C", "0"), stored("B", "1"), stored("D", "1")]
        );
        changed(&mut own, &json!({"environment": null}));
        assert!(own.environment.is_empty());
    }
}

//! Every bound that can be set, with a test that reaches it.
//!
//! | bound | test |
//! | --- | --- |
//! | `Limits::inbound_message` | `a_message_over_the_read_limit_ends_the_connection_with_its_cause` |
//! | `Limits::outbound_bytes` | `a_caller_waits_for_room_only_until_its_deadline` |
//! | `Limits::pending_calls` | `over_the_cap_on_pending_calls_a_call_is_refused_until_there_is_room` |
//! | `Limits::inbound_workers` | `over_the_cap_a_call_is_refused_and_the_session_lives` |
//! | `Limits::inbound_queue` | `over_the_cap_a_call_is_refused_and_the_session_lives` |
//! | `Limits::inbound_bytes` | `calls_that_hold_too_much_memory_are_refused_until_they_are_answered` |
//! | `Limits::inbound_per_second` | `over_the_limit_calls_are_refused_and_answers_are_not` |
//! | `Limits::queued_events` | `over_the_length_of_the_queue_events_are_dropped_counted_and_reported` |
//! | `Limits::queued_event_bytes` | `over_the_bytes_of_the_queue_events_are_dropped_too` |
//! | `Limits::handshakes` | `over_the_cap_on_handshakes_a_connection_is_told_to_come_back` |
//! | `HttpSettings::connections` | `idle_connections_keep_nobody_out` |
//! | a request's head | `a_head_without_end_is_refused_and_not_read` |
//! | a request's body | `a_body_over_the_limit_is_refused_and_its_rest_not_waited_for` |
//! | `PackageLimits::archive_size` | `declared_sizes_over_the_limits_are_refused` |
//! | `PackageLimits::file_size` | `limits_count_what_is_written` |
//! | `PackageLimits::total_size` | `limits_count_what_is_written` |
//! | `PackageLimits::files` | `too_many_entries_files_or_folders_are_refused` |
//! | `LogSettings::max_file_size` | `files_hold_whole_lines_and_stay_within_their_size` |
//! | `LogSettings::keep` | `exactly_the_newest_are_kept` |
//! | `LogSettings::max_age` | `old_files_go_when_they_are_too_old_and_the_current_one_stays` |
//! | `LogSettings::max_line` | `a_line_of_the_greatest_length_is_whole_and_a_longer_one_is_cut` |
//! | `ProcessLimits::memory` | `a_plugin_that_runs_into_its_memory_limit_fails_by_itself` |
//! | `ProcessLimits::cpu_time` | `a_plugin_that_uses_up_its_processor_time_is_ended_for_that` |
//! | `ProcessLimits::processes` | `a_plugin_that_starts_too_many_processes_fails_by_itself` |
//! | `ProcessLimits::open_files` | `a_plugin_that_opens_too_many_files_fails_by_itself` |
//! | `ProcessLimits::core_size` | `a_limit_on_core_files_that_an_earlier_version_stored_still_holds` |
//! | `HostBuilder::thread_limit` | `over_the_thread_budget_a_plugin_is_not_loaded_and_the_error_says_why` |
//! | `Overrides::outbound_message` | `what_is_over_the_plugins_limit_is_not_sent_and_harms_nothing` |

use std::collections::BTreeSet;

use crate::rules::{rows, test_names};

/// Settings among the bounds over which nothing is refused or cut.
const NO_BOUNDS: [&str; 3] = [
    "Limits::handler_stack",
    "LogSettings::enabled",
    "ProcessLimits::nice",
];

/// The files whose settings are bounds.
const SETTINGS: [(&str, &str); 4] = [
    ("Limits", include_str!("../../src/config.rs")),
    ("PackageLimits", include_str!("../../src/package/limits.rs")),
    (
        "LogSettings",
        include_str!("../../src/plugin_log/settings.rs"),
    ),
    ("ProcessLimits", include_str!("../../src/process/limits.rs")),
];

#[test]
fn every_bound_has_a_test_that_reaches_it() {
    let tests = test_names();
    let mut known = BTreeSet::from(NO_BOUNDS);
    for (bound, test) in rows(include_str!("bounds.rs")) {
        assert!(tests.contains(test), "{bound}: no test is called {test}");
        known.insert(bound);
    }
    for (name, text) in SETTINGS {
        let (_, text) = text.split_once(&format!("pub struct {name} {{")).unwrap();
        let (fields, _) = text.split_once("\n    }").unwrap();
        // A line of the table: `name: type = default;`.
        let fields: Vec<&str> = fields
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .filter(|(name, _)| name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()))
            .map(|(name, _)| name)
            .collect();
        assert!(fields.len() > 1, "the fields of {name} are not found");
        for field in fields {
            let bound = format!("{name}::{field}");
            assert!(
                known.contains(&*bound),
                "{bound}: which test reaches it? Name it in the table"
            );
        }
    }
}

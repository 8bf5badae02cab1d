//! The rules that always hold, each with the tests that hold it, wherever they are; and the tests of
//! rules that belong to nothing else. Rule 10 (records survive a crash) has a test of its own, `crash`.
//!
//! | rule | test |
//! | --- | --- |
//! | 1, no wait without a deadline | `a_plugin_that_does_not_answer_times_out_in_the_phase_of_the_reply` |
//! | 1 | `a_plugin_that_reads_nothing_times_out_in_the_phase_of_the_write` |
//! | 1 | `a_callers_deadline_harms_nobody` |
//! | 1 | `callers_of_a_plugin_that_never_reads_have_their_own_deadlines` |
//! | 1 | `a_slow_handshake_is_cut_at_the_timeout` |
//! | 1 | `a_request_that_trickles_ends_with_the_handshake_timeout` |
//! | 1 | `a_silent_stream_is_given_back_after_the_handshake_timeout` |
//! | 1 | `an_admission_without_its_stream_makes_room_after_the_handshake_timeout` |
//! | 1 | `a_handshake_that_takes_too_long_ends_in_time` |
//! | 1 | `a_plugin_that_never_connects_is_killed_for_that` |
//! | 1 | `a_close_ends_in_time_with_a_peer_that_neither_reads_nor_stops` |
//! | 1 | `the_timeout_names_its_phase` |
//! | 1 | `a_shutdown_does_not_wait_for_pings` |
//! | 1 | `a_host_without_time_to_end_kills_and_says_so` |
//! | 1 | `a_time_without_end_is_one_that_never_comes` |
//! | 1 | `a_stop_of_what_cannot_be_killed_says_so_and_nothing_comes_beside_it` |
//! | 1 | `signals_at_every_thread_disturb_nothing` |
//! | 1 | `a_stop_that_leaves_descendants_says_how_many_and_goes_on` |
//! | 1 | `a_shutdown_returns_in_time_and_says_how_many_descendants_it_leaves` |
//! | 1 | `a_shutdown_while_the_service_is_away_ends_in_time_and_the_next_host_ends_what_is_left` |
//! | 1 | `a_run_that_never_ends_is_told_by_name_and_no_second_one_comes` |
//! | 1 | `an_examination_without_end_holds_nothing_up` |
//! | 1 | `a_head_that_trickles_is_refused_at_its_deadline` |
//! | 1 | `a_body_that_trickles_is_refused_at_its_deadline` |
//! | 1 | `a_client_that_does_not_read_its_answer_is_given_up` |
//! | 1 | `a_reaper_that_does_not_answer_is_named` |
//! | 2, stop works in every state | `stopping_what_is_not_running_is_fine` |
//! | 2 | `a_stop_while_connecting_ends_the_process` |
//! | 2 | `an_embedder_that_ignores_sigint_gets_its_plugins_stopped_by_sigterm` |
//! | 2 | `requests_that_meet_the_last_crash_follow_it` |
//! | 2 | `a_stop_while_active_ends_calls_in_flight` |
//! | 2 | `a_stop_while_unpacking_leaves_nothing_behind` |
//! | 2 | `reading_checking_and_hashing_can_be_cancelled_at_any_moment` |
//! | 2 | `a_named_pipe_is_refused_without_waiting_for_a_writer` |
//! | 2 | `traps_delay_nothing_and_lead_nowhere` |
//! | 2 | `a_host_whose_plugin_is_just_started_on_a_pipe_is_shut_down` |
//! | 2 | `what_is_no_file_is_no_listing` |
//! | 2 | `a_stop_while_backing_off_ends_the_waiting` |
//! | 2 | `a_stop_of_what_has_errored_clears_the_error` |
//! | 2 | `a_frozen_plugin_is_killed` |
//! | 2 | `a_plugin_that_ignores_every_request_is_killed` |
//! | 2 | `a_call_to_a_plugin_that_hangs_times_out_and_a_stop_gets_through` |
//! | 2 | `a_plugin_that_floods_its_output_still_answers_and_stops` |
//! | 2 | `shutdown_ends_plugins_in_every_state` |
//! | 2 | `every_fault_at_every_moment_ends_as_it_should` |
//! | 2 | `the_last_request_wins_while_a_run_is_prepared` |
//! | 2 | `the_last_request_wins_between_a_spawn_and_its_telling` |
//! | 2 | `the_last_request_wins_between_an_exit_and_its_reaping` |
//! | 2 | `the_last_request_wins_between_a_reaping_and_what_follows` |
//! | 2 | `the_last_request_wins_while_a_newcomer_is_let_in` |
//! | 2 | `the_last_request_wins_before_a_handshake_is_answered` |
//! | 2 | `a_stop_ends_a_restarts_wait_and_stays` |
//! | 2 | `a_stop_while_the_service_is_away_ends_in_time_and_is_done_later` |
//! | 2 | `a_flood_of_frames_that_mean_nothing_keeps_nothing_from_ending` |
//! | 2 | `a_start_that_hangs_is_cancelled_by_a_stop_and_by_a_shutdown` |
//! | 2 | `a_stop_ends_the_waiting_for_a_runtime_that_fails` |
//! | 2 | `a_stop_while_it_is_cleared_ends_that` |
//! | 2 | `a_stop_of_a_run_that_panics_at_every_turn_returns` |
//! | 3, one live process per supervised plugin | `one_process_lives_at_a_time_through_every_kind_of_end` |
//! | 3 | `a_killed_plugin_comes_back_and_its_callers_hear_at_once` |
//! | 3 | `starts_and_stops_from_all_sides_end_with_the_last` |
//! | 3 | `a_plugin_that_freezes_again_and_again_is_given_up` |
//! | 3 | `a_plugin_that_is_unloaded_and_loaded_at_once_starts_anew` |
//! | 3 | `many_loads_at_once_are_one_and_its_stop_is_real` |
//! | 3 | `random_operations_break_no_rule` |
//! | 3 | `a_stop_of_what_cannot_be_killed_says_so_and_nothing_comes_beside_it` |
//! | 3 | `a_restart_does_not_begin_beside_descendants_of_the_run_before` |
//! | 3 | `a_restart_waits_for_descendants_and_gives_them_up_by_name` |
//! | 3 | `a_restart_ends_one_process_and_starts_the_next` |
//! | 3 | `what_a_plugin_has_is_kept_through_restarts_and_updates` |
//! | 3 | `a_socket_that_is_cut_at_any_frame_costs_no_restart` |
//! | 3 | `malicious_answers_keep_a_plugin_down_for_no_longer_than_they_come` |
//! | 3 | `a_run_that_never_ends_is_told_by_name_and_no_second_one_comes` |
//! | 3 | `a_start_waits_until_all_is_cleared` |
//! | 4, nothing outlives its owner | `unloading_leaves_no_descriptor_no_thread_and_no_zombie` |
//! | 4 | `unloading_leaves_no_thread` |
//! | 4 | `a_thousand_connections_leave_nothing` |
//! | 4 | `a_grandchild_dies_with_a_stop_and_with_a_crash` |
//! | 4 | `one_thread_watches_all_and_goes_with_the_last` |
//! | 4 | `dropping_the_last_handle_ends_everything` |
//! | 4 | `nothing_outlives_a_host_that_is_killed` |
//! | 4 | `nothing_outlives_a_host_that_exits_without_a_word` |
//! | 4 | `a_plugin_that_the_keeper_was_not_told_of_yet_dies_too` |
//! | 4 | `a_keeper_that_dies_is_replaced_and_told_again` |
//! | 4 | `who_left_the_process_group_is_found_and_killed` |
//! | 4 | `a_complete_stop_leaves_none_of_a_thousand_descendants` |
//! | 4 | `a_chain_of_forks_is_ended_or_told_by_name` |
//! | 4 | `a_chain_of_forks_dies_with_a_host_that_is_killed` |
//! | 4 | `a_host_that_is_killed_in_the_middle_of_a_stop_leaves_nothing_frozen` |
//! | 4 | `a_stopped_keeper_is_replaced_and_nothing_outlives_the_host` |
//! | 4 | `no_helper_outlives_a_host_that_is_killed_while_it_is_started` |
//! | 4 | `cancelling_at_any_moment_leaves_nothing` |
//! | 4 | `what_a_crash_left_in_staging_is_removed_and_what_is_in_use_is_not` |
//! | 4 | `a_full_disk_is_told_counted_and_got_over` |
//! | 4 | `what_is_in_the_way_of_a_folder_is_named_and_may_go` |
//! | 4 | `it_stops_though_a_grandchild_holds_the_pipes` |
//! | 4 | `a_stopped_listener_gives_up_handshakes_in_progress` |
//! | 4 | `random_operations_break_no_rule` |
//! | 4 | `a_thousand_crashes_and_restarts_leave_nothing` |
//! | 4 | `every_fault_at_every_moment_ends_as_it_should` |
//! | 4 | `an_unload_at_any_point_leaves_nothing` |
//! | 4 | `a_shutdown_at_any_point_leaves_nothing` |
//! | 4 | `a_shutdown_names_what_cannot_be_killed` |
//! | 4 | `descendants_live_until_the_end_of_their_leader_is_acted_upon_and_no_longer` |
//! | 4 | `a_run_that_is_started_all_the_same_is_killed_on_arrival` |
//! | 4 | `a_stop_cuts_off_who_neither_reads_nor_sends` |
//! | 5, handlers never run on a reading thread | `a_slow_handler_delays_neither_replies_nor_other_handlers` |
//! | 5 | `a_slow_handler_does_not_keep_websocket_pings_from_being_answered` |
//! | 5 | `a_handler_may_call_the_plugin_back` |
//! | 5 | `all_workers_may_call_the_plugin_back_at_once` |
//! | 5 | `a_handler_may_call_the_plugin_that_calls_it` |
//! | 5 | `a_slow_handler_delays_no_reply` |
//! | 5 | `a_handler_may_call_the_host` |
//! | 6, a sick plugin hurts only itself | `a_handle_that_panics_while_it_is_watched_costs_its_run_alone` |
//! | 6 | `a_plugin_that_floods_or_never_reads_hurts_only_itself` |
//! | 6 | `one_plugins_slow_handlers_do_not_delay_another_plugin` |
//! | 6 | `a_frozen_plugin_is_found_killed_and_started_again` |
//! | 6 | `a_silent_external_plugin_sees_close_1012_and_may_come_back_at_once` |
//! | 6 | `a_plugin_that_is_busy_with_a_call_is_left_alone` |
//! | 6 | `a_call_excuses_silence_for_the_busy_limit_and_no_longer` |
//! | 6 | `pings_to_a_peer_that_does_not_read_wait_for_nothing_and_are_one` |
//! | 6 | `one_plugin_that_does_not_answer_does_not_keep_events_from_another` |
//! | 6 | `a_plugin_that_never_reads_is_given_up_after_the_write_stall_timeout` |
//! | 6 | `a_flood_of_pings_from_a_peer_that_does_not_read_stays_bounded` |
//! | 6 | `a_flood_of_calls_is_refused_and_delays_neither_its_own_answers_nor_a_neighbour` |
//! | 6 | `over_the_limit_of_messages_a_second_a_flood_never_reaches_a_handler` |
//! | 6 | `a_flood_that_gets_no_answers_is_counted_to_the_last` |
//! | 6 | `silent_connections_delay_nobody` |
//! | 6 | `thousands_of_connections_at_once_do_not_keep_a_plugin_out` |
//! | 6 | `the_oldest_without_a_whole_request_makes_room` |
//! | 6 | `a_listener_outlives_a_lack_of_descriptors` |
//! | 6 | `external_plugins_that_dawdle_do_not_keep_a_shutdown_from_the_others` |
//! | 6 | `a_plugin_that_never_reads_does_not_hold_up_the_shutdown` |
//! | 6 | `random_operations_break_no_rule` |
//! | 6 | `an_offence_of_one_plugin_is_not_noticed_by_another` |
//! | 6 | `plugins_that_replace_files_by_pipes_hold_up_nobody` |
//! | 6 | `a_named_pipe_in_the_place_of_the_program_holds_nobody_up` |
//! | 6 | `a_vast_environment_of_another_user_costs_a_stop_nothing` |
//! | 6 | `all_limits_are_put_upon_the_process_and_told_with_its_end` |
//! | 6 | `a_plugin_that_uses_up_its_processor_time_is_ended_for_that` |
//! | 6 | `a_stuck_reader_is_given_up_and_holds_up_nobody` |
//! | 6 | `two_hundred_connections_of_which_half_are_stuck` |
//! | 7, fail closed, and say which | `an_error_from_the_plugin_is_told_with_its_code` |
//! | 7 | `an_answer_that_cannot_be_read_is_an_error_of_its_own` |
//! | 7 | `params_that_cannot_be_sent_are_refused_and_nothing_is_written` |
//! | 7 | `a_plugin_that_is_not_active_cannot_be_called` |
//! | 7 | `calls_in_flight_fail_when_the_plugin_closes` |
//! | 7 | `calls_in_flight_fail_when_the_connection_is_lost` |
//! | 7 | `calls_in_flight_fail_when_the_plugin_is_stopped` |
//! | 7 | `calls_in_flight_fail_when_the_host_shuts_down` |
//! | 7 | `calls_in_flight_fail_when_the_plugin_sends_too_much` |
//! | 7 | `an_answer_that_is_none_never_reaches_a_caller` |
//! | 7 | `a_plugin_cannot_answer_for_another` |
//! | 7 | `every_offence_has_its_close_code_its_cause_and_its_count` |
//! | 7 | `nothing_is_sent_again_on_the_next_connection` |
//! | 7 | `an_embedder_that_ignores_sigchld_gets_its_plugins_restarted_and_stopped` |
//! | 7 | `an_exit_at_any_point_is_told_with_its_status` |
//! | 7 | `a_signal_from_elsewhere_is_told_with_its_number_and_name` |
//! | 7 | `what_keeps_a_process_from_being_spawned_has_a_word` |
//! | 7 | `who_was_killed_by_the_host_is_told_why_with_all_that_is_known` |
//! | 7 | `a_plugin_that_the_kernel_kills_for_want_of_memory_is_told_as_that` |
//! | 7 | `a_plugin_that_runs_into_its_memory_limit_fails_by_itself` |
//! | 7 | `a_limit_that_cannot_be_had_is_named_and_the_process_killed` |
//! | 7 | `never_silent_about_what_is_missing` |
//! | 7 | `who_follows_more_slowly_than_is_kept_is_told_how_much_is_missing` |
//! | 8, least given | `the_environment_is_the_allowlist_and_what_is_added` |
//! | 8 | `secrets_of_the_host_are_not_passed_on` |
//! | 8 | `no_descriptor_of_the_host_is_inherited` |
//! | 8 | `every_hostile_archive_is_refused_for_what_it_is_and_leaves_nothing` |
//! | 8 | `hostile_archives_are_errored_at_once_and_leave_nothing` |
//! | 8 | `modes_lose_what_is_dangerous_and_the_command_gains_what_it_needs` |
//! | 8 | `an_unpacked_file_is_nobody_elses_to_write` |
//! | 8 | `a_release_from_before_loses_what_others_may_write_and_nothing_else_does` |
//! | 8 | `links_in_the_place_of_our_directories_are_never_followed` |
//! | 8 | `a_plugin_that_runs_leads_unpacking_nowhere_else` |
//! | 8 | `a_supervised_token_works_once` |
//! | 8 | `a_token_is_spent_from_the_moment_in_which_its_bearer_is_let_in` |
//! | 8 | `a_connection_that_was_let_in_by_an_earlier_run_never_becomes_the_next_ones` |
//! | 8 | `a_token_dies_with_the_process_that_did_not_use_it` |
//! | 8 | `replayed_tokens_are_refused_and_counted` |
//! | 8 | `every_attack_has_its_answer_and_its_count` |
//! | 8 | `two_connections_with_one_token_at_once_make_one` |
//! | 8 | `a_refused_handshake_does_not_spend_the_token` |
//! | 8 | `a_token_is_spent_with_the_verdict` |
//! | 8 | `equality_sees_every_character` |
//! | 8 | `tokens_are_never_logged` |
//! | 8 | `nothing_secret_is_shown` |
//! | 8 | `neither_display_nor_debug_shows_the_token` |
//! | 8 | `made_up_urls_are_read_as_they_were_built_and_never_shown` |
//! | 8 | `made_up_tokens_do_not_open` |
//! | 8 | `made_up_archives_unpack_inside_their_folder_or_are_refused` |
//! | 8 | `an_installation_is_shown_with_what_an_admin_needs` |
//! | 8 | `an_external_plugin_is_shown_without_its_token` |
//! | 9, bounded everything | `a_message_over_the_read_limit_ends_the_connection_with_its_cause` |
//! | 9 | `the_read_limit_is_exact` |
//! | 9 | `odd_frames_are_counted_and_harm_nothing` |
//! | 9 | `what_is_deep_down_is_not_collected_beyond_a_bound` |
//! | 9 | `a_message_that_is_kept_keeps_nothing_else` |
//! | 9 | `what_is_over_the_plugins_limit_is_not_sent_and_harms_nothing` |
//! | 9 | `over_the_cap_on_pending_calls_a_call_is_refused_until_there_is_room` |
//! | 9 | `over_the_cap_a_call_is_refused_and_the_session_lives` |
//! | 9 | `over_the_limit_calls_are_refused_and_answers_are_not` |
//! | 9 | `over_the_length_of_the_queue_events_are_dropped_counted_and_reported` |
//! | 9 | `over_the_bytes_of_the_queue_events_are_dropped_too` |
//! | 9 | `over_the_cap_on_handshakes_a_connection_is_told_to_come_back` |
//! | 9 | `those_that_leave_are_bounded_too` |
//! | 9 | `over_the_thread_budget_a_plugin_is_not_loaded_and_the_error_says_why` |
//! | 9 | `a_subscriber_that_is_full_hears_how_many_it_missed` |
//! | 9 | `posts_are_bounded_in_number_and_in_bytes` |
//! | 9 | `pings_of_the_hosts_own_are_no_calls` |
//! | 9 | `who_asks_and_never_reads_is_closed_for_that` |
//! | 9 | `a_head_that_is_too_large_is_431_and_one_that_fits_is_not` |
//! | 9 | `the_limit_holds_for_what_was_read_before_too` |
//! | 9 | `made_up_output_is_sorted_alike_in_whatever_pieces_it_comes` |
//! | 9 | `made_up_frames_are_read_alike_in_whatever_pieces_they_come` |
//! | 9 | `other_request_ids_are_refused` |
//! | 9 | `files_hold_whole_lines_and_stay_within_their_size` |
//! | 9 | `exactly_the_newest_are_kept` |
//! | 9 | `the_history_keeps_as_many_ends_as_its_limit_says` |
//! | 9 | `bytes_that_are_no_text_and_lines_without_end_are_kept_and_cut_with_a_mark` |
//! | 9 | `declared_sizes_over_the_limits_are_refused` |
//! | 9 | `limits_count_what_is_written` |
//! | 9 | `every_bound_has_a_test_that_reaches_it` |
//! | 9 | `too_many_entries_files_or_folders_are_refused` |
//! | 11, no panic crosses the API | `a_panicking_handler_is_answered_with_32603_and_the_session_lives` |
//! | 11 | `a_transport_that_panics_costs_its_connection_and_no_more` |
//! | 11 | `a_transport_that_panics_when_it_sends_fails_the_call_and_ends_the_connection` |
//! | 11 | `a_transport_that_panics_when_it_is_closed_keeps_nothing_from_ending` |
//! | 11 | `a_plugin_whose_transport_panics_ends_as_if_it_had_lost_its_connection` |
//! | 11 | `a_panicking_tap_is_not_called_again_and_nothing_else_suffers` |
//! | 11 | `a_transport_whose_ping_panics_loses_its_health_checks_and_no_more` |
//! | 11 | `a_panicking_job_costs_nothing_but_itself` |
//! | 11 | `a_panic_ends_only_its_thread` |
//! | 11 | `unknown_methods_and_panics_are_answered_and_the_plugin_lives` |
//! | 11 | `damage_anywhere_never_panics` |
//! | 11 | `deep_nesting_needs_no_stack` |
//! | 11 | `made_up_messages_are_told_apart_as_a_whole_parse_tells_them` |
//! | 11 | `made_up_manifests_keep_the_rules_or_are_refused` |
//! | 11 | `made_up_configurations_are_checked_by_their_schema` |
//! | 11 | `made_up_handshakes_are_judged_alike_in_whatever_pieces_they_come` |

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use plugin_runner::duplex::{
    Duplex, DuplexReader, DuplexSettings, DuplexWriter, memory, websocket::WebSocket,
};
use plugin_runner::error::Disconnect;
use plugin_runner::protocol::Transport;
use plugin_runner::store::{Overrides, Record};
use plugin_runner::{ReportedState, Result};
use serde_json::{Value, json};

use crate::support::LONG;
use crate::support::alone::{Holdings, expect_no_children, run_alone};
use crate::support::host::{TestHost, active};
use crate::support::http::Request;
use crate::support::plugin::{TRANSPORTS, call, fixture, manifest};

#[test]
fn every_rule_names_tests_that_exist() {
    let tests = test_names();
    let mut rules = BTreeSet::new();
    for (rule, test) in rows(include_str!("rules.rs")) {
        // The first row of each rule says it in words too.
        let number: u32 = rule.split(',').next().unwrap().parse().unwrap();
        assert!(
            tests.contains(test),
            "rule {rule}: no test is called {test}"
        );
        rules.insert(number);
    }
    assert!(
        rules.into_iter().eq((1..=9).chain([11])),
        "a rule has no tests"
    );
}

/// The rows of the table at the top of a file, whose second column names a test.
pub(crate) fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.filter_map(|row| row.strip_suffix("` |")?.split_once(" | `"));
    cells.map(|(name, test)| (name.trim_matches('`'), test))
}

/// The names of all test functions there are.
pub(crate) fn test_names() -> HashSet<String> {
    let mut tests = HashSet::new();
    for folder in ["src", "tests"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        collect_tests(&folder, &mut tests);
    }
    tests
}

/// The names of all test functions below a folder.
fn collect_tests(folder: &Path, tests: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_tests(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut is_test = false;
            for line in fs::read_to_string(&path).unwrap().lines() {
                let line = line.trim();
                // A case of every runtime is in the list of them, or it would be dead code.
                let case = line.strip_prefix("pub(super) fn ");
                let case = case
                    .and_then(|rest| rest.split_once('('))
                    .filter(|(_, parameters)| ["", "place: &Place) {"].contains(parameters))
                    .map(|(name, _)| name);
                let name = line
                    .strip_prefix("fn ")
                    .and_then(|rest| rest.split('(').next());
                match case.or(name) {
                    Some(name) if is_test || case.is_some() => drop(tests.insert(name.to_owned())),
                    _ => {}
                }
                // Other attributes may stand between it and the function.
                is_test = line == "#[test]" || is_test && line.starts_with("#[");
            }
        }
    }
}

#[test]
fn unloading_leaves_no_descriptor_no_thread_and_no_zombie() {
    run_alone("rules::alone::nothing_is_left_of_an_unloaded_plugin");
}

#[test]
fn tokens_are_never_logged() {
    run_alone("rules::alone::no_log_line_has_a_token");
}

/// Tests that look at the whole process, so that they need one of their own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "counts what the process has; run by another test, in a process of its own"]
    fn nothing_is_left_of_an_unloaded_plugin() {
        let host = TestHost::new("nothing-left");
        let lives = || {
            for transport in TRANSPORTS {
                let mut record = fixture(&host, transport, &["behave"]);
                // The test's own end of a lifeline would count.
                record.overrides = Overrides::default();
                let session = host.run(record);
                call(&session, "echo", &json!({})).unwrap();
                host.unload(session.id()).unwrap();
            }
        };
        let (idle, threads) = (host.threads_with_keeper(), Holdings::now().threads + 1);
        // Once before counting, for what is made once and kept.
        lives();
        host.expect_threads(idle);
        let before = Holdings::at_rest(threads);
        for _ in 0..3 {
            lives();
            before.expect();
        }
        // With the host goes its keeper.
        drop(host);
        expect_no_children();
    }

    #[test]
    #[ignore = "takes the process's logger; run by another test, in a process of its own"]
    fn no_log_line_has_a_token() {
        static LINES: Lines = Lines(Mutex::new(Vec::new()));
        log::set_logger(&LINES).unwrap();
        log::set_max_level(log::LevelFilter::Trace);

        let (host, session) =
            TestHost::running("tokens", Transport::WebSocket, &["echo-env", "behave"]);
        let sealed = host.output.wait_for("with the environment", |line| {
            let said: Value = serde_json::from_str(&line.text).ok()?;
            let url = said["environment"]["STORYDEN_RPC_URL"].as_str()?;
            Some(url.split_once("token=")?.1.to_owned())
        });
        let record = Record::external(manifest("outside")).unwrap();
        let token = record.external_token().unwrap();
        let token = token.expose().to_owned();
        let outside = host.install(record);
        let target = format!("/rpc?token={token}");
        let accepted = Request::upgrade(&target).send(host.address());
        assert_eq!(accepted.status, 101);
        active(&outside);
        // Refused: taken, spent, and no handshake at all.
        assert_eq!(Request::upgrade(&target).send(host.address()).status, 503);
        let spent = format!("/rpc?plugin_id={}&token={sealed}", session.id());
        assert_eq!(Request::upgrade(&spent).send(host.address()).status, 401);
        let wrong = Request::upgrade(&target).without("Upgrade");
        assert_eq!(wrong.send(host.address()).status, 426);
        // Our own client, at a host that has no such path.
        let elsewhere = format!("ws://{}/elsewhere?token={token}", host.address());
        let refused = WebSocket::connect(&elsewhere, LONG).unwrap_err();
        log::info!("the test itself: {refused}");
        host.unload(session.id()).unwrap();
        host.unload(outside.id()).unwrap();

        let lines = LINES.0.lock();
        let line = |text: &str| lines.iter().find(|line| line.contains(text));
        assert!(line("connected").is_some(), "nothing was logged");
        for secret in [&sealed, &token, &token["sdprt_".len()..].to_owned()] {
            assert_eq!(line(secret), None);
        }
    }

    /// A logger that keeps every line.
    struct Lines(Mutex<Vec<String>>);

    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let line = format!("{} {}", record.target(), record.args());
            self.0.lock().push(line);
        }

        fn flush(&self) {}
    }
}

#[test]
fn a_transport_that_panics_costs_its_connection_and_no_more() {
    let host = TestHost::new("panicking-transport");
    let session = host.install(Record::external(manifest("outside")).unwrap());
    let (ours, _theirs) = memory::pair(1);
    session.connect(Panicking(ours), "tests").unwrap();
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
    let message = session.error_message().unwrap();
    assert!(message.contains("on purpose"), "{message}");

    let (ours, theirs) = memory::pair(1);
    session.connect(ours, "tests").unwrap();
    active(&session);
    drop(theirs);
}

/// A transport whose reader panics.
struct Panicking<D>(D);

impl<D: Duplex> Duplex for Panicking<D> {
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
        let (_, writer) = Box::new(self.0).split(settings)?;
        Ok((Box::new(PanickingReader), writer))
    }
}

struct PanickingReader;

impl DuplexReader for PanickingReader {
    fn receive(&mut self) -> std::result::Result<Option<Arc<str>>, Disconnect> {
        panic!("on purpose");
    }
}

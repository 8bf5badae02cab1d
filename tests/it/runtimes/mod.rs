//! Supervised plugins behave alike wherever they run: each case here is run in every runtime, from one list.
//!
//! `runtimes::local::NAME` is a case with child processes of the host, `runtimes::sprites::NAME` the same in sprites
//! of the fake service. What differs is behind [`Place`], and nothing else may: a case that needs to know where it
//! runs belongs elsewhere. What only one runtime has is tested where that is: limits of processes, descendants that
//! have left their group and keepers of `local` in files of their own, a service that fails in `outages`.

pub(crate) mod place;

// Why a run ended, and the history of runs.
mod causes;
// Plugins that fail as soon as they are started, again and again.
mod crash_loop;
// What a plugin finds where it is started: its files and its environment.
mod files;
// Plugins that show no sign of life.
mod health;
// Installing, updating, configuring and removing.
mod installations;
// The whole life of a plugin.
mod life_cycle;
// Every fault at every moment, as a table.
mod matrix;
// Never two processes of one plugin.
mod one_process;
// A service that is away, limits requests, lies or goes to sleep.
#[cfg(feature = "sprites")]
mod outages;
// What plugins print.
mod output;
// Races at points where the host is held on purpose.
pub(crate) mod races;
// Plugins that end by themselves, or are ended for their own good.
pub(crate) mod restart;
// Ending a host.
mod shutdown;
// Stopping, in every state.
pub(crate) mod stop;

use place::Place;

/// Makes a test of each case in each runtime.
macro_rules! cases {
    ($($file:ident: $($case:ident),+;)+) => {
        mod local {
            use super::Place;
            $($(
                #[test]
                fn $case() {
                    let place = Place::local(stringify!($case));
                    super::$file::$case(&place);
                    place.finish();
                }
            )+)+
        }

        #[cfg(feature = "sprites")]
        mod sprites {
            use super::Place;
            $($(
                #[test]
                fn $case() {
                    let place = Place::sprites(stringify!($case));
                    super::$file::$case(&place);
                    place.finish();
                }
            )+)+
        }
    };
}

cases! {
    life_cycle:
        a_plugin_lives_from_its_archive_to_its_stop,
        a_record_that_is_wanted_active_starts_at_load,
        a_plugin_hears_its_configuration_and_events_and_asks_for_what_is_stored,
        python_answers_and_asks_over_stdio;
    installations:
        what_a_plugin_has_is_kept_through_restarts_and_updates,
        a_version_that_fails_gives_way_to_the_one_before,
        a_plugin_goes_back_to_its_files_and_forward_again,
        a_removed_plugin_goes_with_all_it_had;
    restart:
        a_killed_plugin_comes_back_and_its_callers_hear_at_once,
        an_exit_at_any_point_is_told_with_its_status,
        exits_with_0_after_good_runs_do_not_count,
        exits_with_0_after_short_runs_count,
        a_plugin_that_closes_its_connection_and_exits_is_started_again_soon,
        a_plugin_that_lives_on_without_its_connection_is_killed_after_the_grace,
        a_plugin_that_hangs_before_it_is_active_is_killed_for_that,
        a_stdio_plugin_is_active_when_it_has_answered_a_ping,
        a_call_to_a_plugin_that_hangs_times_out_and_a_stop_gets_through,
        a_second_connection_of_the_same_process_is_refused,
        a_grandchild_dies_with_a_stop_and_with_a_crash,
        a_plugin_that_ignores_signals_is_killed_and_the_report_says_so,
        python_that_is_killed_comes_back;
    crash_loop:
        a_plugin_that_exits_42_is_errored_after_the_configured_attempts,
        an_exit_with_0_before_it_was_ever_active_is_a_crash,
        a_wait_that_runs_out_says_what_went_wrong_last,
        a_plugin_that_never_connects_is_killed_for_that,
        a_process_that_outlives_its_connection_is_killed_after_the_grace,
        a_missing_folder_is_errored_at_once,
        an_archive_that_does_not_unpack_is_errored_at_once;
    stop:
        stopping_what_is_not_running_is_fine,
        a_stop_while_connecting_ends_the_process,
        a_stop_while_active_ends_calls_in_flight,
        a_stop_while_unpacking_leaves_nothing_behind,
        a_stop_while_backing_off_ends_the_waiting,
        a_start_while_backing_off_does_not_wait,
        a_stop_of_what_has_errored_clears_the_error,
        a_plugin_that_ignores_every_request_is_killed,
        a_frozen_plugin_is_killed,
        a_short_stop_timeout_shortens_the_grace,
        a_start_right_after_a_stop_wins,
        starts_and_stops_from_all_sides_end_with_the_last,
        everybody_who_asks_for_a_stop_gets_its_report,
        a_stdio_plugin_that_reads_to_the_end_of_its_input_stops_by_itself,
        a_stdio_plugin_that_does_not_end_is_told_louder_and_louder,
        a_second_stop_in_more_of_a_hurry_signals_before_it_kills,
        a_stop_does_not_wait_for_a_stdio_plugin_that_reads_nothing,
        unloading_stops_and_forgets,
        a_plugin_that_is_unloaded_and_loaded_at_once_runs_again;
    shutdown:
        shutdown_says_which_plugins_had_to_be_killed,
        shutdown_ends_plugins_in_every_state,
        dropping_the_last_handle_ends_everything,
        two_hosts_live_side_by_side;
    one_process:
        one_process_lives_at_a_time_through_every_kind_of_end,
        a_plugin_that_is_unloaded_and_loaded_at_once_starts_anew,
        a_load_meets_an_unload_and_one_of_them_wins,
        many_loads_at_once_are_one_and_its_stop_is_real,
        a_start_is_never_answered_with_the_error_before_it;
    races:
        the_last_request_wins_while_a_run_is_prepared,
        the_last_request_wins_between_an_exit_and_its_reaping,
        the_last_request_wins_while_a_newcomer_is_let_in,
        the_last_request_wins_before_a_handshake_is_answered,
        an_unload_at_any_point_leaves_nothing,
        a_shutdown_at_any_point_leaves_nothing,
        a_token_is_spent_from_the_moment_in_which_its_bearer_is_let_in,
        a_connection_that_was_let_in_by_an_earlier_run_never_becomes_the_next_ones;
    causes:
        a_signal_from_elsewhere_is_told_with_its_number_and_name,
        a_plugin_that_reads_nothing_is_told_as_unresponsive,
        who_was_killed_by_the_host_is_told_why_with_all_that_is_known,
        the_history_tells_every_end_and_what_came_of_it,
        the_history_keeps_as_many_ends_as_its_limit_says,
        a_run_that_is_stopped_before_it_has_a_process_is_in_the_history,
        a_stop_starts_the_counting_over_and_a_start_while_backing_off_does_not,
        a_good_run_that_crashes_is_in_the_history_with_its_length;
    output:
        both_streams_are_in_the_file_at_the_follower_and_at_the_tap,
        a_follower_hears_every_run_in_order,
        no_line_of_a_flood_is_lost,
        bytes_that_are_no_text_and_lines_without_end_are_kept_and_cut_with_a_mark,
        a_plugin_that_floods_its_output_still_answers_and_stops,
        the_last_words_of_a_plugin_are_in_its_error_details,
        what_is_no_json_rpc_on_stdout_is_logged_and_harms_nothing;
    files:
        a_stdio_plugin_is_told_so_and_gets_no_url,
        an_archive_runs_in_its_release_folder_and_keeps_its_data_apart;
    health:
        a_frozen_plugin_is_found_killed_and_started_again,
        a_plugin_that_freezes_again_and_again_is_given_up;
    matrix:
        every_fault_at_every_moment_ends_as_it_should;
}

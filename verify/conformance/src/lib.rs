//! What every adapter of Link must do: one suite, over real loopback sockets, for any [`Runtime`].
//!
//! An adapter's test is one line, and so is that of a program with a runtime of its own:
//!
//! ```ignore
//! link_conformance::conformance!(Tokio, block_on);
//! ```
//!
//! It expands to a `#[test]` for each test here, in a module for each behaviour. `block_on` is a function that
//! runs a future to its end, with that runtime around it; tasks that it leaves behind are to be dropped.
//!
//! Each file is one behaviour, and each test one sentence about it. The other side is a peer of ours, or a
//! script: a thread with a blocking socket, which can say what no honest peer would. Nothing sleeps and hopes:
//! what has to happen is waited for, with much patience, and what must not is watched for a moment.
//!
//! [`Runtime`]: link_driver::Runtime

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the name of a test says what it is about")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "this crate is tests: to panic is how they fail"
)]

pub mod admission;
pub mod binding;
pub mod closing;
pub mod costs;
pub mod disconnecting;
pub mod dropped_clients;
pub mod dropped_servers;
pub mod embedding;
pub mod heartbeats;
pub mod hostile;
pub mod idle;
pub mod messages;
pub mod misbehaviour;
pub mod proxies;
pub mod queues;
pub mod reconnecting;
pub mod refusals;
pub mod sessions;
pub mod stats;
pub mod story;
pub mod strangers;
mod support;
pub mod tls;

pub use support::raw;

/// Expands to one `#[test]` for each test of the suite.
///
/// The first argument is the [`Runtime`](link_driver::Runtime), the second a function that runs a future on it.
#[macro_export]
macro_rules! conformance {
    ($runtime:ty, $block_on:path) => {
        $crate::conformance! {
            @all ($runtime, $block_on)
            story:
                ten_lines_make_an_echo_server
                a_server_tells_its_story_in_order
                a_client_tells_its_story_in_order
                handles_say_who_is_where
                both_are_streams
                a_server_knows_who_is_there
                a_client_that_comes_back_is_another_peer
                a_peer_can_be_closed
                a_thousand_clients_at_once;
            binding:
                the_defaults_are_every_address_and_port_3793
                a_host_and_a_port_win_over_a_url_whatever_comes_first
                a_server_listens_where_it_is_told_to
                port_zero_is_any_free_one
                a_client_dials_localhost_by_name
                ipv6_works_where_there_is_any
                a_port_in_use_is_named
                an_address_of_another_machine_is_an_error_that_names_it
                without_a_wallet_each_has_a_fresh_one
                a_private_key_wins_over_a_wallet
                a_bad_private_key_is_an_error_and_no_fresh_wallet
                a_host_that_is_none_is_an_error_at_once;
            admission:
                a_whitelist_lets_in_whom_it_names_and_refuses_others_with_403
                an_empty_whitelist_lets_nobody_in
                a_whitelist_can_be_changed_while_the_server_runs
                the_programs_check_may_allow_deny_and_attach_data
                a_check_may_be_a_bool
                a_check_that_panics_refuses_its_client_and_harms_nobody_else
                a_check_past_the_deadline_is_dropped_and_answered_408
                a_check_is_dropped_when_its_client_goes_away
                the_check_is_asked_once_and_only_about_who_proved_a_listed_address
                a_used_proof_is_refused_and_evicts_nobody
                a_proof_beside_the_clock_is_refused_with_401
                a_newer_connection_replaces_the_older_and_the_program_hears_it_in_order
                a_replaced_connection_is_told_409_in_quotes_and_not_heard_any_more
                a_dozen_logins_with_one_wallet_leave_one_and_the_story_is_in_order
                who_comes_and_goes_while_the_program_is_behind_is_held_up_by_nobody_and_told_in_order
                a_program_that_is_behind_hears_of_an_end_before_it_hears_of_who_came_back
                without_replacement_the_newer_connection_is_refused_with_409
                who_finds_the_memory_of_proofs_full_is_told_to_come_later_and_gets_in_then
                too_many_strangers_are_turned_away_until_there_is_room;
            strangers:
                a_tcp_connection_that_never_upgrades_is_answered_408_and_ended
                a_dripping_upgrade_does_not_outlive_the_deadline
                the_deadline_counts_from_the_tcp_connection
                a_websocket_that_says_nothing_is_told_408_in_a_text_frame
                a_zero_auth_timeout_switches_the_deadline_off
                the_check_interval_rounds_the_deadline_up
                plain_http_is_answered_426_and_rubbish_400
                endless_headers_are_refused
                leaving_before_the_upgrade_is_no_event_for_anybody_else
                before_authentication_a_message_may_have_4_kib
                a_stranger_who_announces_a_megabyte_is_closed_before_it_comes
                whoever_does_not_begin_with_a_proof_is_closed_without_a_text
                a_bad_proof_is_answered_401;
            refusals:
                connect_says_which_refusal_it_was_in_either_spelling
                later_statuses_end_the_line_as_what_they_mean
                a_server_that_closes_without_a_word_is_worth_another_try
                a_server_that_does_not_prove_itself_in_time_is_given_up
                a_zero_auth_timeout_waits_as_long_as_it_takes
                an_expected_server_is_taken_and_another_is_not
                a_reflection_is_no_proof_unless_that_very_address_is_expected
                a_bad_or_stale_answer_is_no_proof
                a_server_too_has_4_kib_before_it_is_authenticated;
            misbehaviour:
                reserved_bits_are_closed_with_1002
                an_unmasked_frame_is_closed_with_1002
                unknown_opcodes_are_closed_with_1002
                long_or_cut_control_frames_are_closed_with_1002
                a_continuation_of_nothing_is_closed_with_1002
                a_message_within_a_message_is_closed_with_1002
                text_that_is_not_utf_8_is_closed_with_1007
                an_announced_giant_is_closed_with_1009_at_once
                the_code_comes_though_more_is_on_its_way
                a_close_frame_that_is_none_ends_the_connection_all_the_same
                rubbish_below_the_websocket_stalls_nobody
                a_client_closes_a_malformed_server_in_the_same_way
                a_reset_in_the_middle_is_a_lost_connection;
            messages:
                ten_thousand_messages_come_in_order_both_ways
                a_mebibyte_goes_both_ways_and_a_byte_more_does_not
                a_server_takes_messages_up_to_its_limit
                a_client_takes_messages_up_to_its_limit
                the_smallest_limit_is_4_kib
                a_larger_limit_lets_larger_messages_through
                only_objects_without_a_reserved_type_can_be_sent
                the_text_of_a_message_comes_byte_for_byte
                any_json_a_peer_sends_is_a_message_and_other_text_an_error
                a_client_takes_the_same_and_goes_on
                a_second_authenticate_changes_nothing
                a_message_may_come_in_pieces_with_pings_between
                every_frame_may_come_byte_by_byte
                sending_before_authentication_is_refused_and_kept_for_nobody
                what_a_server_says_right_after_its_answer_comes
                a_program_that_answers_at_once_is_not_too_early
                a_message_may_be_sent_at_any_time_of_an_idle_line;
            queues:
                a_full_queue_is_an_error_until_the_client_reads
                sending_waits_for_room_and_loses_nothing
                whoever_waits_for_room_hears_of_the_end
                a_clients_full_queue_is_an_error_until_the_server_reads
                one_message_fits_into_the_smallest_queue
                a_broadcast_reaches_everybody
                a_broadcast_drops_who_never_reads_and_delays_nobody_else
                who_takes_nothing_for_as_long_as_the_send_timeout_is_dropped_however_much_it_talks
                a_slow_program_stops_the_reads_and_loses_nothing
                a_slow_clients_program_stops_the_reads_and_loses_nothing
                long_messages_wait_in_bytes_not_only_in_number
                a_slow_program_still_sends
                a_flood_of_pings_stalls_nobody;
            heartbeats:
                both_sides_learn_the_round_trip
                a_server_sends_a_ping_and_a_heartbeat_each_interval
                a_client_answers_pings_and_heartbeats_even_before_it_is_authenticated
                a_zero_interval_switches_heartbeats_off
                a_client_pings_each_interval
                a_program_that_is_behind_misses_heartbeats_and_nothing_else;
            idle:
                a_silent_client_is_told_408_in_quotes_and_dropped
                a_client_that_answers_no_heartbeat_is_dropped
                any_frame_is_a_sign_of_life
                a_zero_idle_timeout_switches_the_servers_guard_off
                an_honest_client_outlives_the_timeout_by_its_heartbeats
                a_client_notices_a_silent_server_and_dials_again
                a_zero_idle_timeout_switches_the_clients_guard_off;
            sessions:
                a_handler_for_each_client_echoes
                the_end_of_a_handler_closes_its_connection_once_everything_is_out
                a_handler_that_fails_or_panics_ends_its_own_connection_only
                what_is_not_about_one_session_is_told_beside_the_handlers
                a_session_works_from_another_task_and_ends_with_its_connection_and_says_how
                dropping_a_session_ends_the_connection
                dropping_a_session_whose_client_is_stuck_ends_it_as_well
                a_slow_session_stalls_nobody_else
                a_handler_that_waits_for_something_else_takes_what_came_meanwhile_in_order
                closing_the_server_ends_its_sessions_and_waits_for_their_handlers
                a_replaced_session_ends_and_does_not_hold_up_its_successor
                who_was_asked_for_events_does_not_serve
                only_who_is_let_in_becomes_a_session;
            reconnecting:
                a_client_may_start_before_its_server
                connect_waits_for_a_server_that_comes_late
                a_client_comes_back_to_a_server_that_was_restarted
                a_client_gives_up_after_its_attempts
                delays_double_up_to_their_bound_and_are_waited_for
                a_session_that_lasted_starts_the_count_anew_and_a_shorter_one_does_not
                a_refusal_is_final_unless_one_asks_otherwise
                what_never_left_is_handed_back
                a_cut_hands_the_waiting_messages_back_in_order
                a_message_arrives_or_comes_back_unless_it_was_begun
                a_cut_while_the_program_is_behind_loses_none_of_the_waiting_messages
                something_else_than_a_websocket_server_is_named
                a_server_that_never_upgrades_is_given_up_after_the_connect_timeout
                a_zero_connect_timeout_waits_as_long_as_it_takes;
            disconnecting:
                while_it_dials
                while_it_waits_to_dial_again
                before_it_is_authenticated
                while_it_is_authenticated
                while_connect_is_waiting
                when_it_is_over_already
                after_an_earlier_failure_it_is_no_failure;
            closing:
                a_closed_server_frees_its_port_and_tells_every_client
                close_is_the_last_event_after_every_clients_end
                close_ends_those_who_are_not_authenticated_yet
                close_finishes_though_nobody_takes_the_events
                everybody_may_wait_for_the_close
                close_does_not_wait_for_who_never_reads
                dropping_a_server_ends_everything
                dropping_a_client_ends_its_line
                what_a_client_sent_goes_out_before_it_closes
                what_a_server_sent_goes_out_before_it_closes
                a_server_that_closes_goes_on_sending_to_who_had_stopped_reading_for_a_moment
                after_disconnect_nothing_more_is_taken
                a_client_that_closes_does_not_wait_for_a_server_that_does_not_answer
                a_connection_that_is_cut_is_lost
                what_a_peer_said_before_it_closed_is_read;
            costs:
                a_line_is_one_task_on_each_side
                without_heartbeats_nothing_is_done
                a_heartbeat_takes_a_few_polls_and_one_timer
                what_is_heard_moves_the_idle_deadline_and_no_timer;
            dropped_clients:
                between_any_two_steps_of_its_life
                between_any_two_steps_of_its_life_over_tls
                between_any_two_steps_of_connect
                while_it_dials
                while_nobody_upgrades_its_connection
                while_the_server_does_not_prove_itself
                while_it_is_authenticated
                while_messages_wait_for_a_server_that_does_not_read
                while_messages_wait_and_no_time_out_is_set
                while_it_waits_to_dial_again
                when_it_has_given_up
                while_nobody_takes_its_events
                by_a_close_that_nobody_waits_for;
            dropped_servers:
                between_any_two_steps_of_its_life
                between_any_two_steps_of_its_life_over_tls
                between_any_two_steps_of_its_life_with_a_handler
                before_anybody_asked_it_for_anything
                with_connections_that_never_upgrade
                with_connections_in_the_middle_of_tls
                with_strangers
                with_clients_whose_check_never_ends
                with_authenticated_clients
                with_a_client_that_never_reads
                while_nobody_takes_its_events
                after_it_was_closed_by_a_handle
                with_sessions_that_are_held
                with_a_session_that_has_more_to_read_than_it_can_hold
                with_handlers_that_never_end
                whose_next_event_nobody_waits_for_any_more
                whose_close_nobody_waits_for_any_more;
            embedding:
                a_server_takes_a_listener_that_somebody_else_bound
                a_server_without_a_listener_lives_from_streams_that_others_have_upgraded
                an_attached_stream_waits_until_the_server_is_polled
                an_attached_stranger_is_gone_by_the_deadline
                an_attached_stream_that_nobody_asks_for_is_gone_by_the_deadline_too
                a_stream_that_panics_ends_its_own_connection_only
                a_server_without_a_listener_takes_no_certificate
                attached_streams_count_among_the_unauthenticated
                a_closed_server_takes_no_stream
                extra_headers_are_in_the_request
                a_header_that_cannot_be_sent_is_an_error_at_once
                a_connector_is_asked_each_time_and_its_stream_is_used
                tls_goes_over_a_connectors_stream_as_well
                what_a_stream_holds_back_leaves_as_soon_as_it_can
                what_a_connector_says_or_does_not_say_is_told;
            proxies:
                ws_and_wss_go_through_each_kind_of_proxy
                a_client_comes_back_through_the_proxy
                with_socks5_this_machine_resolves_the_name
                with_socks5_each_address_of_a_name_is_tried
                a_server_that_is_excepted_is_reached_directly
                a_connector_takes_the_place_of_a_proxy_whichever_comes_first
                wrong_or_missing_credentials_are_told_apart_and_never_shown
                a_proxy_that_refuses_says_why
                a_proxy_that_is_not_there_is_named
                a_name_that_does_not_resolve_is_told
                a_silent_proxy_is_given_up_after_the_connect_timeout
                a_proxy_that_never_ends_its_answer_is_left
                half_an_answer_and_garbage_are_told_apart
                what_the_server_says_right_behind_the_proxys_answer_is_not_lost
                a_client_can_be_closed_while_the_proxy_says_nothing;
            stats:
                a_fresh_server_has_counted_nothing
                messages_and_bytes_are_counted_both_ways
                each_connection_is_counted_in_one_place_by_how_it_ended;
            hostile:
                odd_json_comes_back_byte_for_byte
                odd_json_proves_nothing
                fragments_without_end_have_one
                an_honest_line_may_come_one_byte_at_a_time
                an_honest_line_over_tls_may_come_one_byte_at_a_time
                a_storm_of_logins_harms_nobody
                thousands_of_idle_sockets_harm_nobody;
            tls:
                a_client_that_trusts_the_certificate_talks_over_tls
                a_url_may_say_wss_and_name_the_host
                a_configuration_of_ones_own_wins
                a_certificate_or_key_that_cannot_be_used_is_named
                an_expired_a_foreign_and_a_strangers_certificate_are_told_apart
                plain_text_on_a_tls_port_and_tls_on_a_plain_one_are_told_apart
                who_is_turned_away_from_a_tls_port_is_not_told_to_do_without_tls
                the_authentication_deadline_covers_the_tls_handshake;
        }
    };
    (@all $on:tt $($module:ident: $($test:ident)*;)*) => {
        $(
            mod $module {
                use super::*;
                $crate::conformance! { @module $on $module $($test)* }
            }
        )*
    };
    (@module $on:tt $module:ident $($test:ident)*) => {
        $( $crate::conformance! { @test $on $module $test } )*
    };
    (@test ($runtime:ty, $block_on:path) $module:ident $test:ident) => {
        #[test]
        fn $test() {
            $block_on($crate::$module::$test::<$runtime>());
        }
    };
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn every_test_is_in_the_list() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let list = fs::read_to_string(source.join("lib.rs")).unwrap();
        let mut tests = 0;
        for file in fs::read_dir(source).unwrap() {
            let path = file.unwrap().path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let module = format!("            {}:\n", path.file_stem().unwrap().display());
            let list = list.split_once(&module).map_or("", |(_, rest)| rest.split(';').next().unwrap());
            for line in text.lines() {
                let Some((name, _)) =
                    line.strip_prefix("pub async fn ").and_then(|rest| rest.split_once('<'))
                else {
                    continue;
                };
                tests += 1;
                let listed = list.lines().filter(|line| line.trim() == name).count();
                assert_eq!(listed, 1, "{name}");
            }
        }
        assert!(tests > 100, "only {tests} were found");
    }
}

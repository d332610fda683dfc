"""What must hold against attacks, faults and mistakes, case by case, and the tests that show it: the security cases.

``docs/security.md`` says what is promised; a case here is one way to break a promise, so that it is found by name.
tests/architecture/test_security_cases.py holds that every test exists and that every promise has cases.

    python tests/security_cases.py P2 kid    the tests of the cases that have these words
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import NamedTuple


class Case(NamedTuple):
    """``promise`` is P1 to P15; ``tests`` are node ids below ``tests/``, some with a parameter's id in brackets."""

    promise: str
    text: str
    tests: tuple[str, ...]


# A promise; below it a case; below that its tests.
_TABLE = """
P1
  Keys that come twice, at any depth, and keys that differ in case only.
    unit/protocol/test_strict_json.py::test_what_two_parsers_could_read_differently_is_refused
    unit/protocol/test_jsonrpc.py::test_what_is_no_message_is_an_invalid_request
    e2e/test_refusals.py::test_what_is_no_message_is_a_400_with_its_code
  NaN, infinity, numbers out of range, a byte order mark, other encodings, lone surrogates.
    unit/protocol/test_strict_json.py::test_what_two_parsers_could_read_differently_is_refused
    unit/protocol/test_strict_json.py::test_any_bytes_are_a_value_or_a_refusal
  Integers of any size stay exact, and arguments leave as the bytes that came.
    unit/protocol/test_strict_json.py::test_integers_of_any_size_stay_exact
    e2e/test_fidelity.py::test_arguments_reach_the_backend_as_the_bytes_that_were_sent
  Headers that say something else than the body, or come twice.
    e2e/test_refusals.py::test_headers_that_contradict_the_body_are_a_mismatch
    e2e/test_refusals.py::test_a_routing_header_that_comes_twice_is_a_mismatch
    e2e/test_fidelity.py::test_a_mirrored_argument_that_differs_or_is_missing_is_a_mismatch
  Media types in other letters, compressed bodies, look-alike types.
    e2e/test_refusals.py::test_a_charset_in_the_media_type_is_fine
    e2e/test_refusals.py::test_what_is_no_mcp_over_http_is_refused_by_its_status
  A length and chunks at once, two lengths, a request hidden in a body or behind an upgrade.
    e2e/test_refusals.py::test_a_request_that_two_servers_would_read_differently_is_a_400
    unit/http/test_guards.py::test_a_header_that_describes_the_body_comes_once
    unit/http/test_server.py::test_the_body_of_a_request_that_would_change_the_protocol_is_no_request
    unit/http/test_server.py::test_a_trailer_is_never_taken_for_a_header
  A body larger than a buffer is never judged by its beginning.
    e2e/test_refusals.py::test_a_body_over_the_limit_is_a_413_by_its_announced_and_by_its_real_length
  Batches: refused where they are not spoken, each part judged alone where they are.
    e2e/test_legacy_clients.py::test_a_batch_is_refused_in_the_modern_era
    e2e/test_legacy_clients.py::test_a_batch_is_refused_at_other_revisions
    unit/test_pipeline.py::test_a_batch_is_answered_as_one_and_recorded_one_by_one
  Side doors: paths, methods and slashes that are not served; documents of the framework.
    e2e/test_refusals.py::test_nothing_else_exists
    e2e/test_refusals.py::test_only_post_is_served_without_a_session
    e2e/test_lifecycle.py::test_operations_move_to_a_port_of_their_own
  Targets in another spelling, or with an authority that is not the Host; versions that are none.
    e2e/test_refusals.py::test_a_target_has_one_spelling_and_names_no_other_server
  A message that is a request and a response; reserved keys in other letters.
    unit/protocol/test_jsonrpc.py::test_what_is_no_message_is_an_invalid_request
    unit/protocol/test_inbound.py::test_reserved_keys_of_meta_do_not_cross_and_others_cross_as_they_came
  Lists and calls decide alike; what no rule names is nobody's.
    unit/policy/test_authorize.py::test_a_call_is_allowed_exactly_where_the_tool_is_listed
    e2e/test_refusals.py::test_lists_show_exactly_what_calls_allow
    unit/test_catalog.py::test_what_no_rule_names_is_neither_listed_nor_found
    unit/routes/test_routes_models.py::test_nobody_may_call_what_no_rule_mentions
    unit/test_watching.py::test_what_is_watched_is_what_is_read
    e2e/test_references.py::test_a_toolset_leads_to_nothing_outside_of_it
    e2e/test_references.py::test_through_a_toolset_nobody_listens_outside_of_it

P2
  Algorithms: none in every spelling, HMAC under a public key, another family than the key's.
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[HS256 keyed with the public key as JWK]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[alg of another family than the key's]
    unit/policy/test_authenticate.py::test_hs256_keyed_with_the_public_pem_is_refused
    unit/policy/test_authenticate.py::test_no_symmetric_algorithm_can_be_configured
  Keys that a token brings or names: jku, x5u, jwk, x5c, kid as a path or a URL; another issuer's key.
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[jku]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[jwk without kid]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[kid a URL]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[another issuer's key under our kid]
  crit, b64, and types of other tokens: ID, logout, DPoP, JWE.
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[crit]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[an ID token by nonce]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[typ of a JWE]
  exp, iss, aud and sub: absent, null, of another type, far away, nearly right.
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[exp absent]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[exp 10^40]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[aud a nested list]
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[sub empty]
    unit/policy/test_authenticate.py::test_any_claim_of_any_type_makes_a_principal_or_a_refusal
  No exception on the way becomes an identity, and none a 500.
    unit/policy/test_authenticate.py::test_arbitrary_headers_are_unauthenticated_and_nothing_else
    unit/policy/test_authenticate.py::test_any_header_of_any_type_makes_a_principal_or_a_refusal
    fuzz/test_fuzz_gateway.py::test_any_request_is_answered
  Several Authorization headers, other schemes, tokens in the query.
    unit/policy/test_authenticate.py::test_a_bad_header_is_refused_and_says_whether_a_token_came[bearer and basic]
    e2e/test_refusals.py::test_two_tokens_in_one_request_are_refused
    e2e/test_envelope.py::test_a_token_in_the_query_is_none
    e2e/test_resource_server.py::test_a_token_counts_in_the_header_alone
  A token of another issuer, gateway or toolset.
    e2e/test_resource_server.py::test_what_holds_for_one_issuer_does_not_for_another
    unit/test_pipeline.py::test_a_token_for_a_toolset_is_good_there_only
  A token that is bound to a key, revoked, or remembered too long.
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason[bound to a DPoP key]
    unit/policy/test_authenticate.py::TestRemembering::test_it_is_refused_at_the_same_second_as_when_it_were_verified_anew
    unit/policy/test_authenticate.py::TestRemembering::test_it_is_refused_as_soon_as_its_key_is_withdrawn
    e2e/test_introspection.py::test_a_revoked_token_is_refused_within_ttl
  Keys that were never had are a 503; without auth only this machine is served.
    unit/test_pipeline.py::test_keys_that_were_never_had_are_a_503
    e2e/test_lifecycle.py::test_without_auth_it_serves_this_machine_alone_and_says_so_loudly
  Secrets by default, and secrets in clear in a file.
    unit/test_settings.py::test_redis_needs_keys
    unit/routes/test_routes_references.py::test_a_plain_value_under_a_secret_name_is_found

P3
  The endpoint is away, silent, endless, redirects or compresses.
    integration/test_jwks_over_http.py::test_an_issuer_that_is_gone_leaves_its_keys
    integration/test_jwks_over_http.py::test_silence_ends_at_the_deadline
    integration/test_jwks_over_http.py::test_an_endless_answer_is_cut_at_the_limit
    integration/test_jwks_over_http.py::test_a_redirect_is_not_followed
    integration/test_jwks_over_http.py::test_a_compressed_answer_is_not_unpacked
  Rotation: a new key is found, a withdrawn one dropped.
    unit/stores/test_jwks.py::test_a_new_key_is_found_by_its_first_token_after_the_cooldown
    unit/stores/test_jwks.py::test_a_withdrawn_key_is_dropped_on_the_next_good_fetch
  Empty and useless answers replace nothing; old keys end after their time.
    unit/stores/test_jwks.py::test_a_useless_answer_replaces_nothing
    unit/stores/test_jwks.py::test_old_keys_go_on_while_the_issuer_is_away_but_not_for_ever
  A flood of unknown kids: attempts count, one fetch for all, good callers do not wait.
    unit/stores/test_jwks.py::test_an_unknown_kid_fetches_once_in_a_cooldown_whatever_comes_of_it
    unit/stores/test_jwks.py::test_an_outage_costs_one_attempt_in_a_cooldown
    unit/stores/test_jwks.py::test_callers_share_one_fetch
    unit/stores/test_jwks.py::test_a_known_key_never_waits_for_a_fetch_that_is_under_way

P4
  The client's token, cookies and addresses do not reach a backend; a backend's headers not the client.
    e2e/test_fidelity.py::test_credentials_cookies_and_addresses_of_the_client_never_reach_a_backend
    e2e/test_fidelity.py::test_headers_of_a_backend_never_reach_the_client
    unit/stores/test_jwks.py::TestTheRequest::test_cookies_are_not_kept
  A backend's credential does not reach another, nor a program the gateway's environment.
    integration/test_stdio_supervision.py::test_it_sees_its_own_environment_and_none_of_the_secrets_of_ours
    unit/backends/credentials/test_endpoint.py::test_a_backend_that_changes_its_authorization_server_gets_no_secret_sent_there
    integration/test_modern_backend.py::test_a_refusal_of_our_credentials_is_not_relayed
  Answers, logs, metrics and audit have none.
    e2e/test_audit.py::test_secrets_are_nowhere
    e2e/test_introspection.py::test_neither_tokens_nor_the_secret_are_in_the_log_or_the_audit
    unit/policy/test_authenticate.py::test_no_message_repeats_anything_of_the_token
    unit/policy/test_validate.py::test_no_text_of_arguments_is_ever_said
  Nothing that a client or backend writes starts a line or steers a terminal.
    unit/test_audit_injection.py::test_a_record_is_one_line_of_printable_ascii_with_just_its_own_fields
    unit/telemetry/test_logs.py::test_a_line_is_one_json_object_in_printable_ascii_whatever_is_in_it
  References are checked before they are read, and none is expanded twice.
    unit/routes/test_routes_references.py::test_the_settings_of_the_gateway_cannot_be_handed_on
    unit/routes/test_routes_references.py::test_what_was_expanded_is_not_expanded_again

P5
  Another's session, even of one who only looks the same; sessions that were changed by a byte.
    e2e/test_legacy_clients.py::test_the_session_of_another_principal_is_a_404_and_stays_usable_for_its_owner
    unit/protocol/test_session.py::test_an_issuer_and_subject_that_join_to_the_same_text_are_different_principals
    unit/protocol/test_session.py::test_one_changed_byte_anywhere_makes_a_session_unknown
  Another's list, or a list that was made for other scopes.
    unit/test_catalog.py::test_a_list_that_was_rendered_for_one_is_not_served_to_another
    unit/protocol/test_lifecycle.py::test_a_list_has_the_definitions_as_they_are_and_is_private
  Another's state, handle, stream, answer or cancellation.
    unit/protocol/test_request_state.py::test_a_state_is_of_one_principal_request_and_backend
    integration/test_parking.py::test_a_handle_is_good_for_its_principal_and_its_request_alone
    e2e/test_resuming.py::test_another_session_gets_nothing_of_it_but_its_own_stream
    unit/http/test_conversations.py::test_an_answer_of_another_session_or_to_another_question_is_dropped
    unit/http/test_conversations.py::test_nothing_else_cancels_it
    unit/test_cancelled_batches.py::test_two_requests_with_one_id_are_both_cancelled_by_it_and_neither_when_the_other_ends
  Ids that clients share, many at once.
    integration/test_modern_backend.py::test_ids_are_never_used_twice
    e2e/test_streams.py::test_many_calls_at_once_keep_their_progress_apart
    e2e/test_streams.py::test_progress_under_a_foreign_token_reaches_nobody
  Another's session with a backend, account, or resource that only a result named.
    integration/test_session_backends.py::test_one_session_carries_all_calls_of_a_principal_and_none_of_another
    e2e/test_accounts.py::test_an_account_is_its_owners_alone
    e2e/test_accounts.py::test_a_link_that_was_sent_to_somebody_else_ends_in_another_browser_with_nothing
    unit/test_seen.py::test_what_one_principal_was_told_says_nothing_to_another
  Another's budget.
    e2e/test_limits.py::test_limits_are_the_principals_own_whatever_its_token_or_session
    unit/policy/test_rate_limit.py::test_names_cannot_be_chosen_to_meet_in_one_counter

P6
  Two hundred at once over four replicas get exactly what the limits say.
    integration/test_limits_contract.py::test_two_hundred_at_once_over_four_replicas_admit_exactly_the_burst
    e2e/test_limits.py::test_four_replicas_under_two_hundred_clients_admit_exactly_what_the_limits_say
  One step for all limits of a call: what one refuses costs the others nothing.
    integration/test_limits_contract.py::test_what_one_limit_refuses_costs_the_others_nothing
    e2e/test_limits.py::test_what_one_limit_refuses_costs_the_others_nothing
  The wait is true to the millisecond.
    integration/test_limits_contract.py::test_a_refused_call_passes_after_its_wait_and_not_before
    e2e/test_limits.py::test_the_31st_call_of_a_minute_is_refused_and_told_exactly_when_to_come_back
  Another name for the same tool, another token, another session: one counter.
    unit/policy/test_rate_limit.py::test_a_tool_has_one_counter_under_all_its_public_names
  The script is forgotten, a counter has a foreign value, keys expire and share a slot.
    integration/test_limits_contract.py::test_the_script_is_sent_again_after_the_server_forgot_it
    integration/test_limits_contract.py::test_another_value_under_a_counters_name_does_not_stop_the_limit
    integration/test_limits_contract.py::test_every_key_expires_when_its_counter_is_whole_and_has_the_hash_tag
  Limits on trial refuse nobody.
    e2e/test_limits.py::test_a_limit_in_trial_refuses_nobody_and_says_what_it_would_have_done

P7
  Redis is refused, frozen, dies unnoticed, cannot write, is no Redis.
    integration/test_redis_outage.py::test_a_frozen_server_delays_only_the_calls_that_were_under_way
    integration/test_redis_outage.py::test_a_server_that_dies_unnoticed_is_found_out_without_a_call
    integration/test_redis_outage.py::test_a_server_that_cannot_write_is_away_until_it_can
    integration/test_redis_outage.py::test_what_is_not_a_usable_server_is_away_and_is_not_asked_again_by_each_call
  local, open and closed do what they say.
    integration/test_redis_outage.py::test_local_counts_with_this_replicas_share
    integration/test_redis_outage.py::test_open_admits_everything_and_says_that_it_was_degraded
    integration/test_redis_outage.py::test_closed_refuses_and_says_when_to_come_back
    e2e/test_limits.py::test_while_redis_is_away_closed_means_that_nobody_may_call
  It heals by itself, also by a failover.
    integration/test_redis_outage.py::test_it_heals_by_itself_and_tells_of_each_change
    e2e/test_limits.py::test_a_failover_under_sentinels_interrupts_a_limit_for_seconds_and_loses_nothing_of_it

P8
  kill -9 under load: whatever a backend saw is on record.
    e2e/test_audit_survival.py::test_every_call_that_a_backend_saw_is_on_record_after_kill_9
    integration/test_audit_files.py::test_kill_9_loses_no_intent_that_was_confirmed
  A full disk, a stalled or failing sink: nothing is executed, no line is torn, it heals.
    e2e/test_audit_survival.py::test_on_a_full_disk_nothing_is_executed_and_room_heals_it
    integration/test_audit_files.py::test_a_full_disk_leaves_no_torn_line_and_what_failed_is_written_later
    unit/test_audit_writer.py::test_a_stalled_sink_denies_until_its_write_ends
    unit/test_audit_writer.py::test_a_second_sink_that_fails_or_stalls_denies_nothing
  The intent is on record before the call leaves; a client that hangs up loses no outcome.
    unit/test_pipeline.py::test_the_intent_is_recorded_before_the_backend_is_reached_and_the_outcome_after
    e2e/test_audit.py::test_a_client_that_hangs_up_leaves_an_aborted_call_on_record
  Every refusal has one record with what refused it.
    e2e/test_audit.py::test_everything_else_is_one_record
    fuzz/test_fuzz_gateway.py::test_any_request_is_answered
    fuzz/test_fuzz_gateway.py::test_well_formed_requests_with_any_content_are_answered
  Edits, gaps, other orders, cut tails, spliced logs: the verifier finds each.
    integration/test_audit_mutations.py::test_a_touched_log_is_found_out
    unit/test_audit_verifier.py::test_an_edit_of_any_byte_is_found
    unit/test_audit_verifier.py::test_a_cut_tail_is_found_by_the_head
    unit/test_audit_verifier.py::test_a_log_written_anew_in_full_is_found_by_the_head
  Intents without outcome are told after a crash.
    e2e/test_audit.py::test_a_killed_gateways_log_is_good_and_names_the_calls_that_were_under_way

P9
  A slow, dead, hanging or flooding backend costs only its own callers.
    e2e/test_backend_faults.py::test_one_slow_backend_slows_nobody_else
    e2e/test_backend_faults.py::test_a_killed_stdio_backend_harms_nobody_else_and_is_back_in_seconds
    e2e/test_definitions.py::test_a_definition_without_an_end_harms_no_sibling_and_no_later_listing
  Bulkhead, breaker, answers that are too large.
    e2e/test_backend_faults.py::test_more_calls_than_places_wait_and_then_are_told_that_it_is_busy
    unit/backends/test_breaker.py::test_never_are_there_two_probes_and_it_always_recovers
    integration/test_modern_backend.py::test_a_response_over_the_limit_says_so
  A list that fails or never ends keeps the last one.
    e2e/test_backend_faults.py::test_a_failing_list_never_empties_what_was_listed
    unit/backends/test_listing.py::test_pages_without_end_are_never_taken_for_the_whole
    unit/backends/test_listing.py::test_all_pages_together_have_one_deadline
  Children: a hung handshake, the death of the parent, reconnection.
    integration/test_stdio_supervision.py::test_no_process_survives_a_gateway_that_is_killed
    integration/test_stdio_supervision.py::test_a_child_that_ignores_the_end_of_its_input_and_sigterm_is_killed_within_seconds
    e2e/test_lifecycle.py::test_a_killed_gateway_leaves_no_stdio_backend_behind
  An authorization server that fails for one replica, or refuses a former token late, takes nobody an account away.
    integration/test_vault_contract.py::test_a_grant_that_was_renewed_is_not_dropped_by_who_saw_the_former
    integration/test_vault_contract.py::test_where_the_replica_that_renews_fails_another_does_it_at_once
    unit/backends/credentials/test_granting.py::test_a_late_refusal_of_a_former_token_takes_nobody_the_grant_that_replaced_it
    unit/backends/credentials/test_granting.py::test_an_account_that_is_connected_anew_while_the_former_is_renewed_is_the_one_that_stays
  One message of a backend ends nothing but its own call.
    integration/test_stdio_supervision.py::test_a_line_without_end_costs_the_session_and_not_the_gateway
    fuzz/test_fuzz_gateway.py::test_whatever_a_backend_answers_a_call_has_an_answer

P10
  A connection that breaks after the request left is not tried again, unless the tool is idempotent.
    integration/test_route_backend.py::test_only_an_idempotent_call_is_sent_again_after_the_connection_broke
    unit/backends/test_repeats.py::test_what_was_sent_may_not_unless_the_tool_is_idempotent
    integration/test_stdio_supervision.py::test_a_call_that_crashes_it_is_not_repeated
  A kept connection that the backend closes in the same moment.
    integration/test_http1_client.py::test_a_kept_connection_that_dies_under_a_request_is_an_error_by_default
  Repetitions stay within a budget.
    unit/backends/test_repeats.py::test_repetitions_of_what_was_sent_stay_within_a_fifth_of_the_calls
  An HTTP error status means that nothing was executed.
    unit/protocol/test_answers.py::test_what_was_dispatched_is_never_an_error_status
    unit/test_pipeline.py::test_a_failure_after_dispatch_is_a_200_that_says_so
  A handle is used once, at every replica, and after one died nothing runs twice.
    e2e/test_replicas.py::test_a_handle_is_single_use_at_every_replica
    e2e/test_replicas.py::test_where_the_replica_died_the_client_is_told_and_nothing_runs_twice

P11
  SIGTERM drains; a second one ends at once; what was cut is on record.
    e2e/test_lifecycle.py::test_sigterm_lets_running_calls_end_and_tells_streams
    e2e/test_lifecycle.py::test_a_second_sigterm_ends_at_once_and_the_calls_that_it_cut_are_on_record
    e2e/test_lifecycle.py::test_a_call_that_outlives_the_drain_is_cut_and_on_record
  A reload under load, of a broken file, of a file that is gone.
    e2e/test_reload.py::test_reloads_under_load_fail_no_call
    e2e/test_reload.py::test_a_broken_file_changes_nothing_says_everything_and_heals
    e2e/test_reload.py::test_a_file_that_is_gone_for_a_while_changes_nothing
    unit/test_pipeline.py::test_a_reload_does_not_change_the_rules_under_a_call
  A route that moves, or whose deadlines or program's environment change.
    e2e/test_reload.py::test_a_route_that_moves_has_nothing_of_its_former_backend_whatever_that_still_says
    e2e/test_reload.py::test_a_changed_deadline_keeps_what_is_listed_and_fails_no_call
    e2e/test_reload.py::test_a_change_of_nothing_but_its_environment_starts_a_program_anew
  YAML: keys twice, tags, aliases that multiply, unknown names; every error at once.
    unit/routes/test_routes_document.py::test_each_repeated_key_is_reported_with_both_lines
    unit/routes/test_routes_document.py::test_aliases_that_multiply_are_bounded
    unit/routes/test_routes_document.py::test_tags_are_refused
    unit/routes/test_routes_loader.py::test_everything_that_is_wrong_is_told_at_once_with_its_line
  What cannot be served does not start.
    e2e/test_lifecycle.py::test_what_cannot_be_served_is_refused_with_every_reason

P12
  Hanging up cancels at modern, legacy and stdio backends.
    e2e/test_streams.py::test_a_client_that_hangs_up_cancels_the_call_at_a_modern_backend
    integration/test_legacy_posts.py::test_a_cancelled_call_is_cancelled_at_the_server_by_its_id
    e2e/test_streams.py::test_a_client_that_hangs_up_cancels_the_call_at_a_stdio_backend
  A thousand calls that were given up leave nothing behind.
    e2e/test_cancelled_calls.py::test_a_thousand_calls_that_were_given_up_leave_nothing_behind
    integration/test_route_backend.py::test_of_a_thousand_cancelled_calls_no_task_stream_session_descriptor_or_child_is_left
  A legacy client that cancels by notification, comes back, or ends its session.
    e2e/test_replicas.py::test_a_legacy_client_may_cancel_at_the_other_replica
    e2e/test_resuming.py::test_a_call_that_is_cancelled_gets_no_answer_and_breaks_no_connection
    unit/test_cancelled_batches.py::test_every_request_of_a_batch_that_is_not_cancelled_while_it_runs_has_one_answer
    e2e/test_resuming.py::test_a_call_that_was_left_can_still_be_cancelled
    e2e/test_resuming.py::test_the_end_of_the_session_ends_a_call_that_was_left

P13
  Large heads in one packet or many, many headers, endless heads and trailers.
    unit/http/test_server.py::test_a_large_head_is_refused_wherever_its_packets_are_cut
    e2e/test_refusals.py::test_too_many_headers_are_a_431
    e2e/test_refusals.py::test_a_head_without_end_is_cut_with_a_431
    unit/http/test_server.py::test_trailers_without_an_end_are_refused
  Bodies: too long, too deep, never whole.
    e2e/test_refusals.py::test_a_body_over_the_limit_is_a_413_by_its_announced_and_by_its_real_length
    unit/protocol/test_strict_json.py::test_nesting_is_bounded_whatever_the_depth
    fuzz/test_fuzz_gateway.py::test_any_bytes_are_answered_or_the_connection_is_closed
  A backend that never answers what it is asked first.
    integration/test_legacy_posts.py::test_a_question_that_a_server_never_answers_holds_nothing_once_the_session_has_begun
  Connections that rest, streams that nobody reads.
    unit/http/test_server.py::test_a_connection_is_closed_when_it_has_rested_long_enough_and_not_before
    unit/http/test_streams.py::test_a_client_that_takes_nothing_is_dropped
    unit/http/test_subscriptions.py::test_streams_are_bounded_and_counted
  Floods without a token or with forged ones.
    e2e/test_floods.py::test_forged_tokens_are_judged_up_to_a_bound_and_known_tokens_go_on
    e2e/test_floods.py::test_of_a_flood_every_refusal_is_counted_and_a_few_are_recorded
  One principal with all streams, sessions, subscriptions, or answers that are kept.
    unit/http/test_subscriptions.py::test_while_one_principal_has_its_share_of_the_streams_another_gets_its_own
    unit/http/test_subscriptions.py::test_shares_are_counted_exactly_however_streams_and_sessions_end
    unit/http/test_watched.py::test_one_who_watches_its_share_is_refused_and_leaves_others_theirs
    unit/http/test_resumption.py::test_one_principal_has_a_share_of_the_bytes_and_crowds_out_its_own_answers_only
    unit/test_pipeline.py::test_who_has_its_share_of_streams_is_refused_once_by_name_and_nothing_is_opened
  One principal with everything under way.
    e2e/test_limits.py::test_one_principal_cannot_have_everything_under_way
  Schemas and patterns that take long to judge.
    unit/policy/test_validate.py::test_a_pattern_that_backtracks_is_bounded
    unit/definitions/test_schemas.py::test_a_schema_that_multiplies_judges_what_it_can_afford

P14
  Shadowing: collisions, look-alikes, another route's names and URIs.
    unit/routes/test_routes_checks.py::test_prefixes_are_refused_exactly_when_two_routes_could_share_a_public_name
    unit/test_entries.py::test_of_names_that_look_alike_the_first_is_kept
    unit/test_catalog.py::test_a_template_without_a_scheme_cannot_claim_the_uris_of_other_routes
    unit/test_catalog.py::test_a_tool_cannot_be_called_by_the_public_name_of_another_route_s
  Hidden characters in words, names, keys and values; results are passed on untouched.
    e2e/test_definitions.py::test_agents_see_clean_tools_alone_and_results_untouched
    unit/definitions/test_hidden.py::test_no_control_and_no_invisible_format_character_is_left
  A definition that changes silently.
    e2e/test_pins.py::test_exactly_the_changed_tool_is_quarantined_and_approval_brings_it_back
    e2e/test_pins.py::test_a_new_tool_is_quarantined_until_it_alone_is_approved
    e2e/test_pins.py::test_exactly_the_changed_prompt_resource_and_template_are_quarantined_until_approved
  Schemas that refer elsewhere are never fetched; a backend cannot speak in the gateway's name.
    unit/policy/test_validate.py::test_a_schema_that_leaves_its_document_or_is_none_makes_the_tool_uncallable_with_words
    e2e/test_fidelity.py::test_a_backend_cannot_speak_in_the_gateways_name

P15
  A foreign Host or Origin, DNS rebinding, preflights.
    unit/http/test_guards.py::test_a_foreign_origin_is_a_403_whatever_the_host_says
    unit/http/test_guards.py::test_a_host_is_accepted_where_it_is_loopback_or_configured
    unit/http/test_guards.py::test_nobody_else_is_told_anything
    unit/http/test_guards.py::test_what_is_no_loopback_origin_is_foreign
    unit/http/test_guards.py::test_two_origins_are_none
  Forwarded addresses that a client writes itself.
    unit/http/test_proxies.py::test_a_client_cannot_add_forwarded_beside_what_the_proxy_wrote
    e2e/test_floods.py::test_the_audit_has_the_clients_address_as_our_proxy_saw_it
  SSRF: addresses of the cloud in every spelling, names that change, redirects, proxies of the environment.
    unit/egress/test_addresses.py::test_where_clouds_keep_credentials_is_reached_only_where_a_route_says_so
    integration/test_egress_guarded.py::test_a_name_is_asked_once_and_what_was_judged_is_connected_to
    integration/test_egress_guarded.py::test_the_environment_names_no_proxy
    integration/test_jwks_over_http.py::test_a_redirect_is_not_followed
  Documents of others: metadata of another issuer, endpoints that lead inside.
    unit/stores/test_jwks.py::TestDiscovery::test_metadata_of_another_or_without_a_safe_address_is_not_used
    unit/egress/test_documents.py::test_what_a_document_names_elsewhere_must_be_public
    unit/backends/test_legacy_sse.py::test_any_other_endpoint_is_refused
  Consent and the confused deputy.
    unit/backends/credentials/test_connecting.py::test_what_was_begun_in_one_browser_does_not_end_in_another
    unit/http/test_connect.py::test_a_form_of_another_site_goes_nowhere
"""


def _read(table: str) -> Iterator[Case]:
    promise = ""
    for block in re.split(r"\n(?=  \w|\S)", table.strip("\n").replace("\n\n", "\n")):
        first, *tests = (line.strip() for line in block.splitlines())
        if block.startswith(" "):
            yield Case(promise, first, tuple(tests))
        else:
            promise = first


CASES = tuple(_read(_TABLE))

if __name__ == "__main__":
    for case in CASES:
        if all(word.lower() in f"{case.promise} {case.text}".lower() for word in sys.argv[1:]):
            sys.stdout.write("".join(f"tests/{node}\n" for node in case.tests))

"""What the MCP specification asks of a gateway, and the tests that show it: the requirements manifest.

Pages are those of revision 2026-07-28 unless another is named. ``must``, ``should`` and ``may`` are words of the
specification, ``note`` is what it states without such a word, ``gateway`` follows from standing between two sides.
tests/architecture/test_requirements.py holds that every test exists and that no row is without one or a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Requirement(NamedTuple):
    """``tests`` are node ids below ``tests/``; without any, ``reason`` says why."""

    id: str
    level: str
    page: str
    behaviour: str
    tests: tuple[str, ...]
    reason: str


# A page; below it an id, a level and a behaviour; below that tests, or "not applicable because …".
_TABLE = """
basic/transports/streamable-http
  T1 must: One path takes POST, and every JSON-RPC message is a POST of its own.
    e2e/test_refusals.py::test_nothing_else_exists
    e2e/test_refusals.py::test_only_post_is_served_without_a_session
  T2 must: A foreign Origin, and a foreign Host with it, is refused on every connection, by default.
    unit/http/test_guards.py::test_a_foreign_origin_is_a_403_whatever_the_host_says
    unit/http/test_guards.py::test_a_host_is_accepted_where_it_is_loopback_or_configured
    unit/test_pipeline.py::test_what_a_guard_refused_is_recorded_and_said_like_the_rest
  T3 should: Local use is bound to loopback, and all connections are authenticated.
    e2e/test_lifecycle.py::test_without_auth_it_serves_this_machine_alone_and_says_so_loudly
    e2e/test_refusals.py::test_without_a_token_the_challenge_tells_where_and_for_what
  T4 must: A body is one request or one notification; arrays and posted responses are refused on the modern path.
    e2e/test_legacy_clients.py::test_a_batch_is_refused_in_the_modern_era
    unit/test_pipeline.py::test_a_response_is_not_posted_in_the_modern_era
  T5 must: An id is a string or an integer, never null; ids towards backends are the gateway's own and never used
  | twice.
    unit/protocol/test_jsonrpc.py::test_what_is_no_message_is_an_invalid_request
    e2e/test_fidelity.py::test_the_clients_id_comes_back_and_the_backend_gets_one_of_ours
    integration/test_modern_backend.py::test_ids_are_never_used_twice
  T6 must: A posted notification is acknowledged with 202 and, in the modern era, never acted on.
    unit/test_pipeline.py::test_a_modern_notification_is_acknowledged_and_never_acted_on
    unit/http/test_responder.py::test_an_accepted_notification_has_no_body_and_says_so
  T7 must: A request is answered as JSON or as an event stream, and backends may answer either way.
    unit/http/test_responder.py::test_an_answer_alone_is_json_with_its_status_and_headers
    unit/http/test_responder.py::test_notifications_come_first_and_in_order_and_the_answer_ends_the_stream
    integration/test_http1_client.py::test_an_answer_on_a_stream_completes_the_request_before_the_stream_ends
    integration/test_http1_client.py::test_a_stream_without_a_taker_is_a_body
  T8 must: A response stream has the notifications of its request and then the response, which ends it; never a
  | request.
    unit/http/test_responder.py::test_notifications_come_first_and_in_order_and_the_answer_ends_the_stream
    e2e/test_streams.py::test_progress_under_a_foreign_token_reaches_nobody
    unit/backends/test_envelope.py::test_a_request_of_the_server_ends_the_exchange_without_an_answer
  T9 should: Streams ask proxies not to buffer (`X-Accel-Buffering`) and are kept alive by comments.
    unit/http/test_responder.py::test_a_long_silence_after_dispatch_is_filled_with_comments
    e2e/test_legacy_clients.py::test_streams_and_slow_calls_open_at_once_or_in_15_seconds_and_are_kept_alive
  T10 must: Closing the response stream, or the connection of a JSON answer, cancels the request.
    e2e/test_streams.py::test_a_client_that_hangs_up_cancels_the_call_at_a_modern_backend
    e2e/test_streams.py::test_a_client_that_leaves_a_stream_cancels_the_call_too
    unit/http/test_responder.py::test_nothing_is_sent_after_the_client_has_left
  T11 note: The modern era has no resumption: no event ids, and `Last-Event-ID` changes nothing.
    e2e/test_envelope.py::test_a_modern_stream_has_no_event_ids_and_a_last_event_id_changes_nothing
  T12 should: Modern GET and DELETE are 405; a session id on a modern request is ignored and none is given out.
    e2e/test_refusals.py::test_only_post_is_served_without_a_session
    e2e/test_envelope.py::test_a_session_id_on_a_modern_request_is_ignored_and_none_is_given_out
  T13 must: JSON is UTF-8; what cannot be read is -32700 with 400.
    e2e/test_refusals.py::test_what_is_no_message_is_a_400_with_its_code
    unit/protocol/test_strict_json.py::test_what_two_parsers_could_read_differently_is_refused
  T14 may: Bodies and heads are bounded before they are decoded, with 413 and 431.
    e2e/test_refusals.py::test_a_body_over_the_limit_is_a_413_by_its_announced_and_by_its_real_length
    e2e/test_refusals.py::test_a_head_without_end_is_cut_with_a_431
    e2e/test_refusals.py::test_too_many_headers_are_a_431

basic/index
  E1 must: A request whose `_meta` lacks the version or the capabilities is -32602 with 400.
    unit/protocol/test_inbound.py::test_an_incomplete_envelope_is_invalid_params
    unit/protocol/test_inbound.py::test_a_modern_version_header_without_its_envelope_names_what_is_missing
  E2 should: `clientInfo` is not demanded and decides nothing.
    e2e/test_envelope.py::test_a_request_without_client_info_is_served

basic/versioning
  E3 must: Nothing is inferred from earlier requests or from the connection.
    e2e/test_envelope.py::test_each_request_on_a_connection_is_announced_with_its_own_capabilities
    integration/test_parking.py::test_clients_with_other_capabilities_do_not_share_a_session

basic/index
  E4 must: A capability that is needed and was not declared is -32021, with the capabilities as an object.
    unit/test_calls.py::test_a_missing_capability_is_read_by_a_legacy_agent_and_told_to_a_modern_client
    integration/test_modern_backend.py::test_a_question_that_the_client_did_not_declare_is_an_error_that_names_the_capability
    unit/test_calls.py::test_a_call_that_failed_for_a_refused_question_tells_a_modern_client_what_it_lacks

basic/versioning
  E5 must: A version that is not served is -32022 with 400, `supported` and `requested`.
    e2e/test_refusals.py::test_a_version_nobody_speaks_is_answered_with_those_that_are_served
    unit/protocol/test_answers.py::test_a_version_that_is_not_served_says_which_are

basic/index
  E6 should: Every result names the server in `_meta`.
    unit/protocol/test_answers.py::test_a_modern_result_is_what_the_backend_sent_but_for_result_type_and_server_info
    unit/protocol/test_lifecycle.py::test_the_server_info_names_the_gateway_and_its_version
  E7 must: Every result has a `resultType`; that of a backend stays, and an absent one is `complete`.
    unit/protocol/test_answers.py::test_a_modern_result_is_what_the_backend_sent_but_for_result_type_and_server_info
    unit/protocol/test_answers.py::test_a_result_type_of_the_backend_stays_in_the_modern_era
  E8 must: An error has the id of its request, and null only where none could be read.
    unit/protocol/test_answers.py::test_the_answer_has_the_id_of_the_request_with_its_type
    unit/protocol/test_answers.py::test_where_no_id_was_read_the_error_has_the_id_null
  E9 must: Keys of `_meta` that are reserved stay on their leg, all others pass both ways.
    e2e/test_fidelity.py::test_reserved_keys_of_meta_do_not_cross_and_all_others_do
    e2e/test_fidelity.py::test_a_backend_cannot_speak_in_the_gateways_name
    unit/protocol/test_inbound.py::test_reserved_keys_of_meta_do_not_cross_and_others_cross_as_they_came
  E10 must: State that spans requests is named by a handle in the request.
    unit/protocol/test_request_state.py::test_a_state_comes_back_exactly_at_any_replica
    integration/test_parking.py::test_a_handle_is_used_once

basic/transports/streamable-http#server-validation
  H1 must: `MCP-Protocol-Version` is there and equals the version of the body, else 400 and -32020.
    e2e/test_refusals.py::test_a_missing_version_header_is_a_mismatch_and_no_session_error
    unit/protocol/test_inbound.py::test_headers_that_do_not_mirror_the_body_are_refused
  H2 must: `Mcp-Method` is there and equals the method.
    e2e/test_refusals.py::test_headers_that_contradict_the_body_are_a_mismatch
    unit/protocol/test_inbound.py::test_headers_that_do_not_mirror_the_body_are_refused
  H3 must: `Mcp-Name` is there for tools/call, prompts/get and resources/read and equals name or URI.
    e2e/test_refusals.py::test_a_name_in_the_header_that_is_not_the_one_in_the_body_is_a_mismatch
    unit/protocol/test_inbound.py::test_headers_that_do_not_mirror_the_body_are_refused
  H4 must: Names and arguments outside visible ASCII are mirrored in base64 and decoded before they are compared.
    unit/protocol/test_inbound.py::test_a_name_beyond_ascii_is_mirrored_in_base64
    e2e/test_fidelity.py::test_a_mirrored_argument_outside_of_ascii_is_encoded_on_both_legs
  H5 must: Any header that is missing, malformed or different is 400 with -32020.
    e2e/test_refusals.py::test_headers_that_contradict_the_body_are_a_mismatch
    unit/test_pipeline.py::test_a_modern_request_whose_headers_say_something_else_is_refused
  H6 must: `Mcp-Param-*` of the called tool is checked against the arguments.
    e2e/test_fidelity.py::test_a_mirrored_argument_that_differs_or_is_missing_is_a_mismatch
    unit/test_calls.py::test_a_header_that_does_not_mirror_its_argument_is_a_400_without_either_value
  H7 must: `Mcp-Param-*` that no annotation asks for changes nothing. An intermediary would forward it; the gateway
  | makes the headers of its own leg.
    e2e/test_fidelity.py::test_a_header_that_no_argument_asks_for_does_not_cross
  H8 should: Headers decide nothing by themselves: the body is the source of truth.
    unit/protocol/test_inbound.py::test_the_body_decides_the_era_before_the_headers
    e2e/test_refusals.py::test_headers_that_contradict_the_body_are_a_mismatch
  H9 gateway: A routing header that comes twice is refused.
    e2e/test_refusals.py::test_a_routing_header_that_comes_twice_is_a_mismatch
    unit/protocol/test_inbound.py::test_a_routing_header_that_comes_twice_is_refused
  H10 must: An unknown method is 404 with -32601.
    e2e/test_refusals.py::test_an_unknown_method_is_a_404_in_the_modern_era_and_a_200_in_the_legacy_one
    unit/test_methods.py::test_an_unknown_method_is_404_in_the_modern_era_and_200_in_a_session
  H11 gateway: A modern body without the version header is a mismatch and not a session error.
    e2e/test_refusals.py::test_a_missing_version_header_is_a_mismatch_and_no_session_error

server/tools
  X1 should: Clashing names are told apart by a prefix, never by what a server calls itself.
    unit/protocol/test_naming.py::test_every_public_name_has_at_most_64_characters_that_clients_take
    unit/test_catalog.py::test_merged_names_are_unique_and_each_leads_to_its_own_backend
    unit/test_catalog.py::test_the_first_route_keeps_a_name_that_two_would_give

basic/transports/streamable-http
  X2 must: `Mcp-Name` is compared with the public name and made anew from the backend's.
    e2e/test_fidelity.py::test_the_backend_gets_its_own_name_and_the_client_sees_only_the_public_one
    unit/test_calls.py::test_a_tool_is_called_at_its_backend_under_its_own_name
  X3 must: Arguments are mirrored towards the backend by its latest schema, never by copying the client's headers.
    e2e/test_fidelity.py::test_a_mirrored_argument_is_checked_and_rebuilt_for_the_backend
    e2e/test_fidelity.py::test_a_legacy_client_needs_no_mirrored_argument_and_the_backend_gets_it

server/tools
  X4 must: A tool with an invalid header annotation is left out over HTTP; from a stdio backend the annotation is
  | removed.
    unit/test_catalog.py::test_an_invalid_header_annotation_leaves_a_tool_of_an_http_backend_out
    unit/test_catalog.py::test_an_invalid_header_annotation_of_a_stdio_backend_does_not_reach_clients_that_would_drop_the_tool
  X5 should: A backend's -32020 refreshes its list and repeats the call once; it is never relayed.
    integration/test_route_backend.py::test_stale_parameter_headers_are_made_anew_from_a_fresh_listing
    integration/test_route_backend.py::test_a_backend_that_says_it_has_left_the_era_is_asked_anew_and_the_call_repeated
    integration/test_modern_backend.py::test_changed_headers_and_a_changed_era_have_exceptions_of_their_own
  X6 gateway: Renames hold wherever a name occurs: prompts, completion, resources.
    unit/test_calls.py::test_a_prompt_is_got_under_its_own_name
    unit/test_calls.py::test_a_completion_of_a_prompt_goes_to_its_owner_under_its_own_name
    unit/test_calls.py::test_a_uri_that_a_backend_named_in_a_result_is_read_there_by_who_was_told
    e2e/test_references.py::test_a_resource_link_leads_to_the_backend_that_named_it
    e2e/test_references.py::test_a_completion_is_asked_of_the_owner_in_its_own_words
  X7 gateway: A single backend can be exposed with names and URIs unchanged.
    e2e/test_fidelity.py::test_a_plain_toolset_changes_no_name
    unit/test_catalog.py::test_plain_names_are_those_of_the_backend

server/discover
  D1 must: `server/discover` answers with versions, capabilities, `ttlMs`, `cacheScope`.
    unit/protocol/test_lifecycle.py::test_discovery_names_modern_versions_only_and_is_kept_by_nobody
  D2 must: Nothing is advertised that no backend has, and its methods are -32601.
    unit/protocol/test_lifecycle.py::test_nothing_is_promised_that_no_backend_has
    unit/test_methods.py::test_a_method_behind_a_feature_that_no_backend_has_is_unknown
    unit/test_catalog.py::test_capabilities_are_the_union_over_the_routes_of_a_toolset
  D3 must: An extension is advertised only where it is carried end to end.
    unit/protocol/test_clients.py::test_the_tasks_extension_is_not_carried_and_others_are
    unit/test_methods.py::test_discovery_promises_what_some_backend_of_the_toolset_has
    e2e/test_extensions.py::test_no_client_is_told_of_an_extension
  D4 note: `supportedVersions` has the versions of the per-request form alone.
    unit/protocol/test_lifecycle.py::test_discovery_names_modern_versions_only_and_is_kept_by_nobody
  D5 should: A modern-only server names its versions when it refuses `initialize`.
    not applicable because legacy clients are always served
  D6 gateway: `instructions` are bounded and attributed: they are text for a prompt.
    not applicable because the gateway gives no instructions, neither its own nor those of backends

server/utilities/pagination
  L1 must: Cursors are opaque, and one that was never given out is -32602. The empty string is a cursor.
    e2e/test_refusals.py::test_a_cursor_that_was_never_given_out_is_invalid
    unit/protocol/test_lifecycle.py::test_a_cursor_is_never_one_of_ours
    integration/test_modern_backend.py::test_an_empty_cursor_is_a_cursor
    unit/backends/test_listing.py::test_all_pages_are_read_in_order_and_nothing_in_them_is_lost

server/tools
  L2 should: The order is that of the configuration and then of each backend, never that of arrival.
    unit/test_catalog.py::test_the_order_is_that_of_the_routes_and_then_of_each_backend
  L3 must: Lists vary by authorization and by nothing else.
    unit/test_catalog.py::test_everybody_sees_what_their_scopes_allow
    unit/test_catalog.py::test_a_list_that_was_rendered_for_one_is_not_served_to_another

server/utilities/caching
  L4 must: Complete results of lists, discover and reads have `ttlMs` and `cacheScope`.
    unit/test_methods.py::test_a_modern_list_is_complete_and_private
    unit/test_calls.py::test_what_a_modern_client_reads_has_caching_hints_and_those_of_the_backend_stay
  L5 must: Private results are never served to another authorization.
    unit/test_catalog.py::test_a_list_that_was_rendered_for_one_is_not_served_to_another
    unit/protocol/test_lifecycle.py::test_a_list_has_the_definitions_as_they_are_and_is_private
  L6 gateway: A merged list is as fresh as its least fresh part, and private where policy filtered it.
    unit/test_methods.py::test_a_modern_list_is_complete_and_private
  L7 must: A cached answer is keyed by all parameters; answers to retries are never cached.
    not applicable because the gateway caches no answer of a backend: lists are a snapshot, everything else is forwarded
  L8 should: A change notification invalidates at once; polling has jitter and backoff.
    integration/test_route_backend.py::test_changed_tools_are_told_at_once
    unit/backends/test_backoff.py::test_waits_double_up_to_the_last
    unit/backends/test_backoff.py::test_chance_never_takes_more_than_a_quarter
  L9 must: Access control never rests on `cacheScope`.
    unit/test_catalog.py::test_the_list_is_exactly_what_may_be_called
    unit/policy/test_authorize.py::test_a_call_is_allowed_exactly_where_the_tool_is_listed
  L10 gateway: A backend that is down does not fail the merged list: its last listing is served and marked.
    e2e/test_backend_faults.py::test_calls_to_a_dead_http_backend_fail_at_once_and_its_tools_stay_listed
    e2e/test_backend_faults.py::test_a_failing_list_never_empties_what_was_listed
    unit/protocol/test_lifecycle.py::test_a_list_names_the_routes_whose_part_is_stale

server/tools
  C1 must: Unknown tools, prompts, resources and cursors are -32602; failures of a tool are results.
    e2e/test_refusals.py::test_an_unknown_tool_is_a_protocol_error_at_200
    e2e/test_refusals.py::test_bad_arguments_are_a_tool_result_that_names_every_violation
    unit/protocol/test_answers.py::test_an_error_result_of_a_backend_is_a_result_at_200

server/resources
  C2 must: A resource that is not found is -32602, in the modern era never -32002, also where a legacy backend says
  | that.
    unit/test_calls.py::test_a_uri_that_nobody_owns_is_unknown_in_the_words_of_the_era
    integration/test_parking.py::test_errors_that_the_new_era_does_not_know_are_said_in_its_words

server/tools
  C3 gateway: Content passes byte for byte: unknown fields, nulls, exact numbers.
    e2e/test_fidelity.py::test_a_result_arrives_as_the_bytes_of_a_direct_call
    e2e/test_fidelity.py::test_arguments_reach_the_backend_as_the_bytes_that_were_sent
    unit/protocol/test_answers.py::test_a_structured_content_of_null_is_not_dropped
    integration/test_modern_backend.py::test_a_result_keeps_unknown_fields_nulls_and_exact_numbers
    integration/test_stdio_supervision.py::test_what_no_model_knows_passes_unchanged

basic/index
  C4 must: Schemas are those of the backend; no reference leaves the document; size and depth are bounded.
    unit/test_catalog.py::test_a_definition_is_the_backends_but_for_the_name
    unit/policy/test_validate.py::test_a_schema_that_leaves_its_document_or_is_none_makes_the_tool_uncallable_with_words
    unit/policy/test_validate.py::test_any_json_schema_of_its_dialect_decides
    integration/test_modern_backend.py::test_an_entry_over_200_kb_is_left_out_and_logged

server/tools
  C5 should: Structured results are judged by clients; a relay does not.
    not applicable because the gateway never checks a result against `outputSchema`; results pass as bytes (C3)

server/utilities/completion
  C6 must: Completions are routed to the owner of the prompt or of the resource; at most 100 values.
    unit/test_calls.py::test_a_completion_of_a_prompt_goes_to_its_owner_under_its_own_name
    unit/test_calls.py::test_a_completion_of_a_resource_goes_to_its_owner_unchanged
    e2e/test_references.py::test_a_completion_is_asked_of_the_owner_in_its_own_words

server/resources
  C7 gateway: A URI is read at its owner: listed, by template, or named before in a result for this principal.
    unit/test_calls.py::test_a_resource_is_read_at_its_owner_by_uri_or_template
    unit/test_calls.py::test_a_uri_that_a_backend_named_in_a_result_is_read_there_by_who_was_told
    unit/test_seen.py::test_what_one_principal_was_told_says_nothing_to_another
    e2e/test_replicas.py::test_a_resource_that_a_result_named_at_one_replica_is_known_at_the_other
    unit/test_catalog.py::test_a_listed_resource_goes_before_a_template_that_matches_it

server/tools
  C8 must: Tools and completions are limited, recorded and authorized one by one.
    e2e/test_limits.py::test_the_31st_call_of_a_minute_is_refused_and_told_exactly_when_to_come_back
    unit/test_calls.py::test_a_completion_needs_the_scopes_of_what_it_completes
    e2e/test_refusals.py::test_too_few_scopes_are_a_403_that_names_all_that_are_needed
    unit/test_pipeline.py::test_a_limit_on_another_method_is_a_429_but_in_a_session
  C9 must: Annotations of a tool are trusted only where the operator says so.
    unit/test_catalog.py::test_a_tool_is_idempotent_by_an_annotation_that_the_operator_trusts

basic/transports/streamable-http
  W1 must: What is not JSON is -32700 with 400.
    e2e/test_refusals.py::test_what_is_no_message_is_a_400_with_its_code
  W2 must: What is no request or notification, or has a bad id, is -32600 with 400.
    e2e/test_refusals.py::test_what_is_no_message_is_a_400_with_its_code
    unit/test_pipeline.py::test_what_is_no_request_is_a_400_with_the_id_that_could_be_read

server/resources
  W3 must: Internal errors, and backends that cannot be reached or are late, are said at 200 once a request was
  | dispatched.
    unit/test_pipeline.py::test_a_failure_after_dispatch_is_a_200_that_says_so
    e2e/test_backend_faults.py::test_calls_to_a_dead_http_backend_fail_at_once_and_its_tools_stay_listed
    unit/protocol/test_answers.py::test_what_was_dispatched_is_never_an_error_status

basic/authorization
  W4 must: No token or a bad one is 401, a lack of scopes 403.
    e2e/test_refusals.py::test_without_a_token_the_challenge_tells_where_and_for_what
    e2e/test_refusals.py::test_a_token_that_is_none_is_a_401_that_says_so
    e2e/test_refusals.py::test_too_few_scopes_are_a_403_that_names_all_that_are_needed

2025-11-25 basic/transports
  W5 must: A legacy session that is unknown or ended is 404; a missing session id or a bad version header is 400.
    e2e/test_legacy_clients.py::test_a_session_id_that_is_none_or_was_tampered_with_is_a_404
    e2e/test_legacy_clients.py::test_after_delete_a_session_is_a_404
    e2e/test_legacy_clients.py::test_a_request_without_a_session_id_is_a_400_that_says_what_is_missing
    e2e/test_legacy_clients.py::test_a_version_header_of_no_session_is_a_400

basic/index
  W6 must: Codes of the specification have their defined meaning, and codes of the gateway lie outside of the
  | reserved range.
    unit/test_errors.py::test_no_code_of_ours_is_in_the_range_that_json_rpc_reserves
    unit/protocol/test_answers.py::test_each_refusal_is_said_as_the_table_says
  W7 must: -32002 and -32042 are never said in the modern era.
    integration/test_parking.py::test_errors_that_the_new_era_does_not_know_are_said_in_its_words
    integration/test_parking.py::test_a_url_that_must_be_opened_first_is_asked_for_and_then_the_call_is_made_anew

basic/patterns/mrtr
  R1 must: `input_required` answers three methods only, and holds well-formed requests.
    integration/test_modern_backend.py::test_only_the_three_methods_may_be_answered_with_a_question
    integration/test_modern_backend.py::test_a_question_that_is_none_is_unusable
    unit/backends/test_asks.py::test_nothing_else_is_a_question
  R2 must: No question reaches a client that it did not declare; capabilities go to the backend unchanged.
    unit/backends/test_asks.py::test_a_question_needs_its_capability
    integration/test_parking.py::test_nothing_that_was_not_declared_is_announced_or_asked
    unit/protocol/test_clients.py::test_modern_capabilities_are_carried_as_they_are
  R3 must: A backend's `requestState` comes back to it exactly, on the retry alone.
    unit/test_calls.py::test_the_state_of_a_backend_crosses_sealed_and_comes_back_to_it
    unit/test_calls.py::test_a_question_without_a_state_is_passed_on_without_one
    integration/test_modern_backend.py::test_a_state_alone_asks_for_nothing_but_a_retry
  R4 must: A state from a client is protected, bound to principal and request, expires, and where it must is single
  | use.
    unit/protocol/test_request_state.py::test_a_tampered_state_is_refused
    unit/protocol/test_request_state.py::test_a_state_is_of_one_principal_request_and_backend
    unit/protocol/test_request_state.py::test_a_state_expires
    e2e/test_replicas.py::test_a_handle_is_single_use_at_every_replica
  R5 gateway: A state is useless to another user, request or backend, and any replica opens it. A bad one is -32602.
    unit/test_calls.py::test_a_state_of_another_principal_tool_or_argument_is_refused_and_nothing_is_sent
    unit/test_calls.py::test_any_process_goes_on_with_a_backend_that_keeps_nothing
  R6 should: Bad `inputResponses` are an error; what is missing is asked for again.
    unit/test_calls.py::test_answers_that_are_no_object_are_refused_and_nothing_is_sent
    integration/test_parking.py::test_two_questions_at_once_are_one_round_and_what_is_missing_is_asked_again
  R7 must: A retry has a new id, towards the backend too.
    integration/test_modern_backend.py::test_a_retry_brings_the_answers_and_the_state_under_a_new_id

client/elicitation
  R8 must: A client must show which server asks: the name of the route is carried with the question.
    unit/protocol/test_asked.py::test_every_question_names_the_route_beside_what_the_backend_says
    unit/test_calls.py::test_a_legacy_client_is_asked_and_its_answer_brought_with_the_state
  R9 gateway: URL elicitation of a backend with a shared credential is withheld unless configured.
    unit/test_calls.py::test_with_several_people_a_backend_is_told_of_urls_only_where_its_route_says_so
    unit/protocol/test_clients.py::test_urls_are_withheld_and_never_become_forms

basic/patterns/mrtr
  R10 gateway: Rounds are bounded where the gateway drives the loop.
    unit/test_calls.py::test_a_backend_that_asks_for_ever_is_stopped
    unit/test_calls.py::test_a_backend_may_not_ask_what_no_client_answers_nor_too_much

basic/patterns/subscriptions
  S1 must: The first message acknowledges the subset that is honoured.
    unit/http/test_subscriptions.py::test_the_first_message_acknowledges_what_is_honoured_under_the_clients_id
  S2 must: Every message has the id of the client's listen request, with its type.
    unit/http/test_filters.py::test_every_message_of_a_modern_stream_is_one_of_the_schema_with_the_clients_own_id
  S3 must: Nothing is told that was not asked for.
    unit/http/test_subscriptions.py::test_nothing_is_told_that_was_not_asked_for
    unit/http/test_filters.py::test_a_filter_holds_what_is_asked_for_and_is_true
  S4 should: A stream that the gateway ends has a final result.
    unit/http/test_subscriptions.py::test_the_gateway_ends_a_modern_stream_with_a_result_and_opens_no_more
    e2e/test_lifecycle.py::test_sigterm_lets_running_calls_end_and_tells_streams
  S5 gateway: One stream for each backend, as wide as all clients need; a growing one is opened before the former is
  | closed, and a gap counts as a change.
    unit/backends/test_listen.py::test_more_resources_open_a_larger_stream_before_the_smaller_is_closed
    unit/backends/test_listen.py::test_a_lost_stream_is_opened_again_and_all_may_have_changed
    unit/backends/test_listen.py::test_a_backend_that_is_down_is_tried_less_and_less
  S6 gateway: Changes of a part of a watched resource are told, by owner.
    unit/http/test_subscriptions.py::test_a_part_of_a_watched_resource_is_told
    integration/test_modern_changes.py::test_watched_resources_are_told_by_a_larger_stream_and_others_are_not
  S7 gateway: Changes of the gateway's own lists are told.
    e2e/test_legacy_clients.py::test_a_reload_is_told_on_the_stream
    unit/http/test_subscriptions.py::test_a_route_that_a_client_does_not_see_is_not_heard_of_but_a_reload_is
  S8 gateway: Streams are bounded, each and all, kept alive, and a client that stopped reading is dropped.
    unit/http/test_streams.py::test_a_client_that_takes_nothing_is_dropped
    unit/http/test_streams.py::test_a_silent_stream_is_kept_alive
    unit/http/test_subscriptions.py::test_streams_are_bounded_and_counted
  S9 note: Nothing is kept of a stream that broke; over stdio it is listened to again.
    integration/test_parking.py::test_a_modern_backend_over_stdio_is_listened_to_also_after_it_was_restarted
    e2e/test_legacy_clients.py::test_a_stream_that_is_left_is_forgotten

basic/patterns/progress
  P1 must: Progress goes out under a token of the gateway and comes back under the client's, with its type; no
  | token, no progress.
    e2e/test_streams.py::test_a_modern_client_gets_progress_under_its_own_token
    e2e/test_streams.py::test_the_backend_never_sees_the_clients_token
    e2e/test_streams.py::test_without_a_token_nothing_is_asked_for_and_nothing_comes
    e2e/test_streams.py::test_many_calls_at_once_keep_their_progress_apart
  P2 must: Progress belongs to an active request and ends with it.
    e2e/test_streams.py::test_progress_under_a_foreign_token_reaches_nobody
    e2e/test_streams.py::test_progress_is_passed_on_at_once_not_with_the_result

basic/patterns/cancellation
  K1 must: A client that hangs up cancels, in the way that the backend's era and transport want.
    e2e/test_streams.py::test_a_client_that_hangs_up_cancels_the_call_at_a_modern_backend
    e2e/test_streams.py::test_a_client_that_hangs_up_cancels_the_call_at_a_stdio_backend
    integration/test_session_backends.py::test_two_hundred_cancelled_calls_end_at_the_server_and_leave_nothing_here
    e2e/test_cancelled_calls.py::test_a_thousand_calls_that_were_given_up_leave_nothing_behind
  K2 must: Late answers to cancelled requests are passed over.
    unit/backends/test_envelope.py::test_an_answer_counts_with_our_id_alone
    e2e/test_streams.py::test_nothing_is_left_of_a_hundred_calls_that_were_cancelled
    e2e/test_resuming.py::test_a_call_that_is_cancelled_gets_no_answer_and_breaks_no_connection
    e2e/test_resuming.py::test_a_stream_whose_call_is_cancelled_ends_without_an_answer
  K3 should: Every request to a backend has a timeout, which progress restarts, and a hard end.
    e2e/test_backend_faults.py::test_a_hanging_tool_is_given_up_in_its_time_and_its_call_cancelled
    integration/test_stdio_supervision.py::test_progress_restarts_the_idle_time_but_not_the_hard_end

2025-11-25 basic/utilities/cancellation
  K4 must: `initialize` is never cancelled.
    unit/http/test_conversations.py::test_nothing_else_cancels_it
    integration/test_session_backends.py::test_who_leaves_while_a_session_is_opened_does_not_take_it_from_the_others

server/utilities/logging
  G1 must: Log messages come only at the level that the request names, on its own stream.
    unit/protocol/test_clients.py::test_a_request_wants_the_level_it_names_or_no_messages
    unit/protocol/test_clients.py::test_a_level_there_is_none_of_is_refused_with_those_there_are
    integration/test_modern_backend.py::test_nobody_hears_log_messages_or_progress_that_was_not_asked_for
    unit/backends/test_senders.py::test_a_message_goes_to_the_call_on_whose_stream_it_came
  G2 must: `logging` is advertised where log messages are passed on.
    unit/protocol/test_lifecycle.py::test_nothing_is_promised_that_no_backend_has
    integration/test_parking.py::test_log_messages_reach_the_call_that_wants_them_and_the_backend_is_told_the_level

basic/index
  O1 must: `traceparent`, `tracestate` and `baggage` follow W3C, from `_meta` before headers, and go on to the
  | backend.
    e2e/test_traces.py::test_a_call_is_one_trace_from_the_client_to_the_backend
    unit/protocol/test_protocol_tracing.py::test_the_parent_in_meta_goes_before_the_one_in_headers
    unit/protocol/test_protocol_tracing.py::test_where_nothing_is_traced_the_clients_context_goes_on_as_it_came

basic/authorization
  A1 must: Metadata of RFC 9728 with the authorization servers, at both places, named in the challenge.
    unit/protocol/test_authorization.py::test_the_document_names_the_resource_and_its_authorization_servers
    unit/protocol/test_authorization.py::test_the_document_is_between_host_and_path
    e2e/test_refusals.py::test_without_a_token_the_challenge_tells_where_and_for_what
  A2 must: The token of every request is checked, and taken from `Authorization` alone.
    e2e/test_refusals.py::test_two_tokens_in_one_request_are_refused
    e2e/test_legacy_clients.py::test_an_expired_token_in_a_session_is_a_401
    e2e/test_envelope.py::test_a_token_in_the_query_is_none
  A3 must: Only tokens that were issued for the gateway are accepted.
    unit/policy/test_authenticate.py::test_a_bad_token_is_refused_for_its_reason
    unit/test_pipeline.py::test_a_token_for_a_toolset_is_good_there_only
  A4 must: The client's token, cookies and addresses never reach a backend.
    e2e/test_fidelity.py::test_credentials_cookies_and_addresses_of_the_client_never_reach_a_backend
    unit/test_calls.py::test_the_token_of_the_client_never_reaches_a_backend
  A5 should: A challenge names the scopes, all of them at once.
    e2e/test_refusals.py::test_too_few_scopes_are_a_403_that_names_all_that_are_needed
    unit/protocol/test_authorization.py::test_a_lack_of_scope_names_all_that_are_needed_and_not_the_hint
  A6 must: Scopes that others include count; `offline_access` is never advertised.
    unit/policy/test_authenticate.py::test_scopes_are_expanded_by_what_they_imply
    unit/protocol/test_authorization.py::test_offline_access_is_never_advertised
  A7 must: HTTPS except on loopback.
    unit/egress/test_documents.py::test_https_and_loopback_are_secure
    e2e/test_lifecycle.py::test_without_auth_it_serves_this_machine_alone_and_says_so_loudly
  A8 gateway: A backend's 401 or 403 is never relayed as the gateway's.
    integration/test_modern_backend.py::test_a_refusal_of_our_credentials_is_not_relayed
    e2e/test_backend_faults.py::test_an_answer_that_is_none_is_backend_unavailable_and_says_nothing_of_the_backend
  A9 must: An OAuth proxy with a static client id asks for consent for each client.
    not applicable because the gateway is a resource server only and no authorization server or proxy
  A10 must: Handles and session ids are no credentials: bound to the principal and checked each time.
    e2e/test_legacy_clients.py::test_the_session_of_another_principal_is_a_404_and_stays_usable_for_its_owner
    integration/test_parking.py::test_a_handle_is_good_for_its_principal_and_its_request_alone
  A11 note: stdio backends get their credentials from the environment, and none of the gateway's.
    integration/test_stdio_supervision.py::test_it_sees_its_own_environment_and_none_of_the_secrets_of_ours

basic/authorization/security-considerations
  B1 must: What was named by a document of others is fetched over HTTPS from public addresses only, without
  | redirects.
    unit/egress/test_documents.py::test_what_a_document_names_elsewhere_must_be_public
    integration/test_egress_guarded.py::test_the_client_of_the_public_does_not_connect_to_a_private_address
    integration/test_jwks_over_http.py::test_a_redirect_is_not_followed

basic/authorization/authorization-server-discovery
  B2 must: The `issuer` in a metadata document is the one that was asked.
    unit/stores/test_jwks.py::TestDiscovery::test_metadata_of_another_or_without_a_safe_address_is_not_used
    unit/backends/credentials/test_metadata.py::test_a_document_of_another_issuer_is_refused
  B4 must: The authorization server of a backend is named by its challenge, or by its metadata below the path and at
  | the root, in this order.
    unit/backends/credentials/test_endpoint.py::test_a_challenge_says_where_the_metadata_are_and_which_scopes_it_wants
    unit/backends/credentials/test_metadata.py::test_metadata_are_looked_for_below_the_path_first

basic/authorization
  B5 must: PKCE with S256, and no server that does not say that it has it.
    unit/backends/credentials/test_connecting.py::test_a_server_without_pkce_is_not_used
    unit/backends/credentials/test_connecting.py::test_from_the_link_to_the_grant
  B6 must: Authorization and token requests name the resource.
    unit/backends/credentials/test_connecting.py::test_from_the_link_to_the_grant
    unit/backends/credentials/test_forms.py::test_a_request_says_what_the_token_is_for

basic/authorization/security-considerations
  B7 must: `iss` of an answer is compared exactly before the code is redeemed, also where the answer is an error.
    unit/backends/credentials/test_connecting.py::test_a_server_that_says_that_it_names_itself_has_to
    unit/backends/credentials/test_connecting.py::test_an_answer_that_grants_nothing_connects_nothing
  B8 must: Credentials belong to one issuer and are sent to no other.
    unit/backends/credentials/test_endpoint.py::test_a_backend_that_changes_its_authorization_server_gets_no_secret_sent_there
  B9 should: A state protects the answer: of this browser, single use, short.
    unit/backends/credentials/test_connecting.py::test_an_answer_counts_once_and_soon_and_only_with_a_state_of_ours
    unit/backends/credentials/test_connecting.py::test_what_was_begun_in_one_browser_does_not_end_in_another

basic/authorization/client-registration
  B3 should: Clients register by metadata documents, or dynamically.
    not applicable because credentials towards backends are configured; the gateway registers nowhere

extensions/tasks
  N1 must: A task is an answer only to a request that declared the extension.
    unit/protocol/test_clients.py::test_the_tasks_extension_is_not_carried_and_others_are
    unit/test_methods.py::test_both_eras_have_the_methods_of_their_specification_that_are_requests_of_a_client
    unit/test_calls.py::test_a_task_that_no_client_was_declared_to_take_is_not_passed_on
  N2 gateway: Until tasks are carried, the extension is taken out of the capabilities that backends see.
    e2e/test_extensions.py::test_no_backend_is_told_of_tasks_and_a_modern_one_of_what_passes_through
    unit/protocol/test_clients.py::test_the_tasks_extension_is_not_carried_and_others_are
  N3 must: Tasks of 2025-11-25 are another protocol: tools that run only as tasks are not offered.
    unit/backends/test_questions.py::test_tools_that_run_only_as_tasks_are_not_offered_and_the_others_do_not_speak_of_it

extensions/apps
  N4 gateway: Apps keep working: extension capabilities, `_meta` and `ui://` reads go to the backend that owns them.
    unit/protocol/test_clients.py::test_extensions_of_another_type_are_left_to_the_backend
    unit/test_catalog.py::test_plain_names_are_those_of_the_backend
    unit/test_calls.py::test_a_uri_that_a_backend_named_in_a_result_is_read_there_by_who_was_told

extensions/enterprise-managed-authorization
  N5 must: Identity assertions are exchanged at the identity provider and redeemed at the server's authorization
  | server.
    not applicable because the gateway has no sign-in of its own that an identity provider would issue assertions to

extensions/oauth-client-credentials
  N6 must: Client credentials: a secret, or a signed assertion.
    unit/backends/credentials/test_forms.py::test_a_secret_goes_in_a_header_and_not_in_the_form
    unit/backends/credentials/test_forms.py::test_a_key_signs_an_assertion_for_one_place_and_a_short_time
    integration/test_credentials.py::test_every_request_bears_one_token_of_the_gateway

2025-11-25 basic/lifecycle
  Y1 must: `initialize` answers with the version that was asked for if it is served, else with another.
    e2e/test_legacy_clients.py::test_initialize_gives_the_revision_that_was_asked_for_or_the_latest_legacy_one
    unit/protocol/test_lifecycle.py::test_a_revision_that_is_not_served_is_answered_with_the_latest_of_its_era

2025-11-25 basic/transports
  Y2 must: A session id is unguessable, bound to the principal, and authenticates nobody.
    unit/protocol/test_session.py::test_one_changed_byte_anywhere_makes_a_session_unknown
    e2e/test_legacy_clients.py::test_the_session_of_another_principal_is_a_404_and_stays_usable_for_its_owner
    e2e/test_legacy_clients.py::test_an_expired_token_in_a_session_is_a_401
  Y3 must: An ended or unknown session is 404, and DELETE ends one.
    e2e/test_legacy_clients.py::test_after_delete_a_session_is_a_404
    e2e/test_legacy_clients.py::test_a_session_id_that_is_none_or_was_tampered_with_is_a_404
    e2e/test_replicas.py::test_a_session_ended_at_one_replica_has_ended_at_the_other
  Y4 must: GET is a stream of what belongs to no call, and needs a session.
    e2e/test_legacy_clients.py::test_a_stream_needs_a_session_and_an_accept_header
    unit/http/test_subscriptions.py::test_a_session_is_told_on_its_stream_without_ids
  Y5 must: A message goes to one stream. What is resumed comes from the same stream, after a priming event.
    unit/http/test_subscriptions.py::test_a_session_has_one_stream_the_youngest
    unit/http/test_resumption.py::test_a_stream_is_found_by_its_own_session_and_toolset_only
    unit/http/test_kept.py::test_it_begins_with_a_priming_event_without_data
    e2e/test_resuming.py::test_another_session_gets_nothing_of_it_but_its_own_stream
  Y6 must: Posted responses and notifications are 202.
    e2e/test_legacy_clients.py::test_notifications_and_posted_answers_are_accepted_without_a_body
    unit/test_pipeline.py::test_what_a_session_posts_reaches_whom_it_concerns
  Y7 should: A legacy client that hangs up has not cancelled; its answer is kept for a while.
    e2e/test_resuming.py::test_a_call_goes_on_without_its_client_which_comes_back_for_the_answer
    e2e/test_resuming.py::test_a_call_that_was_left_can_still_be_cancelled
  Y8 should: Without a version header the session tells the revision; an unsupported one is 400.
    e2e/test_legacy_clients.py::test_a_version_header_of_no_session_is_a_400
    unit/test_pipeline.py::test_a_session_is_spoken_to_in_a_legacy_version

2025-03-26 basic/index
  Y9 must: Batches are received at 2025-03-26 and at no other revision.
    e2e/test_legacy_clients.py::test_a_batch_is_split_run_and_joined_at_its_revision
    e2e/test_legacy_clients.py::test_a_batch_is_refused_at_other_revisions
    unit/test_cancelled_batches.py::test_every_request_of_a_batch_that_is_not_cancelled_while_it_runs_has_one_answer

2024-11-05 basic/transports
  Y10 may: HTTP+SSE is spoken to backends.
    integration/test_sse_backends.py::test_a_server_of_2024_is_found_and_called

2025-11-25 basic/utilities/ping
  Y11 gateway: `ping` is answered here on both sides and never forwarded.
    unit/test_methods.py::test_ping_is_answered_here_in_a_session_and_unknown_in_the_modern_era
    integration/test_stdio_supervision.py::test_requests_of_the_backend_are_answered
"""


def _read(table: str) -> Iterator[Requirement]:
    page = ""
    for block in re.split(r"\n(?=  \w|\S)", table.strip("\n").replace("\n  | ", " ").replace("\n\n", "\n")):
        first, *below = (line.strip() for line in block.splitlines())
        if not block.startswith(" "):
            page = first
            continue
        name, level, behaviour = re.split(r":? ", first, maxsplit=2)
        tests = tuple(line for line in below if "::" in line)
        yield Requirement(name, level, page, behaviour, tests, " ".join(line for line in below if line not in tests))


REQUIREMENTS = tuple(_read(_TABLE))

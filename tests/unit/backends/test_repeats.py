import msgspec
import pytest
from msgspec.structs import replace

from gateway.backends import link
from gateway.backends.repeats import Repeats, with_fresh_headers
from gateway.errors import BackendUnavailable
from gateway.models import ANONYMOUS, BackendRequest, Listing

CALL = BackendRequest("tools/call", {"name": "t", "arguments": msgspec.Raw(b'{"region":"eu"}')}, ANONYMOUS, name="t")
IDEMPOTENT = replace(CALL, idempotent=True)


def test_what_was_never_sent_may_be_sent_again_whatever_the_tool() -> None:
    assert Repeats().allow(link.refused("r"), CALL)


def test_what_was_sent_may_not_unless_the_tool_is_idempotent() -> None:
    assert not Repeats().allow(link.broken("r"), CALL)
    assert Repeats().allow(link.broken("r"), IDEMPOTENT)


@pytest.mark.parametrize(
    "failure", [link.late("r", 1.0), link.unusable("r"), link.too_large("r"), link.not_admitted("r"), link.busy("r")]
)
def test_nothing_but_a_transport_error_is_repeated(failure: BackendUnavailable) -> None:
    assert not Repeats().allow(failure, IDEMPOTENT)


def test_repetitions_of_what_was_sent_stay_within_a_fifth_of_the_calls() -> None:
    repeats = Repeats()
    while repeats.allow(link.broken("r"), IDEMPOTENT):
        pass

    allowed = 0
    for _ in range(100):
        repeats.earn()
        allowed += repeats.allow(link.broken("r"), IDEMPOTENT)

    assert 19 <= allowed <= 20


def test_the_headers_are_made_anew_by_the_present_definition() -> None:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    listing = Listing("r", ({"name": "t", "inputSchema": schema},), 0.0)

    fresh = with_fresh_headers(replace(CALL, headers={"Mcp-Param-Old": "x"}), listing)

    assert fresh.headers == {"Mcp-Param-Region": "eu"}
    assert fresh.params is CALL.params


def test_a_tool_that_is_gone_leaves_the_request_as_it_is() -> None:
    assert with_fresh_headers(CALL, Listing("r", (), 0.0)) is CALL
    assert with_fresh_headers(CALL, None) is CALL

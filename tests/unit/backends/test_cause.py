"""What the operator reads."""

import socket

from gateway.backends import link
from gateway.backends.cause import because, cause_of
from gateway.backends.http1 import HttpError


def chained(failure: BaseException, root: BaseException) -> BaseException:
    failure.__cause__ = root
    return failure


def test_a_reason_that_was_given_is_said() -> None:
    assert cause_of(because(link.unreachable("r"), "HTTP status 503")) == "HTTP status 503"


def test_the_root_says_more_than_what_was_made_of_it() -> None:
    refused = chained(HttpError("connection refused", sent=False), OSError(111, "Connect call failed ('10.0.0.1', 1)"))
    assert cause_of(chained(link.refused("r"), refused)) == "connection refused"
    assert cause_of(chained(link.refused("r"), HttpError("name not found", sent=False))) == "name not found"


def test_no_address_is_said() -> None:
    assert cause_of(chained(link.refused("r"), OSError(111, "Connect call failed ('10.0.0.1', 1)"))) == (
        "connection refused"
    )
    unknown = socket.gaierror(-2, "db.internal is not known")
    assert cause_of(chained(link.refused("r"), unknown)) == "name not found"


def test_a_program_that_is_not_there_is_named_without_its_folder() -> None:
    missing = FileNotFoundError(2, "No such file or directory", "/opt/secret/mcp-server-x")
    assert cause_of(chained(link.refused("r"), missing)) == "not found: mcp-server-x"


def test_a_failure_without_a_cause_is_named() -> None:
    assert cause_of(link.late("r", 1.0)) == "BackendTimeout"


def test_a_suppressed_cause_is_found_and_a_circle_ends() -> None:
    first, second = link.refused("r"), link.refused("r")
    first.__context__, second.__context__ = second, first
    assert cause_of(first) == "ConnectionLost"

import pytest

from gateway.backends import probe


@pytest.mark.parametrize(
    ("versions", "era"),
    [
        (["2026-07-28"], "modern"),
        (["2025-11-25", "2026-07-28"], "modern"),
        (["2025-11-25"], "legacy"),
        ([], "legacy"),
        (None, "legacy"),
        ("2026-07-28", "legacy"),
    ],
)
def test_a_result_is_evidence_of_the_modern_era_only_if_it_names_a_modern_revision(versions: object, era: str) -> None:
    assert probe.era_of_result({"supportedVersions": versions}) == era


@pytest.mark.parametrize("code", [-32601, -32600, -32602, -32603, -32000, -32001, 0, 404])
def test_no_other_error_is_evidence_of_the_modern_era(code: int) -> None:
    assert probe.era_of_error(code, None) == "legacy"


@pytest.mark.parametrize("code", [-32020, -32021])
def test_errors_that_only_a_modern_server_gives_are(code: int) -> None:
    assert probe.era_of_error(code, None) == "modern"


@pytest.mark.parametrize(
    ("data", "era"),
    [
        ({"supported": ["2026-07-28"]}, "modern"),
        ({"supported": ["2025-11-25"]}, "legacy"),
        ({"supported": "2026-07-28"}, "legacy"),
        (["2026-07-28"], "legacy"),
        (None, "legacy"),
    ],
)
def test_an_unsupported_version_counts_by_the_revisions_it_names(data: object, era: str) -> None:
    assert probe.era_of_error(-32022, data) == era


@pytest.mark.parametrize(
    ("word", "era"),
    [("auto", None), ("modern", "modern"), ("legacy", "legacy"), ("2026-07-28", "modern"), ("2025-03-26", "legacy")],
)
def test_a_pinned_era_or_revision_needs_no_probe(word: str, era: str | None) -> None:
    assert probe.pinned(word) == era


def test_who_answered_is_read_where_each_era_says_it() -> None:
    name = {"name": "x", "future": None}

    assert probe.server_info_of({"serverInfo": name}) == name
    assert probe.server_info_of({"_meta": {"io.modelcontextprotocol/serverInfo": name}}) == name
    assert probe.server_info_of({"serverInfo": "x", "_meta": None}) is None

"""What is tallied is exposed as prometheus_client would have counted it."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.models import Limit
from gateway.ports import Take, Verdict
from gateway.telemetry.metrics import _SECONDS, Metrics, _Durations

LIMIT = Limit("limits.everyone", ("principal",), 1, 60.0, 1)


def _samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(lambda: None).decode()
    families = text_string_to_metric_families(text)
    return {(it.name, tuple(sorted(it.labels.items()))): it.value for family in families for it in family.samples}


@given(st.lists(st.floats(min_value=0, max_value=1000), max_size=30))
def test_durations_are_exposed_as_if_each_had_been_observed(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = _Durations(Histogram("x", "x", ["l"], registry=ours, buckets=_SECONDS))
    expected = Histogram("x", "x", ["l"], registry=theirs, buckets=_SECONDS)
    for value in values:
        expected.labels("a").observe(value)
    for some in filter(None, (values[:2], values[2:])):
        tally.add(("a",), some)
    tally.flush()

    def numbers(registry: CollectorRegistry) -> dict[str, float]:
        lines = generate_latest(registry).decode().splitlines()
        return {
            line.rpartition(" ")[0]: round(float(line.rpartition(" ")[2]), 6)
            for line in lines
            if not line.startswith("#") and "_created" not in line
        }

    assert numbers(ours) == numbers(theirs)


def test_requests_are_counted_by_their_labels_over_several_scrapes() -> None:
    metrics = Metrics("1")
    labels = (("era", "modern"), ("method", "tools/call"), ("outcome", "ok"), ("route", "r"), ("tool", "t"))
    for expected in (1.0, 2.0):
        metrics.request("tools/call", "r", "t", "ok", "modern", 0.01)
        assert _samples(metrics)[("mcp_gateway_requests_total", labels)] == expected


def test_what_a_limit_that_only_watches_would_have_refused_is_counted_as_shadow_and_not_as_allowed() -> None:
    metrics = Metrics("1")
    other = Limit("limits.other", ("tool",), 5, 60.0, 5, enforce=False)
    takes = [Take(LIMIT, "a"), Take(other, "b")]
    metrics.limits(takes, Verdict(None, 0.0))
    metrics.limits(takes, Verdict(None, 0.0, watching=(other,)))
    name = "mcp_gateway_rate_limit_decisions_total"
    counted = {labels: value for (series, labels), value in _samples(metrics).items() if series == name}
    assert counted == {
        (("decision", "allowed"), ("limit", "limits.everyone")): 2.0,
        (("decision", "allowed"), ("limit", "limits.other")): 1.0,
        (("decision", "shadow"), ("limit", "limits.other")): 1.0,
    }


def test_a_refusal_counts_for_the_limit_that_refused_and_for_no_other() -> None:
    metrics = Metrics("1")
    other = Limit("limits.other", ("tool",), 5, 60.0, 5)
    takes = [Take(LIMIT, "a"), Take(other, "b")]
    metrics.limits(takes, Verdict(LIMIT, 1.0))
    metrics.limits(takes, Verdict(None, 0.0))
    metrics.limits(takes, Verdict(None, 0.0, degraded=True))
    name = "mcp_gateway_rate_limit_decisions_total"
    counted = {labels: value for (metric, labels), value in _samples(metrics).items() if metric == name}
    assert counted == {
        (("decision", "allowed"), ("limit", "limits.everyone")): 1.0,
        (("decision", "allowed"), ("limit", "limits.other")): 1.0,
        (("decision", "degraded"), ("limit", "limits.everyone")): 1.0,
        (("decision", "degraded"), ("limit", "limits.other")): 1.0,
        (("decision", "refused"), ("limit", "limits.everyone")): 1.0,
    }


def test_a_series_of_failures_exists_before_the_first_failure() -> None:
    metrics = Metrics("1")
    metrics.audit("file", "failed", 0)
    assert _samples(metrics)[("mcp_gateway_audit_events_total", (("result", "failed"), ("sink", "file")))] == 0.0

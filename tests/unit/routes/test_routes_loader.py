from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes import ConfigError, load, parse

GOOD = "routes: [{name: a, backend: {url: 'http://a/mcp'}}]\n"


def problems_of(text: str, **environ: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse(text, source="routes.yaml", environ=environ)
    assert all(problem.line and problem.file == "routes.yaml" for problem in caught.value.problems)
    return [(problem.path, problem.message) for problem in caught.value.problems]


def route(more: str = "", name: str = "a", backend: str = "url: 'http://a/mcp'") -> str:
    return f"{{name: {name}, backend: {{{backend}}}{more}}}"


def file(*routes: str, more: str = "") -> str:
    return f"routes: [{', '.join(routes)}]\n{more}"


def costly(text: str) -> str:
    limits = "limits: [{name: few, per: tool, limit: 5, window: 1s}, {name: slots, per: tool, concurrency: 5}]\n"
    return limits + file(route(f", tools: {{x: {{{text}}}}}"))


def limit(text: str) -> str:
    return GOOD + f"limits: [{{{text}}}]\n"


def auth(issuer: str, more: str = "", resource: str = "https://r.example") -> str:
    return GOOD + f"auth: {{resource: '{resource}', issuers: [{{{issuer}}}]{more}}}\n"


ISSUER = "issuer: 'https://i.example'"
BACKEND = "routes[0].backend"

BAD = {
    "empty": ("", "", "not a mapping"),
    "list": ("- a", "", "not a mapping"),
    "syntax": ("routes: [", "", "not YAML"),
    "no routes": ("limits: []", "routes", "required"),
    "empty routes": ("routes: []", "routes", "at least 1"),
    "routes no list": ("routes: {a: 1}", "routes", "must be a list"),
    "route no mapping": ("routes: [a]", "routes[0]", "must be a mapping"),
    "repeated key": (GOOD + GOOD, "routes", "twice, first in line 1"),
    "key without value": (GOOD + "auth:\n", "auth", "no value"),
    "tag": (GOOD + "refusals: !!str http\n", "refusals", "tag"),
    "unknown key": (GOOD + "rotes: []\n", "rotes", "not a known key"),
    "unknown key below": (file(route(", scops: [a]")), "routes[0].scops", "not a known key"),
    "refusals": (GOOD + "refusals: https\n", "refusals", "must be tool_result or http"),
    "yes is text": (GOOD + "hide_unpermitted: yes\n", "hide_unpermitted", "true or false"),
    "audit_arguments": (GOOD + "audit_arguments: all\n", "audit_arguments", "must be full, digest or none"),
    "audit_results": (GOOD + "audit_results: full\n", "audit_results", "must be size, digest or none"),
    "no name": ("routes: [{backend: {url: 'http://a'}}]", "routes[0].name", "required"),
    "no backend": ("routes: [{name: a}]", "routes[0].backend", "required"),
    "name upper": (file(route(name="Deploy")), "routes[0].name", "lower-case"),
    "name underscores": (file(route(name="a__b")), "routes[0].name", "lower-case"),
    "name long": (file(route(name="a" * 41)), "routes[0].name", "40 at most"),
    "name reserved": (file(route(name="gateway")), "routes[0].name", "reserved"),
    "name number": (file(route(name="1")), "routes[0].name", "must be text"),
    "same name": (file(route(), route()), "routes[1].name", "name of routes[0] too"),
    "same prefix": (file(route(", prefix: x"), route(", prefix: x", "b")), "routes[1].prefix", "can collide"),
    "prefix in prefix": (file(route(), route(", prefix: a__b__", "b")), "routes[1].prefix", "can collide"),
    "empty prefix": (file(route(), route(", prefix: ''", "b")), "routes[1].prefix", "can collide"),
    "prefix characters": (file(route(", prefix: 'a b'")), "routes[0].prefix", "must match"),
    "scopes no list": (file(route(", scopes: a")), "routes[0].scopes", "must be a list"),
    "scope with space": (file(route(", scopes: ['a b']")), "routes[0].scopes[0]", "not an OAuth scope"),
    "scope twice": (file(route(", scopes: [a, a]")), "routes[0].scopes", "twice"),
    "tool scopes empty": (file(route(", tools: {x: {scopes: }}")), "routes[0].tools.x.scopes", "no value"),
    "tool pattern": (file(route(", tools: {'a b': {}}")), "routes[0].tools['a b']", "pattern"),
    "tool unknown": (file(route(", tools: {x: {scope: []}}")), "routes[0].tools.x.scope", "not a known key"),
    "hidden": (file(route(", tools: {x: {hidden: 1}}")), "routes[0].tools.x.hidden", "true or false"),
    "redact": (file(route(", redact: [password]")), "routes[0].redact[0]", "must match"),
    "two kinds": (file(route(backend="url: 'http://a', command: [x]")), BACKEND, "exactly one"),
    "no kind": (file(route(backend="era: auto")), BACKEND, "exactly one"),
    "url scheme": (file(route(backend="url: 'ftp://a'")), f"{BACKEND}.url", "http or https"),
    "url port": (file(route(backend="url: 'http://a:x'")), f"{BACKEND}.url", "not a URL"),
    "url user": (file(route(backend="url: 'http://u:p@a'")), f"{BACKEND}.url", "user name"),
    "url fragment": (file(route(backend="url: 'http://a/#x'")), f"{BACKEND}.url", "fragment"),
    "url missing variable": (file(route(backend="url: 'http://${HOST}'")), f"{BACKEND}.url", "HOST not set"),
    "command text": (file(route(backend="command: x")), f"{BACKEND}.command", "must be a list"),
    "command empty": (file(route(backend="command: []")), f"{BACKEND}.command", "at least 1"),
    "env with url": (file(route(backend="url: 'http://a', env: {A: b}")), BACKEND, "do not apply"),
    "credentials with command": (
        file(route(backend="command: [x], credentials: {bearer: '${A}'}")),
        BACKEND,
        "do not apply",
    ),
    "env name": (file(route(backend="command: [x], env: {A-B: c}")), f"{BACKEND}.env.A-B", "environment variable"),
    "env inline": (file(route(backend="command: [x], env: {MY_TOKEN: c}")), f"{BACKEND}.env.MY_TOKEN", "never inline"),
    "env missing": (file(route(backend="command: [x], env: {A: '${B}'}")), f"{BACKEND}.env.A", "B not set"),
    "env number": (file(route(backend="command: [x], env: {A: 1}")), f"{BACKEND}.env.A", "must be text"),
    "transport": (file(route(backend="url: 'http://a', transport: http")), f"{BACKEND}.transport", "must be auto"),
    "transport of url": (file(route(backend="url: 'http://a', transport: stdio")), BACKEND, "do not apply"),
    "era": (file(route(backend="url: 'http://a', era: '2023-01-01'")), f"{BACKEND}.era", "must be auto"),
    "session": (file(route(backend="url: 'http://a', session: x")), f"{BACKEND}.session", "must be shared"),
    "bearer inline": (
        file(route(backend="url: 'http://a', credentials: {bearer: abc}")),
        f"{BACKEND}.credentials.bearer",
        "never inline",
    ),
    "header inline": (
        file(route(backend="url: 'http://a', credentials: {header: {X: abc}}")),
        f"{BACKEND}.credentials.header.X",
        "never inline",
    ),
    "header name": (
        file(route(backend="url: 'http://a', credentials: {header: {'a b': '${A}'}}")),
        f"{BACKEND}.credentials.header['a b']",
        "not the name of a header",
    ),
    "header ours": (
        file(route(backend="url: 'http://a', credentials: {header: {Mcp-Name: '${A}'}}")),
        f"{BACKEND}.credentials.header.Mcp-Name",
        "sets itself",
    ),
    "bearer missing": (
        file(route(backend="url: 'http://a', credentials: {bearer: '${TOKEN}'}")),
        f"{BACKEND}.credentials.bearer",
        "TOKEN not set",
    ),
    "credentials empty": (file(route(backend="url: 'http://a', credentials: {}")), f"{BACKEND}.credentials", "has no"),
    "own settings": (
        file(route(backend="url: 'http://a', credentials: {bearer: '${GATEWAY_KEYS}'}")),
        f"{BACKEND}.credentials.bearer",
        "own setting",
    ),
    "principal_concurrency zero": (GOOD + "principal_concurrency: 0\n", "principal_concurrency", "at least 1"),
    "principal_concurrency text": (GOOD + "principal_concurrency: few\n", "principal_concurrency", "whole number"),
    "tell_limits": (GOOD + "tell_limits: 1\n", "tell_limits", "true or false"),
    "describe_limits": (file(route(", describe_limits: no")), "routes[0].describe_limits", "true or false"),
    "limit zero": (limit("per: tool, limit: 0, window: 1s"), "limits[0].limit", "at least 1"),
    "limit text": (limit("per: tool, limit: '5', window: 1s"), "limits[0].limit", "whole number"),
    "limit fraction": (limit("per: tool, limit: 1.5, window: 1s"), "limits[0].limit", "whole number"),
    "burst zero": (limit("per: tool, limit: 5, window: 1s, burst: 0"), "limits[0].burst", "at least 1"),
    "window zero": (limit("per: tool, limit: 5, window: 0s"), "limits[0].window", "more than zero"),
    "window negative": (limit("per: tool, limit: 5, window: -1s"), "limits[0].window", "duration"),
    "window number": (limit("per: tool, limit: 5, window: 60"), "limits[0].window", "duration"),
    "per unknown": (limit("per: user, limit: 5, window: 1s"), "limits[0].per[0]", "must be principal"),
    "per empty": (limit("per: [], limit: 5, window: 1s"), "limits[0].per", "at least 1"),
    "per twice": (limit("per: [tool, tool], limit: 5, window: 1s"), "limits[0].per", "twice"),
    "no limit": (limit("per: tool, window: 1s"), "limits[0]", "limit is required"),
    "no window": (limit("per: tool, limit: 5"), "limits[0]", "window is required"),
    "limit of no kind": (limit("per: tool"), "limits[0]", "limit is required"),
    "limit of two kinds": (limit("per: tool, concurrency: 5, window: 1s"), "limits[0]", "window does not apply"),
    "concurrency zero": (limit("per: tool, concurrency: 0"), "limits[0].concurrency", "at least 1"),
    "cost of places": (limit("per: tool, concurrency: 5, cost: 2"), "limits[0]", "cost does not apply"),
    "cost zero": (limit("per: tool, limit: 5, window: 1s, cost: 0"), "limits[0].cost", "at least 1"),
    "cost over burst": (limit("per: tool, limit: 5, window: 1s, cost: 6"), "limits[0]", "over its burst"),
    "enforce text": (limit("per: tool, limit: 5, window: 1s, enforce: maybe"), "limits[0].enforce", "true or false"),
    "a limit for ever": (limit("per: tool, limit: 1, window: 365d, burst: 101"), "limits[0]", "hundred years"),
    "cost of a tool zero": (costly("cost: 0"), "routes[0].tools.x.cost.*", "at least 1"),
    "cost of a tool text": (costly("cost: {few: lots}"), "routes[0].tools.x.cost.few", "whole number"),
    "cost of a tool over burst": (costly("cost: 6"), "routes[0].tools.x.cost", "over the burst of limits.few"),
    "cost of no limit": (costly("cost: {many: 2}"), "routes[0].tools.x.cost", "no rate limit named 'many'"),
    "cost of a concurrency limit": (
        costly("cost: {slots: 2}"),
        "routes[0].tools.x.cost",
        "no rate limit named 'slots'",
    ),
    "same limit name of a prompt": (
        file(
            route(
                ", prompts: {x: {limits: [{name: x, per: tool, concurrency: 1}, {name: x, per: tool, concurrency: 1}]}}"
            )
        ),
        "routes[0].prompts.x.limits[1].name",
        "names two limits",
    ),
    "same limit name": (
        limit("name: x, per: tool, limit: 5, window: 1s}, {name: x, per: tool, limit: 5, window: 1s"),
        "limits[1].name",
        "names two limits",
    ),
    "size": (GOOD + "defaults: {max_response: 16MB}\n", "defaults.max_response", "must be a size"),
    "size zero": (GOOD + "defaults: {max_response: 0}\n", "defaults.max_response", "more than zero"),
    "timeouts": (GOOD + "defaults: {timeout: 10m}\n", "routes[0]", "longer than max_timeout 5m"),
    "tool timeout": (file(route(", tools: {x: {timeout: 6m}}")), "routes[0].tools.x", "longer than max_timeout"),
    "toolset route": (GOOD + "toolsets: {t: {routes: [b]}}\n", "toolsets.t.routes[0]", "no route 'b'"),
    "toolset name": (GOOD + "toolsets: {T_: {routes: [a]}}\n", "toolsets.T_", "lower-case"),
    "toolset tools": (GOOD + "toolsets: {t: {routes: [a], tools: [b__x]}}\n", "toolsets.t.tools[0]", "matches no tool"),
    "toolset nothing": (GOOD + "toolsets: {t: {routes: [a], tools: []}}\n", "toolsets.t.tools", "at least 1"),
    "toolset plain": (
        file(route(), route(name="b"), more="toolsets: {t: {routes: [a, b], names: plain}}\n"),
        "toolsets.t",
        "exactly one",
    ),
    "no issuers": (GOOD + "auth: {resource: 'https://r.example', issuers: []}\n", "auth.issuers", "at least 1"),
    "issuer http": (auth("issuer: 'http://i.example'"), "auth.issuers[0].issuer", "https"),
    "jwks http": (auth(f"{ISSUER}, jwks_uri: 'http://i.example'"), "auth.issuers[0].jwks_uri", "https"),
    "jwks missing": (auth(f"{ISSUER}, jwks_file: /does/not/exist"), "auth.issuers[0].jwks_file", "no file"),
    "HS256": (auth(f"{ISSUER}, algorithms: [HS256]"), "auth.issuers[0].algorithms[0]", "never accepted"),
    "none": (auth(f"{ISSUER}, algorithms: [none]"), "auth.issuers[0].algorithms[0]", "never accepted"),
    "algorithm": (auth(f"{ISSUER}, algorithms: [RS255]"), "auth.issuers[0].algorithms[0]", "must be RS256"),
    "issuer twice": (auth(f"{ISSUER}}}, {{{ISSUER}"), "auth.issuers", "twice"),
    "leeway": (auth(ISSUER, ", leeway: 6m"), "auth.leeway", "5m at most"),
    "stale": (auth(ISSUER, ", jwks: {ttl: 2h, stale: 1h}"), "auth.jwks", "stale is shorter"),
    "resource": (auth(ISSUER, resource="mcp"), "auth.resource", "http or https"),
    "implies": (auth(ISSUER, ", scope_implies: {a: b}"), "auth.scope_implies.a", "must be a list"),
}

LATER = {
    "request_state": (file(route(", request_state: plain")), "routes[0].request_state"),
    "expose_backend_info": (file(route(", expose_backend_info: true")), "routes[0].expose_backend_info"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_reported_where_it_is(case: str) -> None:
    text, path, word = BAD[case]
    found = dict(problems_of(text, A="a"))
    assert path in found, found
    assert word in found[path]


@pytest.mark.parametrize("case", LATER)
def test_what_is_planned_is_refused_in_so_many_words(case: str) -> None:
    text, path = LATER[case]
    assert (path, "not supported yet") in problems_of(text)


@pytest.mark.parametrize("case", [*BAD, *LATER])
def test_every_problem_comes_with_a_hint_or_needs_none(case: str) -> None:
    text = {**BAD, **LATER}[case][0]
    with pytest.raises(ConfigError) as caught:
        parse(text, source="x", environ={})
    wordless = [str(problem) for problem in caught.value.problems if not problem.hint]
    assert [one for one in wordless if "not YAML" not in one and "must be a URL" not in one] == []


MANY = """\
refusals: maybe
limits:
  - {per: principal, limit: 0, window: 60}
routes:
  - name: deploy
    backend:
      url: ${FIRST}
      credentials: {bearer: "${SECOND}"}
    scops: [a]
  - name: deploy
    backend: {command: [x], env: {KEY: "file:/does/not/exist"}}
toolsets:
  t: {routes: [nobody]}
"""


def test_everything_that_is_wrong_is_told_at_once_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(MANY, source="config/routes.yaml", environ={})
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (1, "refusals"),
        (3, "limits[0].limit"),
        (3, "limits[0].window"),
        (7, "routes[0].backend.url"),
        (8, "routes[0].backend.credentials.bearer"),
        (9, "routes[0].scops"),
        (10, "routes[1].name"),
        (11, "routes[1].backend.env.KEY"),
        (13, "toolsets.t.routes[0]"),
    ]
    report = str(caught.value)
    assert report.count("\n") == len(caught.value.problems) - 1
    assert "config/routes.yaml:9: routes[0].scops: is not a known key (hint: did you mean scopes?)" in report
    assert "FIRST not set" in report
    assert "SECOND not set" in report


def test_the_nearest_known_value_is_the_hint() -> None:
    with pytest.raises(ConfigError, match=r"hint: did you mean modern\?"):
        parse(file(route(backend="url: 'http://a', era: modren")), source="x", environ={})


def test_references_stay_text_where_they_are_not_allowed() -> None:
    routes = parse(file(route(", description: '${HOME}'")), source="x", environ={"HOME": "/root"})
    assert routes.routes[0].description == "${HOME}"


def test_a_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD)
    assert load(path, {}).routes[0].name == "a"


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [(b"a: 1\nb: \xff\n", 2, "UTF-8"), (b"#" * (1 << 20) + b"\n", None, "larger than 1MiB")],
)
def test_a_file_that_cannot_be_used_is_a_problem(tmp_path: Path, content: bytes, line: int | None, word: str) -> None:
    path = tmp_path / "routes.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=word) as caught:
        load(path, {})
    assert caught.value.problems[0].line == line


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "gone.yaml", {})


WORDS = [
    "routes",
    "name",
    "backend",
    "url",
    "http://a",
    "tools",
    "[key]",
    "limits",
    "per",
    "auth",
    "toolsets",
    "x",
    "${A}",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(WORDS)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=25,
)


def loads_or_tells(text: str) -> None:
    with suppress(ConfigError):
        assert parse(text, source="x", environ={"A": "a"}).routes


@given(st.text())
def test_any_text_loads_or_is_a_config_error(text: str) -> None:
    loads_or_tells(text)


@given(TREES)
def test_any_tree_loads_or_is_a_config_error(tree: object) -> None:
    loads_or_tells(json.dumps(tree))


@given(st.integers(0, len(MANY)), st.integers(0, 30), st.text(max_size=5))
def test_any_damage_to_a_file_loads_or_is_a_config_error(at: int, cut: int, put: str) -> None:
    loads_or_tells(MANY[:at] + put + MANY[at + cut :])


ROUTE_KEYS = ["name", "backend", "prefix", "scopes", "limits", "tools", "redact", "timeout", "[key]", "env", "header"]


@given(st.dictionaries(st.sampled_from(ROUTE_KEYS), TREES), TREES, TREES)
def test_any_route_loads_or_is_a_config_error(one: dict[str, object], credentials: object, tools: object) -> None:
    backend = {"url": "http://a", "credentials": credentials}
    routes = [one, {"name": "b", "backend": backend, "tools": {"[key]": tools}}]
    loads_or_tells(json.dumps({"routes": routes, "toolsets": {"[key]": tools}, "auth": credentials}))

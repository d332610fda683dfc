from __future__ import annotations

from gateway.routes import Routes, markdown
from gateway.routes.reference import _SECTIONS
from gateway.settings import Settings


def test_every_setting_is_in_the_reference_with_its_default() -> None:
    text = markdown(Settings)
    assert [name for name in Settings.model_fields if f"| `GATEWAY_{name.upper()}` |" not in text] == []
    assert "| `GATEWAY_PORT` | whole number | `8080` |" in text
    assert "| `GATEWAY_AUDIT` | list of text | `[stdout]` |" in text


def test_every_model_of_the_file_has_a_section() -> None:
    reached = set(Routes.model_json_schema()["$defs"]) | {"Routes"}
    assert {model.__name__ for _title, model in _SECTIONS} == reached


def test_every_key_has_a_meaning() -> None:
    missing = [f"{m.__name__}.{n}" for _t, m in _SECTIONS for n, info in m.model_fields.items() if not info.description]
    missing += [name for name, info in Settings.model_fields.items() if not info.description]
    assert missing == []


def test_defaults_are_written_as_people_write_them() -> None:
    text = markdown(Settings)
    assert "| `max_timeout` | duration | `5m` |" in text
    assert "| `max_response` | size | `16MiB` |" in text
    assert "| `hide_unpermitted` | `true`, `false` | `false` |" in text

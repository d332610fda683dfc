from gateway.audit import AuditEvent


def test_an_event_shows_nothing_that_is_redacted_when_it_is_recorded():
    event = AuditEvent("r1", arguments={"password": "hunter2"}, answer=b"the answer", redact=("arguments.password",))
    assert "hunter2" not in repr(event)
    assert "the answer" not in str(event)
    assert "r1" in repr(event)

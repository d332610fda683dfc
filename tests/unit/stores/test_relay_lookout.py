from gateway.stores.relay_lookout import Lookout


def test_missing_once_is_not_lost_missing_twice_is() -> None:
    lookout = Lookout()
    assert lookout.seen({"a"}, 10.0) == set()
    assert lookout.seen({"a", "b"}, 10.4) == {"a"}
    assert lookout.seen(set(), 10.8) == set()
    assert lookout.seen({"b"}, 11.2) == set()


def test_after_an_outage_everybody_has_time_to_come_back() -> None:
    lookout = Lookout()
    assert not lookout.away(10.0, 10.1)
    assert [lookout.seen({"a"}, now) for now in (10.5, 10.9, 11.3)] == [set()] * 3
    assert lookout.seen({"a"}, 11.7) == {"a"}


def test_only_an_outage_that_goes_on_ends_what_waits() -> None:
    lookout = Lookout()
    assert [lookout.away(began, began + 0.1) for began in (10.0, 11.0, 12.0, 13.0)] == [False, False, False, True]
    lookout.seen(set(), 13.5)
    assert not lookout.away(14.0, 14.1)

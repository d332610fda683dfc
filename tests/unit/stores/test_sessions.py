from gateway.stores.sessions import MemorySessions


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_session_is_ended_only_after_it_was_ended() -> None:
    sessions = MemorySessions(Clock())
    assert not await sessions.ended("a")
    await sessions.end("a", 10.0)
    assert await sessions.ended("a")
    assert not await sessions.ended("b")


async def test_an_end_is_remembered_for_its_time_and_no_longer() -> None:
    clock = Clock()
    sessions = MemorySessions(clock)
    await sessions.end("a", 10.0)
    clock.now += 9.9
    assert await sessions.ended("a")
    clock.now += 0.1
    assert not await sessions.ended("a")


async def test_what_has_expired_takes_no_memory() -> None:
    clock = Clock()
    sessions = MemorySessions(clock)
    for number in range(1_000):
        await sessions.end(f"session-{number}", 10.0)
        clock.now += 1.0
    assert len(sessions) <= 11


async def test_beyond_its_bound_the_oldest_is_forgotten() -> None:
    sessions = MemorySessions(Clock(), most=2)
    for name in "abc":
        await sessions.end(name, 10.0)
    assert [await sessions.ended(name) for name in "abc"] == [False, True, True]

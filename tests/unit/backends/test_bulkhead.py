import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.bulkhead import Bulkhead


async def waiting(bulkhead: Bulkhead, count: int, seconds: float = 1.0) -> list["asyncio.Task[bool]"]:
    tasks = [asyncio.create_task(bulkhead.wait(seconds)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_places_are_taken_at_once_up_to_the_limit() -> None:
    bulkhead = Bulkhead(2)

    assert [bulkhead.take() for _ in range(3)] == [True, True, False]


async def test_a_released_place_can_be_taken_again() -> None:
    bulkhead = Bulkhead(1)
    bulkhead.take()

    bulkhead.release()

    assert bulkhead.take()


async def test_who_waits_is_served_first_come_first_served() -> None:
    bulkhead = Bulkhead(1)
    bulkhead.take()
    served: list[int] = []

    async def one(number: int) -> None:
        assert await bulkhead.wait(1.0)
        served.append(number)
        bulkhead.release()

    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    await asyncio.sleep(0)
    bulkhead.release()
    await asyncio.gather(*tasks)

    assert served == [0, 1, 2, 3, 4]
    assert bulkhead.take()


async def test_nobody_overtakes_who_waits() -> None:
    bulkhead = Bulkhead(1)
    bulkhead.take()
    (first,) = await waiting(bulkhead, 1)
    bulkhead.release()

    assert not bulkhead.take()
    assert await first


async def test_more_than_the_queue_holds_are_turned_away_at_once() -> None:
    bulkhead = Bulkhead(1, queue=2)
    bulkhead.take()
    queued = await waiting(bulkhead, 2)

    assert not await bulkhead.wait(60.0)

    for task in queued:
        task.cancel()


async def test_a_wait_ends_with_the_shorter_of_patience_and_what_the_caller_has_left() -> None:
    loop = asyncio.get_running_loop()
    for patience, seconds in ((0.01, 60.0), (60.0, 0.01)):
        bulkhead = Bulkhead(1, patience=patience)
        bulkhead.take()
        started = loop.time()

        assert not await bulkhead.wait(seconds)

        assert loop.time() - started < 5.0
        bulkhead.release()
        assert bulkhead.take()


async def test_a_cancelled_wait_loses_no_place() -> None:
    bulkhead = Bulkhead(1)
    bulkhead.take()
    first, second = await waiting(bulkhead, 2)

    first.cancel()
    bulkhead.release()

    assert await second
    bulkhead.release()
    assert bulkhead.take()


async def test_a_place_given_in_the_very_moment_of_the_cancellation_goes_to_the_next() -> None:
    bulkhead = Bulkhead(1)
    bulkhead.take()
    first, second = await waiting(bulkhead, 2)

    bulkhead.release()
    first.cancel()

    assert await second


@given(st.lists(st.sampled_from(["take", "wait", "release", "cancel"]), max_size=60))
def test_whatever_happens_no_more_than_the_limit_are_in_and_no_place_is_lost(steps: list[str]) -> None:
    async def play() -> None:
        bulkhead = Bulkhead(3, queue=4)
        inside, tasks = 0, []
        for step in steps:
            if step == "take":
                inside += bulkhead.take()
            elif step == "wait":
                tasks.append(asyncio.create_task(bulkhead.wait(60.0)))
            elif step == "cancel" and tasks:
                tasks[0].cancel()
            elif step == "release" and inside:
                bulkhead.release()
                inside -= 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            done = [task for task in tasks if task.done()]
            inside += sum(not task.cancelled() and task.result() for task in done)
            tasks = [task for task in tasks if not task.done()]
            assert inside <= 3
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(inside):
            bulkhead.release()
        assert [bulkhead.take() for _ in range(4)] == [True, True, True, False]

    asyncio.run(play())

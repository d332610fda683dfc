from hypothesis import given
from hypothesis import strategies as st

from gateway.stores.relay_frames import EVERYBODY, WINDOW, Frames, Head

KEY, OTHER = b"k" * 32, b"o" * 32


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def frames(here: str = "b", keys: tuple[bytes, ...] = (KEY,), clock: Clock | None = None, most: int = 100) -> Frames:
    return Frames(here, keys, clock or Clock(), most=most)


def a_frame(
    to: str = "b", payload: bytes = b"x", keys: tuple[bytes, ...] = (KEY,), clock: Clock | None = None
) -> bytes:
    return frames("a", keys, clock).seal(Head("ask", "a", to, "topic", "1", 5.0), payload)


def test_what_was_sealed_for_a_process_is_opened_there_once() -> None:
    there, frame = frames(), a_frame()
    opened = there.open(frame)
    assert opened is not None
    assert (opened[0].kind, opened[0].sender, opened[0].topic, opened[0].id, opened[1]) == (
        "ask",
        "a",
        "topic",
        "1",
        b"x",
    )
    assert there.open(frame) is None


def test_a_frame_for_everybody_is_opened_by_each() -> None:
    frame = a_frame(EVERYBODY)
    assert frames("b").open(frame)
    assert frames("c").open(frame)


def test_a_frame_for_another_process_is_not_opened() -> None:
    assert frames("c").open(a_frame("b")) is None


def test_the_sender_is_the_one_that_sealed_whatever_it_claims() -> None:
    opened = frames().open(frames("a").seal(Head("tell", "somebody-else", "b"), b""))
    assert opened is not None
    assert opened[0].sender == "a"


def test_the_first_key_seals_and_every_key_opens() -> None:
    assert frames(keys=(OTHER, KEY)).open(a_frame(keys=(KEY, OTHER)))
    assert frames(keys=(OTHER,)).open(a_frame(keys=(KEY, OTHER))) is None


def test_the_payload_is_not_readable() -> None:
    assert b"secret" not in a_frame(payload=b"a secret payload")


def test_a_frame_from_outside_the_window_is_refused() -> None:
    for change in (-WINDOW - 1, WINDOW + 1):
        clock = Clock()
        frame = a_frame(clock=clock)
        clock.now += change
        assert frames(clock=clock).open(frame) is None


def test_memory_is_bounded_and_what_is_forgotten_cannot_be_repeated() -> None:
    clock = Clock()
    there = frames(clock=clock, most=3)
    sent = []
    for _ in range(10):
        clock.now += 0.1
        sent.append(a_frame(clock=clock))
        assert there.open(sent[-1]) is not None
    assert len(there._seen) == 3
    assert [there.open(frame) for frame in sent] == [None] * 10


def test_nonces_are_forgotten_after_the_window() -> None:
    clock = Clock()
    there = frames(clock=clock)
    for _ in range(200):
        clock.now += WINDOW / 10
        assert there.open(a_frame(clock=clock)) is not None
    assert len(there._seen) <= 11


@given(st.binary(max_size=300))
def test_noise_is_refused_and_never_raises(noise: bytes) -> None:
    assert frames().open(noise) is None


@given(st.data())
def test_a_frame_with_any_bit_changed_is_refused(data: st.DataObject) -> None:
    frame = bytearray(a_frame(payload=b"some payload"))
    position = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[position // 8] ^= 1 << position % 8
    assert frames().open(bytes(frame)) is None


@given(st.binary(max_size=2000))
def test_every_payload_comes_out_as_it_went_in(payload: bytes) -> None:
    opened = frames().open(a_frame(payload=payload))
    assert opened is not None
    assert opened[1] == payload

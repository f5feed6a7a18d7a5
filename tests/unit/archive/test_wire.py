"""LiteFS's stream, as bytes that come in pieces of any size."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import wire

NAME = b"sqlite.db"


def frame(kind: int, *fields: bytes) -> bytes:
    return struct.pack(">I", kind) + b"".join(fields)


def named(name: bytes = NAME) -> bytes:
    return struct.pack(">I", len(name)) + name


def chunks(*pieces: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(piece)) + piece for piece in (*pieces, b""))


LTX = frame(1, struct.pack(">Q", 0), named())
FRAMES: list[tuple[bytes, list[wire.Event]]] = [
    (frame(2), [wire.Ready()]),
    (frame(3), [wire.End()]),
    (frame(4, named()), [wire.Drop("sqlite.db")]),
    (frame(5, named(b"a lease/with a slash")), [wire.Handoff("a lease/with a slash")]),
    (frame(5, named(b"")), [wire.Handoff("")]),
    (frame(6, struct.pack(">Q", 1 << 40), named()), [wire.HighWater("sqlite.db", 1 << 40)]),
    (frame(7, struct.pack(">q", 1700000000123)), [wire.Heartbeat(1700000000123)]),
    (LTX + chunks(), [wire.FileBegin("sqlite.db"), wire.FileEnd("sqlite.db")]),
    (
        LTX + chunks(b"LTX1", b"x" * 65535),
        [wire.FileBegin("sqlite.db"), wire.FileData(b"LTX1" + b"x" * 65535), wire.FileEnd("sqlite.db")],
    ),
]
STREAM = b"".join(data for data, _ in FRAMES)
EVENTS = [event for _, events in FRAMES for event in events]


def joined(events: list[wire.Event]) -> list[wire.Event]:
    """Pieces of a file that follow each other as one: where they are cut is not of interest."""
    found: list[wire.Event] = []
    for event in events:
        if isinstance(event, wire.FileData) and found and isinstance(found[-1], wire.FileData):
            found[-1] = wire.FileData(found[-1].data + event.data)
        else:
            found.append(event)
    return found


def read(data: bytes, size: int) -> tuple[list[wire.Event], wire.Parser]:
    parser, events = wire.Parser(), []
    for at in range(0, len(data), size):
        events += list(parser.feed(data[at : at + size]))
    return joined(events), parser


@pytest.mark.parametrize(("data", "events"), FRAMES)
def test_each_frame_is_its_event(data: bytes, events: list[wire.Event]) -> None:
    assert joined(list(wire.Parser().feed(data))) == events


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, len(STREAM)])
def test_pieces_of_any_size_give_the_same_events(size: int) -> None:
    events, parser = read(STREAM, size)
    assert events == EVENTS and parser.whole


def test_a_stream_that_is_cut_anywhere_is_not_whole_unless_between_two_frames() -> None:
    small = LTX + chunks(b"LTX1", b"pages") + frame(7, bytes(8)) + frame(2)
    ends = {0, len(LTX + chunks(b"LTX1", b"pages")), len(small) - 4, len(small)}
    for cut in range(len(small) + 1):
        parser = wire.Parser()
        assert wire.FileEnd("sqlite.db") not in list(parser.feed(small[:cut])) or cut >= sorted(ends)[1]
        assert parser.whole is (cut in ends), cut


def test_a_file_of_any_size_is_passed_on_and_not_held() -> None:
    parser = wire.Parser()
    list(parser.feed(LTX))
    for _ in range(100):
        list(parser.feed(struct.pack(">H", 65535)))
        events = list(parser.feed(b"x" * 65535))
        assert sum(len(event.data) for event in events if isinstance(event, wire.FileData)) == 65535
        assert len(parser._buffer) == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(0), "kind 0"),
        (frame(8), "kind 8"),
        (b'{"error":"stream error"}', "kind"),
        (frame(4, struct.pack(">I", 4097)), "4097 bytes"),
        (frame(4, named(b"\xff")), "no UTF-8"),
        *((frame(4, named(name)), "no file's") for name in (b"", b".", b"..", b"a/b", b"/etc/passwd", b"a\0")),
        (frame(1, bytes(8), named(b"../x")), "no file's"),
    ],
)
def test_what_is_no_stream_of_litefs_is_an_error(data: bytes, words: str) -> None:
    with pytest.raises(wire.WireError, match=words):
        list(wire.Parser().feed(data))


def test_what_was_whole_before_an_error_is_still_given() -> None:
    events = []
    with pytest.raises(wire.WireError):
        for event in wire.Parser().feed(frame(2) + frame(99)):
            events.append(event)
    assert events == [wire.Ready()]


@pytest.mark.parametrize(
    ("held", "body"),
    [
        ({}, "00000000"),
        ({"a": (1, 1 << 63)}, "00000001000000016100000000000000018000000000000000"),
        (
            {"b": (2, 3), "a": (0, 0)},
            "000000020000000161" + "00" * 16 + "000000016200000000000000020000000000000003",
        ),
    ],
)
def test_positions_are_given_as_litefs_reads_them(held: dict[str, tuple[int, int]], body: str) -> None:
    assert wire.positions(held).hex() == body

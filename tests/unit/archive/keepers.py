"""A store in memory: the rules of the real one for what continues, and nothing else."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.abaci.infra.plugins.module_utils.archive.ltx import Altered, Position
from ansible_collections.abaci.infra.plugins.module_utils.archive.store import Received


@dataclass
class Kept:
    held: dict[tuple[str, str], Position] = field(default_factory=dict)
    files: list[tuple[str, str, bytes]] = field(default_factory=list)
    followed_by: list[tuple[str, str]] = field(default_factory=list)
    histories: int = 0
    fails: OSError | None = None
    fails_to_note: OSError | None = None

    def databases(self) -> list[tuple[str, str]]:
        return list(self.held)

    def newest_cluster(self) -> str:
        return list(self.held)[-1][0] if self.held else ""

    def position(self, cluster: str, database: str) -> Position | None:
        return self.held.get((cluster, database))

    def followed(self, cluster: str, database: str) -> None:
        if self.fails_to_note:
            raise self.fails_to_note
        self.followed_by.append((cluster, database))

    def receive(self, cluster: str, database: str, path_of_ltx: Path) -> Received:
        if self.fails:
            raise self.fails
        data = path_of_ltx.read_bytes()
        path_of_ltx.unlink()
        if len(data) < 116 or data[:4] != b"LTX1":
            raise Altered(path_of_ltx.name, "is cut")
        first, last = struct.unpack_from(">QQ", data, 16)
        (before,) = struct.unpack_from(">Q", data, 40)
        (after,) = struct.unpack_from(">Q", data, len(data) - 16)
        held, came = self.held.get((cluster, database)), Position(last, after)
        continued = held is not None and (first, before) == (held.txid + 1, held.checksum)
        if not continued and first != 1:
            raise Altered(path_of_ltx.name, "does not follow")
        self.files.append((cluster, database, data))
        self.held[(cluster, database)] = came
        if continued:
            return Received("continued", "", "", came, str(self.histories), True)
        self.histories += 1
        if held is None:
            return Received("new_history", "first", "The first.", came, str(self.histories), True)
        cause = "back" if last < held.txid else "forked" if last == held.txid else "absent"
        return Received("new_history", cause, "It broke.", came, str(self.histories), True)  # type: ignore[arg-type]


def ltx(first: int, last: int, before: int, after: int, pages: bytes = b"") -> bytes:
    """What the store above reads of an LTX file."""
    header = b"LTX1" + struct.pack(">IIIQQqQ", 0, 4096, 1, first, last, 1700000000000, before)
    return header.ljust(100, b"\0") + pages + struct.pack(">QQ", after, 0)

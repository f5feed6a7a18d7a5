"""What a planned move of the primary's role rests on: first no more writes, then a stop, and a replica has all of them.

A primary that is stopped while somebody writes does not wait for its replicas: seen 42 transactions behind.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from pathlib import Path

import pytest
from litefs_cluster import DATABASE, MakeCluster, Node


def last_file(node: Node) -> tuple[str, str]:
    """(TXID, checksum) of the newest transaction file in a volume, as plugins/.../volume_export.py reads them."""
    newest = max((node.data / "dbs" / DATABASE / "ltx").glob("*.ltx"), key=lambda path: path.stem.split("-")[1])
    return newest.stem.split("-")[1], f"{struct.unpack('>Q', Path(newest).read_bytes()[-16:-8])[0]:016x}"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_role_moves_and_comes_back_under_writes_and_nothing_acknowledged_is_lost(
    make_cluster: MakeCluster, mode: str
) -> None:
    cluster = make_cluster(2).with_app(mode).start()
    acknowledged: list[str] = []
    for move in range(4):
        old, new = cluster.primary, cluster.replicas[0]
        stop = threading.Event()

        def write(node: Node = old, prefix: int = move, until: threading.Event = stop) -> None:
            number = 0
            while not until.is_set():
                number += 1
                with contextlib.suppress(OSError):
                    if node.post(f"{prefix}-{number}").status == 201:
                        acknowledged.append(f"{prefix}-{number}")

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        stop.wait(1.5)
        stop.set()
        for writer in writers:
            writer.join(20)
        cluster.wait_replicated()
        old.stop()
        assert last_file(old) == new.position(), "the stop itself makes no transaction"
        # The old one is proven to have nothing more: the new one starts on its own volume, and the old one follows.
        new.stop()
        for node in (old, new):
            node.unmount()
            node.primary = new
            node.settings.candidate = "true" if node is new else "false"
        cluster.primary, cluster.replicas = new, [old]
        new.start()
        old.launch()
        old.wait_ready()
        cluster.wait_replicated()
    assert len(acknowledged) > 100
    bodies = cluster.primary.bodies()
    assert [body for body in acknowledged if body not in set(bodies)] == []
    print(f"{mode}: {len(acknowledged)} acknowledged over 4 moves, all there")

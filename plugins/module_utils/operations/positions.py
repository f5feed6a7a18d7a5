"""What LiteFS reports of its transactions (GET /events). Standard library only: the job in the cluster runs it too."""

from __future__ import annotations

import json


def note(line: bytes, database: str, seen: dict[str, str]) -> None:
    """Take a line of the answer into ``seen``, checksum -> TXID. ValueError for one that is no JSON."""
    event = json.loads(line)
    if event.get("type") == "tx" and event.get("db") == database:
        seen[str(event["data"]["postApplyChecksum"])] = str(event["data"]["txID"])

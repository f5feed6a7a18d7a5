"""What site.yml says of the living database (module_utils/database_look.py), and what it keeps in the record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import database_look
from ansible_collections.abaci.infra.plugins.modules import database_look as module

DATABASE = "sqlite.db"
MOUNTS = """\
overlay / overlay rw,relatime 0 0
/dev/vda /litefs ext4 rw,relatime 0 0
litefs /litefs fuse {} 0 0
/dev/vda /litefs-other ext4 ro 0 0
"""


@pytest.mark.parametrize(
    ("options", "read_only"),
    [("ro,nosuid,nodev,relatime,user_id=0", True), ("rw,nosuid,nodev,errors=remount-ro", False)],
)
def test_the_mount_that_was_made_last_counts(options: str, read_only: bool) -> None:
    assert database_look.is_read_only(MOUNTS.format(options), "/litefs") is read_only
    assert database_look.is_read_only(MOUNTS.format(options), "/elsewhere") is None


@pytest.mark.parametrize(
    ("mode", "auto_vacuum", "recorded", "following", "writable", "words"),
    [
        ("wal", False, "wal", True, [], []),
        ("wal", False, "delete", True, [], []),
        ("delete", False, "wal", True, [], []),  # every replica was re-seeded
        ("delete", False, "wal", False, [], ["docs/runbooks/journal-mode.md"]),
        ("delete", False, "", False, [], []),
        ("wal", False, "wal", False, [], []),
        ("wal", True, "wal", True, [], ["docs/runbooks/writes-locked.md"]),
        ("delete", True, "delete", True, [], []),
        ("wal", False, "wal", True, ["a-1", "a-2"], ["a-1 and a-2 can open sqlite.db for writing"]),
        ("delete", False, "delete", True, ["a-1"], []),  # there SQLite itself refuses
    ],
)
def test_notes(
    mode: str, auto_vacuum: bool, recorded: str, following: bool, writable: list[str], words: list[str]
) -> None:
    seen = {"journal_mode": mode, "auto_vacuum": auto_vacuum}
    found = database_look.notes(seen, recorded, following, writable, DATABASE)
    assert len(found) == len(words) and all(word in note for word, note in zip(words, found, strict=True))


class Answers:
    """LiteFS's answer to /debug/vars, and a log."""

    def __init__(self, txid: str, log: str = "", **locks: str) -> None:
        entry = {"name": DATABASE, "txid": txid, "checksum": "8" + "0" * 15, "locks": {"write": "unlocked", **locks}}
        self.vars, self.log = {"store": {"dbs": {DATABASE: entry}}}, log

    def portforward_get(self, *_where: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, json.dumps(self.vars).encode()

    def raw(self, _path: str) -> bytes:
        return self.log.encode()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (Answers("0" * 15 + "7", write="exclusive"), "a transaction is open"),
        (Answers("0" * 15 + "7", "level=ERROR panic in handler", write="exclusive"), "never gives it back"),
        (Answers("0" * 15 + "7", shared="exclusive"), "the lock shared"),
        (Answers("0" * 15 + "7", write="shared"), None),
        (Answers("0" * 15 + "8", write="exclusive"), None),  # one got through meanwhile
    ],
)
def test_locked_is_a_lock_that_is_held_while_the_position_stands(answers: Answers, words: str | None) -> None:
    said = database_look.locked(answers, "abaci", "abaci-app-0", 20202, DATABASE, {"txid": "0" * 15 + "7"})
    assert said is None if words is None else (said is not None and words in said)


class Record:
    """The ConfigMap, as the API keeps it."""

    def __init__(self, **data: str) -> None:
        self.data, self.written = data, 0

    def get(self, *_what: str) -> dict[str, Any] | None:
        return {"metadata": {"name": "x", "resourceVersion": "1"}, "data": dict(self.data)} if self.data else None

    def replace(self, _version: str, _kind: str, obj: dict[str, Any], _manager: str) -> None:
        assert obj["metadata"]["resourceVersion"] == "1", "nobody else's change is undone"
        self.data, self.written = obj["data"], self.written + 1


def test_the_journal_mode_is_kept_with_what_else_the_record_says() -> None:
    record = Record(state="recorded", clusterID="LFSC", lowWaterTXID="5", journalMode="delete")
    assert module.keep_mode(record, "abaci", "abaci-app", "wal", True) and record.written == 0, "check mode"
    assert module.keep_mode(record, "abaci", "abaci-app", "wal", False)
    assert record.data == {"state": "recorded", "clusterID": "LFSC", "lowWaterTXID": "5", "journalMode": "wal"}
    assert not module.keep_mode(record, "abaci", "abaci-app", "wal", False) and record.written == 1
    assert not module.keep_mode(Record(), "abaci", "abaci-app", "wal", False)
    assert not module.keep_mode(Record(state="bootstrap"), "abaci", "abaci-app", "wal", False)

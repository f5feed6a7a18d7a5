"""The look at the living database as a module, on an API with a site in it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import kube
from ansible_collections.abaci.infra.plugins.modules import database_look
from fake_api import Cluster, run
from playing import DATABASE

READ_ONLY = "litefs /litefs fuse ro,nosuid 0 0\n"


def content(folder: Path, *pragmas: str) -> bytes:
    path = folder / "database"
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in pragmas:
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, body TEXT)")
    return path.read_bytes()


class Site(Cluster):  # type: ignore[misc]
    """Pods whose mounts can be asked for; None: the command cannot be run there."""

    mounts: str | None = READ_ONLY

    def run(self, namespace: str, pod: str, container: str, command: list[str], timeout: float = 10) -> str:
        assert (container, command) == ("app", ["cat", "/proc/self/mounts"]) and pod != "abaci-app-0"
        if self.mounts is None:
            raise kube.KubeError("no cat in the image")
        return self.mounts


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(content=content(tmp_path, "journal_mode=WAL"))


def look(site: Site, **options: Any) -> dict[str, Any]:
    return run(database_look, site, **DATABASE, **options)


def test_a_sound_site_has_its_mode_kept_once_and_nothing_to_say(site: Site) -> None:
    before = site.record()
    assert look(site, timeout=5)["changed"] and site.record() == {**before, "journalMode": "wal"}
    again = look(site)
    assert not again["changed"] and again["warnings"] == again["notes"] == []
    assert again["header"]["journal_mode"] == "wal" and again["header"]["page_size"] == 4096
    assert [request.kind for request in site.changes()] == ["ConfigMap"]


def test_check_mode_writes_no_record(site: Site) -> None:
    assert run(database_look, site, check=True, **DATABASE)["changed"]
    assert site.changes() == [] and "journalMode" not in site.record()


def test_a_record_that_somebody_writes_meanwhile_is_read_again(site: Site) -> None:
    site.fail("PUT", "ConfigMap", how=409, times=2)
    assert look(site)["changed"] and site.record()["journalMode"] == "wal"
    site.record().pop("journalMode")
    site.fail("PUT", "ConfigMap", how=409, times=3)
    assert "409" in look(site)["msg"]


def stuck(site: Site, **locks: str) -> None:
    """The primary gives no export, and shows these locks."""
    node, answer = site.node(0), site.node(0).answer

    def reply(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path.startswith("/export"):
            raise TimeoutError
        if path == "/debug/vars":
            return 200, make.vars_body(node.txid, node.checksum, **locks).encode()
        return answer(method, path, body)

    node.answer = reply  # type: ignore[method-assign]


def test_locked_writes_fail_the_run_and_change_nothing(site: Site) -> None:
    stuck(site, write="exclusive")
    failed = look(site)
    assert failed["failed"] and "never gives it back" in failed["msg"] and "writes-locked.md" in failed["msg"]
    assert site.changes() == []


def test_a_look_that_is_not_answered_while_no_lock_is_held_is_only_said(site: Site) -> None:
    stuck(site)
    answer = look(site)
    assert not answer.get("failed") and "was not looked into" in answer["warnings"][0] and site.changes() == []


def test_the_low_water_mark_rises_also_where_the_database_could_not_be_looked_into(site: Site) -> None:
    stuck(site)
    answer = look(site, low_water=True)
    assert "was not looked into" in answer["warnings"][0]
    assert site.record()["lowWaterTXID"] == f"{site.node(0).txid:016x}"


@pytest.mark.parametrize(("behind", "mode"), [(True, "wal"), (False, "delete")])
def test_a_change_from_wal_is_kept_only_once_every_replica_has_it(
    site: Site, tmp_path: Path, behind: bool, mode: str
) -> None:
    look(site)
    for ordinal in (0, 1, 2):
        site.node(ordinal).content = content(tmp_path)
    if behind:
        site.node(2).follows, site.node(2).txid = None, 1
    answer = look(site)
    assert site.record()["journalMode"] == mode
    assert any("journal-mode.md" in warning for warning in answer["warnings"]) is behind


@pytest.mark.parametrize(
    ("mounts", "read_only", "said"),
    [
        (READ_ONLY, True, False),
        (READ_ONLY.replace("ro,", "rw,"), True, True),
        (READ_ONLY.replace("ro,", "rw,"), False, False),  # nobody asked for it
        (None, True, False),
    ],
)
def test_a_replica_that_could_write_is_named(site: Site, mounts: str | None, read_only: bool, said: bool) -> None:
    site.mounts = mounts
    warnings = look(site, read_only=read_only)["warnings"]
    assert any("abaci-app-1 and abaci-app-2 can open" in warning for warning in warnings) is said
    assert json.dumps(warnings).count("for writing") == said


def test_without_a_primary_there_is_nothing_to_look_at(site: Site) -> None:
    site.node(0).running = False
    answer = look(site)
    assert (answer["changed"], answer["header"], answer["warnings"]) == (False, {}, [])

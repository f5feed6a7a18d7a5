"""The low-water mark of the record: below it no primary starts, whoever answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import deciding
import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import identity
from ansible_collections.abaci.infra.plugins.module_utils.operations import act, promote
from ansible_collections.abaci.infra.plugins.modules import low_water
from fake_api import Cluster, run
from playing import operate

NOW = "2026-01-02T00:00:00Z"
RECORD = {"state": "recorded", "clusterID": make.A, "primaryOrdinal": "0"}


def mark(txid: int) -> dict[str, str]:
    return {"lowWaterTXID": f"{txid:016x}", "lowWaterTime": NOW}


def living(**answers: Any) -> dict[str, Any]:
    """A primary and two replicas at TXID 5; r1 and r2 are other answers of the replicas."""
    given = {0: make.node(txid=5, primary=True), 1: make.node(txid=5), 2: make.node(txid=5)}
    given |= {int(name[1:]): answer for name, answer in answers.items()}
    site: dict[str, Any] = make.living(given)
    return site


RISES: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, str]]] = {
    "where there is none": (RECORD, living(), mark(5)),
    "from an older one": (RECORD | mark(3), living(), mark(5)),
    "to what the slowest replica has, which may become the primary": (
        RECORD | mark(3),
        living(r1=make.node(txid=4)),
        mark(4),
    ),
    "whatever a replica without the database says": (RECORD, living(r1=make.node(database=None)), mark(5)),
    "whatever a pod of another cluster says": (RECORD, living(r1=make.node(make.B, txid=1)), mark(5)),
    "not, where nothing was written": (RECORD | mark(5), living(), {}),
    "not, where it would sink": (RECORD | mark(6), living(), {}),
    "not, where the primary is of another cluster": (
        RECORD,
        living(r0=make.node(make.B, txid=9, primary=True)),
        {},
    ),
    "not, where no primary runs": (RECORD, living(r0=make.node(txid=5)), {}),
    "not, where two say so": (RECORD, living(r1=make.node(txid=5, primary=True)), {}),
    "not, where the primary has no database yet": (
        RECORD,
        living(r0=make.node(primary=True, database=None)),
        {},
    ),
    "not, where no cluster is recorded": (RECORD | {"state": "bootstrap"}, living(), {}),
    "not, during a restore": (RECORD | {"state": "restore"}, living(), {}),
}


@pytest.mark.parametrize("case", RISES)
def test_it_rises(case: str) -> None:
    data, state, expected = RISES[case]
    assert identity.raised(data, state, NOW) == expected


def test_hexadecimal_is_compared_as_numbers_are() -> None:
    assert identity.raised(RECORD | mark(0x9F), living(r0=make.node(txid=0x100, primary=True)), NOW) == {}
    high = {n: make.node(txid=0x100, primary=n == 0) for n in range(3)}
    assert identity.raised(RECORD | mark(0x9F), make.living(high), NOW) == mark(0x100)


def test_it_is_lowered_only_to_what_the_role_goes_to() -> None:
    assert identity.lowered(RECORD | mark(9), 7, NOW) == mark(7)
    assert identity.lowered(RECORD | mark(9), 9, NOW) == {}
    assert identity.lowered(RECORD, 7, NOW) == {}


def test_a_mark_of_another_cluster_goes_when_the_record_gets_its_id() -> None:
    there = make.record("bootstrap")
    there["data"] |= mark(900) | {"journalMode": "wal"}
    data = identity.decide(make.living(record=there), 0).data
    assert data is not None
    assert data["clusterID"] == make.A and data["journalMode"] == "wal"
    assert not data.keys() & {"lowWaterTXID", "lowWaterTime"}


def site(api: Any) -> act.Site:
    return act.Site(api, make.NAMESPACE, make.NAME, make.DATABASE, "litefs-data", 20202)


def test_the_record_gets_what_was_seen_and_nothing_else_changes() -> None:
    cluster = Cluster()
    before = dict(cluster.record())
    assert site(cluster).raise_low_water() is True
    after = dict(cluster.record())
    assert {key: after[key] for key in after.keys() - {"lowWaterTXID", "lowWaterTime"}} == before
    assert int(after["lowWaterTXID"], 16) > 0
    assert [(one.method, one.kind) for one in cluster.changes()] == [("PUT", "ConfigMap")]
    assert site(cluster).raise_low_water() is False
    assert len(cluster.changes()) == 1


def test_who_loses_the_race_for_the_record_leaves_it_to_the_next() -> None:
    cluster = Cluster()
    cluster.fail("PUT", "ConfigMap", how=409)
    assert site(cluster).raise_low_water() is False
    assert "lowWaterTXID" not in cluster.record()
    assert site(cluster).raise_low_water() is True


def test_the_module_raises_it_and_never_reports_a_change() -> None:
    cluster = Cluster()
    where = {"namespace": make.NAMESPACE, "name": make.NAME, "database": make.DATABASE}
    assert run(low_water, cluster, check=True, **where)["raised"] is False
    assert not cluster.changes()
    answer = run(low_water, cluster, **where)
    assert (answer["raised"], answer["changed"]) == (True, False)
    answer = run(low_water, cluster, **where)
    assert (answer["raised"], answer["changed"]) == (False, False)


def test_promote_lowers_it_to_the_copy_that_it_takes() -> None:
    """What the operator gave up: the guard would fence the successor for ever."""
    cluster = Cluster()
    there = site(cluster)
    there.write_record(mark(10**6))
    document = there.look()
    step = {"do": "record", "primary_ordinal": 1, "fenced": [0], "promote": "{}"}
    deciding.do(there, step, state=document)
    record = cluster.record()
    assert record["primaryOrdinal"] == "1" and record["fencedOrdinals"] == "0"
    assert int(record["lowWaterTXID"], 16) == int(
        next(pod for pod in document["pods"] if pod["ordinal"] == 1)["litefs"]["databases"][make.DATABASE]["txid"], 16
    )


def test_hazard_a_promote_that_is_called_off_keeps_the_mark_for_a_primary_that_cannot_be_asked() -> None:
    """Its volume may be an older copy, and nothing was given up."""
    cluster = Cluster()
    there = site(cluster)
    there.write_record(mark(3))
    cluster.node(0).running = False
    step = {"do": "record", "primary_ordinal": 0, "fenced": [], "promote": None}
    deciding.do(there, step, state=there.look())
    assert cluster.record()["lowWaterTXID"] == f"{3:016x}"


def test_a_restored_file_has_none_and_waits_for_nothing_of_the_archive() -> None:
    cluster = Cluster()
    there = site(cluster)
    known = {"from": 1, "fenced": [], "planned": False, "equal": False, "archive": f"{8:016x}", "also": {"x": "9"}}
    key = {promote.KEY: json.dumps(known), act.FENCED_KEY: "1"}
    there.write_record({"state": "restore"} | mark(10**6) | key)
    checksum = there.look()["pods"][0]["litefs"]["databases"][make.DATABASE]["checksum"]
    deciding.do(there, {"do": "record_id", "ordinal": 0}, file={"imported_checksum": checksum})
    record = cluster.record()
    assert record["state"] == "recorded"
    assert json.loads(record[promote.KEY]) == known | {"archive": "", "also": {}}
    assert not record.keys() & {"lowWaterTXID", "lowWaterTime"}


def test_an_operation_that_ends_raises_the_mark(tmp_path: Path) -> None:
    cluster = Cluster()
    assert operate(cluster, "scale", {"replicas": 3, "remove_volumes": False, "lost_replicas": []}, tmp_path).rc == 0
    assert cluster.record()["lowWaterTXID"] == f"{cluster.node(0).txid:016x}"

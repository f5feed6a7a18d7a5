"""The parsers of LiteFS's answers, and what positions mean."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import litefs
from ansible_collections.abaci.infra.plugins.module_utils.litefs import Position
from factory_objects import DATABASE, A, B, info_body, living, metrics_body, node, pod, record, statefulset, vars_body

GONE = litefs.unreachable("its container is not running")


def at(txid: int, checksum: str = "aaaaaaaaaaaaaaaa") -> Position:
    return Position(txid, checksum)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (info_body(A, True, True), litefs.Info(A, True, "abaci-app-0")),
        (info_body(A), litefs.Info(A, False, "abaci-app-0")),
        (info_body(None, host=""), litefs.Info(None, False, None)),  # an empty replica that waits
        (info_body(B, candidate=True).encode(), litefs.Info(B, False, "abaci-app-0")),
        (info_body("LFSCany sixteen char"), litefs.Info("LFSCany sixteen char", False, "abaci-app-0")),
    ],
)
def test_info_is_read(body: str | bytes, expected: litefs.Info) -> None:
    assert litefs.parse_info(body) == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html>", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "no isPrimary"),
        ('{"isPrimary": "yes", "candidate": true}', "no isPrimary"),
        ('{"isPrimary": true}', "no candidate"),
        (info_body("nonsense"), "no LiteFS cluster id"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_another_service_on_the_port_is_not_taken_for_litefs(body: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        litefs.parse_info(body)


def test_databases_come_with_position_and_locks() -> None:
    found = litefs.parse_vars(vars_body(0x1F, "0123456789ABCDEF", write="exclusive"))
    assert found[DATABASE].position == Position(31, "0123456789abcdef")
    assert found[DATABASE].locks["write"] == "exclusive"
    assert found[DATABASE].locks["read0"] == "unlocked"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"cmdline": []}', "has not opened its data"),
        ('{"store": null}', "has not opened its data"),
        (vars_body().replace("0000000000000005", "5", 1), "16 hex digits"),
        (vars_body(checksum="nothex"), "16 hex digits"),
        ('{"store": {"dbs": {"a.db": null}}}', "describes the database a.db"),
    ],
)
def test_bad_debug_vars_are_refused(body: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        litefs.parse_vars(body)


def test_a_node_without_databases_has_none() -> None:
    assert litefs.parse_vars('{"store": {"isPrimary": true, "candidate": true, "dbs": {}}}') == {}
    assert litefs.parse_vars('{"store": {"dbs": null}}') == {}


def test_metrics_are_read_with_labels_exponents_and_timestamps() -> None:
    found = litefs.parse_metrics(
        metrics_body(1, "1.5e-01", 2)
        + 'litefs_db_txid{db="a \\"b\\\\c.db",other="x"} 1.8446744073709552e+19 1700000000000\n'
    )
    assert found.lag_seconds == 0.15
    assert found.databases["sqlite.db"] == {"txid": 5.0, "ltx_bytes": 4096.0}
    assert found.databases['a "b\\c.db']["txid"] == 2.0**64


def test_metrics_of_another_program_are_refused() -> None:
    with pytest.raises(ValueError, match="litefs_is_primary"):
        litefs.parse_metrics("go_goroutines 4\n")


@pytest.mark.parametrize(
    ("primary", "samples", "expected"),
    [
        (True, [0, 0], False),
        (False, [0, 0], True),  # section 0.7: never synced looks like no lag at all
        (False, [0, 0.05], False),  # exactly 0 once is luck
        (False, [0.3], False),
        (False, [0], None),
        (False, [], None),
        (False, [None, None], None),
        (False, [-0.004, 0], False),  # the clocks of two nodes
        (False, [71.2, 72.2], False),  # disconnected after it had synced
    ],
)
def test_never_synced_is_told_apart_from_lag_zero(
    primary: bool, samples: list[float | None], expected: bool | None
) -> None:
    assert litefs.never_synced(primary, samples) is expected


def test_lag_is_null_while_never_synced() -> None:
    assert node(never_synced=True)["lag_ms"] is None
    assert node(never_synced=True)["primary_hostname"] is None
    assert node()["lag_ms"] == 250
    assert node(primary=True)["lag_ms"] == 0


@pytest.mark.parametrize(
    ("mine", "other", "clusters", "expected"),
    [
        (at(5), at(5), (A, A), "equal"),
        (at(4), at(5), (A, A), "behind"),
        (at(6), at(5), (A, A), "ahead"),
        (at(5), at(5, "bbbbbbbbbbbbbbbb"), (A, A), "diverged"),
        (at(900), at(5), (A, B), "incomparable"),  # a new cluster counts from 1 again
        (at(5), at(5), (A, B), "incomparable"),
        (at(5), at(5), (None, None), "incomparable"),
        (at(5), at(5), (A, None), "incomparable"),
        (at(0xF), at(0x10), (A, A), "behind"),  # numbers, not text
        (at(2**64 - 1), at(2**63), (A, A), "ahead"),
        (at(0, "0" * 16), at(1), (A, A), "behind"),
    ],
)
def test_positions_compare_within_one_lineage_only(
    mine: Position, other: Position, clusters: tuple[str | None, str | None], expected: str
) -> None:
    assert litefs.compare(mine, other, *clusters) == expected


@pytest.mark.parametrize("txid", ["", "5", "000000000000000g", "00000000000000005", None, 5])
def test_a_txid_is_16_hex_digits(txid: Any) -> None:
    with pytest.raises(ValueError, match="16 hex digits"):
        Position.parse(txid, "0" * 16)


@pytest.mark.parametrize(
    ("value", "good"),
    [(A, True), ("LFSC", False), (A + "A", False), ("lfscAAAAAAAAAAAAAAAA", False), (None, False), (A + "\n", False)],
)
def test_cluster_ids_are_known_by_their_form(value: object, good: bool) -> None:
    assert litefs.is_cluster_id(value) is good


def test_primaries_are_those_that_say_so_whatever_their_ordinal() -> None:
    moved = living({0: node(), 2: node(primary=True)})
    assert [found["name"] for found in litefs.primaries(moved)] == ["abaci-app-2"]
    assert litefs.primaries(living({0: litefs.unreachable("no answer")})) == []
    assert len(litefs.primaries(living({1: node(primary=True)}))) == 2


def test_divergence_is_the_same_txid_with_another_checksum_in_one_cluster() -> None:
    other = "bbbbbbbbbbbbbbbb"
    assert litefs.divergent(living(), DATABASE) == []
    assert litefs.divergent(living({2: node(checksum=other)}), DATABASE) == [
        ("abaci-app-0", "abaci-app-2", "0000000000000005")
    ]
    assert litefs.divergent(living({2: node(B, checksum=other)}), DATABASE) == []
    assert litefs.divergent(living({2: node(txid=4, checksum=other)}), DATABASE) == []


TARGET = {"pod": "abaci-app-0", "cluster_id": A, "txid": f"{5:016x}", "checksum": f"c0ffee{5:010x}"}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (living(), None),
        (living({0: node(txid=9, primary=True), 1: node(txid=9)}), None),  # the site is written to meanwhile
        (living({1: node(txid=4)}), "abaci-app-1 is at TXID 0000000000000004"),
        (living({1: node(B, txid=900)}), f"abaci-app-1 holds the LiteFS cluster {B}"),
        (living({0: node(B, 1, primary=True)}), f"primary abaci-app-0 held the LiteFS cluster {A} when .* {B} now"),
        (living({2: node(None, database=None)}), "abaci-app-2 has not joined the cluster"),
        (living({2: node(database=None)}), "abaci-app-2 does not have the database"),
        (living({2: node(never_synced=True)}), "abaci-app-2 has never been in sync"),
        (living({2: litefs.unreachable("no route to host")}), r"abaci-app-2 does not answer \(no route to host\)"),
        (living({2: node(checksum="b" * 16)}), "abaci-app-2 has checksum b"),
        (living({1: node(txid=7), 2: node(txid=7, checksum="b" * 16)}), "abaci-app-1 and abaci-app-2 have the same"),
        (living(pods=[pod(0), pod(2)]), "abaci-app-1 does not exist"),
        (living(statefulset=statefulset(replicas=4)), "abaci-app-3 does not exist"),
        (living({1: node(primary=True)}), "has to be primary, but 2 say so: abaci-app-0 and abaci-app-1"),
        (living({0: node()}), "has to be primary, but none says so"),
        (living({0: node(txid=3, primary=True)}), "abaci-app-0 is at TXID 0000000000000003"),  # 8.6: rolled back
    ],
)
def test_replicated_names_the_pod_that_is_not_there(state: dict[str, Any], words: str | None) -> None:
    answer = litefs.replicated(state, TARGET, DATABASE)
    if words is None:
        assert answer == {"done": True, "problems": []}
    else:
        assert not answer["done"]
        assert re.search(words, answer["problems"][0])


def test_what_the_record_fences_need_not_be_replicated() -> None:
    state = living({2: GONE})
    assert not litefs.replicated(state, TARGET, DATABASE)["done"]
    fenced = living({2: GONE}, record=record("recorded", A, fenced="2"))
    assert litefs.replicated(fenced, TARGET, DATABASE) == {"done": True, "problems": []}
    assert not litefs.replicated(living({1: GONE}, record=record("recorded", A, fenced="2")), TARGET, DATABASE)["done"]


def test_nothing_is_replicated_where_no_replica_is_wanted() -> None:
    answer = litefs.replicated(living(statefulset=statefulset(replicas=0)), TARGET, DATABASE)
    assert not answer["done"]
    assert "wants no pod" in answer["problems"][0]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (living(), TARGET),
        (living({0: node()}), None),
        (living({1: node(primary=True)}), None),
        (living({0: node(primary=True, database=None)}), None),
        (living({0: node(primary=True, txid=0, checksum="0" * 16)}), None),
    ],
)
def test_the_position_asked_for_is_that_of_the_only_primary(
    state: dict[str, Any], expected: dict[str, str] | None
) -> None:
    assert litefs.primary_position(state, DATABASE) == expected

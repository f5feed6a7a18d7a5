"""The archive of every transaction: whole through what happens to a site, and any of it can be had again."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import operating as op
import pytest
from sitebed import ROOT, Bed, until
from writer import Writer, compare, list_records, read_ledger

APP_IMAGE = "ghcr.io/antialias/soroban-abacus-flashcards:latest"
ARCHIVE = ("-e", json.dumps({"archive_image": APP_IMAGE}))
POD = "deploy/abaci-app-archive"
ASK = (
    "import sys,urllib.request as u\n"
    "try: sys.stdout.write(u.urlopen('http://127.0.0.1:9103'+sys.argv[1],timeout=60).read().decode())\n"
    "except u.HTTPError as e: sys.stdout.write(e.read().decode())"
)
# How long after its time each transaction that is kept as a file of its own was on the disk; the bed has one clock.
DELAYS = (
    "import glob,os,struct\n"
    "for f in glob.glob('/buffer/**/*.ltx',recursive=True):\n"
    "  h=open(f,'rb').read(100)\n"
    "  a,b,t=struct.unpack('>QQq',h[16:40])\n"
    "  if a>1: print(round(os.stat(f).st_mtime*1000-t))"
)


def in_archive(bed: Bed, *command: str) -> str:
    return bed.kubectl("exec", "-n", "abaci", POD, "-c", "archive", "--", *command)


def ask(bed: Bed, path: str) -> Any:
    return json.loads(in_archive(bed, "python3", "-c", ASK, path))


def ours(bed: Bed) -> Any:
    """The state of the application's database."""
    (found,) = [one for one in ask(bed, "/status")["databases"] if one["database"] == "sqlite.db"]
    return found


def level(bed: Bed, seconds: float = 60) -> str:
    """Wait until the archive has, and has proven, what the primary has; the TXID."""
    txid = op.agree(bed, seconds=120)[1]
    until(lambda: ours(bed)["verified"]["txid"] == txid, seconds, "the archive has proven what the primary has")
    return txid


def kept(bed: Bed) -> list[dict[str, Any]]:
    """Every transaction of the newest history."""
    history = ours(bed)["history"]
    lines = in_archive(bed, "python3", "-c", ASK, "/transactions?database=sqlite.db&since=2020-01-01T00:00:00Z")
    *found, end = (json.loads(line) for line in lines.splitlines())
    assert end == {"end": True, "count": len(found)}
    return [one for one in found if one["history"] == history]


def fetch(bed: Bed, path: str, into: Path) -> Path:
    """A database of the archive, as docs/archive.md gets it."""
    command = [str(ROOT / ".venv/bin/kubectl"), f"--kubeconfig={bed.kubeconfig}", "-n", "abaci"]
    with subprocess.Popen([*command, "port-forward", POD, "19103:9103"], stdout=subprocess.PIPE) as forward:
        try:
            assert forward.stdout and b"Forwarding" in forward.stdout.readline()
            subprocess.run(["curl", "-sf", "-o", into, f"http://127.0.0.1:19103{path}"], check=True, timeout=120)
        finally:
            forward.terminate()
    return into


def count(path: Path, query: str = "SELECT count(*) FROM records") -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(db.execute(query).fetchone()[0])


@pytest.fixture(scope="module")
def archived(bed: Bed) -> None:
    run = bed.playbook(*ARCHIVE)
    assert run.rc == 0, run.output[-4000:]
    again = bed.playbook(*ARCHIVE)
    assert again.rc == 0 and again.total("changed") == 0, again.output[-4000:]
    level(bed)


@pytest.mark.usefixtures("archived")
def test_it_runs_apart_from_the_primary_and_may_do_little(bed: Bed) -> None:
    (pod,) = bed.get("pods", "-n", "abaci", "-l", "app.kubernetes.io/component=archive")["items"]
    primary = bed.get("pod", f"abaci-app-{op.record(bed)['primaryOrdinal']}", "-n", "abaci")
    assert pod["spec"]["nodeName"] != primary["spec"]["nodeName"]
    account = "--as=system:serviceaccount:abaci:abaci-app-archive"
    for verb, what in (("get", "secrets"), ("list", "pods"), ("create", "pods"), ("patch", "configmaps")):
        assert bed.kubectl("auth", "can-i", verb, what, "-n", "abaci", account, check=False).strip().startswith("no")


@pytest.mark.usefixtures("archived")
def test_ten_thousand_acknowledged_writes_are_kept_through_what_happens_to_a_site(bed: Bed, tmp_path: Path) -> None:
    """A rollout, the end of the archive's pod and of its node, a scale, and a planned move of the primary and back."""

    def play(name: str, **variables: Any) -> None:
        run = op.operate(bed, name, "-e", json.dumps(variables), backups=tmp_path / "backups")
        assert run.rc == 0, run.output[-3000:]

    (pod,) = bed.get("pods", "-n", "abaci", "-l", "app.kubernetes.io/component=archive")["items"]
    writer = Writer(bed.site(), tmp_path / "ledger", seconds=1500, rate=40).start()
    time.sleep(5)
    bed.kubectl("rollout", "restart", "statefulset/abaci-app", "-n", "abaci")
    bed.kubectl("rollout", "status", "statefulset/abaci-app", "-n", "abaci", "--timeout=300s", timeout=320)
    bed.kubectl("delete", "pod", "-n", "abaci", "-l", "app.kubernetes.io/component=archive", timeout=120)
    bed.kubectl("rollout", "status", POD, "-n", "abaci", "--timeout=120s", timeout=140)
    node = pod["spec"]["nodeName"]
    bed.power_off(node)
    time.sleep(20)
    bed.power_on(node)
    until(lambda: bed.ready(node), 240, "the archive's node is back")
    bed.kubectl("rollout", "status", "statefulset/abaci-app", "-n", "abaci", "--timeout=300s", timeout=320)
    for was, then in ((0, 1), (1, 0)):
        assert op.record(bed)["primaryOrdinal"] == str(was)
        play("promote", promote_to=then)
    play("scale", scale_replicas=4)
    until(lambda: writer.report().acknowledged >= 10_000, 400, "so many are acknowledged")
    report = writer.stop()
    play("scale", scale_replicas=3)
    txid = level(bed)
    assert compare(*read_ledger(tmp_path / "ledger"), list_records(bed.site()))["ok"]
    found = kept(bed)
    numbers = [int(one["txid"], 16) for one in found]
    assert numbers == list(range(numbers[0], int(txid, 16) + 1)), "no transaction is missing"
    assert ours(bed)["gaps"] == [] and ask(bed, "/status")["alarms"] == []
    rows = int(op.rows(bed, 0).split("|")[0])
    assert count(fetch(bed, f"/database?database=sqlite.db&txid={txid}", tmp_path / "newest")) == rows
    delays = sorted(float(line) for line in in_archive(bed, "python3", "-c", DELAYS).splitlines())
    hundredth = delays[int(len(delays) * 0.99)]
    print(f"{report.acknowledged} acknowledged, {len(found)} transactions kept, 0 missing")
    print(f"on the archive's disk after: median {statistics.median(delays):.0f} ms, p99 {hundredth:.0f} ms")
    # The copying of what was written while the archive was away is in it.
    assert statistics.median(delays) < 1000


@pytest.mark.usefixtures("archived")
def test_the_moment_before_a_wrong_delete_is_given_back_whole(bed: Bed, tmp_path: Path) -> None:
    op.post(bed, 20, "before the deletion")
    before = level(bed)
    rows = int(op.rows(bed, 0).split("|")[0])
    primary = f"abaci-app-{op.record(bed)['primaryOrdinal']}"
    moment = datetime.datetime.now(datetime.UTC)
    time.sleep(1)
    bed.rows(primary, "DELETE FROM records")
    op.post(bed, 2, "after the deletion")
    after = level(bed)
    assert int(after, 16) > int(before, 16)
    began = time.monotonic()
    at = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    then = fetch(bed, f"/database?database=sqlite.db&time={at}", tmp_path / "then")
    print(f"{then.stat().st_size} bytes of {at} in {time.monotonic() - began:.1f} s")
    assert count(then) == rows
    assert count(fetch(bed, f"/database?database=sqlite.db&txid={after}", tmp_path / "now")) == 2
    shrunk = [one for one in kept(bed) if int(before, 16) < int(one["txid"], 16)]
    assert int(shrunk[0]["txid"], 16) == int(before, 16) + 1, "the deletion is the next one"
    for wrong, words in (
        ("time=2020-01-01T00:00:00Z", "before"),
        (f"txid={int(after, 16) + 1000:016x}", "after"),
        ("time=yesterday", "yesterday"),
    ):
        answer = ask(bed, f"/database?database=sqlite.db&{wrong}")
        assert words in answer["error"] and answer["error"].endswith("."), answer


@pytest.mark.usefixtures("archived")
def test_the_playbooks_find_the_deletion_and_go_back_before_it(bed: Bed, tmp_path: Path) -> None:
    def play(name: str, **variables: Any) -> Any:
        run = op.operate(bed, name, "-e", json.dumps(variables), backups=tmp_path / "backups")
        assert run.rc == 0, run.output[-4000:]
        return run

    op.post(bed, 20, "before another deletion")
    before = level(bed)
    rows = int(op.rows(bed, 0).split("|")[0])
    bed.rows(f"abaci-app-{op.record(bed)['primaryOrdinal']}", "DELETE FROM records WHERE id % 2 = 0")
    op.post(bed, 5, "after another deletion")
    level(bed)
    asked = "SELECT count(*) FROM records"
    began = time.monotonic()
    found = play("history", history_since="1h ago", history_lost=asked).output
    print(f"found in {time.monotonic() - began:.0f} s")
    assert f"restore_at={before}" in found and "databases were rebuilt for" in found
    assert str(rows) in play("query", query_sql=asked, query_at=before).output
    assert op.rows(bed, 0).split("|")[0] in play("query", query_sql=asked).output
    refused = op.operate(bed, "query", "-e", json.dumps({"query_sql": "DELETE FROM records"}), backups=tmp_path)
    assert refused.rc != 0 and "may only read" in refused.output
    play("backup", backup_at=before)
    play("restore_drill", restore_drill_query=asked)
    (drilled,) = (tmp_path / "backups").glob("*.drill.json")
    assert json.loads(drilled.read_text())["ok"]
    checked = op.operate(bed, "restore", "--check", "-e", f"restore_at={before}", backups=tmp_path / "backups")
    assert checked.rc == 0 and "taken back" in checked.output and int(op.rows(bed, 0).split("|")[0]) < rows
    began = time.monotonic()
    restored = play("restore", restore_at=before).output
    print(f"went back in {time.monotonic() - began:.0f} s")
    assert "(rows: " in restored and "records" in restored
    assert int(op.rows(bed, 0).split("|")[0]) == rows
    level(bed)
    assert ask(bed, "/status")["alarms"] == [], "a restore continues the history"


@pytest.mark.usefixtures("archived")
def test_the_acknowledged_tail_survives_the_primary_and_its_volume(bed: Bed, tmp_path: Path) -> None:
    """The replicas hear nothing while the primary acknowledges writes; then its volume is gone."""
    level(bed)
    primary = f"abaci-app-{op.record(bed)['primaryOrdinal']}"
    pod = bed.get("pod", primary, "-n", "abaci")
    node, address = pod["spec"]["nodeName"], pod["status"]["podIP"]
    peers = [one["status"]["podIP"] for one in bed.pods() if one["metadata"]["name"] != primary]
    cut = [rule for peer in peers for rule in (("-s", address, "-d", peer), ("-s", peer, "-d", address))]
    for rule in cut:
        bed.node_exec(node, "iptables", "-I", "FORWARD", *rule, "-j", "DROP")
    op.post(bed, 10, "only the archive has this")
    tail = op.positions(bed, (int(primary.rpartition("-")[2]),))
    (place,) = tail.values()
    until(lambda: ours(bed)["received"]["txid"] == place[1], 10, "the archive has the tail")
    lost = op.lose_volume(bed, int(primary.rpartition("-")[2]))
    for rule in cut:
        bed.node_exec(node, "iptables", "-D", "FORWARD", *rule, "-j", "DROP")
    until(lambda: "refuses to start as primary" in op.guard_says(bed, 0), 180, "the guard holds it")
    saved = fetch(bed, f"/database?database=sqlite.db&txid={place[1]}", tmp_path / "tail")
    query = "SELECT count(*) FROM records WHERE body LIKE 'only the archive has this-%'"
    assert count(saved, query) == 10
    from test_60_scale_and_reset import give_back

    give_back(bed, lost)
    assert op.agree(bed, seconds=240)[1] == place[1]
    level(bed)
    assert ask(bed, "/status")["alarms"] == [], "what continues is no alarm"


@contextlib.contextmanager
def cut_off(bed: Bed, ordinal: int) -> Iterator[None]:
    """The other pods hear nothing of this one; the archive does."""
    pod = bed.get("pod", f"abaci-app-{ordinal}", "-n", "abaci")
    node, address = pod["spec"]["nodeName"], pod["status"]["podIP"]
    peers = [one["status"]["podIP"] for one in bed.pods() if one["metadata"]["name"] != pod["metadata"]["name"]]
    cut = [rule for peer in peers for rule in (("-s", address, "-d", peer), ("-s", peer, "-d", address))]
    for rule in cut:
        bed.node_exec(node, "iptables", "-I", "FORWARD", *rule, "-j", "DROP")
    try:
        yield
    finally:
        for rule in cut:
            bed.node_exec(node, "iptables", "-D", "FORWARD", *rule, "-j", "DROP")


def destroy(bed: Bed, volume: str) -> None:
    """The directory of a volume that no claim has any more, and the volume."""
    spec = bed.get("pv", volume)["spec"]
    path = (spec.get("hostPath") or spec.get("local"))["path"]
    (term,) = spec["nodeAffinity"]["required"]["nodeSelectorTerms"]
    bed.node_exec(term["matchExpressions"][0]["values"][0], "rm", "-rf", path)
    bed.kubectl("delete", "pv", volume, "--wait=false")


def figure_of(run: Any) -> str:
    """The word that the refusal asks for."""
    op.refused(run, "promote_accept_loss_after=")
    found = re.search(r"promote_accept_loss_after=([0-9a-f]{16})", run.output)
    assert found
    return found[1]


def as_before(bed: Bed, old: int, backups: Path) -> None:
    """The old primary has its role back, and everybody follows."""
    for playbook, word in (("replica_reset", {"replica_reset_targets": [old]}), ("promote", {"promote_to": old})):
        run = op.operate(bed, playbook, "-e", json.dumps(word), backups=backups)
        assert run.rc == 0, run.output[-4000:]
    op.agree(bed, seconds=240)


@pytest.mark.usefixtures("archived")
def test_promote_brings_back_what_only_the_archive_has_also_where_it_is_killed_on_the_way(
    bed: Bed, tmp_path: Path
) -> None:
    """The replicas hear nothing while the primary acknowledges writes; then its volume is gone for good."""
    backups = tmp_path / "backups"
    before = level(bed)
    old = int(op.record(bed)["primaryOrdinal"])
    others = tuple(ordinal for ordinal in (0, 1, 2) if ordinal != old)
    with cut_off(bed, old):
        op.post(bed, 10, "brought back")
        (place,) = op.positions(bed, (old,)).values()
        until(lambda: ours(bed)["received"]["txid"] == place[1], 10, "the archive has the tail")
        history = ours(bed)["history"]
        lost = op.lose_volume(bed, old)
        until(lambda: "refuses to start as primary" in op.guard_says(bed, old), 180, "the guard holds it")
        destroy(bed, lost)
    query = "SELECT count(*) FROM records WHERE body LIKE 'brought back-%'"
    assert {str(bed.rows(f"abaci-app-{ordinal}", query)).strip() for ordinal in others} == {"0"}
    shown = op.operate(bed, "promote", backups=backups)
    assert figure_of(shown) == place[1], "all that the archive has is counted as there"
    more = int(place[1], 16) - int(before, 16)
    assert f"{more} acknowledged transactions" in shown.output and "They are brought back" in shown.output
    word = ("-e", f"promote_accept_loss_after={place[1]}")
    for _turn in range(2):
        op.operate(bed, "promote", *word, backups=backups, interrupt="act")
    for seconds in (1, 5, 15):
        killed = op.operate(bed, "promote", *word, backups=backups, interrupt="during", after=seconds)
        print(f"killed {seconds} s into a step: rc {killed.rc}")
    acts = op.until_done(bed, "promote", *word, backups=backups)
    print(acts)
    assert op.record(bed)["primaryOrdinal"] != str(old)
    found = op.agree(bed, others, 240)
    assert found[0] == place[0] and int(found[1], 16) >= int(place[1], 16)
    for ordinal in others:
        assert str(bed.rows(f"abaci-app-{ordinal}", query)).strip() == "10"
    until(lambda: bed.edge("POST", "/api/records", b'{"body": "after"}').status == 201, 60, "writes again")
    assert ours(bed)["history"] == history and ask(bed, "/status")["alarms"] == [], "what continues is no alarm"
    as_before(bed, old, backups)
    level(bed)


@pytest.mark.parametrize("turn", range(int(os.environ.get("KILLS", "1"))))
@pytest.mark.usefixtures("archived")
def test_the_primarys_node_is_off_under_load_and_nothing_that_reached_the_archive_is_lost(
    bed: Bed, turn: int, tmp_path: Path
) -> None:
    """KILLS says how often."""
    backups = tmp_path / "backups"
    level(bed)
    (pod,) = bed.get("pods", "-n", "abaci", "-l", "app.kubernetes.io/component=archive")["items"]
    nodes = {n: str(bed.get("pod", f"abaci-app-{n}", "-n", "abaci")["spec"]["nodeName"]) for n in (0, 1, 2)}
    was = int(op.record(bed)["primaryOrdinal"])
    old = next(n for n, node in nodes.items() if node not in ("server-0", pod["spec"]["nodeName"]))
    if old != was:
        moved = op.operate(bed, "promote", "-e", f"promote_to={old}", backups=backups)
        assert moved.rc == 0, moved.output[-4000:]
    level(bed)
    others = tuple(ordinal for ordinal in (0, 1, 2) if ordinal != old)
    writer = Writer(bed.site(), tmp_path / "ledger", seconds=600, rate=40).start()
    time.sleep(15)
    bed.power_off(nodes[old])
    try:
        until(lambda: not bed.ready(nodes[old]), 120, "the API knows that the node is away")
        report = writer.stop()
        off = ("-e", f"promote_node_off={nodes[old]}")
        word = ("-e", f"promote_accept_loss_after={figure_of(op.operate(bed, 'promote', *off, backups=backups))}")
        began = time.monotonic()
        run = op.operate(bed, "promote", *off, *word, backups=backups)
        print(f"promoted in {time.monotonic() - began:.0f} s")
        assert run.rc == 0, run.output[-4000:]
        op.agree(bed, others, 240)
        result = compare(*read_ledger(tmp_path / "ledger"), list_records(bed.site()))
        print(f"{turn}: {report.acknowledged} acknowledged; {result}")
        # What was acknowledged within the last 100 ms may not have reached the archive.
        assert len(result["missing"]) <= 4, result
    finally:
        bed.power_on(nodes[old])
    until(lambda: bed.ready(nodes[old]), 240, "the node is back")
    until(lambda: "is fenced" in op.guard_says(bed, old), 240, "the old primary is fenced")
    run = op.operate(bed, "replica_reset", "-e", json.dumps({"replica_reset_targets": [old]}), backups=backups)
    assert run.rc == 0, run.output[-4000:]
    op.agree(bed, seconds=240)
    back = op.operate(bed, "promote", "-e", f"promote_to={was}", backups=backups)
    assert back.rc == 0, back.output[-4000:]
    level(bed)


def test_it_goes_and_what_it_keeps_stays(bed: Bed) -> None:
    run = bed.playbook("--tags", "archive", *ARCHIVE, "-e", "archive_state=absent")
    assert run.rc == 0, run.output[-3000:]
    assert "abaci-app-archive" not in bed.kubectl("get", "deployments,networkpolicies", "-n", "abaci")
    assert "abaci-app-archive" in bed.kubectl("get", "pvc", "-n", "abaci")
    removed = bed.playbook(
        "--tags", "archive", *ARCHIVE, "-e", "archive_state=absent", "-e", '{"archive_remove_data": true}'
    )
    assert removed.rc == 0, removed.output[-3000:]
    until(lambda: "abaci-app-archive" not in bed.kubectl("get", "pvc", "-n", "abaci"), 60, "the claim is gone")

"""The steps before and after the migration (check_database.sh, before_migration.sh) under real LiteFS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from litefs_cluster import DATABASE, MIGRATE, REPOSITORY, SERVER, Cluster, MakeCluster, Node, until

FILES = REPOSITORY / "roles" / "app" / "files"


def steps(node: Node, shell: str = "sh") -> None:
    """The exec list of litefs.yml."""
    copies = node.data / "backups"
    check = f"{shell} {FILES}/check_database.sh {DATABASE} {node.data} {node.root}/record"
    copy = f"{shell} {FILES}/before_migration.sh {DATABASE} {node.data} {node.mount} {node.api} {copies} 2"
    migrated = f"rm -f {copies}/{DATABASE}.unfinished"
    commands = [check, copy, MIGRATE, migrated, check]
    node.settings.exec = [*((command, True) for command in commands), (SERVER, False)]
    node.settings.env["PATH"] = f"{node.binary.parent}:{os.environ['PATH']}"


def recorded(node: Node, **keys: str) -> None:
    folder = node.root / "record"
    folder.mkdir(exist_ok=True)
    for key, value in keys.items():
        (folder / key).write_text(value)


@pytest.fixture(params=["delete", "wal"])
def cluster(request: pytest.FixtureRequest, make_cluster: MakeCluster) -> Cluster:
    cluster = make_cluster(2).with_app(request.param)
    for node in cluster.nodes:
        steps(node)
    cluster.start()
    recorded(cluster.primary, state="recorded", clusterID=cluster.primary.cluster_id(), journalMode=request.param)
    return cluster


def copies(node: Node) -> list[Path]:
    return sorted((node.data / "backups").glob("*.before-migration.sqlite"))


def again(node: Node, shell: str = "sh") -> str:
    assert node.stop() == 0
    steps(node, shell)
    node.start()
    return str(node.log())


@pytest.mark.parametrize("shell", ["sh", "busybox sh"])
def test_a_start_copies_only_what_was_written_since_the_last(cluster: Cluster, shell: str) -> None:
    primary = cluster.primary
    assert copies(primary) == [], "there was no database"
    assert primary.post("one").status == 201
    assert "kept as" in again(primary, shell) and len(copies(primary)) == 1
    assert "nothing was written since" in again(primary, shell) and len(copies(primary)) == 1
    assert primary.post("two").status == 201
    assert "kept as" in again(primary, shell)
    assert not list((primary.data / "backups").glob("*.unfinished"))
    assert "WARNING" not in primary.log()


def test_a_database_that_litefs_threw_away_stops_the_start_before_replicas_follow(cluster: Cluster) -> None:
    """Its header is gone: LiteFS deletes the file at its start and would replicate what the migration makes."""
    primary, replica = cluster.nodes
    assert primary.post("kept").status == 201
    cluster.wait_replicated()
    assert primary.stop() == 0
    with (primary.data / "dbs" / DATABASE / "database").open("r+b") as file:
        file.write(bytes(100))
    primary.launch()
    assert primary.exit_code() == 1
    assert "clearing data files" in primary.log() and "The start stops here" in primary.log()
    assert "schema of" not in primary.log(), "no migration ran"
    until(lambda: replica.bodies() == ["kept"])

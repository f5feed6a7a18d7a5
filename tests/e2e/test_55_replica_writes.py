"""A write on a replica is an error at once, below the application."""

from __future__ import annotations

import operating as op
import pytest
from sitebed import Bed

# One row is read and the rest dropped, as libraries do: in WAL mode the commit's error is never heard of then.
LOSE = (
    "import sqlite3;d=sqlite3.connect('/litefs/sqlite.db',isolation_level=None);"
    "c=d.execute(\"INSERT INTO records (body) VALUES ('lost'),('lost'),('lost') RETURNING id\");"
    "print(c.fetchone());c.close()"
)


@pytest.mark.parametrize("ordinal", [1, 2])
def test_a_replica_refuses_a_write_whose_rows_nobody_reads(bed: Bed, ordinal: int) -> None:
    pod = f"abaci-app-{ordinal}"
    mounts = bed.in_pod(pod, "cat", "/proc/self/mounts").splitlines()
    (options,) = [line.split()[3] for line in mounts if line.split()[1] == "/litefs" and line.split()[0] == "litefs"]
    assert "ro" in options.split(",")
    assert "attempt to write a readonly database" in bed.in_pod(pod, "python3", "-c", LOSE, check=False)
    assert bed.rows(pod, "SELECT count(*) FROM records WHERE body = 'lost'") == "0"
    assert "read-only replica: /litefs is read-only" in bed.kubectl("logs", pod, "-n", "abaci", "-c", "app")
    op.agree(bed)


def test_the_primary_still_writes(bed: Bed) -> None:
    assert " rw," in next(
        line
        for line in bed.in_pod("abaci-app-0", "cat", "/proc/self/mounts").splitlines()
        if line.startswith("litefs ")
    )
    assert bed.edge("POST", "/api/records", b'{"body": "by the primary"}').status == 201

"""Fixtures for the facts of real LiteFS.

LITEFS_TESTS=off skips them by name. Anything else that keeps them from running (no FUSE, not root, no binary) fails.
LITEFS_BINARY names another LiteFS to hold against the same facts.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from litefs_cluster import REPOSITORY, Cluster, MakeCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("LITEFS_TESTS") == "off":
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="switched off: LITEFS_TESTS=off"))


def build_litefs() -> Path:
    """The binary that the sample application's image gets, from the cache or built into it."""
    testbed = REPOSITORY / "testbed"
    sys.path.insert(0, str(testbed))
    try:
        spec = importlib.util.spec_from_file_location("abaci_testbed_build", testbed / "build.py")
        assert spec and spec.loader
        build = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = build
        spec.loader.exec_module(build)
        path = Path(build.artifact("litefs"))
    finally:
        sys.path.remove(str(testbed))
    return path / "litefs" if path.is_dir() else path


@pytest.fixture(scope="session")
def litefs() -> Path:
    """The LiteFS binary, on a machine that can run it."""
    missing = [
        sentence
        for wrong, sentence in (
            (os.geteuid() != 0, "these tests mount file systems: run them as root"),
            (not Path("/dev/fuse").exists(), "/dev/fuse is missing: load the kernel module fuse"),
            (not shutil.which("fusermount3"), "fusermount3 is missing: install the package fuse3"),
        )
        if wrong
    ]
    if missing:
        pytest.fail("; ".join(missing) + ", or switch them off with LITEFS_TESTS=off", pytrace=False)
    given = os.environ.get("LITEFS_BINARY")
    return Path(given) if given else build_litefs()


@pytest.fixture
def make_cluster(litefs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCluster]:
    """Makes clusters of nodes (not started) that are gone after the test."""
    clusters: list[Cluster] = []

    def make(size: int = 3, primary: int = 0) -> Cluster:
        clusters.append(Cluster(litefs, tmp_path_factory.mktemp("litefs"), size, primary))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()


@pytest.fixture(scope="module", params=["delete", "wal"])
def site(request: pytest.FixtureRequest, litefs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes with the sample application, in each journal mode; tests leave it as healthy as they found it."""
    cluster = Cluster(litefs, tmp_path_factory.mktemp("site"))
    try:
        yield cluster.with_app(request.param).start()
    finally:
        cluster.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many damaged volumes were tried, and what came of them (test_damaged_volumes.py)."""
    found: Counter[str] = Counter()
    lost = 0
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        if report.when == "call":
            found.update(str(value) for key, value in report.user_properties if key == "volume")
            lost += sum(int(str(value)) for key, value in report.user_properties if key == "lost")
    if not found:
        return
    guarded = Counter(key.split()[2] for key in found.elements())
    terminalreporter.write_line(
        f"damaged volumes: {found.total()} tried; the guard refused {guarded['refuses']} and let {guarded['starts']} "
        f"start; {lost} rows were lost on the copy with the highest position"
    )
    for key, count in sorted(found.items()):
        whose, did, said = key.split()
        terminalreporter.write_line(f"    {whose}: LiteFS {did}, the guard {said}: {count}")

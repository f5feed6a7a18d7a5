"""The pure parts of the builder: keys, recipes, mirrors, the zipapp."""

from __future__ import annotations

import hashlib
import re
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

TESTBED = Path(__file__).resolve().parents[3] / "testbed"
sys.path.insert(0, str(TESTBED))

import build  # noqa: E402


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "server.py").write_text("print(1)\n")
    (tmp_path / "images.py").write_text("x = 1\n")
    return tmp_path


def key(root: Path, recipe: dict[str, object] | None = None, needed: dict[str, str] | None = None) -> str:
    return build.compute_key(recipe or {"version": "1"}, root, ("app", "images.py"), needed or {"base": "aa"})


def test_key_is_the_same_for_another_clone_with_the_same_content(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("clone")
    (other / "app").mkdir()
    (other / "app" / "server.py").write_text("print(1)\n")
    (other / "images.py").write_text("x = 1\n")
    (other / "unrelated").write_text("never part of it\n")
    assert key(other) == key(root)
    assert re.fullmatch(r"[0-9a-f]{16}", key(root))


def test_key_changes_with_everything_that_goes_into_the_artifact(root: Path) -> None:
    keys = [key(root), key(root, recipe={"version": "2"}), key(root, needed={"base": "bb"})]
    (root / "app" / "server.py").write_text("print(2)\n")
    keys.append(key(root))
    (root / "app" / "server.py").chmod(0o755)
    keys.append(key(root))
    (root / "app" / "server.py").rename(root / "app" / "main.py")
    keys.append(key(root))
    (root / "app" / "empty.py").touch()
    keys.append(key(root))
    assert len(set(keys)) == len(keys)


def test_key_ignores_what_python_and_tests_leave_behind(root: Path) -> None:
    before = key(root)
    (root / "app" / "__pycache__").mkdir()
    (root / "app" / "__pycache__" / "server.cpython-311.pyc").write_bytes(b"x")
    (root / "app" / "main_test.go").write_text("package main\n")
    assert key(root) == before


def test_a_missing_source_is_an_error_and_not_another_key(root: Path) -> None:
    with pytest.raises(build.BuildError, match="testbed/litefs is missing"):
        build.compute_key({}, root, ("litefs",), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go1.26.8", (1, 26, 8)),
        ("go version go1.19.8 linux/amd64", (1, 19, 8)),
        ("go1.27", (1, 27, 0)),
        ("", ()),
        ("bash: go: command not found", ()),
    ],
)
def test_go_version(text: str, expected: tuple[int, ...]) -> None:
    assert build.go_version(text) == expected


def test_an_old_or_missing_go_is_not_taken() -> None:
    assert not build.go_version("go1.19.8") >= build.GO
    assert not build.go_version("") >= build.GO
    assert build.go_version("go1.30.0") >= build.GO


def test_a_node_of_another_suite_comes_from_the_hosts_own_mirror() -> None:
    host = "http://mirror.example/debian/ bookworm\nhttp://mirror.example/debian-security/ bookworm-security\n"
    assert build.debian_sources(
        host + "http://other.example/debian bookworm\nhttps://x.example/apt nodistro", "trixie"
    ) == [
        "deb http://mirror.example/debian/ trixie main",
        "deb http://mirror.example/debian/ trixie-updates main",
        "deb http://mirror.example/debian-security/ trixie-security main",
    ]


@pytest.mark.parametrize(
    "targets", ["", "http://archive.example/ubuntu/ noble\n", "https://x.example/debian-ports sid"]
)
def test_a_host_that_is_no_debian_leaves_the_mirror_to_mmdebstrap(targets: str) -> None:
    assert build.debian_sources(targets, "trixie") == []


def test_the_hosts_way_to_its_mirrors_is_taken_and_nothing_else_of_its_apt() -> None:
    dump = "\n".join(
        [
            'Acquire "";',
            'Acquire::http "";',
            'Acquire::http::Proxy "http://proxy.example:3142";',
            'Acquire::Check-Valid-Until "false";',
            'Acquire::IndexTargets::deb::Packages::MetaKey "x";',
            'Acquire::Languages:: "de";',
            'Acquire::AllowInsecureRepositories "1";',
        ]
    )
    assert build.apt_options(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3142";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_every_artifact_of_the_table_has_what_it_needs_before_it() -> None:
    table = build.artifacts()
    seen: set[str] = set()
    for name, item in table.items():
        assert set(item.needs) <= seen, name
        seen.add(name)
    expected = {
        "components",
        "containerd",
        "runc",
        "cni",
        "coredns",
        "local-path-provisioner",
        "litefs",
        "traefik",
        "k3s",
    }
    expected |= {"node-trixie", "node-bookworm", "node-registry", "images-app", "images-redis", "images-busybox"}
    expected |= {"images-keel"}
    assert expected <= seen


def test_an_artifact_needs_all_that_its_key_must_follow() -> None:
    """What a builder takes by artifact() has to be in `needs`, or a new version of it would not reach the result."""
    source = Path(build.__file__).read_text()
    for name, item in build.artifacts().items():
        body = re.search(rf"def {item.build.__name__}\(.*?(?=\n\n\n)", source, re.S)
        assert body, name
        for used in re.findall(r'artifact\("([a-z0-9-]+)"\)', body.group()):
            assert used in item.needs, f"{name} uses {used}"
    assert {name for name, _ in build.PAYLOAD} <= set(build.artifacts()["k3s-payload"].needs)


def test_versions_of_the_go_module_agree_with_the_table() -> None:
    module = (TESTBED / "components" / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{build.KUBERNETES}\n" in module
    minor = "v0." + build.KUBERNETES.split(".", 1)[1]
    replaced = re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ (\S+)$", module, re.M)
    assert len(replaced) > 25
    assert set(replaced) == {minor}


def test_nothing_is_pinned_to_what_moves() -> None:
    for version in (build.KINE, build.CONTAINERD, build.RUNC, build.CNI, build.COREDNS, build.LOCAL_PATH, build.LITEFS):
        assert re.fullmatch(r"v\d+\.\d+\.\d+", version)
    for version, _, sha256 in build.WHEELS.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert re.fullmatch(r"[0-9a-f]{64}", sha256)


def test_an_unknown_artifact_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(build.BuildError, match=r"no artifact 'k8s'; there are .*litefs"):
        build.artifact("k8s")


def test_a_failed_build_leaves_nothing_under_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fail(out: Path, log: build.Log) -> None:
        (out / "half").write_text("x")
        log.run(["sh", "-c", "echo the cause >&2; exit 3"])

    monkeypatch.setattr(build, "artifacts", lambda: {"x": build.Artifact("x", "a test", fail, {})})
    with pytest.raises(build.BuildError, match=r"failed with 3.*(?s:.*)the cause"):
        build.artifact("x")
    assert list((tmp_path / "abaci-infra" / "artifacts").iterdir()) == []


def test_a_second_call_builds_nothing_and_what_a_killed_one_left_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built: list[Path] = []

    def make(out: Path, log: build.Log) -> None:
        del log
        built.append(out)
        (out / "file").write_text("content")

    monkeypatch.setattr(build, "artifacts", lambda: {"x": build.Artifact("x", "a test", make, {}, member="file")})
    left = tmp_path / "abaci-infra" / "artifacts" / ".x-abcd_123"
    left.mkdir(parents=True)
    first, second = build.artifact("x"), build.artifact("x")
    assert first == second
    assert first.read_text() == "content"
    assert len(built) == 1
    assert not left.exists()


def test_all_are_built_once_two_at_a_time_each_after_its_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    together = threading.Barrier(2, timeout=10)
    built: list[str] = []

    def make(out: Path, log: build.Log) -> None:
        if log.name in ("a", "b"):
            together.wait()  # breaks where they do not run at the same time
        (out / "file").touch()
        built.append(log.name)

    needs = {"a": (), "b": (), "c": ("a", "b"), "d": ("c",)}
    table = {name: build.Artifact(name, "a test", make, {}, needs=of) for name, of in needs.items()}
    monkeypatch.setattr(build, "artifacts", lambda: table)
    build.build_all(["d", "c"])
    assert sorted(built[:2]) == ["a", "b"] and built[2:] == ["c", "d"]
    build.build_all(["d"])
    assert len(built) == 4


def test_a_build_that_fails_beside_another_is_told_and_the_other_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    failed = threading.Event()

    def fail(out: Path, log: build.Log) -> None:
        del out, log
        failed.set()
        raise build.BuildError("the cause")

    def make(out: Path, log: build.Log) -> None:
        del log
        assert failed.wait(10)
        (out / "file").touch()

    table = {"a": build.Artifact("a", "a test", fail, {}), "b": build.Artifact("b", "a test", make, {}, member="file")}
    monkeypatch.setattr(build, "artifacts", lambda: table)
    with pytest.raises(build.BuildError, match="the cause"):
        build.build_all(["a", "b"])
    assert len(list((tmp_path / "abaci-infra" / "artifacts").glob("b-*"))) == 1
    with pytest.raises(build.BuildError, match="no artifact 'x'"):
        build.build_all(["x"])


def test_a_missing_tool_is_named_with_what_to_do(tmp_path: Path) -> None:
    log = build.Log("x", tmp_path / "log")
    with pytest.raises(build.BuildError, match=r"program mmdebstrop is missing; run `python3 testbed/prepare.py`"):
        log.run(["mmdebstrop"])
    log.close()


def test_the_zipapp_runs_carries_its_payload_and_is_the_same_twice(tmp_path: Path) -> None:
    package = tmp_path / "k3s"
    (package / "manifests").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "manifests" / "a.yaml").write_text("a: 1\n")
    (package / "__main__.py").write_text(
        "import yaml\n\n\ndef main():\n    print(yaml.load('x'), __package__)\n    return 0\n"
    )
    wheel = tmp_path / "yaml.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("yaml/__init__.py", "load = list\n")
        archive.writestr("yaml/_yaml.so", "compiled for one Python only")
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    targets = [tmp_path / "one", tmp_path / "two"]
    for target in targets:
        build.write_payload(tmp_path / "begun", {"bin/runc": program, "traefik/crds/x.yml": program}, "v1.36.3+k3s1")
        build.write_zipapp(target, tmp_path / "begun", package, wheel)
    digests = {hashlib.sha256(target.read_bytes()).hexdigest() for target in targets}
    assert len(digests) == 1
    said = subprocess.run([str(targets[0])], capture_output=True, text=True, check=True).stdout
    assert said == "['x'] k3s\n"
    with zipfile.ZipFile(targets[0]) as archive:
        assert archive.read("payload/VERSION") == b"v1.36.3+k3s1\n"
        assert archive.read("k3s/manifests/a.yaml") == b"a: 1\n"
        assert "yaml/_yaml.so" not in archive.namelist()
        assert stat.S_IMODE(archive.getinfo("payload/bin/runc").external_attr >> 16) == 0o755
        assert stat.S_IMODE(archive.getinfo("payload/traefik/crds/x.yml").external_attr >> 16) == 0o644

"""What runs with a host's Python, or with the one in the image of the backup job, runs with Python 3.9.

A host of a system that is not supported is refused in a sentence, and its own Python has to come as far as that.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PLUGINS = ROOT / "plugins"
OLDEST = (3, 9)
HERE = "ansible_collections.abaci.infra.plugins."
# Roles whose tasks run on hosts; those that are delegated run on the controller.
ROLES = ("host", "fuse", "k3s", "check", "site", "cluster_backup", "cluster_restore", "volumes_save")
CONTROLLER = {"check_settings", "site_check", "server_side_apply", "rollout_wait", "objects_info"}
# What came with 3.10 and 3.11, by its last name; as a function with a keyword, and as a module.
NAMES = {
    *("file_digest", "UTC", "pairwise", "aiter", "anext", "bit_count", "hardlink_to", "StrEnum", "ExceptionGroup"),
    *("add_note", "serialize", "deserialize", "blobopen", "TypeAlias", "TypeGuard", "ParamSpec"),
    *(
        "Self",
        "Never",
        "Required",
        "NotRequired",
        "Unpack",
        "LiteralString",
        "assert_never",
        "assert_type",
        "reveal_type",
    ),
}
KEYWORDS = {"zip": {"strict"}, "TemporaryDirectory": {"ignore_cleanup_errors"}, "dataclass": {"slots", "kw_only"}}
MODULES = {"tomllib"}


def on_hosts() -> set[str]:
    """Our modules in tasks that are not delegated to the controller."""
    found = set()
    tasks = [task for role in ROLES for path in (ROOT / "roles" / role / "tasks").glob("*.yml") for task in load(path)]
    for task in tasks:
        if task.get("delegate_to") != "localhost":
            found |= {key.removeprefix("abaci.infra.") for key in task if key.startswith("abaci.infra.")}
    return {name for name in found if (PLUGINS / f"modules/{name}.py").exists()} - CONTROLLER


def load(path: Path) -> Iterator[dict[str, object]]:
    def flat(items: object) -> Iterator[dict[str, object]]:
        for item in items if isinstance(items, list) else []:
            yield item
            for part in ("block", "rescue", "always"):
                yield from flat(item.get(part))

    return flat(yaml.safe_load(path.read_text()))


def imported(path: Path) -> Iterator[Path]:
    """Our own files that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        elif (node.module or "").startswith(HERE):
            folder = PLUGINS.joinpath(*str(node.module).removeprefix(HERE).split("."))
        else:
            continue
        yield from (folder / f"{alias.name}.py" for alias in node.names)
        yield from (folder.with_suffix(".py"), folder / "__init__.py")


def closure(paths: set[Path]) -> set[Path]:
    seen: set[Path] = set()
    while left := {path for path in paths - seen if path.exists()}:
        seen |= left
        paths = {found for path in left for found in imported(path)}
    return seen


def jobs() -> set[Path]:
    variables = yaml.safe_load((ROOT / "roles/backup/vars/main.yml").read_text())
    shared = {PLUGINS / "module_utils" / name for name in variables["__backup_shared"]}
    return {*shared, *ROOT.glob("roles/*/files/*.py")}


FILES = sorted(closure({PLUGINS / f"modules/{name}.py" for name in on_hosts()} | jobs()))


def too_new(text: str) -> Iterator[str]:
    tree = ast.parse(text, feature_version=OLDEST)
    unread = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    notes = [getattr(node, field, None) for node in ast.walk(tree) for field in ("annotation", "returns")]
    annotations = {id(part) for note in [*notes, *unread] if note for part in ast.walk(note)}
    for node in [node for node in ast.walk(tree) if id(node) not in annotations]:
        if isinstance(node, ast.Attribute | ast.Name | ast.alias):
            name = {ast.Attribute: "attr", ast.Name: "id", ast.alias: "name"}[type(node)]
            if (last := str(getattr(node, name)).rpartition(".")[2]) in NAMES | MODULES:
                yield last
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield from (f"{name}({word.arg})" for word in node.keywords if word.arg in KEYWORDS.get(name, ()))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            sides = [side.value for side in (node.left, node.right) if isinstance(side, ast.Constant)]
            yield from ("| None outside an annotation" for side in sides if side is None)


def test_the_files_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in FILES}
    modules = {f"plugins/modules/{name}.py" for name in ("host_probe", "download", "k3s_wait", "volumes_copy")}
    assert names >= modules | {"plugins/module_utils/k3s_observe.py", "plugins/module_utils/operations/sqlitefile.py"}
    assert names >= {"roles/backup/files/job.py", "roles/cluster_backup/files/job.py"}
    assert "plugins/module_utils/kube.py" not in names, "it runs on the controller"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_newer_than_the_oldest_python_of_a_host(path: Path) -> None:
    assert list(too_new(path.read_text())) == []


def test_the_search_finds_what_is_too_new() -> None:
    text = "import hashlib, tomllib\nA = str | None\nhashlib.file_digest(1, 2)\nx: str | None = zip([], strict=True)\n"
    assert sorted(too_new(text)) == ["file_digest", "tomllib", "zip(strict)", "| None outside an annotation"]
    with pytest.raises(SyntaxError):
        list(too_new("match 1:\n    case _:\n        pass\n"))

"""How a verified file is stored, encrypted or not, and what of a stored file is believed; base64 encrypts."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.abaci.infra.plugins.module_utils import arguments
from ansible_collections.abaci.infra.plugins.module_utils.operations import export, keeping, saying, sqlitefile

ENCRYPT, DECRYPT = ["base64"], ["base64", "-d"]


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """Store a database of 200 KB with these commands."""

    def make(encrypt: list[str], decrypt: list[str]) -> dict[str, Any]:
        path = tmp_path / "work" / "database"
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE t (x)")
            db.execute("INSERT INTO t VALUES (randomblob(200000))")
            db.commit()
        (tmp_path / "backups").mkdir()
        fields = {
            "time": "2026-01-01T12:00:00Z",
            "database": "sqlite.db",
            "pod": "p-0",
            "txid": "7",
            "cluster_id": "A",
            **sqlitefile.verify(path),
        }
        return export.store(path, tmp_path / "backups", fields, encrypt, decrypt)

    return make


@pytest.mark.parametrize(
    ("encrypt", "decrypt", "read_back"), [([], [], True), (ENCRYPT, [], False), (ENCRYPT, DECRYPT, True)]
)
def test_the_manifest_describes_the_stored_file_too(
    store: Any, encrypt: list[str], decrypt: list[str], read_back: bool
) -> None:
    manifest = store(encrypt, decrypt)
    path = Path(manifest["path"])
    assert manifest["stored_size"] == path.stat().st_size
    assert (manifest["stored_sha256"] == manifest["sha256"]) is (not encrypt)
    assert manifest["read_back"] is read_back and manifest["verified"] is True
    assert ("not read back" in saying.backup(manifest)) is not read_back
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize(("encrypt", "ending"), [([], ".sqlite"), (ENCRYPT, ".sqlite.encrypted")])
def test_a_backup_is_durable_before_its_name_and_both_before_it_counts(
    store: Any, monkeypatch: pytest.MonkeyPatch, encrypt: list[str], ending: str
) -> None:
    """An older one is removed for it, and a power cut may leave a name without its content."""
    done: list[tuple[str, str]] = []
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        done.append(("named", target.name.partition(".p-0.7")[2]))
        return rename(path, target)

    def synced(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        done.append(("durable", "folder" if path.is_dir() else path.name))

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(keeping.os, "fsync", synced)
    store(encrypt, [])
    assert done == [
        ("durable", "out"),
        ("named", ending),
        ("durable", "manifest"),
        ("named", ".manifest.json"),
        ("durable", "folder"),
    ]


@pytest.mark.parametrize(
    ("encrypt", "decrypt", "words"),
    [
        (["no-such-tool"], [], r"backup_encrypt_command \(no-such-tool\) failed \(No such file"),
        (shell("echo no key >&2; exit 1"), [], "no key"),
        (shell("cat >/dev/null"), [], "wrote 0 bytes"),
        (shell("cat >/dev/null; printf 5byte"), [], "wrote 5 bytes"),
        (shell("head -c 20000 | base64"), [], "before it had read everything"),
        (shell("cat >/dev/null; head -c 20000 /dev/zero | base64"), DECRYPT, "gives back another content"),
        (ENCRYPT, ["no-such-tool"], r"backup_decrypt_command \(no-such-tool\) .*No such file"),
        (ENCRYPT, shell("base64 -d; echo more"), "gives back another content"),
    ],
)
def test_an_encryption_that_lost_something_leaves_no_backup(
    store: Any, tmp_path: Path, encrypt: list[str], decrypt: list[str], words: str
) -> None:
    with pytest.raises(export.Failed, match=words):
        store(encrypt, decrypt)
    assert list((tmp_path / "backups").iterdir()) == []


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5] + b"AAAA\n")


def forget(path: Path) -> None:
    """The manifest as older versions wrote it."""
    note = path.with_name(path.name.removesuffix(".sqlite.encrypted") + ".manifest.json")
    manifest = json.loads(note.read_text())
    note.write_text(json.dumps({key: value for key, value in manifest.items() if not key.startswith("stored_")}))


@pytest.mark.parametrize(
    ("change", "decrypt", "problem"),
    [
        (None, DECRYPT, None),
        (forget, DECRYPT, None),
        (damage, ["no-such-tool"], "its stored_sha256 is not the one in its manifest"),
        (None, ["no-such-tool"], "restore_decrypt_command (no-such-tool) failed (No such file or directory)"),
        (None, [], "set restore_decrypt_command"),
    ],
)
def test_a_stored_file_is_checked_before_it_is_decrypted(
    store: Any, tmp_path: Path, change: Any, decrypt: list[str], problem: str | None
) -> None:
    path = Path(store(ENCRYPT, [])["path"])
    if change:
        change(path)
    described = export.describe(path, decrypt, tmp_path / "work")
    assert described["verified"] is (problem is None) and (problem or "") in str(described["problem"] or "")


@pytest.mark.parametrize("key", ["sha256", "checksum", "page_size", "pages", "journal_mode"])
def test_hazard_a_plain_file_that_is_not_what_its_manifest_says_is_not_believed(
    store: Any, tmp_path: Path, key: str
) -> None:
    """The file is sound, and another: somebody copied one backup over the other."""
    path = Path(store([], [])["path"])
    note = path.with_name(path.name.removesuffix(".sqlite") + ".manifest.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {key: "another"}))
    described = export.describe(path, [], tmp_path / "work")
    assert not described["verified"] and f"its manifest says {key} another" in described["problem"]


def test_a_command_is_not_shown_and_hides_no_other_words(capsys: pytest.CaptureFixture[str]) -> None:
    secret = {"command": ["age", "-pass", "pass:secret-word"]}
    with patch_module_args(secret), pytest.raises(SystemExit):
        module = AnsibleModule(argument_spec={"command": arguments.COMMAND})
        assert arguments.command(module, "command") == secret["command"]
        module.exit_json(said="age: in storage", invocation={"module_args": module.params})
    said = capsys.readouterr().out
    assert "secret-word" not in said and "age: in storage" in said

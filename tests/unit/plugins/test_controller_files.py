"""What cannot be read, run or written on the controller is a sentence of the module, no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.abaci.infra.plugins.modules import backup_file, volume_export


def ended(module: Any, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the module answered."""
    with patch_module_args(options), pytest.raises(SystemExit):
        module.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_a_decrypt_tool_that_is_not_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.sqlite.encrypted"
    path.write_text("x")
    options = {"path": str(path), "work": str(tmp_path), "decrypt_command": ["no-such-tool"]}
    problem = ended(backup_file, options, capsys)["file"]["problem"]
    assert problem == "restore_decrypt_command (no-such-tool) failed (No such file or directory)"


def test_a_directory_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    document: dict[str, Any] = {"volumes": [], "pods": [], "claims": []}
    monkeypatch.setattr(volume_export.act, "connect", lambda _options: SimpleNamespace(look=lambda: document))
    monkeypatch.setattr(volume_export.volume_export, "look", lambda *_arguments: ({}, []))
    monkeypatch.setattr(volume_export.sit, "volume_of", lambda *_arguments: {"name": "pvc-0"})
    options = {"kubeconfig": "none", "ordinals": [0], "directory": str(tmp_path / "file" / "backups")}
    said = ended(volume_export, options, capsys)["msg"]
    assert said.startswith(f"Not everything could be saved in {tmp_path}/file/backups on the controller: ")

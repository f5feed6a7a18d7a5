"""The documentation of every module says what its code takes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
MODULES = sorted(path.stem for path in (PLUGINS / "modules").glob("*.py") if path.stem != "__init__")
FILTER_FILES = sorted(path.stem for path in (PLUGINS / "filter").glob("*.py") if path.stem != "__init__")


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    """What ansible-doc shows of each module, with the shared fragments in it."""
    names = [f"abaci.infra.{name}" for name in MODULES]
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    return {name: shown[f"abaci.infra.{name}"]["doc"] for name in MODULES}


class Captured(Exception):
    """Ends a module where it has said what it takes."""


def module(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.abaci.infra.plugins.modules.{name}")


def arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the module passes to AnsibleModule, or what the action plugin that stands for it takes."""
    code = module(name)
    if not hasattr(code, "main"):
        action = importlib.import_module(f"ansible_collections.abaci.infra.plugins.action.{name}")
        return {"argument_spec": action.ARGUMENTS, "supports_check_mode": action.ActionModule._supports_check_mode}

    def capture(**given: Any) -> None:
        raise Captured(given)

    monkeypatch.setattr(code, "AnsibleModule", capture)
    with pytest.raises(Captured) as caught:
        code.main()
    given: dict[str, Any] = caught.value.args[0]
    return given


def described(option: dict[str, Any]) -> dict[str, Any]:
    """An option in the terms that documentation and code share."""
    found = {
        "type": option.get("type", "str"),
        "required": option.get("required", False),
        "default": option.get("default"),
        "elements": option.get("elements"),
        "choices": option.get("choices"),
        "aliases": sorted(option.get("aliases", [])),
    }
    inner = option.get("suboptions") or option.get("options")
    return found | ({"options": {key: described(value) for key, value in inner.items()}} if inner else {})


@pytest.mark.parametrize("name", MODULES)
def test_options_are_documented_as_they_are_taken(
    name: str, documented: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    documentation = documented[name]
    taken = arguments(name, monkeypatch)
    assert documentation["module"] == name
    assert documentation["short_description"] and documentation["description"]
    options = {key: described(option) for key, option in (documentation.get("options") or {}).items()}
    assert options == {key: described(option) for key, option in (taken.get("argument_spec") or {}).items()}


@pytest.mark.parametrize("name", MODULES)
def test_check_mode_is_documented_as_it_is_supported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documentation = yaml.safe_load(module(name).DOCUMENTATION)
    support = documentation["attributes"]["check_mode"]["support"]
    assert (support != "none") == arguments(name, monkeypatch).get("supports_check_mode", False)


@pytest.mark.parametrize("name", MODULES)
def test_examples_and_return_values_can_be_read(name: str) -> None:
    code = module(name)
    examples = yaml.safe_load(code.EXAMPLES)
    assert any(f"abaci.infra.{name}" in task for task in examples)
    for value in (yaml.safe_load(code.RETURN) or {}).values():
        assert value["description"] and value["returned"] and value["type"]


@pytest.mark.parametrize("file", FILTER_FILES)
def test_every_filter_is_documented(file: str) -> None:
    code = importlib.import_module(f"ansible_collections.abaci.infra.plugins.filter.{file}")
    for name in code.FilterModule().filters():
        documentation = yaml.safe_load((PLUGINS / "filter" / f"{name}.yml").read_text())
        assert documentation["DOCUMENTATION"]["name"] == name
        assert f"abaci.infra.{name}" in documentation["EXAMPLES"]
        assert documentation["RETURN"]["_value"]["type"]

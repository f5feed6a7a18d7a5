"""-e help=true: every playbook shows its variables, ends with 0, and touches nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.abaci.infra.plugins.lookup import play_hosts

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
HOSTS = re.compile(r"\{\{ lookup\('abaci\.infra\.play_hosts', '([a-z0-9_:]+)'(?:, help_of=(.+))?\) \}\}")


def plays(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text())
    return found


def helped(play: dict[str, Any]) -> list[str]:
    """The roles whose variables a play shows."""
    match = HOSTS.fullmatch(play["hosts"])
    assert match, f"{play['name']}: its hosts are not asked for by abaci.infra.play_hosts"
    named = match[2] or "[]"
    return list(play["vars"][named] if named in play.get("vars", {}) else yaml.safe_load(named))


def roles(play: dict[str, Any]) -> set[str]:
    """The roles that a play runs."""
    named = {entry["role"] for entry in play.get("roles", [])}
    for task in [*play.get("pre_tasks", []), *play.get("tasks", [])]:
        asked = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role") or {}
        named |= {asked["name"]} if asked else set()
    return {name.removeprefix("abaci.infra.") for name in named}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "server-0,", *arguments]
    environment = os.environ | {"ANSIBLE_LOCALHOST_WARNING": "False"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_each_play_asks_whether_help_is_wanted_and_the_first_shows_it(path: Path) -> None:
    first, *others = plays(path)
    assert not any(helped(play) for play in others)
    own = path.stem if path.stem != "site" else "app"
    assert own in helped(first)
    # Of site's own role, and of what check reads of others, nothing is set by hand.
    used = set().union(*(roles(play) for play in [first, *others])) - {"site"}
    assert used <= set(helped(first)) or path.stem == "check"


@pytest.mark.parametrize("path", [path for path in PLAYBOOKS if path.stem != "site"], ids=lambda path: path.stem)
def test_each_playbook_checks_the_types_before_ansible_does_and_shows_the_whole_specification(path: Path) -> None:
    first = plays(path)[0]
    assert first["pre_tasks"][0]["abaci.infra.check_settings"]["roles"] == helped(first)


@pytest.mark.parametrize(
    ("playbook", "value", "sentence"),
    [
        ("backup", "backup_keep=x", "backup_keep is 'x', and has to be a whole number."),
        ("status", "status_cluster=maybe", "status_cluster is 'maybe', and has to be true or false."),
        ("keel", "keel_action=stop", "value of keel_action must be one of: freeze, thaw, why, got: stop."),
        ("scale", "operation_lock_seconds=long", "operation_lock_seconds is 'long', and has to be a whole number."),
        ("cluster_restore", "cluster_restore_form=x", "The variables cluster_restore_form are not known"),
        ("volumes_save", "volumes_save_bogus=1", "The variables volumes_save_bogus are not known"),
    ],
)
def test_a_value_of_another_type_or_an_unknown_name_ends_in_one_sentence(
    playbook: str, value: str, sentence: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[k3s_server]\nserver-0\n[k3s_agent]\nagent-1\n")
    found = run("-i", str(inventory), f"playbooks/{playbook}.yml", "-e", value)
    assert found.returncode == 2 and sentence in " ".join(found.stdout.split()), found.stdout
    assert len(found.stdout.splitlines()) < 40 and "argument_spec_data" not in found.stdout


def test_all_playbooks_show_all_variables_and_run_nothing() -> None:
    done = run(*map(str, [ROOT / "site.yml", *PLAYBOOKS]), "-e", "help=true")
    assert (done.returncode, done.stderr) == (0, "")
    assert "TASK [" not in done.stdout
    assert done.stdout.count("skipping: no hosts matched") == done.stdout.count("\nPLAY [") > 30
    for path in PLAYBOOKS:
        for role in helped(plays(path)[0]):
            for name, option in play_hosts.specification(role)["options"].items():
                internal = str(option["description"]).lstrip("['").startswith("Internal")
                assert (f"\n  {name}: " in done.stdout) is not internal, name
    # What site.yml and playbooks/site.yml, or two operations, have in common is shown by each.
    assert done.stdout.count('\n  scale_replicas: str, default ""\n      The number of pods, from') == 1
    assert done.stdout.count("\n  app_rollout_timeout: int (s), default ") == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("help=perhaps", "help is perhaps: set it to true or false."),
        ('{"help": [1]}', "help is [1]: set it to true or false."),
    ],
)
def test_another_value_is_refused(given: str, wanted: str) -> None:
    done = run("playbooks/scale.yml", "-e", given)
    assert done.returncode != 0 and wanted in done.stderr


def test_without_help_the_play_has_its_hosts_and_an_unknown_variable_is_refused_by_name() -> None:
    done = run("playbooks/scale.yml", "-e", "help=false", "-e", "scale_replics=2")
    assert done.returncode == 2
    assert "scale_replics is not known here" in done.stdout + done.stderr
    assert "Variables of the role" not in done.stdout


@pytest.mark.parametrize(
    ("name", "option", "kind", "default"),
    [
        ("app_wait_timeout", {"type": "int", "default": 300}, "int (s)", "default 300"),
        (
            "app_state",
            {"choices": ["present", "absent"], "default": "present"},
            "str present|absent",
            "default present",
        ),
        ("app_list", {"type": "list", "elements": "str", "default": []}, "list of str", "default []"),
        ("app_domain", {"type": "str", "required": True}, "str", "required"),
        ("app_size", {"type": "str"}, "str", "no default"),
    ],
)
def test_a_variable_is_shown_with_type_unit_and_default(
    name: str, option: dict[str, Any], kind: str, default: str
) -> None:
    assert (play_hosts.kind(name, option), play_hosts.default(option)) == (kind, default)


def test_the_first_sentence_of_a_description_stands_for_it() -> None:
    assert play_hosts.sentence(["What V(x) does, e.g. this. And that.", "More."]) == "What x does, e.g. this"
    assert play_hosts.sentence("Seconds\n  to wait.") == "Seconds to wait"

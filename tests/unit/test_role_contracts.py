"""What all roles promise alike: specs agree with defaults, every variable is described, names are full, lists agree."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.abaci.infra.plugins.module_utils import kube
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS

ROOT = pathlib.Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))

# What a value may be for each type of a spec.
TYPES: dict[str, tuple[type, ...]] = {
    "raw": (object,),
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}
# Keywords of a task that are no module.
KEYWORDS = {
    *("name", "when", "vars", "tags", "register", "loop", "loop_control", "notify", "listen", "become", "become_user"),
    *(
        "delegate_to",
        "delegate_facts",
        "run_once",
        "no_log",
        "diff",
        "check_mode",
        "changed_when",
        "failed_when",
        "until",
    ),
    *("retries", "delay", "environment", "args", "module_defaults", "block", "rescue", "always", "any_errors_fatal"),
    *("ignore_unreachable", "throttle", "timeout", "connection", "collections", "port", "remote_user", "debugger"),
    *("async", "poll"),
}


# What the name of a task may begin with.
VERBS = (
    *("Ensure", "Check", "Wait", "Fail", "Show", "Read", "Set", "Plan", "Render", "Apply", "Create", "Write", "Remove"),
    *(
        "Install",
        "Download",
        "Copy",
        "Load",
        "Start",
        "Stop",
        "Restart",
        "Reload",
        "Run",
        "Export",
        "Restore",
        "Record",
    ),
    *("Acquire", "Release"),
)


def load(path: pathlib.Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def specs(role: str) -> dict[str, dict[str, Any]]:
    """The options of every entry of a role's argument_specs."""
    found = load(ROOT / "roles" / role / "meta/argument_specs.yml")
    return {entry: spec.get("options") or {} for entry, spec in found["argument_specs"].items()}


def options(role: str) -> dict[str, dict[str, Any]]:
    """All public variables of a role, over its entries."""
    return {name: option for entry in specs(role).values() for name, option in entry.items()}


def defaults(role: str) -> dict[str, Any]:
    return load(ROOT / "roles" / role / "defaults/main.yml") or {}


def with_blocks(items: Any) -> Iterator[dict[str, Any]]:
    """All tasks, and the blocks around them."""
    for item in items or []:
        yield item
        for part in ("block", "rescue", "always"):
            yield from with_blocks(item.get(part))


def tasks_of(items: Any) -> Iterator[dict[str, Any]]:
    for item in items or []:
        if any(part in item for part in ("block", "rescue", "always")):
            for part in ("block", "rescue", "always"):
                yield from tasks_of(item.get(part))
        else:
            yield item


def role_files(role: str, *folders: str) -> list[pathlib.Path]:
    return [path for folder in folders for path in sorted((ROOT / "roles" / role / folder).rglob("*.yml"))]


def modules(task: dict[str, Any]) -> list[str]:
    return [key for key in task if key not in KEYWORDS and not key.startswith("with_")]


def test_there_are_roles() -> None:
    assert {"host", "fuse", "k3s"} <= set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_an_option_and_every_optional_option_has_a_default(role: str) -> None:
    optional = {name for name, option in options(role).items() if not option.get("required") and "default" in option}
    assert set(defaults(role)) == optional


@pytest.mark.parametrize("role", ROLES)
def test_defaults_agree_with_the_spec_in_value(role: str) -> None:
    given = defaults(role)
    for entry, described in specs(role).items():
        for name, option in described.items():
            if "default" in option:
                assert given[name] == option["default"], f"{entry}: {name}"
                # 0 == False and 1 == 1.0 in Python, but not in a template.
                assert type(given[name]) is type(option["default"]), f"{entry}: {name}"


@pytest.mark.parametrize("role", ROLES)
def test_defaults_have_the_type_of_the_spec(role: str) -> None:
    for name, option in options(role).items():
        value = defaults(role).get(name)
        if value is None or (isinstance(value, str) and "{{" in value):
            continue
        assert option["type"] in TYPES, name
        assert isinstance(value, TYPES[option["type"]]), name
        assert not (isinstance(value, bool) and option["type"] in ("int", "float")), name
        if "choices" in option:
            assert set(value if isinstance(value, list) else [value]) <= set(option["choices"]), name


@pytest.mark.parametrize("role", ROLES)
def test_an_option_is_described_and_a_required_one_has_no_default(role: str) -> None:
    for entry, described in specs(role).items():
        for name, option in described.items():
            assert option.get("description"), f"{entry}: {name}"
            assert option.get("type"), f"{entry}: {name}"
            if option["type"] == "list":
                assert option.get("elements"), f"{entry}: {name}"
            assert not (option.get("required") and "default" in option), f"{entry}: {name}"


@pytest.mark.parametrize("role", ROLES)
def test_an_option_that_several_entries_have_is_the_same_in_all(role: str) -> None:
    seen: dict[str, Any] = {}
    for described in specs(role).values():
        for name, option in described.items():
            assert seen.setdefault(name, option) == option, name


# Those whose work stays in the cluster or on a host when they are done, with the variable that says whether it does.
STATES = {
    **{role: f"{role}_state" for role in ("host", "fuse", "k3s")},
    **{role: f"{role}_state" for role in ("traefik", "cert_manager", "redis", "storage", "app", "archive", "keel")},
    **{role: f"{role}_schedule_state" for role in ("backup", "cluster_backup")},
}
ONCE = {
    *OPERATIONS,
    *("check", "cluster_restore", "history", "logs", "operation", "query", "report", "restore_drill", "site", "status"),
    *("try_image", "volumes_save"),
}


def test_every_role_that_makes_something_has_a_state() -> None:
    assert set(STATES) | ONCE == set(ROLES)
    assert {role for role, name in STATES.items() if name not in options(role)} == set()


@pytest.mark.parametrize("role", ROLES)
def test_present_absent_and_unmanaged_mean_the_same_everywhere(role: str) -> None:
    for name, option in options(role).items():
        assert not re.search(r"_(enabled|managed|create|install|ensure)$", name), f"{name}: call it _state"
        if not name.endswith("_state"):
            continue
        where = f"{name}: {option['choices']}"
        if option["choices"] == ["present", "unmanaged"]:
            assert "cannot be absent" in option["description"] and "since" in option["description"], where
        else:
            assert option["choices"] == ["present", "absent", "unmanaged"], where


@pytest.mark.parametrize("role", [role for role in ROLES if (ROOT / "roles" / role / "tasks/absent.yml").exists()])
def test_a_role_that_can_be_absent_does_nothing_where_it_is_unmanaged(role: str) -> None:
    tasks = list(tasks_of(load(ROOT / "roles" / role / "tasks/main.yml")))
    state = f"{role}_state"
    (chosen,) = [task for task in tasks if task.get("ansible.builtin.include_tasks") == f"{{{{ {state} }}}}.yml"]
    assert chosen["when"] == f"{state} != 'unmanaged'"
    for task in tasks:
        # What checks the values looks at nothing else.
        if task.get("ansible.builtin.import_tasks") != "validate.yml":
            assert task["when"].startswith((f"{state} != 'unmanaged'", f"{state} == 'present'")), task["name"]


@pytest.mark.parametrize("role", sorted(set(STATES) - {"backup", "cluster_backup"}))
def test_a_role_used_alone_checks_its_values_first(role: str) -> None:
    tasks = ROOT / "roles" / role / "tasks"
    (checked,) = load(tasks / "validate.yml")
    assert checked["abaci.infra.check_settings"] == {"roles": [role]}
    for entry in ("main.yml", "device_plugin.yml"):
        if (tasks / entry).exists():
            assert load(tasks / entry)[0].get("ansible.builtin.import_tasks") == "validate.yml", entry


@pytest.mark.parametrize("role", ["host", "fuse", "k3s"])
def test_a_host_that_is_unmanaged_is_not_asked(role: str) -> None:
    asked = load(ROOT / "roles" / role / "vars/main.yml")[f"__{role}_part"]
    assert asked == f"{{{{ __{role}_asks if {role}_state == 'present' else {{}} }}}}"


@pytest.mark.parametrize("role", ROLES)
def test_a_secret_has_no_choices_since_they_would_echo_it(role: str) -> None:
    for name, option in options(role).items():
        assert not (option.get("no_log") and option.get("choices")), name


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_name_of_their_role(role: str) -> None:
    for name in options(role):
        assert name.startswith(f"{role}_"), name
    for name in load(ROOT / "roles" / role / "vars/main.yml") or {}:
        assert name.startswith(f"__{role}_"), name


@pytest.mark.parametrize("role", ROLES)
def test_the_api_has_a_known_place_for_every_kind_of_a_template(role: str) -> None:
    for path in (ROOT / "roles" / role / "templates").rglob("*.j2"):
        pattern = r"apiVersion: ([\w./]+)[,\s]+kind: (\w+)"
        for version, kind in re.findall(pattern, path.read_text()):
            assert kind in kube.KINDS.get(version, {}), f"{path}: {version} {kind} is not in kube.KINDS"


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_of_the_spec_is_a_file_of_tasks(role: str) -> None:
    for entry in specs(role):
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").is_file(), entry


@pytest.mark.parametrize("role", ROLES)
def test_every_public_variable_is_used(role: str) -> None:
    folder = ROOT / "roles" / role
    text = "\n".join(
        path.read_text()
        for part in ("tasks", "templates", "vars", "handlers", "defaults")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    )
    rules = ROOT / f"plugins/module_utils/rules/{role}.py"
    text += rules.read_text() if rules.exists() else ""
    for name in options(role):
        uses = re.findall(rf"(?<![\w]){re.escape(name)}(?!\w)", text)
        assert len(uses) > (1 if name in defaults(role) else 0), f"{name} is declared and never used"


@pytest.mark.parametrize("role", ROLES)
def test_roles_name_modules_and_roles_in_full(role: str) -> None:
    for path in role_files(role, "tasks", "handlers"):
        for task in tasks_of(load(path)):
            used = modules(task)
            assert len(used) == 1, f"{path.name}: {task.get('name')}: {used}"
            assert used[0].count(".") >= 2, f"{path.name}: {used[0]}"
            if used[0] in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
                assert task[used[0]]["name"].count(".") == 2, f"{path.name}: {task[used[0]]}"


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_ignored_and_modes_are_strings(role: str) -> None:
    for path in role_files(role, "tasks", "handlers"):
        for task in tasks_of(load(path)):
            assert "ignore_errors" not in task, f"{path.name}: {task.get('name')}"
            arguments = task[modules(task)[0]]
            if isinstance(arguments, dict) and "mode" in arguments:
                # A number without quotes would be read as octal or as decimal, depending on the reader.
                assert isinstance(arguments["mode"], str), f"{path.name}: {task.get('name')}"


def test_packages_wait_for_the_upgrades_of_a_host_that_was_just_made() -> None:
    waits = [
        (path, task["ansible.builtin.apt"].get("lock_timeout"))
        for role in ROLES
        for path in role_files(role, "tasks", "handlers")
        for task in tasks_of(load(path))
        if "ansible.builtin.apt" in task
    ]
    assert waits and all(seconds == 600 for _path, seconds in waits), waits


@pytest.mark.parametrize("role", ROLES)
def test_hazard_what_reads_or_writes_a_secret_shows_nothing_of_it(role: str) -> None:
    """Content that only root may read, a slurped file, a Secret: they would stand in the output of a run with -v."""
    for path in role_files(role, "tasks", "handlers"):
        for task in tasks_of(load(path)):
            used, where = modules(task)[0], f"{path.name}: {task.get('name')}"
            given = task[used] if isinstance(task[used], dict) else {}
            written = "content" in given and given.get("mode") == "0600"
            # Everybody on a host may read this one.
            slurped = used == "ansible.builtin.slurp" and given.get("src") != "/etc/fstab"
            read = slurped or (used.endswith(".k8s_info") and given.get("kind") == "Secret")
            if written or read:
                assert task.get("no_log") is True, where
            if written:
                assert task.get("diff") is False, f"{where}: what it was before would be shown, too"
            if used.endswith("include_role") and "secret" in str(task.get("vars", {}).get("apply_objects", "")):
                assert task["vars"].get("apply_secret") is True, where


def blocks_of(items: Any) -> Iterator[dict[str, Any]]:
    for item in items or []:
        for part in ("block", "rescue", "always"):
            yield from blocks_of(item.get(part))
        if "block" in item:
            yield item


@pytest.mark.parametrize("role", ROLES)
def test_hazard_a_place_for_plain_copies_is_taken_away_whatever_happens(role: str) -> None:
    for path in role_files(role, "tasks"):
        ends = [task for block in blocks_of(load(path)) for task in block.get("always", [])]
        for task in tasks_of(load(path)):
            if "ansible.builtin.tempfile" in task:
                place = f"{{{{ {task['register']}.path }}}}"
                (end,) = [one for one in ends if one.get("ansible.builtin.file", {}).get("path") == place]
                assert end["ansible.builtin.file"]["state"] == "absent", path.name
                assert end.get("when") == task.get("when"), (
                    f"{path.name}: made under one condition, removed under another"
                )
                assert end.get("delegate_to") == task.get("delegate_to"), path.name
                for one in (task, end):
                    # It is there only while the run lasts; where it is made in check mode, too, it goes there as well.
                    assert one.get("check_mode", True) is task.get("check_mode", True) or "when" in one, path.name


def test_hazard_k3s_that_was_stopped_for_a_restore_is_started_again_where_that_fails() -> None:
    (block,) = blocks_of(load(ROOT / "roles/cluster_restore/tasks/put.yml"))
    service = "ansible.builtin.systemd_service"
    (stop,) = [task for task in block["block"] if service in task]
    start = block["rescue"][0]
    assert (stop[service]["state"], start[service]["state"]) == ("stopped", "started")
    assert start[service]["name"] == stop[service]["name"] and start["when"] == stop["when"]
    assert "'k3s' in " in stop["when"], "one that did not run is not started"
    assert "ansible.builtin.fail" in block["rescue"][-1]


@pytest.mark.parametrize("role", ROLES)
def test_task_files_but_the_first_prefix_their_names(role: str) -> None:
    for path in role_files(role, "tasks"):
        if path.parent.name != "tasks" or path.name == "main.yml":
            continue
        for task in with_blocks(load(path)):
            assert task["name"].startswith(f"{path.stem} | "), f"{path.name}: {task['name']}"


@pytest.mark.parametrize(
    "path",
    [path for role in ROLES for path in role_files(role, "tasks", "handlers")] + PLAYBOOKS,
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_name_of_a_task_begins_with_a_plain_verb(path: pathlib.Path) -> None:
    """What a log says is then a promise (Ensure), a question (Check), or what is done, in words that all logs have."""
    tasks = load(path)
    if path in PLAYBOOKS:
        tasks = [task for play in tasks for part in ("pre_tasks", "tasks") for task in play.get(part, [])]
    for task in with_blocks(tasks):
        first = task["name"].rpartition(" | ")[2].split()[0]
        assert first in VERBS, f"{task['name']}: begin with one of {', '.join(VERBS)}"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_playbooks_name_everything_in_full_and_say_what_they_run_as(path: pathlib.Path) -> None:
    for play in load(path):
        if "ansible.builtin.import_playbook" in play:
            assert "import_playbook" not in play
            continue
        for keyword in ("name", "hosts", "gather_facts", "become"):
            assert keyword in play, f"{play.get('name')}: {keyword}"
        assert not ("roles" in play and "tasks" in play), play["name"]
        for role in play.get("roles", []):
            name = role["role"] if isinstance(role, dict) else role
            assert name.startswith("abaci.infra."), f"{play['name']}: {name}"
            assert (ROOT / "roles" / name.removeprefix("abaci.infra.")).is_dir(), name
        for task in tasks_of([*play.get("pre_tasks", []), *play.get("tasks", []), *play.get("post_tasks", [])]):
            used = modules(task)
            assert len(used) == 1 and used[0].count(".") >= 2, f"{play['name']}: {used}"
            if used[0] in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
                assert task[used[0]]["name"].startswith("abaci.infra."), task


@pytest.mark.parametrize(
    "path",
    [path for role in ROLES for path in role_files(role, "tasks", "handlers")] + PLAYBOOKS,
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_an_ansible_become_for_the_hosts_makes_nobody_root_on_the_controller(path: pathlib.Path) -> None:
    """A variable in group_vars/all beats the keyword become: false; a variable of the play or the task beats both."""
    on_controller = [item for item in with_blocks(load(path)) if item.get("delegate_to") == "localhost"]
    if path in PLAYBOOKS:
        on_controller = [play for play in load(path) if re.search(r"play_hosts', 'localhost'[,)]", play["hosts"])]
    for item in on_controller:
        assert item["become"] is False, item["name"]
        assert item["vars"]["ansible_become"] is False, item["name"]
        assert item["vars"]["ansible_python_interpreter"] == "{{ ansible_playbook_python }}", item["name"]


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_the_types_are_checked_of_whatever_part_of_a_role_a_playbook_imports(path: pathlib.Path) -> None:
    checked = set()
    for play in load(path):
        for task in tasks_of(play.get("tasks", [])):
            asked = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role") or {}
            if "tasks_from" not in asked:
                continue
            role, part = asked["name"].removeprefix("abaci.infra."), asked["tasks_from"]
            if part in specs(role):
                assert specs(role)[part] == specs(role)["main"], f"{play['name']}: {task['name']}"
                checked.add(role)
            # What has no entry of its own comes after a part that has.
            assert role in checked, f"{play['name']}: {task['name']}"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_playbook_files_can_be_called_as_part_of_the_collection(path: pathlib.Path) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", path.stem)


def test_the_front_door_is_the_collections_site() -> None:
    assert load(ROOT / "site.yml")[0]["ansible.builtin.import_playbook"] == "playbooks/site.yml"


def test_no_variables_beside_the_playbooks_since_they_would_beat_the_inventory() -> None:
    assert not (ROOT / "playbooks/group_vars").exists()
    assert not (ROOT / "playbooks/host_vars").exists()


def test_the_two_lists_of_collections_agree() -> None:
    wanted = load(ROOT / "galaxy.yml")["dependencies"]
    listed = {entry["name"]: entry["version"] for entry in load(ROOT / "collections/requirements.yml")["collections"]}
    assert wanted == listed


def test_every_collection_that_is_used_is_listed_and_the_other_way_round() -> None:
    used = set()
    for role in ROLES:
        for path in role_files(role, "tasks", "handlers"):
            for task in tasks_of(load(path)):
                used.add(".".join(modules(task)[0].split(".")[:2]))
    for path in [*ROOT.glob("plugins/**/*.py"), *PLAYBOOKS]:
        used |= set(re.findall(r"\b(ansible\.posix|community\.\w+|kubernetes\.core)\b", path.read_text()))
    # The callbacks of ansible.cfg count, too.
    used |= set(re.findall(r"(ansible\.posix)\.", (ROOT / "ansible.cfg").read_text()))
    assert used - {"ansible.builtin", "abaci.infra"} <= set(load(ROOT / "galaxy.yml")["dependencies"])


def test_the_sample_inventory_sets_only_variables_that_exist() -> None:
    known = {name for role in ROLES for name in options(role)}
    for path in sorted((ROOT / "inventories/sample/group_vars/all").glob("*.yml")):
        text = path.read_text()
        # Commented examples count as well: they are what people uncomment.
        named = set(re.findall(r"^(?:# )?([a-z]\w+):", text, re.MULTILINE))
        assert named, path.name
        unknown = {name for name in named - known if not name.startswith("vault_")}
        assert not unknown, f"{path.name}: {unknown}"


def test_the_vault_example_holds_every_secret_that_the_sample_asks_for() -> None:
    sample = ROOT / "inventories/sample"
    asked = {
        name for path in (sample / "group_vars").rglob("*.yml") for name in re.findall(r"\bvault_\w+", path.read_text())
    }
    example = (sample / "group_vars/all/vault.yml.example").read_text()
    assert asked == set(re.findall(r"^(?:# )?(vault_\w+):", example, re.MULTILINE))


@pytest.mark.parametrize("role", OPERATIONS)
def test_the_parameters_of_an_operation_have_the_names_of_its_variables(role: str) -> None:
    """The record keeps them, and whoever continues the operation gets them as -e."""
    given = {
        f"{role}_{name}"
        for path in role_files(role, "tasks")
        for task in tasks_of(load(path))
        for name in (task.get("vars") or {}).get("operation_parameters") or {}
    }
    assert given and given <= set(options(role))


def test_the_archives_ports_stand_at_one_place() -> None:
    code = [*ROOT.glob("plugins/**/*.py"), *(ROOT / "roles").glob("*/[dftv]*/*")]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in code
        if path.is_file() and re.search(r"\b910[234]\b", path.read_text())
    }
    # The guard has one for pods whose template is older than the port in it.
    assert found == {"plugins/module_utils/archive/settings.py", "roles/app/files/guard.sh"}

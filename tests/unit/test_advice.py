"""What our sentences advise exists, destroys nothing, and leads somewhere: no two of them make a circle."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/unit/operations"))
sys.path.insert(0, str(ROOT / "tests/unit/plugins"))

import cases  # noqa: E402
import deciding  # noqa: E402
import factory_objects as make  # noqa: E402
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS, promote  # noqa: E402
from cases import A, B, alone, dead_node, export, file, gone, guarded, site  # noqa: E402
from test_decisions import ASKED  # noqa: E402

PACKAGE = "ansible_collections.abaci.infra.plugins"


def sentences() -> Iterator[tuple[str, str]]:
    """(where, text) of everything that we may say to an operator."""
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        where = str(path.relative_to(ROOT))
        tree = ast.parse(path.read_text())
        yield from ((f"{where}:{node.lineno}", text) for node, text in _texts(tree, _names_of(path)))
    others = [*(ROOT / "roles").rglob("*.sh"), *(ROOT / "roles").rglob("job.py"), *(ROOT / "playbooks").glob("*.yml")]
    others += [path for path in (ROOT / "roles").rglob("*.yml") if path.parent.name in ("tasks", "vars", "defaults")]
    for path in sorted(others):
        text = re.sub(r"(?m)^\s*#.*$", "", path.read_text())
        # A sentence of several lines is one here.
        for number, block in enumerate(re.split(r"\n\s*- name:|\n(?=\w)", text)):
            yield f"{path.relative_to(ROOT)}#{number}", re.sub(r"\s+", " ", block)


def _texts(tree: ast.AST, names: dict[str, str]) -> Iterator[tuple[ast.expr, str]]:
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    inner -= {id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node, node.value
        elif isinstance(node, ast.JoinedStr) and id(node) not in inner:
            yield node, "".join(_part(part, names) for part in node.values)


def _part(part: ast.expr, names: dict[str, str]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    if isinstance(part, ast.FormattedValue):
        return names.get(ast.unparse(part.value).rpartition(".")[2], "X")
    return "X"


def _names_of(path: Path) -> dict[str, str]:
    """The constants that a module puts into its sentences, by their names."""
    if path.parent.name not in ("operations", "module_utils"):
        return {}
    module = importlib.import_module(f"{PACKAGE}.{'.'.join(path.relative_to(ROOT / 'plugins').with_suffix('').parts)}")
    return {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)} | KNOWN


KNOWN = {
    "RUNBOOK": "docs/runbooks/primary-refused.md",
    "PROMOTE": "playbooks/promote.yml",
    "RESTORE": "playbooks/restore.yml",
}
SAID = list(sentences())
OPTIONS = {
    path.parts[-3]: set(yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options") or {})
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")
}
PLAYBOOKS = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}


def test_there_is_something_to_look_at() -> None:
    assert sum("playbooks/" in text for _where, text in SAID) > 30
    assert sum("docs/" in text for _where, text in SAID) > 15
    assert sum("kubectl" in text for _where, text in SAID) > 8


def test_every_playbook_that_is_named_is_there() -> None:
    for where, text in SAID:
        for name in re.findall(r"playbooks/(\w+)\.yml", text):
            assert name in PLAYBOOKS or name == "X", (where, name)


def test_every_variable_that_is_named_is_an_option_of_its_role() -> None:
    named = [
        (where, match[1] or match[2])
        for where, text in SAID
        for match in re.finditer(r"""-e\s+(?:'\{+\s*"(\w+)"|(\w+)=)""", text)
    ]
    assert len(named) > 15
    for where, name in named:
        if name == "X":  # what stands there is computed
            continue
        roles = [role for role in OPTIONS if name.startswith(f"{role}_")]
        assert roles or name in ("abaci_kubeconfig", "help"), (where, name)
        assert not roles or name in OPTIONS[max(roles, key=len)], (where, name)


def test_every_page_and_section_that_is_named_is_there() -> None:
    for where, text in SAID:
        for page, section in re.findall(r"(docs/[\w/-]+\.md)(?:,? section ([A-Z][\w ]*\w))?", text):
            assert (ROOT / page).is_file(), (where, page)
            headings = re.findall(r"(?m)^#+ (.*)$", (ROOT / page).read_text())
            assert not section or any(heading.startswith(section) for heading in headings), (where, page, section)


def test_every_document_that_is_named_is_one_that_its_reader_has() -> None:
    """Notes of ours are not in the collection, and numbers of their sections say nothing to an operator."""
    for where, text in SAID:
        for page in re.findall(r"[\w./-]+\.md\b", text):
            assert page == ".md" or (ROOT / page).is_file(), (where, page)
        assert not re.search(r"\bsection \d", text), (where, text)


def test_hazard_no_sentence_names_a_command_that_removes_what_may_hold_data() -> None:
    for where, text in SAID:
        # Programs of ours that remove their own temporary files are no sentences.
        if where.startswith("roles/") and "fail_msg" not in text and "tasks/" not in where and "vars/" not in where:
            continue
        assert not re.search(r"\brm\s+-\w*r", text), (where, text)
        assert not re.search(r"kubectl\s+delete\s+(pv|namespace|ns|statefulset|sts|all)\b", text), (where, text)
        for claim in re.findall(r"kubectl delete pvc[^.;]*", text):
            assert "kept" in text, (where, claim)


def test_every_kubectl_command_is_one() -> None:
    verbs = {"get", "delete", "logs", "describe", "create", "apply", "exec", "rollout", "patch", "scale", "top"}
    verbs |= {
        "cordon",
        "uncordon",
        "drain",
        "wait",
        "label",
        "annotate",
        "version",
        "auth",
        "cp",
        "port-forward",
        "edit",
    }
    for where, text in SAID:
        plain = re.sub(r"\{\{ *(\w+) *\}\}", r"\1", text)
        for command in re.findall(r"kubectl ((?:-\w+ \S+ )*\w[\w-]*)", plain):
            verb = command.split()[-1]
            assert verb in verbs or verb in ("X", "is", "does", "and", "apply"), (where, command)


# --- no circle ------------------------------------------------------------------------------------------------------


def seen(cluster: str | None = None, txid: int | None = None, problem: str | None = None) -> dict[str, Any]:
    at = None if txid is None else f"{txid:016x}"
    checksum = None if txid is None else f"c0ffee{txid:010x}"
    shape = {"page_size": 4096, "journal_mode": "wal"} if txid else {"page_size": None, "journal_mode": None}
    return {"cluster_id": cluster, "txid": at, "checksum": checksum, "problem": problem, **shape}


def begun(**parts: Any) -> dict[str, Any]:
    """0 was primary; the record names 1."""
    raw = make.record("recorded", A, ordinal=1, fenced="0")
    raw["data"][promote.KEY] = json.dumps({"from": 0, "fenced": [], "planned": False, "equal": False})
    pods = [make.stopped(0, cases.FENCED), make.pod(1), make.pod(2)]
    lonely = {0: gone(), 1: alone(5), 2: alone(5)} | parts.pop("answers", {})
    return site(lonely, **{"record": raw, "pods": pods, "fenced": "0", "rendered_ordinal": 1, **parts})


def last_node_gone() -> dict[str, Any]:
    state = site(
        {0: gone()},
        pods=[cases.homeless(0)],
        claims=[make.claim(0)],
        volumes=[make.volume(0)],
        statefulset=make.statefulset(replicas=1),
        nodes=[make.kube_node("node-1"), make.kube_node("node-2")],
    )
    state["pods"][0]["unschedulable"] = "0/2 nodes are available: 2 node(s) had volume node affinity conflict."
    return state


AWAY = seen(problem="volume pvc-0 is on node node-0, which does not answer.")
LEADS_1 = {1: make.node(primary=True), 2: make.node() | {"primary_hostname": "abaci-app-1"}}
# What is wrong: the site, what its volumes hold, and whether an operation has to have a way (else a runbook has).
STATES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "the last copy's node is gone for good": (last_node_gone(), {"pvc-0": AWAY}, True),
    "the last copy's node does not answer": (
        dead_node(answers={1: gone(), 2: gone()}),
        {f"pvc-{n}": AWAY for n in range(3)},
        False,
    ),
    "the primary is stopped, empty": (guarded(), {"pvc-0": seen()}, True),
    "the primary is stopped, empty, and no replica has the data": (
        guarded(answers={1: alone(5, B), 2: alone(5, B)}),
        {f"pvc-{n}": seen(B, 5) for n in range(3)},
        True,
    ),
    "the primary is stopped on an older copy": (guarded(cases.OLDER), {"pvc-0": seen(A, 3)}, True),
    "the primary is stopped, without its id, and ahead": (guarded(cases.NO_ID), {"pvc-0": seen(None, 9)}, False),
    "the primary's node does not answer": (dead_node(), {"pvc-0": AWAY}, True),
    "an empty primary runs": (site({0: make.node(B, txid=1, primary=True), 1: alone(5), 2: alone(5)}), {}, True),
    "the primary lost its id only": (
        site({0: make.node(B, txid=5, primary=True), 1: alone(5), 2: alone(5)}),
        {},
        False,
    ),
    "a replica is of another cluster": (site({2: make.node(B)}), {}, True),
    "a replica is ahead": (site({2: make.node(txid=9)}), {}, False),
    "two primaries": (site({1: make.node(primary=True)}), {}, False),
    "a promote has begun": (begun(), {"pvc-0": seen(A, 5)}, True),
    "a promote has begun, and the old primary came back with more": (begun(), {"pvc-0": seen(A, 9)}, True),
    "an old primary is fenced": (begun(answers=LEADS_1), {"pvc-0": seen(A, 9)}, True),
    "an old primary is fenced, and its node is gone": (
        begun(answers=LEADS_1, nodes=[make.kube_node("node-1"), make.kube_node("node-2")]),
        {"pvc-0": AWAY},
        True,
    ),
}


def parameters_of(tasks: Any) -> dict[str, Any]:
    """operation_parameters of a role's tasks, wherever they stand."""
    if isinstance(tasks, list):
        return {key: value for task in tasks for key, value in parameters_of(task).items()}
    if not isinstance(tasks, dict):
        return {}
    own: dict[str, Any] = (tasks.get("vars") or {}).get("operation_parameters") or {}
    return own | parameters_of(tasks.get("block"))


def parameters_by_variable(operation: str) -> dict[str, str]:
    """What each variable of the role (without the role's name before it) is called as a parameter."""
    found = parameters_of(yaml.safe_load((ROOT / f"roles/{operation}/tasks/main.yml").read_text()))
    return {
        variable: parameter
        for parameter, expression in found.items()
        for variable in re.findall(rf"\b{operation}_(\w+)", str(expression))
    }


PARAMETERS = {operation: parameters_by_variable(operation) for operation in OPERATIONS}
FIRST: dict[str, dict[str, Any]] = {operation: ASKED.get(operation, {}) for operation in OPERATIONS}


def ask(operation: str, state: dict[str, Any], parameters: dict[str, Any], volumes: dict[str, Any]) -> dict[str, Any]:
    """The plan, after the look that it asks for."""
    known: dict[str, Any] = {}
    for _round in range(3):
        made = [export(txid=900), export(B, txid=900)]
        more = {"exports": made, "volumes": known, "file": file(), "now": cases.NOW}
        plan: dict[str, Any] = deciding.decide(operation, state, parameters, **more)
        if not plan.get("look"):
            return plan
        known |= {name: volumes.get(name, seen()) for name in plan["look"]}
    raise AssertionError("it looks again and again")


def advised(refusal: str, operation: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a refusal names: (operation, what it adds to the parameters)."""
    yield from ((name, {}) for name in re.findall(r"playbooks/(\w+)\.yml", refusal) if name in FIRST)
    text = re.sub(r"\{\{|\}\}", lambda match: match[0][0], refusal)
    for match in re.finditer(r"""-e\s+(?:'(\{[^']*\})'|(\w+)=([^\s,;:'")]+))""", text):
        given = json.loads(match[1]) if match[1] else {match[2]: match[3].rstrip(".")}
        for name, value in given.items():
            role = next((role for role in FIRST if name.startswith(f"{role}_")), None)
            if role is not None:
                desired = PARAMETERS[role][name.removeprefix(f"{role}_")]
                yield role, {desired: True if value == "true" else value}


def acts(plan: dict[str, Any]) -> bool:
    return plan["refusal"] is None and bool(plan["steps"] or plan.get("export") or plan.get("volume_export"))


@pytest.mark.parametrize("start", FIRST)
@pytest.mark.parametrize("name", STATES)
def test_hazard_following_the_advice_leads_to_an_act_within_three_refusals(name: str, start: str) -> None:
    """From whichever operation somebody tries first: to one that acts, or to a runbook, and never round and round."""
    state, volumes, by_operation = STATES[name]
    plan = ask(start, state, FIRST[start], volumes)
    if plan["refusal"] is None or "there is nothing to promote" in plan["refusal"]:
        return
    edge, runbook = [(start, dict(FIRST[start]), plan["refusal"])], False
    said = []
    for _step in range(3):
        following = []
        for operation, parameters, refusal in edge:
            said.append(f"{operation} {parameters}: {refusal}")
            runbook = runbook or "docs/runbooks/" in refusal
            for other, more in advised(refusal, operation):
                base = parameters if other == operation else FIRST[other]
                given = {**base, **{key: _joined(base.get(key), value) for key, value in more.items()}}
                if (other, given) in [(one, those) for one, those, _text in edge]:
                    continue
                answer = ask(other, state, given, volumes)
                if acts(answer):
                    return
                if answer["refusal"] is not None:
                    following.append((other, given, answer["refusal"]))
        edge = following
    assert runbook and not by_operation, "\n".join(said)


def _joined(old: Any, new: Any) -> Any:
    return [*old, *new] if isinstance(old, list) and isinstance(new, list) else new


@pytest.mark.parametrize("name", [name for name, (_state, _volumes, by_operation) in STATES.items() if by_operation])
def test_some_operation_has_a_way_out_of_each_state(name: str) -> None:
    state, volumes, _by_operation = STATES[name]
    words = {"node_off": "node-0", "accept_loss_after": f"{5:016x}", "give_up_volume": ["pvc-0"], "lost_replicas": []}
    tried = itertools.chain(
        (("promote", parameters) for parameters in ({}, words, {"call_off": True}, {"accept_loss_after": f"{5:016x}"})),
        (("restore", parameters) for parameters in ({}, {"lost_volumes": ["pvc-0"]})),
        (("replica_reset", {"targets": targets, "lost_volumes": ["pvc-0"]}) for targets in ("mismatched", [0])),
    )
    assert any(acts(ask(operation, state, parameters, volumes)) for operation, parameters in tried), name

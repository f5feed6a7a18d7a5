"""What site.yml may do to the application: pure decisions over the state document and the inventory's settings.

plan() answers with what to render and write, or with the one sentence why nothing may be applied. The state document is
described in state_types.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from . import app_image, claims, identity, isolation, litefs, wording
from . import state as documents
from .app_types import Desired, Image, IsolationPlan, Plan, Record, Retain
from .objects import Object
from .operations import backup, progress, promote
from .placement import architectures, local_claims, may_run
from .state_types import State

# Sysctls that every kubelet allows (Kubernetes 1.32 and later): a pod may ask for them anywhere.
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
# From this minor version on a MutatingAdmissionPolicy (v1) can make a volume Retain at its creation.
ADMISSION_POLICY_MINOR = 36


def plan(state: State, desired: Desired) -> Plan:
    """Decide what the next apply of the application is. ``desired`` with an unknown key is a ValueError."""
    _check_names(desired)
    refusals: list[str] = []
    notes: list[str] = []
    if state["api"]["error"]:
        notes.append(f"This is what a first start would do, for no cluster could be asked: {state['api']['error']}")

    desired_ordinal, problem = _whole("app_primary_ordinal", desired.get("primary_ordinal"))
    refusals += problem
    decision = identity.decide(state, desired_ordinal)
    if decision.refusal:
        refusals.append(decision.refusal)
    notes += decision.notes

    refusals += _paused(state)
    notes += _unfinished(state)

    desired_replicas, replicas, refused, said = _count(state, desired, decision.ordinal)
    refusals += refused
    notes += said
    refusals += immutable_changes(state, desired)
    refused, said = sysctl_problems(state, desired)
    refusals += refused
    notes += said
    isolated = _isolation(state, desired)
    notes.append(_ISOLATION_SAYS[isolated["mode"]].format(reason=isolated["reason"]))
    annotations, said = _annotations(state, desired)
    notes += said
    image = _image(state, desired, annotations.get(documents.KEEL_POLICY) == "never", decision.ordinal)
    notes += [image["note"]] if image["note"] else []
    notes += _standing_notes(state, desired, decision.ordinal, replicas)

    record = _record(state, decision)
    bootstrap = record["data"].get("state") == "bootstrap"
    replaced, late = by_hand(state, decision.ordinal), behind(state)

    return {
        "refusal": refusals[0] if refusals else None,
        "refusals": refusals,
        "replicas": replicas,
        "desired_replicas": desired_replicas,
        "primary_ordinal": decision.ordinal,
        "fenced": litefs.fenced(state),
        "away": sorted(litefs.absent(state)),
        "by_hand": replaced,
        "behind": late,
        "bootstrap": bootstrap,
        "unfinished": bootstrap or (replaced and late),
        "first_start": identity.nothing_exists(state),
        "record": record,
        "retain": _retain(state),
        "isolation": isolated,
        "annotations": annotations,
        "image": image,
        "notes": notes,
    }


def _isolation(state: State, desired: Desired) -> IsolationPlan:
    chosen = isolation.decide(state, desired)
    without = isolation.without_device(state, desired)
    return {"mode": chosen.mode, "reason": chosen.reason, "without_device": without}


def _image(state: State, desired: Desired, frozen: bool, ordinal: int) -> Image:
    named = str(desired.get("image") or "")
    kept = desired.get("pull_policy") == "IfNotPresent"
    chosen = app_image.choose(state, named, frozen, ordinal, desired.get("pulled") or (), kept=kept)
    processors = architectures(state["nodes"], desired)
    pulls = app_image.pulls(chosen, named, str(desired.get("guard_image") or ""), processors, kept=kept)
    return {
        "text": chosen.text,
        "pull": chosen.pull,
        "pin": chosen.pin,
        "running": chosen.running,
        "note": chosen.note,
        "pulls": pulls,
    }


def _record(state: State, decision: identity.Decision) -> Record:
    if decision.data is None:
        return {"action": "none", "data": _present(state)}
    return {"action": "update" if state["record"] else "create", "data": decision.data}


def _standing_notes(state: State, desired: Desired, ordinal: int, replicas: int) -> list[str]:
    """What is said at each run, for as long as it is so."""
    return [
        *litefs.left_out(state),
        *fenced_notes(state),
        *order_of_rollouts(state, ordinal, replicas),
        *local_files(state, desired, replicas),
        *kept_volumes(state),
    ]


def _check_names(desired: Desired) -> None:
    known = Desired.__annotations__
    if unknown := sorted(set(desired) - set(known)):
        raise ValueError(
            f"app_plan does not know the setting {', '.join(unknown)}: known are {', '.join(sorted(known))}."
        )


def _retain(state: State) -> Retain:
    minor = state["api"]["minor"]
    return {
        # Not known is a check run without a cluster: the k3s that would be installed has it.
        "admission_policy": minor is None or minor >= ADMISSION_POLICY_MINOR,
        "objects": [_retained(volume["name"]) for volume in state["volumes"] if volume["reclaim_policy"] != "Retain"],
    }


_ISOLATION_SAYS = {
    "user-namespace": "The pods run in user namespaces, so that their root is nobody on the host: {reason}.",
    "device-plugin": (
        "The pods run with CAP_SYS_ADMIN and the FUSE device, without a user namespace of their own: {reason}."
    ),
    "privileged": "The pods are privileged and have the whole host: {reason}.",
}


def _annotations(state: State, desired: Desired) -> tuple[dict[str, str], list[str]]:
    """(the StatefulSet's annotations, sentences)."""
    given = {**keel_annotations(desired), **desired.get("annotations", {})}
    decided, notes = keel(state, str(given.get(documents.KEEL_POLICY) or ""))
    return {**given, **decided}, notes


def keel_annotations(desired: Desired) -> dict[str, str]:
    """What tells Keel to follow the image's tag, as the inventory has it; none where Keel is not used."""
    asked = desired.get("keel")
    if asked is None or asked["state"] != "present":
        return {}
    return {
        documents.KEEL_POLICY: "never" if asked["frozen"] else "force",
        "keel.sh/match-tag": "true",
        "keel.sh/trigger": "poll",
        "keel.sh/pollSchedule": asked["schedule"],
        **({"keel.sh/approvals": str(asked["approvals"])} if asked["approvals"] > 0 else {}),
    }


def keel(state: State, policy: str) -> tuple[dict[str, str], list[str]]:
    """(annotations, sentences): whoever changed Keel's policy last decides, as with the replicas.

    A freeze by hand stays. ``policy`` is the inventory's, empty where Keel is off.
    """
    if not policy:
        return {}, []
    living = state["statefulset"]["keel_policy"] or ""
    last = state["statefulset"]["last_applied_keel_policy"] or ""
    kept = living not in ("", policy) and (last == policy or (not last and living == "never"))
    note = f"The StatefulSet keeps keel.sh/policy {living}, which was set in the cluster; the inventory says {policy}."
    annotations = {documents.KEEL_POLICY: living if kept else policy, documents.LAST_APPLIED_KEEL_POLICY: policy}
    return annotations, [note] if kept else []


def _retained(volume: str) -> Object:
    """The manifest that says of a volume only that it outlives its claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume},
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    }


def _whole(name: str, value: object) -> tuple[int, list[str]]:
    if not isinstance(value, bool) and re.fullmatch(r"\d{1,5}", str(value)):
        return int(str(value)), []
    return 0, [f"{name} is {value!r}: set it to a whole number that is not negative."]


def _present(state: State) -> dict[str, str]:
    """The record as it stands; hold is the template's."""
    return {key: value for key, value in identity.raw(state).items() if key != "hold"}


def _paused(state: State) -> list[str]:
    """Why nothing is applied: that would go on with what stands still on purpose."""
    if promote.unproven(state):
        if promote.is_done(state):
            return [f"A promote is done, and the record does not say so: run ansible-playbook {identity.PROMOTE} once."]
        return [
            "A promote is not finished, and site.yml might make its successor primary without transactions that were "
            f"acknowledged: run ansible-playbook {identity.PROMOTE} again first (-e promote_from_archive=false leaves "
            "behind what only the archive has, -e promote_call_off=true gives the role back)."
        ]
    try:
        known = progress.read(state)
    except ValueError:
        return []
    name = next((name for name in ("rollback", "rollout") if name in known), None)
    if name is None:
        return []
    again = (
        "run playbooks/rollback.yml again"
        if name == "rollback"
        else ("run playbooks/rollout.yml again as it was run, or go back with playbooks/rollback.yml")
    )
    return [f"A {name} is not finished, and site.yml would replace the pods that it left: {again} first."]


def _unfinished(state: State) -> list[str]:
    """What the user has to know of operations that died, and of what no backup has."""
    try:
        said = progress.others(progress.read(state))
    except ValueError as exc:
        said = [str(exc)]
    return [*said, *filter(None, (backup.job_note(state), backup.other_databases_note(state)))]


def _count(state: State, desired: Desired, ordinal: int) -> tuple[int, int, list[str], list[str]]:
    """(app_replicas as a number, replicas to apply, refusals, notes)."""
    wanted, problem = _whole("app_replicas", desired.get("replicas"))
    if problem:
        return wanted, wanted, problem, []
    replicas, refusal, notes = _replicas(state, wanted, ordinal)
    return wanted, replicas, [refusal] if refusal else [], notes


def _replicas(state: State, desired: int, ordinal: int) -> tuple[int, str | None, list[str]]:
    """The count belongs to whoever changed it last: the inventory only where app_replicas has changed since."""
    least = ordinal + 1
    if desired < least:
        why = f"the primary has ordinal {ordinal}, and pods are numbered from 0" if ordinal else "the primary is a pod"
        return least, f"app_replicas is {desired}, but {why}: set it to {least} or more.", []
    living = state["statefulset"]
    if not living["exists"]:
        return desired, None, []
    current, last = living["replicas"] or 0, living["last_applied_replicas"]
    if last is not None and last != desired:
        return desired, None, []
    if current < least:
        # Nothing else brings the primary back, and without it nothing can be written.
        return least, None, [f"The StatefulSet was scaled to {current}; it gets {least}, so that its primary runs."]
    if current == desired:
        return desired, None, []
    source = "it was scaled since" if last is not None else "app_replicas was never applied to it"
    note = f"The StatefulSet keeps its {current} replicas, because {source}; app_replicas ({desired}) did not change."
    return current, None, [note]


def immutable_changes(state: State, desired: Desired) -> list[str]:
    """A sentence for each value that would change what the API lets nobody change on a StatefulSet."""
    living = state["statefulset"]
    if not living["exists"]:
        return []
    name = desired.get("claim_template")
    templates = {template["name"]: template for template in living["claim_templates"]}
    template = templates.get(name) if name else next(iter(templates.values()), None)
    where = f"StatefulSet {state['namespace']}/{living['name']}"
    sentences: list[str] = []
    if name and template is None:
        sentences.append(
            f"{where} has no volumeClaimTemplate {name} (it has {', '.join(sorted(templates)) or 'none'}), and the "
            "API does not let them change: use its name."
        )
    pairs: list[tuple[str, str, Any, Any]] = [
        ("service_name", "its serviceName", living["service_name"], desired.get("service_name")),
        (
            "pod_management_policy",
            "its podManagementPolicy",
            living["pod_management_policy"],
            desired.get("pod_management_policy"),
        ),
    ]
    for key, port, target in (
        ("litefs_port", "litefs", desired.get("litefs_port")),
        ("proxy_port", "proxy", desired.get("proxy_port")),
    ):
        now = living["ports"].get(port)
        if now is not None and target is not None and int(target) != now:
            sentences.append(
                f"app_{key} is {target}, but the pods of {where} speak on {now}, and pods of two ports would not reach "
                f"each other: set app_{key} back to {now}, or run site.yml with app_state: absent first, which keeps "
                "the data."
            )
    if template is not None:
        pairs += [
            ("storage_size", "the size of its volumes", template["storage"], desired.get("storage_size")),
            ("storage_class", "the class of its volumes", template["storage_class"], desired.get("storage_class")),
        ]
    for key, label, now, value in pairs:
        same = claims.same_quantity(now, value) if key == "storage_size" else now == value
        if value is not None and not same:
            sentences.append(
                f"app_{key} is {value}, but {where} was made with {now} and the API does not let {label} change: set "
                f"app_{key} back to {now}."
            )
    return sentences


def sysctl_problems(state: State, desired: Desired) -> tuple[list[str], list[str]]:
    """(refusals, notes) about nodes whose kubelet would reject the pods: SysctlForbidden, for ever, pod after pod."""
    wanted = [name.replace("/", ".") for name in desired.get("sysctls") or []]
    unsafe = [name for name in wanted if name not in SAFE_SYSCTLS]
    refusals: list[str] = []
    notes: list[str] = []
    if not unsafe:
        return refusals, notes
    for node in state["nodes"]:
        if not may_run(node, desired):
            continue
        allowed = node["allowed_unsafe_sysctls"]
        if allowed is None:
            notes.append(f"Whether node {node['name']} allows the sysctls of the pods is not known: {node['error']}.")
            continue
        missing = [name for name in unsafe if not allows(allowed, name)]
        if missing:
            refusals.append(
                f"The kubelet of node {node['name']} does not allow the pods' sysctl {', '.join(missing)} and would "
                f"reject them: give kubelet-arg allowed-unsafe-sysctls={','.join(missing)} in k3s_config and run the "
                "k3s role on that node first."
            )
    return refusals, notes


def allows(allowed: Iterable[str], name: str) -> bool:
    """Whether a kubelet's allowed-unsafe-sysctls cover the name; an entry may end in * (net.core.*, kernel.msg*)."""
    for entry in allowed:
        pattern = entry.replace("/", ".")
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])):
            return True
    return False


def by_hand(state: State, primary: int) -> bool:
    """Whether the controller's own rolling update, from the highest ordinal down, would not do.

    It waits for ever for a pod that is fenced or whose node is away, and for a replica where the primary is not up;
    and it restarts a primary of a higher ordinal before replicas.
    """
    if not state["statefulset"]["exists"]:
        return False
    up = any(pod["ordinal"] == primary for pod in litefs.primaries(state))
    return bool(not up or primary or litefs.absent(state) or litefs.fenced(state))


def behind(state: State) -> bool:
    """Whether a pod that can run has not the newest template."""
    newest, gone = state["statefulset"]["update_revision"], {*litefs.absent(state), *litefs.fenced(state)}
    return any(pod["revision"] != newest for pod in state["pods"] if pod["ordinal"] not in gone)


def fenced_notes(state: State) -> list[str]:
    """A sentence for each ordinal that the record fences."""
    name = state["statefulset"]["name"]
    return [
        f"{name}-{ordinal} is fenced since the primary's role was moved away, so nobody waits for it: "
        f"playbooks/replica_reset.yml -e '{{\"replica_reset_targets\": [{ordinal}]}}' exports its database and "
        "makes it a replica."
        for ordinal in litefs.fenced(state)
    ]


def order_of_rollouts(state: State, ordinal: int, replicas: int) -> list[str]:
    """What a primary that has not ordinal 0 means for rolling updates, as a sentence or none."""
    if not ordinal or not state["statefulset"]["exists"]:
        return []
    name = state["statefulset"]["name"]
    after = "begins with it" if ordinal == replicas - 1 else f"restarts it before {name}-0"
    return [
        f"The primary is {name}-{ordinal}, and a rolling update goes from the highest ordinal down, so it {after}: to "
        f"have replicas first again, move the role back ({identity.PROMOTE} -e promote_to=0)."
    ]


def local_files(state: State, desired: Desired, replicas: int) -> list[str]:
    """What it means for the pods that a claim's directory is another one on each host, as a sentence or none."""
    local = local_claims(desired)
    mounted = [(volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in desired.get("volumes") or []]
    claims = [str(claim) for claim in mounted if claim in local]
    nodes = [node["name"] for node in state["nodes"] if may_run(node, desired, some_day=True)]
    if not claims or replicas < 2 or len(nodes) < 2:
        return []
    return [
        f"Each pod has {wording.listed(claims)} on its own node (storage_kind is host_path), so a file that one writes "
        f"is 404 on pods of the others of {wording.listed(nodes)}, unless storage_paths are a mount that all of them "
        "have: choose nfs or class."
    ]


def kept_volumes(state: State) -> list[str]:
    """A sentence for each volume that no claim has: data that is removed by name only, by a person."""
    return [
        f"Volume {volume['name']} is kept: it was {volume['claim']}'s"
        f"{' on node ' + volume['node'] if volume['node'] else ''} and no claim has it now; remove it by name when its "
        "data is not needed."
        for volume in state["volumes"]
        if volume["kept"]
    ]

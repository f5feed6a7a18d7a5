"""The checks: one table for status.yml and check.yml. Pure functions over the facts.

Each says what is wrong, the command that mends it and the page of docs/ that tells more. One fault is told by one
check: what another explains already (a pod on a node that is away, writes while no primary runs) is passed over.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .. import certificates
from ..conditions import PULL_REASONS
from ..operations import lock, progress
from ..operations.situation import IN_SYNC_LAG_MS
from ..wording import listed, printable
from .facts import Certificate, Facts, Host, Node, Part, Pod

Mark = Literal["ok", "warn", "fail", "unknown"]
Needs = Literal["api", "cluster", "site", "hosts"]

UNHEARD_SECONDS = 15  # a kubelet renews its Lease every 10 s
DISK_WARN, DISK_FAIL = 80, 92
EDGE_DAYS, K3S_DAYS = 20, 30  # site.yml renews those of k3s within the second
CLUSTER_BACKUP_DAYS = 8  # as site.yml
ARCHIVE_SECONDS = 60
RESTARTS, RESTARTED_HOURS = 3, 1
COPIED_SECONDS = 900  # in which a replica with a new volume has got the whole database
PYTHON = "docker.io/library/python:3.13-alpine"  # what the archive runs in: any image with Python
BACKUPS = "~/abaci-backups"  # backup_directory, where it is not set
OPERATIONS = "docs/operations.md"
CAUSES = "docs/failure-modes.md"
REFUSED = "docs/runbooks/primary-refused.md"
PORTS = f"{OPERATIONS}#ports-between-the-hosts"


@dataclass(frozen=True)
class Said:
    """What is wrong, or why it is not known, and the command that mends it."""

    mark: Mark
    cause: str
    command: str = ""
    page: str = ""


@dataclass(frozen=True)
class Check:
    """One line of the table. ``grave``: where it fails, the site is down or unsafe."""

    slug: str
    group: str
    asks: str
    look: Callable[[Facts], Said | None]
    page: str = OPERATIONS
    grave: bool = False
    needs: Needs = "site"


@dataclass(frozen=True)
class Result:
    """A check and what it found; cause and command are empty where all is well."""

    slug: str
    group: str
    asks: str
    mark: Mark
    cause: str
    command: str
    page: str
    grave: bool


@dataclass(frozen=True)
class Summary:
    """``code``: 0 well, 1 degraded, 2 down or unsafe; before anything is installed 2 is not ready."""

    code: int
    word: str
    sentence: str


def run(facts: Facts, groups: Sequence[str] = ()) -> list[Result]:
    """The results of all checks that these facts can answer, of some groups or of all."""
    results = []
    for check in TABLE:
        asked = facts.hosts_asked if check.needs == "hosts" else facts.cluster_asked
        if not asked or (groups and check.group not in groups):
            continue
        said = _unknown(check, facts) or check.look(facts) or Said("ok", "")
        page = said.page or check.page
        results.append(
            Result(
                check.slug, check.group, check.asks, said.mark, printable(said.cause), said.command, page, check.grave
            )
        )
    return results


def groups() -> list[str]:
    """The names of the groups, in the order of the table."""
    return list(dict.fromkeys(check.group for check in TABLE))


def summary(facts: Facts, results: Iterable[Result]) -> Summary:
    """The summary in one sentence: the gravest cause, and how many more there are."""
    bad = sorted(
        (one for one in results if one.mark in ("warn", "fail")),
        key=lambda one: (not (one.grave and one.mark == "fail"), one.mark != "fail"),
    )
    if not bad:
        return Summary(0, "well", _well(facts))
    first, more = bad[0], len(bad) - 1
    code, word = (2, "down or unsafe") if first.grave and first.mark == "fail" else (1, "degraded")
    if not facts.cluster_asked:
        code, word = (2, "not ready for site.yml") if first.mark == "fail" else (1, "ready, with a warning")
    tail = f" ({more} more, see below)" if more else ""
    return Summary(code, word, f"{word.capitalize()}: {first.cause}{tail}")


def _well(facts: Facts) -> str:
    if not facts.cluster_asked:
        return "Well: nothing stands in the way of site.yml."
    followers = sum(pod.role == "replica" for pod in facts.pods)
    writes = "writes are answered by the primary" if facts.write_path.error is None else "writes were not tried"
    return f"Well: {facts.identity.primary} is primary, {followers} replicas follow it, and {writes}."


def _unknown(check: Check, facts: Facts) -> Said | None:
    """Why a check cannot be answered."""
    if check.needs not in ("cluster", "site"):
        return None
    if facts.api.error or facts.api.foreign:
        return Said("unknown", "the cluster was not looked at")
    if check.needs == "site" and not facts.application.exists:
        return Said("unknown", "there is no site yet")
    return None


def play(facts: Facts, playbook: str, **variables: object) -> str:
    """The command that runs a playbook for this inventory."""
    words = ["ansible-playbook", "-i", facts.api.inventory or "inventories/mine", playbook]
    for name, value in variables.items():
        words += ["-e", value if isinstance(value, str) and name == "given" else f"{name}={value}"]
    return " ".join(words)


def _given(**variables: object) -> str:
    return f"'{json.dumps(variables)}'"


def kubectl(facts: Facts, words: str, namespace: str = "") -> str:
    """What a person types to ask this cluster."""
    where = f" -n {namespace}" if namespace else ""
    path = shlex.quote(facts.api.kubeconfig) if facts.api.kubeconfig else "~/.kube/k3s-config"
    return f"kubectl --kubeconfig={path}{where} {words}"


def on(facts: Facts, hosts: str, words: str) -> str:
    """The command that runs another one on hosts of the inventory."""
    where = facts.api.inventory or "inventories/mine"
    return f"ansible -i {where} {hosts} -b -m ansible.builtin.command -a '{words}'"


def site(facts: Facts, tags: str = "") -> str:
    """The command that applies the inventory, or parts of it."""
    return play(facts, "site.yml") + (f" --tags {tags}" if tags else "")


def names(items: Iterable[Pod | Node | Host]) -> str:
    """Their names, for a sentence."""
    return listed(item.name for item in items)


def _is(items: Sequence[object]) -> str:
    return "are" if len(items) > 1 else "is"


# --- the API, the inventory and the hosts ----------------------------------------------------------------------------


def api_answers(facts: Facts) -> Said | None:
    return Said("fail", facts.api.error, site(facts, "preflight")) if facts.api.error else None


def its_cluster(facts: Facts) -> Said | None:
    if facts.api.error:
        return Said("unknown", "the API does not answer")
    return Said("fail", facts.api.foreign, site(facts, "preflight")) if facts.api.foreign else None


def rights(facts: Facts) -> Said | None:
    if not facts.api.unread:
        return None
    return Said("warn", " ".join(facts.api.unread), kubectl(facts, "auth can-i --list"))


def inventory_nodes(facts: Facts) -> Said | None:
    lacking = len(facts.inventory_hosts) - len(facts.nodes)
    if lacking <= 0:
        return None
    return Said(
        "warn",
        f"The inventory has {len(facts.inventory_hosts)} hosts and the cluster {len(facts.nodes)} nodes.",
        site(facts),
    )


def _away(facts: Facts) -> set[str]:
    """The nodes of which nodes-ready says that they are away; a node has the name of its host."""
    return {node.name for node in facts.nodes if not node.ready}


def _hosts(*topics: str, mark: Mark = "fail") -> Callable[[Facts], Said | None]:
    """A check of what site.yml's preflight says of a topic, of each host or between hosts."""

    def look(facts: Facts) -> Said | None:
        told: dict[str, list[str]] = {}
        away = _away(facts) if "reached" in topics else set()
        for host in (one for one in facts.hosts if one.name not in away):
            for topic in topics:
                for text in host.errors.get(topic, ()):
                    told.setdefault(text, []).append(host.name)
        found = [f"{listed(hosts)}: {text}" for text, hosts in told.items()]
        found += [text for topic in topics for text in facts.between_hosts.get(topic, ())]
        return Said(mark, " ".join(found), site(facts, "preflight")) if found else None

    return look


def ports(facts: Facts) -> Said | None:
    closed = [one for one in facts.connections if one.error and not {one.source, one.target} & _away(facts)]
    if not closed:
        return None
    first = closed[0]
    source = next((host.address for host in facts.hosts if host.name == first.source), first.source)
    more = f" ({len(closed) - 1} more)" if len(closed) > 1 else ""
    return Said(
        "fail",
        f"{first.source} does not reach {first.target} on {first.protocol.upper()} port {first.port}: "
        f"{first.error}{more}; a firewall on {first.target} or of the provider is closed there.",
        on(facts, first.target, f"ufw allow from {source} to any port {first.port} proto {first.protocol}"),
    )


def firewalls(facts: Facts) -> Said | None:
    """A firewall is a warning only as long as nobody has tried the ports behind it."""
    return None if facts.connections else _hosts("firewall", mark="warn")(facts)


# --- k3s -------------------------------------------------------------------------------------------------------------


def nodes_ready(facts: Facts) -> Said | None:
    away = [node for node in facts.nodes if not node.ready]
    if not away:
        return None
    down = [part.name for part in facts.parts if part.wanted and _went(part)]
    them = "them" if len(away) > 1 else "it"
    said = f"{names(away)} {_is(away)} not ready: bring {them} back, or see what goes down with {them}."
    if down:
        said = f"{names(away)} {_is(away)} not ready, and {listed(down)} went down with {them}: bring {them} back."
    return Said("fail", said, kubectl(facts, f"describe node {away[0].name}"))


def nodes_heard(facts: Facts) -> Said | None:
    silent = [node for node in facts.nodes if node.ready and (node.silent_seconds or 0) > UNHEARD_SECONDS]
    if not silent:
        return None
    return Said(
        "warn",
        f"Nothing was heard from {names(silent)} for {max(node.silent_seconds or 0 for node in silent):.0f} s, though "
        "the API still calls it ready.",
        kubectl(facts, f"describe node {silent[0].name}"),
    )


def nodes_schedulable(facts: Facts) -> Said | None:
    cordoned = [node for node in facts.nodes if node.ready and not node.schedulable]
    if not cordoned:
        return None
    said = f"{names(cordoned)} {_is(cordoned)} cordoned, so no pod starts there."
    return Said("warn", said, kubectl(facts, f"uncordon {' '.join(node.name for node in cordoned)}"))


def nodes_pressure(facts: Facts) -> Said | None:
    pressed = [node for node in facts.nodes if node.pressures]
    if not pressed:
        return None
    said = "; ".join(f"{node.name} has {listed(node.pressures)}" for node in pressed)
    return Said("fail", f"{said}: pods are evicted there.", kubectl(facts, f"describe node {pressed[0].name}"))


def kubelets_answer(facts: Facts) -> Said | None:
    mute = [node for node in facts.nodes if node.ready and node.error and (node.silent_seconds or 0) <= UNHEARD_SECONDS]
    if not mute:
        return None
    said = f"The kubelet of {names(mute)} does not say how full its disk is: {mute[0].error}."
    return Said("warn", said, kubectl(facts, f"get --raw /api/v1/nodes/{mute[0].name}/proxy/stats/summary"), PORTS)


def versions_agree(facts: Facts) -> Said | None:
    versions = sorted({node.version for node in facts.nodes if node.version})
    if len(versions) < 2:
        return None
    return Said("warn", f"The nodes run different versions of k3s: {listed(versions)}.", site(facts, "k3s"))


def _certificate(facts: Facts, where: str) -> Certificate | None:
    return next((one for one in facts.certificates if one.where == where), None)


def _ends(found: Certificate | None, what: str, least: float, command: str) -> Said | None:
    if found is None or found.days is None:
        return None
    if found.days <= 0:
        return Said("fail", f"{what} ended at {found.not_after}.", command)
    if found.days < least:
        return Said("warn", f"{what} ends in {found.days:.0f} days, at {found.not_after}.", command)
    return None


def api_certificate(facts: Facts) -> Said | None:
    found = _certificate(facts, "api")
    ended = found is not None and (found.days or 0) <= 0
    # Once it has ended nobody is let in, site.yml neither.
    command = on(facts, "k3s_server", "systemctl restart k3s") if ended else site(facts, "k3s")
    return _ends(found, "The certificate of the Kubernetes API", K3S_DAYS, command)


def kubeconfig_certificate(facts: Facts) -> Said | None:
    what = f"The client certificate in {facts.api.kubeconfig}"
    return _ends(_certificate(facts, "kubeconfig"), what, K3S_DAYS, site(facts, "k3s"))


# --- parts beside the application ------------------------------------------------------------------------------------


def _part(*wanted: str, tags: str = "") -> Callable[[Facts], Said | None]:
    """A check that parts are there and have all their pods ready; ``tags``: those of site.yml that bring them back."""

    def look(facts: Facts) -> Said | None:
        lacking = [
            part
            for part in facts.parts
            if part.name in wanted and part.wanted and not _stands(part) and not _went(part)
        ]
        if not lacking:
            return None
        part = lacking[0]
        if not part.exists:
            said = f"No pod of {part.name} in namespace {part.namespace} runs, though the inventory asks for it."
            back = kubectl(facts, f"scale deployment {part.name} --replicas=1", part.namespace)
            return Said("fail", said, site(facts, tags) if tags else back)
        why = f": {part.message.rstrip('.')}" if part.message else ""
        said = f"{part.name} in namespace {part.namespace} has {part.ready} of {part.replicas} pods ready{why}."
        return Said("fail", said, kubectl(facts, "describe pods", part.namespace))

    return look


def _went(part: Part) -> bool:
    """Whether it does not run because its node is away, of which nodes-ready tells."""
    return not part.exists and part.away > 0


def _stands(part: Part) -> bool:
    return part.exists and part.replicas > 0 and part.ready >= part.replicas


def fuse_devices(facts: Facts) -> Said | None:
    if not facts.application.wants_fuse_device:
        return None
    lacking = [node for node in facts.nodes if node.ready and not node.fuse_devices]
    if not lacking:
        return None
    said = f"{names(lacking)} {'offer' if len(lacking) > 1 else 'offers'} no FUSE device, so no new pod starts there."
    return Said("fail", said, site(facts, "fuse,device_plugin"))


# --- the edge --------------------------------------------------------------------------------------------------------


def _edge_fails(facts: Facts) -> bool:
    return any(part.name == "traefik" and part.wanted and not _stands(part) for part in facts.parts)


def edge_answers(facts: Facts) -> Said | None:
    if facts.write_path.error:
        return Said("unknown", facts.write_path.error)
    if not facts.write_path.reads:
        return None
    if _edge_fails(facts):
        return Said("unknown", "Traefik does not run, see traefik")
    if facts.identity.cause == "no-copy-left":
        return Said("unknown", "no pod has the database, see one-primary")
    return Said("fail", " ".join(facts.write_path.reads[:1]), site(facts, "app"))


def write_path(facts: Facts) -> Said | None:
    if facts.write_path.error or not facts.write_path.problems:
        return Said("unknown", facts.write_path.error) if facts.write_path.error else None
    if _edge_fails(facts) or facts.write_path.reads or facts.identity.problem:
        return Said("unknown", "another check says why writes are not answered")
    return Said("fail", facts.write_path.problems[0], site(facts, "app,traefik"))


def _served(facts: Facts) -> Certificate | None:
    return _certificate(facts, "secret") if facts.tls else None


def certificate_lasts(facts: Facts) -> Said | None:
    found = _served(facts)
    if found is None:
        return None
    if found.error:
        return Said("fail", f"The site has no certificate: {found.error}.", site(facts, "app"))
    return _ends(found, "The site's certificate", EDGE_DAYS, site(facts, "cert_manager,app"))


def certificate_names(facts: Facts) -> Said | None:
    found = _served(facts)
    if found is None or not found.missing:
        return None
    said = f"The site's certificate is for {listed(found.names) or 'no name'} and not for {listed(found.missing)}."
    if found.issued_as is None:
        return Said("fail", said, site(facts, "app"))
    # It goes by its own annotations, and does not see what another program wrote beside them. Asked for as `cmctl
    # renew` does it, so that visitors are shown this one until the new one is there.
    status = json.dumps({"status": {"conditions": [certificates.ASK_AGAIN]}})
    anew = f"patch certificate {found.issued_as} --subresource=status --type=merge -p {shlex.quote(status)}"
    return Said("fail", said, kubectl(facts, anew, _namespace(facts)))


def certificate_served(facts: Facts) -> Said | None:
    kept, shown = _served(facts), _certificate(facts, "edge")
    if kept is None or shown is None or not kept.fingerprint or not shown.fingerprint:
        return None
    # Of one for other names Traefik shows its own instead.
    if kept.fingerprint == shown.fingerprint or kept.missing:
        return None
    said = (
        "Visitors are shown another certificate than the Secret's, so Traefik does not use it or has not read it yet."
    )
    return Said("fail", said, kubectl(facts, "delete pod -l app.kubernetes.io/name=traefik", "kube-system"))


# --- LiteFS ----------------------------------------------------------------------------------------------------------


def statefulset(facts: Facts) -> Said | None:
    if facts.application.exists:
        return None
    where = f"{facts.application.name} in namespace {facts.application.namespace}"
    return Said("fail", f"There is no StatefulSet {where}.", site(facts))


def one_primary(facts: Facts) -> Said | None:
    if not facts.identity.problem:
        return None
    cause = facts.identity.cause
    pod = f"{facts.application.name}-{facts.identity.ordinal or 0}"
    command = {
        "primary-node-gone": play(facts, "playbooks/promote.yml"),
        "no-copy-left": _restore(facts),
    }.get(cause or "", kubectl(facts, f"describe pod {pod}", facts.application.namespace))
    return Said("fail", facts.identity.problem, command, f"{CAUSES}#{cause}" if cause else "")


def _restore(facts: Facts) -> str:
    """The command that brings the database back as it was before the primary's last transaction, or from a backup."""
    last = next((pod.txid for pod in facts.pods if pod.name == facts.identity.primary), None)
    if facts.archive is not None and facts.archive.connected and last:
        return play(facts, "playbooks/restore.yml", restore_at=f"{int(last, 16) - 1:016x}")
    return play(
        facts, "playbooks/restore.yml", restore_from=shlex.quote(facts.backup.kept) if facts.backup.kept else BACKUPS
    )


def _others(facts: Facts) -> list[Pod]:
    """The pods of which one_primary says nothing, and for which somebody waits."""
    gone = facts.identity.ordinal if facts.identity.problem else None
    return [pod for pod in facts.pods if pod.ordinal != gone and not pod.excused]


def _followers(facts: Facts) -> list[Pod]:
    """Replicas that answer, while there is a primary that they can follow."""
    if facts.identity.primary is None:
        return []
    return [pod for pod in _others(facts) if pod.role == "replica" and pod.identity != "other"]


def _reset(facts: Facts, pods: Sequence[Pod]) -> str:
    targets = _given(replica_reset_targets=[pod.ordinal for pod in pods])
    return play(facts, "playbooks/replica_reset.yml", given=targets)


def _anew(facts: Facts, pods: Sequence[Pod]) -> str:
    """Replace pods. Of a replica nothing is lost by that: its volume stays, and it follows from where it was."""
    return kubectl(facts, f"delete pod {' '.join(pod.name for pod in pods)}", _namespace(facts))


def pods_exist(facts: Facts) -> Said | None:
    there = {pod.ordinal for pod in facts.pods} | {facts.identity.ordinal if facts.identity.problem else None}
    lacking = [f"{facts.application.name}-{n}" for n in range(facts.application.replicas) if n not in there]
    if not lacking:
        return None
    said = f"There {_is(lacking)} no pod {listed(lacking)}, though {facts.application.replicas} are wanted."
    return Said("fail", said, kubectl(facts, f"describe statefulset {facts.application.name}", _namespace(facts)))


def _namespace(facts: Facts) -> str:
    return facts.application.namespace


def guard(facts: Facts) -> Said | None:
    held = [pod for pod in _others(facts) if pod.guarded]
    if not held:
        return None
    said = f"The guard does not let {names(held)} start: {(held[0].stopped or 'it says nothing').rstrip('.')}."
    return Said("fail", said, _reset(facts, held))


def fenced(facts: Facts) -> Said | None:
    if not facts.identity.fenced:
        return None
    pods = [f"{facts.application.name}-{ordinal}" for ordinal in facts.identity.fenced]
    said = f"{listed(pods)} {_is(pods)} fenced, because the volume may hold what no other has."
    given = _given(replica_reset_targets=list(facts.identity.fenced))
    return Said("warn", said, play(facts, "playbooks/replica_reset.yml", given=given))


def _idle(facts: Facts) -> list[Pod]:
    return [pod for pod in _others(facts) if not pod.running and not pod.guarded]


def images_pulled(facts: Facts) -> Said | None:
    stuck = [pod for pod in _idle(facts) if pod.reason in PULL_REASONS]
    if not stuck:
        return None
    said = (
        f"{names(stuck)} {'wait' if len(stuck) > 1 else 'waits'} for the image ({stuck[0].reason}): {stuck[0].stopped}"
    )
    return Said("fail", f"{said.rstrip('.')}.", site(facts, "app"))


def pods_run(facts: Facts) -> Said | None:
    stuck = [pod for pod in _idle(facts) if pod.reason not in PULL_REASONS]
    if not stuck:
        return None
    said = f"{names(stuck)} {'do' if len(stuck) > 1 else 'does'} not run: {stuck[0].stopped or 'no reason is known'}"
    return Said("fail", f"{said.rstrip('.')}.", kubectl(facts, f"describe pod {stuck[0].name}", _namespace(facts)))


def pods_answer(facts: Facts) -> Said | None:
    mute = [pod for pod in _others(facts) if pod.running and pod.role == "none"]
    if not mute:
        return None
    said = f"The LiteFS of {names(mute)} does not answer: {mute[0].error}"
    return Said("fail", f"{said.rstrip('.')}.", _anew(facts, mute))


def pods_ready(facts: Facts) -> Said | None:
    lame = [pod for pod in _others(facts) if pod.running and pod.role != "none" and not pod.ready and _well_fed(pod)]
    if not lame:
        return None
    said = f"{names(lame)} {_is(lame)} not ready, though LiteFS answers there: the application's own probe fails."
    return Said("fail", said, kubectl(facts, f"logs {lame[0].name} -c app", _namespace(facts)))


def _well_fed(pod: Pod) -> bool:
    return pod.role == "primary" or (pod.identity == "ok" and pod.sees_primary is not None and not pod.never_synced)


def restarts(facts: Facts) -> Said | None:
    found = [pod for pod in _others(facts) if pod.running and pod.restarts >= RESTARTS]
    found = [pod for pod in found if _young(facts, pod, RESTARTED_HOURS * 3600)]
    if not found:
        return None
    said = f"{found[0].name} was restarted {found[0].restarts} times, the last time at {found[0].started_at}."
    return Said("warn", said, kubectl(facts, f"logs {found[0].name} -c app --previous", _namespace(facts)))


def _young(facts: Facts, pod: Pod, seconds: float) -> bool:
    from ..clock import between

    return 0 <= between(pod.started_at, facts.gathered_at) < seconds


def _under_way(facts: Facts, operation: str) -> bool:
    return any(one.operation == operation for one in facts.unfinished)


def same_cluster(facts: Facts) -> Said | None:
    foreign = [pod for pod in _others(facts) if pod.role == "replica" and pod.identity == "other"]
    # A reset that is not finished is told as such, and ends with them.
    if not foreign or facts.identity.primary is None or _under_way(facts, "replica_reset"):
        return None
    verb = "hold" if len(foreign) > 1 else "holds"
    said = f"{names(foreign)} {verb} another LiteFS cluster than the recorded one, so they never follow the primary."
    return Said("fail", said, play(facts, "playbooks/replica_reset.yml", replica_reset_targets="mismatched"))


def replicas_see_primary(facts: Facts) -> Said | None:
    blind = [pod for pod in _followers(facts) if pod.sees_primary is None and pod.cannot_take is None]
    if not blind:
        return None
    nodes = listed(sorted({pod.node for pod in blind if pod.node}))
    said = f"{names(blind)} on {nodes} {'do' if len(blind) > 1 else 'does'} not reach the primary"
    return Said(
        "fail", f"{said} {facts.identity.primary}: the network between their nodes is cut.", site(facts, "host")
    )


def replicas_synced(facts: Facts) -> Said | None:
    ended = [pod for pod in _followers(facts) if pod.sees_primary is None and pod.cannot_take is not None]
    if ended:
        said = f"{ended[0].name} cannot take what the primary sends: {(ended[0].cannot_take or '').rstrip('.')}."
        return Said("fail", said, _anew(facts, ended))
    found = [pod for pod in _followers(facts) if pod.sees_primary is not None and pod.never_synced]
    if not found:
        return None
    stuck = [pod for pod in found if not _young(facts, pod, COPIED_SECONDS)]
    if not stuck:
        # Whoever is begun anew meanwhile gets the whole once more.
        verb = "have" if len(found) > 1 else "has"
        said = f"{names(found)} {verb} not been in sync since the start, and may still get the whole database."
        return Said("warn", said, kubectl(facts, f"logs {found[0].name} -c app", _namespace(facts)))
    verb = "have" if len(stuck) > 1 else "has"
    said = f"{names(stuck)} {verb} not been in sync since the start."
    return Said("fail", said, _anew(facts, stuck))


def replicas_follow(facts: Facts) -> Said | None:
    late = [pod for pod in _followers(facts) if pod.sees_primary and (pod.lag_ms or 0) > IN_SYNC_LAG_MS]
    if not late:
        return None
    worst = max(late, key=lambda pod: pod.lag_ms or 0)
    lacks = f" and lacks {worst.behind} transactions" if worst.behind else ""
    said = f"{worst.name} is {(worst.lag_ms or 0) / 1000:.0f} s behind the primary{lacks}."
    return Said("warn", said, _anew(facts, late))


def replicas_ahead(facts: Facts) -> Said | None:
    found = [pod for pod in _followers(facts) if pod.order == "ahead"]
    if not found:
        return None
    said = f"{names(found)} has transactions that the primary {facts.identity.primary} lacks: export it first."
    return Said("fail", said, play(facts, "playbooks/backup.yml", backup_pod=found[0].name))


def checksums_agree(facts: Facts) -> Said | None:
    found = [pod for pod in _followers(facts) if pod.order == "diverged"]
    if not found:
        return None
    said = f"{names(found)} has another checksum than the primary at the same TXID {found[0].txid}: export both."
    return Said("fail", said, play(facts, "playbooks/backup.yml", backup_pod=found[0].name))


# --- storage ---------------------------------------------------------------------------------------------------------


def claims_bound(facts: Facts) -> Said | None:
    loose = [claim.name for claim in facts.claims if not claim.bound]
    if not loose:
        return None
    said = f"{listed(loose)} {_is(loose)} not bound to a volume."
    return Said("fail", said, kubectl(facts, f"describe pvc {loose[0]}", _namespace(facts)))


def volumes_retain(facts: Facts) -> Said | None:
    found = [pod for pod in facts.pods if pod.volume_policy not in (None, "Retain")]
    if not found:
        return None
    said = f"The volume of {names(found)} goes with its claim ({found[0].volume_policy}, not Retain)."
    return Said("warn", said, site(facts, "app"))


def _full(percent: int | None) -> bool:
    return percent is not None and percent >= DISK_WARN


def nodes_room(facts: Facts) -> Said | None:
    full = [node for node in facts.nodes if _full(node.disk_percent)]
    if not full:
        return None
    worst = max(full, key=lambda node: node.disk_percent or 0)
    mark: Mark = "fail" if (worst.disk_percent or 0) >= DISK_FAIL else "warn"
    said = f"The disk of {worst.name} is {worst.disk_percent} % full ({worst.disk_free_mb} MB free)."
    return Said(mark, said, on(facts, worst.name, "k3s crictl rmi --prune"), f"{CAUSES}#disk-full")


def volumes_room(facts: Facts) -> Said | None:
    nodes_full = {node.name for node in facts.nodes if _full(node.disk_percent)}
    full = [pod for pod in facts.pods if _full(pod.volume_percent) and pod.node not in nodes_full]
    if not full:
        return None
    worst = max(full, key=lambda pod: pod.volume_percent or 0)
    mark: Mark = "fail" if (worst.volume_percent or 0) >= DISK_FAIL else "warn"
    said = f"The volume of {worst.name} is {worst.volume_percent} % full."
    return Said(mark, said, kubectl(facts, "get pvc", _namespace(facts)), f"{CAUSES}#disk-full")


def other_databases(facts: Facts) -> Said | None:
    found, archive = facts.other_databases, f"{facts.application.name}-archive"
    wanted = any(part.name == archive and part.wanted for part in facts.parts)
    # An archive that does not run or follow is told as such, and nobody knows meanwhile what it has.
    if not found or (wanted and not (facts.archive and facts.archive.connected)):
        return None
    said = f"{listed(found)} {_is(found)} in /litefs beside {facts.application.database}, and in no backup"
    if wanted:
        logs = kubectl(facts, f"logs deployment/{archive}", _namespace(facts))
        return Said("warn", f"{said}: the archive has proven nothing of it.", logs, "docs/archive.md")
    said += f": what is to be kept belongs in {facts.application.database}, or an archive keeps all databases."
    return Said("warn", said, play(facts, "site.yml", archive_image=PYTHON), "docs/archive.md")


# --- delivery --------------------------------------------------------------------------------------------------------


def _keel(facts: Facts) -> bool:
    return any(part.name == "keel" and part.wanted for part in facts.parts)


def keel_frozen(facts: Facts) -> Said | None:
    if not _keel(facts) or facts.delivery.policy != "never":
        return None
    said = "Keel is frozen (keel.sh/policy: never), so no new image is rolled out."
    set_ = f"annotate statefulset {facts.application.name} keel.sh/policy=force --overwrite"
    return Said("warn", said, kubectl(facts, set_, _namespace(facts)), "roles/keel/README.md")


def keel_annotations(facts: Facts) -> Said | None:
    if not _keel(facts) or not facts.delivery.missing:
        return None
    said = f"The StatefulSet lacks {listed(facts.delivery.missing)}, without which Keel misses a new image."
    return Said("fail", said, site(facts, "app"), "roles/keel/README.md")


def one_image(facts: Facts) -> Said | None:
    digests = sorted({pod.digest for pod in facts.pods if pod.digest and pod.running})
    if len(digests) < 2 or facts.application.rolling:
        return None
    said = f"The pods run {len(digests)} builds of {facts.application.image}: {listed(one[:19] for one in digests)}."
    return Said(
        "warn", said, kubectl(facts, f"rollout restart statefulset {facts.application.name}", _namespace(facts))
    )


def rollout_done(facts: Facts) -> Said | None:
    if not facts.application.rolling:
        return None
    said = f"A rollout to revision {facts.application.revision} is under way, or stuck."
    return Said("warn", said, site(facts, "app"))


# --- operations and backups ------------------------------------------------------------------------------------------


def unfinished(facts: Facts) -> Said | None:
    if not facts.unfinished:
        return None
    one = facts.unfinished[0]
    said = f"{one.operation} is not finished (begun {one.begun} by {one.holder})."
    return Said(
        "warn",
        f"{said} Run it again as it was run, or call it off with -e {progress.call_off(one.operation)}.",
        play(facts, one.again),
        f"{OPERATIONS}#progress-of-a-run-that-died",
    )


def progress_readable(facts: Facts) -> Said | None:
    if not facts.progress_error:
        return None
    record = f"edit configmap {facts.application.name}-litefs-identity"
    return Said("fail", facts.progress_error, kubectl(facts, record, _namespace(facts)))


def lock_returned(facts: Facts) -> Said | None:
    held = facts.lock
    if held is None or held.seconds_left or facts.unfinished:
        return None
    said = f"{held.holder} did not give the lock back ({held.operation} since {held.since}): that run died."
    # Whoever comes next takes it over, but a run that has nothing to do takes none. From that holder only: somebody
    # else may be at work when this is typed.
    holder = "/spec/holderIdentity"
    given_back = [{"op": "test", "path": holder, "value": held.holder}, {"op": "remove", "path": holder}]
    patch = f"patch lease {lock.name_of(facts.application.name)} --type=json -p {shlex.quote(json.dumps(given_back))}"
    command = kubectl(facts, patch, _namespace(facts))
    return Said("warn", said, f"{command}; {site(facts)}" if held.operation == "site" else command)


def backup_scheduled(facts: Facts) -> Said | None:
    if not facts.backup.scheduled:
        if facts.backup.kept_hours is not None and facts.backup.kept_hours <= facts.backup_hours:
            return None  # somebody takes them from here
        newest = (
            f"the newest on this machine is of {facts.backup.kept_at}" if facts.backup.kept else "none is kept here"
        )
        said = f"No backup of the database is scheduled (backup_schedule is empty), and {newest}."
        return Said("warn", said, play(facts, "playbooks/backup.yml"))
    if facts.backup.suspended:
        said = f"The scheduled backup {facts.application.name}-backup is suspended."
        patch = f"patch cronjob {facts.application.name}-backup -p '{json.dumps({'spec': {'suspend': False}})}'"
        return Said("warn", said, kubectl(facts, patch, _namespace(facts)))
    return None


def backup_runs(facts: Facts) -> Said | None:
    if facts.backup.last_result != "failed":
        return None
    why = f": {facts.backup.last_message.rstrip('.')}" if facts.backup.last_message else ""
    said = f"The last scheduled backup ({facts.backup.last_job}) failed{why}."
    look = kubectl(facts, f"logs job/{facts.backup.last_job}", _namespace(facts))
    # Another name each time, since the Job of an earlier try is still there.
    name = f"{facts.application.name}-backup-{re.sub('[^0-9]', '', facts.gathered_at)[4:14]}"
    again = f"create job --from=cronjob/{facts.application.name}-backup {name}"
    return Said("fail", said, f"{look}; {kubectl(facts, again, _namespace(facts))}")


def backup_fresh(facts: Facts) -> Said | None:
    backup = facts.backup
    if not backup.scheduled or backup.suspended or backup.last_result == "failed":
        return None
    ages = [hours for hours in (backup.age_hours, backup.kept_hours) if hours is not None]
    if not ages:
        return Said("unknown", "the scheduled backup has not run yet")
    if min(ages) <= facts.backup_hours:
        return None
    said = f"The last backup that succeeded is {min(ages):.0f} hours old, more than {facts.backup_hours}."
    return Said("warn", said, play(facts, "playbooks/backup.yml"))


def _archive_runs(facts: Facts) -> Said | None:
    return _part(f"{facts.application.name}-archive", tags="archive")(facts)


def archive_follows(facts: Facts) -> Said | None:
    found = facts.archive
    if found is None or facts.identity.problem or found.alarms:
        return None
    again = kubectl(facts, f"rollout restart deployment {facts.application.name}-archive", _namespace(facts))
    if not found.connected:
        why = (found.error or "it does not say why").rstrip(".")
        return Said("fail", f"The archive does not follow the primary: {why}.", again)
    if (found.behind_seconds or 0) > ARCHIVE_SECONDS:
        return Said("warn", f"The archive is {found.behind_seconds:.0f} s behind the primary.", again)
    return None


def archive_whole(facts: Facts) -> Said | None:
    found = facts.archive
    if found is None or not (found.gaps or found.alarms):
        return None
    said = " ".join(found.alarms) or f"The archive has {found.gaps} gaps, in which no moment can be rebuilt."
    return Said("fail", said, kubectl(facts, f"logs deployment/{facts.application.name}-archive", _namespace(facts)))


def restore_drill(facts: Facts) -> Said | None:
    if facts.drill is None or facts.drill.ok:
        return None
    said = f"The last restore drill, of {facts.drill.time}, failed. {' '.join(facts.drill.problems)}"
    return Said("fail", said.rstrip(), play(facts, "playbooks/restore_drill.yml"))


def cluster_backup(facts: Facts) -> Said | None:
    found = facts.cluster_backup
    command = play(facts, "playbooks/cluster_backup.yml")
    if found.error:
        return Said("unknown", found.error)
    if found.age_hours is None:
        said = "No copy of the cluster's datastore is known, so its record and generated Secrets exist once."
        return Said("warn", said, command)
    if found.age_hours <= CLUSTER_BACKUP_DAYS * 24:
        return None
    said = f"The last copy of the cluster's datastore is {found.age_hours / 24:.0f} days old."
    return Said("warn", said, command)


# --- security --------------------------------------------------------------------------------------------------------


def not_privileged(facts: Facts) -> Said | None:
    if not facts.application.privileged:
        return None
    said = "The application's container is privileged (app_privileged), so whoever breaks in is root on the node."
    return Said("warn", said, site(facts, "fuse,device_plugin,app"))


def kubeconfig_private(facts: Facts) -> Said | None:
    mode = facts.api.kubeconfig_mode
    if mode is None or not int(mode, 8) & 0o077:
        return None
    said = f"{facts.api.kubeconfig} has mode {mode}: others on this machine can be administrators of the cluster."
    return Said("warn", said, f"chmod 600 {shlex.quote(facts.api.kubeconfig or '')}")


DRILL = f"{OPERATIONS}#restore_drillyml"
BACKUP, CLUSTER_BACKUP = f"{OPERATIONS}#backupyml", f"{OPERATIONS}#cluster_backupyml-and-cluster_restoreyml"
RESET, K3S_CERTIFICATES = f"{OPERATIONS}#replica_resetyml", f"{OPERATIONS}#the-certificates-of-k3s-itself"
DOWN, AWAY = f"{OPERATIONS}#what-goes-down-when", f"{OPERATIONS}#a-node-that-is-away"

TABLE: tuple[Check, ...] = (
    Check("api-answers", "k3s", "the Kubernetes API answers", api_answers, DOWN, grave=True, needs="api"),
    Check("its-cluster", "inventory", "it is the inventory's cluster", its_cluster, grave=True, needs="api"),
    Check("inventory-nodes", "inventory", "each host is a node", inventory_nodes, "README.md", needs="cluster"),
    Check("inventory-addresses", "inventory", "each host has its own address", _hosts("address"), needs="hosts"),
    Check("inventory-names", "inventory", "host names are good and unlike", _hosts("name"), needs="hosts"),
    Check("hosts-reached", "hosts", "Ansible reaches each host", _hosts("reached"), needs="hosts"),
    Check("hosts-system", "hosts", "the operating system is supported", _hosts("system"), needs="hosts"),
    Check("hosts-cgroup", "hosts", "the hosts use cgroup v2", _hosts("cgroup"), needs="hosts"),
    Check("hosts-ports-free", "hosts", "no other service has the cluster's ports", _hosts("ports"), needs="hosts"),
    Check("hosts-size", "hosts", "memory and disk suffice", _hosts("size"), needs="hosts"),
    Check("hosts-route", "hosts", "there is a default route", _hosts("route"), needs="hosts"),
    Check("hosts-time", "hosts", "something keeps the clock right", _hosts("time"), needs="hosts"),
    Check("hosts-clocks-agree", "hosts", "the clocks of the hosts agree", _hosts("clock"), needs="hosts"),
    Check("hosts-fuse", "fuse", "the kernel has FUSE", _hosts("fuse"), "roles/fuse/README.md", needs="hosts"),
    Check("fuse-devices", "fuse", "each node offers FUSE devices", fuse_devices, "roles/fuse/README.md"),
    Check("nodes-ready", "k3s", "all nodes are ready", nodes_ready, DOWN, needs="cluster"),
    Check("nodes-heard", "k3s", "all kubelets were heard just now", nodes_heard, AWAY, needs="cluster"),
    Check("nodes-schedulable", "k3s", "no node is cordoned", nodes_schedulable, DOWN, needs="cluster"),
    Check("nodes-pressure", "k3s", "no node lacks memory, disk or PIDs", nodes_pressure, DOWN, needs="cluster"),
    Check("kubelets-answer", "k3s", "all kubelets answer the API", kubelets_answer, PORTS, needs="cluster"),
    Check("versions-agree", "k3s", "all nodes run one version", versions_agree, "README.md", needs="cluster"),
    Check("api-certificate", "k3s", "the API's certificate lasts", api_certificate, K3S_CERTIFICATES, needs="cluster"),
    Check(
        "kubeconfig-certificate",
        "k3s",
        "the kubeconfig's certificate lasts",
        kubeconfig_certificate,
        K3S_CERTIFICATES,
        needs="cluster",
    ),
    Check("dns", "k3s", "CoreDNS runs", _part("coredns"), DOWN, needs="cluster"),
    Check("hosts-firewall", "network", "no firewall that nobody looked behind", firewalls, PORTS, needs="hosts"),
    Check("ports-between-hosts", "network", "hosts reach each other's ports", ports, PORTS, needs="hosts"),
    Check("replicas-see-primary", "network", "replicas reach the primary", replicas_see_primary, PORTS),
    Check("traefik", "edge", "Traefik runs", _part("traefik", tags="traefik"), DOWN, needs="cluster"),
    Check(
        "cert-manager",
        "edge",
        "cert-manager runs",
        _part("cert-manager", "cert-manager-webhook", "cert-manager-cainjector", tags="cert_manager"),
        "roles/cert_manager/README.md",
        needs="cluster",
    ),
    Check("edge-answers", "edge", "the edge answers a visitor", edge_answers, DOWN, grave=True),
    Check("write-path", "edge", "writes reach the primary", write_path, "README.md#how-writes-find-the-primary", True),
    Check(
        "certificate-lasts", "edge", "the site's certificate lasts", certificate_lasts, "README.md#certificates", True
    ),
    Check("certificate-names", "edge", "it is for the site's names", certificate_names, "README.md#certificates"),
    Check("certificate-served", "edge", "visitors are shown it", certificate_served, "README.md#certificates"),
    Check("statefulset", "litefs", "the application is there", statefulset, "README.md", grave=True, needs="cluster"),
    Check("one-primary", "litefs", "one primary holds the recorded data", one_primary, REFUSED, grave=True),
    Check("pods-exist", "litefs", "each ordinal has its pod", pods_exist, AWAY),
    Check("guard", "litefs", "the guard stops no replica", guard, f"{CAUSES}#how-the-guard-ends"),
    Check("fenced", "litefs", "no ordinal is fenced", fenced, f"{REFUSED}#a-replica-is-fenced"),
    Check("pods-run", "litefs", "all pods run", pods_run, AWAY),
    Check("pods-answer", "litefs", "all LiteFS answer", pods_answer, f"{CAUSES}#replica-away"),
    Check("same-cluster", "litefs", "replicas hold the primary's cluster", same_cluster, RESET),
    Check("replicas-synced", "litefs", "replicas came into sync", replicas_synced, f"{CAUSES}#replica-cannot-apply"),
    Check("replicas-follow", "litefs", "replicas follow without lag", replicas_follow, f"{CAUSES}#replica-away"),
    Check("replicas-ahead", "litefs", "no replica is ahead", replicas_ahead, f"{CAUSES}#older-volume", grave=True),
    Check("checksums-agree", "litefs", "checksums agree", checksums_agree, f"{CAUSES}#two-primaries", grave=True),
    Check("pods-ready", "litefs", "all pods that run are ready", pods_ready, "roles/app/README.md"),
    Check("restarts", "litefs", "no pod is restarted again and again", restarts, "roles/app/README.md"),
    Check("claims-bound", "storage", "all claims are bound", claims_bound, "roles/app/README.md"),
    Check(
        "volumes-retain", "storage", "volumes outlive their claims", volumes_retain, "README.md#what-protects-the-data"
    ),
    Check("nodes-room", "storage", "the nodes' disks have room", nodes_room, needs="cluster"),
    Check("volumes-room", "storage", "the volumes have room", volumes_room),
    Check("other-databases", "storage", "no database is in no backup", other_databases, BACKUP),
    Check("redis", "redis", "Redis runs", _part("redis", tags="redis"), DOWN, needs="cluster"),
    Check("keel", "delivery", "Keel runs", _part("keel", tags="keel"), "roles/keel/README.md", needs="cluster"),
    Check("keel-frozen", "delivery", "Keel is not frozen", keel_frozen),
    Check("keel-annotations", "delivery", "Keel's annotations are there", keel_annotations),
    Check("images-pulled", "delivery", "images can be pulled", images_pulled, "roles/app/README.md"),
    Check("one-image", "delivery", "all pods run one build", one_image, "roles/app/README.md"),
    Check("rollout-done", "delivery", "no rollout is under way", rollout_done, AWAY),
    Check("unfinished", "operations", "no operation is unfinished", unfinished),
    Check("progress-readable", "operations", "the record's progress can be read", progress_readable, REFUSED),
    Check("lock-returned", "operations", "every run gave the lock back", lock_returned, OPERATIONS),
    Check("backup-scheduled", "backups", "a backup is scheduled", backup_scheduled, BACKUP),
    Check("backup-runs", "backups", "the last scheduled backup succeeded", backup_runs, BACKUP),
    Check("backup-fresh", "backups", "the last backup is fresh", backup_fresh, BACKUP),
    Check("archive-runs", "backups", "the archive runs", _archive_runs, "docs/archive.md"),
    Check("archive-follows", "backups", "the archive follows the primary", archive_follows, "docs/archive.md"),
    Check("archive-whole", "backups", "the archive is whole", archive_whole, "docs/archive.md"),
    Check("restore-drill", "backups", "the last restore drill succeeded", restore_drill, DRILL),
    Check(
        "cluster-backup",
        "backups",
        "the cluster's datastore is copied",
        cluster_backup,
        CLUSTER_BACKUP,
        needs="cluster",
    ),
    Check("not-privileged", "security", "the application is not privileged", not_privileged, "roles/fuse/README.md"),
    Check("kubeconfig-private", "security", "only you may read the kubeconfig", kubeconfig_private, needs="cluster"),
    Check("rights", "security", "everything could be read", rights, needs="cluster"),
)

"""Each check by a planted fault: that one complains, and only it. Faults of the cluster are planted on the fake API."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
import well
from ansible_collections.abaci.infra.plugins.module_utils import guard
from ansible_collections.abaci.infra.plugins.module_utils.operations import lock
from ansible_collections.abaci.infra.plugins.module_utils.status import checks, facts, reading
from well import Site

ROOT = Path(__file__).parents[3]
Plant = Callable[[Site], None]
LOG = 'level=INFO msg="4F: disconnected from primary with error, retrying: %s"\n'


def patched(kind: str, name: str, namespace: str = make.NAMESPACE) -> Callable[[Site], dict[str, Any]]:
    def find(api: Site) -> dict[str, Any]:
        found = api.have(kind, name, namespace)
        assert found is not None, name
        return found

    return find


statefulset = patched("StatefulSet", make.NAME)
record = patched("ConfigMap", f"{make.NAME}-litefs-identity")


def pod(ordinal: int) -> Callable[[Site], dict[str, Any]]:
    return patched("Pod", f"{make.NAME}-{ordinal}")


def node(ordinal: int) -> Callable[[Site], dict[str, Any]]:
    return patched("Node", f"node-{ordinal}")


def replaced(api: Site, ordinal: int, made: dict[str, Any]) -> None:
    """The pod as it is while its LiteFS does not run."""
    api.put(made | {"kind": "Pod"})
    api.node(ordinal).running = False


def waiting(ordinal: int, reason: str) -> dict[str, Any]:
    container = {"name": "app", "restartCount": 0, "state": {"waiting": {"reason": reason, "message": f"{reason}: no"}}}
    unready = [{"type": "Ready", "status": "False"}]
    return make.pod(ordinal, phase="Pending", conditions=unready, containerStatuses=[container])


def unready(api: Site) -> None:
    pod(1)(api)["status"]["conditions"] = [{"type": "Ready", "status": "False"}]


def lags(api: Site) -> None:
    follower, primary = api.node(2), api.node(0)
    primary.txid, primary.checksum = 25, "c0ffee0000000019"
    follower.follows, follower.lag = None, 42.0


def blind(api: Site) -> None:
    api.node(2).host = ""


def read_only(api: Site) -> None:
    api.node(2).host = ""
    api.node(2).log = LOG % "process ltx stream frame: cannot create temp ltx file: read-only file system"


def cut(api: Site) -> None:
    api.node(2).host = ""
    api.node(2).log = LOG % 'connect to primary: Post "http://x:20202/stream": dial tcp: i/o timeout'


def never_synced(api: Site) -> None:
    api.node(1).follows, api.node(1).lag = None, 0


def stranger(api: Site) -> None:
    api.node(2).follows, api.node(2).cluster = None, make.B


def ahead(api: Site) -> None:
    api.node(1).follows, api.node(1).txid = None, 9


def diverged(api: Site) -> None:
    api.node(1).follows, api.node(1).checksum = None, "bad0000000000000"


def fence(api: Site) -> None:
    record(api)["data"]["fencedOrdinals"] = "2"
    replaced(api, 2, make.stopped(2, make.Said("abaci-app-2 is fenced.", guard.Exit.FENCED)))


def held(api: Site) -> None:
    said = make.Said("The volume is unreadable.", guard.Exit.UNREADABLE)
    replaced(api, 1, make.stopped(1, said))


def without_dns(api: Site) -> None:
    said = make.Said("abaci-app-1 refuses to start as replica: DNS gave no answer; it tries again.", guard.Exit.NOT_NOW)
    replaced(api, 1, make.stopped(1, said))


def refused(api: Site) -> None:
    replaced(api, 0, make.stopped(0, make.Said("The volume is empty.", guard.Exit.EMPTY)))
    for ordinal in (1, 2):
        api.node(ordinal).host = ""


def lost(api: Site) -> None:
    """Somebody removed it: that is a transaction without a page, which the replicas followed."""
    for ordinal in range(3):
        api.node(ordinal).checksum = "8000000000000000"


def second_database(api: Site) -> None:
    primary = api.node(0)
    answer = primary.answer

    def more(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        status, content = answer(method, path, body)
        if path == "/debug/vars":
            said = json.loads(content)
            said["store"]["dbs"]["jobs.db"] = {**said["store"]["dbs"][make.DATABASE], "name": "jobs.db"}
            content = json.dumps(said).encode()
        return status, content

    primary.answer = more  # type: ignore[method-assign]


def restarted(api: Site) -> None:
    app = pod(1)(api)["status"]["containerStatuses"][0]
    app |= {"restartCount": 9, "state": {"running": {"startedAt": api.ago(60)}}}


def other_build(api: Site) -> None:
    pod(1)(api)["status"]["containerStatuses"][0]["imageID"] = "app@sha256:" + "1" * 64


def begun(api: Site) -> None:
    unfinished = {"restore": {"begun": "2026-01-01T00:00:00Z", "holder": "ann@ops/1"}}
    record(api)["data"]["progress"] = json.dumps(unfinished)


def resetting(api: Site) -> None:
    stranger(api)
    record(api)["data"]["progress"] = json.dumps({"replica_reset": {"given": {"targets": "mismatched"}}})


def died(api: Site) -> None:
    taken = {"holderIdentity": "ann@ops/1", "leaseDurationSeconds": 900, "renewTime": api.ago(7200)}
    lease = lock.render(make.NAMESPACE, make.NAME)
    lease["metadata"]["annotations"] = {lock.OPERATION: "scale"}
    api.put(lease | {"spec": taken | {"acquireTime": api.ago(7200)}})


def tls(days: float = 365, name: str = well.DOMAIN) -> Plant:
    def plant(api: Site) -> None:
        data = {"tls.crt": base64.b64encode(well.certificate(days, name)).decode()}
        api.put({"kind": "Secret", "metadata": {"name": "abaci-tls"}, "data": data})

    return plant


def policy(volume: str) -> Plant:
    def plant(api: Site) -> None:
        api.all("PersistentVolume")[0]["spec"]["persistentVolumeReclaimPolicy"] = volume

    return plant


def cron(**changed: Any) -> Plant:
    def plant(api: Site) -> None:
        patched("CronJob", f"{make.NAME}-backup")(api)["status"].update(changed)

    return plant


def suspended(api: Site) -> None:
    patched("CronJob", f"{make.NAME}-backup")(api)["spec"]["suspend"] = True


def failed_job(api: Site) -> None:
    api.put(well.backup_job("abaci-app-backup-2", "Failed", api.ago(60), "BackoffLimitExceeded"))


def silent(api: Site) -> None:
    patched("Lease", "node-1", "kube-node-lease")(api)["spec"]["renewTime"] = api.ago(33)


def down(name: str, namespace: str) -> Plant:
    return lambda api: (api.put(well.part(name, namespace, False)), None)[1]


def annotation(name: str, value: str | None) -> Plant:
    def plant(api: Site) -> None:
        notes = statefulset(api)["metadata"]["annotations"]
        notes.pop(name)
        if value is not None:
            notes[name] = value

    return plant


def rolling(api: Site) -> None:
    statefulset(api)["status"]["updateRevision"] = "r2"


def app(api: Site) -> dict[str, Any]:
    found: dict[str, Any] = statefulset(api)["spec"]["template"]["spec"]["containers"][0]
    return found


def no_fuse(api: Site) -> None:
    app(api)["resources"] = {"limits": {"squat.ai/fuse": "1"}}
    node(1)(api)["status"]["allocatable"] = {"cpu": "2"}


def drop(kind: str, name: str, namespace: str = make.NAMESPACE) -> Plant:
    return lambda api: api.drop(kind, name, namespace)


ON_THE_API: dict[str, tuple[str, Plant]] = {
    "wrong identity": ("same-cluster", stranger),
    "fenced ordinal": ("fenced", fence),
    "a guard that holds a replica": ("guard", held),
    "a guard that waits": ("pods-run", without_dns),
    "a guard that holds the primary": ("one-primary", refused),
    "database that was removed": ("one-primary", lost),
    "frozen Keel": ("keel-frozen", annotation("keel.sh/policy", "never")),
    "missing annotation": ("keel-annotations", annotation("keel.sh/match-tag", None)),
    "Keel down": ("keel", down("keel", "keel")),
    "no Keel": ("keel", drop("Pod", "keel-7f9c-x", "keel")),
    "expired certificate": ("certificate-lasts", tls(-1)),
    "certificate that ends soon": ("certificate-lasts", tls(5)),
    "certificate of another name": ("certificate-names", tls(365, "other.example.org")),
    "no certificate": ("certificate-lasts", drop("Secret", "abaci-tls")),
    "full disk": ("nodes-room", lambda api: api.disk_percent.update({"node-1": 95})),
    "lagging replica": ("replicas-follow", lags),
    "never synced replica": ("replicas-synced", never_synced),
    "closed network between nodes": ("replicas-see-primary", blind),
    "network that LiteFS complains of": ("replicas-see-primary", cut),
    "volume that takes no transaction": ("replicas-synced", read_only),
    "replica ahead": ("replicas-ahead", ahead),
    "another checksum": ("checksums-agree", diverged),
    "node away": ("nodes-ready", lambda api: api.stop(2)),
    "silent node": ("nodes-heard", silent),
    "cordoned node": ("nodes-schedulable", lambda api: node(1)(api)["spec"].update(unschedulable=True)),
    "node under pressure": (
        "nodes-pressure",
        lambda api: node(1)(api)["status"]["conditions"].append({"type": "DiskPressure", "status": "True"}),
    ),
    "closed port of a kubelet": ("kubelets-answer", lambda api: api.mute.add("node-1")),
    "node of another version": (
        "versions-agree",
        lambda api: node(1)(api)["status"]["nodeInfo"].update(kubeletVersion="v1.35.1+k3s1"),
    ),
    "node that was removed": (
        "inventory-nodes",
        lambda _api: None,
    ),
    "no FUSE device": ("fuse-devices", no_fuse),
    "CoreDNS down": ("dns", down("coredns", "kube-system")),
    "Traefik down": ("traefik", down("traefik", "kube-system")),
    "Redis down": ("redis", down("redis", make.NAMESPACE)),
    "registry away": ("images-pulled", lambda api: replaced(api, 1, waiting(1, "ImagePullBackOff"))),
    "pod that crashes": ("pods-run", lambda api: replaced(api, 1, waiting(1, "CrashLoopBackOff"))),
    "pod that is gone": ("pods-exist", drop("Pod", f"{make.NAME}-2")),
    "LiteFS that does not answer": ("pods-answer", lambda api: setattr(api.node(1), "running", False)),
    "application that is not ready": ("pods-ready", unready),
    "pod that is restarted all the time": ("restarts", restarted),
    "another build": ("one-image", other_build),
    "rollout under way": ("rollout-done", rolling),
    "unfinished operation": ("unfinished", begun),
    "unfinished reset": ("unfinished", resetting),
    "progress that cannot be read": ("progress-readable", lambda api: record(api)["data"].update(progress="{")),
    "run that died": ("lock-returned", died),
    "second database": ("other-databases", second_database),
    "volume that goes with its claim": ("volumes-retain", policy("Delete")),
    "claim without a volume": (
        "claims-bound",
        lambda api: api.all("PersistentVolumeClaim")[1].update(status={"phase": "Pending"}),
    ),
    "no backup": ("backup-scheduled", drop("CronJob", f"{make.NAME}-backup")),
    "suspended backup": ("backup-scheduled", suspended),
    "failed backup": ("backup-runs", failed_job),
    "stale backup": ("backup-fresh", cron(lastSuccessfulTime="2026-01-01T00:00:00Z")),
    "privileged": ("not-privileged", lambda api: app(api).update(securityContext={"privileged": True})),
    "no StatefulSet": ("statefulset", drop("StatefulSet", make.NAME)),
    "no right to read": ("rights", lambda api: api.fail("GET", "Event", how=403)),
    "API away": ("api-answers", lambda api: api.fail("GET", "Pod")),
}


@pytest.mark.parametrize("fault", ON_THE_API)
def test_a_fault_of_the_cluster_is_told_by_its_check_and_no_other(fault: str) -> None:
    slug, plant = ON_THE_API[fault]
    api = Site()
    asked = well.ASKED
    if fault == "node that was removed":
        asked = dataclasses.replace(asked, hosts={**asked.hosts, "node-3": "192.0.2.13"})
    plant(api)
    found = well.bad(well.look(api, asked))
    assert list(found) == [slug], {key: one.cause for key, one in found.items()}
    assert found[slug].cause.endswith("."), found[slug].cause
    assert found[slug].command
    assert api.changes() == []


def small(facts_: facts.Facts, **changed: Any) -> facts.Facts:
    return dataclasses.replace(facts_, **changed)


def in_pod(ordinal: int, **changed: Any) -> Callable[[facts.Facts], facts.Facts]:
    def plant(found: facts.Facts) -> facts.Facts:
        pods = tuple(dataclasses.replace(one, **changed) if one.ordinal == ordinal else one for one in found.pods)
        return small(found, pods=pods)

    return plant


def in_api(**changed: Any) -> Callable[[facts.Facts], facts.Facts]:
    return lambda found: small(found, api=dataclasses.replace(found.api, **changed))


def of_hosts(topic: str, between: bool = False) -> Callable[[facts.Facts], facts.Facts]:
    def plant(found: facts.Facts) -> facts.Facts:
        errors = {} if between else {topic: ("it is wrong.",)}
        apart = {topic: ("a and b are alike.",)} if between else {}
        hosts = (facts.Host("node-1", "192.0.2.1", True, errors),)
        return small(found, hosts_asked=True, hosts=hosts, between_hosts=apart)

    return plant


def archive(**changed: Any) -> facts.Archive:
    well_ = facts.Archive(True, "05", "05", "2026-01-01T00:00:00Z", 0.4, 0, (), None)
    return dataclasses.replace(well_, **changed)


AB = ("node-0", "node-1")
CLOSED = facts.Connection("node-0", "node-1", 6443, "tcp", "it was not answered")
ON_FACTS: dict[str, tuple[str, Callable[[facts.Facts], facts.Facts]]] = {
    "cluster of another inventory": ("its-cluster", in_api(foreign="It is another cluster.")),
    "kubeconfig for everybody": ("kubeconfig-private", in_api(kubeconfig_mode="0644")),
    "kubeconfig for the group": ("kubeconfig-private", in_api(kubeconfig_mode="0640")),
    "full volume": ("volumes-room", in_pod(1, volume_percent=93)),
    "no copy of the cluster": (
        "cluster-backup",
        lambda found: small(found, cluster_backup=facts.ClusterBackup(None, None, None, None)),
    ),
    "archive that is down": (
        "archive-runs",
        lambda found: small(
            found, parts=(*found.parts, facts.Part(f"{make.NAME}-archive", make.NAMESPACE, True, False, 0, 0, None))
        ),
    ),
    "archive that lags": ("archive-follows", lambda found: small(found, archive=archive(behind_seconds=600.0))),
    "archive that is cut off": (
        "archive-follows",
        lambda found: small(found, archive=archive(connected=False, error="it refuses")),
    ),
    "archive with a gap": ("archive-whole", lambda found: small(found, archive=archive(gaps=1))),
    "archive with an alarm": ("archive-whole", lambda found: small(found, archive=archive(alarms=("It is full.",)))),
    "drill that failed": (
        "restore-drill",
        lambda found: small(found, drill=facts.Drill("2026-01-01T00:00:00Z", False, ("It is altered.",))),
    ),
    "old copy of the cluster": (
        "cluster-backup",
        lambda found: small(found, cluster_backup=facts.ClusterBackup("2026-01-01T00:00:00Z", 999.0, "/mnt", None)),
    ),
    "closed port between hosts": (
        "ports-between-hosts",
        lambda found: small(found, hosts_asked=True, connections=(CLOSED,)),
    ),
    "host that is away": ("hosts-reached", of_hosts("reached")),
    "old system": ("hosts-system", of_hosts("system")),
    "cgroup v1": ("hosts-cgroup", of_hosts("cgroup")),
    "port that is taken": ("hosts-ports-free", of_hosts("ports")),
    "small host": ("hosts-size", of_hosts("size")),
    "wrong route": ("hosts-route", of_hosts("route")),
    "clock that nobody sets": ("hosts-time", of_hosts("time")),
    "kernel without FUSE": ("hosts-fuse", of_hosts("fuse")),
    "firewall": ("hosts-firewall", of_hosts("firewall")),
    "clock off": ("hosts-clocks-agree", of_hosts("clock", between=True)),
    "address twice": ("inventory-addresses", of_hosts("address", between=True)),
    "name twice": ("inventory-names", of_hosts("name", between=True)),
}


@pytest.mark.parametrize("fault", ON_FACTS)
def test_a_fault_in_the_facts_is_told_by_its_check_and_no_other(fault: str) -> None:
    slug, plant = ON_FACTS[fault]
    found = well.bad(plant(well.look()))
    assert list(found) == [slug], {key: one.cause for key, one in found.items()}
    assert found[slug].command


def test_a_node_that_is_away_is_told_once_though_its_host_and_its_ports_are_silent_too() -> None:
    nodes = tuple(dataclasses.replace(one, ready=one.name != "node-1") for one in well.look().nodes)
    host = facts.Host("node-1", "192.0.2.11", False, {"reached": ("it does not answer.",)})
    closed = tuple(facts.Connection(*ends, 10250, "tcp", "it was not answered") for ends in (AB, (AB[1], AB[0])))
    away = small(well.look(), nodes=nodes, hosts_asked=True, hosts=(host,), connections=closed)
    assert list(well.bad(away)) == ["nodes-ready"]


def test_a_lock_that_was_not_given_back_is_given_back_by_the_command_and_a_run_of_site_is_run_again() -> None:
    held = facts.Lock("ann@ops/1", "scale", "2026-01-01T00:00:00Z", 0)
    for operation, rest in (("scale", []), ("site", ["ansible-playbook", "-i", "inventories/mine", "site.yml"])):
        (found,) = well.bad(small(well.look(), lock=dataclasses.replace(held, operation=operation))).values()
        words = shlex.split(found.command.replace(";", " ; "))
        assert words[0] == "kubectl" and words[words.index("patch") :][:3] == ["patch", "lease", "abaci-app-operation"]
        patch, after = words[words.index("-p") + 1], words[words.index("-p") + 2 :]
        assert after == ([";", *rest] if rest else [])
        # Who has the lock by then keeps it: between the page and the command somebody else may have begun.
        assert json.loads(patch) == [
            {"op": "test", "path": "/spec/holderIdentity", "value": "ann@ops/1"},
            {"op": "remove", "path": "/spec/holderIdentity"},
        ]


def test_what_went_down_with_a_node_is_told_with_it_and_what_runs_elsewhere_is_not() -> None:
    api = Site()
    api.put(well.part("redis", make.NAMESPACE) | {"spec": {"nodeName": "node-2"}})
    api.stop(2)
    found = well.bad(well.look(api))
    assert list(found) == ["nodes-ready"]
    assert "and redis went down with it" in found["nodes-ready"].cause


@pytest.mark.parametrize(
    ("name", "word"), [("promote", "promote_call_off=true"), ("scale", "operation_call_off=scale")]
)
def test_an_unfinished_operation_is_named_with_the_word_that_calls_it_off(name: str, word: str) -> None:
    api = Site()
    record(api)["data"]["progress"] = json.dumps({name: {"begun": "2026-01-01T00:00:00Z", "holder": "ann@ops/1"}})
    assert f"-e {word}." in well.bad(well.look(api))["unfinished"].cause


def test_a_database_that_was_removed_is_restored_from_what_there_is() -> None:
    api = Site()
    lost(api)
    found = well.look(api)
    (told,) = well.bad(found).values()
    assert (
        "abaci-app-0 has no database sqlite.db any more: it was removed with transaction 0000000000000005" in told.cause
    )
    assert told.grave and told.mark == "fail" and "playbooks/restore.yml -e restore_from=" in told.command
    # What the application then answers is told with it.
    ill = small(found, write_path=dataclasses.replace(found.write_path, reads=("GET / was answered 503, not 200.",)))
    assert list(well.bad(ill)) == ["one-primary"]
    kept = dataclasses.replace(found.backup, kept="/backups/one.sqlite.json")
    (told,) = well.bad(small(found, backup=kept)).values()
    assert told.command.endswith("playbooks/restore.yml -e restore_from=/backups/one.sqlite.json")
    (told,) = well.bad(small(found, archive=archive())).values()
    assert told.command.endswith("playbooks/restore.yml -e restore_at=0000000000000004")


def test_a_replica_whose_guard_only_waits_gets_no_new_volume() -> None:
    api = Site()
    without_dns(api)
    (told,) = well.bad(well.look(api)).values()
    assert "DNS gave no answer" in told.cause and "describe pod abaci-app-1" in told.command


def test_the_kubeconfig_is_one_word_of_a_command() -> None:
    path = "/home/ann/My sites/k3s-config"
    site = in_api(kubeconfig=path)(well.look())
    (found,) = well.bad(small(site, lock=facts.Lock("ann@ops/1", "scale", None, 0))).values()
    assert f"--kubeconfig={path}" in shlex.split(found.command)
    (found,) = well.bad(in_api(kubeconfig_mode="0644")(site)).values()
    assert shlex.split(found.command) == ["chmod", "600", path]


def test_a_replica_that_may_still_get_the_whole_database_is_not_begun_anew() -> None:
    """Of a new volume LiteFS is in sync only once all has come; who deletes the pod then begins with nothing again."""
    api = Site()
    never_synced(api)
    running = pod(1)(api)["status"]["containerStatuses"][0]["state"]["running"]
    for seconds, mark, verb in ((40, "warn", " logs abaci-app-1 "), (7200, "fail", " delete pod abaci-app-1")):
        running["startedAt"] = api.ago(seconds)
        (found,) = well.bad(well.look(api)).values()
        assert (found.slug, found.mark) == ("replicas-synced", mark) and verb in found.command, found


def test_what_an_archive_that_is_down_or_cut_off_has_is_told_with_the_archive_alone() -> None:
    site = small(well.look(), other_databases=("jobs.db",))
    part = facts.Part(f"{make.NAME}-archive", make.NAMESPACE, True, True, 1, 1, None)
    parts = (*site.parts, part)
    for changed, told in (
        ({"parts": (*site.parts, dataclasses.replace(part, exists=False, replicas=0, ready=0))}, "archive-runs"),
        ({"parts": parts, "archive": archive(connected=False, error="it refuses")}, "archive-follows"),
    ):
        assert list(well.bad(small(site, **changed))) == [told]
    # One that follows and lacks it does not get another image than the inventory's.
    (found,) = well.bad(small(site, parts=parts, archive=archive())).values()
    assert found.slug == "other-databases" and "archive_image" not in found.command
    (found,) = well.bad(site).values()
    assert "archive_image=" in found.command


def test_a_database_that_was_removed_needs_no_backup() -> None:
    api = Site()
    second_database(api)
    assert list(well.bad(well.look(api))) == ["other-databases"]
    answer = api.node(0).answer

    def removed(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        status, content = answer(method, path, body)
        if path == "/debug/vars":
            said = json.loads(content)
            said["store"]["dbs"]["jobs.db"] |= {"checksum": "8000000000000000"}
            content = json.dumps(said).encode()
        return status, content

    api.node(0).answer = removed  # type: ignore[method-assign]
    assert well.bad(well.look(api)) == {}


def test_a_database_that_the_archive_has_is_in_a_backup() -> None:
    said = {
        "databases": [
            {"database": "jobs.db", "cluster": make.A, "verified": {"txid": "05"}},
            {"database": "new.db", "cluster": make.A, "verified": {}},
            # Of before a restore into a new cluster.
            {"database": "old.db", "cluster": make.B, "verified": {"txid": "05"}},
        ]
    }
    document = make.living()
    assert reading._archived(said, document) == {"jobs.db"}
    assert reading._archived(None, document) == reading._archived("it does not answer", document) == set()


STRAY: dict[str, Any] = {"status": 200, "headers": [], "length": 0, "error": ""}
REFUSED: dict[str, Any] = {"status": None, "headers": [], "length": 0, "error": "connection refused"}
AT_THE_EDGE: dict[str, tuple[str, dict[str, Any]]] = {
    "edge away": ("edge-answers", {"answers": [REFUSED] * 5}),
    "writes go astray": ("write-path", {"answers": [well.GOOD_PAGE, *[STRAY] * 4]}),
    "another certificate is shown": ("certificate-served", {"edge": well.certificate(364)}),
    "API's certificate ends": ("api-certificate", {"api": well.certificate(9)}),
    "kubeconfig's certificate ended": ("kubeconfig-certificate", {"kubeconfig": well.certificate(-2)}),
    "cert-manager down": ("cert-manager", {}),
}


def test_what_another_program_wrote_into_a_secret_of_cert_managers_is_issued_anew() -> None:
    api = Site()
    tls(365, "other.example.org")(api)
    assert well.bad(well.look(api))["certificate-names"].command.startswith("ansible-playbook")
    secret = api.have("Secret", "abaci-tls")
    assert secret is not None
    # A name that was added since is site.yml's to ask for: what is served meanwhile stays.
    notes = secret["metadata"]["annotations"] = {reading.ISSUED_AS: "site-tls", reading.ISSUED_FOR: "other.example.org"}
    assert well.bad(well.look(api))["certificate-names"].command.startswith("ansible-playbook")
    notes[reading.ISSUED_FOR] = f"other.example.org,{well.DOMAIN}"
    *_, kind, name, subresource, merge, flag, status = shlex.split(
        well.bad(well.look(api))["certificate-names"].command
    )
    assert (kind, name, subresource, merge, flag) == (
        "certificate",
        "site-tls",
        "--subresource=status",
        "--type=merge",
        "-p",
    )
    (asked,) = json.loads(status)["status"]["conditions"]
    assert (asked["type"], asked["status"]) == ("Issuing", "True"), "what is served stays until the new one is there"


def test_of_a_certificate_for_other_names_it_is_not_told_too_that_another_one_is_shown() -> None:
    api = Site()
    tls(365, "other.example.org")(api)
    assert list(well.bad(well.look(api, edge=well.certificate(364)))) == ["certificate-names"]


@pytest.mark.parametrize("fault", AT_THE_EDGE)
def test_a_fault_of_the_edge_is_told_by_its_check_and_no_other(fault: str) -> None:
    slug, shown = AT_THE_EDGE[fault]
    parts = tuple((name, where, True) for name, where, _wanted in well.ASKED.parts)
    asked = dataclasses.replace(well.ASKED, parts=parts if fault == "cert-manager down" else well.ASKED.parts)
    found = well.bad(well.look(None, asked, **shown))
    assert list(found) == [slug], {key: one.cause for key, one in found.items()}
    assert found[slug].command


def test_every_check_has_a_fault_that_it_tells() -> None:
    told = {slug for faults in (ON_THE_API, ON_FACTS, AT_THE_EDGE) for slug, _plant in faults.values()}
    assert {check.slug for check in checks.TABLE} == told
    assert len(checks.TABLE) >= 40 and len(checks.groups()) >= 8


def test_every_page_is_there() -> None:
    causes = {f"docs/failure-modes.md#{one}" for one in ("primary-node-gone", "disk-full")}
    pages = {check.page for check in checks.TABLE} | causes | {checks.PORTS, checks.BACKUP}
    for page in sorted(pages):
        path, _, anchor = page.partition("#")
        text = (ROOT / path).read_text()
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        there = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
        assert not anchor or anchor in there, page

"""The acts behind the steps of a plan: one call each, bound to the very object that the decision saw. I/O only.

Every act is safe to repeat, and every change carries a precondition (uid or resourceVersion), so that what somebody
else changed meanwhile is not changed again blindly: then the call fails and the next run decides anew.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import applying, conditions, edge, edge_status, gather, identity, kube, litefs, rollout, waiting
from ..objects import Object, Part
from ..state_types import Looked, Pod, State
from ..telling import tell
from . import planning, retarget, retemplate
from . import situation as sit

FENCED_KEY = "fencedOrdinals"


class NotDone(Exception):
    """A step did not come to its end within its time; the message says what was seen last."""


class Site:
    """One application in one cluster, looked at and acted on."""

    def __init__(
        self,
        api: kube.Client,
        namespace: str,
        name: str,
        database: str,
        claim_template: str,
        port: int,
        timeout: float = 10.0,
    ) -> None:
        self.api = api
        self.namespace = namespace
        self.name = name
        self.database = database
        self.claim_template = claim_template
        self.port = port
        self.timeout = timeout
        self.left: list[str] = []  # whom the last wait left out, in sentences

    # Looking

    def look(self) -> Looked:
        """The state document, with what only operations ask."""
        state = gather.gather(
            self.api, self.namespace, self.name, self.database, self.claim_template, self.port, self.timeout
        )
        rendered = self.api.get("v1", "ConfigMap", f"{self.name}-litefs", self.namespace)
        text = str(((rendered or {}).get("data") or {}).get("litefs.yml", ""))
        service = self.api.get("v1", "Service", f"{self.name}-primary", self.namespace)
        revisions = self.api.list("apps/v1", "ControllerRevision", self.namespace)
        changes = [entry.get("time") for entry in ((rendered or {}).get("metadata") or {}).get("managedFields") or []]
        return {
            **state,
            "rendered_ordinal": retarget.primary_of(text, self.name),
            "fed_ordinal": retarget.feeds(text, self.name),
            "routed_ordinal": retarget.routed_to(service, self.name),
            "rendered_quiet": retarget.is_quiet(text),
            "revisions": retemplate.revisions(revisions, state["statefulset"]["uid"]),
            "rendered_at": max((str(time) for time in changes if time), default=None),
        }

    # Changing

    def scale(self, replicas: int, was: int) -> None:
        """Set the replica count, and nothing else, if it is still ``was``."""
        scale = self.api.get("apps/v1", "StatefulSet", self.name, self.namespace, "scale")
        if scale is None:
            raise NotDone(f"StatefulSet {self.namespace}/{self.name} is not there any more: run again.")
        if scale["spec"].get("replicas", 0) != was:
            raise NotDone(
                f"StatefulSet {self.namespace}/{self.name} has {scale['spec'].get('replicas', 0)} replicas by now, not "
                f"{was}: somebody else scaled it; run again."
            )
        scale["spec"]["replicas"] = replicas
        self.api.replace("apps/v1", "StatefulSet", scale, applying.FIELD_MANAGER, "scale")

    def reclaim(self, volume: str, policy: str, claim_uid: str | None = None) -> None:
        """Set a volume's reclaim policy; with ``claim_uid`` only while it is still that claim's."""
        found = self.api.get("v1", "PersistentVolume", volume)
        if found is None:
            return
        if claim_uid is not None and (found["spec"].get("claimRef") or {}).get("uid") != claim_uid:
            raise NotDone(f"Volume {volume} is another claim's by now: it stays.")
        if found["spec"].get("persistentVolumeReclaimPolicy") != policy:
            found["spec"]["persistentVolumeReclaimPolicy"] = policy
            self.api.replace("v1", "PersistentVolume", found, applying.FIELD_MANAGER)

    def delete_claim(self, name: str, uid: str) -> None:
        self.api.delete("v1", "PersistentVolumeClaim", name, self.namespace, uid=uid)

    def delete_pod(self, name: str, uid: str | None, grace: int | None = None) -> None:
        """Delete the pod with this uid; one that is gone, or was replaced, is left as it is."""
        if uid is None:
            return
        try:
            self.api.delete("v1", "Pod", name, self.namespace, uid=uid, grace_period_seconds=grace)
        except kube.KubeError as exc:
            if exc.status != 409:  # the precondition: it is another pod by now
                raise

    def write_record(self, changes: Mapping[str, str | None]) -> None:
        """Change keys of the identity record (null removes one) if nobody else changed it meanwhile."""
        record = self._record()
        data = dict(record.get("data") or {})
        for key, value in changes.items():
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value
        if data != record.get("data"):
            record["data"] = data
            self.api.replace("v1", "ConfigMap", record, applying.FIELD_MANAGER)

    def raise_low_water(self, seen: State | None = None) -> bool:
        """Raise the low-water mark of the record to what is seen now (see identity.raised); whether it rose.

        An observation, no change of the site: who loses the race for the record leaves it to the next. ``seen``: the
        state document, where one was just gathered. The mark's time is that of the document.
        """
        document = seen or self.look()
        now = document["gathered_at"]
        if not identity.raised(identity.raw(document), document, now):
            return False
        record = self._record()
        changes = identity.raised(record.get("data") or {}, document, now)
        if not changes:
            return False
        record["data"] = {**record["data"], **changes}
        try:
            self.api.replace("v1", "ConfigMap", record, applying.FIELD_MANAGER)
        except kube.KubeError as exc:
            if exc.status != 409:
                raise
            return False
        return True

    def render(self, ordinal: int, quiet: bool) -> None:
        """Make the living configuration name this ordinal as primary; with ``quiet`` LiteFS runs no command.

        litefs.yml comes last: look() reads whom it names.
        """
        self._change("v1", "Service", f"{self.name}-primary", lambda found: retarget.service(found, self.name, ordinal))
        self._change(
            "v1",
            "ConfigMap",
            f"{self.name}-litefs",
            lambda found: retarget.config_map(found, self.name, ordinal, quiet),
        )

    def feed(self, ordinal: int) -> None:
        """Make whoever starts follow the archive, as the last before this ordinal is primary; nobody is meanwhile."""
        self._change(
            "v1",
            "ConfigMap",
            f"{self.name}-litefs",
            lambda found: retarget.config_map(found, self.name, ordinal, quiet=False, archive=True),
        )

    def divert(self, ordinal: int, seconds: float) -> None:
        """Route writes to this pod, which answers 503 until it is primary, and wait until none arrive any more.

        They have stopped when the primary's TXID stood still for 3 s, which Traefik takes to hear of it; a program in
        the pod that goes on writing is waited for ``seconds``.
        """
        self._change("v1", "Service", f"{self.name}-primary", lambda found: retarget.service(found, self.name, ordinal))
        deadline, still, last = time.monotonic() + seconds, 0, None
        while still < 3 and time.monotonic() < deadline:
            time.sleep(1.0)
            position = litefs.primary_position(self.look(), self.database)
            tell(f"{self.name}-{ordinal}: no more writes to the old primary", still, 3, "s without one", deadline)
            still = still + 1 if position == last else 0
            last = position

    def set_template(self, change: retemplate.Change, revision: str = "") -> None:
        """Change the StatefulSet's template, to that of a revision where one is named."""
        template: Object | None = None
        if revision:
            found = self.api.get("apps/v1", "ControllerRevision", revision, self.namespace)
            if found is None:
                raise NotDone(f"Revision {revision} of {self.namespace}/{self.name} is not there any more: run again.")
            template = retemplate.template_of(found)
        self._change("apps/v1", "StatefulSet", self.name, lambda found: retemplate.apply(found, change, template))

    def settle(self) -> None:
        """Give rolling updates back to the StatefulSet's controller."""
        self._change("apps/v1", "StatefulSet", self.name, retemplate.settle)

    def note_revision(self, name: str, key: str, value: str) -> None:
        """Write something down on a ControllerRevision; one that is gone needs none."""
        if name and value and self.api.get("apps/v1", "ControllerRevision", name, self.namespace) is not None:
            self.api.annotate("apps/v1", "ControllerRevision", self.namespace, name, {key: value})

    def put_lease(self, lease: Part) -> None:
        """Write the lock's Lease, if nobody else changed it meanwhile."""
        self.api.replace("coordination.k8s.io/v1", "Lease", dict(lease), applying.FIELD_MANAGER)

    def audit(self, line: Mapping[str, Any]) -> None:
        """Add a line to the application's audit log, ConfigMap <name>-audit (the last 100)."""
        name = f"{self.name}-audit"
        for _attempt in range(5):
            found = self.api.get("v1", "ConfigMap", name, self.namespace)
            try:
                if found is None:
                    metadata = {
                        "name": name,
                        "namespace": self.namespace,
                        "labels": {"app.kubernetes.io/managed-by": applying.FIELD_MANAGER},
                    }
                    data = {"log": ring("", line)}
                    self.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
                else:
                    found["data"] = {"log": ring((found.get("data") or {}).get("log", ""), line)}
                    self.api.replace("v1", "ConfigMap", found, applying.FIELD_MANAGER)
                return
            except kube.KubeError as exc:
                if exc.status != 409:
                    raise

    # Waiting

    def wait(self, seconds: float, missing: Callable[[Looked], list[str]], what: str) -> Looked:
        """Look until nothing is missing any more. NotDone with the first missing thing when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                document = self.look()
                problems, pods = missing(document), document["pods"]
                if not problems:
                    return document
            except kube.KubeError as exc:
                # The API may be away for a moment, above all while the server's node is busy.
                problems, pods = [str(exc)], []
            tell(f"To {what}: {problems[0]}", deadline=deadline)
            if time.monotonic() >= deadline:
                seen = next((seen for pod in pods if (seen := sit.sign(pod))), None)
                hint = f" What was seen: {planning.GUIDE}#{seen}." if seen else ""
                raise NotDone(f"Did not {what} within {seconds:g} s: {problems[0]}{hint}")
            time.sleep(1.0)

    def wait_pod(self, ordinal: int, seconds: float) -> Looked:
        """Wait until this replica has what the primary had when first asked."""
        return self._replicated([ordinal], seconds, f"bring {self.name}-{ordinal} to the primary's position")

    def wait_replicated(self, seconds: float, without: list[int] | None = None) -> Looked:
        """Wait until every replica but ``without`` has what the primary had when first asked."""
        return self._replicated(None, seconds, "bring every replica to the primary's position", without or [])

    def wait_primary(self, ordinal: int, cluster_id: str | None, seconds: float, uid: str | None = None) -> Looked:
        """Wait until this pod, and no other, is primary (of this cluster); ``uid``: of the one that it replaces.

        One that stops answers as primary until its process ends.
        """

        def missing(document: Looked) -> list[str]:
            leaders = litefs.primaries(document)
            going = [pod for pod in leaders if pod["deleting"] or pod["uid"] == uid]
            if going:
                return [f"{litefs.names(going)} is still stopping."]
            if [pod["ordinal"] for pod in leaders] == [ordinal]:
                held = leaders[0]["litefs"]["cluster_id"]
                if cluster_id is None or held == cluster_id:
                    return []
                return [f"{leaders[0]['name']} is primary of the cluster {held}, not of {cluster_id}."]
            pod = sit.pod_of(document, ordinal)
            return [self._why(pod, ordinal)]

        return self.wait(seconds, missing, f"make {self.name}-{ordinal} primary")

    def wait_fed(
        self,
        ordinal: int,
        follows: str,
        lacking: Callable[[str, str], planning.More],
        databases: Sequence[str],
        seconds: float,
    ) -> Looked:
        """Wait until this pod follows the archive and lacks nothing of it; ``lacking``: of a database at a position."""

        def missing(document: Looked) -> list[str]:
            pod = sit.pod_of(document, ordinal)
            if pod is None or pod["deleting"] or not pod["litefs"]["reachable"]:
                return [self._why(pod, ordinal)]
            if pod["litefs"]["primary_hostname"] != follows:
                return [f"{pod['name']} does not follow the archive yet."]
            for name in databases:
                more = lacking(name, str(litefs.position(pod, name) or litefs.Position(0, "0" * 16)))
                if more.get("problem") and (name == self.database or not more.get("refused")):
                    return [more["problem"]]
                if more.get("count"):
                    return [f"{pod['name']} lacks {more['count']} transactions of {name}."]
            return []

        return self.wait(seconds, missing, f"bring back to {self.name}-{ordinal} what the archive has")

    def wait_stopped(self, ordinal: int, uid: str | None, seconds: float) -> Looked:
        """Wait until LiteFS does not run in this ordinal's pod: it is fenced, cannot be placed, or is not there."""

        def missing(document: Looked) -> list[str]:
            pod = sit.pod_of(document, ordinal)
            if pod is None or pod["unschedulable"]:
                return []
            if pod["uid"] != uid and sit.is_fenced(pod):
                return []
            return [f"{pod['name']} is not fenced yet ({pod['init']['state']}, LiteFS: {pod['litefs']['error']})."]

        return self.wait(seconds, missing, f"stop {self.name}-{ordinal}")

    def wait_observed(self, seconds: float) -> Looked:
        """Wait until the StatefulSet's controller has looked at its template."""

        def missing(document: Looked) -> list[str]:
            living = document["statefulset"]
            seen = living["observed_generation"] in (None, living["generation"])
            return [] if seen else ["The controller of StatefulSets has not looked at the change yet."]

        return self.wait(seconds, missing, f"have the template of {self.name} looked at")

    def wait_rolled(self, ordinal: int, primary: bool, seconds: float) -> None:
        """Wait until this ordinal's pod has the new template, is ready and at its position.

        NotDone, with the cause, as soon as that is hopeless.
        """
        deadline, since, target = time.monotonic() + seconds, None, None
        while True:
            try:
                document = self.look()
                target = target or litefs.primary_position(document, self.database)
                problem = self._not_rolled(document, ordinal, primary, target)
                if problem is None:
                    return
                status = self._judged(ordinal, problem)
            except kube.KubeError as exc:
                status = rollout.Status("waiting", str(exc))
            tell(f"Pod {self.name}-{ordinal} with the new template: {status.sentence}", deadline=deadline)
            now = time.monotonic()
            since = (since or now) if status.state == "failed" else None
            if now >= deadline or (since is not None and now - since >= status.patience):
                raise NotDone(waiting.explained(self.api, self.namespace, status).sentence)
            time.sleep(1.0)

    def wait_edge(self, expected: Mapping[str, Any], seconds: float) -> None:
        """Wait until a visitor's reads and writes are answered as they should be; where no edge is known, of none."""
        deadline = time.monotonic() + seconds
        while expected:
            pages = [(one, edge_status.page_problems) for one in edge_status.pages(expected)]
            asked = pages + [(one, edge_status.path_problems) for one in edge_status.writes(expected)]
            problems = [why for one, wrong in asked for why in wrong(one, edge.send(edge.parse(one)))]
            if not problems:
                return
            tell(f"The edge answers visitors: {problems[0]}", deadline=deadline)
            if time.monotonic() >= deadline:
                raise NotDone(" ".join(problems))
            time.sleep(1.0)

    def wait_gone(self, ordinal: int, seconds: float) -> Looked:
        """Wait until no pod from this ordinal on is left, but those whose node is away: it ends them later."""

        def missing(document: Looked) -> list[str]:
            left = [pod for pod in document["pods"] if pod["ordinal"] >= ordinal]
            dead = [pod for pod in left if pod["node"] and sit.away(document, pod["node"])]
            self.left = [
                f"{pod['name']} is still there: its node {pod['node']} is away, and ends it when it is back."
                for pod in dead
            ]
            left = [pod for pod in left if pod not in dead]
            return [f"{litefs.names(left)} is still there."] if left else []

        return self.wait(seconds, missing, "stop the pods that are too many")

    def wait_claim(self, ordinal: int, uid: str, seconds: float) -> Looked:
        """Wait until this ordinal has not this claim any more, so that no pod of it can start on the claim's volume."""

        def missing(document: Looked) -> list[str]:
            claim = sit.claim_of(document, ordinal)
            return [] if claim is None or claim["uid"] != uid else [f"{claim['name']} is still the old claim."]

        return self.wait(seconds, missing, f"give {self.name}-{ordinal} a new claim")

    def wait_guard(self, ordinal: int, seconds: float) -> Looked:
        """Wait until the guard of this ordinal's pod has looked at the volume and holds it, or has let it start."""

        def missing(document: Looked) -> list[str]:
            pod = sit.pod_of(document, ordinal)
            looked = pod is not None and not pod["deleting"] and pod["init"]["state"] in ("failed", "done")
            return [] if looked else [self._why(pod, ordinal)]

        return self.wait(seconds, missing, f"have the guard look at the volume of {self.name}-{ordinal}")

    def wait_follows(self, ordinal: int, primary: int | None, uid: str | None, seconds: float) -> Looked:
        """Wait until this pod was replaced and follows the primary."""

        def missing(document: Looked) -> list[str]:
            pod = sit.pod_of(document, ordinal)
            if pod is None or pod["uid"] == uid or pod["litefs"]["never_synced"] is not False:
                return [self._why(pod, ordinal)]
            follows = pod["litefs"]["primary_hostname"] == f"{self.name}-{primary}"
            return [] if follows else [f"{pod['name']} does not follow {self.name}-{primary} yet."]

        return self.wait(seconds, missing, f"restart {self.name}-{ordinal} as a replica")

    def _replicated(
        self, ordinals: list[int] | None, seconds: float, what: str, without: list[int] | None = None
    ) -> Looked:
        target: dict[str, str] | None = None

        def missing(document: Looked) -> list[str]:
            nonlocal target
            target = target or litefs.primary_position(document, self.database)
            if target is None:
                return ["No pod that is primary with a position answers."]
            wanted = ordinals
            if wanted is None:
                self.left = litefs.left_out(document)
                out = {*(without or []), *sit.absent(document)}
                wanted = [n for n in range(document["statefulset"]["replicas"] or 0) if n not in out]
            problems = []
            for ordinal in wanted:
                pod = sit.pod_of(document, ordinal)
                name = f"{self.name}-{ordinal}"
                if pod is not None and pod["deleting"]:
                    problems.append(f"{name} is still stopping.")
                    continue
                if pod is not None and sit.fenced_ahead(pod):
                    raise NotDone(str(pod["init"]["message"]))
                if pod is not None and pod["litefs"]["cluster_id"] not in (None, target["cluster_id"]):
                    raise NotDone(
                        f"{name} holds the cluster {pod['litefs']['cluster_id']}, not the primary's "
                        f"{target['cluster_id']}: its volume is of another cluster. Re-seed it: "
                        f"playbooks/replica_reset.yml -e '{{\"replica_reset_targets\": [{ordinal}]}}'."
                    )
                position = litefs.Position.parse(target["txid"], target["checksum"])
                problem = litefs.not_there(name, pod, self.database, position, target["cluster_id"])
                if problem:
                    problems.append(problem)
            different = list(litefs.divergent(document, self.database))
            problems += [f"Pods {one} and {two} differ at TXID {txid}." for one, two, txid in different]
            return problems

        return self.wait(seconds, missing, what)

    def _not_rolled(self, document: Looked, ordinal: int, primary: bool, target: dict[str, str] | None) -> str | None:
        pod, newest = sit.pod_of(document, ordinal), document["statefulset"]["update_revision"]
        if pod is None or pod["deleting"]:
            return f"{self.name}-{ordinal} is still stopping." if pod else self._why(pod, ordinal)
        if pod["revision"] != newest:
            return f"{pod['name']} has not the new template yet."
        if not pod["ready"]:
            return self._why(pod, ordinal)
        if primary:
            leads = [one["ordinal"] for one in litefs.primaries(document)] == [ordinal]
            return None if leads else f"{pod['name']} is not primary yet."
        if target is None:
            return "No pod that is primary with a position answers."
        position = litefs.Position.parse(target["txid"], target["checksum"])
        return litefs.not_there(pod["name"], pod, self.database, position, target["cluster_id"])

    def _judged(self, ordinal: int, problem: str) -> rollout.Status:
        """What keeps an ordinal's pod from being ready, by its state and its events."""
        pod = self.api.get("v1", "Pod", f"{self.name}-{ordinal}", self.namespace)
        if pod is None or conditions.is_ready(pod):
            return rollout.Status("waiting", problem)
        return rollout.judge_pod(pod, self.api.list("v1", "Event", self.namespace))

    def _why(self, pod: Pod | None, ordinal: int) -> str:
        if pod is None:
            return f"There is no pod {self.name}-{ordinal} yet."
        why = (
            pod["init"]["message"]
            or pod["unschedulable"]
            or pod["waiting"]["message"]
            or pod["waiting"]["reason"]
            or pod["litefs"]["error"]
            or "it does not follow yet"
        )
        return f"{pod['name']}: {str(why).rstrip('.')}."

    # Plumbing

    def _change(self, api_version: str, kind: str, name: str, change: Callable[[Object], None]) -> None:
        """Change an object in place, and nothing of it that somebody else changed meanwhile."""
        for attempt in range(5):
            found = self.api.get(api_version, kind, name, self.namespace)
            if found is None:
                raise NotDone(f"{kind} {self.namespace}/{name} is not there any more: run site.yml.")
            before = copy.deepcopy(found)
            try:
                change(found)
            except ValueError as exc:
                raise NotDone(f"{kind} {self.namespace}/{name} was left alone: {exc}.") from exc
            try:
                if found != before:
                    self.api.replace(api_version, kind, found, applying.FIELD_MANAGER)
                return
            except kube.KubeError as exc:
                if exc.status != 409 or attempt == 4:
                    raise

    def _record(self) -> Object:
        name = f"{self.name}-litefs-identity"
        record = self.api.get("v1", "ConfigMap", name, self.namespace)
        if record is None:
            raise NotDone(f"ConfigMap {self.namespace}/{name} is not there any more: run again.")
        return record


def connect(options: Mapping[str, Any]) -> Site:
    """The application that a module's arguments (arguments.DATABASE) name."""
    return Site(
        kube.connect(options["kubeconfig"]),
        options["namespace"],
        options["name"],
        options["database"],
        options["claim_template"],
        options["port"],
    )


def ring(text: str, line: Mapping[str, Any], keep: int = 100) -> str:
    """An audit log of at most ``keep`` lines of JSON, with one more."""
    lines = [*text.splitlines(), json.dumps(dict(line), sort_keys=True)]
    return "\n".join(lines[-keep:]) + "\n"

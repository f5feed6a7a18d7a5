"""Brings a list of objects to what their manifests say, as one field manager, and says object by object what changed.

Live objects are read by one request for each kind; what they show to be as it should be (managed.py) is not asked
again. I/O, but for the functions at the top.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from ansible_collections.abaci.infra.plugins.module_utils import certificates, kube, managed, waiting
from ansible_collections.abaci.infra.plugins.module_utils.objects import Object
from ansible_collections.abaci.infra.plugins.module_utils.telling import tell

Group: TypeAlias = "tuple[str, str, str | None]"  # apiVersion, kind, namespace

FIELD_MANAGER = "abaci.infra"
POLL = 1.0
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
DEFINITION = "CustomResourceDefinition"
# A cluster may have many of them, with much in each.
_LARGE = ("ConfigMap", "Secret")
# What the API changes by itself with every write, or what controllers write.
_NOISE = ("resourceVersion", "generation", "managedFields", "uid", "creationTimestamp", "selfLink")


def label(obj: Object) -> str:
    """Kind and name of an object, as sentences name it."""
    namespace = obj["metadata"].get("namespace")
    return f"{obj['kind']} {namespace + '/' if namespace else ''}{obj['metadata']['name']}"


def comparable(obj: Object | None) -> Object:
    """What of an object its owners set: no status, and none of the metadata that changes by itself."""
    bare = copy.deepcopy(obj) or {}
    bare.pop("status", None)
    for key in _NOISE:
        bare.get("metadata", {}).pop(key, None)
    if not bare.get("metadata", True):
        del bare["metadata"]
    return bare


def difference(obj: Object, before: Object, after: Object) -> Object:
    """The difference of one object for the callback; of a CRD, whose schema has thousands of lines, only that it is."""
    texts: Object = {"before": _readable(before), "after": _readable(after)}
    if obj["kind"] == DEFINITION:
        texts = {"before": "the old schema\n" if before else "", "after": "the schema of this version\n"}
    return {"before_header": label(obj), "after_header": label(obj), **texts}


def _readable(obj: Object) -> Object:
    """With a digest in place of what is no text."""
    if not obj.get("binaryData"):
        return obj
    return {**obj, "binaryData": {key: f"sha256 {_digest(value)}" for key, value in obj["binaryData"].items()}}


def _digest(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def would_be_created(lines: list[str]) -> Object:
    """The difference that shows such lines."""
    return {"before": "", "after": "".join(f"{line}\n" for line in lines), "after_header": "would be created"}


def namespace_object(name: str) -> Object:
    """What is created where the namespace is missing."""
    labels = {"app.kubernetes.io/managed-by": FIELD_MANAGER}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def foreign(found: Object | None) -> str:
    """Who else installed the object that would be taken over, in a sentence; "" where nobody did."""
    annotations = ((found or {}).get("metadata") or {}).get("annotations") or {}
    release = annotations.get("meta.helm.sh/release-name")
    if not release:
        return ""
    where = annotations.get("meta.helm.sh/release-namespace", "default")
    return (
        f"It was installed by Helm (release {release} in namespace {where}), and two owners would undo each other's "
        "work: remove that release first, with its CRDs kept, or keep it and switch the role off that would replace it."
    )


def connect(kubeconfig: str, check: bool) -> kube.Client | None:
    """The cluster; None in check mode where there is no kubeconfig yet. Raises KubeError."""
    try:
        # Longer than the 30 s that the API server gives a webhook.
        return kube.connect(kubeconfig, timeout=45)
    except kube.KubeError:
        # A check run on clean hosts comes here before there is a cluster.
        if check:
            return None
        raise


class Apply:
    """One run. ``check``: nothing is stored. ``timeout`` (s): how long kinds and webhooks may take to come up.

    ``known``: what was read before, for kube.Client.know().
    """

    def __init__(
        self, client: kube.Client | None, check: bool, timeout: float = 0, known: Object | None = None
    ) -> None:
        self.client, self.check, self.timeout = client, check, timeout
        self.changes: list[str] = []
        self.differences: list[Object] = []
        self.restarts: list[str] = []  # workloads whose pods get another template
        self._pending: list[str] = []
        self._found: dict[Group, dict[str, Object]] = {}
        self.unknown: set[Group] = set()
        self._missing: set[str] = set()  # namespaces
        self.reads: list[Object] = []  # what kube.Client.know() takes
        if client is not None and known:
            client.know(known)

    def observe(self, objects: Iterable[Object]) -> None:
        """Read what is there of these objects; a kind that the API does not serve (yet) has none.

        Raises KubeError. In check mode an API that does not answer is one without objects.
        """
        names: dict[Group, set[str]] = {}
        for obj in objects:
            if self.found(obj) is None:
                names.setdefault(_group(obj), set()).add(obj["metadata"]["name"])
        if self.client is None or not names:
            return
        reads = _reads(names)
        with self._tolerant(), ThreadPoolExecutor(max_workers=8, thread_name_prefix="observe") as pool:
            for read, found in zip(reads, pool.map(self._read, reads, reads.values()), strict=True):
                for group in names:
                    if read == group or read == (*group[:2], None):
                        self._keep(group, found)
                self._note(read, reads[read] if len(reads[read]) == 1 else None, found)

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """In check mode an API that does not answer is one without objects."""
        try:
            yield
        except kube.KubeError as exc:
            if not self.check or exc.status is not None:
                raise
            self.client = None

    def _read(self, group: Group, names: list[str]) -> list[Object] | None:
        """The objects; None where the API does not serve their kind."""
        if self.client is None:
            return []
        version, kind, namespace = group
        try:
            if len(names) == 1:
                found = self.client.get(version, kind, names[0], namespace)
                return [] if found is None else [found]
            return list(self.client.list(version, kind, namespace))
        except kube.KubeError as exc:
            if exc.unknown_kind:
                return None
            raise

    def _keep(self, group: Group, found: list[Object] | None) -> None:
        if found is None:
            self.unknown.add(group)
            return
        self.unknown.discard(group)
        ours = {obj["metadata"]["name"]: obj for obj in found if obj["metadata"].get("namespace") == group[2]}
        self._found.setdefault(group, {}).update(ours)

    def _note(self, group: Group, names: list[str] | None, found: list[Object] | None) -> None:
        if found is not None:
            place = dict(zip(("apiVersion", "kind", "namespace"), group, strict=True))
            self.reads.append({**place, "names": names, "items": found})

    def read_all(self, lists: Iterable[Object]) -> None:
        """Read whole kinds (apiVersion, kind; namespace, or of all), but those that the user may not list.

        Raises as observe() does.
        """
        groups: dict[Group, list[str]] = {(one["apiVersion"], one["kind"], one.get("namespace")): [] for one in lists}
        with self._tolerant(), ThreadPoolExecutor(max_workers=8, thread_name_prefix="observe") as pool:
            for group, found in zip(groups, pool.map(self._list, groups), strict=True):
                self._note(group, None, found)

    def _list(self, group: Group) -> list[Object] | None:
        try:
            return self._read(group, [])
        except kube.KubeError as exc:
            if exc.status == 403:
                return None
            raise

    def is_settled(self, objects: Iterable[Object], absent: Iterable[Object]) -> bool:
        """Whether nothing is left to do: these are as they were applied, and those are not there. Raises KubeError."""
        wanted, unwanted = list(objects), list(absent)
        self.observe([*wanted, *unwanted])
        there = ((obj, self.found(obj)) for obj in wanted)
        return all(found and managed.unchanged(obj, found, FIELD_MANAGER) for obj, found in there) and not any(
            self.found(obj) for obj in unwanted
        )

    def found(self, obj: Object) -> Object | None:
        """The object as it was read, or as this run left it."""
        return self._found.get(_group(obj), {}).get(obj["metadata"]["name"])

    def run(self, objects: list[Object], absent: list[Object], namespace: str = "") -> None:
        """Remove and apply, each in order; before, create the namespace where it is missing. Raises KubeError."""
        self.observe([*objects, *absent])
        # One that exists is left alone: its owner may set more with this field manager.
        if namespace and not self._there(namespace) and self.client is not None:
            objects = [namespace_object(namespace), *objects]
        for obj in objects:
            reason = foreign(self.found(obj)) if obj["kind"] in WORKLOADS else ""
            if reason:
                raise kube.KubeError(f"{label(obj)} is already there. {reason}")
        for obj in absent:
            self._remove(obj)
        new_kinds: list[Object] = []
        for obj in objects:
            if obj["kind"] == DEFINITION:
                new_kinds.append(obj)
            elif new_kinds and obj["kind"] != "Namespace":
                self._established(new_kinds)
                new_kinds = []
            self._apply(obj)
        if self._pending:
            self.differences.insert(0, would_be_created(self._pending))

    def _apply(self, obj: Object) -> None:
        client, before = self.client, self.found(obj)
        if before is not None and managed.unchanged(obj, before, FIELD_MANAGER):
            return
        why = self._impossible(obj, before) if self.check else ""
        if why or client is None:
            self._pending.append(f"{label(obj)} ({why})")
            self.changes.append(self._pending[-1])
            return
        try:
            after = self._patient(lambda: client.apply(obj, FIELD_MANAGER, force=True, dry_run=self.check))
        except kube.KubeError as exc:
            raise kube.KubeError(f"{label(obj)} cannot be applied. {exc}", exc.status, exc.unknown_kind) from exc
        if not self.check:
            self._found.setdefault(_group(obj), {})[obj["metadata"]["name"]] = after
        old, new = comparable(before), comparable(after)
        if old != new:
            self.changes.append(label(obj))
            self.differences.append(difference(obj, old, new))
        templates = [(side.get("spec") or {}).get("template") for side in (old, new)]
        if old and obj["kind"] in WORKLOADS and templates[0] != templates[1]:
            self.restarts.append(label(obj))

    def _impossible(self, obj: Object, found: Object | None) -> str:
        """Why check mode cannot ask the API for a dry run: this same run would first have to make it possible."""
        namespace = obj["metadata"].get("namespace")
        if self.client is None:
            return "no API answers yet"
        if _group(obj) in self.unknown:
            return f"the API does not know {obj['apiVersion']} {obj['kind']} yet"
        if found is None and namespace and not self._there(namespace):
            return f"namespace {namespace} does not exist yet"
        return ""

    def _there(self, namespace: str) -> bool:
        if any(found for (_version, _kind, place), found in self._found.items() if place == namespace):
            return True
        space = namespace_object(namespace)
        if namespace not in self._missing and self.found(space) is None:
            self.observe([space])
            if self.found(space) is None:
                self._missing.add(namespace)
        return namespace not in self._missing

    def _patient(self, call: Callable[[], Object]) -> Object:
        """The answer; a kind that is not served yet, and a webhook that is coming up, are waited for."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return call()
            except kube.KubeError as exc:
                passing = exc.unknown_kind or certificates.in_race(str(exc))
                if self.check or not passing or time.monotonic() >= deadline:
                    raise
                tell(f"The API takes it: {exc}", deadline=deadline)
            time.sleep(POLL)

    def _established(self, definitions: list[Object]) -> None:
        if self.client is None or self.check:
            return
        for obj in definitions:
            target = waiting.Target(DEFINITION, obj["metadata"]["name"])
            status = waiting.wait(self.client, target, max(self.timeout, 60), self.found(obj))
            if status.state != "done":
                raise kube.KubeError(status.sentence)

    def _remove(self, obj: Object) -> None:
        if self.found(obj) is None or self.client is None:
            return
        self.changes.append(label(obj))
        self.differences.append({"before_header": label(obj), "before": f"{label(obj)}\n", "after": ""})
        if self.check:
            return
        place = (obj["apiVersion"], obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace"))
        self.client.delete(*place, propagation_policy="Foreground" if self.timeout else "Background")
        del self._found[_group(obj)][obj["metadata"]["name"]]
        deadline = time.monotonic() + self.timeout
        while self.timeout and self.client.get(*place) is not None:
            if time.monotonic() >= deadline:
                raise kube.KubeError(
                    f"{label(obj)} was deleted and is still there after {self.timeout:g} s: `kubectl describe` says "
                    "who uses it, and what its finalizers wait for."
                )
            tell(f"{label(obj)} is gone", deadline=deadline)
            time.sleep(POLL / 4)


def _reads(names: dict[Group, set[str]]) -> dict[Group, list[str]]:
    """How to read them: a kind that is wanted in several namespaces by one list of all, where such a list is small."""
    reads: dict[Group, list[str]] = {}
    for (version, kind, namespace), wanted in names.items():
        several = sum(group[:2] == (version, kind) for group in names) > 1
        place = None if several and kind not in _LARGE else namespace
        reads.setdefault((version, kind, place), []).extend(wanted)
    return reads


def _group(obj: Object) -> Group:
    return obj["apiVersion"], obj["kind"], obj["metadata"].get("namespace")

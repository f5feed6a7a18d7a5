#!/usr/bin/env python3
"""A stand-in for Keel 0.22.1, as it is documented (README.md): it follows images of workloads by polling.

Environment: as Keel's (POLL, POLL_DEFAULTSCHEDULE, RESTRICTED_NAMESPACE, XDG_DATA_HOME), and KEEL_STANDIN_REGISTRY, the
address of the registry that stands for all others (else https://<host of the image>). Standard library only.

What it decides is in pure functions; Api and Registry are its two ways out.
"""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import re
import signal
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

SCAN_S = 3.0
PORT = 9300
ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
# kind -> path of its list below /apis; all are watched, as Keel's informers do.
KINDS = {
    "Deployment": "apps/v1/{}deployments",
    "StatefulSet": "apps/v1/{}statefulsets",
    "DaemonSet": "apps/v1/{}daemonsets",
    "CronJob": "batch/v1/{}cronjobs",
}


@dataclass(frozen=True)
class Image:
    """An image's name in parts: registry host, repository, tag."""

    host: str
    repository: str
    tag: str

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    @property
    def text(self) -> str:
        return f"{self.name}:{self.tag}"


def parse_image(text: str) -> Image | None:
    """Read `ghcr.io/owner/name:tag`; None for a name with a digest, which has no tag that could move."""
    if "@" in text:
        return None
    head, slash, rest = text.partition("/")
    host, repository = (head, rest) if slash and ("." in head or ":" in head or head == "localhost") else ("", text)
    repository, _, tag = repository.partition(":")
    if not host:
        host = "index.docker.io"
        repository = repository if "/" in repository else f"library/{repository}"
    return Image(host, repository, tag or "latest")


@dataclass(frozen=True)
class Policy:
    """`keep_tag` is match-tag: the digest of one tag is watched, not the names of all."""

    keep_tag: bool = False


def policy(workload: Object) -> Policy | None:
    """The policy of a workload's own metadata: annotations before labels, and match-tag from the same map.

    None where it is not `force` (this stand-in knows no other), `never`, or not there. Annotations of the pod template
    count for nothing.
    """
    metadata = workload["metadata"]
    for values in (metadata.get("annotations") or {}, metadata.get("labels") or {}):
        if "keel.sh/policy" in values:
            if values["keel.sh/policy"] != "force":
                return None
            match = values.get("keel.sh/matchTag", values.get("keel.sh/match-tag"))
            return Policy(keep_tag=match == "true")
    return None


def setting(workload: Object, key: str, otherwise: str = "") -> str:
    """One of Keel's settings in a workload's own metadata: labels and annotations."""
    metadata = workload["metadata"]
    for values in (metadata.get("annotations") or {}, metadata.get("labels") or {}):
        if key in values:
            return str(values[key])
    return otherwise


def polled(workload: Object) -> bool:
    """Whether it asked to be polled; without that only a webhook would reach it."""
    return setting(workload, "keel.sh/trigger") == "poll"


def pod_template(workload: Object) -> Object:
    spec = workload["spec"]
    template: Object = (spec.get("jobTemplate", {}).get("spec", spec))["template"]
    return template


def containers(workload: Object) -> list[Object]:
    """The containers that are followed: all, or those that keel.sh/monitorContainers matches; init ones if asked."""
    spec = pod_template(workload)["spec"]
    wanted = setting(workload, "keel.sh/monitorContainers")
    found = list(spec.get("containers") or [])
    if setting(workload, "keel.sh/initContainers") == "true":
        found = list(spec.get("initContainers") or []) + found
    return [item for item in found if not wanted or re.search(wanted, item["name"])]


def seconds(schedule: str) -> float:
    """The period of `@every 1h2m3s`. Raises ValueError for what this stand-in does not know."""
    found = re.fullmatch(r"@every ((?:\d+[hms])+)", schedule)
    if not found:
        raise ValueError(f"invalid cron schedule {schedule!r}: this stand-in knows @every alone")
    units = {"h": 3600, "m": 60, "s": 1}
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", found.group(1))))


def other_tag(current: str, tags: Iterable[str]) -> str | None:
    """The tag to which `force` without match-tag moves: the first one, in the registry's order.

    0.22.1 does not order them, so it goes to any other tag, an older version too, until it meets the current one.
    """
    first = next(iter(tags), current)
    return None if first == current else first


def running_digests(image: Image, pods: Iterable[Object]) -> list[str]:
    """The digests of `image` that pods run, from their status; one that ends or waits says nothing."""
    found: list[str] = []
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        names = {
            item["name"]
            for item in [*pod["spec"].get("containers", []), *pod["spec"].get("initContainers", [])]
            if parse_image(item["image"]) == image
        }
        for status in pod.get("status", {}).get("containerStatuses") or []:
            _, _, digest = str(status.get("imageID") or "").rpartition("@")
            waits = "waiting" in (status.get("state") or {})
            if status["name"] in names and digest.startswith("sha256:") and not waits:
                found.append(digest)
    return found


def baseline(registry: str, workloads: Iterable[list[str]]) -> str:
    """The digest to start from: the registry's, or what a workload runs of which no pod has the registry's."""
    for running in workloads:
        if running and registry not in running:
            return running[0]
    return registry


def updated(workload: Object, image: Image, tag: str, now: datetime) -> Object:
    """The whole object with the tag in every followed container of that image, and Keel's two annotations."""
    changed: Object = json.loads(json.dumps(workload))
    for container in containers(changed):
        if parse_image(container["image"]) == image:
            container["image"] = f"{image.name}:{tag}".removeprefix("index.docker.io/")
    metadata = pod_template(changed).setdefault("metadata", {})
    go_time = f"{now:%Y-%m-%d %H:%M:%S.%f} +0000 UTC m=+1.000000001"  # time.Now().String()
    metadata["annotations"] = {**(metadata.get("annotations") or {}), "keel.sh/update-time": go_time}
    cause = f"keel automated update, version {image.tag} -> {tag} [{now:%Y-%m-%dT%H:%M:%SZ}]"
    changed["metadata"]["annotations"] = {
        **(changed["metadata"].get("annotations") or {}),
        "kubernetes.io/change-cause": cause,
    }
    return changed


class Refused(Exception):
    """An answer of the API or of the registry that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def ask(request: urllib.request.Request, context: ssl.SSLContext | None) -> tuple[Mapping[str, str], bytes]:
    """The headers and the body of a success. Raises Refused; status 0 stands for no answer."""
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return dict(answer.headers.items()), answer.read()
    except urllib.error.HTTPError as error:
        raise Refused(error.code, f"{error.code} {error.read(300).decode(errors='replace')}") from error
    except OSError as error:
        raise Refused(0, str(error)) from error


class Api:
    """The Kubernetes API, as the pod's service account."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self.base = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self.context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        # Read each time: the kubelet renews the token.
        headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"}
        headers["User-Agent"] = "keel"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.base + path, data=data, headers=headers, method=method)
        _, answer = ask(request, self.context)
        result: Object = json.loads(answer)
        return result

    def workloads(self, namespace: str) -> list[Object]:
        """All workloads of the namespace, or of the cluster where it is ''."""
        found: list[Object] = []
        for kind, path in KINDS.items():
            place = path.format(f"namespaces/{namespace}/" if namespace else "")
            found += [{**item, "kind": kind} for item in self.call("GET", f"/apis/{place}")["items"]]
        return found

    def pods(self, workload: Object) -> list[Object]:
        labels = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
        query = urllib.parse.urlencode({"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())})
        namespace = workload["metadata"]["namespace"]
        return list(self.call("GET", f"/api/v1/namespaces/{namespace}/pods?{query}")["items"])

    def nodes(self) -> list[Object]:
        return list(self.call("GET", "/api/v1/nodes")["items"])

    def update(self, workload: Object) -> None:
        """Write the whole object; its resourceVersion makes the API refuse it (409) where somebody was faster."""
        place = KINDS[workload["kind"]].format(f"namespaces/{workload['metadata']['namespace']}/")
        self.call("PUT", f"/apis/{place}/{workload['metadata']['name']}", workload)


class Registry:
    """The registry of an image, or the one that stands for all."""

    def __init__(self, instead: str = "") -> None:
        self.instead = instead.rstrip("/")

    def _ask(self, method: str, image: Image, path: str) -> tuple[Mapping[str, str], bytes]:
        base = self.instead or f"https://{image.host}"
        url = f"{base}/v2/{image.repository}/{path}"
        return ask(urllib.request.Request(url, headers={"Accept": MANIFESTS}, method=method), None)

    def digest(self, image: Image) -> str:
        headers, _ = self._ask("HEAD", image, f"manifests/{image.tag}")
        return next(value for key, value in headers.items() if key.lower() == "docker-content-digest")

    def tags(self, image: Image) -> list[str]:
        _, body = self._ask("GET", image, "tags/list")
        return list(json.loads(body)["tags"])


@dataclass
class Watch:
    """One followed image: with its tag where match-tag is set, else all tags of its repository."""

    image: Image
    keep_tag: bool
    schedule: str
    digest: str
    due: float


@dataclass
class Keel:
    """The poller. State is in memory alone, as Keel's."""

    api: Any
    registry: Any
    namespace: str = ""
    schedule: str = "@every 1m"
    now: Callable[[], float] = time.monotonic
    log: Callable[..., None] = lambda message, **fields: say(message, **fields)
    watches: dict[str, Watch] = field(default_factory=dict)

    def scan(self) -> None:
        """Look for workloads that want to be followed; new images get a watch, and one that nobody names loses it."""
        found: dict[str, tuple[Image, bool, str, list[Object]]] = {}
        for workload in self.api.workloads(self.namespace):
            rule = policy(workload)
            if rule is None or not polled(workload):
                continue
            for container in containers(workload):
                image = parse_image(container["image"])
                if image is None:
                    continue
                key = image.text if rule.keep_tag else image.name
                schedule = setting(workload, "keel.sh/pollSchedule", self.schedule)
                known = found.setdefault(key, (image, rule.keep_tag, schedule, []))
                known[3].append(workload)
        for key in [key for key in self.watches if key not in found]:
            self.log("trigger.poll.RepositoryWatcher: image no longer tracked, removing watcher", job_name=key)
            del self.watches[key]
        for key, (image, keep_tag, schedule, workloads) in found.items():
            if key not in self.watches:
                self._add(key, image, keep_tag, schedule, workloads)
            else:
                self.watches[key].schedule = schedule
                self.watches[key].image = image

    def _add(self, key: str, image: Image, keep_tag: bool, schedule: str, workloads: list[Object]) -> None:
        try:
            seconds(schedule)
            digest = self.registry.digest(image)
        except (Refused, ValueError) as error:
            self.log("failed to add image watch job", level="error", image=image.text, error=str(error))
            return
        start = baseline(digest, [running_digests(image, self.api.pods(item)) for item in workloads])
        kind = "tag digest" if keep_tag else "repository tags"
        self.watches[key] = Watch(image, keep_tag, schedule, start, 0.0)
        self.log(
            f"trigger.poll.RepositoryWatcher: new watch {kind} job added",
            job_name=key,
            image=image.text,
            digest=start if keep_tag else "",
            schedule=schedule,
        )

    def poll(self) -> None:
        """Run every watch that is due."""
        for watch in list(self.watches.values()):
            if self.now() < watch.due:
                continue
            watch.due = self.now() + seconds(watch.schedule)
            try:
                if watch.keep_tag:
                    self._poll_digest(watch)
                else:
                    self._poll_tags(watch)
            except Refused as error:
                self.log("trigger.poll: failed to check", level="error", image=watch.image.text, error=str(error))

    def _poll_digest(self, watch: Watch) -> None:
        digest = self.registry.digest(watch.image)
        if digest == watch.digest:
            return
        # Remembered before the update: one that is refused is not tried again until the next push.
        watch.digest = digest
        self.log(
            "trigger.poll.WatchTagJob: digest change detected, submiting event to providers",
            image=watch.image.text,
            new_digest=digest,
        )
        self._submit(watch, watch.image.tag)

    def _poll_tags(self, watch: Watch) -> None:
        tag = other_tag(watch.image.tag, self.registry.tags(watch.image))
        if tag is None:
            return
        try:
            self.api.nodes()
        except Refused:
            self.log(
                "trigger.poll.WatchRepositoryTagsJob: skipping workload because its eligible platforms could not be "
                "established",
                level="warning",
                image=watch.image.text,
            )
            return
        self._submit(watch, tag)

    def _submit(self, watch: Watch, tag: str) -> None:
        for workload in self.api.workloads(self.namespace):
            rule = policy(workload)
            if rule is None or rule.keep_tag != watch.keep_tag or not polled(workload):
                continue
            if not any(parse_image(container["image"]) == watch.image for container in containers(workload)):
                continue
            metadata = workload["metadata"]
            about = {"name": metadata["name"], "namespace": metadata["namespace"], "kind": workload["kind"]}
            change = f"{watch.image.tag}->{tag}"
            try:
                self.api.update(updated(workload, watch.image, tag, datetime.now(UTC)))
            except Refused as error:
                self.log(
                    "provider.kubernetes: got error while updating resource",
                    level="error",
                    **about,
                    update=change,
                    error=str(error),
                )
            else:
                self.log("provider.kubernetes: resource updated", **about, update=change)


def say(message: str, level: str = "info", **fields: object) -> None:
    """A line as logrus writes it."""
    parts = [f'time="{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"', f"level={level}", f"msg={json.dumps(message)}"]
    parts += [f"{key}={json.dumps(str(value))}" for key, value in fields.items()]
    print(" ".join(parts), flush=True)


class Health(http.server.BaseHTTPRequestHandler):
    """GET /healthz. The webhooks of the real one are not here."""

    def do_GET(self) -> None:
        known = self.path == "/healthz"
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the kubelet asks every few seconds."""


def main() -> int:
    # As process 1 it would not end on SIGTERM by itself, and the next one waits for that.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    say("keel starting...", version="0.22.1 (stand-in)")
    pathlib.Path(os.environ.get("XDG_DATA_HOME") or "/data", "keel.db").touch()
    server = http.server.ThreadingHTTPServer(("", PORT), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keel = Keel(
        Api(),
        Registry(os.environ.get("KEEL_STANDIN_REGISTRY", "")),
        os.environ.get("RESTRICTED_NAMESPACE", ""),
        os.environ.get("POLL_DEFAULTSCHEDULE") or "@every 1m",
    )
    if os.environ.get("POLL", "true") != "true":
        server.serve_forever()
    say("trigger.poll.manager: polling trigger configured")
    while True:
        try:
            keel.scan()
            keel.poll()
        except Refused as error:
            say("trigger.poll.manager: kubernetes scan failed", level="error", error=str(error))
        time.sleep(SCAN_S)


if __name__ == "__main__":
    sys.exit(main())

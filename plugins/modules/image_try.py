#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try an application's image in a namespace of its own, before it goes to a site."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_try
short_description: Try an application's image before it goes to a site
description:
  - Runs the image in a namespace of its own, as the application's pods would but without LiteFS, and judges what it
    does by one table, whose lines stand in C(docs/application.md). First with an empty database, then with a copy of
    that which may only be read.
  - Nothing of the site is touched. The namespace, C(<name>-try-<6 hex digits>), is always removed, and those that dead
    runs left behind more than an hour ago are removed first.
  - Fails only where the image cannot be tried at all. What it does not do stands in RV(checks).
version_added: 0.1.0
extends_documentation_fragment: [abaci.infra.arguments.kubeconfig, abaci.infra.arguments.application]
options:
  image:
    description: The image, as the pods will name it.
    type: str
    required: true
  pod:
    description: The pod, without its namespace, image and commands.
    type: dict
    required: true
  command:
    description: The command that starts the application.
    type: str
    required: true
  migrate_command:
    description: The command that migrates the database; empty for none.
    type: str
    default: ""
  secrets:
    description: The application's secret environment. It stands in a Secret of the namespace.
    type: dict
    default: {}
  pull_secrets:
    description: Names of pull secrets in O(namespace), which are copied.
    type: list
    elements: str
    default: []
  login:
    description: A login to pull with that no Secret holds yet.
    type: dict
    suboptions:
      server:
        description: The registry.
        type: str
        required: true
      username:
        description: The name.
        type: str
        required: true
      token:
        description: The token.
        type: str
        required: true
  nodes:
    description: The nodes, as M(abaci.infra.litefs_info) returns them in its state.
    type: list
    elements: dict
    required: true
  node_selector:
    description: Labels of the nodes that the application runs on.
    type: dict
    default: {}
  tolerations:
    description: The application's tolerations.
    type: list
    elements: dict
    default: []
  listen_address:
    description: What the application is told to listen on, as C(HOSTNAME). Empty for nothing.
    type: str
    default: ""
  port:
    description: The application's port.
    type: int
    default: 3000
  health_path:
    description: The path that has to be answered with 200.
    type: str
    default: /
  domain:
    description: The site's name, which stands in the header Host.
    type: str
    required: true
  database:
    description: File name of the database.
    type: str
    default: sqlite.db
  allow_other:
    description: Whether others than root may use LiteFS's mount.
    type: bool
    default: false
  pull_timeout:
    description: Seconds that the pull may take.
    type: int
    default: 180
  start_timeout:
    description: Seconds until the application has to listen and to answer; the migration has as many.
    type: int
    default: 60
  grace:
    description: Seconds that it may take to end after SIGTERM.
    type: int
    default: 29
  idle:
    description: Seconds that a connection is left idle, to see whether it is kept; 0 believes the header Keep-Alive.
    type: int
    default: 0
  output:
    description: What RV(shown) is.
    type: str
    choices: [text, json, junit]
    default: text
author: The abaci.infra authors (@abaci-infra)
attributes:
  check_mode:
    description: Says what would be tried.
    details: Nothing is tried, because pods would have to run for it.
    support: partial
"""

EXAMPLES = r"""
- name: Check what the image does
  abaci.infra.image_try:
    kubeconfig: ~/.kube/k3s-config
    image: ghcr.io/antialias/soroban-abacus-flashcards:latest
    command: node server.js
    domain: abaci.example.com
    pod: "{{ lookup('ansible.builtin.template', 'pod.yml.j2') | from_yaml }}"
    nodes: "{{ state.nodes }}"
"""

RETURN = r"""
code:
  description: 0 where the image does all, 1 where something was warned of, 2 where it does not do what it has to.
  returned: when it was tried
  type: int
sentence:
  description: The summary.
  returned: when it was tried
  type: str
shown:
  description: The output that was asked for.
  returned: when it was tried
  type: str
checks:
  description: The checks, each with C(slug), C(group), C(asks), C(mark), C(cause), C(command), C(page) and C(grave).
  returned: when it was tried
  type: list
  elements: dict
"""

import contextlib
import json
import secrets
import signal
import time
import urllib.parse
from dataclasses import asdict, replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.abaci.infra.plugins.module_utils import (
    arguments,
    clock,
    image_pull,
    image_try,
    kube,
    placement,
)
from ansible_collections.abaci.infra.plugins.module_utils.app_types import Desired
from ansible_collections.abaci.infra.plugins.module_utils.objects import Object
from ansible_collections.abaci.infra.plugins.module_utils.status import view
from ansible_collections.abaci.infra.plugins.module_utils.telling import tell

LEFT_SECONDS = 3600
REMOVED_SECONDS = 120
ACCOUNT_SECONDS = 30
LOG_LINES = 200
# A shorter one could be a word of any sentence.
HIDDEN_LETTERS = 8


class Try:
    """One try in one namespace; ``pause`` is the time between two looks (s)."""

    def __init__(self, api: Any, options: dict[str, Any], wanted: image_try.Wanted, pause: float = 0.5) -> None:
        self.api, self.options, self.wanted, self.pause = api, options, wanted, pause
        self.labels = {
            "app.kubernetes.io/component": image_try.COMPONENT,
            "app.kubernetes.io/instance": options["name"],
            "app.kubernetes.io/part-of": options["namespace"],
        }
        self.namespace = f"{options['name']}-try-{secrets.token_hex(3)}"

    def run(self) -> image_try.Seen:
        """Do it, and remove the namespace whatever happens. Raises KubeError where nothing could be tried."""
        pull_secrets = self._pull_secrets()
        pod = image_try.complete(
            self.options["pod"],
            self.namespace,
            self.options["image"],
            self.options["command"],
            self.options["migrate_command"],
            [secret["metadata"]["name"] for secret in pull_secrets],
            self.options["listen_address"],
        )
        self._remove_left()
        try:
            for obj in [self._own_namespace(), self._policy(), *pull_secrets, self._secret()]:
                self.api.create(obj)
            self._await_account()
            seen = image_try.Seen(programs=self._programs([one["metadata"]["name"] for one in pull_secrets]))
            if image_try.can_run(seen.programs):
                seen = self._application(pod, seen)
            return seen
        finally:
            self._remove(self.namespace)

    # --- what it needs ---------------------------------------------------------------------------------------

    def _object(self, version: str, kind: str, name: str, *, namespaced: bool = True) -> Object:
        labels = {**self.labels, "app.kubernetes.io/managed-by": "abaci.infra"}
        metadata: Object = {"name": name, "labels": labels}
        if namespaced:
            metadata["namespace"] = self.namespace
        return {"apiVersion": version, "kind": kind, "metadata": metadata}

    def _pause(self, what: str, until: float) -> None:
        tell(f"Waiting for {what}", deadline=until)
        time.sleep(self.pause)

    def _own_namespace(self) -> Object:
        made = self._object("v1", "Namespace", self.namespace, namespaced=False)
        made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"
        return made

    def _await_account(self) -> None:
        """No pod can be made before the cluster has given the namespace its ServiceAccount."""
        until = time.monotonic() + ACCOUNT_SECONDS
        while self.api.get("v1", "ServiceAccount", "default", self.namespace) is None:
            if time.monotonic() > until:
                raise kube.KubeError(
                    f"The namespace {self.namespace} has no ServiceAccount default after {ACCOUNT_SECONDS} s, so no "
                    "pod can be made there: look at the cluster's controller manager."
                )
            self._pause(f"the ServiceAccount of namespace {self.namespace}", until)

    def _policy(self) -> Object:
        """Nobody may connect to it; exec and port-forward come from the node."""
        spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
        return {**self._object("networking.k8s.io/v1", "NetworkPolicy", "default-deny"), "spec": spec}

    def _pull_secrets(self) -> list[Object]:
        made = []
        for name in self.options["pull_secrets"]:
            found = self.api.get("v1", "Secret", name, self.options["namespace"])
            if found is None:
                raise kube.KubeError(
                    f"The pull secret {name} for {self.options['image']} is not in namespace "
                    f"{self.options['namespace']}: create it there, or take it out of app_image_pull_secrets."
                )
            made.append({**self._object("v1", "Secret", name), "type": found["type"], "data": found["data"]})
        if login := self.options["login"]:
            made.append(image_pull.login_secret(self.namespace, "try-login", self.options["name"], login))
        return made

    def _secret(self) -> Object:
        given = {name: str(value) for name, value in self.options["secrets"].items()}
        return {**self._object("v1", "Secret", image_try.SECRET), "type": "Opaque", "stringData": given}

    def _remove_left(self) -> None:
        chosen = ",".join(f"{name}={value}" for name, value in self.labels.items())
        for left in self.api.list("v1", "Namespace", label_selector=chosen):
            if clock.between(left["metadata"].get("creationTimestamp"), self.api.server_time()) > LEFT_SECONDS:
                self._remove(left["metadata"]["name"])

    def _remove(self, namespace: str) -> None:
        """Delete the namespace with all that is in it, and wait until it is gone."""
        for pod in self.api.list("v1", "Pod", namespace):
            self.api.delete("v1", "Pod", pod["metadata"]["name"], namespace, grace_period_seconds=0)
        self.api.delete("v1", "Namespace", namespace)
        until = time.monotonic() + REMOVED_SECONDS
        while self.api.get("v1", "Namespace", namespace) is not None:
            if time.monotonic() > until:
                raise kube.KubeError(
                    f"The namespace {namespace}, in which {self.options['image']} was tried, is not gone after "
                    f"{REMOVED_SECONDS} s: look with kubectl get namespace {namespace} -o yaml for what holds it."
                )
            self._pause(f"the end of namespace {namespace}", until)

    # --- the programs, on each processor ---------------------------------------------------------------------

    def _programs(self, pull_secrets: list[str]) -> tuple[image_try.Programs, ...]:
        selector, tolerations = self.options["node_selector"], self.options["tolerations"]
        found = []
        desired: Desired = {"node_selector": selector, "tolerations": tolerations}
        for number, processor in enumerate(placement.architectures(self.options["nodes"], desired)):
            own = {**selector, **({"kubernetes.io/arch": processor} if processor else {})}
            timeout = self.options["pull_timeout"]
            made = image_pull.pod(
                self.namespace,
                self.options["name"],
                str(number),
                self.options["image"],
                pull_secrets,
                timeout,
                own,
                tolerations,
                ["litefs", "version"],
            )
            found.append(self._look(image_try.look_pod(made), processor, timeout))
        return tuple(found)

    def _look(self, made: Object, processor: str, timeout: int) -> image_try.Programs:
        self.api.create(made)
        name, until = made["metadata"]["name"], time.monotonic() + timeout
        while True:
            pod = self._pod(name)
            found = image_try.programs(pod, processor)
            if found is not None:
                return found
            if time.monotonic() > until:
                status = image_pull.judge(pod)
                reason = status.reason or image_pull.last_warning(self.api.list("v1", "Event", self.namespace), name)
                node = str(pod["spec"].get("nodeName") or "")
                said = reason or f"nothing came within {timeout} s"
                return image_try.Programs(processor, node, image_pull.Status(reason=said), reason=said)
            self._pause(f"the programs of the image for {processor}", until)

    def _pod(self, name: str) -> Object:
        pod: Object | None = self.api.get("v1", "Pod", name, self.namespace)
        if pod is None:
            raise kube.KubeError(f"Pod {self.namespace}/{name} was removed while it tried the image: run again.")
        return pod

    # --- the application -------------------------------------------------------------------------------------

    def _application(self, made: Object, seen: image_try.Seen) -> image_try.Seen:
        self.api.create(made)
        if self.wanted.migrates:
            seen = replace(seen, migration=self._migration())
            if seen.migration is None or seen.migration.code != 0:
                return seen
        # Its own pull is the second one of the image, on a node that may be another.
        start = self._start(image_try.PRIMARY, self.options["pull_timeout"])
        seen = replace(seen, primary=start)
        if start.code is not None or start.error:
            return seen
        seen = replace(seen, database_bytes=self._database_bytes(), written=self._written())
        if self.options["idle"] and start.answer is not None:
            seen = replace(seen, idle=self.options["idle"], held=self._held())
        seen = replace(seen, end=self._end())
        if not seen.database_bytes or not self._hand_over():
            return seen
        return replace(seen, replica=self._start(image_try.REPLICA, 0))

    def _migration(self) -> image_try.Start:
        until = self.options["pull_timeout"] + self.options["start_timeout"]
        began = time.monotonic()
        while True:
            code, error = image_try.container_end(self._pod(image_try.POD), image_try.MIGRATE)
            seconds = time.monotonic() - began
            # A first failure to pull is tried again by the kubelet.
            if code is not None or seconds > until:
                return image_try.Start(seconds, code=code, error=error, log=self._log(image_try.MIGRATE))
            self._pause("the migration", began + until)

    def _start(self, container: str, before: int) -> image_try.Start:
        """Wait until it listens and answers 200, ends, or its time is over; ``before``: seconds until it is created."""
        began = time.monotonic()
        while True:
            pod = self._pod(image_try.POD)
            code, error = image_try.container_end(pod, container)
            runs = image_try.is_running(pod, container)
            if code is not None or runs or time.monotonic() - began > before:
                break
            self._pause(f"the start of container {container}", began + before)
        if not runs:
            error = error or ("" if code is not None else f"its container was not started within {before} s")
            return image_try.Start(time.monotonic() - began, code=code, error=error, log=self._log(container))
        address = str(pod["status"].get("podIP") or "")
        began = time.monotonic()
        while True:
            code, _error = image_try.container_end(self._pod(image_try.POD), container)
            listening = self._sockets() if code is None else ()
            answer, unanswered = None, ""
            if any(one.port == self.wanted.port for one in listening):
                answer, unanswered = self._ask()
            seconds = time.monotonic() - began
            good = answer is not None and answer.status == 200
            if good or code is not None or seconds > self.options["start_timeout"]:
                log = self._log(container)
                return image_try.Start(seconds, listening, address, answer, unanswered, code, "", log)
            self._pause(f"the answer of container {container}", began + self.options["start_timeout"])

    def _sockets(self) -> tuple[image_try.Socket, ...]:
        try:
            table = self._in(image_try.LOOKER, image_try.SOCKETS)
        except kube.KubeError:
            # The container that looks may start after the application's; where it never does, nothing listens.
            table = ""
        found: tuple[image_try.Socket, ...] = image_try.sockets(table)
        return found

    def _headers(self) -> dict[str, str]:
        # As the kubelet's probe and Traefik send it.
        return {"Host": self.wanted.domain, "X-Forwarded-Proto": "https", "Connection": "keep-alive"}

    def _ask(self) -> tuple[image_try.Answer | None, str]:
        try:
            status, headers, body = self.api.portforward_get(
                self.namespace, image_try.POD, self.wanted.port, self.wanted.path, headers=self._headers()
            )
        except kube.KubeError as exc:
            return None, str(exc).rstrip(".")
        return image_try.answer(status, headers, body), ""

    def _held(self) -> bool:
        idle = self.options["idle"]
        try:
            with self.api.portforward(self.namespace, image_try.POD, self.wanted.port, timeout=idle + 20) as get:
                get(self.wanted.path, self._headers())
                tell("An idle connection, whether it is kept", deadline=time.monotonic() + idle)
                time.sleep(idle)
                get(self.wanted.path, self._headers())
        except kube.KubeError:
            return False
        return True

    def _database_bytes(self) -> int:
        said = self._in(image_try.LOOKER, ["sh", "-c", image_try.SIZE, "size", self.wanted.database])
        return int(said.strip() or 0)

    def _written(self) -> tuple[str, ...] | None:
        try:
            return tuple(self._in(image_try.PRIMARY, image_try.WRITTEN, timeout=60).splitlines())
        except kube.KubeError:
            return None

    def _end(self) -> image_try.End | None:
        try:
            self._in(image_try.PRIMARY, image_try.END)
        except kube.KubeError:
            return None
        began = time.monotonic()
        killed = False
        while True:
            code, _error = image_try.container_end(self._pod(image_try.POD), image_try.PRIMARY)
            seconds = time.monotonic() - began
            if code is not None:
                return image_try.End(seconds, None if killed else code)
            if not killed and seconds > self.options["grace"]:
                killed = True
                # Else it would have the port that its successor needs.
                with contextlib.suppress(kube.KubeError):
                    self._in(image_try.PRIMARY, image_try.KILL)
            if seconds > self.options["grace"] + 10:
                return image_try.End(seconds, None)
            self._pause("the end after SIGTERM", began + self.options["grace"] + 10)

    def _hand_over(self) -> bool:
        """Copy the database to where it may only be read, and let the second container start."""
        try:
            self._in(image_try.LOOKER, ["sh", "-c", image_try.HAND_OVER, "hand", self.wanted.database], timeout=60)
        except kube.KubeError:
            return False
        return True

    def _in(self, container: str, command: Any, timeout: float = 15) -> str:
        said: str = self.api.run(self.namespace, image_try.POD, container, list(command), timeout)
        return said

    def _log(self, container: str) -> str:
        query = urllib.parse.urlencode({"container": container, "tailLines": LOG_LINES})
        try:
            raw: bytes = self.api.raw(f"/api/v1/namespaces/{self.namespace}/pods/{image_try.POD}/log?{query}")
        except kube.KubeError:
            return ""
        return raw.decode(errors="replace")


def shown(output: str, results: list[Any], summary: Any) -> str:
    """The output that was asked for."""
    if output == "json":
        return json.dumps({"summary": asdict(summary), "checks": [asdict(one) for one in results]}, indent=2) + "\n"
    said: str = view.junit(results) if output == "junit" else view.lines(results, summary)
    return said


def expectations(options: dict[str, Any]) -> image_try.Wanted:
    """What the image is held to, from the module's options."""
    return image_try.Wanted(
        image=options["image"],
        port=options["port"],
        path=options["health_path"],
        domain=options["domain"],
        database=options["database"],
        migrates=bool(options["migrate_command"].strip()),
        allow_other=options["allow_other"],
        start=options["start_timeout"],
        grace=options["grace"],
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **arguments.APPLICATION,
            "image": {"type": "str", "required": True},
            "pod": {"type": "dict", "required": True},
            "command": {"type": "str", "required": True},
            "migrate_command": {"type": "str", "default": ""},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "pull_secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "login": {
                "type": "dict",
                "options": {
                    "server": {"type": "str", "required": True},
                    "username": {"type": "str", "required": True},
                    "token": {"type": "str", "required": True, "no_log": True},
                },
            },
            "nodes": {"type": "list", "elements": "dict", "required": True},
            "node_selector": {"type": "dict", "default": {}},
            "tolerations": {"type": "list", "elements": "dict", "default": []},
            "listen_address": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 3000},
            "health_path": {"type": "str", "default": "/"},
            "domain": {"type": "str", "required": True},
            "database": {"type": "str", "default": "sqlite.db"},
            "allow_other": {"type": "bool", "default": False},
            "pull_timeout": {"type": "int", "default": 180},
            "start_timeout": {"type": "int", "default": 60},
            "grace": {"type": "int", "default": 29},
            "idle": {"type": "int", "default": 0},
            "output": {"type": "str", "choices": ["text", "json", "junit"], "default": "text"},
        },
        supports_check_mode=True,
    )
    options = module.params
    # A secret of one letter would make stars of half of what is shown.
    module.no_log_values = {value for value in module.no_log_values if len(value) >= HIDDEN_LETTERS}
    if module.check_mode:
        module.exit_json(
            changed=False,
            skipped=True,
            msg=f"{options['image']} is not tried in check mode, because it takes pods.",
        )
    wanted = expectations(options)
    exit_on_signals()
    try:
        seen = Try(kube.connect(options["kubeconfig"]), options, wanted).run()
    except (kube.KubeError, ValueError) as exc:
        module.fail_json(msg=str(exc))
    results = image_try.judge(seen, wanted)
    summary = image_try.summary(results, wanted)
    module.exit_json(
        changed=False,
        code=summary.code,
        sentence=summary.sentence,
        shown=shown(options["output"], results, summary),
        checks=[asdict(one) for one in results],
    )


def exit_on_signals() -> None:
    """Make SIGTERM and SIGHUP an exception: their default action would leave the namespace behind."""

    def end(received: int, _frame: Any) -> None:
        raise SystemExit(128 + received)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


if __name__ == "__main__":
    main()

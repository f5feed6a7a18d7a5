"""The pull check: what a pod's status means, and that no pod is left behind."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import image_pull
from ansible_collections.abaci.infra.plugins.module_utils.kube import KubeError
from ansible_collections.abaci.infra.plugins.modules import image_pull_check

NOT_FOUND = (
    'rpc error: code = NotFound desc = failed to pull and unpack image "ghcr.io/a/b:9": failed to resolve reference '
    '"ghcr.io/a/b:9": ghcr.io/a/b:9: not found'
)
DENIED = (
    'failed to resolve reference "ghcr.io/a/b:1": pull access denied, repository does not exist or may require login'
)
REFUSED = 'failed to do request: Head "https://ghcr.io/v2/a/b": dial tcp 10.0.0.1:443: connect: connection refused'


def status(state: dict[str, Any] | None = None, image_id: str = "", **more: Any) -> dict[str, Any]:
    containers = [] if state is None else [{"name": "pull", "state": state, "imageID": image_id}]
    return {"spec": {"nodeName": "node-1"}, "status": {"phase": "Pending", "containerStatuses": containers, **more}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return status({"terminated": {"exitCode": code, "reason": reason, "message": message}}, "x@sha256:11")


@pytest.mark.parametrize(
    ("item", "pulled", "final", "words"),
    [
        (status(), False, False, None),
        (status(waiting("ContainerCreating")), False, False, None),
        (status({"running": {}}, "ghcr.io/a/b@sha256:11"), True, False, None),
        (status({"terminated": {"exitCode": 0}}, "ghcr.io/a/b@sha256:11"), True, False, None),
        # The image has no `true`: it was pulled all the same.
        (status({"terminated": {"exitCode": 128, "reason": "StartError"}}, "x@sha256:11"), True, False, None),
        (status(waiting("CreateContainerError", "no command specified")), True, False, None),
        (status(waiting("RunContainerError", "exec: true: not found")), True, False, None),
        (ended(255, "exec /bin/true: exec format error"), False, True, "exec format error"),
        (status(waiting("RunContainerError", "exec /bin/true: Exec format error")), False, True, "format error"),
        (status(waiting("ErrImagePull", NOT_FOUND)), False, True, "ghcr.io/a/b:9: not found"),
        (
            status(waiting("ImagePullBackOff", f'Back-off pulling image "a": ErrImagePull: {NOT_FOUND}')),
            False,
            True,
            "not",
        ),
        (status(waiting("ErrImagePull", DENIED)), False, True, "access denied"),
        (status(waiting("ErrImagePull", "unexpected status code 401 Unauthorized")), False, True, "401"),
        (status(waiting("ErrImagePull", REFUSED)), False, False, "connection refused"),
        (status(waiting("ErrImagePull", "dial tcp: lookup ghcr.io: i/o timeout")), False, False, "timeout"),
        (status(waiting("ErrImagePull", "unexpected status code 503")), False, False, "503"),
        (status(waiting("ImagePullBackOff")), False, False, "ImagePullBackOff"),
        (status(waiting("InvalidImageName", "couldn't parse image name")), False, True, "parse image name"),
        (
            status(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]),
            False,
            False,
            "no node takes the pod: 0/1 nodes",
        ),
        (
            status(phase="Failed", reason="OutOfcpu", message="Node had no room"),
            False,
            True,
            "rejected the pod: Node had",
        ),
    ],
)
def test_the_status_is_read(item: dict[str, Any], pulled: bool, final: bool, words: str | None) -> None:
    found = image_pull.judge(item)
    assert (found.pulled, found.final) == (pulled, final)
    assert found.reason is None if words is None else words in (found.reason or "")


LITEFS = ["litefs", "version"]
MISSING = (
    'failed to create containerd task: runc create failed: unable to start container process: exec: "litefs": '
    "executable file not found in $PATH: unknown"
)


@pytest.mark.parametrize(
    ("item", "pulled", "fault", "words"),
    [
        (ended(0, reason="Completed"), True, None, None),
        (status({"running": {}}, "x@sha256:11"), False, None, "litefs version has not ended"),
        (status(waiting("ContainerCreating")), False, None, None),
        # The kubelet goes on from there to the end that counts.
        (status(waiting("RunContainerError", MISSING)), False, None, "not found"),
        (status(waiting("ErrImagePull", NOT_FOUND)), False, None, "ghcr.io/a/b:9: not found"),
        (ended(128, MISSING, "StartError"), False, "program", "executable file not found"),
        (ended(127, "executable file `litefs` not found in $PATH", "StartError"), False, "program", "not found"),
        (ended(255, "exec /usr/local/bin/litefs: exec format error"), False, "processor", "exec format error"),
        (ended(126, "exec: litefs: permission denied", "StartError"), False, "", "exit code 126: exec: litefs: perm"),
        (ended(128, "shim is gone", "StartError"), False, "node", "shim is gone"),
        (ended(137, "", "OOMKilled"), False, "node", "OOMKilled"),
        (ended(1), False, "", "exit code 1: Error"),
    ],
)
def test_a_program_that_the_image_has_to_have_is_run(
    item: dict[str, Any], pulled: bool, fault: str | None, words: str | None
) -> None:
    found = image_pull.judge(item, LITEFS)
    assert (found.pulled, found.fault) == (pulled, fault)
    assert found.final is (fault is not None or bool(words and "ghcr.io" in words))
    assert found.reason is None if words is None else words in (found.reason or "")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            ended(255, "exec /usr/local/bin/litefs: exec format error"),
            r"b:9 is for another processor than that of node node-1 \(exec .* exec format error\): set app_image to .*"
            r"app_node_selector .*\(nothing was changed\)\.$",
        ),
        (
            ended(128, MISSING, "StartError"),
            r"b:9 has no litefs \(.*not found.*correct app_image; roles/app/README\.md",
        ),
        (ended(3, "bad"), r"b:9 cannot run litefs version on node node-1 \(exit code 3: bad\): correct app_image;"),
    ],
)
def test_an_image_that_cannot_run_fails_at_once_in_one_sentence(item: dict[str, Any], words: str) -> None:
    api = FakeApi(item)
    with pytest.raises(KubeError, match=words):
        run(api, timeout=3600, command=LITEFS)
    assert api.pods == set()


def test_the_pod_runs_the_program_as_the_applications_pods_do() -> None:
    (made,) = image_pull.pod("abaci", "abaci-app", "0a1b2c", "a:1", [], 60, command=LITEFS)["spec"]["containers"]
    assert made["command"] == LITEFS and made["securityContext"]["runAsUser"] == 0
    # What a program of another processor says stands in its log alone.
    assert made["terminationMessagePolicy"] == "FallbackToLogsOnError"
    (plain,) = image_pull.pod("abaci", "redis", "0a1b2c", "a:1", [], 60)["spec"]["containers"]
    assert plain["command"] == ["true"] and "runAsUser" not in plain["securityContext"]


@pytest.mark.parametrize(
    ("image", "kept", "policy"),
    [
        ("a:1", False, "Always"),
        ("a:1", True, "IfNotPresent"),
        ("a@sha256:" + "1" * 64, False, "IfNotPresent"),
    ],
)
def test_the_registry_is_asked_where_the_pods_would_ask_it(image: str, kept: bool, policy: str) -> None:
    (made,) = image_pull.pod("abaci", "abaci-app", "0a1b2c", image, [], 60, kept=kept)["spec"]["containers"]
    assert made["imagePullPolicy"] == policy


def test_the_digest_is_that_of_the_image() -> None:
    found = image_pull.judge(status({"running": {}}, "ghcr.io/a/b@sha256:" + "1" * 64))
    assert found.digest == "sha256:" + "1" * 64


def test_the_registrys_words_come_without_the_kubelets_wrapping() -> None:
    said = image_pull.plain(f'Back-off pulling image "ghcr.io/a/b:9": ErrImagePull: {NOT_FOUND}.')
    assert said.startswith("failed to pull and unpack image")
    assert said.endswith("ghcr.io/a/b:9: not found")


def test_the_pod_is_nobodys_endpoint_and_ends_by_itself() -> None:
    made = image_pull.pod("abaci", "abaci-app", "0a1b2c", "a:1", ["login"], 60)
    assert made["metadata"]["name"] == "abaci-app-pull-0a1b2c"
    assert "app" not in made["metadata"]["labels"]
    spec = made["spec"]
    assert (spec["restartPolicy"], spec["automountServiceAccountToken"]) == ("Never", False)
    assert spec["activeDeadlineSeconds"] == 90
    assert spec["imagePullSecrets"] == [{"name": "login"}]
    assert (spec["containers"][0]["imagePullPolicy"], spec["containers"][0]["image"]) == ("Always", "a:1")
    assert "volumes" not in spec


class FakeApi:
    """A namespace in which a pod goes through ``statuses``, one per look."""

    def __init__(
        self, *statuses: dict[str, Any] | None, left: tuple[str, ...] = (), secrets: tuple[str, ...] = ()
    ) -> None:
        self.statuses = list(statuses)
        self.pods = set(left)
        self.secrets = secrets
        self.logins: set[str] = set()
        self.created: list[str] = []
        self.refuse: KubeError | None = None
        self.events: list[dict[str, Any]] = []

    def get(self, _version: str, kind: str, name: str, _namespace: str | None = None) -> dict[str, Any] | None:
        if kind == "Namespace":
            return {} if name == "abaci" else None
        if kind == "Secret":
            return {} if name in self.secrets else None
        if name not in self.pods:
            return None
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def list(self, _version: str, kind: str, _namespace: str, selector: str = "") -> list[dict[str, Any]]:
        if kind == "Event":
            return [event for event in self.events if event["involvedObject"]["name"] in {*self.pods, "other"}]
        assert selector == "app.kubernetes.io/component=image-check,app.kubernetes.io/instance=abaci-app"
        return [{"metadata": {"name": name}} for name in sorted(self.pods if kind == "Pod" else self.logins)]

    def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        if self.refuse:
            raise self.refuse
        if obj["kind"] == "Secret":
            self.logins.add(obj["metadata"]["name"])
            return obj
        assert not self.pods, "leftovers go first"
        self.created.append(obj["metadata"]["name"])
        self.pods.add(obj["metadata"]["name"])
        return obj

    def delete(
        self, _version: str, kind: str, name: str, _namespace: str, *, grace_period_seconds: int | None = None
    ) -> bool:
        assert grace_period_seconds == 0
        known = self.pods if kind == "Pod" else self.logins
        there = name in known
        known.discard(name)
        return there


def run(api: FakeApi, **changed: Any) -> dict[str, Any]:
    options = {
        "namespace": "abaci",
        "name": "abaci-app",
        "image": "ghcr.io/a/b:9",
        "pull_secrets": [],
        "command": [],
        "kept": False,
        "timeout": 5,
        "node_selector": {},
        "tolerations": [],
        "variables": ["app_image", "app_image_pull_secrets"],
    } | changed
    result: dict[str, Any] = image_pull_check.check(api, options, pause=0.01)
    return result


PULLED = status({"terminated": {"exitCode": 0}}, "ghcr.io/a/b@sha256:11")


def test_a_pull_that_works_returns_the_digest_and_leaves_no_pod() -> None:
    api = FakeApi(status(), status(waiting("ContainerCreating")), PULLED)
    result = run(api)
    assert (result["digest"], result["node"], api.pods, len(api.created)) == ("sha256:11", "node-1", set(), 1)


def test_a_registry_that_was_away_for_a_moment_is_waited_for() -> None:
    assert run(FakeApi(status(waiting("ErrImagePull", REFUSED)), PULLED))["digest"] == "sha256:11"


def test_an_image_that_does_not_exist_fails_at_once_in_one_sentence() -> None:
    api = FakeApi(status(waiting("ErrImagePull", NOT_FOUND)))
    with pytest.raises(KubeError) as caught:
        run(api, timeout=3600)
    sentence = str(caught.value)
    assert sentence.startswith("The image ghcr.io/a/b:9 cannot be pulled by node node-1: failed to pull")
    assert "; correct app_image or app_image_pull_secrets (" in sentence and "\n" not in sentence
    assert api.pods == set()
    with pytest.raises(KubeError, match=r"; correct redis_image \(nothing was changed\)"):
        run(api, variables=["redis_image"])


@pytest.mark.parametrize(
    ("hanging", "words"),
    [
        (status(waiting("ErrImagePull", REFUSED)), r"within 0 s: failed to do request.*connection refused"),
        (status(waiting("ContainerCreating")), r"within 0 s: the node has not finished pulling it"),
    ],
)
def test_a_pull_that_hangs_fails_when_its_time_is_over(hanging: dict[str, Any], words: str) -> None:
    api = FakeApi(hanging)
    with pytest.raises(KubeError, match=words):
        run(api, timeout=0)
    assert api.pods == set()


def test_what_the_cluster_said_last_about_the_pod_is_the_reason_where_its_status_has_none() -> None:
    api = FakeApi(status(waiting("ContainerCreating")))
    create = api.create

    def create_and_warn(obj: dict[str, Any]) -> dict[str, Any]:
        mine, other = {"name": obj["metadata"]["name"]}, {"name": "other"}
        api.events = [
            {
                "type": "Warning",
                "involvedObject": mine,
                "message": "no sandbox",
                "lastTimestamp": "2026-01-01T00:00:09Z",
            },
            {"type": "Warning", "involvedObject": mine, "message": "older", "lastTimestamp": "2026-01-01T00:00:01Z"},
            {"type": "Normal", "involvedObject": mine, "message": "Scheduled", "eventTime": "2026-01-01T00:00:10Z"},
            {"type": "Warning", "involvedObject": other, "message": "x", "lastTimestamp": "2026-01-01T00:00:11Z"},
        ]
        return create(obj)

    api.create = create_and_warn  # type: ignore[method-assign]
    with pytest.raises(KubeError, match="within 0 s: no sandbox;"):
        run(api, timeout=0)


def test_leftovers_of_dead_runs_go_first() -> None:
    api = FakeApi(PULLED, left=("abaci-app-pull-aaaaaa", "abaci-app-pull-bbbbbb"))
    run(api)
    assert api.pods == set()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_is_stopped_deletes_its_pod(error: BaseException) -> None:
    api = FakeApi(status())
    api.get = lambda *args: {} if args[1] == "Namespace" else (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        run(api)
    assert (len(api.created), api.pods) == (1, set())


def test_a_missing_pull_secret_is_named_before_a_pod_is_made() -> None:
    api = FakeApi(PULLED, secrets=("one",))
    with pytest.raises(KubeError, match=r"pull secret two .* app_image_pull_secrets"):
        run(api, pull_secrets=["one", "two"])
    assert api.created == []


LOGIN = {"server": "ghcr.io", "username": "owner", "token": "t0ken"}


def test_a_login_is_tried_in_a_secret_of_its_own_that_does_not_stay() -> None:
    api = FakeApi(status(), PULLED)
    api.logins = {"abaci-app-pull-aaaaaa"}
    seen: list[set[str]] = []
    create = api.create
    api.create = lambda obj: (create(obj), seen.append(set(api.logins)))[0]  # type: ignore[method-assign, func-returns-value]
    run(api, login=LOGIN)
    assert seen[-1] == set(api.created) and api.logins == set() == api.pods


def test_the_login_is_what_a_kubelet_reads() -> None:
    made = image_pull.login_secret("abaci", "x", "abaci-app", LOGIN)
    config = json.loads(base64.b64decode(made["data"][".dockerconfigjson"]))
    entry = config["auths"]["ghcr.io"]
    assert (entry["username"], entry["password"]) == ("owner", "t0ken")
    assert base64.b64decode(entry["auth"]) == b"owner:t0ken" and made["type"] == "kubernetes.io/dockerconfigjson"


def test_an_expired_token_is_named_with_the_registrys_reason_and_not_shown() -> None:
    said = (
        'failed to pull and unpack image "ghcr.io/a/b:9": failed to resolve reference "ghcr.io/a/b:9": failed to '
        "authorize: failed to fetch oauth token: unexpected status from GET request to https://ghcr.io/token: "
        "403 Forbidden: denied"
    )
    api = FakeApi(status(waiting("ErrImagePull", said)))
    with pytest.raises(KubeError, match=r"403 Forbidden: denied; renew app_registry_token") as failure:
        run(api, login=LOGIN)
    assert "t0ken" not in str(failure.value) and api.logins == set() == api.pods


def test_a_missing_namespace_is_named() -> None:
    with pytest.raises(KubeError, match="There is no namespace nowhere"):
        run(FakeApi(PULLED), namespace="nowhere")


def test_a_pod_that_the_api_refuses_is_an_error() -> None:
    api = FakeApi(PULLED)
    api.refuse = KubeError("The API server answered 403: quota exceeded.", 403)
    with pytest.raises(KubeError, match="quota"):
        run(api)


def test_a_pod_that_somebody_removed_is_an_error() -> None:
    with pytest.raises(KubeError, match="was removed while it pulled"):
        run(FakeApi(None))

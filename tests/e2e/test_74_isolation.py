"""The application is alone: who reaches it over the network, and what its process may do on its node."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sitebed import Bed, until

CAP_SYS_ADMIN = 1 << 21
# CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID: over the container's own files and processes
FILES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 7
# The processes of one container whose program is the application.
FIND = """for process in /proc/[0-9]*; do
  grep -qs "$1" "$process/cgroup" && tr '\\0' ' ' <"$process/cmdline" | grep -q '^python3 server.py' &&
    echo "${process#/proc/}"
done; true"""
# The same within its container; prints the environment of the process.
ENVIRONMENT = """
import json, pathlib
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if (process / "cmdline").read_bytes().startswith(b"python3\\0server.py"):
        pairs = (process / "environ").read_bytes().decode().rstrip("\\0").split("\\0")
        print(json.dumps(dict(pair.split("=", 1) for pair in pairs)))
        break
"""
STRANGER = "stranger"
# Whether a TCP connection is made within 5 s; LiteFS, the application behind and before LiteFS, and Redis.
PORTS = {"20202": "abaci-app", "3000": "abaci-app", "8080": "abaci-app", "6379": "redis"}


def stranger(bed: Bed, namespace: str, name: str = STRANGER) -> None:
    bed.kubectl(
        *("run", name, "-n", namespace, "--image=docker.io/library/busybox:1.36", "--restart=Never"),
        *("--", "sleep", "3600"),
    )
    bed.kubectl("wait", f"pod/{name}", "-n", namespace, "--for=condition=Ready", "--timeout=60s")


def reaches(bed: Bed, namespace: str, address: str, port: str) -> bool:
    said = bed.kubectl(
        "exec",
        "-n",
        namespace,
        STRANGER,
        "--",
        "sh",
        "-c",
        f"nc -w 5 {address} {port} </dev/null && echo open",
        check=False,
    )
    return "open" in said


def addresses(bed: Bed, label: str) -> list[str]:
    return [pod["status"]["podIP"] for pod in bed.get("pods", "-n", "abaci", "-l", f"app={label}")["items"]]


@pytest.fixture(scope="module", params=["elsewhere", "abaci"])
def outsider(bed: Bed, request: pytest.FixtureRequest) -> Iterator[str]:
    """The namespace of a pod that is none of the application's: another one, and the application's own."""
    namespace = str(request.param)
    if namespace != "abaci":
        bed.kubectl("create", "namespace", namespace)
    stranger(bed, namespace)
    yield namespace
    if namespace != "abaci":
        bed.kubectl("delete", "namespace", namespace)
    else:
        bed.kubectl("delete", "pod", STRANGER, "-n", namespace, "--now")


@pytest.mark.parametrize("port", PORTS)
def test_hazard_litefs_asks_for_no_password_so_no_stranger_reaches_it_nor_redis_nor_the_app(
    bed: Bed, outsider: str, port: str
) -> None:
    # The pod can connect where nothing forbids it, so the refusal is the policy's.
    assert reaches(bed, outsider, "kube-dns.kube-system.svc.cluster.local", "53")
    for address in addresses(bed, PORTS[port]):
        assert not reaches(bed, outsider, address, port), f"{address}:{port} is open to a pod in {outsider}"


def test_the_pods_still_replicate_and_traefik_still_serves(bed: Bed) -> None:
    answer = bed.edge("POST", "/api/records", b'{"body": "isolation"}')
    assert answer.status == 201, answer.body
    count = bed.rows("abaci-app-0", "select count(*) from records")
    for pod in ("abaci-app-1", "abaci-app-2"):
        until(lambda name=pod: bed.rows(name, "select count(*) from records") == count, 15, f"the row on {pod}")


def processes(bed: Bed) -> Iterator[tuple[str, dict[str, str], str, str]]:
    """(pod, /proc/PID/status, its user namespace, the host's) of each application's process, as its node sees it."""
    for pod in bed.pods():
        node, name = pod["spec"]["nodeName"], pod["metadata"]["name"]
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        (pid,) = bed.node_exec(node, "sh", "-c", FIND, "sh", container).split()
        lines = bed.node_exec(node, "cat", f"/proc/{pid}/status").splitlines()
        status = {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}
        own = bed.node_exec(node, "readlink", f"/proc/{pid}/ns/user").strip()
        yield name, status, own, bed.node_exec(node, "readlink", "/proc/1/ns/user").strip()


def apply(bed: Bed, *variables: str) -> str:
    run = bed.playbook("--tags", "app", *(f"-e{variable}" for variable in variables))
    assert run.rc == 0, run.output[-3000:]
    return " ".join(run.output.split())


def test_seen_from_its_node_the_application_is_nobody(bed: Bed) -> None:
    found = list(processes(bed))
    assert len(found) == 3
    for pod, status, own, host in found:
        assert own != host, f"{pod} is in the host's user namespace"
        assert all(int(uid) >= 65536 for uid in status["Uid"].split()), f"{pod}: {status['Uid']}"
        assert int(status["CapEff"], 16) == CAP_SYS_ADMIN | FILES, f"{pod}: {status['CapEff']}"
        assert status["Seccomp"] == "2", f"{pod} has no seccomp filter"


def test_it_writes_to_what_the_image_gave_to_another_owner(bed: Bed) -> None:
    write = "mkdir -p /opt/cache && chown 1001:1001 /opt/cache && chmod 700 /opt/cache && : >/opt/cache/x"
    for pod in bed.pods():
        bed.kubectl("exec", "-n", "abaci", pod["metadata"]["name"], "-c", "app", "--", "sh", "-c", write)


def test_its_process_has_the_sites_address_and_listens_where_litefs_asks(bed: Bed) -> None:
    for pod in bed.pods():
        name = pod["metadata"]["name"]
        told = json.loads(bed.kubectl("exec", "-n", "abaci", name, "-c", "app", "--", "python3", "-c", ENVIRONMENT))
        assert told["AUTH_URL"] == told["NEXT_PUBLIC_URL"] == f"https://abaci.localhost:{bed.https_port}"
        assert told["HOSTNAME"] == "0.0.0.0" and told["POD_NAME"] == name


@pytest.mark.long
def test_who_is_named_reaches_the_application_alone_and_a_scratch_path_begins_empty(bed: Bed, outsider: str) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": outsider}}}
    apply(bed, json.dumps({"app_ingress_from": [peer], "app_scratch_paths": ["/srv"]}))
    for port in ("8080", "20202", "3000"):
        for address in addresses(bed, "abaci-app"):
            assert reaches(bed, outsider, address, port) is (port == "8080"), f"{address}:{port}"
    for pod in bed.pods():
        kept = 'test -z "$(ls -A /srv)" && : >/srv/page'
        bed.kubectl("exec", "-n", "abaci", pod["metadata"]["name"], "-c", "app", "--", "sh", "-c", kept)
    apply(bed)


def test_redis_meets_the_restricted_level_and_the_application_is_what_the_namespace_is_open_for(bed: Bed) -> None:
    said = bed.kubectl(
        *("label", "namespace", "abaci", "--dry-run=server", "--overwrite", "--warnings-as-errors"),
        "pod-security.kubernetes.io/enforce=restricted",
        check=False,
    )
    assert "abaci-app-0" in said and "redis" not in said, said


@pytest.mark.long
def test_without_a_user_namespace_it_keeps_the_same_one_capability(bed: Bed) -> None:
    said = apply(bed, '{"app_user_namespace": false}')
    assert "without a user namespace of their own: app_user_namespace is false" in said
    for pod, status, own, host in processes(bed):
        assert own == host and int(status["CapEff"], 16) == CAP_SYS_ADMIN, f"{pod}: {own} {status['CapEff']}"
    assert bed.edge("POST", "/api/records", b'{"body": "device"}').status == 201


@pytest.mark.long
def test_the_original_way_still_works(bed: Bed) -> None:
    said = apply(bed, '{"app_privileged": true}')
    assert "privileged and have the whole host: app_privileged is true" in said
    assert all(pod["spec"]["containers"][0]["securityContext"]["privileged"] for pod in bed.pods())
    assert bed.edge("POST", "/api/records", b'{"body": "privileged"}').status == 201
    assert "root is nobody on the host" in apply(bed)
    assert all(own != host for _, _, own, host in processes(bed))


@pytest.mark.long
def test_a_second_run_changes_nothing(bed: Bed) -> None:
    run = bed.playbook()
    assert run.rc == 0 and run.total("changed") == 0, run.output[-3000:]

"""A site that is well, with all that status.yml looks at, on a fake API; and what is to be asked of it."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
import json
from typing import Any
from unittest import mock

import factory_objects as make
from ansible_collections.abaci.infra.plugins.module_utils.status import checks, observe, reading
from ansible_collections.abaci.infra.plugins.module_utils.status.facts import Facts
from ansible_collections.abaci.infra.plugins.module_utils.status.reading import Asked
from fake_api import Cluster, Request

GI = 1 << 30
DOMAIN = "abaci.example.org"
PARTS = (("traefik", "kube-system"), ("coredns", "kube-system"), ("redis", make.NAMESPACE), ("keel", "keel"))
ASKED = Asked(
    namespace=make.NAMESPACE,
    name=make.NAME,
    database=make.DATABASE,
    domains=(DOMAIN,),
    address="192.0.2.10",
    parts=(*((name, namespace, True) for name, namespace in PARTS), ("cert-manager", "cert-manager", False)),
    hosts={f"node-{n}": f"192.0.2.{10 + n}" for n in range(3)},
    inventory="inventories/mine",
    cluster_copied={"time": datetime.datetime.now().timestamp() - 3600, "place": "/mnt/nas"},
)
GOOD_PAGE = {"status": 200, "headers": [], "length": 20, "error": ""}
GOOD_WRITE = {"status": 404, "headers": [["Set-Cookie", "__txid=1"]], "length": 9, "error": ""}


@functools.cache
def certificate(days: float = 365, name: str = DOMAIN) -> bytes:
    """A self-signed certificate (PEM) that ends in so many days."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return bytes(made.public_bytes(serialization.Encoding.PEM))


class Site(Cluster):  # type: ignore[misc]
    """Cluster with what stands around the application. ``mute``: nodes whose kubelets do not answer.

    Its clock stands still: nothing grows old because the machine of the test is slow.
    """

    def __init__(self, replicas: int = 3) -> None:
        self.made = datetime.datetime.now(datetime.UTC)
        super().__init__(replicas)
        self.disk_percent = {f"node-{n}": 40 for n in range(replicas)}
        self.mute: set[str] = set()
        self.put({"kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}, "data": {}})
        for name, namespace in PARTS:
            self.put(part(name, namespace))
        for n in range(replicas):
            self.put(
                {
                    "kind": "Lease",
                    "metadata": {"name": f"node-{n}", "namespace": "kube-node-lease"},
                    "spec": {"renewTime": self.ago(5)},
                }
            )
        self.put({"kind": "Secret", "metadata": {"name": "abaci-tls"}, "data": {"tls.crt": b64(certificate())}})
        job = {"schedule": "17 3 * * *"}
        self.put(
            {
                "kind": "CronJob",
                "metadata": {"name": f"{make.NAME}-backup"},
                "spec": job,
                "status": {"lastSuccessfulTime": self.ago(7200), "lastScheduleTime": self.ago(7260)},
            }
        )
        self.put(backup_job("abaci-app-backup-1", "Complete", self.ago(7200)))
        line = {
            "time": self.ago(86400),
            "holder": "ann@ops/1",
            "operation": "scale",
            "event": "ended",
            "result": "done",
        }
        log = {"log": json.dumps(line) + "\n"}
        self.put({"kind": "ConfigMap", "metadata": {"name": f"{make.NAME}-audit"}, "data": log})
        living = self.have("StatefulSet", make.NAME)
        assert living is not None
        living["metadata"]["annotations"] |= {
            "keel.sh/policy": "force",
            "keel.sh/trigger": "poll",
            "keel.sh/match-tag": "true",
        }

    def time(self) -> datetime.datetime:
        return self.made + datetime.timedelta(seconds=self.clock_ahead)

    def ago(self, seconds: float) -> str:
        return (self.time() - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _plain(self, request: Request) -> tuple[int, Any]:
        if request.path.endswith("/proxy/stats/summary"):
            if request.name in self.mute:
                return 502, {"message": "dial tcp 192.0.2.11:10250: connect: connection refused"}
            percent = self.disk_percent[request.name]
            used = GI * percent
            file_system = {"capacityBytes": 100 * GI, "usedBytes": used, "availableBytes": 100 * GI - used}
            return 200, {"node": {"fs": file_system}, "pods": []}
        return super()._plain(request)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def part(name: str, namespace: str, ready: bool = True) -> dict[str, Any]:
    """A pod of what stands beside the application; Traefik's is of a DaemonSet."""
    owner = {"kind": "DaemonSet", "name": name} if name == "traefik" else {"kind": "ReplicaSet", "name": f"{name}-7f9c"}
    waiting = {} if ready else {"waiting": {"reason": "CrashLoopBackOff"}}
    return {
        "kind": "Pod",
        "metadata": {"name": f"{name}-7f9c-x", "namespace": namespace, "ownerReferences": [owner]},
        "spec": {"nodeName": "node-0"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": name, "state": waiting}],
        },
    }


def backup_job(name: str, condition: str, created: str, message: str = "") -> dict[str, Any]:
    return {
        "kind": "Job",
        "metadata": {
            "name": name,
            "creationTimestamp": created,
            "ownerReferences": [{"kind": "CronJob", "name": f"{make.NAME}-backup"}],
        },
        "spec": {},
        "status": {"conditions": [{"type": condition, "status": "True", "message": message}]},
    }


def look(
    cluster: Site | None = None,
    asked: Asked = ASKED,
    answers: list[dict[str, Any]] | None = None,
    **shown: bytes | str,
) -> Facts:
    """The facts of a site; ``answers`` of the edge, ``shown`` the certificates, as observe would have found them."""
    api = Site() if cluster is None else cluster
    listed = [GOOD_PAGE] + [GOOD_WRITE] * 4 if answers is None else answers
    secret = (api.have("Secret", asked.tls_secret) or {}).get("data", {}).get("tls.crt", "")
    found = {
        "edge": base64.b64decode(secret) or "it shows none",
        "api": certificate(200),
        "kubeconfig": certificate(200),
    } | shown
    with (
        mock.patch.object(observe, "_requests", lambda _asked: listed),
        mock.patch.object(observe, "_send", lambda request: request),
        mock.patch.object(observe, "_certificates", lambda _api, _asked: found),
    ):
        seen = observe.observe(api, asked)
    made: Facts = reading.facts(seen, asked)
    return dataclasses.replace(made, api=dataclasses.replace(made.api, kubeconfig_mode="0600"))


def bad(facts: Facts) -> dict[str, checks.Result]:
    """The checks that are not well, by slug."""
    return {one.slug: one for one in checks.run(facts) if one.mark in ("warn", "fail")}

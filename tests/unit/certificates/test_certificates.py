"""What cert-manager's objects say about themselves: one sentence each, down to the challenge that is stuck."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import certificates, waiting
from ansible_collections.abaci.infra.plugins.modules import certificate_wait

Object = dict[str, Any]


def condition(kind: str, status: str, reason: str = "", message: str = "", generation: int | None = 1) -> Object:
    made: Object = {"type": kind, "status": status, "reason": reason, "message": message}
    return made if generation is None else made | {"observedGeneration": generation}


def thing(kind: str, name: str, owner: str = "", status: Object | None = None, **more: Any) -> Object:
    metadata: Object = {"name": name, "namespace": "abaci", "uid": name, "generation": 1, "resourceVersion": "7"}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner}]
    metadata |= more.pop("metadata", {})
    return {"kind": kind, "metadata": metadata, "status": status or {}, **more}


# What API servers said while a webhook came up, and what they say when it refuses.
@pytest.mark.parametrize(
    ("message", "race"),
    [
        ('Internal error occurred: failed calling webhook "webhook.cert-manager.io": ...', True),
        ("dial tcp 10.43.1.2:443: connect: connection refused", True),
        ('no endpoints available for service "cert-manager-webhook"', True),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", True),
        ("context deadline exceeded", True),
        ('service "cert-manager-webhook" not found', True),
        ('admission webhook "webhook.cert-manager.io" denied the request: spec.acme.server: Required value', False),
        ("clusterissuers.cert-manager.io is forbidden: User cannot patch", False),
        ('strict decoding error: unknown field "spec.acme.foo"', False),
    ],
)
def test_only_what_comes_with_a_starting_webhook_is_waited_out(message: str, race: bool) -> None:
    assert certificates.in_race(message) is race


def issuer(*conditions: Object, server: str = "https://acme.test/dir", generation: int = 1) -> Object:
    made = thing("ClusterIssuer", "letsencrypt-prod", status={"conditions": list(conditions)})
    made["metadata"]["generation"] = generation
    return made | {"spec": {"acme": {"server": server}}}


REFUSED = "Failed to register ACME account: 400 urn:ietf:params:acme:error:invalidContact: example.com is forbidden."
SILENT = (
    'Failed to register ACME account: Get "https://acme.test/dir": dial tcp 192.0.2.1:443: connect: connection refused'
)


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (None, "waiting", "There is no ClusterIssuer letsencrypt-prod."),
        (issuer(), "waiting", "has not been looked at"),
        (issuer(condition("Ready", "True"), generation=2), "waiting", "has not been looked at"),
        (issuer(condition("Ready", "True", generation=None)), "ready", ""),
        (issuer(condition("Ready", "True")), "ready", ""),
        (issuer(condition("Ready", "False", "ErrRegisterACMEAccount", SILENT)), "waiting", "connection refused."),
        (issuer(condition("Ready", "False", "ErrRegisterACMEAccount", REFUSED)), "failed", "example.com is forbidden."),
        (
            issuer(condition("Ready", "False", "InvalidConfig", "Resource validation failed")),
            "failed",
            "https://acme.test/dir",
        ),
        (issuer(condition("Ready", "False", "ErrGetKeyPair", 'secret "own-ca" not found')), "failed", "own-ca"),
    ],
)
def test_an_issuer_says_itself_why_it_is_not_ready(found: Object | None, state: str, words: str) -> None:
    status = certificates.issuer_status("ClusterIssuer", "letsencrypt-prod", found)
    assert status.state == state
    assert words in status.sentence


def certificate(*conditions: Object, generation: int = 1, **status: Any) -> Object:
    made = thing("Certificate", "abaci-tls", status={"conditions": list(conditions), **status})
    made["metadata"]["generation"] = generation
    names = {"issuerRef": {"kind": "ClusterIssuer", "name": "letsencrypt-prod"}, "dnsNames": ["a.test", "b.test"]}
    return made | {"spec": names}


READY = certificates.Status("ready")
NOT_YET = condition("Ready", "False", "DoesNotExist", "Issuing certificate as Secret does not exist")
PENDING = condition("Ready", "False", "Pending", "Waiting on certificate issuance from order abaci/o: pending")
REQUEST = thing("CertificateRequest", "r", "abaci-tls", {"conditions": [PENDING]})
NO_HOST = (
    "Waiting for HTTP-01 challenge propagation: failed to perform self check GET request 'http://a.test/': "
    "dial tcp: lookup a.test on 10.43.0.10:53: no such host"
)


def warning(uid: str, message: str) -> Object:
    return {"type": "Warning", "involvedObject": {"name": uid, "uid": uid}, "message": message}


def judge(
    found: Object | None,
    requests: list[Object] | None = None,
    orders: list[Object] | None = None,
    challenges: list[Object] | None = None,
    of: certificates.Status = READY,
    events: list[Object] | None = None,
) -> certificates.Status:
    return certificates.certificate_status(
        "abaci/abaci-tls", found, requests or [], orders or [], challenges or [], of, events or []
    )


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (judge(None), "waiting", ["There is no Certificate abaci/abaci-tls."]),
        (judge(certificate(condition("Ready", "True"))), "ready", []),
        (judge(certificate(condition("Ready", "True"), generation=2)), "waiting", ["has not looked at it yet"]),
        (judge(certificate(NOT_YET)), "waiting", ["Secret does not exist"]),
        (
            judge(
                certificate(NOT_YET),
                [REQUEST],
                [thing("Order", "o", "r", {"state": "pending"})],
                [
                    thing(
                        "Challenge",
                        "c",
                        "o",
                        {"state": "pending", "reason": NO_HOST},
                        spec={"type": "HTTP-01", "dnsName": "a.test"},
                    )
                ],
            ),
            "waiting",
            [
                "CertificateRequest r is pending",
                "Order o is pending",
                "the HTTP-01 challenge for a.test is pending",
                "no such host.",
            ],
        ),
        (
            judge(
                certificate(NOT_YET),
                [REQUEST],
                [thing("Order", "o", "r")],
                events=[warning("o", "error creating new order: EOF")],
            ),
            "waiting",
            ["Order o has no answer from the ACME server", "error creating new order: EOF."],
        ),
        (
            judge(
                certificate(
                    NOT_YET, condition("Issuing", "False", "Failed", "The certificate request has failed to complete")
                ),
                [
                    thing(
                        "CertificateRequest",
                        "r",
                        "abaci-tls",
                        {"conditions": [condition("Ready", "False", "Failed", "order is invalid")]},
                    )
                ],
                [thing("Order", "o", "r", {"state": "invalid", "reason": "rejectedIdentifier"})],
            ),
            "failed",
            [
                "has failed to complete",
                "CertificateRequest r is failed (order is invalid)",
                "Order o is invalid (rejectedIdentifier).",
            ],
        ),
        (
            # Failed at another spec: what is tried now is not known yet.
            judge(certificate(condition("Issuing", "False", "Failed", "old", generation=1), generation=2)),
            "waiting",
            [],
        ),
        (
            judge(certificate(NOT_YET), of=certificates.Status("waiting", "There is no ClusterIssuer nobody.")),
            "waiting",
            ["There is no ClusterIssuer nobody."],
        ),
        (
            judge(certificate(NOT_YET), of=certificates.Status("failed", "ClusterIssuer x is not ready: refused.")),
            "failed",
            ["ClusterIssuer x is not ready: refused."],
        ),
    ],
)
def test_a_certificate_names_every_reason_down_to_the_challenge(
    status: certificates.Status, state: str, words: list[str]
) -> None:
    assert status.state == state
    for word in words:
        assert word in status.sentence
    assert status.sentence.count(". ") == 0, "one sentence"


def test_the_newest_request_counts_and_those_of_others_do_not() -> None:
    def request(name: str, revision: int, owner: str) -> Object:
        failed = condition("Ready", "False", "Failed", f"reason of {name}")
        notes = {"annotations": {"cert-manager.io/certificate-revision": str(revision)}}
        return thing("CertificateRequest", name, owner, {"conditions": [failed]}, metadata=notes)

    listed = [request("r10", 10, "abaci-tls"), request("r9", 9, "abaci-tls"), request("r11", 11, "another")]
    sentence = judge(certificate(NOT_YET), listed).sentence
    assert "reason of r10" in sentence
    assert "reason of r9" not in sentence and "reason of r11" not in sentence


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, False),
        (certificate(), False),
        (certificate(condition("Ready", "True"), lastFailureTime="2026-01-01T00:00:00Z"), False),
        (certificate(NOT_YET, lastFailureTime="2026-01-01T00:00:00Z"), True),
        (certificate(NOT_YET, condition("Issuing", "True"), lastFailureTime="2026-01-01T00:00:00Z"), False),
        (certificate(NOT_YET, condition("Issuing", "False", "Failed"), lastFailureTime="2026-01-01T00:00:00Z"), True),
    ],
)
def test_a_break_after_a_failure_is_seen(found: Object | None, expected: bool) -> None:
    assert certificates.resting(found) is expected


def test_asking_again_keeps_the_other_conditions_and_replaces_the_old_issuing() -> None:
    found = certificate(NOT_YET, condition("Issuing", "False", "Failed"), generation=3)
    kept, asked = certificates.asked_again(found, "2026-01-02T00:00:00Z")["conditions"]
    assert kept == NOT_YET
    assert (asked["type"], asked["status"], asked["observedGeneration"]) == ("Issuing", "True", 3)


@pytest.mark.parametrize(
    ("found", "name", "domains", "expected"),
    [
        (certificate(condition("Ready", "True")), "letsencrypt-prod", ["b.test", "a.test"], True),
        (certificate(condition("Ready", "True")), "letsencrypt-staging", ["a.test", "b.test"], False),
        (certificate(condition("Ready", "True")), "letsencrypt-prod", ["a.test"], False),
        (certificate(condition("Ready", "True"), generation=2), "letsencrypt-prod", ["a.test", "b.test"], False),
        (certificate(NOT_YET), "letsencrypt-prod", ["a.test", "b.test"], False),
        (None, "letsencrypt-prod", [], False),
        ({}, "letsencrypt-prod", [], False),
    ],
)
def test_hsts_hazard_a_certificate_counts_only_from_the_issuer_and_for_the_names_of_now(
    found: Object | None, name: str, domains: list[str], expected: bool
) -> None:
    assert certificates.usable(found, {"kind": "ClusterIssuer", "name": name}, domains) is expected


class Cluster:
    """Answers with objects by kind."""

    def __init__(self, objects: dict[str, list[Object]] | None = None) -> None:
        self.objects = objects or {}
        self.applied: list[Object] = []
        self.patched: list[Object] = []

    def get(self, _version: str, kind: str, name: str, _namespace: str | None = None) -> Object | None:
        return next((item for item in self.objects.get(kind, []) if item["metadata"]["name"] == name), None)

    def list(self, _version: str, kind: str, _namespace: str | None = None) -> list[Object]:
        return self.objects.get(kind, [])

    def apply(self, obj: Object, _manager: str, *, force: bool = False, dry_run: bool = False) -> Object:
        self.applied.append(obj)
        return obj

    def patch_status(self, _obj: Object, status: Object) -> Object:
        self.patched.append(status)
        return {}


def wait(cluster: Any, timeout: int = 0) -> waiting.Status:
    return waiting.wait(cluster, waiting.Target("Certificate", "abaci-tls", "abaci"), timeout)


def test_bad_input_an_issuer_that_is_not_there_is_named() -> None:
    wanted = certificate(NOT_YET)
    wanted["spec"]["issuerRef"]["name"] = "nobody"
    assert "There is no ClusterIssuer nobody." in wait(Cluster({"Certificate": [wanted]})).sentence


def test_a_break_is_ended_once_and_an_unanswered_order_is_touched() -> None:
    failed = certificate(NOT_YET, lastFailureTime="2026-01-01T00:00:00Z")
    cluster: Any = Cluster({"Certificate": [failed]})
    assert certificate_wait.ask_again(cluster, "abaci-tls", "abaci") is True
    assert cluster.patched[0]["conditions"][-1]["reason"] == "ManuallyTriggered"
    mine, other = thing("Order", "o", "r"), thing("Order", "o2", "another")
    done = thing("Order", "o3", "r", {"state": "valid"})
    listed = {"Certificate": [certificate(NOT_YET)], "CertificateRequest": [REQUEST], "Order": [mine, other, done]}
    cluster = Cluster(listed)
    assert certificate_wait.ask_again(cluster, "abaci-tls", "abaci") is True
    assert [item["metadata"]["name"] for item in cluster.applied] == ["o"]
    assert not cluster.patched


def test_a_ready_certificate_is_left_alone() -> None:
    ready = certificate(condition("Ready", "True"), lastFailureTime="2026-01-01T00:00:00Z")
    cluster: Any = Cluster({"Certificate": [ready]})
    assert certificate_wait.ask_again(cluster, "abaci-tls", "abaci") is False
    assert wait(cluster).state == "done"
    assert not cluster.patched and not cluster.applied

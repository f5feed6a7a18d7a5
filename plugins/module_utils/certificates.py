"""What cert-manager's objects say about themselves, as one sentence. Pure: objects in, a status out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .conditions import condition, is_ready, youngest_warning
from .objects import Object, Part
from .wording import said

# What an API server says while cert-manager's webhook comes up. Anything else is a refusal, and waiting would not help.
_RACE = (
    "failed calling webhook",
    "connect: connection refused",
    "no endpoints available",
    "certificate signed by unknown authority",
    "context deadline exceeded",
)
# ACME errors that stay until somebody changes something; the others (badNonce, rateLimited, serverInternal) may pass.
_FINAL_ACME = re.compile(
    r"urn:ietf:params:acme:error:(invalidContact|invalidEmail|unsupportedContact|userActionRequired|externalAccountRequired"
    r"|rejectedIdentifier|accountDoesNotExist|unauthorized)"
)
# The condition of a Certificate with which cert-manager issues at once, as `cmctl renew` sets it.
ASK_AGAIN = {
    "type": "Issuing",
    "status": "True",
    "reason": "ManuallyTriggered",
    "message": "Asked for again by abaci.infra",
}
_FINAL_REASONS = ("InvalidConfig", "ErrGetKeyPair", "ErrInvalidKeyPair")


@dataclass(frozen=True)
class Status:
    """``state`` is ready, waiting or failed; ``sentence`` says why it is not ready."""

    state: str
    sentence: str = ""


def in_race(message: str) -> bool:
    """Whether the API server refused only because the webhook is not up yet."""
    return any(part in message for part in _RACE) or bool(re.search(r"service \S+ not found", message))


def _of_now(obj: Object, found: Part) -> bool:
    """Whether a condition is about the object's present spec."""
    seen = found.get("observedGeneration")
    return seen is None or seen >= obj["metadata"].get("generation", 0)


def issuer_status(kind: str, name: str, issuer: Object | None) -> Status:
    """Whether an issuer can be used."""
    if issuer is None:
        return Status("waiting", f"There is no {kind} {name}.")
    ready = condition(issuer, "Ready")
    if not ready or not _of_now(issuer, ready):
        return Status("waiting", f"{kind} {name} has not been looked at by cert-manager yet.")
    if ready["status"] == "True":
        return Status("ready")
    message = said(ready.get("message")) or said(ready.get("reason")) or "no reason given"
    server = ((issuer.get("spec") or {}).get("acme") or {}).get("server")
    where = f" (ACME server {server})" if server and server not in message else ""
    final = ready.get("reason") in _FINAL_REASONS or _FINAL_ACME.search(message) is not None
    return Status("failed" if final else "waiting", f"{kind} {name}{where} is not ready: {message}.")


def certificate_status(
    where: str,
    certificate: Object | None,
    requests: Iterable[Object],
    orders: Iterable[Object],
    challenges: Iterable[Object],
    issuer: Status,
    events: Iterable[Object],
) -> Status:
    """Whether a Certificate is issued; if not, the reasons from it down to the stuck challenge, as one sentence.

    ``requests``, ``orders`` and ``challenges`` are all of the namespace. ``issuer`` is the status of its issuer.
    The youngest warning among ``events`` counts where an object's conditions say nothing.
    """
    if certificate is None:
        return Status("waiting", f"There is no Certificate {where}.")
    ready, issuing = condition(certificate, "Ready"), condition(certificate, "Issuing")
    if ready.get("status") == "True" and _of_now(certificate, ready):
        return Status("ready")
    told = [_own(certificate, ready, issuing)]
    mine = [item for item in requests if _owned(item, certificate)]
    request = max(mine, key=_revision, default=None)
    if request is not None:
        told.append(_request(request))
        own_orders = [item for item in orders if _owned(item, request)]
        order = max(own_orders, key=lambda item: str(item["metadata"].get("creationTimestamp")), default=None)
        if order is not None:
            own = [item for item in challenges if _owned(item, order)]
            told += [_order(order)] + [_challenge(item) for item in own]
            told += [_warning(item, events) for item in (order, *own)]
        told.append(_warning(request, events))
    if issuer.state != "ready":
        told.append(issuer.sentence.rstrip("."))
    reasons = list(dict.fromkeys(part for part in told if part))
    # A failure ends the attempt, and cert-manager takes a break of an hour or more.
    failed = issuing.get("status") == "False" and issuing.get("reason") == "Failed" and _of_now(certificate, issuing)
    return Status(
        "failed" if failed or issuer.state == "failed" else "waiting",
        f"Certificate {where} is not issued: {'; '.join(reasons) or 'cert-manager has not looked at it yet'}.",
    )


def resting(certificate: Object | None) -> bool:
    """Whether cert-manager takes a break after a failed attempt, so that waiting would be in vain."""
    if certificate is None or is_ready(certificate):
        return False
    issuing = condition(certificate, "Issuing")
    return bool((certificate.get("status") or {}).get("lastFailureTime")) and issuing.get("status") != "True"


def unanswered(certificate: Object, requests: Iterable[Object], orders: Iterable[Object]) -> list[Object]:
    """The orders of a certificate that the ACME server has not answered. cert-manager asks for them in growing steps of
    up to five minutes, and at once when they change."""
    mine = [item for item in requests if _owned(item, certificate)]
    return [
        order
        for order in orders
        if not (order.get("status") or {}).get("state") and any(_owned(order, request) for request in mine)
    ]


def asked_again(certificate: Object, now: str) -> Object:
    """The status with which cert-manager issues at once. ``now`` is RFC 3339."""
    kept = [item for item in (certificate.get("status") or {}).get("conditions") or [] if item["type"] != "Issuing"]
    wanted = {
        **ASK_AGAIN,
        "lastTransitionTime": now,
        "observedGeneration": certificate["metadata"].get("generation", 1),
    }
    return {"conditions": [*kept, wanted]}


def _own(certificate: Object, ready: Part, issuing: Part) -> str:
    if issuing.get("status") == "False" and issuing.get("reason") == "Failed":
        return said(issuing.get("message"))
    if ready and _of_now(certificate, ready):
        return said(ready.get("message"))
    return ""


def _request(request: Object) -> str:
    name = request["metadata"]["name"]
    for kind in ("Denied", "InvalidRequest"):
        found = condition(request, kind)
        if found.get("status") == "True":
            return f"CertificateRequest {name} was refused ({said(found.get('message'))})"
    ready = condition(request, "Ready")
    if ready.get("status") == "True" or not ready:
        return ""
    return f"CertificateRequest {name} is {str(ready.get('reason')).lower()} ({said(ready.get('message'))})"


def _order(order: Object) -> str:
    status = order.get("status") or {}
    state = status.get("state")
    if state == "valid":
        return ""
    reason = f" ({said(status.get('reason'))})" if status.get("reason") else ""
    return f"Order {order['metadata']['name']} " + (
        f"is {state}{reason}" if state else "has no answer from the ACME server"
    )


def _challenge(challenge: Object) -> str:
    status, spec = challenge.get("status") or {}, challenge.get("spec") or {}
    state = status.get("state") or "pending"
    if state == "valid":
        return ""
    reason = f": {said(status.get('reason'))}" if status.get("reason") else ""
    return f"the {spec.get('type', 'challenge')} challenge for {spec.get('dnsName')} is {state}{reason}"


def _warning(obj: Object, events: Iterable[Object]) -> str:
    return said((youngest_warning(events, obj["metadata"]) or {}).get("message"))


def _owned(item: Object, owner: Object) -> bool:
    uid = owner["metadata"].get("uid")
    return any(reference.get("uid") == uid for reference in item["metadata"].get("ownerReferences") or [])


def _revision(request: Object) -> tuple[int, str]:
    annotations = request["metadata"].get("annotations") or {}
    revision = str(annotations.get("cert-manager.io/certificate-revision", "0"))
    return (int(revision) if revision.isdigit() else 0, str(request["metadata"].get("creationTimestamp")))


def usable(certificate: Object | None, issuer: Mapping[str, str], names: Iterable[str]) -> bool:
    """Whether a Certificate is ready, from that issuer (``kind`` and ``name``) and for just these names."""
    if not certificate:
        return False
    spec = certificate.get("spec") or {}
    asked = spec.get("issuerRef") or {}
    ready = condition(certificate, "Ready")
    return (
        ready.get("status") == "True"
        and _of_now(certificate, ready)
        and (asked.get("kind", "Issuer"), asked.get("name")) == (issuer["kind"], issuer["name"])
        and set(spec.get("dnsNames") or []) == set(names)
    )

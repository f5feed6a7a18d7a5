"""What site.yml asks of the site from outside, and what is wrong with the answers. Pure functions.

The module edge_check sends the requests. Nothing here leaves a trace in the application's data: the writes go to a path
that it rejects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WRITES = ("POST", "PUT", "DELETE", "OPTIONS")
TXID_COOKIE = "__txid"
HSTS = "strict-transport-security"

Expected = Mapping[str, Any]
Request = dict[str, Any]
Answer = Mapping[str, Any]


def requests(expected: Expected) -> list[Request]:
    """The requests, in an order that problems() relies on.

    ``expected``: domains [str], https_port (the public one), address, edge_https_port, edge_http_port (where to
    connect), ca_file (str, may be empty), verify (bool: the certificate), hsts_seconds (0: no header wanted),
    health_path, verify_path, upstream (bool: a proxy in front ends TLS, and the site speaks http).
    """
    plain = _join(expected["address"], expected["edge_http_port"])
    listed: list[Request] = []
    if expected.get("upstream"):
        listed += [_plain(domain, "GET", expected["health_path"], plain) for domain in expected["domains"]]
        return listed + [_plain(expected["domains"][0], method, expected["verify_path"], plain) for method in WRITES]
    for domain in expected["domains"]:
        for method in ("GET", "HEAD", "POST"):
            listed.append({"method": method, "url": f"http://{domain}{_asked(expected)}", "connect": plain})
        listed.append(_tls(expected, domain, "GET", expected["health_path"]))
    listed += [_tls(expected, expected["domains"][0], method, expected["verify_path"]) for method in WRITES]
    return listed


def pages(expected: Expected) -> list[Request]:
    """The reads of the health path alone, one for each domain: what is asked where nothing is to be noticed of TLS."""
    if expected.get("upstream"):
        plain = _join(expected["address"], expected["edge_http_port"])
        return [_plain(domain, "GET", expected["health_path"], plain) for domain in expected["domains"]]
    return [_tls(expected, domain, "GET", expected["health_path"]) for domain in expected["domains"]]


def writes(expected: Expected) -> list[Request]:
    """The writes alone, to a path that the application rejects."""
    return requests(expected)[-len(WRITES) :]


def page_problems(request: Request, answer: Answer) -> list[str]:
    """What is wrong with the answer to one of pages(), whatever it says of HSTS."""
    bare = {**answer, "headers": [pair for pair in answer["headers"] if pair[0].lower() != HSTS]}
    return _reached(request, answer) or _health(request, bare, {"hsts_seconds": 0})


def path_problems(request: Request, answer: Answer) -> list[str]:
    """What is wrong with the answer to one of writes()."""
    return _reached(request, answer) or _write(request, answer)


def write(expected: Expected, probe: Mapping[str, Any]) -> Request:
    """The request that app_write_probe describes: method, path, body and headers."""
    method, path = str(probe["method"]), str(probe["path"])
    if expected.get("upstream"):
        plain = _join(expected["address"], expected["edge_http_port"])
        request = _plain(expected["domains"][0], method, path, plain)
    else:
        request = _tls(expected, expected["domains"][0], method, path)
    if probe.get("body") is not None:
        request["body"] = str(probe["body"])
    request["headers"] = {str(key): str(value) for key, value in (probe.get("headers") or {}).items()}
    return request


def write_problems(answer: Answer, probe: Mapping[str, Any]) -> list[str]:
    """What is wrong with the answer to that request."""
    if answer["status"] == int(probe["status"]):
        return []
    return [
        f"The write of app_write_probe ({probe['method']} {probe['path']}) was answered "
        f"{answer['status'] or answer['error']}, not {probe['status']}: see what the primary's log says."
    ]


def problems(answers: Sequence[Answer] | None, expected: Expected) -> list[str]:
    """One sentence for each thing that is wrong, none where the site is as desired. No answers at all is a problem."""
    asked = requests(expected)
    if not answers or len(answers) != len(asked):
        return ["The site was not asked: see the failure of the task before."]
    found: list[str] = []
    rest = list(zip(asked, answers, strict=True))
    upstream = bool(expected.get("upstream"))
    for domain in expected["domains"]:
        if upstream:
            health, rest = rest[0], rest[1:]
            found += _reached(*health) or _health(*health, {**expected, "hsts_seconds": 0})
            continue
        (get, head, post, health), rest = rest[:4], rest[4:]
        for (request, answer), status in ((get, 301), (head, 301), (post, 308)):
            found += _reached(request, answer) or _redirect(request, answer, status, domain, expected)
        found += _reached(*health) or _health(*health, expected)
    for request, answer in rest:
        found += path_problems(request, answer)
    return found


def _asked(expected: Expected) -> str:
    return f"{expected['health_path']}?from=abaci.infra"


def _tls(expected: Expected, domain: str, method: str, path: str) -> Request:
    port = int(expected["https_port"])
    request: Request = {
        "method": method,
        "url": f"https://{domain}{'' if port == 443 else f':{port}'}{path}",
        "connect": _join(expected["address"], expected["edge_https_port"]),
        "verify": bool(expected["verify"]),
    }
    if expected.get("ca_file"):
        request["ca_file"] = expected["ca_file"]
    return request


def _plain(domain: str, method: str, path: str, connect: str) -> Request:
    return {"method": method, "url": f"http://{domain}{path}", "connect": connect}


def _join(address: Any, port: Any) -> str:
    host = str(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _name(request: Request) -> str:
    return f"{request['method']} {request['url']}"


def _values(answer: Answer, name: str) -> list[str]:
    return [value for key, value in answer["headers"] if key.lower() == name]


def _reached(request: Request, answer: Answer) -> list[str]:
    """What is wrong with any answer, whatever it should be."""
    if answer["error"]:
        return [f"{_name(request)} at {request['connect']} got no answer: {answer['error']}"]
    if _values(answer, "fly-replay"):
        return [
            f"{_name(request)} was answered with a Fly-Replay header, so a write can be lost: check that the traefik "
            "role's plugin is loaded and the middlewares fly-replay and fly-replay-writes are on the routes."
        ]
    if answer["status"] == 200 and answer["length"] == 0 and request["method"] != "HEAD":
        return [
            f"{_name(request)} was answered with an empty 200, as LiteFS on a replica answers a write that it drops: "
            "check the route that took it."
        ]
    return []


def _redirect(request: Request, answer: Answer, status: int, domain: str, expected: Expected) -> list[str]:
    port = int(expected["https_port"])
    target = f"https://{domain}{'' if port == 443 else f':{port}'}{_asked(expected)}"
    location = (_values(answer, "location") or [""])[0]
    if answer["status"] == status and location == target:
        return []
    return [
        f"{_name(request)} was answered {answer['status']}{' to ' + location if location else ''}, not {status} to "
        f"{target}: check Ingress and Middleware of the redirect, and app_https_port."
    ]


def _health(request: Request, answer: Answer, expected: Expected) -> list[str]:
    if answer["status"] != 200:
        return [f"{_name(request)} was answered {answer['status']}, not 200: check app_health_path and the pods' log."]
    sent, wanted = _values(answer, HSTS), int(expected["hsts_seconds"])
    if wanted and not any(f"max-age={wanted}" in value.replace(" ", "").split(";") for value in sent):
        return [f"{_name(request)} came with {sent or 'no'} Strict-Transport-Security, not max-age={wanted}."]
    if not wanted and sent:
        return [
            f"{_name(request)} came with Strict-Transport-Security ({sent[0]}), which browsers keep for years, "
            "although the certificate is neither a provided one nor a ready one of letsencrypt-prod."
        ]
    return []


def _write(request: Request, answer: Answer) -> list[str]:
    if answer["status"] >= 500:
        return [f"{_name(request)} was answered {answer['status']}: the primary's application cannot be reached."]
    if answer["status"] == 429:
        return [f"{_name(request)} was answered 429: the rate limit holds, so run again or raise app_rate_burst."]
    # Only LiteFS on the primary sets it, once the application has answered.
    if not any(value.startswith(f"{TXID_COOKIE}=") for value in _values(answer, "set-cookie")):
        return [
            f"{_name(request)} was answered {answer['status']} without LiteFS's cookie {TXID_COOKIE}, so not by the "
            "primary's LiteFS: check the route for writes."
        ]
    return []

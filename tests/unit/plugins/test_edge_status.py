"""The look from outside: what is asked, and what the answers mean."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import edge_status

EXPECTED: dict[str, Any] = {
    "domains": ["abaci.localhost"],
    "https_port": 8443,
    "address": "127.0.0.1",
    "edge_https_port": 8443,
    "edge_http_port": 8080,
    "ca_file": "/ca.crt",
    "verify": True,
    "hsts_seconds": 63072000,
    "health_path": "/api/health",
    "verify_path": "/.well-known/abaci-infra",
}
TARGET = "https://abaci.localhost:8443/api/health?from=abaci.infra"
HSTS = ["Strict-Transport-Security", "max-age=63072000; includeSubDomains; preload"]
COOKIE = ["Set-Cookie", "__txid=0000000000000007; Path=/; HttpOnly"]


def answer(status: int, *headers: list[str], length: int = 5, error: str = "") -> dict[str, Any]:
    return {"status": status, "headers": list(headers), "body": "x" * length, "length": length, "error": error}


def good() -> list[dict[str, Any]]:
    return [
        answer(301, ["Location", TARGET]),
        answer(301, ["Location", TARGET], length=0),
        answer(308, ["Location", TARGET]),
        answer(200, HSTS),
        *(answer(404, COOKIE) for _ in edge_status.WRITES),
    ]


def changed(index: int, made: dict[str, Any]) -> list[dict[str, Any]]:
    answers = good()
    answers[index] = made
    return answers


def test_requests_go_to_the_edge_under_the_sites_name() -> None:
    asked = edge_status.requests(EXPECTED)
    assert [(item["method"], item["url"]) for item in asked[:4]] == [
        ("GET", "http://abaci.localhost/api/health?from=abaci.infra"),
        ("HEAD", "http://abaci.localhost/api/health?from=abaci.infra"),
        ("POST", "http://abaci.localhost/api/health?from=abaci.infra"),
        ("GET", "https://abaci.localhost:8443/api/health"),
    ]
    assert [item["method"] for item in asked[4:]] == ["POST", "PUT", "DELETE", "OPTIONS"]
    assert {item["url"] for item in asked[4:]} == {"https://abaci.localhost:8443/.well-known/abaci-infra"}
    assert [item["connect"] for item in asked] == ["127.0.0.1:8080"] * 3 + ["127.0.0.1:8443"] * 5
    assert {item.get("ca_file") for item in asked[3:]} == {"/ca.crt"}


def test_the_port_443_and_an_address_of_ipv6() -> None:
    asked = edge_status.requests(
        {**EXPECTED, "https_port": 443, "edge_https_port": 443, "address": "::1", "ca_file": ""}
    )
    assert asked[3]["url"] == "https://abaci.localhost/api/health"
    assert asked[3]["connect"] == "[::1]:443"
    assert "ca_file" not in asked[3]


def test_each_domain_is_asked() -> None:
    expected = {**EXPECTED, "domains": ["abaci.localhost", "www.abaci.localhost"]}
    assert len(edge_status.requests(expected)) == 12
    second = TARGET.replace("abaci.localhost", "www.abaci.localhost")
    answers = good()
    moved = answer(301, ["location", second])
    answers[4:4] = [moved, moved, answer(308, ["location", second]), answer(200, HSTS)]
    assert edge_status.problems(answers, expected) == []
    answers[4] = answer(404)
    (problem,) = edge_status.problems(answers, expected)
    assert "http://www.abaci.localhost/" in problem and "404" in problem


def test_a_site_as_expected_has_no_problem() -> None:
    assert edge_status.problems(good(), EXPECTED) == []


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (changed(0, answer(302, ["Location", TARGET])), "was answered 302 to https://abaci.localhost:8443"),
        (changed(0, answer(301, ["Location", TARGET.replace(":8443", "")])), f"not 301 to {TARGET}"),
        (changed(1, answer(308, ["Location", TARGET])), "HEAD http://abaci.localhost/api/health?from=abaci.infra was"),
        (changed(2, answer(301, ["Location", TARGET])), f"not 308 to {TARGET}"),
        (changed(3, answer(404, HSTS)), "was answered 404, not 200: check app_health_path"),
        (changed(3, answer(200)), "came with no Strict-Transport-Security, not max-age=63072000"),
        (changed(3, answer(200, ["strict-transport-security", "max-age=630720000"])), "not max-age=63072000"),
        (changed(4, answer(200, ["fly-replay", "instance=abaci-app-0"], length=0)), "with a Fly-Replay header"),
        (
            changed(7, answer(200, length=0)),
            "OPTIONS https://abaci.localhost:8443/.well-known/abaci-infra was answered",
        ),
        (changed(7, answer(200, length=0)), "with an empty 200"),
        (changed(5, answer(404)), "without LiteFS's cookie __txid"),
        (changed(6, answer(503)), "was answered 503: the primary's application cannot be reached"),
        (changed(6, answer(429)), "raise app_rate_burst"),
        (changed(0, answer(0, error="Connection refused.")), "at 127.0.0.1:8080 got no answer: Connection refused."),
        ([], "was not asked"),
        (None, "was not asked"),
    ],
)
def test_a_problem_is_a_sentence(answers: list[dict[str, Any]] | None, words: str) -> None:
    (problem,) = edge_status.problems(answers, EXPECTED)
    assert words in problem


def test_an_empty_204_is_an_answer() -> None:
    """An application may answer a CORS preflight so; what LiteFS sends for a dropped write is a 200."""
    assert edge_status.problems(changed(7, answer(204, COOKIE, length=0)), EXPECTED) == []


def test_without_hsts_a_header_is_the_problem() -> None:
    expected = {**EXPECTED, "hsts_seconds": 0}
    (problem,) = edge_status.problems(good(), expected)
    assert "which browsers keep for years" in problem
    assert edge_status.problems(changed(3, answer(200)), expected) == []


def test_the_write_that_the_inventory_describes() -> None:
    probe = {"method": "POST", "path": "/api/records", "body": "{}", "headers": {"X-Count": 1}, "status": 201}
    request = edge_status.write(EXPECTED, probe)
    assert (request["method"], request["url"]) == ("POST", "https://abaci.localhost:8443/api/records")
    assert (request["body"], request["headers"]) == ("{}", {"X-Count": "1"})
    assert "body" not in edge_status.write(EXPECTED, {"method": "PUT", "path": "/x", "status": 200})


UPSTREAM = {**EXPECTED, "upstream": True, "verify": False, "hsts_seconds": 0}


def test_where_tls_ends_upstream_everything_is_asked_over_http_and_nothing_redirects() -> None:
    asked = edge_status.requests(UPSTREAM)
    assert [item["method"] for item in asked] == ["GET", *edge_status.WRITES]
    assert {item["url"].split("/")[0] for item in asked} == {"http:"}
    assert {item["connect"] for item in asked} == {"127.0.0.1:8080"}
    assert edge_status.write(UPSTREAM, {"method": "POST", "path": "/x"})["url"] == "http://abaci.localhost/x"
    writes = [answer(404, COOKIE) for _ in edge_status.WRITES]
    assert edge_status.problems([answer(200), *writes], UPSTREAM) == []
    (redirected,) = edge_status.problems([answer(301, ["Location", TARGET]), *writes], UPSTREAM)
    assert "was answered 301, not 200" in redirected
    (hsts,) = edge_status.problems([answer(200, HSTS), *writes], UPSTREAM)
    assert "Strict-Transport-Security" in hsts


@pytest.mark.parametrize(
    ("status", "words"), [(201, ""), (503, "was answered 503, not 201"), (None, "refused, not 201")]
)
def test_the_write_that_the_inventory_describes_has_the_answer_that_it_names(status: int | None, words: str) -> None:
    probe = {"method": "POST", "path": "/api", "status": "201"}
    found = edge_status.write_problems({"status": status, "error": "refused"}, probe)
    assert bool(found) is bool(words) and words in " ".join(found)

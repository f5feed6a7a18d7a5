"""A support bundle: secrets are planted in every source, and none of them is in it."""

from __future__ import annotations

import base64
import json
import tarfile
import urllib.parse
from pathlib import Path
from typing import Any

import factory_objects as make
import pytest
from ansible_collections.abaci.infra.plugins.module_utils import redacting
from ansible_collections.abaci.infra.plugins.modules import site_report
from fake_api import Cluster, Request, run

PASSWORD, TOKEN, SHORT = "s3cr3t/päss wörd", "ghp_Zx81LongToken", "k7q"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\n-----END PRIVATE KEY-----\n"
EMAIL, CLIENT, CLIENT6, SESSION = "anna.muster@example.org", "203.0.113.77", "2001:db8::77", "c00k1eVALUE"
IN_A_URL = "0nly/in=an@address"
PLANTED = [
    PASSWORD,
    IN_A_URL,
    TOKEN,
    SHORT,
    "MIIEvQIBADANBgkqhkiG",
    EMAIL,
    CLIENT,
    CLIENT6,
    SESSION,
    "l1teralPW",
    "Pl41nBearerToken",
]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


LOG = "\n".join(
    [
        f"2026-01-01T00:00:00Z connecting to redis://:{urllib.parse.quote(PASSWORD, safe='')}@redis:6379",
        f'2026-01-01T00:00:01Z {{"token": "{TOKEN}", "pw": {json.dumps(PASSWORD)}}}',
        f"2026-01-01T00:00:02Z the pin is {SHORT}, and the key {KEY.splitlines()[1]}",
        f"2026-01-01T00:00:03Z GET /?token={TOKEN}&x=1 client={CLIENT} again {CLIENT}, [{CLIENT6}]:443 from 10.42.0.5",
        f"2026-01-01T00:00:04Z Cookie: session={SESSION}; other=1",
        f'2026-01-01T00:00:05Z {{"headers":{{"set-cookie":"session={SESSION}"}}}}',
        "2026-01-01T00:00:06Z Authorization: Bearer Pl41nBearerToken",
        f"2026-01-01T00:00:07Z mail to {EMAIL} and {EMAIL.replace('@', '%40')} was sent, version 1.2.3 at 12:34:56",
        f"2026-01-01T00:00:08Z basic {encoded(TOKEN)}",
        f"2026-01-01T00:00:09Z the password {IN_A_URL} was refused",
    ]
)


@pytest.fixture
def api() -> Cluster:
    """A site with secrets in each place that a bundle reads."""
    made = Cluster()
    login = {"auths": {"ghcr.io": {"username": "me", "password": TOKEN, "auth": encoded(f"me:{TOKEN}")}}}
    data = {
        "PASSWORD": encoded(PASSWORD),
        "PIN": encoded(SHORT),
        "tls.key": encoded(KEY),
        "REDIS_URL": encoded(f"redis://:{urllib.parse.quote(IN_A_URL, safe='')}@redis:6379"),
        ".dockerconfigjson": encoded(json.dumps(login)),
    }
    made.put(
        {
            "kind": "Secret",
            "metadata": {
                "name": "app-env",
                "annotations": {
                    redacting.LAST_APPLIED: json.dumps({"data": data}),
                    "abaci.infra/checksum-key": TOKEN * 2,
                },
            },
            "data": data,
        }
    )
    made.put(
        {
            "kind": "ConfigMap",
            "metadata": {"name": "app-config", "managedFields": [{"manager": PASSWORD}]},
            "data": {
                "URL": f"postgres://me:{PASSWORD}@db",
                "COPY": PASSWORD,
                "MAIL": EMAIL,
                "ENCODED": encoded(PASSWORD),
            },
        }
    )
    pod = made.have("Pod", f"{make.NAME}-0")
    assert pod is not None
    pod["spec"]["containers"][0]["env"] = [
        {"name": "DB_PASSWORD", "value": "l1teralPW"},
        {"name": "PLAIN", "value": "kept"},
    ]
    made.put(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "one"},
            "type": "Warning",
            "reason": "Failed",
            "message": f"could not log in with {TOKEN} from {CLIENT}",
            "involvedObject": {"kind": "Pod", "name": "abaci-app-0"},
        }
    )
    plain = made._plain

    def log(request: Request) -> tuple[int, Any]:
        if request.subresource == "log":
            return 200, LOG.encode()
        answer: tuple[int, Any] = plain(request)
        return answer

    made._plain = log  # type: ignore[method-assign]
    return made


def bundle(api: Cluster, tmp_path: Path, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    path = tmp_path / "reports" / "abaci.tar.gz"
    answer = run(site_report, api, namespaces=[make.NAMESPACE], path=str(path), **more)
    assert not answer.get("failed"), answer
    with tarfile.open(path) as archive:
        found = {
            entry.name.partition("/")[2]: archive.extractfile(entry).read().decode()  # type: ignore[union-attr]
            for entry in archive.getmembers()
        }
    return answer, found


def test_hazard_nothing_that_was_planted_in_any_source_is_in_the_bundle(api: Cluster, tmp_path: Path) -> None:
    given = {"status.json": json.dumps({"said": f"{PASSWORD} {EMAIL} l1teral"}), "checks.txt": f"{TOKEN} {CLIENT}"}
    answer, found = bundle(api, tmp_path, files=given)
    whole = "\n".join(f"{name}\n{text}\n{json.dumps(text, ensure_ascii=False)}" for name, text in found.items())
    whole += json.dumps([answer["names"], answer["unread"]], ensure_ascii=False)
    for secret in PLANTED:
        for form in {
            secret,
            urllib.parse.quote(secret, safe=""),
            json.dumps(secret)[1:-1],
            encoded(secret).rstrip("="),
        }:
            assert form not in whole, (form, [name for name, text in found.items() if form in text])


def test_hazard_an_annotation_of_a_secret_is_secret_however_short_it_is() -> None:
    """A long one is known to the redactor as well, and found wherever it stands."""
    secret = {"kind": "Secret", "metadata": {"name": "a", "annotations": {"pin": SHORT}}, "data": {"b": encoded(SHORT)}}
    assert SHORT not in (said := json.dumps(redacting.bare(secret))) and encoded(SHORT) not in said


def test_what_helps_stays(api: Cluster, tmp_path: Path) -> None:
    answer, found = bundle(api, tmp_path)
    log = found[f"logs/{make.NAMESPACE}/{make.NAME}-0/app.log"]
    assert "client=<client-1> again <client-1>, [<client-2>]:443 from 10.42.0.5" in log
    assert "version 1.2.3 at 12:34:56" in log and "<e-mail-1> and <e-mail-2> was sent" in log
    pods = json.loads(found[f"objects/{make.NAMESPACE}/Pod.json"])
    env = pods[0]["spec"]["containers"][0]["env"]
    assert env[1]["value"] == "kept" and pods[0]["status"]["podIP"] == "10.42.0.5"
    (secret,) = json.loads(found[f"objects/{make.NAMESPACE}/Secret.json"])
    assert secret["data"]["PASSWORD"] == "<secret>" and secret["metadata"]["name"] == "app-env"
    assert "Warning Pod/abaci-app-0 Failed:" in found[f"events/{make.NAMESPACE}.txt"]
    assert "objects/cluster/Node.json" in found and f"{make.NAMESPACE}/{make.NAME}-0/app.before.log" in str(
        sorted(found)
    )
    assert answer["unread"] == [] and (tmp_path / "reports/abaci.tar.gz").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_is_said_and_without_the_secrets_there_are_no_logs(api: Cluster, tmp_path: Path) -> None:
    api.fail("GET", "Secret", how=403)
    api.fail("GET", "Service", how=403)
    answer, found = bundle(api, tmp_path)
    assert not any(name.startswith("logs/") for name in found)
    for words in ("Secret of abaci could not be read", "Service of abaci could not be read", "Logs were left out"):
        assert any(words in line for line in answer["unread"]), answer["unread"]
    assert found["unread.txt"].splitlines() == answer["unread"]


def test_an_api_that_is_away_still_gives_what_is_there_already(api: Cluster, tmp_path: Path) -> None:
    api.fail(times=9999)
    answer, found = bundle(api, tmp_path, files={"status.json": '{"summary": 2}'})
    assert json.loads(found["status.json"]) == {"summary": 2} and answer["unread"]


def test_a_place_that_cannot_be_written_to_is_a_sentence_and_check_mode_writes_nothing(
    api: Cluster, tmp_path: Path
) -> None:
    where = {"namespaces": [make.NAMESPACE], "path": str(tmp_path / "a.tar.gz")}
    run(site_report, api, check=True, **where)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    answer = run(site_report, api, **where | {"path": str(tmp_path / "file/a.tar.gz")})
    assert answer["failed"] and "report_directory" in answer["msg"]
    assert "does not end with .tar.gz" in run(site_report, api, **where | {"path": "a.zip"})["msg"]

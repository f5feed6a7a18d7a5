"""What the archive asks of Kubernetes."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import cluster, settings


@pytest.mark.parametrize(
    ("found", "cluster_id"),
    [
        ({"data": {"clusterID": " LFSC1\n"}}, "LFSC1"),
        ({"data": {"state": "bootstrap"}}, ""),
        ({"data": None}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_records_cluster_id(found: object, cluster_id: str) -> None:
    assert cluster.recorded(found) == cluster_id


@pytest.mark.parametrize(
    ("found", "given_up"),
    [
        ({"data": {"archiveGivenUpTime": "2026-11-30T14:05:00Z\n"}}, "2026-11-30T14:05:00Z"),
        ({"data": {}}, ""),
        ({}, ""),
    ],
)
def test_what_the_record_says_was_given_up(found: object, given_up: str, monkeypatch: pytest.MonkeyPatch) -> None:
    api = cluster.Api("abaci", "abaci-app", "record")
    monkeypatch.setattr(cluster.Api, "_ask", lambda *_: found)
    assert api.given_up() == given_up

    def away(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(cluster.Api, "_ask", away)
    assert api.given_up() is None
    assert cluster.Api("abaci", "abaci-app", "").given_up() == ""


def test_an_event_says_the_alarm_at_the_application() -> None:
    alarm = cluster.Alarm(kind="primary_behind", database="a.db", sentence="x" * 2000, since=0.0, until=0.0)
    made = cluster.event(alarm, "abaci", "abaci-app", "2026-11-30T14:05:00Z")
    assert made["reason"] == "ArchivePrimaryBehind" and len(made["message"]) == 1024
    assert made["involvedObject"]["name"] == "abaci-app" and made["metadata"]["namespace"] == "abaci"
    json.dumps(made)


def test_settings_that_are_unknown_or_missing_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "settings.json"
    good = {"service": "s", "port": 1, "namespace": "n", "app": "a", "record": "", "buffer": "/b"}
    path.write_text(json.dumps(good))
    assert settings.read(path).keep == 14 * 86400
    path.write_text(json.dumps(good | {"kep": 1}))
    with pytest.raises(ValueError, match="does not know: kep"):
        settings.read(path)
    path.write_text(json.dumps(good | {"max_size": "lots"}))
    with pytest.raises(ValueError, match="lots is no size"):
        settings.read(path)
    path.write_text(json.dumps({"service": "s"}))
    with pytest.raises(ValueError, match="lacks port, namespace"):
        settings.read(path)


@pytest.mark.parametrize(("text", "found"), [("", 0), ("10Gi", 10 << 30), ("5G", 5 * 10**9), ("17", 17), ("1Ki", 1024)])
def test_sizes_are_kubernetes_own(text: str, found: int) -> None:
    assert settings.size(text) == found


def test_an_api_that_breaks_off_is_an_api_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(cluster, "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setattr(cluster.ssl, "create_default_context", lambda **_more: None)

    def cut(*_args: object, **_more: object) -> None:
        raise http.client.IncompleteRead(b"{")

    monkeypatch.setattr(cluster.urllib.request.OpenerDirector, "open", cut)
    api = cluster.Api("abaci", "abaci-app", "record")
    assert api.cluster_id() == ""
    with pytest.raises(OSError, match="broke off"):
        api.tell(cluster.Alarm(kind="gap", database="", sentence="x", since=0.0, until=0.0), "2026-11-30T14:05:00Z")

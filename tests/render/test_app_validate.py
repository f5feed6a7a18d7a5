"""Bad input to roles/app ends in a sentence that names the variable, before anything is asked or changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible_collections.abaci.infra.plugins.action import check_settings
from rendering import ROOT, run_role

GOOD: dict[str, Any] = {"app_domain": "abaci.localhost"}
PEM = {"app_tls_certificate": "-----BEGIN CERTIFICATE-----", "app_tls_private_key": "-----BEGIN PRIVATE KEY-----"}
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown": ({"app_replica": 3, "app_hsts": 1}, ["app_hsts, app_replica", "not known"]),
    "no_domain": ({"app_domain": ""}, ["app_domain", "it is empty"]),
    "domain_with_scheme": ({"app_domain": "https://abaci.one"}, ["app_domain", "leave out the scheme"]),
    "extra_domain": ({"app_extra_domains": ["a b"]}, ["app_extra_domains", "'a b'"]),
    "domain_twice": ({"app_extra_domains": ["abaci.localhost"]}, ["app_extra_domains repeats abaci.localhost"]),
    "redirect": ({"app_redirect_domains": ["www.abaci.localhost"]}, ["app_redirect_domains names www.abaci.localhost"]),
    "name": ({"app_name": "Abaci"}, ["app_name Abaci", "lower case"]),
    "long_name": ({"app_name": "a" * 43}, ["app_name", "at most 42"]),
    "namespace": ({"app_namespace": "a_b"}, ["app_namespace a_b"]),
    "image": ({"app_image": "ghcr.io/a b"}, ["app_image"]),
    "no_plugin": ({"traefik_flyreplay": False}, ["traefik_flyreplay is false", "set it to true"]),
    "no_plugin_by_text": ({"traefik_flyreplay": "false"}, ["traefik_flyreplay is false", "set it to true"]),
    "removed_and_set": (
        {"app_secrets": {"A": "x"}, "app_secrets_removed": ["A"]},
        ["app_secrets_removed names A", "keep it in one"],
    ),
    "command": ({"app_command": " "}, ["app_command is empty"]),
    "command_dollar": ({"app_command": "node $FILE"}, ["app_command", "LiteFS expands $"]),
    "migrate_dollar": ({"app_migrate_command": "sh -c 'echo $$'"}, ["app_migrate_command", "LiteFS expands $"]),
    "database_path": ({"app_database": "data/sqlite.db"}, ["app_database data/sqlite.db"]),
    "database_wal": ({"app_database": "sqlite.db-wal"}, ["app_database", "-wal"]),
    "hostname": ({"app_env": {"HOSTNAME": "0.0.0.0"}}, ["HOSTNAME, because"]),
    "cloud": ({"app_secrets": {"LITEFS_CLOUD_TOKEN": "x"}}, ["LITEFS_CLOUD_TOKEN, because", "from a backup"]),
    "candidate": ({"app_env": {"LITEFS_CANDIDATE": "true"}}, ["LITEFS_CANDIDATE, because"]),
    "redis_url": ({"app_env": {"REDIS_URL": "redis://x"}}, ["REDIS_URL", "app_use_redis"]),
    "both": ({"app_env": {"A": "1"}, "app_secrets": {"A": "2"}}, ["both set A"]),
    "bad_variable": ({"app_env": {"MY-FLAG": "1"}}, ["no environment variable: MY-FLAG"]),
    "health": ({"app_health_path": "api/health"}, ["app_health_path", "begin with /"]),
    "socket": ({"app_socket_paths": ["/cable", "/"]}, ["app_socket_paths has /", "away from LiteFS"]),
    "socket_text": ({"app_socket_paths": "/cable"}, ["app_socket_paths is a text", "list"]),
    "secrets_text": ({"app_secrets": "AUTH_SECRET=x"}, ["app_secrets is a text", "dictionary"]),
    "old_name": ({"app_socket_path": "/cable"}, ["app_socket_path is not known any more", "app_socket_paths, a list"]),
    "old_name_of_another": ({"storage_enabled": True}, ["storage_enabled is not known any more", "storage_state"]),
    "backtick": ({"app_socket_paths": ["/a`b"]}, ["app_socket_paths has /a`b"]),
    "forward": ({"app_forward_paths": ["/a", "login"]}, ["app_forward_paths", "login"]),
    "forward_health": ({"app_forward_paths": ["/api/*"]}, ["app_forward_paths covers app_health_path (/api/health)"]),
    "scratch": ({"app_scratch_paths": ["cache"]}, ["app_scratch_paths has cache"]),
    "scratch_mount": ({"app_scratch_paths": ["/litefs/"]}, ["app_scratch_paths has /litefs/"]),
    "scratch_twice": ({"app_scratch_paths": ["/a", "/a/"]}, ["app_scratch_paths has a path twice"]),
    "hosts_text": ({"app_extra_hosts": {"192.0.2.5": "nas"}}, ["app_extra_hosts has an entry", "192.0.2.5"]),
    "hosts_turned": ({"app_extra_hosts": {"nas": ["192.0.2.5"]}}, ["app_extra_hosts has an entry", "nas"]),
    "static": ({"app_static_paths": ["/"]}, ["app_static_paths has /", "no rate limit"]),
    "listen": ({"app_listen_address": "my host"}, ["app_listen_address my host is no address"]),
    "url_env": ({"app_url_env": ["PORT", "MY-URL"]}, ["PORT, because it is app_port", "MY-URL"]),
    "database_url": ({"app_env": {"DATABASE_URL": "file:/litefs/sqlite.db"}}, ["app_database_url_prefix"]),
    "ports": ({"app_port": 8080}, ["app_port", "three different ports"]),
    "https_port": ({"app_https_port": 0}, ["app_https_port"]),
    "size": ({"app_storage_size": "5 GB"}, ["app_storage_size 5 GB"]),
    "pull_policy": (
        {"app_image_pull_policy": "IfNotPresent"},
        ["app_image_pull_policy is IfNotPresent", "keel_state to absent"],
    ),
    "preload": ({"app_hsts_preload": True}, ["app_hsts_preload needs app_hsts_subdomains: true", "a year"]),
    "preload_for_a_day": (
        {"app_hsts_preload": True, "app_hsts_subdomains": True, "app_hsts_seconds": 86400},
        ["app_hsts_preload needs", "31536000"],
    ),
    "rate": ({"app_rate_burst": 0}, ["app_rate_burst is 0", "at least 1"]),
    "no_replica": ({"app_replicas": 0}, ["app_replicas is 0", "at least 1"]),
    "less_than_no_replica": ({"app_replicas": -1}, ["app_replicas is -1", "at least 1"]),
    "no_ordinal": ({"app_primary_ordinal": -1}, ["app_primary_ordinal is -1", "at least 0"]),
    "no_time_to_pull": ({"app_image_pull_timeout": 0}, ["app_image_pull_timeout is 0", "at least 1"]),
    "cluster_namespace": ({"app_namespace": "kube-system"}, ["app_namespace kube-system", "the cluster's own"]),
    "key_missing": ({"app_tls_certificate": PEM["app_tls_certificate"]}, ["needs its key", "app_tls_private_key"]),
    "two_sources": ({**PEM, "app_tls_certificate_file": __file__, "app_tls_private_key_file": __file__}, ["keep one"]),
    "no_file": (
        {"app_tls_certificate_file": "/nowhere/site.crt", "app_tls_private_key_file": "/nowhere/site.key"},
        ["app_tls_certificate_file", "not on the controller: /nowhere/site.crt", "app_tls_private_key_file"],
    ),
    "no_ca": ({"app_tls_ca_file": "/nowhere/ca.crt"}, ["app_tls_ca_file", "/nowhere/ca.crt"]),
    "no_pem": ({**PEM, "app_tls_certificate": "DER"}, ["app_tls_certificate", "BEGIN CERTIFICATE"]),
    "no_pem_key": ({**PEM, "app_tls_private_key": "DER"}, ["app_tls_private_key", "BEGIN PRIVATE KEY"]),
    "command_and": ({"app_command": "node a.js && node b.js"}, ["app_command has && in it", "without a shell"]),
    "command_quote": ({"app_command": "node 'a.js"}, ["app_command has a quote that is not closed"]),
    "migrate_pipe": ({"app_migrate_command": "node a.js | tee x"}, ["app_migrate_command has | in it"]),
    "image_scheme": ({"app_image": "https://ghcr.io/me/app:1"}, ["app_image (https://ghcr.io/me/app:1)", "https://"]),
    "image_capitals": ({"app_image": "ghcr.io/Me/App:1"}, ["app_image (ghcr.io/Me/App:1)", "capitals"]),
    "image_digest": ({"app_image": "ghcr.io/me/app@sha256:abc"}, ["app_image", "64 digits"]),
    "env_list": ({"app_env": {"A": ["x"], "B": None}}, ["app_env has A, B", "in quotes"]),
    "memory": ({"app_resources": {"limits": {"memory": "512MB"}}}, ["app_resources.limits has memory: 512MB"]),
    "resources": ({"app_resources": {"limit": {}}}, ["app_resources has limit", "requests and limits"]),
    "limits": ({"app_resources": {"limits": "1Gi"}}, ["app_resources.limits is 1Gi", "dictionary"]),
    "pre_stop": ({"app_pre_stop_seconds": 60}, ["app_termination_grace_seconds (30)", "app_pre_stop_seconds (60"]),
    "pre_stop_for_all_of_it": (
        {"app_pre_stop_seconds": 30},
        ["app_termination_grace_seconds (30)", "app_pre_stop_seconds (30"],
    ),
    "mount": ({"app_volume_mounts": [{"name": "x", "mountPath": "/x"}]}, ["app_volume_mounts names x"]),
    "mount_path": (
        {"app_volumes": [{"name": "x", "emptyDir": {}}], "app_volume_mounts": [{"name": "x"}]},
        ["app_volume_mounts has an entry without a mountPath"],
    ),
    "selector": ({"app_node_selector": {"ssd": True}}, ["app_node_selector has ssd: True", "quotes"]),
    "token": ({"app_registry_token": "t0ken\n"}, ["app_registry_token begins or ends with white space"]),
    "curve": ({"app_tls_curves": ["X448"]}, ["app_tls_curves has X448", "CurveP256"]),
    "page": ({"app_unavailable_page": "/etc/away.html"}, ["app_unavailable_page (/etc/away.html)", "lookup"]),
    "probe": ({"app_write_probe": {"path": "/x"}}, ["app_write_probe needs method"]),
}
FINE: dict[str, dict[str, Any]] = {
    "defaults": {},
    "quoted_operator": {"app_command": "sh -c 'node a.js && exec node b.js'", "app_migrate_command": 'node "a&b.js"'},
    "images": {"app_image": "localhost:5000/me/app_x:1.0-RC@sha256:" + "a" * 64},
    "resources": {
        "app_resources": {"requests": {"cpu": 0.5, "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "1G"}}
    },
    "page_ok": {"app_unavailable_page": "<!doctype html><p>Soon"},
    "images_on_the_nodes": {"app_image_pull_policy": "IfNotPresent", "keel_state": "absent"},
    "digest_on_the_nodes": {
        "app_image_pull_policy": "IfNotPresent",
        "app_image": "ghcr.io/me/app@sha256:" + "a" * 64,
    },
    "preload": {"app_hsts_preload": True, "app_hsts_subdomains": True},
    "pem": PEM,
    "no_socket": {"app_socket_paths": []},
    "redis_of_their_own": {"app_use_redis": False, "app_env": {"REDIS_URL": "redis://x"}},
    "probe_ok": {"app_write_probe": {"method": "POST", "path": "/x", "status": 201, "body": "{}"}},
    "file": {"app_tls_ca_file": __file__},
}


def errors(values: dict[str, Any]) -> str:
    """What the action says of these variables; that it is asked by each role's run, the other files show."""
    given = {**GOOD, **values}
    return " ".join(check_settings.renamed(["app"], given) + check_settings.errors("app", given, DataLoader()))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_a_sentence(name: str) -> None:
    message = errors(BAD[name][0])
    for word in BAD[name][1]:
        assert word in message, message
    assert message.rstrip().endswith((".", "/site.crt", "/site.key", "/ca.crt", ")"))


def test_a_value_of_a_wrong_type_is_refused_before_anything_is_changed() -> None:
    run = run_role("app", ["validate"], "[]", {"type": {**GOOD, "app_replicas": "three"}, "good": GOOD})
    assert "app_replicas" in run.failures["type"] and "convert to int" in run.failures["type"]
    assert "good" not in run.failures


def test_a_former_name_stops_every_role_but_those_that_only_copy() -> None:
    given = {"keel_enabled": False, "storage_enabled": True}
    for roles in (["redis"], ["backup", "app"], ["k3s"]):
        assert [said.split()[0] for said in check_settings.renamed(roles, given)] == list(given)
    assert check_settings.renamed(["backup"], given) == check_settings.renamed(["cluster_backup"], given) == []


def test_what_a_former_name_is_now_is_known() -> None:
    known = {
        name
        for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values()
        for name in entry.get("options") or {}
    }
    assert {now.partition(",")[0] for now in check_settings.RENAMED.values()} <= known
    assert not set(check_settings.RENAMED) & known


@pytest.mark.parametrize("name", FINE)
def test_good_input_is_not(name: str) -> None:
    assert errors(FINE[name]) == ""


def test_the_sentences_do_not_carry_secrets() -> None:
    for name in ("key_missing", "no_pem_key", "two_sources"):
        assert PEM["app_tls_private_key"] not in errors(BAD[name][0]).replace("BEGIN PRIVATE KEY.", "")
    assert Path(__file__).exists()

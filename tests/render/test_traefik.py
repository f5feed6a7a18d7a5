"""The values that the role traefik gives to the chart, and the plugin that it carries."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from evaluating import errors, evaluate
from rendering import ROOT

PLUGIN = ROOT / "roles" / "traefik" / "files" / "flyreplay"
MODULE = "github.com/abaci-infra/flyreplay"

Object = dict[str, Any]


def config(**variables: Any) -> Object:
    return dict(evaluate("traefik", "__traefik_helmchartconfig", **variables))


def values(**variables: Any) -> Object:
    return dict(yaml.safe_load(config(**variables)["spec"]["valuesContent"]))


def without_checksum(found: Object) -> Object:
    del found["deployment"]["podAnnotations"]
    return found


def test_the_object_is_the_one_that_k3s_reads() -> None:
    found = config()
    assert (found["apiVersion"], found["kind"]) == ("helm.cattle.io/v1", "HelmChartConfig")
    assert (found["metadata"]["name"], found["metadata"]["namespace"]) == ("traefik", "kube-system")
    # The default, reinstall, would take the site down for a mistyped value.
    assert found["spec"]["failurePolicy"] == "abort"


def test_clients_keep_their_addresses_and_routes_stay_without_pods() -> None:
    found = values()
    assert found["deployment"]["kind"] == "DaemonSet"
    assert found["service"] == {"spec": {"externalTrafficPolicy": "Local"}}
    assert found["providers"] == {
        "kubernetesCRD": {"allowEmptyServices": True},
        "kubernetesIngress": {"allowEmptyServices": True},
    }
    for port in ("web", "websecure"):
        assert found["ports"][port]["forwardedHeaders"] == {"trustedIPs": []}
        assert found["ports"][port]["transport"]["lifeCycle"] == {"requestAcceptGraceTimeout": "10s"}


def test_an_upload_may_take_longer_than_traefiks_minute() -> None:
    for variables, wanted in (({}, "10m"), ({"traefik_read_timeout": "0"}, "0")):
        ports = values(**variables)["ports"]
        for port in ("web", "websecure"):
            assert ports[port]["transport"]["respondingTimeouts"] == {"readTimeout": wanted}


def test_the_access_log_has_no_codes_of_sign_in_callbacks() -> None:
    without = ["--accesslog.fields.queryparameters.defaultmode=drop"]
    assert values()["additionalArguments"] == without
    assert "additionalArguments" not in values(traefik_access_log_queries=True)
    assert "additionalArguments" not in values(traefik_access_log=False)


def test_nothing_is_sent_that_would_take_away_what_k3s_sets() -> None:
    assert not {"tolerations", "nodeSelector"} & set(values())
    given = values(traefik_tolerations=[{"operator": "Exists"}], traefik_node_selector={"edge": "true"})
    assert (given["tolerations"], given["nodeSelector"]) == ([{"operator": "Exists"}], {"edge": "true"})


def test_the_plugin_is_carried_as_it_is_and_without_its_tests() -> None:
    plugin = values()["experimental"]["localPlugins"]["flyreplay"]
    source = plugin.pop("source")
    assert plugin == {"moduleName": MODULE, "mountPath": f"/plugins-local/src/{MODULE}", "type": "inlinePlugin"}
    assert source == {name: (PLUGIN / name).read_text() for name in (".traefik.yml", "go.mod", "main.go")}
    assert yaml.safe_load(source[".traefik.yml"])["import"] == MODULE
    assert source["go.mod"].splitlines()[0] == f"module {MODULE}"


def test_the_plugin_can_be_left_out() -> None:
    assert "experimental" not in values(traefik_flyreplay=False)


def test_every_change_of_a_value_or_of_the_plugin_changes_the_pods() -> None:
    def checksum(**variables: Any) -> str:
        return str(values(**variables)["deployment"]["podAnnotations"]["abaci.infra/values-checksum"])

    assert checksum() == checksum()
    assert checksum() == evaluate("traefik", "__traefik_checksum")
    assert (
        len({checksum(), checksum(traefik_trusted_proxies=["192.0.2.1"]), checksum(__traefik_files=["main.go"])}) == 3
    )


def test_values_of_the_inventory_win() -> None:
    found = values(traefik_values={"logs": {"access": {"format": "common"}}, "deployment": {"minReadySeconds": 5}})
    assert found["logs"]["access"] == {"enabled": True, "format": "common"}
    assert found["deployment"]["minReadySeconds"] == 5
    assert without_checksum(found)["deployment"] == {"kind": "DaemonSet", "minReadySeconds": 5}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        *(
            (good, True)
            for good in ("192.0.2.1", "192.0.2.0/24", "10.0.0.0/8", "2001:db8::/64", "2001:db8::1/128", "::1")
        ),
        *(
            (bad, False)
            for bad in (
                "0.0.0.0/0",
                "::/0",
                "999.1.1.1",
                "192.0.2.1/33",
                "192.0.2",
                "proxy.example",
                "",
                "2001:db8::/129",
            )
        ),
    ],
)
def test_a_trusted_proxy_is_an_address_and_never_everybody(given: str, taken: bool) -> None:
    assert (errors("traefik", traefik_trusted_proxies=[given]) == []) is taken


def test_a_deployment_behind_cluster_addresses_is_possible() -> None:
    found = values(traefik_kind="Deployment", traefik_external_traffic_policy="Cluster")
    assert (found["deployment"]["kind"], found["service"]["spec"]["externalTrafficPolicy"]) == ("Deployment", "Cluster")


def test_bad_input_local_traffic_with_one_traefik_is_refused() -> None:
    assert errors("traefik", traefik_kind="Deployment", traefik_external_traffic_policy="Cluster") == []
    (sentence,) = errors("traefik", traefik_kind="Deployment")
    assert "set traefik_kind to DaemonSet" in sentence


@pytest.mark.parametrize(
    ("given", "taken"),
    [("10m", True), ("1h30m", True), ("1.5s", True), (600, True), ("0", True), ("10 minutes", False), ("", False)],
)
def test_a_time_that_traefik_would_not_start_with_is_refused(given: Any, taken: bool) -> None:
    said = errors("traefik", traefik_read_timeout=given)
    assert (said == []) is taken and all(f"traefik_read_timeout {given} is no duration" in one for one in said)

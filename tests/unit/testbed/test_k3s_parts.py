"""The stand-in's pure parts: tokens, certificates, registries, pod network, ServiceLB, Traefik's values."""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "testbed/k3s"))

from k3s import agent, controllers, network, payload, pki, registries, server, servicelb, tokens, traefik

TESTBED = pathlib.Path(__file__).resolve().parents[3] / "testbed"

# --------------------------------------------------------------------------------------------------------- tokens

CA = b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


def test_long_token_carries_the_hash_of_the_ca() -> None:
    text = tokens.long_form("secret", CA)
    assert re.fullmatch(r"K10[0-9a-f]{64}::server:secret", text)
    token = tokens.parse(text + "\n")
    assert (token.password, token.user) == ("secret", "server")
    tokens.check_ca(token, CA)


def test_token_of_another_cluster_is_refused_without_showing_it() -> None:
    token = tokens.parse(tokens.long_form("secret", b"other"))
    with pytest.raises(tokens.TokenError, match="another cluster") as caught:
        tokens.check_ca(token, CA)
    assert "secret" not in str(caught.value)


def test_short_token_names_no_cluster() -> None:
    token = tokens.parse("secret")
    assert (token.password, token.ca_hash) == ("secret", "")
    tokens.check_ca(token, CA)


@pytest.mark.parametrize("text", ["", "\n", "K10", "K10abc::server:x", "K10" + "g" * 64 + "::server:x"])
def test_malformed_tokens_are_refused(text: str) -> None:
    with pytest.raises(tokens.TokenError):
        tokens.parse(text)


@pytest.fixture
def server_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    pki.make_ca(tmp_path, "server-ca", "k3s-server-ca@1")
    return tmp_path


def options(**given: object) -> dict[str, Any]:
    return {"token": None, "token-file": None, **{key.replace("_", "-"): value for key, value in given.items()}}


def test_server_keeps_its_token_and_refuses_another(server_folder: pathlib.Path) -> None:
    authority = (server_folder / "server-ca.crt").read_bytes()
    password = server.write_token(options(token="short"), server_folder, authority)
    assert password == "short"
    written = (server_folder / "token").read_text().strip()
    assert written == tokens.long_form("short", authority)
    assert (server_folder / "node-token").read_text().strip() == written
    assert (server_folder / "token").stat().st_mode & 0o777 == 0o600
    assert server.write_token(options(), server_folder, authority) == "short"
    assert server.write_token(options(token=written), server_folder, authority) == "short"
    with pytest.raises(Exception, match="different token"):
        server.write_token(options(token="other"), server_folder, authority)


# ---------------------------------------------------------------------------------------------------- certificates


def test_leaf_is_kept_while_valid_and_made_anew_for_other_names(server_folder: pathlib.Path) -> None:
    target = server_folder / "serving"
    pki.make_leaf(target, server_folder, "server-ca", "x", (), ["a.example", "192.0.2.1"])
    first = target.with_suffix(".crt").read_bytes()
    pki.make_leaf(target, server_folder, "server-ca", "x", (), ["192.0.2.1", "a.example"])
    assert target.with_suffix(".crt").read_bytes() == first
    pki.make_leaf(target, server_folder, "server-ca", "x", (), ["b.example"])
    assert target.with_suffix(".crt").read_bytes() != first


def test_leaf_of_another_ca_is_not_valid(server_folder: pathlib.Path) -> None:
    pki.make_ca(server_folder, "client-ca", "k3s-client-ca@1")
    pki.make_leaf(server_folder / "client", server_folder, "client-ca", "x")
    assert pki.valid(server_folder / "client.crt", server_folder / "client-ca.crt")
    assert not pki.valid(server_folder / "client.crt", server_folder / "server-ca.crt")
    assert not pki.valid(server_folder / "absent.crt", server_folder / "client-ca.crt")


def test_request_says_who_it_is_for(tmp_path: pathlib.Path) -> None:
    request = pki.make_request(tmp_path / "k.key", "system:node:a", ("system:nodes",), ["a", "192.0.2.1"])
    assert pki.request_subject(request) == ("system:node:a", ("system:nodes",))


STORED = controllers.password_hash("right")
SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
NODE_A = ("system:node:a", ("system:nodes",))


@pytest.mark.parametrize(
    ("user", "signer", "subject", "node", "password", "stored", "words"),
    [
        (agent.BOOTSTRAP_USER, SIGNER, NODE_A, "a", "right", None, ""),
        (agent.BOOTSTRAP_USER, SIGNER, NODE_A, "a", "right", STORED, ""),
        (agent.BOOTSTRAP_USER, SIGNER, NODE_A, "a", "wrong", STORED, "Node password rejected, duplicate hostname 'a'"),
        (agent.BOOTSTRAP_USER, SIGNER, NODE_A, "b", "right", None, "none of node 'b'"),
        (agent.BOOTSTRAP_USER, SIGNER, ("admin", ("system:masters",)), "a", "right", None, "none of node"),
        (agent.BOOTSTRAP_USER, SIGNER, ("system:kube-proxy", ()), "a", "right", None, "none of node"),
        (agent.BOOTSTRAP_USER, SIGNER, NODE_A, "a", "", None, "no node password"),
        ("system:serviceaccount:x:y", SIGNER, NODE_A, "a", "right", None, "may not ask"),
    ],
    # A stored password is salted: it would give the case another name in every process.
    ids=["first", "again", "wrong-password", "other-node", "admin", "kube-proxy", "no-password", "stranger"],
)
def test_joining_node_gets_only_its_own_certificates(
    user: str,
    signer: str,
    subject: tuple[str, tuple[str, ...]],
    node: str,
    password: str,
    stored: str | None,
    words: str,
) -> None:
    reason = controllers.refusal(user, signer, subject, node, password, stored)
    assert words in reason if words else reason == ""


def test_secrets_key_is_made_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "encryption-config.json"
    assert not server.encryption({"secrets-encryption": False, "secrets-encryption-provider": "aescbc"}, path)
    assert not path.exists()
    assert server.encryption({"secrets-encryption": True, "secrets-encryption-provider": "aescbc"}, path)
    first = path.read_text()
    assert '"aescbc"' in first
    assert path.stat().st_mode & 0o777 == 0o600
    # Switched off in the configuration: Secrets that are encrypted stay readable.
    assert server.encryption({"secrets-encryption": False, "secrets-encryption-provider": "aescbc"}, path)
    assert path.read_text() == first


# ------------------------------------------------------------------------------------------------------ registries


def test_mirror_becomes_hosts_toml_with_the_registry_as_last_resort() -> None:
    document = registries.check({"mirrors": {"ghcr.io": {"endpoint": ["http://192.0.2.9:5000"]}, "docker.io": None}})
    found = registries.hosts_toml(document)
    assert found["ghcr.io"] == (
        'server = "https://ghcr.io"\n\n[host."http://192.0.2.9:5000"]\n  capabilities = ["pull", "resolve"]\n'
    )
    assert found["docker.io"] == 'server = "https://registry-1.docker.io"\n'


def test_wildcard_mirror_is_the_default_folder() -> None:
    found = registries.hosts_toml({"mirrors": {"*": {"endpoint": ["https://r.example/v2/x"]}}})
    assert list(found) == ["_default"]
    assert "server" not in found["_default"]
    assert "override_path = true" in found["_default"]


def test_registry_credentials_and_tls() -> None:
    document = registries.check(
        {
            "mirrors": {"docker.io": {"endpoint": ["https://r.example"]}},
            "configs": {
                "r.example": {
                    "auth": {"username": "u", "password": 'p"'},
                    "tls": {"ca_file": "/ca", "cert_file": "/c", "key_file": "/k", "insecure_skip_verify": True},
                }
            },
        }
    )
    toml = registries.hosts_toml(document)
    for folder in ("docker.io", "r.example"):
        assert 'ca = ["/ca"]' in toml[folder]
        assert 'client = [["/c", "/k"]]' in toml[folder]
        assert "skip_verify = true" in toml[folder]
    auth = registries.auth_toml(document)
    assert 'registry.configs."r.example".auth]' in auth
    assert r'password = "p\""' in auth


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"mirror": {}}, "unknown key 'mirror'"),
        ({"mirrors": {"x": {"endpoints": []}}}, r"mirrors\.x\.endpoints"),
        ({"mirrors": {"x": {"rewrite": {"a": "b"}}}}, "rewrite is not in this stand-in"),
        ({"mirrors": {"x": {"endpoint": "http://y"}}}, "must be a list"),
        ({"configs": {"x": {"auth": {"user": "u"}}}}, r"configs\.x\.auth\.user"),
        (["x"], "expected a mapping"),
    ],
)
def test_registries_file_is_refused_by_key(document: object, words: str) -> None:
    with pytest.raises(registries.RegistriesError, match=words):
        registries.check(document)


# --------------------------------------------------------------------------------------------------------- network


def node(
    name: str, address: str = "", cidr: str = "", ready: bool = True, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"podCIDR": cidr} if cidr else {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}] if address else [],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def test_peers_are_the_other_nodes_that_have_a_range_and_an_address() -> None:
    nodes = [
        node("a", "192.0.2.1", "10.42.0.0/24"),
        node("c", "192.0.2.3", "10.42.2.0/24"),
        node("b", "192.0.2.2", "10.42.1.0/24"),
        node("d", "192.0.2.4"),
        node("e", "", "10.42.4.0/24"),
    ]
    assert network.peers(nodes, "a") == [
        network.Peer("192.0.2.2", "10.42.1.0/24"),
        network.Peer("192.0.2.3", "10.42.2.0/24"),
    ]


def test_host_gw_is_one_route_and_vxlan_knows_the_peers_hardware_address() -> None:
    peer = network.Peer("192.0.2.2", "10.42.1.0/24")
    assert network.join_commands("host-gw", peer) == [["ip", "route", "replace", "10.42.1.0/24", "via", "192.0.2.2"]]
    commands = [" ".join(c) for c in network.join_commands("vxlan", peer)]
    assert "bridge fdb replace 0e:42:c0:00:02:02 dev flannel.1 dst 192.0.2.2" in commands
    assert "ip route replace 10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink" in commands
    own = [" ".join(c) for c in network.device_commands("192.0.2.2", "10.42.1.0/24", 1450, "eth0")]
    assert "ip link set flannel.1 address 0e:42:c0:00:02:02 mtu 1450" in own


def test_masquerade_leaves_traffic_between_pods_alone() -> None:
    assert "ip saddr 10.42.1.0/24 ip daddr != { 10.42.0.0/16, 224.0.0.0/4 }" in network.masquerade(
        "10.42.1.0/24", "10.42.0.0/16"
    )


# ------------------------------------------------------------------------------------------------------- ServiceLB


def service(
    name: str, port: int = 80, created: str = "1", policy: str = "Cluster", labels: dict[str, str] | None = None
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "x",
            "creationTimestamp": created,
            "labels": labels or {},
        },
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": policy,
            "ports": [{"port": port, "protocol": "TCP"}],
        },
    }


def endpoints(name: str, node_name: str, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "x", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": [{"nodeName": node_name, "conditions": {"ready": ready}}],
    }


A, B = node("a", "192.0.2.1"), node("b", "192.0.2.2")


def decide(
    services: list[dict[str, Any]], nodes: list[dict[str, Any]], slices: list[dict[str, Any]] | None = None
) -> dict[str, list[str]]:
    return {name: found for (_, name), found in servicelb.decide(services, nodes, slices or []).items()}


def test_servicelb_names_every_ready_node() -> None:
    assert decide([service("s")], [B, A, node("c", "192.0.2.3", ready=False)]) == {"s": ["192.0.2.1", "192.0.2.2"]}


def test_servicelb_with_local_traffic_policy_names_only_nodes_with_a_ready_endpoint() -> None:
    slices = [endpoints("s", "a"), endpoints("s", "b", ready=False), endpoints("other", "b")]
    assert decide([service("s", policy="Local")], [A, B], slices) == {"s": ["192.0.2.1"]}


def test_servicelb_enablelb_on_one_node_excludes_all_others() -> None:
    labelled = node("b", "192.0.2.2", labels={"svccontroller.k3s.cattle.io/enablelb": "true"})
    assert decide([service("s")], [A, labelled]) == {"s": ["192.0.2.2"]}


def test_servicelb_pool_selects_the_nodes_of_the_same_pool() -> None:
    pool = {"svccontroller.k3s.cattle.io/lbpool": "one"}
    nodes = [A, node("b", "192.0.2.2", labels=pool)]
    assert decide([service("s", labels=pool)], nodes) == {"s": ["192.0.2.2"]}
    assert decide([service("s")], nodes) == {"s": ["192.0.2.1", "192.0.2.2"]}


def test_servicelb_host_port_belongs_to_the_service_that_was_first() -> None:
    found = decide([service("late", created="2"), service("early", created="1"), service("free", port=81)], [A])
    assert found == {"early": ["192.0.2.1"], "late": [], "free": ["192.0.2.1"]}


def test_servicelb_leaves_services_of_another_class_and_type_alone() -> None:
    other = service("s")
    other["spec"]["loadBalancerClass"] = "example.com/lb"
    plain = service("t")
    plain["spec"]["type"] = "ClusterIP"
    assert decide([other, plain], [A]) == {}


# --------------------------------------------------------------------------------------------------------- Traefik

MODULE = "github.com/abaci-infra/flyreplay"
PLUGIN = {
    "moduleName": MODULE,
    "mountPath": f"/plugins-local/src/{MODULE}",
    "type": "inlinePlugin",
    "source": {"go.mod": "module x\n", ".traefik.yml": "type: middleware\n", "main.go": "package x\n"},
}


def render(values: Any) -> dict[str, dict[str, Any]]:
    return {o["kind"]: o for o in traefik.render(values, "image:1")}


def test_traefik_defaults_are_those_of_the_bundled_chart() -> None:
    objects = render(None)
    assert set(objects) == {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "IngressClass", "Service", "Deployment"),
    }
    for kind, found in objects.items():
        assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == "traefik-kube-system"
        assert found["metadata"].get("namespace", "kube-system") == "kube-system", kind
    assert objects["IngressClass"]["metadata"]["name"] == "traefik"
    assert objects["Service"]["spec"]["type"] == "LoadBalancer"
    assert objects["Service"]["spec"]["externalTrafficPolicy"] == "Cluster"
    pod = objects["Deployment"]["spec"]["template"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert objects["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    container = pod["spec"]["containers"][0]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert "--entryPoints.websecure.http.tls=true" in container["args"]
    assert not any("accesslog" in argument for argument in container["args"])


def test_traefik_honours_the_values_of_the_role() -> None:
    values = {
        "deployment": {"kind": "DaemonSet", "podAnnotations": {"abaci.infra/values-checksum": "x"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        "service": {"spec": {"externalTrafficPolicy": "Local"}},
        "providers": {"kubernetesCRD": {"allowEmptyServices": False}},
        "ports": {
            "web": {"forwardedHeaders": {"trustedIPs": ["192.0.2.0/24", "198.51.100.1"]}},
            "websecure": {
                "transport": {
                    "lifeCycle": {"requestAcceptGraceTimeout": "10s"},
                    "respondingTimeouts": {"readTimeout": "10m"},
                }
            },
        },
        "experimental": {"localPlugins": {"flyreplay": PLUGIN}},
        "logs": {"access": {"enabled": True, "format": "json"}},
        "additionalArguments": ["--accesslog.fields.queryparameters.defaultmode=drop"],
        "nodeSelector": {"edge": "true"},
        "tolerations": [{"operator": "Exists"}],
    }
    objects = render(values)
    spec = objects["DaemonSet"]["spec"]
    assert "replicas" not in spec
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    pod = spec["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    for expected in (
        "--providers.kubernetescrd.allowEmptyServices=false",
        "--providers.kubernetesingress.allowEmptyServices=true",
        "--entryPoints.web.forwardedHeaders.trustedIPs=192.0.2.0/24,198.51.100.1",
        "--entryPoints.websecure.transport.lifeCycle.requestAcceptGraceTimeout=10s",
        "--entryPoints.websecure.transport.respondingTimeouts.readTimeout=10m",
        "--accesslog.fields.queryparameters.defaultmode=drop",
        f"--experimental.localPlugins.flyreplay.moduleName={MODULE}",
        "--accesslog=true",
        "--accesslog.format=json",
    ):
        assert expected in arguments
    assert objects["Service"]["spec"]["externalTrafficPolicy"] == "Local"
    assert objects["ConfigMap"]["data"] == PLUGIN["source"]
    assert objects["ConfigMap"]["metadata"]["name"] == "traefik-local-plugin-flyreplay"
    assert spec["template"]["metadata"]["annotations"]["abaci.infra/values-checksum"] == "x"
    volume = next(v for v in pod["volumes"] if v["name"] == "flyreplay")
    assert volume["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    mount = next(m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "flyreplay")
    assert mount["mountPath"] == f"/plugins-local/src/{MODULE}"
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"edge": "true"}, [{"operator": "Exists"}])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"additionalVolumes": [{"name": "x"}]}, "'additionalVolumes'"),
        ({"deployment": {"replicas": 2}}, "'deployment.replicas'"),
        ({"ports": {"metrics": {}}}, "'ports.metrics'"),
        ({"ports": {"web": {"redirections": {}}}}, "'ports.web.redirections'"),
        ({"providers": {"kubernetesCRD": {"allowEmptyServices": "true"}}}, "wrong type"),
        ({"service": {"spec": {"externalTrafficPolicy": True}}}, "wrong type"),
        ({"deployment": {"kind": "StatefulSet"}}, "'deployment.kind'"),
        ({"experimental": {"localPlugins": {"p": {**PLUGIN, "type": "hostPath"}}}}, "only inlinePlugin"),
        ({"experimental": {"localPlugins": {"p": {**PLUGIN, "mountPath": "/x"}}}}, "mountPath' must be"),
        ({"experimental": {"localPlugins": {"p": {**PLUGIN, "source": {}}}}}, "source' is missing"),
        ({"experimental": {"plugins": {}}}, "'experimental.plugins'"),
        (["x"], "expected a mapping"),
    ],
)
def test_traefik_value_that_is_not_honoured_is_refused_by_name(values: object, words: str) -> None:
    with pytest.raises(traefik.ValuesError, match=re.escape(words)):
        traefik.render(values, "image:1")


@pytest.mark.parametrize("spec", [{}, {"failurePolicy": "abort"}, {"valuesContent": "x"}])
def test_helm_chart_config_may_say_that_a_failure_changes_nothing(spec: dict[str, Any]) -> None:
    controllers.check_spec(spec)


@pytest.mark.parametrize("spec", [{"failurePolicy": "reinstall"}, {"valuesSecrets": [{"name": "x"}]}])
def test_helm_chart_config_is_refused_where_it_asks_for_more(spec: dict[str, Any]) -> None:
    with pytest.raises(traefik.ValuesError, match=next(iter(spec))):
        controllers.check_spec(spec)


# ------------------------------------------------------------------------------------------------- nodes and files


def test_skip_files_stop_a_manifest(tmp_path: pathlib.Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "d.txt", "e.yaml", "e.yaml.skip", ".f.yaml"):
        (tmp_path / name).write_text("x")
    assert [p.name for p in controllers.manifests(tmp_path)] == ["a.yml", "b.yaml", "c.json"]


SETTINGS = agent.Settings(
    "10.42.0.0/16", "10.43.0.0/16", "30000-32767", "10.43.0.10", "cluster.local", "vxlan", True, True
)


@pytest.mark.parametrize("unified", [True, False])
def test_kubelet_api_is_authenticated_and_cgroup_v1_is_allowed_only_where_it_is(unified: bool) -> None:
    config = agent.kubelet_config(
        {"protect-kernel-defaults": True}, SETTINGS, pathlib.Path("/d"), "/etc/resolv.conf", unified, 1
    )
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["protectKernelDefaults"] is True
    assert config.get("failCgroupV1") is (None if unified else False)


def test_component_arguments_are_handed_on() -> None:
    given = {
        "node-label": ["a=1"],
        "node-taint": ["k=v:NoSchedule"],
        "kubelet-arg": ["allowed-unsafe-sysctls=net.ipv4.tcp_syn_retries", "--max-pods=20"],
    }
    command = agent.kubelet_command(given, pathlib.Path("/d"), "n", "192.0.2.1", ["x=y"])
    assert command[-2:] == ["--allowed-unsafe-sysctls=net.ipv4.tcp_syn_retries", "--max-pods=20"]
    assert "--node-labels=x=y,a=1" in command
    assert "--register-with-taints=k=v:NoSchedule" in command


def test_cluster_settings_follow_from_the_ranges() -> None:
    given = {
        **{"cluster-cidr": ["10.1.0.0/16"], "service-cidr": ["10.2.0.0/16"], "cluster-dns": []},
        **{"service-node-port-range": "1-2", "cluster-domain": "d", "flannel-backend": "none"},
        **{"disable-network-policy": True, "disable-kube-proxy": False},
    }
    found = server.settings_of(given)
    assert (found.cluster_dns, found.network_policy, found.kube_proxy) == ("10.2.0.10", False, True)


def test_bundled_images_are_the_ones_that_the_archive_holds() -> None:
    text = (TESTBED / "images.py").read_text() + (TESTBED / "build.py").read_text()
    sys.path.insert(0, str(TESTBED))
    import build

    assert controllers.TRAEFIK_IMAGE.endswith(f":{build.TRAEFIK}")
    manifests = "".join(p.read_text() for p in (TESTBED / "k3s/k3s/manifests").glob("*.yaml"))
    assert f"mirrored-coredns-coredns:{build.COREDNS.removeprefix('v')}" in manifests
    assert f"local-path-provisioner:{build.LOCAL_PATH}" in manifests
    for image in ("mirrored-pause:3.6", "mirrored-library-busybox:1.37.0"):
        assert image in text
    assert set(payload.CNI) == set(next(programs for name, programs in build.PAYLOAD if name == "cni"))

"""The stand-in's options: k3s's merge rule, and refusals by name."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "testbed/k3s"))

from k3s import options  # type: ignore[attr-defined]

AGENT = {"server": "https://192.0.2.1:6443"}


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([{"node-label": ["a=1"]}, {"node-label": ["b=2"]}], ["b=2"]),
        ([{"node-label": ["a=1"]}, {"node-label+": ["b=2"]}], ["a=1", "b=2"]),
        ([{"node-label+": ["a=1"]}, {"node-label+": ["b=2"]}], ["a=1", "b=2"]),
        ([{"node-label+": ["a=1"]}, {"node-label": ["b=2"]}], ["b=2"]),
        ([{"node-label": "a=1"}, {"node-label+": "b=2"}], ["a=1", "b=2"]),
        ([{"node-label": ["a=1"]}, None, {}], ["a=1"]),
    ],
)
def test_last_value_of_a_key_wins_and_a_plus_appends(documents: list[object], expected: list[str]) -> None:
    merged = options.resolve("server", [(f"{n}.yaml", d) for n, d in enumerate(documents)], {}, [])
    assert merged["node-label"] == expected


def test_command_line_replaces_the_whole_list_of_the_files() -> None:
    found = options.resolve(
        "server",
        [("config.yaml", {"kubelet-arg": ["a=1", "b=2"], "data-dir": "/file"})],
        {"K3S_DATA_DIR": "/env"},
        ["--kubelet-arg", "c=3", "--kubelet-arg=d=4", "--data-dir=/line"],
    )
    assert found["kubelet-arg"] == ["c=3", "d=4"]
    assert found["data-dir"] == "/line"


def test_environment_is_stronger_than_files() -> None:
    found = options.resolve("agent", [("config.yaml", {**AGENT, "token": "file"})], {"K3S_TOKEN": "env"}, [])
    assert found["token"] == "env"


@pytest.mark.parametrize(
    ("command", "document", "words"),
    [
        ("server", {"node-lable": ["a=1"]}, "unknown option 'node-lable'"),
        ("server", {"node_label": ["a=1"]}, "unknown option 'node_label'"),
        ("server", {"cluster-init": True}, "does not have it"),
        ("server", {"embedded-registry": True}, "does not have it"),
        ("agent", {**AGENT, "tls-san": ["x"]}, "`k3s server` only"),
        ("agent", {**AGENT, "write-kubeconfig-mode": "0600"}, "`k3s server` only"),
        ("agent", {}, "an agent needs the address of its server"),
        ("server", {"server": "https://192.0.2.1:6443"}, "joining a second server"),
        ("server", {"flannel-backend": "wireguard-native"}, "flannel-backend: 'wireguard-native'"),
        ("server", {"disable": ["treafik"]}, "disable: 'treafik'"),
        ("server", {"cluster-cidr": ["10.42.0.0/16", "fd00::/56"]}, "dual stack"),
        ("server", {"write-kubeconfig-mode": 0o600}, "put the mode in quotes"),
        ("server", {"secrets-encryption": "maybe"}, "expected true or false"),
        ("server", {"https-listen-port": "https"}, "expected a number"),
        ("server", ["a"], "expected a mapping"),
    ],
)
def test_what_is_unknown_or_not_built_is_refused_by_name(command: str, document: object, words: str) -> None:
    with pytest.raises(options.OptionError, match=words.replace("(", r"\(")):
        options.resolve(command, [("config.yaml", document)], {}, [])


@pytest.mark.parametrize("arguments", [["--nope"], ["word"], ["--token"], ["--docker"]])
def test_command_line_is_held_to_the_same_table(arguments: list[str]) -> None:
    with pytest.raises(options.OptionError):
        options.resolve("server", [], {}, arguments)


def test_no_option_is_both_built_and_refused() -> None:
    assert not set(options.SUPPORTED) & set(options.UNSUPPORTED)


def test_boolean_flag_needs_no_value_and_disable_takes_commas() -> None:
    found = options.resolve("server", [], {}, ["--secrets-encryption", "--disable", "traefik,servicelb"])
    assert found["secrets-encryption"] is True
    assert found["disable"] == ["traefik", "servicelb"]


def test_files_are_read_in_name_order_after_the_main_file(tmp_path: pathlib.Path) -> None:
    main = tmp_path / "config.yaml"
    folder = tmp_path / "config.yaml.d"
    folder.mkdir()
    main.write_text("node-name: main\nnode-label: [m=1]\n")
    (folder / "20.yaml").write_text("node-name: second\nnode-label+: [b=2]\n")
    (folder / "10.yaml").write_text("node-name: first\nnode-label+: [a=1]\n")
    (folder / "30.yml").write_text("nonsense: true\n")
    found = options.load("server", {"K3S_CONFIG_FILE": str(main)}, [])
    assert found["node-name"] == "second"
    assert found["node-label"] == ["m=1", "a=1", "b=2"]


def test_broken_yaml_names_its_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: [b\n")
    with pytest.raises(options.OptionError, match=r"config\.yaml: not valid YAML"):
        options.load("server", {}, ["--config", str(path)])

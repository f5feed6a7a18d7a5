"""The manifest of the role fuse's cluster half."""

from __future__ import annotations

import json
from typing import Any

import pytest
from evaluating import evaluate
from rendering import check_schema

Object = dict[str, Any]


@pytest.fixture(scope="module")
def daemonset() -> Object:
    found: Object = evaluate("fuse", "__fuse_daemonset")
    return found


def test_the_device_plugin_is_valid_and_has_no_rights(daemonset: Object) -> None:
    check_schema(daemonset)
    spec = daemonset["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in container["securityContext"] and not spec["automountServiceAccountToken"]
    assert spec["tolerations"] == [{"operator": "Exists"}]


def test_it_is_told_of_fuse_alone(daemonset: Object) -> None:
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    flag, device = container["args"]
    assert flag == "--device"
    assert json.loads(device) == {"name": "fuse", "groups": [{"count": 110, "paths": [{"path": "/dev/fuse"}]}]}


def test_the_image_is_pinned_by_digest(daemonset: Object) -> None:
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    assert "@sha256:" in container["image"] and ":0.2.0@" in container["image"]


def test_hazard_a_limit_of_cpu_time_or_many_cores_stop_the_plugin(daemonset: Object) -> None:
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    assert "cpu" not in container["resources"]["limits"]
    assert {"name": "GOMAXPROCS", "value": "2"} in container["env"]

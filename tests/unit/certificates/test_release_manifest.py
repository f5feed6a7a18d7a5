"""The release's one file: that it is the right one, in which order it goes in, and what a removal keeps."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleLookupError
from ansible_collections.abaci.infra.plugins.lookup import release_manifest as lookup
from ansible_collections.abaci.infra.plugins.module_utils import release_manifest as rules

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[3]
KINDS = yaml.safe_load((ROOT / "roles/cert_manager/vars/main.yml").read_text())["__cert_manager_kinds"]
DEPLOYMENTS = ("cert-manager", "cert-manager-cainjector", "cert-manager-webhook")
VERSIONS = ("v1.11.5", "v1.21.1")


def manifest(version: str) -> Path:
    """The manifest of a release, as the bed builds it from the release's own chart."""
    sys.path.insert(0, str(ROOT / "testbed"))
    try:
        import build  # type: ignore[import-not-found, unused-ignore]
    finally:
        sys.path.remove(str(ROOT / "testbed"))
    folder: Path = build.artifact("cert-manager-manifests")
    return folder / version / "cert-manager.yaml"


@pytest.fixture(scope="module", params=VERSIONS)
def release(request: pytest.FixtureRequest) -> tuple[str, list[Object]]:
    return request.param, lookup.read(str(manifest(request.param)), request.param, KINDS)


def names(objects: list[Object], kind: str) -> list[str]:
    return [item["metadata"]["name"] for item in objects if item["kind"] == kind]


def test_both_releases_bring_what_the_role_waits_for(release: tuple[str, list[Object]]) -> None:
    _, objects = release
    assert sorted(names(objects, "Deployment")) == sorted(DEPLOYMENTS)
    assert names(objects, "Namespace") == ["cert-manager"]
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        assert names(objects, kind) == ["cert-manager-webhook"]


def test_the_kinds_go_in_before_anything_that_may_use_them(release: tuple[str, list[Object]]) -> None:
    kinds = [item["kind"] for item in rules.ordered(release[1])]
    early = {"Namespace", "CustomResourceDefinition"}
    last = max(place for place, kind in enumerate(kinds) if kind in early)
    assert set(kinds[: last + 1]) == early and len(kinds) == len(release[1])


def test_every_object_gets_our_label_and_keeps_its_own(release: tuple[str, list[Object]]) -> None:
    before = copy.deepcopy(release[1])
    made = rules.prepared([*release[1], None], {"pod-security.kubernetes.io/enforce": "restricted"})
    assert release[1] == before, "what was read is left alone"
    for old, new in zip(before, made, strict=True):
        labels = new["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "abaci.infra"
        assert (old["metadata"].get("labels") or {}).items() <= labels.items()
        assert ("pod-security.kubernetes.io/enforce" in labels) is (new["kind"] == "Namespace")


def test_the_pods_meet_the_profile_that_their_namespace_enforces(release: tuple[str, list[Object]]) -> None:
    for item in release[1]:
        if item["kind"] == "Deployment":
            spec = item["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in spec["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_removal_keeps_certificates_and_accounts_unless_they_are_named(release: tuple[str, list[Object]]) -> None:
    kept = rules.removal(release[1], with_data=False)
    assert not {"Namespace", "CustomResourceDefinition"} & {item["kind"] for item in kept}
    everything = rules.removal(release[1], with_data=True)
    assert len(everything) == len(release[1])
    assert everything[-1]["kind"] == "Namespace"
    # Left without its Deployment, a webhook makes the API refuse every Certificate.
    assert {item["kind"] for item in kept[:2]} == {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("just text", "no Kubernetes object"),
        ("", "no Kubernetes object"),
        ("{kind: Namespace, metadata: {name: x}}", "does not define Certificate"),
        ("a: [", "cannot be read"),
    ],
)
def test_bad_input_another_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "cert-manager.yaml"
    path.write_text(text)
    with pytest.raises(AnsibleLookupError, match=words):
        lookup.read(str(path), "v1.21.1", KINDS)


def test_bad_input_another_version_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError, match=r"of version v1\.11\.5 and not v1\.21\.1"):
        lookup.read(str(manifest("v1.11.5")), "v1.21.1", KINDS)
    with pytest.raises(AnsibleLookupError, match="cannot be read"):
        lookup.read(str(tmp_path / "nowhere.yaml"), "v1.21.1", KINDS)

"""What the role cert_manager renders, checked against the CRDs of the version that runs here and of the pinned one."""

from __future__ import annotations

import base64
import functools
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from evaluating import errors, evaluate
from rendering import ROOT, Object, check_schema, strict

# The bed runs the first, the product is pinned to the second (testbed/build.py).
RUN, PINNED = "v1.11.5", "v1.21.1"
ROLE = ROOT / "roles" / "cert_manager"
CHECKSUM = "0" * 64
GOOD: dict[str, Any] = {
    "cert_manager_state": "present",
    "cert_manager_email": "ops@abaci.one",
    "cert_manager_checksum": CHECKSUM,
}


def variables(**given: Any) -> dict[str, Any]:
    return {**GOOD, **given}


@functools.cache
def manifest(version: str) -> Path:
    """The manifest of a release, as the bed builds it from the release's own chart."""
    sys.path.insert(0, str(ROOT / "testbed"))
    try:
        import build  # type: ignore[import-not-found, unused-ignore]
    finally:
        sys.path.remove(str(ROOT / "testbed"))
    folder: Path = build.artifact("cert-manager-manifests")
    return folder / version / "cert-manager.yaml"


@functools.cache
def schema(version: str, kind: str) -> Object:
    """The strict schema of a kind of cert-manager, from the CRD of that version."""
    for document in yaml.load_all(manifest(version).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if document and document["kind"] == "CustomResourceDefinition" and document["spec"]["names"]["kind"] == kind:
            made: Object = strict(document["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
            made["properties"]["metadata"] = {"type": "object"}
            return made
    raise AssertionError(f"no CRD for {kind} in {version}")


def check(version: str, item: Object) -> None:
    """Raise where the CRD of that version does not allow the object; a field that it would drop is an error, too."""
    jsonschema.Draft7Validator(schema(version, item["kind"])).validate(item)


def issuers(**given: Any) -> dict[str, Object]:
    found = evaluate("cert_manager", "__cert_manager_issuer_objects", **variables(**given))
    return {item["metadata"]["name"]: item for item in found}


def solver(issuer: Object) -> Object:
    (only,) = issuer["spec"]["acme"]["solvers"]
    return dict(only)


@pytest.mark.parametrize("version", [RUN, PINNED])
def test_each_rendering_is_valid_for_the_crds_of_its_version_with_unknown_fields_refused(
    version: str, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    made = issuers(
        cert_manager_version=version,
        cert_manager_acme_directory="https://acme.abaci.one/dir",
        cert_manager_acme_ca_file=str(ca),
        cert_manager_ca_certificate_file=str(ca),
        cert_manager_ca_private_key_file=str(ca),
    )
    assert list(made) == ["letsencrypt-prod", "letsencrypt-staging", "own-ca"]
    for item in made.values():
        check(version, item)
    assert base64.b64decode(made["letsencrypt-prod"]["spec"]["acme"]["caBundle"]).decode() == ca.read_text()


@pytest.mark.parametrize("version", [RUN, PINNED])
def test_the_check_itself_refuses_a_field_that_the_version_does_not_have(version: str) -> None:
    item = issuers(cert_manager_version=version)["letsencrypt-prod"]
    item["spec"]["acme"]["solvers"][0]["http01"]["ingress"]["ingresClass"] = "traefik"
    with pytest.raises(jsonschema.ValidationError):
        check(version, item)


def test_fields_of_the_newer_version_are_unknown_to_the_older() -> None:
    newer = issuers(
        cert_manager_version=PINNED, cert_manager_self_check_wait="30s", cert_manager_acme_profile="tlsserver"
    )
    check(PINNED, newer["letsencrypt-prod"])
    with pytest.raises(jsonschema.ValidationError):
        check(RUN, newer["letsencrypt-prod"])


@pytest.mark.parametrize(
    ("version", "field"), [("v1.11.5", "class"), ("v1.12.0", "ingressClassName"), (PINNED, "ingressClassName")]
)
def test_the_solver_names_the_class_in_one_way_and_opens_no_port_on_the_nodes(version: str, field: str) -> None:
    ingress = solver(issuers(cert_manager_version=version)["letsencrypt-prod"])["http01"]["ingress"]
    assert ingress == {field: "traefik", "serviceType": "ClusterIP"}


def test_by_default_both_directories_are_lets_encrypts_and_the_accounts_have_the_old_names() -> None:
    made = issuers()
    servers = {name: item["spec"]["acme"]["server"] for name, item in made.items()}
    assert servers == {
        "letsencrypt-prod": "https://acme-v02.api.letsencrypt.org/directory",
        "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
    }
    keys = [item["spec"]["acme"]["privateKeySecretRef"]["name"] for item in made.values()]
    assert keys == ["letsencrypt-prod-key", "letsencrypt-staging-key"]
    assert all("caBundle" not in item["spec"]["acme"] for item in made.values())


def test_another_acme_server_stands_behind_both_issuers() -> None:
    servers = {
        item["spec"]["acme"]["server"]
        for item in issuers(cert_manager_acme_directory="https://ca.abaci.one/d").values()
    }
    assert servers == {"https://ca.abaci.one/d"}


def coredns(**given: Any) -> Object:
    return dict(evaluate("cert_manager", "__cert_manager_coredns_object", **variables(**given)))


def test_names_lead_to_traefik_without_a_second_hosts_plugin_which_coredns_would_refuse() -> None:
    found = coredns(cert_manager_hairpin_domains=["a.abaci.one", "b.abaci.one"])
    check_schema(found)
    assert (found["metadata"]["name"], found["metadata"]["namespace"]) == ("coredns-custom", "kube-system")
    text = found["data"]["abaci-hairpin.override"]
    assert text.count("rewrite stop {") == 2 and "hosts" not in text
    assert "name exact a.abaci.one traefik.kube-system.svc.cluster.local" in text
    assert "data" not in coredns(), "without names only what is ours goes"


def test_absent_it_leads_no_names_any_more() -> None:
    names = {"cert_manager_state": "absent", "cert_manager_hairpin_domains": ["a.abaci.one"]}
    assert "data" not in coredns(**names)
    for data, applied in (({"abaci-hairpin.override": "x"}, 1), ({"other.override": "x"}, 0)):
        found = {"objects": [{"data": data}], "unknown": []}
        made = evaluate(
            "cert_manager", "__cert_manager_hairpin_objects", **variables(**names, __cert_manager_found=found)
        )
        assert len(made) == applied
    (task,) = [task for task in yaml.safe_load((ROLE / "tasks/absent.yml").read_text()) if "Remove" in task["name"]]
    assert task["abaci.infra.server_side_apply"]["objects"] == "{{ __cert_manager_hairpin_objects }}"


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no_checksum": (
        {"cert_manager_checksum": ""},
        ["cert_manager_checksum is not set", f"/{PINNED}/cert-manager.yaml | sha256sum"],
    ),
    "no_checksum_of_a_folder": (
        {"cert_manager_checksum": None, "cert_manager_source": "folder", "cert_manager_artifact_dir": "/srv"},
        ["sha256sum /srv/cert-manager.yaml"],
    ),
    "short_checksum": ({"cert_manager_checksum": "abc"}, ["cert_manager_checksum is no SHA-256"]),
    "version": ({"cert_manager_version": "1.21"}, ["cert_manager_version is 1.21", "v1.21.1"]),
    "old_version": ({"cert_manager_version": "v1.10.0"}, ["cert_manager_version is v1.10.0", "v1.11.0 or newer"]),
    "mirror": ({"cert_manager_source": "mirror"}, ["cert_manager_mirror_url is empty"]),
    "folder": ({"cert_manager_source": "folder"}, ["cert_manager_artifact_dir is empty"]),
    "no_email": ({"cert_manager_email": ""}, ["cert_manager_email is empty"]),
    "no_address": ({"cert_manager_email": "ops"}, ["cert_manager_email ops is no e-mail address"]),
    "two_lines": ({"cert_manager_email": "a@b.one\nc"}, ["is no e-mail address"]),
    "example_com": ({"cert_manager_email": "ops@example.com"}, ["domain for examples"]),
    "example_below": ({"cert_manager_email": "ops@Mail.Example.ORG"}, ["domain for examples"]),
    "example_top": ({"cert_manager_email": "ops@abaci.test"}, ["domain for examples"]),
    "http": ({"cert_manager_acme_directory": "http://acme.abaci.one"}, ["cert_manager_acme_directory", "https://"]),
    "no_ca": ({"cert_manager_acme_ca_file": "/nowhere/ca"}, ["cert_manager_acme_ca_file", "/nowhere/ca"]),
    "half_a_ca": ({"cert_manager_ca_certificate_file": __file__}, ["certificate and its key"]),
    "nothing": ({"cert_manager_acme_state": "unmanaged"}, ["nothing could be issued"]),
    "wait": ({"cert_manager_self_check_wait": "30"}, ["cert_manager_self_check_wait 30 is no time"]),
    "wait_too_new": (
        {"cert_manager_version": RUN, "cert_manager_self_check_wait": "30s"},
        ["needs v1.21.0", "cert_manager_hairpin_domains"],
    ),
    "profile_too_new": ({"cert_manager_version": RUN, "cert_manager_acme_profile": "x"}, ["needs v1.18.0"]),
    "hairpin": (
        {"cert_manager_hairpin_domains": ["https://a.one"]},
        ["cert_manager_hairpin_domains", "leave out the scheme"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_sentence_that_names_the_variable(name: str) -> None:
    given, words = BAD[name]
    said = errors("cert_manager", **variables(**given))
    assert len(said) == 1, said
    for word in words:
        assert word in said[0]


def test_unmanaged_the_values_are_not_looked_at_but_their_names_and_choices_are() -> None:
    assert errors("cert_manager", **variables(cert_manager_state="unmanaged", cert_manager_email="none")) == []
    (unknown,) = errors("cert_manager", cert_manager_statt="present")
    assert "cert_manager_statt" in unknown
    (choice,) = errors("cert_manager", cert_manager_state="off")
    assert "must be one of: present, absent, unmanaged, got: off" in choice


def test_good_input_is_not_refused_and_absent_needs_no_email() -> None:
    assert errors("cert_manager", **GOOD) == []
    gone = variables(cert_manager_state="absent", cert_manager_email="")
    assert errors("cert_manager", **gone) == []

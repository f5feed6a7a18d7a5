"""OCI archives as the specification says, made from small layers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

TESTBED = Path(__file__).resolve().parents[3] / "testbed"
sys.path.insert(0, str(TESTBED))

import images  # noqa: E402
from images import Entry, Image  # noqa: E402


def read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names)), "a blob is in the archive twice"
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def blob(content: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    data = content["blobs/" + descriptor["digest"].replace(":", "/")]
    assert len(data) == descriptor["size"]
    return data


def members(layer: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as tar:
        return {member.name: member for member in tar}


def one(name: str = "docker.io/library/x:1", *layers: tuple[Entry, ...]) -> Image:
    return Image(name, layers or ((Entry("bin/x", b"x", mode=0o755),),), {"Cmd": ["/bin/x"], "Env": [images.PATH]})


def test_every_blob_is_under_its_digest_and_the_config_names_the_layers_uncompressed_digests(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    images.write_archive(archive, [one("docker.io/library/x:1", (Entry("a", b"1"),), (Entry("b", b"2"),))])
    content = read(archive)
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(content["index.json"])
    manifest = json.loads(blob(content, index["manifests"][0]))
    config = json.loads(blob(content, manifest["config"]))
    layers = [blob(content, layer) for layer in manifest["layers"]]
    assert [sorted(members(layer)) for layer in layers] == [["a"], ["b"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(gzip.decompress(d)).hexdigest()}" for d in layers]
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["config"]["Cmd"] == ["/bin/x"]
    assert len(config["history"]) == 2


def test_names_are_there_for_containerd_and_for_skopeo(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    images.write_archive(archive, [one("ghcr.io/someone/app:latest")])
    (entry,) = json.loads(read(archive)["index.json"])["manifests"]
    assert entry["annotations"] == {
        "io.containerd.image.name": "ghcr.io/someone/app:latest",
        "org.opencontainers.image.ref.name": "latest",
    }


@pytest.mark.parametrize("name", ["busybox", "library/busybox:1", "docker.io/library/busybox"])
def test_a_short_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be full"):
        images.write_archive(tmp_path / "x.tar", [one(name)])


def test_a_shared_layer_is_in_the_archive_once(tmp_path: Path) -> None:
    layer = images.make_layer([Entry("base", b"b" * 1000)], tmp_path / "layer")
    archive = tmp_path / "x.tar"
    images.write_archive(archive, [Image(f"docker.io/library/{n}:1", (layer,), {"Cmd": [n]}) for n in "ab"])
    content = read(archive)
    manifests = [json.loads(blob(content, entry)) for entry in json.loads(content["index.json"])["manifests"]]
    assert manifests[0]["layers"] == manifests[1]["layers"]
    assert manifests[0]["config"] != manifests[1]["config"]
    assert not list(tmp_path.glob(".x.tar.*"))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        images.write_archive(tmp_path / name, [one()])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_layer_has_each_directory_once_before_its_content_and_belongs_to_root(tmp_path: Path) -> None:
    source = tmp_path / "program"
    source.write_bytes(b"p" * 10)
    buffer = io.BytesIO()
    entries = [Entry("usr/bin/p", source, mode=0o755), Entry("usr/bin/q", link="p"), Entry("tmp", mode=0o1777)]
    images.layer_tar(entries, buffer)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        found = tar.getmembers()
    assert [member.name for member in found] == ["usr", "usr/bin", "usr/bin/p", "usr/bin/q", "tmp"]
    assert {(member.uid, member.gid) for member in found} == {(0, 0)}
    program, link, tmp = found[2:]
    assert (program.mode, program.size) == (0o755, 10)
    assert link.issym()
    assert link.linkname == "p"
    assert (tmp.isdir(), tmp.mode) == (True, 0o1777)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_a_path_that_leaves_the_root_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="inside the root"):
        images.layer_tar([Entry(path, b"x")], io.BytesIO())


def test_a_path_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="there once"):
        images.layer_tar([Entry("a", b"1"), Entry("a", b"2")], io.BytesIO())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base made from a root file system as mmdebstrap writes it: "./" before names, devices, hard links."""
    rootfs = tmp_path / "rootfs.tar"
    with tarfile.open(rootfs, "w") as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mode = kind, len(data), link, 0o755
            tar.addfile(info, io.BytesIO(data))

        add("./", tarfile.DIRTYPE)
        add("./dev/", tarfile.DIRTYPE)
        add("./dev/null", tarfile.CHRTYPE)
        add("./usr/bin/busybox", data=b"\x7fELFbusybox")
        add("./usr/bin/link", tarfile.LNKTYPE, link="./usr/bin/busybox")
        add("./bin", tarfile.SYMTYPE, link="usr/bin")
        add("./etc/ssl/certs/ca-certificates.crt", data=b"PEM")
        add("./var/lib/apt/lists/index", data=b"big")
    out = tmp_path / "base"
    out.mkdir()
    images.write_base(rootfs, out)
    (out / images.APPLETS).write_text("[\nbusybox\nsh\nwget\n")
    return out


def test_the_base_layer_is_the_root_file_system_without_devices_and_lists(base: Path) -> None:
    layer = images.base_layer(base)
    data = layer.file.read_bytes()
    assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}"
    assert layer.size == len(data)
    found = members(data)
    assert sorted(found) == ["bin", "dev", "etc/ssl/certs/ca-certificates.crt", "usr/bin/busybox", "usr/bin/link"]
    assert found["usr/bin/link"].linkname == "usr/bin/busybox"
    assert found["bin"].linkname == "usr/bin"
    assert (base / "busybox").read_bytes() == b"\x7fELFbusybox"


def test_a_root_file_system_without_busybox_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "rootfs.tar", "w"):
        pass
    with pytest.raises(ValueError, match="holds no busybox"):
        images.write_base(tmp_path / "rootfs.tar", tmp_path)


def test_the_images_have_the_names_and_contents_that_manifests_count_on(base: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    made = {
        image.name: image
        for image in (
            images.app(base, program, [("app/server.py", program), ("app/migrate.py", program)]),
            images.redis(base),
            images.busybox(base, "docker.io/library/busybox:1.36"),
            images.pause(program),
            images.coredns(base, program, "v1.15.0"),
            images.local_path(base, program, "v0.0.30"),
            images.traefik(base, program, "3.7.15"),
        )
    }
    assert sorted(made) == [
        "docker.io/library/busybox:1.36",
        "docker.io/library/redis:7-alpine",
        "docker.io/rancher/local-path-provisioner:v0.0.30",
        "docker.io/rancher/mirrored-coredns-coredns:1.15.0",
        "docker.io/rancher/mirrored-library-traefik:3.7.15",
        "docker.io/rancher/mirrored-pause:3.6",
        "ghcr.io/antialias/soroban-abacus-flashcards:latest",
    ]
    app = made[images.APP]
    paths = [entry.path for layer in app.layers if isinstance(layer, tuple) for entry in layer]
    assert paths == ["usr/local/bin/litefs", "app/server.py", "app/migrate.py"]
    assert app.config["WorkingDir"] == "/app"
    # both: an ENTRYPOINT with a CMD gives a probe's or an init container's arguments to the wrong program
    assert [name for name, image in made.items() if {"Entrypoint", "Cmd"} <= set(image.config)] == []
    (layer,) = made["docker.io/library/busybox:1.36"].layers
    assert isinstance(layer, tuple)
    assert {entry.path for entry in layer if entry.link} == {"bin/[", "bin/sh", "bin/wget"}
    images.write_archive(tmp_path / "all.tar", made.values())
    assert len(json.loads(read(tmp_path / "all.tar")["index.json"])["manifests"]) == len(made)

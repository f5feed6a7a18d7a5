"""Container images without a registry or an engine: OCI archives written in pure Python, and the bed's images.

An archive is a tar of an OCI layout (oci-layout, index.json, blobs/sha256/*) that `ctr -n k8s.io images import` and
`skopeo copy oci-archive:` read. The same input gives the same digests. Standard library only.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import pathlib
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

CREATED = "2026-01-01T00:00:00Z"
MTIME = 1767225600  # CREATED in seconds

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One member of a layer: a file with `data` (bytes or a file to read), a link to `link`, or a directory.

    owner: the number of the user and the group that it belongs to.
    """

    path: str
    data: bytes | pathlib.Path | None = None
    link: str = ""
    mode: int = 0o644
    owner: int = 0


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer in a file: gzip-compressed tar, its digest, and the digest of the tar inside (the "diff id")."""

    file: pathlib.Path
    size: int
    digest: str
    diff_id: str


@dataclasses.dataclass(frozen=True)
class Image:
    """An image to write: its full name with tag, its layers from the lowest up, and the "config" of its OCI config."""

    name: str
    layers: tuple[Layer | tuple[Entry, ...], ...]
    config: Mapping[str, Any]


class _Digesting(io.RawIOBase):
    """A writer that counts and digests what passes."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self.target = target
        self.sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.size += len(data)
        self.target.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self.sha256.hexdigest()}"


def compress(source: IO[bytes], target: IO[bytes]) -> tuple[int, str, str]:
    """Write the tar in `source` to `target` as a layer: (size, digest, diff id)."""
    outer = _Digesting(target)
    # Level 1: most of it is programs, and writing, pushing and unpacking are all on the way to a running bed.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=outer, mtime=0) as packed:
        inner = _Digesting(packed)
        shutil.copyfileobj(source, inner, 1 << 20)
    return outer.size, outer.digest, inner.digest


def layer_tar(entries: Iterable[Entry], target: IO[bytes]) -> None:
    """Write `entries` as a tar, with every parent directory once and before what is in it, root's where no entry is it.

    Raises ValueError for a path that is absolute, leaves the root, or is there twice.
    """
    seen: set[str] = set()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def header(path: str, kind: bytes, mode: int, owner: int = 0) -> tarfile.TarInfo:
            info = tarfile.TarInfo(path)
            info.type, info.mode, info.mtime = kind, mode, MTIME
            info.uid = info.gid = owner
            return info

        for entry in entries:
            path = pathlib.PurePosixPath(entry.path)
            if path.is_absolute() or ".." in path.parts or not path.parts or str(path) in seen:
                raise ValueError(f"the layer's entry {entry.path!r} must be a path inside the root, and there once")
            for parent in reversed(path.parents[:-1]):
                if str(parent) not in seen:
                    seen.add(str(parent))
                    tar.addfile(header(str(parent), tarfile.DIRTYPE, 0o755))
            seen.add(str(path))
            if entry.link:
                info = header(str(path), tarfile.SYMTYPE, 0o777, entry.owner)
                info.linkname = entry.link
                tar.addfile(info)
            elif entry.data is None:
                tar.addfile(header(str(path), tarfile.DIRTYPE, entry.mode, entry.owner))
            elif isinstance(entry.data, bytes):
                info = header(str(path), tarfile.REGTYPE, entry.mode, entry.owner)
                info.size = len(entry.data)
                tar.addfile(info, io.BytesIO(entry.data))
            else:
                info = header(str(path), tarfile.REGTYPE, entry.mode, entry.owner)
                info.size = entry.data.stat().st_size
                with entry.data.open("rb") as source:
                    tar.addfile(info, source)


def tree(folder: pathlib.Path, path: str, owner: int = 0) -> list[Entry]:
    """Entries for a directory with all that it holds, as `path` in the layer; links stay links."""
    entries = [Entry(path, mode=0o755, owner=owner)]
    for file in sorted(folder.iterdir()):
        inside = f"{path}/{file.name}"
        if file.is_symlink():
            entries.append(Entry(inside, link=str(file.readlink()), owner=owner))
        elif file.is_dir():
            entries += tree(file, inside, owner)
        else:
            mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
            entries.append(Entry(inside, file, mode=mode, owner=owner))
    return entries


def make_layer(entries: Iterable[Entry], file: pathlib.Path) -> Layer:
    """Write a layer of `entries` to `file`."""
    plain = file.with_name(f"{file.name}.tar")
    with plain.open("wb") as target:
        layer_tar(entries, target)
    with plain.open("rb") as source, file.open("wb") as target:
        size, digest, diff_id = compress(source, target)
    plain.unlink()
    return Layer(file, size, digest, diff_id)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write_archive(target: pathlib.Path, images: Iterable[Image]) -> None:
    """Write all `images` into one OCI archive; a layer or blob that several share is in it once.

    The names are in index.json twice, as containerd (io.containerd.image.name) and as others read them
    (org.opencontainers.image.ref.name). Raises ValueError for a name without registry and tag.
    """
    written: set[str] = set()
    manifests: list[dict[str, Any]] = []
    with tarfile.open(target, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(path: str, data: bytes | pathlib.Path, size: int) -> None:
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = size, 0o644, MTIME
            if isinstance(data, bytes):
                tar.addfile(info, io.BytesIO(data))
            else:
                with data.open("rb") as source:
                    tar.addfile(info, source)

        def blob(data: bytes | pathlib.Path, digest: str, size: int) -> None:
            if digest not in written:
                written.add(digest)
                add(f"blobs/sha256/{digest.removeprefix('sha256:')}", data, size)

        def described(value: Any, media_type: str) -> dict[str, Any]:
            data = _json(value)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            blob(data, digest, len(data))
            return {"mediaType": media_type, "digest": digest, "size": len(data)}

        add("oci-layout", _json({"imageLayoutVersion": "1.0.0"}), len(_json({"imageLayoutVersion": "1.0.0"})))
        for number, image in enumerate(images):
            registry, _, rest = image.name.partition("/")
            if "." not in registry or ":" not in rest:
                raise ValueError(f"the image name {image.name!r} must be full, as in docker.io/library/busybox:1.36")
            layers: list[Layer] = []
            temporary: list[pathlib.Path] = []
            for place, layer in enumerate(image.layers):
                if not isinstance(layer, Layer):
                    file = target.with_name(f".{target.name}.{number}.{place}")
                    temporary.append(file)
                    layer = make_layer(layer, file)
                layers.append(layer)
            for layer in layers:
                blob(layer.file, layer.digest, layer.size)
            config = {
                "created": CREATED,
                "architecture": "amd64",
                "os": "linux",
                "config": dict(image.config),
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
                "history": [{"created": CREATED, "created_by": "testbed/images.py"} for _ in layers],
            }
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": described(config, CONFIG),
                "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for layer in layers],
            }
            manifests.append(
                {
                    **described(manifest, MANIFEST),
                    "platform": {"architecture": "amd64", "os": "linux"},
                    "annotations": {
                        "io.containerd.image.name": image.name,
                        "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
                    },
                }
            )
            for file in temporary:
                file.unlink()
        index = _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        add("index.json", index, len(index))


# --- the base layer -----------------------------------------------------------------------------------------------

BASE_LAYER = "base.tar.gz"
BASE_FACTS = "base.json"
BUSYBOX = "busybox"
APPLETS = "applets"  # a line each, as `busybox --list` says them
CERTIFICATES = "ca-certificates.crt"


def write_base(rootfs: pathlib.Path, out: pathlib.Path) -> None:
    """Make the shared base layer of the root file system tar `rootfs` in `out`, and what small images take out of it.

    That is all but the list of applets, which only the program itself knows. Left out of the layer: device nodes, and
    what apt and debconf leave. Raises ValueError where the root file system holds no busybox or no certificates.
    """
    skip = ("dev/", "var/lib/apt/lists/", "var/cache/", "var/log/", "usr/share/perl/", "usr/share/python-wheels/")
    plain = out / "base.tar"
    with tarfile.open(rootfs) as source, tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as target:
        for member in source:
            name = member.name.removeprefix("./")
            if name in ("", ".") or member.isdev() or (name.startswith(skip) and not member.isdir()):
                continue
            data = source.extractfile(member) if member.isreg() else None
            if name == "usr/bin/busybox" and data is not None:
                (out / BUSYBOX).write_bytes(data.read())
                data.seek(0)
            if name == "etc/ssl/certs/ca-certificates.crt" and data is not None:
                (out / CERTIFICATES).write_bytes(data.read())
                data.seek(0)
            member.name = name
            if member.islnk():
                member.linkname = member.linkname.removeprefix("./")
            target.addfile(member, data)
    for needed in (BUSYBOX, CERTIFICATES):
        if not (out / needed).is_file():
            raise ValueError(f"the root file system {rootfs} holds no {needed}: see IMAGE_PACKAGES in testbed/build.py")
    (out / BUSYBOX).chmod(0o755)
    with plain.open("rb") as packed_from, (out / BASE_LAYER).open("wb") as packed_to:
        size, digest, diff_id = compress(packed_from, packed_to)
    plain.unlink()
    (out / BASE_FACTS).write_text(json.dumps({"size": size, "digest": digest, "diff_id": diff_id}), encoding="ascii")


def base_layer(base: pathlib.Path) -> Layer:
    """The layer that write_base() left in the directory `base`."""
    return Layer(file=base / BASE_LAYER, **json.loads((base / BASE_FACTS).read_text(encoding="ascii")))


# --- the bed's images ---------------------------------------------------------------------------------------------

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APP = "ghcr.io/antialias/soroban-abacus-flashcards:latest"
REDIS = "docker.io/library/redis:7-alpine"
NEXTJS = "ghcr.io/abaci/nextjs:latest"
NEXTJS_FOLDER = "app/apps/web"
NEXTJS_OWNER = 1001


def _small_system(base: pathlib.Path) -> list[Entry]:
    """What a program that is alone in its image still needs: users, certificates, a place for temporary files."""
    return [
        Entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
        Entry("etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
        Entry("etc/ssl/certs/ca-certificates.crt", base / CERTIFICATES),
        Entry("tmp", mode=0o1777),
    ]


def app(base: pathlib.Path, litefs: pathlib.Path, files: Iterable[tuple[str, pathlib.Path]]) -> Image:
    """The sample application with LiteFS beside it, as the operators of such an application put it into theirs."""
    own = [Entry("usr/local/bin/litefs", litefs, mode=0o755)]
    own += [Entry(path, file, mode=0o755 if file.stat().st_mode & 0o100 else 0o644) for path, file in files]
    config = {
        "Env": [PATH],
        "WorkingDir": "/app",
        "Cmd": ["python3", "/app/server.py"],
        "ExposedPorts": {"3000/tcp": {}},
    }
    # LiteFS first and apart: only the application's own layer is new when the application changes.
    return Image(APP, (base_layer(base), tuple(own[:1]), tuple(own[1:])), config)


def nextjs(base: pathlib.Path, litefs: pathlib.Path, node: pathlib.Path, application: pathlib.Path) -> Image:
    """The application with Next.js, as its Dockerfile makes it: its files belong to its own user."""
    own = tree(application, NEXTJS_FOLDER, NEXTJS_OWNER)
    own += [
        Entry(f"{NEXTJS_FOLDER}/{path}", mode=0o755, owner=NEXTJS_OWNER)
        for path in (".next/cache", "data", "data/uploads")
    ]
    config = {
        "Env": [PATH, "NODE_ENV=production"],
        "WorkingDir": f"/{NEXTJS_FOLDER}",
        "Cmd": ["node", "server.js"],
        "ExposedPorts": {"3000/tcp": {}},
    }
    programs = [Entry(f"usr/local/bin/{file.name}", file, mode=0o755) for file in (litefs, node)]
    return Image(NEXTJS, (base_layer(base), *((entry,) for entry in programs), tuple(own)), config)


def redis(base: pathlib.Path) -> Image:
    config = {"Env": [PATH], "WorkingDir": "/data", "Cmd": ["redis-server"], "ExposedPorts": {"6379/tcp": {}}}
    return Image(REDIS, (base_layer(base), (Entry("data", mode=0o777),)), config)


def busybox(base: pathlib.Path, name: str) -> Image:
    """busybox with a link for each applet it has, as upstream's image."""
    entries = [*_small_system(base), Entry("bin/busybox", base / BUSYBOX, mode=0o755)]
    applets = (base / APPLETS).read_text(encoding="ascii").split()
    entries += [Entry(f"bin/{applet}", link="busybox") for applet in applets if applet != "busybox"]
    return Image(name, (tuple(entries),), {"Env": [PATH], "Cmd": ["sh"]})


def pause(program: pathlib.Path) -> Image:
    entries = (Entry("pause", program, mode=0o755),)
    return Image(
        "docker.io/rancher/mirrored-pause:3.6",
        (entries,),
        {"Env": [PATH], "Entrypoint": ["/pause"], "User": "65535:65535"},
    )


def coredns(base: pathlib.Path, program: pathlib.Path, version: str) -> Image:
    entries = (*_small_system(base), Entry("coredns", program, mode=0o755))
    name = f"docker.io/rancher/mirrored-coredns-coredns:{version.removeprefix('v')}"
    return Image(name, (entries,), {"Env": [PATH], "Entrypoint": ["/coredns"], "WorkingDir": "/"})


def local_path(base: pathlib.Path, program: pathlib.Path, version: str) -> Image:
    entries = (*_small_system(base), Entry("usr/bin/local-path-provisioner", program, mode=0o755))
    config = {"Env": [PATH], "Entrypoint": ["local-path-provisioner"]}
    return Image(f"docker.io/rancher/local-path-provisioner:{version}", (entries,), config)


def cert_manager(base: pathlib.Path, binary: pathlib.Path, program: str, version: str) -> Image:
    """One of cert-manager's programs at upstream's place; the binary goes by the name it is called by."""
    path = f"app/cmd/{program}/{program}"
    entries = (*_small_system(base), Entry(path, binary, mode=0o755))
    config = {"Env": [PATH], "Entrypoint": [f"/{path}"], "User": "1000"}
    return Image(f"quay.io/jetstack/cert-manager-{program}:{version}", (entries,), config)


def traefik(base: pathlib.Path, program: pathlib.Path, version: str) -> Image:
    entries = (*_small_system(base), Entry("usr/local/bin/traefik", program, mode=0o755))
    config = {"Env": [PATH], "Entrypoint": ["/usr/local/bin/traefik"], "ExposedPorts": {"80/tcp": {}}}
    return Image(f"docker.io/rancher/mirrored-library-traefik:{version}", (entries,), config)

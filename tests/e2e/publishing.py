"""Images for the bed's registry, put there as CI does it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

from sitebed import ROOT, Bed

sys.path.append(str(ROOT / "testbed"))
import build
import images


def application(*entries: images.Entry) -> images.Image:
    """The sample application, with these files over it."""
    image = images.app(build.artifact("image-base"), build.artifact("litefs") / "litefs", build.app_files())
    return dataclasses.replace(image, layers=(*image.layers, entries))


def publish(bed: Bed, image: images.Image, name: str, folder: Path) -> None:
    """Push the image as <name>, a repository and tag; its file in ``folder`` is gone afterwards."""
    archive = folder / "image.tar"
    images.write_archive(archive, [image])
    push(bed, archive, name)
    archive.unlink()


def push(bed: Bed, archive: Path, name: str) -> None:
    """Push the only image in the archive as <name>."""
    registry = f"abaci-{bed.name}-registry"
    subprocess.run(["docker", "cp", str(archive), f"{registry}:/tmp/image.tar"], check=True, capture_output=True)
    copy = ("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false")
    target = f"docker://127.0.0.1:5000/{name}"
    subprocess.run(
        ["docker", "exec", registry, *copy, "oci-archive:/tmp/image.tar", target], check=True, capture_output=True
    )
    subprocess.run(["docker", "exec", registry, "rm", "/tmp/image.tar"], check=True)

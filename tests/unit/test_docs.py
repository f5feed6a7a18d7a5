"""What the documents name is there: links, anchors, files of the project, and a page for each role."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.abaci.infra.plugins.module_utils.operations import OPERATIONS

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
DOCUMENTS = sorted(ROOT / name for name in TRACKED.split()) or sorted(
    path for folder in ("docs", "roles") for path in (ROOT / folder).rglob("*.md")
)
NAMING = [ROOT / "CONTRIBUTING.md", ROOT / "docs/architecture.md"]
# Files that a worked example would add.
EXAMPLES = {
    "roles/app/templates/resourcequota-abaci-app.yml.j2",
    "plugins/module_utils/operations/switchover.py",
    "playbooks/switchover.yml",
    "roles/switchover/",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), f"{name_of(document)}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{name_of(document)}: {target}"


@pytest.mark.parametrize("document", NAMING, ids=name_of)
def test_every_file_that_the_plan_of_the_house_names_is_there(document: Path) -> None:
    folders = "roles|plugins|playbooks|tests|docs|changelogs|testbed|inventories|molecule"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]*)`", document.read_text()))
    assert named, "it names nothing"
    assert sorted(name for name in named - EXAMPLES if not (ROOT / name).exists()) == []


def test_every_role_has_a_page_or_is_internal() -> None:
    for role in sorted(path.parent for path in ROOT.glob("roles/*/tasks")):
        spec = (role / "meta/argument_specs.yml").read_text()
        assert (role / "README.md").exists() or "Internal" in spec, role.name


def test_every_role_stands_in_the_plan_of_the_house() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    roles = {role.parent.name for role in ROOT.glob("roles/*/tasks")}
    # "and the others of the table of operations"
    assert sorted(role for role in roles - OPERATIONS.keys() if f"`roles/{role}`" not in text) == []


# What the product cannot do for an application or a network: its user has to find it said.
@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("roles/traefik/README.md", "serves IPv4 only. Give the site's names no AAAA record"),
        ("docs/operations.md", "an application that has given up on it has to be restarted"),
        ("docs/operations.md", "LiteFS answers each of its GETs with 504 after 5 s"),
        ("docs/operations.md", "| UDP 8472"),
        ("roles/app/README.md", "ends its streams within 25 s of SIGTERM, and its clients connect again"),
        ("roles/app/README.md", "`--require` of an instrumentation (OpenTelemetry) has a handler of its own"),
        ("roles/app/README.md", "runs timers that write only where `LITEFS_CANDIDATE` is `true`"),
        (
            "roles/app/README.md",
            "An `app_command` that drops root's rights (su-exec, gosu) needs `app_allow_other: true`",
        ),
        ("roles/app/README.md", "any other pod answers 404"),
        ("roles/app/README.md", "In WAL mode no VACUUM and no `auto_vacuum`"),
        ("roles/app/README.md", "server of your own sets `server.keepAliveTimeout = 95_000`"),
        ("roles/app/README.md", "of `app_extra_domains` therefore ends on `app_domain`"),
        ("roles/app/README.md", "LiteFS listens beside it on `localhost:20202` and asks for no password"),
        ("roles/app/README.md", "a rollout, a drain, a host that boots, a promotion"),
        ("roles/app/README.md", "it gets up to 3 N times the number"),
        ("roles/app/meta/argument_specs.yml", "so let nobody but the proxy reach it"),
        ("roles/traefik/README.md", "`ClientHost` of a request from outside must not be an address of a node or a pod"),
        ("docs/operations.md", "**none**: a replica becomes ready only with its primary"),
        ("docs/operations.md", "scale deployment coredns --replicas=2"),
        ("docs/operations.md", "a second drain waits until the first host is uncordoned"),
        ("docs/operations.md", "never use `kubectl delete pod --force` while its node may still run"),
        ("docs/operations.md", "`k3s_server_config: {flannel-backend: wireguard-native}` before the first run"),
        ("testbed/nextjs/README.md", "`revalidatePath`, the caches of pages and pictures"),
        ("testbed/nextjs/README.md", "fix `NEXT_SERVER_ACTIONS_ENCRYPTION_KEY` at build"),
        ("testbed/nextjs/README.md", "keeps the last build's `.next/static`"),
    ],
)
def test_a_limit_of_the_product_is_said_where_its_user_looks(document: str, words: str) -> None:
    assert words in " ".join((ROOT / document).read_text().split())

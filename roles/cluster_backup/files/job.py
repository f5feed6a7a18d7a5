"""The scheduled copy of the cluster's datastore, on the server: copy, prove, encrypt, keep. Standard library only.

Beside it, in the package ``kept``, stand the collection's own datastore.py and what it needs. The only
argument is a file of settings: data_dir, host, target (folder), keep, encrypt_command, record (file). Exit 0: one more
copy, and the record says so. Exit 1: one sentence on stderr says what is wrong, and no file of this run is left.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kept import datastore
from kept.operations import keeping, retention

PASSWORD = Path("/etc/rancher/node/password")


def run(settings: dict[str, Any], password: Path = PASSWORD) -> dict[str, Any]:
    """Make one copy; its manifest. Raises datastore.Bad, keeping.Failed and OSError."""
    data_dir, target = Path(settings["data_dir"]), Path(settings["target"])
    if not target.is_dir():
        raise datastore.Bad(f"There is no folder {target} (cluster_backup_path).")
    # Also where the NAS is not mounted: else its copies would fill the disk that they are there for.
    if target.stat().st_dev == data_dir.stat().st_dev:
        raise datastore.Bad(
            f"{target} (cluster_backup_path) is on the file system of {data_dir}, and would be lost together with it; "
            "mount the place for copies there."
        )
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with (
        # Nothing plain comes to the target where it is to be encrypted.
        tempfile.TemporaryDirectory(prefix="abaci-cluster-backup-") as here,
        tempfile.TemporaryDirectory(prefix=".cluster-", dir=target) as there,
    ):
        archive, opened = Path(here) / "copy.tar.gz", Path(here) / "opened"
        note = datastore.make(data_dir, password, archive, settings["host"], stamp)
        opened.mkdir()
        datastore.unpack(archive, opened)
        made = keeping.put(
            archive,
            target,
            datastore.stem(note),
            datastore.ENDING,
            datastore.manifest(note, archive),
            settings["encrypt_command"],
            beside=Path(there),
            variables="cluster_backup",
        )
    record = Path(settings["record"])
    written = record.with_name(record.name + ".new")
    written.write_text(json.dumps(datastore.record(note, settings["host"], made["path"])) + "\n")
    written.chmod(0o644)
    written.rename(record)
    return made


def main() -> int:
    settings = json.loads(Path(sys.argv[1]).read_text())
    try:
        made = run(settings)
    except (datastore.Bad, keeping.Failed, OSError) as exc:
        print(f"no copy was made: {exc}", file=sys.stderr)
        return 1
    print(f"copied to {made['path']}")
    try:
        for file in retention.prune(Path(settings["target"]), int(settings["keep"]), made):
            print(f"removed {file}")
    except OSError as exc:
        print(f"old copies could not be removed: {exc}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How large an archive of many small transactions is, and how long a moment takes: archive_many.py FOLDER [COUNT].

By hand: 100,000 took 160 s of one processor with all that is shown. fsync is left out, for it says more of the disk.
"""

from __future__ import annotations

import datetime
import random
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import ltx_files
from ansible_collections.abaci.infra.plugins.module_utils.archive import disk, layout, store

EACH = 3000  # transactions between two calls of pack(), ten minutes
KEY = ("LFSC0123456789ABCDEF", "sqlite.db")


def show(there: store.Store, primary: ltx_files.Primary, raw: int, most: int) -> None:
    """Sizes, and a rebuild of the last and of a random moment, compared with what the primary said."""
    files = [path for path in there.root.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(
        f"{primary.txid} transactions: {raw / 1e6:.1f} MB as they came, {size / 1e6:.2f} MB in {len(files)} files",
        end="",
    )
    print(f" (at most {most} at once)", end="")
    out = there.root.with_name("out.db")
    anywhere = random.Random(primary.txid).randrange(1, primary.txid)
    for name, moment in (
        ("last", primary.txid),
        ("random", anywhere),
        ("by time", datetime.datetime.fromtimestamp(ltx_files.START + anywhere * 0.2, datetime.UTC)),
    ):
        began = time.perf_counter(), time.process_time()
        found = there.rebuild(*KEY, moment, out)
        assert found.txid == moment or name == "by time"
        print(f"; {name} {time.perf_counter() - began[0]:.1f} s ({time.process_time() - began[1]:.1f} s CPU)", end="")
        if name == "last":
            assert out.read_bytes() == primary.path.read_bytes()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"; CPU so far {time.process_time():.0f} s, memory at most {memory:.0f} MB", flush=True)


def main() -> None:
    """Make, receive, pack, and show at every tenth."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    disk.os.fsync = lambda _handle: None  # type: ignore[assignment]
    primary = ltx_files.Primary(folder / "primary", 4096)
    there = store.Store(folder / "archive", lambda: primary.time)
    there.receive(*KEY, primary.write("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)"))
    raw = most = 0
    for number, path in enumerate(ltx_files.many(primary, count, seconds=0.2), 1):
        raw += path.stat().st_size
        there.receive(*KEY, path)
        if number % EACH == 0 or number == count:
            place = there.root / KEY[0] / KEY[1]
            most = max(most, sum(len(layout.names(one)) for one in place.iterdir()))
            there.pack(primary.time)
            assert not there.make_base(primary.time, 21600).problems
        if number % max(count // 10, 1) == 0:
            show(there, primary, raw, most)
    there.pack(primary.time + 4 * 86400)
    show(there, primary, raw, most)


if __name__ == "__main__":
    main()

"""LTX files: read as a stream, verified, applied to a copy."""

from __future__ import annotations

import ast
import io
import random
import sys
from pathlib import Path

import ltx_files
import pytest
from ansible_collections.abaci.infra.plugins.module_utils.archive import crc, ltx

PACKAGE = Path(__file__).parents[2] / "plugins" / "module_utils" / "archive"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_any_image_with_python_3_9_can_run_it(path: Path) -> None:
    """Nothing but the standard library and the package itself, in the syntax of 3.9."""
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            for name in names:
                assert name.split(".")[0] in {*sys.stdlib_module_names, "fastcrc", "h2"}, ast.unparse(node)


def table_crc(data: bytes) -> int:
    """CRC-64/GO-ISO bit by bit, as its definition is."""
    value = (1 << 64) - 1
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xD800000000000000 if value & 1 else 0)
    return value ^ (1 << 64) - 1


def test_the_crc_is_that_of_go() -> None:
    assert crc.crc64(b"123456789") == 0xB90956C775A41001  # the check value of CRC-64/GO-ISO
    for size in (0, 1, 4, 100, 1028, 4100):
        data = random.Random(size).randbytes(size)
        assert crc.crc64(data) == table_crc(data)


@pytest.mark.parametrize("size", [0, 1, 4, 12, 516, 4100])
def test_a_crc_is_joined_from_those_of_the_parts(size: int) -> None:
    first, second = random.Random(1).randbytes(100), random.Random(2).randbytes(size)
    assert crc.joined(crc.crc64(first), crc.crc64(second), size) == crc.crc64(first + second)


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    primary, files = ltx_files.primary(tmp_path, 3)
    found = ltx.inspect(files[2])
    assert found.position == primary.position and found.verified
    assert (found.header.min_txid, found.header.max_txid, found.header.time) == (3, 3, primary.time)
    assert found.header.before == ltx.inspect(files[1]).after
    assert found.size == files[2].stat().st_size


def test_every_transaction_applied_gives_the_primarys_file(tmp_path: Path) -> None:
    primary, files = ltx_files.primary(tmp_path, 30)
    files.append(primary.write("INSERT INTO t (body) SELECT hex(randomblob(500)) FROM t"))
    files.append(primary.write("DELETE FROM t WHERE id > 3"))
    before = primary.checksum
    primary.db.execute("VACUUM")  # the file shrinks: pages leave the sum
    files.append(primary.commit(before, 1))
    assert ltx.inspect(files[-1]).header.commit < ltx.inspect(files[-2]).header.commit
    with ltx.Copy(tmp_path / "copy") as copy:
        for path in files:
            with path.open("rb") as stream:
                assert copy.apply(stream, path.name).txid == ltx.inspect(path).header.max_txid
        assert copy.position == primary.position
        assert copy.path.read_bytes() == primary.path.read_bytes()
        with primary.snapshot().open("rb") as stream:
            assert copy.apply(stream, "snapshot") == primary.position
    assert ltx.Copy(tmp_path / "copy", primary.txid).position == primary.position


def test_files_one_after_the_other_in_one_stream(tmp_path: Path) -> None:
    primary, files = ltx_files.primary(tmp_path, 5)
    stream = io.BytesIO(b"".join(path.read_bytes() for path in files))
    with ltx.Copy(tmp_path / "copy") as copy:
        ltx.Reader(io.BytesIO(stream.getvalue()), "first").skip()
        while stream.tell() < len(stream.getvalue()):
            copy.apply(stream, "all")
        assert copy.position == primary.position


def test_what_does_not_fit_leaves_the_copy_as_it_was(tmp_path: Path) -> None:
    primary, files = ltx_files.primary(tmp_path, 5)
    with ltx.Copy(tmp_path / "copy") as copy:
        for path in files[:3]:
            with path.open("rb") as stream:
                copy.apply(stream, path.name)
        kept, at = copy.path.read_bytes(), copy.position
        # After a checksum of its own that is right, but whose result is not the one stated.
        lies = ltx.inspect(files[3])
        pages = {2: bytes(1024)}
        wrong = ltx_files.file_of(pages, 1024, lies.header.commit, (4, 4), (at.checksum, lies.after), 1)
        bad = bytearray(files[3].read_bytes())
        bad[200] ^= 1
        snapshot = bytearray(primary.snapshot().read_bytes())
        snapshot[5000 % len(snapshot)] ^= 1
        for data, words in (
            (files[4].read_bytes(), "does not follow: it is for 0000000000000004/"),
            (wrong, "does not lead to the checksum that it states after transaction 4"),
            (bytes(bad), "is altered: the checksum of the file differs"),
            (files[3].read_bytes()[:-1], "is cut"),
            (bytes(snapshot), "is altered"),
            (b"LTX1", "is cut: it ends within the header"),
            (b"SQLite format 3\0" * 10, "is no LTX file of version 1"),
        ):
            with pytest.raises(ltx.Altered, match=f"^the-file .*{words}"):
                copy.apply(io.BytesIO(data), "the-file")
            assert (copy.path.read_bytes(), copy.position) == (kept, at)
        with files[3].open("rb") as stream:
            assert copy.apply(stream, "4").txid == 4


def test_a_compressed_file_is_told_from_one_that_was_verified(tmp_path: Path) -> None:
    primary, _files = ltx_files.primary(tmp_path, 3)
    path = primary.snapshot(flags=1)
    found = ltx.inspect(path)
    assert not found.verified and found.position == primary.position
    with ltx.Copy(tmp_path / "copy") as copy, path.open("rb") as stream:
        with pytest.raises(ltx.Compressed, match=r"data\.compress: false"):
            copy.apply(stream, path.name)
        assert copy.position.txid == 0


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    _primary, files = ltx_files.primary(tmp_path, 2, page_size=512)
    data = files[1].read_bytes()
    for bit in [*range(1000), *range(1000, 8 * len(data), 37)]:
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        files[1].write_bytes(bad)
        with pytest.raises(ltx.Altered, match=files[1].name):
            ltx.inspect(files[1])


def test_the_lock_page_has_no_checksum() -> None:
    assert ltx.lock_page(4096) == 262145

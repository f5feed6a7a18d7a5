"""Mount a FUSE file system of one empty directory, look at it through the kernel, and unmount it. I/O."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import tempfile
import threading
import time

MS_NOSUID = 2
MS_NODEV = 4
MNT_FORCE = 1
MNT_DETACH = 2
FUSE_GETATTR = 3
FUSE_INIT = 26
IN_HEADER = struct.Struct("=IIQQIIII")  # len, opcode, unique, nodeid, uid, gid, pid, padding
OUT_HEADER = struct.Struct("=IiQ")  # len, error, unique
ENOSYS = -38
# A value that the kernel can only have from us.
MARK = 1234567890


def answer(request: bytes) -> tuple[bytes, tuple[int, int] | None]:
    """Return the reply to one request of the kernel, and its protocol version where the request is FUSE_INIT."""
    _length, opcode, unique = struct.unpack_from("=IIQ", request)
    body, error, version = b"", 0, None
    if opcode == FUSE_INIT:
        version = struct.unpack_from("=II", request, IN_HEADER.size)
        # major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, and zeros
        body = struct.pack("=IIIIHHI", 7, min(version[1], 31), 0, 0, 12, 9, 4096).ljust(64, b"\0")
    elif opcode == FUSE_GETATTR:
        # attr_valid, its nsec, dummy; then the attributes: ino, size, blocks, atime, mtime, ctime, three nsec, mode,
        # nlink, uid, gid, rdev, blksize, padding.
        body = struct.pack("=QII", 0, 0, 0) + struct.pack(
            "=6Q10I", 1, 0, 0, MARK, MARK, MARK, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0
        )
    else:
        error = ENOSYS
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), error, unique) + body, version


def prove(timeout: float) -> str:
    """Mount, look, unmount; return the kernel's protocol version. Raises OSError with one sentence."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    directory = tempfile.mkdtemp(prefix="abaci-fuse-")
    mounted = False
    seen: dict[str, str] = {}

    def look() -> None:
        try:
            seen["mtime"] = str(int(os.stat(directory).st_mtime))
        except OSError as exc:
            seen["error"] = exc.strerror or str(exc)

    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"abaci-probe", directory.encode(), b"fuse", MS_NOSUID | MS_NODEV, options) != 0:
            raise OSError(f"mount(2) of a FUSE file system failed: {os.strerror(ctypes.get_errno())}")
        mounted = True
        looker = threading.Thread(target=look, daemon=True)
        looker.start()
        version = ""
        deadline = time.monotonic() + timeout
        while looker.is_alive():
            if not select.select([device], [], [], 0.05)[0]:
                if time.monotonic() > deadline:
                    raise OSError(f"the kernel's FUSE did not finish within {timeout:g} s")
                continue
            reply, asked = answer(os.read(device, 1 << 20))
            if asked:
                version = f"{asked[0]}.{asked[1]}"
            os.write(device, reply)
        if seen.get("mtime") != str(MARK):
            raise OSError(f"the mounted file system could not be read: {seen.get('error', 'it holds other content')}")
        return version
    finally:
        if mounted:
            libc.umount2(directory.encode(), MNT_FORCE | MNT_DETACH)
        os.close(device)
        os.rmdir(directory)

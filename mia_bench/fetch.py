"""Weight files that others publish: found locally, or downloaded once.

A local file always wins. A download goes on where it was stopped, and appears under its name only when it
is whole and its SHA-256 is the one expected, where one is published.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mia_bench.api.prior import Published
from mia_bench.api.progress import Progress
from mia_bench.errors import MiaBenchError, Unavailable

CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds without a byte."""


def weights_cache() -> Path:
    """Where downloads go when there is no folder of weights."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("mia-bench", appauthor=False)) / "weights"


def file_hash(path: Path) -> str:
    """SHA-256 of a file, which need not fit into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(name: str | Path, folder: Path | None) -> Path | None:
    """The file of that name in ``folder``, else in the cache, else None."""
    places = (place / name for place in (folder, weights_cache()) if place is not None)
    return next((path for path in places if path.is_file()), None)


def obtain(file: Published, folder: Path | None, progress: Progress) -> Path:
    """The file in ``folder`` or in the cache, else downloaded (into ``folder`` if there is one).

    Raises:
        Unavailable: it can't be downloaded; says where to put it by hand.
        MiaBenchError: what is there, or what was sent, is not the file expected.
    """
    # Here, because every command imports this module and few need the network.
    import urllib.error
    from http.client import HTTPException

    if (found := find(file.name, folder)) is not None:
        return _checked(found, file)
    target = (folder or weights_cache()) / file.name
    part = target.with_name(f"{file.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(file.url, part, progress)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(
            f"{file.name} can't be downloaded from {file.url} ({reason}): give the command again to go "
            f"on, or put the file into {target.parent}"
        ) from error
    except OSError as error:
        raise MiaBenchError(f"{part} can't be written: {error.strerror or error}") from error
    try:
        _checked(part, file)
    except MiaBenchError:
        part.unlink()  # going on with it would fail again
        raise
    part.replace(target)
    return target


def _checked(path: Path, file: Published) -> Path:
    if file.sha256:
        found = file_hash(path)
        if not found.startswith(file.sha256):
            raise MiaBenchError(
                f"{path} is not the file published at {file.url}: its SHA-256 begins with "
                f"{found[: len(file.sha256)]}, not {file.sha256}"
            )
    return path


def _download(url: str, part: Path, progress: Progress) -> None:
    """Append to ``part`` what is missing of it; from the beginning where the server can't go on."""
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing is missing, or the file is another now
            part.unlink()
            _download(url, part, progress)
            return
        raise
    with answer:
        goes_on = have > 0 and answer.status == 206
        left = int(answer.headers.get("Content-Length") or 0)
        done = have if goes_on else 0
        total = done + left
        with part.open("ab" if goes_on else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if left:
                    progress(done >> 20, total >> 20, "MiB")
            file.flush()
            os.fsync(file.fileno())
        if left and done < total:
            raise ConnectionError(f"the connection ended after {done} of {total} bytes")

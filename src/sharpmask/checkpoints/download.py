"""The models that the authors published for Torch7: fetched once, imported once, then used offline.

The files are large and old, connections break: a download goes on where it stopped. Size and SHA-256 of the first
download are recorded beside the result, and a later download has to give the same file.

Written and tested where the published files could not be reached: the path is proven with files that the original
programs wrote (random weights, a sixteenth of the channels) and with a local server.
"""

import dataclasses
import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from sharpmask.checkpoints.published import PUBLISHED, cache_folder, published_path
from sharpmask.checkpoints.torch7_convert import convert_torch7
from sharpmask.errors import ConfigError, ModelError
from sharpmask.files import atomic_write

CHUNK = 1 << 20
MAX_BYTES = 2 << 30  # the larger of the published files has about 0.3 GB
ATTEMPTS = 5
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if the server says


@dataclass(frozen=True)
class Checksums:
    """Size in bytes and checksums of a file."""

    size: int
    sha256: str
    md5: str


def load_published(name: str, *, progress: Progress | None = None, say: Callable[[str], None] = print) -> Path:
    """Fetch a published model, import it with verification and keep the result. Without work if that was done before.

    Args:
        name: "deepmask-fair" or "sharpmask-fair".
        progress: called after every piece of the download.
        say: receives a line of text for each step.

    Returns:
        The `.safetensors` file in the cache folder.

    Raises:
        ConfigError: no such model.
        ModelError: the download failed (run again to go on), the file is another one than the first time, or it cannot
            be imported.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"no published model '{name}'; there are: {', '.join(PUBLISHED)}")
    if done := published_path(name):
        say(f"{name} is there already: {done}")
        return done
    published = PUBLISHED[name]
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the cache folder {folder} cannot be made: {error.strerror or error}") from None
    source, record = folder / "model.t7", folder / "model.t7.json"
    say(f"fetching {published.url} to {folder}")
    found = fetch(published.url, source, progress=progress)
    _compare_with_first(record, found, published.url)
    same = "as users have reported" if found.md5 == published.md5 else f"users have reported {published.md5}"
    say(f"{found.size:,} bytes, SHA-256 {found.sha256}, MD5 {found.md5} ({same})")
    weights = folder / f"{name}.safetensors"
    try:
        report, errors = convert_torch7(source, weights, name=name, verify=True)
    except ModelError as error:
        raise ModelError(f"{error}. The downloaded file is kept; delete it to fetch it again") from None
    with atomic_write(record) as temporary:
        temporary.write_text(json.dumps({"url": published.url, **dataclasses.asdict(found)}, indent=1))
    source.unlink()
    say(str(report))
    say(f"verified on random patches, largest relative difference {max(errors.values()):.1e}")
    say(f"{name} is ready for offline use: {weights} (licence: {published.licence})")
    return weights


def _compare_with_first(record: Path, found: Checksums, url: str) -> None:
    """Refuse another file than the one that was imported the first time."""
    if not record.is_file():
        return
    try:
        first = json.loads(record.read_text())
        size, sha256 = first["size"], first["sha256"]
    except (ValueError, TypeError, KeyError):
        raise ModelError(f"{record} is damaged; delete it to accept the file anew") from None
    if (size, sha256) != (found.size, found.sha256):
        raise ModelError(
            f"{url} has {found.size} bytes and SHA-256 {found.sha256}, but the first download had {size} bytes and "
            f"{sha256}; delete {record.parent} if you trust the new file"
        )


def fetch(
    url: str, target: Path, *, progress: Progress | None = None, attempts: int = ATTEMPTS, wait: float = 1.0
) -> Checksums:
    """Download `url` to `target`, going on where an earlier attempt stopped.

    What has arrived is kept in `target`.part, also when this fails.

    Args:
        url: an http or https address.
        target: the file to write; complete once it exists.
        progress: called after every piece.
        attempts: how often in a row to try without receiving anything new.
        wait: seconds before the second attempt, twice as many before each further one.

    Raises:
        ModelError: nothing new arrived in `attempts` attempts, the server refused, or the file is larger than 2 GB.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"{url}: only http and https addresses can be fetched")
    part, failures = target.with_name(target.name + ".part"), 0
    if target.is_file():
        return checksums(target)
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _fetch_once(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing after what is here: it cannot be a part of that file
                part.unlink()
            elif error.code not in (408, 429, 500, 502, 503, 504):
                raise ModelError(f"{url}: the server answers {error.code} {error.reason}") from None
            reason = f"the server answers {error.code}"
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        have = part.stat().st_size if part.is_file() else 0
        failures = 1 if have > before else failures + 1
        if failures >= attempts:
            raise ModelError(f"{url}: {reason}; {have:,} bytes have arrived and are kept, run again to go on")
        time.sleep(wait * 2 ** (failures - 1))
    found = checksums(part)
    os.replace(part, target)
    _stamp_path(part).unlink(missing_ok=True)
    return found


def _fetch_once(url: str, part: Path, progress: Progress | None) -> None:
    """One connection. Returns when the file is complete; raises OSError or HTTPException when it breaks off."""
    have = part.stat().st_size if part.is_file() else 0
    stamp = _stamp_path(part).read_text() if have and _stamp_path(part).is_file() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "sharpmask", "Accept-Encoding": "identity"})
    if have and stamp:  # without a stamp there is no telling whether the rest would be of the same file
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", stamp)
    with urllib.request.urlopen(request, timeout=30) as response:
        resumed = response.status == 206 and _range_start(response) == have
        if response.status == 206 and not resumed:
            part.unlink()
            raise OSError("the server sent another part than it was asked for")
        start = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        if total is not None and total > MAX_BYTES:
            raise ModelError(f"{url}: {total:,} bytes are more than a model can have")
        etag = response.headers.get("ETag", "")
        _stamp_path(part).write_text(
            response.headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
        )
        with open(part, "ab" if resumed else "wb") as file:
            done = start
            while piece := response.read(CHUNK):
                done += len(piece)
                if done > MAX_BYTES:
                    raise ModelError(f"{url}: more than {MAX_BYTES:,} bytes; a model cannot have so many")
                file.write(piece)
                if progress:
                    progress(done, total)
    if total is not None and done != total:
        raise OSError(f"the connection broke off after {done:,} of {total:,} bytes")


def _range_start(response: HTTPResponse) -> int | None:
    """First byte that a partial answer holds."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else None


def _stamp_path(part: Path) -> Path:
    """Where the server's version mark (ETag or date) of an unfinished download is kept."""
    return part.with_name(part.name + ".stamp")


def checksums(path: Path) -> Checksums:
    """Size and checksums of a file."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            sha256.update(piece)
            md5.update(piece)
            size += len(piece)
    return Checksums(size, sha256.hexdigest(), md5.hexdigest())

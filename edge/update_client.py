"""Fetching of pairs that the hub has published: python-tuf decides what may be trusted, and refuses all else."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater  # type: ignore[attr-defined]  # re-exported without saying so

import edge
from edge.bundle_pair import Pair, PairFile, pair_target, parse_pair
from edge.errors import BundleError, ConfigError, SyncError

PUBLISHED_PATH = "/v1/updates"
_TIMEOUT_S = 90.0
_CHUNK_BYTES = 16_384


class UpdateClient:
    """Asks one hub. folder: of what is remembered, so that nothing older is ever taken; root: what is trusted at first.

    url: of the hub; ca_file: PEM of who may vouch for it, None = as the system says. Call close() at the end.
    Methods raise BundleError for what must not be trusted, SyncError where nothing comes.
    """

    def __init__(self, folder: Path, url: str, root: bytes, ca_file: Path | None = None) -> None:
        self._files, self._url = folder / "files", url.rstrip("/")
        self._fetcher = _Fetcher(ca_file)
        try:
            (folder / "metadata").mkdir(parents=True, exist_ok=True)
            self._files.mkdir(parents=True, exist_ok=True)
            self._updater = Updater(
                str(folder / "metadata"),
                f"{self._url}{PUBLISHED_PATH}/metadata",
                str(self._files),
                f"{self._url}{PUBLISHED_PATH}/targets",
                self._fetcher,
                bootstrap=root,
            )
        except (RepositoryError, OSError, ValueError) as error:
            raise BundleError(
                f"{folder}: expected the hub's root.json to start from, found {error}"
            ) from error

    def close(self) -> None:
        """Hang up."""
        self._fetcher.close()

    def newest(self, watchlist: str) -> Pair | None:
        """Return the newest pair with a watchlist, None where nothing was published under its name."""
        content = self._target(pair_target(watchlist), None)
        if content is None:
            return None
        pair = parse_pair(content.read_bytes(), pair_target(watchlist))
        if pair.watchlist != watchlist:
            raise BundleError(
                f"{self._url}: expected the watchlist {watchlist!r}, found {pair.watchlist!r}; nothing is installed"
            )
        return pair

    def fetch(self, described: PairFile) -> Path:
        """Return where a published file lies, fetched unless it is there; checked in both cases."""
        found = self._target(described.target, described.n_bytes)
        if found is None:
            raise BundleError(
                f"{self._url}: expected {described.target} to be published, found it missing; publish the bundle again"
            )
        return found

    def forget(self, keep: frozenset[str] = frozenset()) -> None:
        """Remove what was fetched, but for files of these sha256: what an interrupted fetch goes on with."""
        for path in self._files.iterdir():
            if not any(sha256 in path.name for sha256 in keep):
                path.unlink()

    def _target(self, target: str, n_bytes: int | None) -> Path | None:
        try:
            described = self._updater.get_targetinfo(target)
            if described is None:
                return None
            if n_bytes is not None and described.length != n_bytes:
                raise BundleError(f"{target}: expected {n_bytes} bytes, found {described.length} published")
            cached = self._updater.find_cached_target(described)
            return Path(cached or self._updater.download_target(described))
        except ExpiredMetadataError as error:
            raise BundleError(
                f"{self._url}: expected metadata that is still valid, found: {error}; somebody holds updates back, "
                "the hub has not signed them for long, or the clock of this recorder is wrong"
            ) from error
        except RepositoryError as error:
            raise BundleError(
                f"{self._url}: expected what the hub has signed, found: {error}; nothing is installed"
            ) from error
        except DownloadError as error:
            raise SyncError(f"{self._url}: expected {target}, found: {error}") from error
        except OSError as error:
            raise SyncError(f"{self._files}: expected room for {target}, found {error}") from error


class _Fetcher(FetcherInterface):
    """HTTP for python-tuf: no redirects, no proxies of the environment, no endless retries."""

    def __init__(self, ca_file: Path | None) -> None:
        try:
            context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca_file}: expected certificates in PEM, found {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._pool = urllib3.PoolManager(
            num_pools=1,
            ssl_context=context,
            timeout=_TIMEOUT_S,
            headers={"User-Agent": f"fieldcube/{edge.__version__}"},
        )
        self._response: urllib3.BaseHTTPResponse | None = None  # that may not be read to its end

    def close(self) -> None:
        self._drop()
        self._pool.clear()

    def _fetch(self, url: str) -> Iterator[bytes]:
        self._drop()
        try:
            response = self._pool.request("GET", url, preload_content=False, redirect=False, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise DownloadError(str(error)) from error
        self._response = response
        if response.status != 200:
            raise DownloadHTTPError(f"{url}: the hub answers {response.status}", response.status)
        return self._chunks(response)

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(_CHUNK_BYTES, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise DownloadError(str(error)) from error
        response.release_conn()
        self._response = None

    def _drop(self) -> None:
        """Hang up where python-tuf has seen enough of an answer: the rest must not be taken for the next one."""
        if self._response is not None:
            self._response.close()
            self._response = None

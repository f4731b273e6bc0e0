"""Every file under the root that is not a table's: whole objects, by name, in a folder or in an object store.

The contract is what an object store can keep. An object is put whole, and a reader sees the old one, the new one, or
none. There is no rename, no append, no lock, and no time of a folder. Spark and Delta read and write their tables, and
staged Parquet, with clients of their own at `Store.at(…)`; all else, on the driver and in workers, goes through here.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from smp_features.errors import ConfigError, FilesError, RootError, SmpError, nearest

MARKER = ".json"
"""`<prefix>.json`, put last, says that all objects under `<prefix>/` are there."""

_ASIDE = ".writing"
_ASIDE_KEPT_S = 3600.0

_REFUSED = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL)
"""What FUSE mounts answer to `rename` and `link` when they have none, as Databricks volumes do."""

_DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs", "hdfs": "pyarrow"}
_FSSPEC_NAMES = {"s3a": "s3", "abfss": "abfs", "wasb": "abfs", "wasbs": "abfs"}
"""What Spark calls a store and fsspec calls otherwise."""

_HOSTLESS = ("hdfs", "memory")
"""Schemes whose host may be left out."""

_PUTS_IF_ABSENT = frozenset({"s3", "gs", "abfs", "memory", "local"})


@dataclass(frozen=True)
class Entry:
    """One object.

    Attributes:
        name: From the root, such as `staging/captions/<run>/00000-0.json`.
        size: Bytes.
        modified_s: When it was put, in seconds since 1970 UTC by the clock of the store.
    """

    name: str
    size: int
    modified_s: float


def parse_root(root: str) -> str:
    """Return the one spelling of a root: an absolute path, or an address with its scheme in small letters.

    `~/lake` and `file:/lake` become paths, `dbfs:/Volumes/…` the path of the volume.

    >>> parse_root("S3A://bucket/lake/")
    's3a://bucket/lake'

    Raises:
        RootError: It looks like an address and is none that is known, or it is empty.
    """
    if not root.strip():
        raise RootError("The root is empty.", "Name a folder or an address with --root.")
    if root.startswith("~"):
        path = os.path.expanduser(root)
        if path.startswith("~"):
            raise RootError(f"The root {root} names a home folder that this machine does not have.", _SPELL)
        return os.path.abspath(path)
    address = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(/*)(.*)", root, re.DOTALL)
    if address is None:
        return os.path.abspath(root)
    scheme, slashes, rest = address[1].lower(), address[2], address[3]
    if scheme == "file":
        host = rest.partition("/")[0] if len(slashes) == 2 else ""
        if not slashes or host not in ("", "localhost"):
            raise RootError(f"The root {root} names no absolute path.", "Write file:/… or the path itself.")
        return os.path.abspath("/" + unquote(rest.removeprefix("localhost")))
    if scheme == "dbfs":
        if slashes and rest.startswith("Volumes/"):
            return os.path.abspath("/" + rest)
        raise RootError(f"The root {root} lies on DBFS.", "Use a volume: /Volumes/<catalog>/<schema>/<volume>/….")
    known = _known_schemes()
    if scheme not in known:
        raise RootError(f"The root {root} begins with '{scheme}:', which is no known kind of store.", _known(scheme))
    if not rest.strip("/") or not (slashes == "//" or (slashes == "///" and scheme in _HOSTLESS)):
        raise RootError(f"The root {root} is not an address.", f"Write {scheme}://<bucket or host>/<path>.")
    return f"{scheme}:{slashes}{rest}".rstrip("/")


_SPELL = "Write the folder's path in full."


def _known_schemes() -> frozenset[str]:
    from fsspec import available_protocols

    return frozenset({*available_protocols(), *_FSSPEC_NAMES} - {"file", "local", "dbfs"})


def _known(scheme: str) -> str:
    usual = ("s3", "s3a", "gs", "abfss", "hdfs")
    return f"{nearest(scheme, usual)} A folder whose name has a colon is written ./{scheme}:…"


def is_local(root: str) -> bool:
    """Whether a root is a folder that this machine has, mounted ones included, and not an address of a store."""
    return parse_root(root).startswith("/")


def open_store(root: str) -> Store:
    """Return the store of a root; nothing is asked of it yet.

    >>> open_store("lake").at("staging").endswith("/lake/staging")
    True

    Raises:
        RootError: The root is neither a folder nor a known address.
    """
    place = parse_root(root)
    return FolderStore(place) if is_local(root) else AddressStore(place)


@dataclass(frozen=True)
class Store(ABC):
    """Objects under one root. It can be pickled, so that workers get it too.

    Names are relative and part their folders by `/`; a prefix is the name of a folder.

    Args:
        root: As `parse_root` spells it.

    Example:
        >>> store = open_store("memory://examples")
        >>> store.put("notes/day.txt", "rain")
        >>> store.get_text("notes/day.txt"), store.put_if_absent("notes/day.txt", "sun")
        ('rain', False)
    """

    root: str
    failures: ClassVar[tuple[type[Exception], ...]] = (Exception,)  # every driver raises what its own library does

    def at(self, *parts: str) -> str:
        """Return what Spark calls a place under the root."""
        return "/".join((self.root.rstrip("/"), *parts))

    def local_folder(self, *parts: str) -> Path | None:
        """Return a place under the root as a path of this machine, or None where there is none."""
        return None

    def put(self, name: str, content: bytes | str | Path) -> None:
        """Put a whole object in place of the one there was.

        Args:
            name: Of the object.
            content: Its bytes, its text, or a file of this machine to put.

        Raises:
            FilesError: It cannot be written; the former object is there as it was.
        """
        with self._explained("written", name):
            self._put(name, content.encode() if isinstance(content, str) else content)

    def put_if_absent(self, name: str, content: bytes | str) -> bool:
        """Put an object unless there is one; of all who try at once, exactly one does.

        Returns:
            Whether it was put here.

        Raises:
            RootError: The store cannot promise that.
            FilesError: It cannot be written.
        """
        with self._explained("written", name):
            return self._put_if_absent(name, content.encode() if isinstance(content, str) else content)

    def get(self, name: str) -> bytes | None:
        """Return an object's bytes, or None when there is none.

        Raises:
            FilesError: It cannot be read.
        """
        with self._explained("read", name):
            return self._get(name)

    def get_text(self, name: str) -> str | None:
        """Return an object as text, or None when there is none.

        Raises:
            FilesError: It cannot be read, or is not UTF-8.
        """
        content = self.get(name)
        with self._explained("read", name):
            return None if content is None else content.decode()

    def fetch(self, name: str, path: Path) -> bool:
        """Copy an object into a file of this machine, whose folder is made; return whether there was one.

        Raises:
            FilesError: It cannot be read.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained("read", name):
            return self._fetch(name, path)

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""
        with self._explained("looked up", name):
            return self._exists(name)

    def list(self, prefix: str) -> list[Entry]:
        """Return all objects under a prefix, however deep, by name; nothing when there are none."""
        with self._explained("listed", prefix):
            return sorted(self._list(prefix), key=lambda entry: entry.name)

    def delete(self, name: str) -> None:
        """Delete an object; a missing one is no error."""
        with self._explained("removed", name):
            self._delete(name)

    def delete_prefix(self, prefix: str) -> None:
        """Delete all objects under a prefix; none is no error."""
        with self._explained("removed", prefix):
            self._delete_prefix(prefix)

    def prune(self, prefix: str) -> None:  # noqa: B027 - most stores have no folders
        """Remove folders that hold no object any more, where a store has folders at all."""

    # -- folders, told complete by their marker -------------------------------------------------------------------

    def put_folder(self, prefix: str, folder: Path) -> None:
        """Put all files of a folder of this machine under a prefix, and then the marker that says so.

        Raises:
            FilesError: One cannot be written; without the marker, what is there is nobody's.
        """
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        for name, path in files.items():
            self.put(f"{prefix}/{name}", path)
        self.put(prefix + MARKER, json.dumps({name: path.stat().st_size for name, path in files.items()}, indent=1))

    def has_folder(self, prefix: str) -> bool:
        """Whether a folder was put under a prefix, complete with its marker."""
        return self.exists(prefix + MARKER)

    def fetch_folder(self, prefix: str, folder: Path) -> None:
        """Copy what `put_folder` put into a folder of this machine.

        Raises:
            FilesError: It has no marker, or a file is gone or of another size than the marker says.
        """
        marker = self.get_text(prefix + MARKER)
        if marker is None:
            raise FilesError(f"{self.at(prefix)} is not there, or was never completed.", _AGAIN)
        for name, size in json.loads(marker).items():
            if not self.fetch(f"{prefix}/{name}", folder / name) or (folder / name).stat().st_size != size:
                raise FilesError(f"{self.at(prefix)} lost its file {name}.", "Delete that folder; it is made again.")

    # -- what an adapter does -------------------------------------------------------------------------------------

    @abstractmethod
    def _put(self, name: str, content: bytes | Path) -> None: ...

    @abstractmethod
    def _put_if_absent(self, name: str, content: bytes) -> bool: ...

    @abstractmethod
    def _get(self, name: str) -> bytes | None: ...

    @abstractmethod
    def _fetch(self, name: str, path: Path) -> bool: ...

    @abstractmethod
    def _exists(self, name: str) -> bool: ...

    @abstractmethod
    def _list(self, prefix: str) -> Iterator[Entry]: ...

    @abstractmethod
    def _delete(self, name: str) -> None: ...

    @abstractmethod
    def _delete_prefix(self, prefix: str) -> None: ...

    @contextmanager
    def _explained(self, done: str, name: str) -> Iterator[None]:
        _checked(name)
        try:
            yield
        except SmpError:
            raise
        except self.failures as error:
            reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
            raise FilesError(f"{self.at(name)} cannot be {done}: {reason[:200]}.", _AGAIN) from error


_AGAIN = "What is published stays. Mend the cause, then run the same command again."


def _checked(name: str) -> str:
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"'{name}' is no name of an object under the root")
    return name


class FolderStore(Store):
    """A folder of this machine: a disk, NFS, or a FUSE mount, which may know neither rename nor link."""

    failures = (OSError, UnicodeDecodeError)

    def local_folder(self, *parts: str) -> Path | None:
        """Return a place under the root as a path."""
        return Path(self.root, *parts)

    def prune(self, prefix: str) -> None:
        """Remove folders that hold nothing, the innermost first."""
        for folder, _, _ in os.walk(Path(self.root, _checked(prefix)), topdown=False):
            with suppress(OSError):  # it holds something, or goes just now
                os.rmdir(folder)

    def _put(self, name: str, content: bytes | Path) -> None:
        target = Path(self.root, name)
        with self._aside(target) as aside:
            _fill(aside, content)
            try:
                os.replace(aside, target)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                _fill(target, content)

    def _put_if_absent(self, name: str, content: bytes) -> bool:
        target = Path(self.root, name)
        with self._aside(target) as aside:
            _fill(aside, content)
            try:
                os.link(aside, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                try:
                    with target.open("xb") as file:
                        file.write(content)
                except FileExistsError:
                    return False
        return True

    @contextmanager
    def _aside(self, target: Path) -> Iterator[Path]:
        """Give a name beside an object, which no listing shows; what a killed process left there goes by its age."""
        for _ in range(5):
            target.parent.mkdir(parents=True, exist_ok=True)
            left = [path for path in target.parent.glob(f".{_literal(target.name)}.*{_ASIDE}") if _is_old(path)]
            for path in left:
                path.unlink(missing_ok=True)
            aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_ASIDE}")
            with suppress(FileNotFoundError):  # somebody pruned the folder just now
                aside.touch()
                break
        try:
            yield aside
        finally:
            aside.unlink(missing_ok=True)

    def _get(self, name: str) -> bytes | None:
        try:
            return Path(self.root, name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def _fetch(self, name: str, path: Path) -> bool:
        try:
            shutil.copyfile(Path(self.root, name), path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        return True

    def _exists(self, name: str) -> bool:
        return Path(self.root, name).is_file()

    def _list(self, prefix: str) -> Iterator[Entry]:
        for folder, _, files in os.walk(Path(self.root, prefix)):
            for name in files:
                path = Path(folder, name)
                if not name.endswith(_ASIDE):
                    with suppress(FileNotFoundError):  # removed since it was listed
                        found = path.stat()
                        yield Entry(path.relative_to(self.root).as_posix(), found.st_size, found.st_mtime)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            Path(self.root, name).unlink()

    def _delete_prefix(self, prefix: str) -> None:
        def unless_gone(_: Any, __: str, failure: tuple[Any, BaseException, Any]) -> None:
            if not isinstance(failure[1], FileNotFoundError | NotADirectoryError):
                raise failure[1]

        shutil.rmtree(Path(self.root, prefix), onerror=unless_gone)


def _fill(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _is_old(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return abs(time.time() - path.stat().st_mtime) > _ASIDE_KEPT_S
    return False


class AddressStore(Store):
    """A store that fsspec reaches by its address: s3, gs, abfss, hdfs, memory, and what else it has a driver for."""

    def _open(self, name: str) -> tuple[Any, str]:
        """Return the driver and what it calls an object. Drivers are cached by fsspec, one per process and thread."""
        from fsspec.core import url_to_fs

        scheme = urlsplit(self.root).scheme
        known_as = _FSSPEC_NAMES.get(scheme, scheme)
        address = f"{known_as}{self.root[len(scheme) :]}/{name}"
        try:
            system, path = url_to_fs(address, use_listings_cache=False, **self._options(known_as))
        except ImportError as error:
            package = _DRIVERS.get(known_as)
            raise ConfigError(
                f"The root {self.root} needs a driver that is not installed: {error}.",
                f"pip install {package}" if package else None,
            ) from None
        return system, str(path)

    @staticmethod
    def _options(scheme: str) -> dict[str, Any]:
        return {"auto_mkdir": True} if scheme == "local" else {}

    def _put(self, name: str, content: bytes | Path) -> None:
        system, path = self._open(name)
        if isinstance(content, Path):
            system.put_file(str(content), path)
        else:
            system.pipe_file(path, content)

    def _put_if_absent(self, name: str, content: bytes) -> bool:
        system, path = self._open(name)
        protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
        if not protocols & _PUTS_IF_ABSENT or "mode" not in signature(system.pipe_file).parameters:
            raise RootError(
                f"{self.root} cannot put an object only where there is none.",
                "Use a folder, s3, gs or abfss; or a catalog, which lets several drivers write.",
            )
        try:
            system.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        return True

    def _get(self, name: str) -> bytes | None:
        system, path = self._open(name)
        try:
            return bytes(system.cat_file(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def _fetch(self, name: str, path: Path) -> bool:
        system, source = self._open(name)
        if not system.isfile(source):
            return False
        system.get_file(source, str(path))
        return True

    def _exists(self, name: str) -> bool:
        system, path = self._open(name)
        return bool(system.isfile(path))

    def _list(self, prefix: str) -> Iterator[Entry]:
        system, path = self._open(prefix)
        cut = len(path) - len(prefix)
        for name, info in system.find(path, detail=True).items():
            if info.get("type") == "file" and name.startswith(path + "/"):
                yield Entry(name[cut:], int(info["size"] or 0), _put_at(info))

    def _delete(self, name: str) -> None:
        system, path = self._open(name)
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            system.rm_file(path)

    def _delete_prefix(self, prefix: str) -> None:
        system, path = self._open(prefix)
        with suppress(FileNotFoundError):  # there is none, or somebody is removing it too
            if system.isdir(path):
                system.rm(path, recursive=True)


def _put_at(info: dict[str, Any]) -> float:
    """Return an object's time out of what its driver tells of it; each has a word of its own."""
    for word in ("LastModified", "last_modified", "mtime", "updated", "modified", "created"):
        found = info.get(word)
        if isinstance(found, str):
            found = datetime.fromisoformat(found)
        if isinstance(found, datetime):
            return found.timestamp()
        if found is not None:
            return float(found)
    raise ValueError("the store says of an object no time")

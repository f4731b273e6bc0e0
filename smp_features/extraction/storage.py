"""Small files and folders under the root, through Hadoop's file systems, so that any root Spark can use will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from smp_features.errors import StageError


@dataclass(frozen=True)
class Entry:
    """One file or folder.

    Attributes:
        name: Its last part.
        is_folder: Whether it is a folder.
        modified_s: When it last changed, in seconds since 1970 UTC; 0 where folders have no time.
    """

    name: str
    is_folder: bool
    modified_s: float


class Storage:
    """Lists, reads, writes and removes below a root.

    Args:
        session: Spark, whose Hadoop configuration knows the root's scheme and credentials.
    """

    def __init__(self, session: SparkSession) -> None:
        self._jvm: Any = session.sparkContext._jvm
        self._configuration: Any = session.sparkContext._jsc.hadoopConfiguration()

    def entries(self, folder: str) -> list[Entry]:
        """Return what a folder holds, by name; nothing when it does not exist."""
        file_system, path = self._at(folder)
        try:
            found = file_system.listStatus(path)
        except Py4JJavaError as error:
            if _is_missing(error):
                return []
            raise
        listed = [Entry(s.getPath().getName(), s.isDirectory(), s.getModificationTime() / 1000) for s in found]
        return sorted(listed, key=lambda entry: entry.name)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder."""
        file_system, at = self._at(path)
        return bool(file_system.exists(at))

    def read_text(self, path: str) -> str | None:
        """Return a small file's text, or None when it does not exist."""
        file_system, at = self._at(path)
        try:
            stream = file_system.open(at)
        except Py4JJavaError as error:
            if _is_missing(error):
                return None
            raise
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def write_text(self, path: str, text: str) -> None:
        """Write a small file; readers see all of it or none, since it is written aside and then renamed.

        Raises:
            StageError: The file system refused the name.
        """
        file_system, at = self._at(path)
        _, aside = self._at(path + ".writing")
        stream = file_system.create(aside, True)
        try:
            stream.write(bytearray(text, "utf-8"))
        finally:
            stream.close()
        if not file_system.rename(aside, at):
            raise StageError(f"{path} could not be written.", "Published rows stay; run the same command to continue.")

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds; nothing happens when it does not exist."""
        file_system, at = self._at(path)
        file_system.delete(at, True)

    def _at(self, path: str) -> tuple[Any, Any]:
        at = self._jvm.org.apache.hadoop.fs.Path(path)
        return at.getFileSystem(self._configuration), at


def _is_missing(error: Py4JJavaError) -> bool:
    return str(error.java_exception.getClass().getName()) == "java.io.FileNotFoundException"

"""Choices of what is written, without any heavy import."""

from __future__ import annotations

from enum import Enum


class OutputFormat(str, Enum):
    """Format of the files: ``parquet`` is the smallest, ``arrow`` the fastest to read by row, ``webdataset`` a tar."""

    PARQUET = "parquet"
    ARROW = "arrow"
    WEBDATASET = "webdataset"

    @property
    def suffix(self) -> str:
        """Suffix of the files."""
        return ".tar" if self is OutputFormat.WEBDATASET else f".{self.value}"

    def __str__(self) -> str:
        return self.value


class StatsDtype(str, Enum):
    """Type of stored statistics: ``f2`` is float16, with the variance as its root, ``f4`` float32."""

    F2 = "f2"
    F4 = "f4"

    def __str__(self) -> str:
        return self.value

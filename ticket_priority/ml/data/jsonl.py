"""Labelled texts on disk, one JSON object a line, read one by one on demand. Needs numpy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from ticket_priority.exceptions import DatasetError
from ticket_priority.ml.artifacts import scratch
from ticket_priority.ml.data.near_duplicates import TextSimilarity
from ticket_priority.ml.data.splits import KINDS_OF_SPLIT
from ticket_priority.ml.numbers import is_number
from ticket_priority.ml.text.normalisation import normalise, text_hash
from ticket_priority.ml.types import CLASS_NAMES, LabelledText

SPLITS: Final = ("train", "validation", "test")
MAX_WEIGHT: Final = 1e6

_SPOOL: Final = "ticket-priority-"

_STRINGS: Final = ("group", "source", "pk", "language", "segment", "created_at", "provenance")

Rows = npt.NDArray[np.int64]


def encode(row: LabelledText, split: str = "", split_by: str = "") -> str:
    """Return a row as one line of JSON, without the line break."""
    values: dict[str, Any] = {"text": row.text, "label": CLASS_NAMES[row.label]}
    values |= {name: value for name, value in (("split", split), ("split_by", split_by)) if value}
    values["weight"] = row.weight
    values |= {name: value for name in _STRINGS if (value := getattr(row, name))}
    return json.dumps(values, ensure_ascii=False)


def decode(line: bytes) -> tuple[LabelledText, str, str]:
    """Return the row of a line, its text normalised, its split, and how that was chosen.

    The last two are "" where the line does not say. Raises ValueError with what is wrong.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    text, label = values.get("text"), values.get("label")
    if not isinstance(text, str) or not (text := normalise(text)):
        raise ValueError('"text" must be a text that is not empty')
    if label not in CLASS_NAMES:
        raise ValueError(f'"label" must be {" or ".join(CLASS_NAMES)}, not {label!r}')
    for name, known in (("split", SPLITS), ("split_by", KINDS_OF_SPLIT)):
        if (value := values.get(name, "")) not in ("", *known):
            raise ValueError(f'"{name}" must be {" or ".join(known)}, not {value!r}')
    weight = values.get("weight", 1.0)
    if not is_number(weight) or not 0 < weight <= MAX_WEIGHT:
        raise ValueError(f'"weight" must be a number above 0, at most {MAX_WEIGHT:g}')
    strings = {name: values.get(name, "") for name in _STRINGS}
    if wrong := [name for name, value in strings.items() if not isinstance(value, str)]:
        raise ValueError(f'"{wrong[0]}" must be a text, not {strings[wrong[0]]!r}')
    row = LabelledText(text, CLASS_NAMES.index(label), weight=float(weight), **strings)
    return row, values.get("split", ""), values.get("split_by", "")


class RowFile:
    """A file of labelled texts that are read by their number, in eight bytes of memory a row.

    `trusted` rows were written here: they are neither checked nor normalised again. Safe to share
    between threads and with forked processes, and to pickle.
    """

    def __init__(
        self, path: Path, ends: array[int] | None = None, *, trusted: bool = False
    ) -> None:
        self.path = path
        self._ends = array("q", [0]) if ends is None else ends
        self._trusted = trusted
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RowFile, trusted=self._trusted), (self.path, self._ends)

    def add_line(self, length: int) -> None:
        """Note that the file's next line has this many bytes."""
        self._ends.append(self._ends[-1] + length)

    def read(self, number: int) -> LabelledText:
        """Return the row on a line, counted from 0."""
        start, end = self._ends[number], self._ends[number + 1]
        # pread keeps no file position, which threads and forked processes would share.
        line = os.pread(self._descriptor, end - start, start)
        if not self._trusted:
            return decode(line)[0]
        values = json.loads(line)
        return LabelledText(**{**values, "label": CLASS_NAMES.index(values["label"])})


class Spool(RowFile):
    """A temporary file (TMPDIR) of rows to train on, which only this user may read.

    It is deleted with the object; what killed processes left is deleted by the next one. Raises
    DatasetError where it cannot be written.
    """

    def __init__(self) -> None:
        kept = ExitStack()
        weakref.finalize(self, kept.close)
        try:
            places = Path(tempfile.gettempdir()).glob(f"{_SPOOL}*/{scratch.MARK}")
            for mark in scratch.stale(places):
                shutil.rmtree(mark.parent, ignore_errors=True)
            # Not unlinked at once: spawned training processes open it by its name.
            folder = Path(tempfile.mkdtemp(prefix=_SPOOL))
            kept.callback(shutil.rmtree, folder, ignore_errors=True)
            kept.enter_context(scratch.in_use(folder / scratch.MARK))
            path = folder / "rows.jsonl"
            self._writer = kept.enter_context(path.open("wb"))
            super().__init__(path, trusted=True)
        except OSError as error:
            raise _no_space(error) from error

    def append(self, row: LabelledText) -> None:
        """Write a row; read it after `finish`."""
        line = encode(row).encode("utf-8", "surrogatepass") + b"\n"
        try:
            self._writer.write(line)
        except OSError as error:
            # Closed now, or its buffer would fail again when the object is deleted.
            with suppress(OSError):
                self._writer.close()
            raise _no_space(error) from error
        self.add_line(len(line))

    def finish(self) -> None:
        """Make the appended rows readable."""
        try:
            self._writer.close()
        except OSError as error:
            raise _no_space(error) from error


def _no_space(error: OSError) -> DatasetError:
    return DatasetError(
        f"The tickets' texts cannot be kept in {tempfile.gettempdir()}: {error.strerror}. Make "
        "room there, or set TMPDIR to another folder."
    )


class StoredRows(Sequence[LabelledText]):
    """Some rows of a file, as a sequence. `groups` holds each row's group as a number, if given."""

    def __init__(
        self, file: RowFile, numbers: Rows, groups: npt.NDArray[np.uint64] | None = None
    ) -> None:
        self._file = file
        self._numbers = numbers
        self._groups = groups

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> LabelledText: ...
    @overload
    def __getitem__(self, index: slice) -> list[LabelledText]: ...
    def __getitem__(self, index: int | slice) -> LabelledText | list[LabelledText]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        row = self._file.read(int(self._numbers[index]))
        return row if self._groups is None else replace(row, group=f"{self._groups[index]:016x}")

    def __iter__(self) -> Iterator[LabelledText]:
        return (self[place] for place in range(len(self)))

    @classmethod
    def joined(cls, parts: Sequence[StoredRows]) -> StoredRows:
        """Concatenate parts of one file, without groups."""
        return cls(parts[0]._file, np.concatenate([part._numbers for part in parts]))

    def take(self, places: Rows) -> StoredRows:
        """Return the rows at these places."""
        groups = None if self._groups is None else self._groups[places]
        return StoredRows(self._file, self._numbers[places], groups)


class Texts(Sequence[str]):
    """The texts of rows, each read on demand."""

    def __init__(self, rows: Sequence[LabelledText]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [row.text for row in self._rows[index]]
        return self._rows[index].text


def check_writable(path: Path, *, force: bool) -> None:
    """Raise DatasetError when a file is there already, unless `force`, or cannot be written."""
    try:
        if path.is_dir():
            raise DatasetError(f"{path} is a folder: name a file.")
        if path.exists() and not force:
            raise DatasetError(f"{path} exists already: name another file, or pass --force.")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-"):
            pass
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error.strerror}.") from error


def write_splits(
    path: Path, splits: Mapping[str, Sequence[LabelledText]], split_by: str = "", *, force: bool
) -> None:
    """Write rows with their splits to a file that only this user may read, all of them or none.

    `split_by` is the kind of split, one of KINDS_OF_SPLIT, or "" where it is not known. Raises
    DatasetError when the file is there already, unless `force`, or cannot be written.
    """
    check_writable(path, force=force)
    try:
        # A temporary file is made with mode 0600.
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False
        ) as file:
            try:
                for split, rows in splits.items():
                    file.writelines(f"{encode(row, split, split_by)}\n" for row in rows)
                file.flush()
                # Some file systems report only now that they are full.
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error.strerror}.") from error


def read_splits(path: Path) -> tuple[dict[str, StoredRows], str]:
    """Check every line of a file; return its rows by split, and how they were split.

    That is "" where the lines differ in it. Empty lines are skipped. Raises
    DatasetError with the number of the line that is wrong.
    """
    kinds: set[str] = set()
    numbers: dict[str, array[int]] = {name: array("q") for name in SPLITS}
    try:
        file = RowFile(path)
        with path.open("rb") as lines:
            for number, line in enumerate(lines):
                file.add_line(len(line))
                if line.strip():
                    split, split_by = _split_of(path, number, line)
                    numbers[split].append(number)
                    kinds.add(split_by)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    splits = {
        name: StoredRows(file, np.array(chosen, dtype=np.int64)) for name, chosen in numbers.items()
    }
    return splits, kinds.pop() if len(kinds) == 1 else ""


def fingerprint(digests: npt.NDArray[np.void], labels: npt.NDArray[np.int8]) -> str:
    """Return the SHA-256 over texts and labels, whatever their order.

    `digests` holds the `text_hash` of each text as 32 bytes.
    """
    total = hashlib.sha256()
    for place, row in enumerate(np.lexsort((labels, digests)).tolist()):
        line = f"{digests[row].tobytes().hex()} {labels[row]}".encode()
        total.update(b"\n" + line if place else line)
    return total.hexdigest()


def count_labels(splits: Mapping[str, npt.NDArray[np.int8]]) -> dict[str, Any]:
    """Return how many rows each split holds, and how many of each class, ready for JSON."""
    classes = {}
    for name, labels in splits.items():
        counts = Counter(labels.tolist())
        classes[name] = {CLASS_NAMES[label]: counts[label] for label in sorted(counts)}
    return {"rows": {name: len(labels) for name, labels in splits.items()}, "classes": classes}


def describe(splits: Mapping[str, StoredRows], split_by: str) -> dict[str, Any]:
    """Return counts, fingerprint and leakage of what `read_splits` returned, ready for JSON."""
    rows = StoredRows.joined(list(splits.values()))
    digests, labels, provenances = bytearray(), array("b"), Counter[str]()
    for row in rows:
        digests += bytes.fromhex(text_hash(row.text))
        labels.append(row.label)
        provenances[row.provenance or "unknown"] += 1
    of_rows = np.frombuffer(labels, dtype=np.int8)
    edges = np.cumsum([len(part) for part in splits.values()])
    places = dict(zip(splits, np.split(np.arange(len(rows)), edges[:-1]), strict=True))
    return {
        "fingerprint": fingerprint(np.frombuffer(bytes(digests), dtype="V32"), of_rows),
        **count_labels({name: of_rows[chosen] for name, chosen in places.items()}),
        "provenance": dict(provenances),
        "split": {"by": split_by or "file", "reason": ""},
        "leakage": TextSimilarity(Texts(rows)).leakage(places["train"], places["test"]),
    }


def _split_of(path: Path, number: int, line: bytes) -> tuple[str, str]:
    try:
        _, split, split_by = decode(line)
        if not split:
            raise ValueError(f'it names no "split": {", ".join(SPLITS)}')
    except ValueError as error:
        raise DatasetError(f"{path}, line {number + 1}: {error}.") from error
    return split, split_by

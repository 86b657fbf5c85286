"""Tickets from a CSV file: read in one pass, in batches, without holding the file in memory."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Final

from django.db import reset_queries, transaction

from helpdesk.cells import FIELDS, CellError, ImportOptions, TicketBuilder
from helpdesk.models import Ticket

REQUIRED: Final = ("subject", "description")
DELIMITERS: Final = (",", ";", "\t", "|")
BATCH_SIZE: Final = 500
KEPT_REJECTIONS: Final = 1000
MAX_CELL_CHARACTERS: Final = 10_000_000


class ImportFileError(Exception):
    """The file as a whole cannot be read, or does not have the columns it needs."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one row cannot be imported. Rows count as in a spreadsheet: the header is row 1."""

    row: int
    line: int
    column: str
    why: str

    def __str__(self) -> str:
        place = f"Row {self.row}"
        if self.line != self.row:
            place += f" (line {self.line})"
        if self.column:
            place += f', column "{self.column}"'
        return f"{place}: {self.why}"


@dataclass(slots=True)
class ImportReport:
    """What an import did. `rejections` keeps the first ones; `rejected` counts them all."""

    read: int = 0
    imported: int = 0
    rejected: int = 0
    labelled: int = 0
    rejections: list[Rejection] = field(default_factory=list)

    def reject(self, rejection: Rejection) -> None:
        """Count a rejection, and keep it if it is one of the first."""
        self.rejected += 1
        if len(self.rejections) < KEPT_REJECTIONS:
            self.rejections.append(rejection)


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    line: int
    ticket: Ticket


OnRejection = Callable[[Rejection], None]
OnProgress = Callable[[int, float], None]


def import_tickets(
    path: Path,
    options: ImportOptions,
    *,
    on_rejection: OnRejection = lambda rejection: None,
    on_progress: OnProgress = lambda rows, share: None,
) -> ImportReport:
    """Import a file in one transaction, or nothing of it.

    One rejected row stops the whole import, unless `skip_invalid`. Rows with a priority are a
    person's labels; rows without stay unset. No signal is sent, so nothing is classified here.
    `on_progress` gets the rows read so far and the share of the file, 0 to 1.
    Raises ImportFileError when the file as a whole cannot be used.
    """
    if not options.skip_invalid or options.dry_run:
        # A separate pass, so that a long file with an error never holds the write lock.
        report = _run(path, options, on_rejection, on_progress, write=False)
        if report.rejected or options.dry_run:
            return report
    with transaction.atomic():
        report = _run(path, options, on_rejection, on_progress, write=True)
        if report.rejected and not options.skip_invalid:
            transaction.set_rollback(True)
            report.imported = 0
    return report


def _run(
    path: Path,
    options: ImportOptions,
    on_rejection: OnRejection,
    on_progress: OnProgress,
    *,
    write: bool,
) -> ImportReport:
    report = ImportReport()

    def reject(rejection: Rejection) -> None:
        report.reject(rejection)
        on_rejection(rejection)

    with _opened(path) as binary:
        size = max(path.stat().st_size, 1)
        reader = _Reader(binary, options, reject)
        batch: list[_Row] = []
        for row in reader:
            if row is not None:
                batch.append(row)
            if len(batch) >= BATCH_SIZE:
                _flush(batch, reader, report, reject, write=write)
                batch = []
            if reader.rows % 5000 == 0:
                on_progress(reader.rows, min(binary.tell() / size, 1.0))
        _flush(batch, reader, report, reject, write=write)
        report.read = reader.rows
    if not report.read:
        raise ImportFileError(f"{path} has a header but no rows.")
    return report


def _flush(
    batch: list[_Row],
    reader: _Reader,
    report: ImportReport,
    reject: OnRejection,
    *,
    write: bool,
) -> None:
    ids = [row.ticket.external_id for row in batch if row.ticket.external_id]
    known = dict(
        Ticket.objects.filter(external_id__in=ids).values_list("external_id", "pk") if ids else []
    )
    fresh: list[Ticket] = []
    for row in batch:
        pk = known.get(row.ticket.external_id)
        if pk is None:
            fresh.append(row.ticket)
        else:
            why = f'"{row.ticket.external_id}" was imported before, as ticket #{pk}'
            reject(Rejection(row.number, row.line, reader.column("id"), why))
    if write:
        Ticket.objects.bulk_create(fresh)
        report.imported += len(fresh)
        # With DEBUG on, Django would keep the text of every INSERT.
        reset_queries()
    report.labelled += sum(ticket.priority is not None for ticket in fresh)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        binary = path.open("rb")
    except IsADirectoryError as error:
        raise ImportFileError(f"{path} is a directory, not a CSV file.") from error
    except FileNotFoundError as error:
        raise ImportFileError(f"{path} does not exist.") from error
    except OSError as error:
        raise ImportFileError(f"{path} cannot be read: {error.strerror}.") from error
    with binary:
        yield binary


class _Reader:
    """Iterates over a file's rows: a ticket, or None where the row was rejected."""

    def __init__(self, binary: BinaryIO, options: ImportOptions, reject: OnRejection) -> None:
        self.options = options
        self.reject = reject
        self.rows = 0
        try:
            self._builder = TicketBuilder(options)
        except CellError as problem:
            raise ImportFileError(f"The default queue: {problem.why}.") from problem
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        text = self._decoded(binary)
        self._csv = csv.reader(text, delimiter=self._delimiter(text), strict=True)
        header = next(self._records(), None)
        if header is None:
            raise ImportFileError("The file is empty.")
        self._header = [name.strip() for name in header]
        self._positions = self._find_columns()

    def column(self, name: str) -> str:
        """Return the file's own name for a field, or the field's where the file has none."""
        position = self._positions.get(name)
        return name if position is None else self._header[position]

    def __iter__(self) -> Iterator[_Row | None]:
        for cells in self._records():
            if not any(cell.strip() for cell in cells):
                continue
            self.rows += 1
            number, line = self._record, self._csv.line_num
            try:
                yield _Row(number, line, self._ticket(cells, number))
            except CellError as problem:
                column = self.column(problem.name) if problem.name else ""
                self.reject(Rejection(number, line, column, problem.why))
                yield None

    def _decoded(self, binary: BinaryIO) -> TextIOWrapper:
        encoding = self.options.encoding
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            raise ImportFileError(f"There is no encoding called {encoding}.") from error
        start = binary.read(4)
        binary.seek(0)
        if not start:
            raise ImportFileError("The file is empty.")
        utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if utf16 and not encoding.lower().startswith("utf-16"):
            raise ImportFileError("The file is UTF-16, not UTF-8: add --encoding utf-16.")
        # Universal newlines would alter quoted cells; the CSV reader knows all three itself.
        return TextIOWrapper(binary, encoding=encoding, newline="")

    def _delimiter(self, text: TextIOWrapper) -> str:
        if self.options.delimiter is not None:
            return self.options.delimiter
        try:
            first = text.readline(100_000)
        except UnicodeError as error:
            raise self._undecodable(error) from error
        text.seek(0)
        wanted = {self.options.columns.get(name, name).casefold() for name in FIELDS}

        def fit(delimiter: str) -> tuple[int, int]:
            names = next(csv.reader([first], delimiter=delimiter), [])
            found = sum(name.strip().casefold() in wanted for name in names)
            return found, len(names)

        return max(DELIMITERS, key=fit)

    def _records(self) -> Iterator[list[str]]:
        while True:
            try:
                record = next(self._csv)
            except StopIteration:
                return
            except UnicodeError as error:
                raise self._undecodable(error) from error
            except csv.Error as error:
                raise ImportFileError(
                    f"The file is not valid CSV near line {self._csv.line_num}: {error}."
                ) from error
            self._record = getattr(self, "_record", 0) + 1
            yield record

    def _undecodable(self, error: UnicodeError) -> ImportFileError:
        detail = ""
        if isinstance(error, UnicodeDecodeError):
            detail = f" (byte 0x{error.object[error.start]:02x})"
        return ImportFileError(
            f"The file cannot be decoded as {self.options.encoding}{detail}. "
            "Name its encoding, such as --encoding cp1252."
        )

    def _find_columns(self) -> dict[str, int]:
        folded = [name.casefold() for name in self._header]
        doubled = sorted({name for name in self._header if folded.count(name.casefold()) > 1})
        positions: dict[str, int] = {}
        missing: list[str] = []
        for name in FIELDS:
            wanted = self.options.columns.get(name, name)
            if wanted.casefold() in folded:
                if folded.count(wanted.casefold()) > 1:
                    raise ImportFileError(
                        f"The file has several columns called {', '.join(doubled)}."
                    )
                positions[name] = folded.index(wanted.casefold())
            elif name in self.options.columns or name in REQUIRED:
                missing.append(f'"{wanted}"' + ("" if wanted == name else f" (for {name})"))
        if missing:
            raise ImportFileError(
                f"The file has no column {', '.join(missing)}. Its columns are: "
                + ", ".join(f'"{name}"' for name in self._header)
                + ". Name them with --map, such as --map subject=Betreff."
            )
        return positions

    def _ticket(self, cells: list[str], number: int) -> Ticket:
        if len(cells) != len(self._header):
            raise CellError(
                "",
                f"it has {len(cells)} cells, the header has {len(self._header)}"
                " (a missing quote or delimiter?)",
            )
        values = {name: cells[position].strip() for name, position in self._positions.items()}
        return self._builder.build(values, number)

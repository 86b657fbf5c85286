from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from helpdesk import importing
from helpdesk.cells import ImportOptions
from helpdesk.models import Queue, Ticket
from ticket_priority.models import Prediction
from ticket_priority.priorities import Priority

WriteCsv = Callable[..., Path]

pytestmark = pytest.mark.django_db


@pytest.fixture
def csv(tmp_path: Path) -> WriteCsv:
    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "tickets.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def run(path: Path, *arguments: str, **options: Any) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("import_tickets", str(path), *arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def refuse(path: Path, *arguments: str) -> tuple[str, str]:
    """Run an import that must fail; return the error and the lines on stderr."""
    err = StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("import_tickets", str(path), *arguments, stdout=StringIO(), stderr=err)
    assert raised.value.returncode != 0
    assert not Ticket.objects.exists()
    return str(raised.value), err.getvalue()


FULL = '''id,subject,description,requester,queue,language,status,priority,created_at
7,Lamp,"Broken,
since ""May""",a@customer.example,billing,de,closed,low,2026-03-01T10:00:00Z
8,Door,Stuck,,,PT_br,,,2026-03-02
'''


class TestAGoodFile:
    def test_every_field_is_read(self, csv: WriteCsv, billing: Queue) -> None:
        out, _ = run(csv(FULL))
        lamp, door = Ticket.objects.order_by("external_id")
        assert lamp.description == 'Broken,\nsince "May"'
        assert (lamp.external_id, lamp.subject, lamp.requester) == (
            "7",
            "Lamp",
            "a@customer.example",
        )
        assert (lamp.queue, lamp.language, lamp.status) == (billing, "de", "closed")
        assert lamp.priority == Priority.LOW
        assert lamp.created_at == datetime(2026, 3, 1, 10, tzinfo=UTC)
        assert (door.queue, door.language, door.status, door.priority) == (
            None,
            "pt-br",
            "open",
            None,
        )
        assert "Imported 2 of 2 rows, 1 of them with a priority." in out

    def test_nothing_is_classified(self, csv: WriteCsv, billing: Queue) -> None:
        run(csv(FULL))
        assert not Prediction.objects.exists()

    def test_mapped_columns_words_and_dates_in_an_excel_file(self, csv: WriteCsv) -> None:
        path = csv(
            "Betreff;Text;Prio;Stand;Datum\r\n"
            "Lampe;Sie flackert;Hoch;Erledigt;31.03.2026 14:05\r\n"
            "Tür;Sie klemmt;Normal;Offen;01.04.2026 08:00\r\n",
            "utf-8-sig",
        )
        run(
            path,
            "--map",
            "subject=Betreff",
            "description=Text",
            "priority=Prio",
            "--map",
            "status=stand",
            "created_at=Datum",
            "--priority-map",
            "Hoch=high",
            "normal=unset",
            "--status-map",
            "Erledigt=solved",
            "Offen=open",
            "--date-format=%d.%m.%Y %H:%M",
            "--language=de",
        )
        door, lamp = Ticket.objects.order_by("-created_at")
        assert (lamp.priority, lamp.status, lamp.language) == (Priority.HIGH, "solved", "de")
        assert lamp.created_at == datetime(2026, 3, 31, 14, 5, tzinfo=UTC)
        assert (door.subject, door.priority, door.status) == ("Tür", None, "open")

    @pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
    def test_other_encodings(self, csv: WriteCsv, encoding: str) -> None:
        run(csv("subject,description\nTür,Größe\n", encoding), f"--encoding={encoding}")
        assert Ticket.objects.get().subject == "Tür"

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_the_delimiter_is_found_out(self, csv: WriteCsv, delimiter: str) -> None:
        run(csv(delimiter.join(["subject", "description"]) + f"\nA{delimiter}B\n"))
        assert Ticket.objects.get().description == "B"

    def test_the_delimiter_can_be_given(self, csv: WriteCsv) -> None:
        run(csv("subject\tdescription\nA\tB\n"), "--delimiter=tab")
        assert Ticket.objects.exists()

    def test_blank_lines_are_passed_over(self, csv: WriteCsv) -> None:
        run(csv("subject,description\n\nA,B\n\n,\n"))
        assert Ticket.objects.count() == 1

    def test_defaults_for_rows_that_name_none(self, csv: WriteCsv, billing: Queue) -> None:
        run(csv("subject,description\nA,B\n"), "--queue=Billing", "--status=closed")
        ticket = Ticket.objects.get()
        assert (ticket.queue, ticket.status) == (billing, "closed")

    def test_a_dry_run_writes_nothing(self, csv: WriteCsv, billing: Queue) -> None:
        out, _ = run(csv(FULL), "--dry-run")
        assert "2 of 2 rows are valid. Nothing was written." in out
        assert not Ticket.objects.exists()

    def test_verbosity_0_is_silent(self, csv: WriteCsv, billing: Queue) -> None:
        assert run(csv(FULL), verbosity=0) == ("", "")

    def test_json(self, csv: WriteCsv, billing: Queue) -> None:
        out, err = run(csv(FULL), "--json")
        report = json.loads(out)
        assert (report["ok"], report["imported"], report["labelled"]) == (True, 2, 1)
        assert err == ""

    def test_long_files_go_in_batches_and_show_progress(
        self, csv: WriteCsv, monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
    ) -> None:
        path = csv("id,subject,description\n" + "".join(f"{n},S,D\n" for n in range(12_000)))
        _, err = run(path)
        assert Ticket.objects.count() == 12_000
        assert err.count("rows read") == 4
        assert "10000 rows read" in err


class TestRejectedRows:
    @pytest.mark.parametrize(
        ("header", "row", "said"),
        [
            ("subject,description", ",text", 'Row 3, column "subject": it is empty'),
            ("subject,description", f"{'x' * 201},t", "201 characters; 200 are allowed"),
            ("subject,description", "a,b,c", "Row 3: it has 3 cells, the header has 2"),
            ("subject,description", "only", "Row 3: it has 1 cells, the header has 2"),
            ("subject,description", "a\x00,b", 'column "subject": it holds a NUL character'),
            ("Subject,description,Priority", "a,b,hoch", 'column "Priority": "hoch" is none of'),
            ("subject,description,status", "a,b,lost", 'column "status": "lost" is none of'),
            ("subject,description,requester", "a,b,nobody", "is not an e-mail address"),
            ("subject,description,queue", "a,b,moon", 'there is no queue "moon"'),
            ("subject,description,language", "a,b,Deutsch!", "is not a language code"),
            ("subject,description,created_at", "a,b,31.12.2026", "is no date such as"),
            ("subject,description,created_at", "a,b,2026-02-30", "is no date"),
            ("subject,description,id", "a,b,", 'column "id": it is empty'),
        ],
    )
    def test_row_column_and_reason_are_named_and_nothing_is_imported(
        self, csv: WriteCsv, header: str, row: str, said: str
    ) -> None:
        good = {"id": "1", "status": "open", "priority": "low", "language": "en"}
        good |= {"subject": "s", "description": "d", "requester": "a@b.example"}
        first = ",".join(good.get(name.lower(), "") for name in header.split(","))
        error, lines = refuse(csv(f"{header}\n{first}\n{row}\n"))
        assert said in lines
        assert "1 of 2 rows were rejected. Nothing was imported." in error

    def test_a_row_number_counts_rows_and_the_line_is_given_where_it_differs(
        self, csv: WriteCsv
    ) -> None:
        _, lines = refuse(csv('subject,description\nA,"one\ntwo"\n,x\n'))
        assert 'Row 3 (line 4), column "subject"' in lines

    def test_every_rejected_row_is_listed(self, csv: WriteCsv) -> None:
        _, lines = refuse(csv("subject,description\n,a\nb,b\n,c\n"))
        assert "Row 2" in lines
        assert "Row 4" in lines
        assert "Row 3" not in lines

    def test_duplicates_in_the_file(self, csv: WriteCsv) -> None:
        _, lines = refuse(csv("id,subject,description\n7,a,a\n8,b,b\n7,c,c\n"))
        assert 'Row 4, column "id": "7" is already in row 2' in lines

    def test_duplicates_of_an_earlier_import(self, csv: WriteCsv) -> None:
        path = csv("id,subject,description\n7,a,a\n")
        run(path)
        with pytest.raises(CommandError, match="1 of 1 rows were rejected"):
            run(path)
        assert Ticket.objects.count() == 1
        with pytest.raises(CommandError):
            run(path, "--skip-invalid")

    def test_skip_invalid_imports_the_others(self, csv: WriteCsv) -> None:
        out, err = run(csv("subject,description\nA,a\n,b\nC,c\n"), "--skip-invalid")
        assert set(Ticket.objects.values_list("subject", flat=True)) == {"A", "C"}
        assert "Row 3" in err
        assert "Imported 2 of 3 rows" in out

    def test_json_tells_of_the_failure(self, csv: WriteCsv) -> None:
        out = StringIO()
        path = csv("subject,description\n,a\n")
        with pytest.raises(CommandError):
            call_command("import_tickets", str(path), "--json", stdout=out, stderr=StringIO())
        report = json.loads(out.getvalue())
        assert report["ok"] is False
        assert report["rejections"] == [
            {"row": 2, "line": 2, "column": "subject", "why": "it is empty"}
        ]

    def test_the_report_keeps_only_the_first_rejections(
        self, csv: WriteCsv, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importing, "KEPT_REJECTIONS", 2)
        path = csv("subject,description\n" + ",a\n" * 5)
        report = importing.import_tickets(path, ImportOptions())
        assert (report.rejected, len(report.rejections)) == (5, 2)

    def test_a_failure_half_way_leaves_nothing(
        self, csv: WriteCsv, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importing, "BATCH_SIZE", 2)
        path = csv("id,subject,description\n1,a,a\n2,b,b\n3,c,c\n")
        flush, calls = importing._flush, []

        def fail_late(*arguments: Any, write: bool) -> None:
            calls.append(write)
            if calls.count(True) == 2:
                raise RuntimeError("the database went away")
            flush(*arguments, write=write)

        monkeypatch.setattr(importing, "_flush", fail_late)
        with pytest.raises(RuntimeError):
            importing.import_tickets(path, ImportOptions())
        assert not Ticket.objects.exists()


class TestUnusableFiles:
    @pytest.mark.parametrize(
        ("text", "encoding", "said"),
        [
            ("", "utf-8", "The file is empty."),
            ("\ufeff", "utf-8", "The file is empty."),
            ("subject,description\n", "utf-8", "has a header but no rows"),
            ("subject,description\nT\u00fcr,x\n", "cp1252", "cannot be decoded as utf-8-sig"),
            ("subject,description\nA,B\n", "utf-16", "add --encoding utf-16"),
            ('subject,description\n"A,B\n', "utf-8", "not valid CSV near line"),
            ("subject,subject,description\nA,B,C\n", "utf-8", "several columns called subject"),
        ],
    )
    def test_the_reason_is_given(self, csv: WriteCsv, text: str, encoding: str, said: str) -> None:
        error, _ = refuse(csv(text, encoding))
        assert said in error
        assert error.endswith("Nothing was imported.")

    def test_missing_columns_name_those_that_exist(self, csv: WriteCsv) -> None:
        error, _ = refuse(csv("Betreff,Text\nA,B\n"))
        assert 'no column "subject", "description"' in error
        assert 'Its columns are: "Betreff", "Text"' in error

    def test_a_mapped_column_that_is_missing(self, csv: WriteCsv) -> None:
        error, _ = refuse(csv("subject,description\nA,B\n"), "--map", "priority=Prio")
        assert '"Prio" (for priority)' in error

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "does not exist" in refuse(tmp_path / "none.csv")[0]
        assert "is a directory" in refuse(tmp_path)[0]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--map", "subject"], "not of the form NAME=VALUE"),
            (["--map", "colour=x"], '"colour" is none of id, subject'),
            (["--map", "subject=a", "subject=b"], '"subject" is given twice'),
            (["--priority-map", "Hoch=very"], '"very" is none of low, medium, high, unset'),
            (["--status-map", "x=y"], '"y" is none of open'),
            (["--delimiter", ";;"], "takes one character"),
            (["--encoding", "klingon"], "no encoding called klingon"),
            (["--queue", "moon"], 'there is no queue "moon"'),
        ],
    )
    def test_bad_options(self, csv: WriteCsv, arguments: list[str], said: str) -> None:
        assert said in refuse(csv("subject,description\nA,B\n"), *arguments)[0]

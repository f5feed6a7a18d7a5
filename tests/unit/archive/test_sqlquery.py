"""A question to a copy: what it answers, and that it can neither write nor go on for ever."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ansible_collections.abaci.infra.plugins.module_utils import sqlquery
from ansible_collections.abaci.infra.plugins.module_utils.sqlquery import Refused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "database"
    with closing(sqlite3.connect(made)) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
        db.execute("INSERT INTO t VALUES (1, 'Äpfel, rot', x'00ff'), (2, 'two\nlines', NULL), (3, 'drei', NULL)")
        db.execute("CREATE VIRTUAL TABLE f USING fts5 (text)")
        db.execute("INSERT INTO f VALUES ('to be found')")
        db.commit()
    return made


def run(path: Path, sql: str, rows: int = 100, seconds: float = 5) -> sqlquery.Answer:
    return sqlquery.run(path, sql, rows, seconds, "query_sql")


def test_a_table_is_shown_as_text_csv_and_json(path: Path) -> None:
    answer = run(path, "SELECT * FROM t", rows=2)
    assert answer.more
    assert sqlquery.shown(answer, "text").splitlines() == [
        "id  name        data",
        "--  ----------  ----",
        "1   Äpfel, rot  00ff",
        "2   two lines   NULL",
    ]
    assert sqlquery.shown(answer, "csv") == 'id,name,data\n1,"Äpfel, rot",00ff\n2,"two\nlines",\n'
    assert json.loads(sqlquery.shown(answer, "json"))[0] == {"id": 1, "name": "Äpfel, rot", "data": "00ff"}
    assert not run(path, "SELECT * FROM t", rows=3).more


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM t",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT max(i) FROM n",
        "SELECT text FROM f WHERE f MATCH 'found'",
        "PRAGMA table_info(t)",
        "PRAGMA user_version",
        "PRAGMA integrity_check",
        "EXPLAIN QUERY PLAN SELECT * FROM t",
        "SELECT json_extract('{\"a\": 1}', '$.a'), name FROM sqlite_master -- a comment",
    ],
)
def test_what_reads_is_answered(path: Path, sql: str) -> None:
    assert run(path, sql).rows


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM t",
        "INSERT INTO t VALUES (9, '', NULL) RETURNING id",
        "WITH x AS (SELECT 1) UPDATE t SET name = 'x'",
        "DROP TABLE t",
        "CREATE TEMP TABLE u AS SELECT * FROM t",
        "ATTACH '{folder}/other' AS other",
        "VACUUM INTO '{folder}/copy'",
        "VACUUM",
        "PRAGMA query_only = 0",
        "PRAGMA writable_schema = 1",
        "PRAGMA journal_mode = delete",
        "BEGIN IMMEDIATE",
    ],
)
def test_what_writes_is_refused_in_one_sentence_and_writes_nothing(path: Path, sql: str) -> None:
    before = path.read_bytes()
    with pytest.raises(
        Refused, match=r"^query_sql is answered from a copy, so it may only read, and .* give one SELECT"
    ):
        run(path, sql.format(folder=path.parent))
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir()] == ["database"]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT * FROM missing", "SQLite says no such table: missing"),
        ("SELEC", "syntax error"),
        ("SELECT 1; DELETE FROM t", "one statement at a time"),
        ("SELECT load_extension('/tmp/x')", "is not answered|may only read"),
    ],
)
def test_what_is_wrong_is_said_in_sqlites_words(path: Path, sql: str, words: str) -> None:
    with pytest.raises(Refused, match=rf"^query_sql is .*({words})"):
        run(path, sql)


def test_a_question_without_an_end_ends(path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Refused, match=r"^query_sql took longer than 0.2 s"):
        run(path, endless, seconds=0.2)


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("SELECT count(*) FROM t", 3.0),
        ("SELECT 1 FROM t WHERE id = 99", None),
        ("SELECT NULL", None),
        ("SELECT 2.5, 'x'", 2.5),
    ],
)
def test_an_answer_to_compare_is_a_number(path: Path, sql: str, wanted: float | None) -> None:
    assert sqlquery.number(run(path, sql)) == wanted


def test_a_text_cannot_be_compared(path: Path) -> None:
    with pytest.raises(Refused, match="'drei' is no number"):
        sqlquery.number(run(path, "SELECT name FROM t WHERE id = 3"))


@pytest.mark.parametrize(
    ("sql", "changed"),
    [
        ("UPDATE t SET name = 'x' WHERE id > 1", 2),
        ("DELETE FROM t -- all", 3),
        ("INSERT INTO t (name) VALUES ('y') RETURNING id", 1),
        ("CREATE INDEX i ON t (name)", 0),
        ("SELECT 1", 0),
    ],
)
def test_with_the_word_for_it_a_copy_is_changed_and_the_rows_are_counted(path: Path, sql: str, changed: int) -> None:
    assert sqlquery.run(path, sql, 100, 5, "query_sql", write=True).changed == changed


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("VACUUM", "does something else"),
        ("PRAGMA journal_mode = wal", "does something else"),
        ("PRAGMA user_version = 7", "does something else"),
        ("ATTACH '/tmp/x' AS x", "does something else"),
        ("BEGIN", "does something else"),
        ("DELETE FROM t; DELETE FROM f", "one statement at a time"),
        ("DELETE FROM absent", "no such table"),
        ("INSERT INTO t (id) VALUES (1)", "UNIQUE constraint failed"),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t (name) SELECT i FROM n",
            "longer",
        ),
        (".shell true", "syntax error"),
    ],
)
def test_what_is_more_than_to_write_rows_is_refused(path: Path, sql: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        sqlquery.run(path, sql, 100, 0.5, "query_sql", write=True)


def test_a_write_on_a_copy_keeps_foreign_keys(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE child (parent INTEGER REFERENCES t (id) ON DELETE CASCADE)")
        db.execute("INSERT INTO child VALUES (1), (1)")
        db.commit()
    assert sqlquery.run(path, "DELETE FROM t WHERE id = 1", 1, 5, "query_sql", write=True).changed == 3
    with pytest.raises(Refused, match="FOREIGN KEY"):
        sqlquery.run(path, "INSERT INTO child VALUES (99)", 1, 5, "query_sql", write=True)

"""Each generation compared with what its research tool makes: SQLModel's tables, and files of all Elixir schemas."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
from databases import build
from elixir_files import SCHEMAS, SCRIPT, elixir_file
from research_models import Base
from sqlalchemy import UniqueConstraint, create_engine

from pytest_panic_doctor.database.elixir_generation import ELIXIR, NEWER, VERSIONS
from pytest_panic_doctor.database.generation import Generation, TableSchema
from pytest_panic_doctor.database.generations import generation_of, generations
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.schema import NOUNS, TABLES, UNIQUE
from pytest_panic_doctor.session.demo.tables import create_tables

NOON = datetime(2026, 7, 10, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An Elixir file of the test's schema, the newest by default."""
    schema = getattr(request, "param", 7)
    with closing(sqlite3.connect(elixir_file(tmp_path, "--schema", str(schema)))) as connection:
        connection.isolation_level = None
        yield connection


every_schema = pytest.mark.parametrize("db", SCHEMAS, indirect=True)


@pytest.fixture
def python_db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An empty file as the research tool of the Python generation makes it."""
    engine = create_engine(f"sqlite:///{tmp_path / 'python.sqlite'}")
    Base.metadata.create_all(engine)
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "python.sqlite")) as connection:
        yield connection


@pytest.fixture
def tool_made(generation: Generation, request: pytest.FixtureRequest) -> sqlite3.Connection:
    """A file of the newest schema, as the research tool makes it."""
    made = request.getfixturevalue("python_db" if generation is PYTHON else "db")
    assert isinstance(made, sqlite3.Connection)
    return made


both = pytest.mark.parametrize("generation", [PYTHON, ELIXIR], ids=lambda each: each.key)


def declared(db: sqlite3.Connection) -> dict[tuple[str, str], str | None]:
    """The SQL of each table and index, word for word."""
    return {(kind, name): sql for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master")}


def table_columns(db: sqlite3.Connection, table: str) -> list[tuple[str, str, bool]]:
    """The name of each column of a table, its type, and whether it may be NULL."""
    found = db.execute('SELECT name, type, NOT "notnull" FROM pragma_table_info(?)', (table,))
    return [(name, kind, bool(null)) for name, kind, null in found]


def references(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """(table, column, table whose id it holds) of all declared references."""
    query = (
        'SELECT m.name, f."from", f."table" FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f '
        "WHERE m.type = 'table'"
    )
    return set(db.execute(query))


def test_the_models_make_the_research_tools_schema_word_for_word(
    python_db: sqlite3.Connection, shared_data: Path
) -> None:
    with closing(sqlite3.connect(f"{(shared_data / 'reference-healthy.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        assert declared(python_db) == declared(db)


@both
def test_a_description_is_what_the_tool_makes(generation: Generation, tool_made: sqlite3.Connection) -> None:
    for table in generation.tables:
        assert [(each.name, each.type, each.null) for each in table.columns] == table_columns(tool_made, table.name)
    made = {name for kind, name in declared(tool_made) if kind == "table"}
    assert {table.name for table in generation.tables} == made - {"schema_migrations", "sqlite_sequence"}


@both
def test_references_are_those_of_the_tool_but_for_that_of_a_successor(
    generation: Generation, tool_made: sqlite3.Connection
) -> None:
    runs, invocations = generation.real_name("run"), generation.real_name("invocation")
    left_out = {
        (invocations, "input_invocation_id", invocations),
        (runs, "experiment_id", generation.real_name("experimentconfig")),
    }
    assert set(generation.references) == references(tool_made) - left_out


@both
def test_the_demo_has_the_tables_and_references_that_the_tool_makes(
    generation: Generation, tool_made: sqlite3.Connection
) -> None:
    with closing(sqlite3.connect(":memory:")) as made:
        create_tables(made, generation)
        for table in generation.tables:
            assert table_columns(made, table.name) == table_columns(tool_made, table.name)
            assert indexes(made, table.name) >= {columns for columns, _ in table.unique}
        assert references(made) == references(tool_made)


def test_an_older_demo_can_hold_duplicates_and_has_the_tools_own_indexes(python_db: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(":memory:")) as made:
        create_tables(made, PYTHON, unique=False)
        for table in PYTHON.tables:
            assert not indexes(made, table.name)
            assert indexes(made, table.name, unique=False) == indexes(python_db, table.name, unique=False)


def test_the_tools_constraints_are_among_those_that_the_doctor_looks_for() -> None:
    unique = {
        tuple(column.name for column in constraint.columns)
        for constraint in Base.metadata.tables["embedding"].constraints
        if isinstance(constraint, UniqueConstraint)
    }
    assert unique == set(UNIQUE["embedding"])


def test_the_python_description_is_the_canonical_schema() -> None:
    assert {table.name: tuple(column.name for column in table.columns) for table in PYTHON.tables} == dict(TABLES)
    assert {
        table.name: tuple(wanted for wanted, _ in table.unique) for table in PYTHON.tables if table.unique
    } == UNIQUE
    assert not PYTHON.needs_views


def test_every_generation_has_every_canonical_table_and_column_or_says_that_it_has_none() -> None:
    for generation in generations():
        for canonical, wanted in TABLES.items():
            table = generation.table(canonical)
            assert table is not None
            assert table.canonical in NOUNS
            there = {column.name for column in table.columns}
            assert {source for name in wanted if (source := table.column_of(name))} <= there


def indexes(db: sqlite3.Connection, table: str, *, unique: bool = True) -> set[tuple[str, ...]]:
    """The columns of each index beside that of the ids: of the unique ones, or of the others."""
    return {
        tuple(str(row[2]) for row in db.execute("SELECT * FROM pragma_index_info(?)", (name,)))
        for _, name, is_unique, origin, _ in db.execute("SELECT * FROM pragma_index_list(?)", (table,))
        if bool(is_unique) is unique and origin != "pk"
    }


@every_schema
def test_the_description_is_what_the_tools_migrations_make(
    db: sqlite3.Connection, request: pytest.FixtureRequest
) -> None:
    schema = request.node.callspec.params["db"]
    for table in ELIXIR.tables:
        found = db.execute('SELECT name, type, "notnull" FROM pragma_table_info(?)', (table.name,)).fetchall()
        wanted = [each for each in table.columns if each.since <= schema] if table.since <= schema else []
        extra = {"experiment_id"} if table.name == "clustering_results" and schema < 7 else set()
        assert [row[0] for row in found if row[0] not in extra] == [each.name for each in wanted]
        types = {each.name: (each.type, 0 if each.null else 1) for each in wanted}
        assert {name: (kind, bool(must)) for name, kind, must in found if name not in extra} == types
        there = {columns for columns in indexes(db, table.name) if not extra & set(columns)}
        assert there == {columns for columns, since in table.unique if since <= schema}


@both
def test_a_file_is_of_the_generation_of_which_it_has_the_most_tables(
    generation: Generation, tool_made: sqlite3.Connection
) -> None:
    assert generation_of(tool_made) is generation
    tool_made.execute("CREATE TABLE runs (id)" if generation is PYTHON else "CREATE TABLE run (id)")
    tool_made.execute(f"DROP TABLE {generation.real_name('embedding')}")
    assert generation_of(tool_made) is generation


def test_a_file_of_neither_is_of_none() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        assert generation_of(db) is None
        db.execute("CREATE TABLE other (id)")
        assert generation_of(db) is None


@every_schema
def test_a_file_says_which_schema_it_has(db: sqlite3.Connection, request: pytest.FixtureRequest) -> None:
    schema = request.node.callspec.params["db"]
    found = ELIXIR.schema_version(db)
    assert (found.number, found.name) == (schema, str(VERSIONS[schema - 1]))
    assert bool(found.note) == (schema < 7)
    db.execute("DROP TABLE schema_migrations")
    assert ELIXIR.schema_version(db).number == schema
    assert ELIXIR.refusal(db) == ""


def test_a_newer_schema_is_one_that_this_doctor_does_not_know(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO schema_migrations VALUES (20270101000000, '2027-01-01T00:00:00')")
    assert ELIXIR.schema_version(db).note == NEWER
    assert ELIXIR.schema_version(db).name == "20270101000000"


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_schema_of_the_first_days_is_refused(schema: int, tmp_path: Path) -> None:
    if not SCRIPT.is_file():
        pytest.skip("the script that knows the migrations is not there")
    known: dict[str, object] = {"__name__": "script"}
    exec(compile(SCRIPT.read_text(), SCRIPT.name, "exec"), known)
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as db:
        for _, statements in known["MIGRATIONS"][:schema]:  # type: ignore[index]
            for statement in statements:
                db.execute(statement)
        assert generation_of(db) is ELIXIR
        assert ELIXIR.schema_version(db).number == schema
        assert "cannot migrate" in ELIXIR.refusal(db)


def test_a_python_file_says_by_which_migration_it_is_there(tmp_path: Path) -> None:
    built = build(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(built.path)) as db:
        assert PYTHON.schema_version(db).name == ""
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        db.execute("INSERT INTO alembic_version VALUES ('1975ea83b712')")
        assert PYTHON.schema_version(db).name == "1975ea83b712"
        assert PYTHON.refusal(db) == ""


@every_schema
def test_the_views_have_the_canonical_columns_and_the_files_rows(db: sqlite3.Connection) -> None:
    before = db.execute("SELECT sql FROM main.sqlite_master ORDER BY name").fetchall()
    ELIXIR.create_views(db)
    for canonical, wanted in TABLES.items():
        table = ELIXIR.table(canonical)
        assert table is not None
        cursor = db.execute(f"SELECT * FROM {canonical} ORDER BY rowid")
        names = [str(each[0]) for each in cursor.description]
        assert names[: 1 + len(wanted)] == ["rowid", *wanted]
        own = {str(row[1]) for row in db.execute(f"PRAGMA main.table_info({table.name})")}
        assert own <= set(names)
        real = db.execute(f"SELECT rowid, id FROM main.{table.name} ORDER BY rowid").fetchall()
        assert [(row[0], row[names.index("id")]) for row in cursor] == real
    assert db.execute("SELECT sql FROM main.sqlite_master ORDER BY name").fetchall() == before


def test_what_a_view_makes_of_values(db: sqlite3.Connection) -> None:
    ELIXIR.create_views(db)
    assert db.execute("SELECT DISTINCT type FROM invocation ORDER BY 1").fetchall() == [("IMAGE",), ("TEXT",)]
    assert db.execute("SELECT DISTINCT seed FROM invocation UNION SELECT seed FROM run").fetchall() == [(-1,)]
    assert db.execute("SELECT DISTINCT seeds FROM experimentconfig").fetchall() == [(None,)]
    same = (
        "SELECT count(*) FROM invocation v JOIN main.invocations t USING (id) WHERE output_image_data IS t.output_image"
    )
    assert db.execute(same).fetchone() == db.execute("SELECT count(*) FROM main.invocations").fetchone()
    assert db.execute("SELECT count(*) FROM clusteringresult WHERE created_at IS NOT inserted_at").fetchone() == (0,)
    db.execute("UPDATE main.invocations SET type = 'TEXT' WHERE type = 'text'")
    assert db.execute("SELECT DISTINCT type FROM invocation ORDER BY 1").fetchall() == [("?TEXT",), ("IMAGE",)]


def test_views_are_read_by_the_files_own_indexes(db: sqlite3.Connection) -> None:
    ELIXIR.create_views(db)
    queries = {
        "SELECT i.id FROM run r JOIN invocation i ON i.run_id = r.id LEFT JOIN invocation p "
        "ON p.id = i.input_invocation_id WHERE r.experiment_id = ?": "invocations_unique_run_sequence_index",
        "SELECT e.vector FROM invocation i LEFT JOIN embedding e ON e.invocation_id = i.id AND e.embedding_model = 'M' "
        "WHERE i.run_id = ?": "embeddings_unique_invocation_model_index",
        "SELECT id FROM persistencediagram WHERE run_id = ?": "persistence_diagrams_unique_run_model_index",
        "SELECT 1 FROM experimentconfig WHERE id = ?": "sqlite_autoindex_experiments_1",
    }
    for query, index in queries.items():
        plan = " ".join(str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {query}", ("x",)))
        assert f"USING INDEX {index}" in plan.replace("COVERING ", "")
        assert "SCAN" not in plan.replace("SCAN CONSTANT ROW", "")
        assert "MATERIALIZE" not in plan


def test_what_a_file_lacks_its_views_lack(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE invocations DROP COLUMN output_text")
    db.execute("DROP TABLE lyapunov_results")
    ELIXIR.create_views(db)
    with pytest.raises(sqlite3.OperationalError, match="no such column: output_text"):
        db.execute("SELECT output_text FROM invocation")
    with pytest.raises(sqlite3.OperationalError, match="no such table: lyapunovresult"):
        db.execute("SELECT id FROM lyapunovresult")


def test_names_with_other_letters_and_tables_of_the_canonical_names_do_no_harm(db: sqlite3.Connection) -> None:
    db.execute('ALTER TABLE runs RENAME COLUMN run_number TO "Run ""Number"')
    db.execute("CREATE TABLE run (id)")
    ELIXIR.create_views(db)
    assert db.execute("SELECT count(*) FROM run").fetchone() == db.execute("SELECT count(*) FROM runs").fetchone()
    assert db.execute('SELECT count(*) FROM run WHERE "run ""number" IS NOT NULL').fetchone()[0] > 0


def test_views_are_made_where_nothing_may_be_written(tmp_path: Path) -> None:
    path = elixir_file(tmp_path)
    before = path.read_bytes()
    for options in ("mode=ro&immutable=1", "mode=ro"):
        with closing(sqlite3.connect(f"file:{path}?{options}", uri=True)) as db:
            ELIXIR.create_views(db)
            db.execute("PRAGMA query_only = ON")
            assert db.execute("SELECT count(*) FROM run").fetchone()[0] > 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("generation", generations(), ids=lambda each: each.key)
def test_ids_are_spelt_and_ordered_as_the_tool_makes_them(generation: Generation) -> None:
    ids = [generation.new_id() for _ in range(200)]
    assert all(generation.id_pattern.fullmatch(each) for each in ids)
    assert len(set(ids)) == 200
    assert all(UUID(each).version == 7 for each in ids)
    assert all(UUID(each).variant == "specified in RFC 4122" for each in ids)


def test_ids_are_made_of_digits() -> None:
    digits = "019c381c0000700080000123456789ab"
    assert PYTHON.id_of(digits) == digits
    assert ELIXIR.id_of(digits) == str(UUID(digits))


def test_the_elixir_id_holds_the_milliseconds() -> None:
    before = datetime.now(UTC)
    stamp = int(ELIXIR.new_id().replace("-", "")[:12], 16) / 1000
    assert before - timedelta(seconds=1) < datetime.fromtimestamp(stamp, UTC) < before + timedelta(seconds=60)


def test_moments_are_spelt_as_the_tool_spells_them() -> None:
    assert ELIXIR.stamp(NOON) == "2026-07-10T10:00:00.000005Z"
    assert PYTHON.stamp(NOON) == NOON.astimezone().replace(tzinfo=None).isoformat(" ", "microseconds")


def test_the_file_itself_spells_ids_and_moments_so(db: sqlite3.Connection) -> None:
    spelled = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
    for table in ELIXIR.tables:
        for row_id, moment in db.execute(f"SELECT id, inserted_at FROM {table.name}"):
            assert ELIXIR.id_pattern.fullmatch(row_id)
            assert spelled.fullmatch(moment)
    assert spelled.fullmatch(ELIXIR.stamp(NOON))


def test_a_row_carries_when_it_was_inserted_and_updated_where_the_generation_has_such_columns() -> None:
    now = ELIXIR.stamp(NOON)
    assert ELIXIR.stamps(NOON, is_new=True) == {"inserted_at": now, "updated_at": now}
    assert ELIXIR.stamps(NOON, is_new=False) == {"updated_at": now}
    assert PYTHON.stamps(NOON, is_new=True) == PYTHON.stamps(NOON, is_new=False) == {}
    for table in ELIXIR.tables:
        assert {"inserted_at", "updated_at"} <= {column.name for column in table.columns}


def test_names_go_both_ways() -> None:
    assert ELIXIR.real_name("embeddingcluster") == "embedding_clusters"
    assert ELIXIR.real_name("other") == "other"
    assert ELIXIR.canonical_name("Embedding_Clusters") == "embeddingcluster"
    assert PYTHON.canonical_name("run") == PYTHON.real_name("run") == "run"
    table = ELIXIR.table("invocation")
    assert isinstance(table, TableSchema)
    assert (table.column_of("output_image_data"), table.column_of("seed"), table.column_of("id")) == (
        "output_image",
        None,
        "id",
    )


def test_each_generation_reads_what_it_writes(tmp_path: Path) -> None:
    path = elixir_file(tmp_path)
    with closing(sqlite3.connect(path)) as db:
        (blob,) = db.execute("SELECT diagram_data FROM persistence_diagrams").fetchone()
    diagram = ELIXIR.codec().decode(blob).diagram
    for generation in generations():
        codec = generation.codec()
        assert codec.decode(codec.encode(diagram)).diagram.sha256 == diagram.sha256

"""The tables in the documents are those of the rows."""

import importlib
import shutil

import pytest
from conftest import ROOT

EXPERIMENTS = ROOT / ".ci" / "experiments"


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("tables")


@pytest.fixture
def copied(tables, tmp_path, monkeypatch):
    """tables.py for a copy of the documents and of the rows, in an empty folder."""
    for name in tables.DOCUMENTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for path in EXPERIMENTS.glob("*.csv"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "ROWS", tmp_path)
    return tables


def change(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, f"expected {old} in {path.name}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_committed_tables_are_those_of_the_rows(tables):
    tables.main(["--check"])


def test_every_table_stands_in_a_document(tables):
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in tables.DOCUMENTS]
    found = {name for text in texts for _, name, _ in tables.BLOCK.findall(text)}
    assert found == tables.TABLES.keys(), f"expected {tables.TABLES.keys()}, got {found}"


def test_a_row_that_changes_is_an_error_until_the_tables_are_written(copied, tmp_path):
    documents = [tmp_path / name for name in copied.DOCUMENTS]
    before = [path.read_bytes() for path in documents]
    real = copied.rows("results", data=copied.CELEBA, recipe="real")
    change(tmp_path / "results.csv", real[0]["ffd"], "77.7")
    with pytest.raises(SystemExit, match="results.md differs from the rows"):
        copied.main(["--check"])
    assert [path.read_bytes() for path in documents] == before, "expected nothing to be written"
    copied.main([])
    assert "77.7" in (tmp_path / "assets/docs/results.md").read_text(encoding="utf-8")
    copied.main(["--check"])


def test_a_table_that_is_edited_by_hand_is_an_error(copied, tmp_path):
    change(tmp_path / "assets/docs/results.md", "| noise |", "| mere noise |")
    with pytest.raises(SystemExit, match="results.md differs from the rows"):
        copied.main(["--check"])


def test_of_several_seeds_the_mean_and_the_range_are_shown(tables):
    found = [dict(ffd=value, recall="0.5") for value in ("3", "4", "8")]
    assert tables.spread(found, "ffd") == "5.0 (3.0 to 8.0)"
    assert tables.spread(found, "recall") == "50%"
    assert tables.spread(found[:1], "ffd") == "3.0"

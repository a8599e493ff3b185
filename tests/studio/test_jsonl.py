"""Reading files that are still being written."""

from pathlib import Path

from ownlm.studio.jsonl import JsonLines, read_json


def test_it_reads_on_from_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path)
    assert not lines.refresh()
    path.write_text('{"step": 1}\n{"step": 2}\n{"st', "utf-8")
    assert lines.refresh()
    assert [row["step"] for row in lines.rows] == [1, 2]
    assert not lines.refresh(), "half a line is nothing yet"
    with path.open("a") as file:
        file.write('ep": 3}\nno json\n[4]\n')
    assert lines.refresh()
    assert [row["step"] for row in lines.rows] == [1, 2, 3]


def test_a_file_that_became_shorter_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n', "utf-8")
    lines = JsonLines(path)
    lines.refresh()
    path.write_text('{"step": 1}\n', "utf-8")
    lines.refresh()
    assert [row["step"] for row in lines.rows] == [1]


def test_a_file_that_was_moved_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n', "utf-8")
    lines = JsonLines(path)
    lines.refresh()
    lines.path = path.rename(tmp_path / "b.jsonl")
    assert not lines.refresh()
    assert len(lines.rows) == 1


def test_what_is_no_json_is_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "missing.json") is None
    (tmp_path / "half.json").write_text('{"a": ', "utf-8")
    assert read_json(tmp_path / "half.json") is None

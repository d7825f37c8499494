"""Reading logs that grow and logs that are replaced."""

from pathlib import Path

from glm_operator.cli.follow import LogReader, follow


def test_one_log_is_printed_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\ntwo")
    lines: list[str] = []
    follow({"a": log}, forever=False, write=lines.append)
    assert lines == ["one", "two"]


def test_several_logs_name_their_pod(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"said by {name}\n")
    lines: list[str] = []
    follow({"a": tmp_path / "a", "b": tmp_path / "b"}, forever=False, write=lines.append)
    assert lines == ["a | said by a", "b | said by b"]


def test_a_log_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    assert LogReader(tmp_path / "none").new_lines(final=True) == []


def test_only_whole_lines_are_read_while_the_log_grows(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    reader = LogReader(log)
    log.write_text("one\ntw")
    assert reader.new_lines(final=False) == ["one"]
    with log.open("a") as file:
        file.write("o\n")
    assert reader.new_lines(final=False) == ["two"]
    assert reader.new_lines(final=False) == []


def test_a_log_that_was_replaced_is_read_from_its_beginning(tmp_path: Path) -> None:
    log, new = tmp_path / "a.log", tmp_path / "new"
    reader = LogReader(log)
    log.write_text("before\n")
    assert reader.new_lines(final=False) == ["before"]
    new.write_text("after, and longer than before\n")
    new.replace(log)
    assert reader.new_lines(final=False) == ["after, and longer than before"]

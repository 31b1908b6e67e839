from __future__ import annotations

import soak


def test_unknown_parts_are_a_usage_error(capsys):
    """A part that there is not is named, with those that there are."""
    assert soak.main(["oracle", "rain"]) == soak.USAGE
    told = capsys.readouterr().err
    assert "no such part: rain" in told
    assert all(name in told for name in soak.PARTS)


def test_a_part_that_fails_fails_the_whole(monkeypatch, capsys):
    """All parts run, whatever the first found; the last line says which failed."""
    ran = []

    def part(name, answer):
        return lambda: ran.append(name) or answer

    parts = {"one": part("one", False), "two": part("two", True)}
    monkeypatch.setattr(soak, "PARTS", parts)
    assert soak.main([]) == 1
    assert ran == ["one", "two"]
    assert capsys.readouterr().out.splitlines()[-1] == "soak: failed: one"

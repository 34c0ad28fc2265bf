"""Objects by their dotted path."""

import sys

import pytest

from zoopt.support.imports import import_from_here, imported


@pytest.mark.parametrize(
    ("path", "error", "told"),
    [
        ("nowhere.at.all:f", ModuleNotFoundError, r"no module 'nowhere' for 'nowhere\.at\.all:f'"),
        ("os.pth:join", ModuleNotFoundError, r"no module 'os\.pth' for .*: install it, or run"),
        ("os:getcw", ValueError, r"^module 'os' has no 'getcw'\. Did you mean 'getcwd'\?"),
        (
            "datetime:date.tody",
            ValueError,
            r"'date' in module 'datetime' has no 'tody'\. Did you mean 'today'\?",
        ),
        ("os:", ValueError, r"'os:' is not a path to an object: write package\.module:name"),
        (":getcwd", ValueError, "is not a path to an object"),
        (".os:getcwd", ValueError, "is not a path to an object"),
    ],
)
def test_a_path_to_nothing_says_which_part_is_missing(path, error, told):
    with pytest.raises(error, match=told):
        imported(path)


def test_a_module_that_lacks_another_is_not_taken_for_missing(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import more_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'more_of_it'") as caught:
        imported("needs_more:f")
    assert caught.traceback[-1].path.name == "needs_more.py"


def test_the_installed_command_finds_modules_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "lies_here.py").write_text("three = 3\n")
    (tmp_path / "json.py").write_text("loads = None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    monkeypatch.delitem(sys.modules, "json")
    import_from_here()
    assert imported("lies_here:three") == 3
    assert imported("json:loads") is not None

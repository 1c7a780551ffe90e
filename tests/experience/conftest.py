"""What the tests of commands share."""

import sys

import pytest

from cavis import cli


@pytest.fixture
def cavis(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cavis", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        captured = capsys.readouterr()
        return int(exit_info.value.code or 0), captured.out, captured.err

    return run

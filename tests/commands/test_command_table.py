"""Tables of modules as commands."""

import argparse
import sys
from types import SimpleNamespace

import pytest

from transformers_videorefer.commands.command_table import add_table


def test_each_module_becomes_a_command(capsys: pytest.CaptureFixture) -> None:
    calls = []
    module = SimpleNamespace(
        DESCRIPTION="Weighs apples:\n  fruit weigh 3",
        add_arguments=lambda parser: parser.add_argument("number", type=int),
        run=lambda arguments, stream: calls.append((arguments.number, stream)) or 7,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true")
    parser = argparse.ArgumentParser(prog="fruit")
    add_table(parser, {"weigh": (module, "weigh"), "count": (module, "count")}, dest="fruit_command", parents=[common])
    arguments = parser.parse_args(["weigh", "3", "--debug"])
    assert arguments.run(arguments) == 7
    assert calls == [(3, sys.stdout)]
    assert (arguments.fruit_command, arguments.debug) == ("weigh", True)
    with pytest.raises(SystemExit):
        parser.parse_args(["weigh", "--help"])
    assert "Weighs apples:\n  fruit weigh 3" in capsys.readouterr().out
    for wrong in ([], ["weigh", "3", "--deb"]):  # no command, and a shortened flag
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)

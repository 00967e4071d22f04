"""The ``mia-bench`` group: lazy commands, one-line errors, exit codes."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from typing import NoReturn

import click

from mia_bench.errors import MiaBenchError, did_you_mean
from mia_bench.plugins import describe_error, host

COMMANDS = {
    "run": "Run every defense × attack pair and print the results.",
    "list": "List defenses, attacks, tracks, data sets, priors or metrics.",
    "describe": "Explain a component or track: paper, options, defaults, bounds.",
    "plugins": "List, check and create plugins.",
    "doctor": "Check the installation, the devices, the data and the store.",
    "show": "Write a cell's picture: private examples beside reconstructions.",
    "results": "Print the records of a store.",
    "data": "List and check data sets, and prepare them ahead of a run.",
    "prior": "Train, list and show image priors.",
    "leaderboard": "Build, check and extend the leaderboards.",
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    _loaded_host: object = None
    """The host whose plugins have added their commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Built-in commands in the order people need them, then those of plugins."""
        self._load_plugin_commands()
        return [*COMMANDS, *sorted(name for name in self.commands if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(f"mia_bench.cli.{cmd_name}").command
            return command
        self._load_plugin_commands()
        return super().get_command(ctx, cmd_name)

    def _load_plugin_commands(self) -> None:
        loaded = host()
        if self._loaded_host is loaded:
            return
        self._loaded_host = loaded
        self.commands.clear()
        for plugin, error in loaded.call("mia_bench_register_commands", cli=self):
            click.echo(f"warning: plugin {plugin}: its commands raised {describe_error(error)}", err=True)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with a hint for a mistyped command."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(
                f"no command {args[0]!r}; {did_you_mean(args[0], self.list_commands(ctx))}"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, without importing them."""
        rows = [
            (name, COMMANDS.get(name) or self.commands[name].get_short_help_str())
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mia-bench", prog_name="mia-bench")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
def cli(debug: bool) -> None:
    """Compare defenses against model inversion attacks.

    A model inversion attack rebuilds from a trained classifier what a private class looks like, such as a
    person's face. Start with: mia-bench run --defense neg-ls --attack ppa
    """
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s: %(message)s")
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    log = logging.getLogger("mia_bench")
    log.handlers, log.propagate = [handler], False


def main(args: list[str] | None = None) -> None:
    """Run the command line; exit code 0 done, 1 something failed, 2 wrong usage."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        code = cli.main(args, prog_name="mia-bench", standalone_mode=False)
        if isinstance(code, int) and code:  # what ctx.exit() gives outside standalone mode
            sys.exit(code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()  # the help
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_one_line(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 1)
    except MiaBenchError as error:
        if logging.getLogger().level == logging.DEBUG:  # --debug
            raise
        _fail(str(error), error.exit_code)


def _one_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    if not isinstance(error, click.UsageError):
        return text
    return f"{text} (see {error.ctx.command_path if error.ctx else 'mia-bench'} --help)"


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)

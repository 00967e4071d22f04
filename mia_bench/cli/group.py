"""The ``mia-bench`` group: lazy commands, one line for what went wrong."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator

import click
from etils.epy import lazy_imports

from mia_bench.cli.answers import repeatable
from mia_bench.discovery import distribution_name, find_plugins
from mia_bench.errors import MiaBenchError, did_you_mean
from mia_bench.streams import of_output
from mia_bench.terminal import say, say_lines, warn
from mia_bench.text import one_line, shortened

with lazy_imports():
    from mia_bench import names, plugins
    from mia_bench.plugins import Host
    from mia_bench.registry import PluginInfo

HOST = "mia-bench"
"""The distribution of the host and the built-in plugins, which add no commands."""

LONGEST = 2000
"""Number of characters that are shown of an error."""

COMMANDS = {
    "run": "Run every defense × attack pair and print the results.",
    "sweep": "Run a defense over its strengths: what it costs, what leaks.",
    "experiment": "Run the experiments that test what papers claim.",
    "list": "List defenses, attacks, tracks, data sets, priors or metrics.",
    "describe": "Explain a component or track: paper, options, defaults, bounds.",
    "plugins": "List, check and create plugins.",
    "doctor": "Check the installation, the devices, the data and the store.",
    "measure": "Compute metrics of stored reconstructions, without attacking again.",
    "show": "Write a cell's picture: private examples beside reconstructions.",
    "export": "Write a cell's target as a file, with a model card.",
    "results": "Print the records of a store.",
    "explain": "Print what went into a cell's key, and why two keys differ.",
    "store": "Look after a store: list, clean up, verify, export, import.",
    "data": "List and check data sets, and prepare them ahead of a run.",
    "prior": "Train, list and show image priors.",
    "leaderboard": "Build, check and extend the leaderboards.",
}


class _Context(click.Context):
    def get_help(self) -> str:
        """The help, which is the same until something is installed."""
        repeatable()
        return super().get_help()


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    context_class = _Context

    _loaded_host: object = None
    """The host whose plugins have added their commands."""

    def invoke(self, ctx: click.Context) -> None:
        """As click does it; what a command returns is no exit code."""
        super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Built-in commands in the order people need them, then those of plugins."""
        self._load_plugin_commands()
        return [*COMMANDS, *sorted(name for name in self.commands if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(f"mia_bench.cli.{cmd_name}").command
            for one in (command, *getattr(command, "commands", {}).values()):
                one.context_class = _Context
            return command
        self._load_plugin_commands()
        return super().get_command(ctx, cmd_name)

    def _load_plugin_commands(self) -> None:
        if not _others():
            return
        loaded = plugins.host()
        if self._loaded_host is loaded:
            return
        self._loaded_host = loaded
        self.commands.clear()
        for info in loaded.plugins:
            lines = self._add_commands(loaded, info) if info.status == "ok" else ()
            warn(f"plugin {info.id}: {line}" for line in lines)

    def _add_commands(self, loaded: Host, info: PluginInfo) -> Iterator[str]:
        """Add the commands of a plugin; a line for each thing that is wrong with them."""
        theirs = click.Group("mia-bench")  # where a plugin can do no harm
        for _, error in loaded.call("mia_bench_register_commands", only=info, cli=theirs):
            yield f"its commands raised {plugins.describe_error(error)}"
        if not isinstance(theirs.commands, dict):
            yield f"its commands are {type(theirs.commands).__name__}, not a dictionary"
            return
        for name, command in theirs.commands.items():
            if not names.PLUGIN.matches(name):
                shown, rule = shortened(ascii(name), 80), names.PLUGIN.rule
                yield f"its command {shown} is left out: the name is not {rule}"
            elif not isinstance(command, click.Command):
                yield f"its command {name!r} is left out: a {type(command).__name__}, not a click.Command"
            elif name in COMMANDS:
                yield f"its command {name!r} is left out: mia-bench has one of that name"
            elif name in self.commands:
                yield f"its command {name!r} is left out: another plugin has one of that name"
            else:
                self.commands[name] = command

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
            (name, COMMANDS.get(name) or _short_help(self.commands[name])) for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _others() -> bool:
    """Whether there are plugins of others, which may add commands, or something is wrong with plugins."""
    found, unreadable = find_plugins()
    return bool(unreadable) or any(
        entry.dist is None or distribution_name(entry.dist) != HOST for entry in found
    )


def _short_help(command: click.Command) -> str:
    try:
        return one_line(str(command.get_short_help_str()))
    except Exception:  # a plugin's command may raise anything
        return ""


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mia-bench", prog_name="mia-bench")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Compare defenses against model inversion attacks.

    A model inversion attack rebuilds from a trained classifier what a private class looks like, such as a
    person's face. Start with: mia-bench run --defense neg-ls --attack ppa
    """
    if debug:
        logging.basicConfig(level=logging.DEBUG, handlers=[_Log("%(levelname)s: %(message)s")])
    else:
        log = logging.getLogger("mia_bench")
        log.handlers, log.propagate = [_Log("warning: %(message)s")], False
    if context.invoked_subcommand not in ("plugins", "doctor"):  # which list them
        loaded = plugins.host()
        warn((*loaded.problems(), *loaded.remarks))


class _Log(logging.Handler):
    """Prints messages as everything else is printed."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(style))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message on one line, and a traceback below it."""
        first, *below = self.format(record).split("\nTraceback ", 1)
        say(first, err=True)
        if below:
            say_lines(f"Traceback {below[0]}", err=True)


def run(args: list[str]) -> int:
    """Run the command line, print what went wrong, and return the exit code.

    Raises:
        OSError: standard output can't be written.
    """
    usual = sys.stdout
    try:
        code = cli.main(args, prog_name="mia-bench", standalone_mode=False)
        return code if isinstance(code, int) else 0  # what ctx.exit() gives outside standalone mode
    except SystemExit as end:
        if sys.stdout is not usual:  # click found the pipe closed
            sys.stdout = usual
            raise BrokenPipeError from end
        return _exit_code(end)
    except click.exceptions.NoArgsIsHelpError as error:
        say_lines(error.ctx.get_help() if error.ctx else error.format_message())
        return 0
    except click.ClickException as error:
        return _failed(_one_line(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _failed("interrupted", 1)
    except OSError as error:
        if of_output(error):
            raise
        return _failed(f"{error.filename}: {error.strerror}" if error.filename is not None else str(error), 1)
    except MiaBenchError as error:
        if _debugging():
            raise
        return _failed(str(error), error.exit_code)
    except Exception as error:
        if _debugging():
            raise
        plugin = plugins.plugin_behind(error)
        source = f"plugin {plugin}: " if plugin else ""
        return _failed(f"{source}{plugins.describe_error(error)} (mia-bench --debug … shows more)", 1)


def _exit_code(end: SystemExit) -> int:
    """The exit code that a command asked for, as Python has it; a message is printed."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    return _failed(str(end.code), 1)


def _debugging() -> bool:
    return logging.getLogger().level == logging.DEBUG


def _one_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    if not isinstance(error, click.UsageError):
        return text
    return f"{text} (see {error.ctx.command_path if error.ctx else 'mia-bench'} --help)"


def _failed(message: str, code: int) -> int:
    say(f"error: {shortened(one_line(message), LONGEST)}", err=True)
    return code

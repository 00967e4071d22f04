"""The documentation: it builds, it leaves nothing out, and what it shows runs."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

pytest.importorskip("sphinx")

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import generated  # noqa: E402

from mia_bench import Defense, Options, Quantity, TargetMetric  # noqa: E402
from mia_bench import record as record_module  # noqa: E402
from mia_bench.api.access import LEVELS  # noqa: E402
from mia_bench.engine.plan import STAGE_VERSIONS  # noqa: E402
from mia_bench.hookspecs import hookspec  # noqa: E402
from mia_bench.leaderboard import records  # noqa: E402
from mia_bench.plugins import host  # noqa: E402
from mia_bench.registry import PluginInfo, Registry  # noqa: E402

pytestmark = pytest.mark.slow

SMALLER = {"synth-faces": "toy", "--seeds 3": "--seeds 2"}
"""What the tests replace in examples and in the tutorial, so that they take seconds."""

SETS_UP = ("python3 -m venv", ". .venv/bin/activate", "pip install -e")
"""Lines of the tutorial that make the environment which runs the tests."""

SHARED = ("data", "prior", "evaluator", "gallery")


def smaller(text: str) -> str:
    for shown, taken in SMALLER.items():
        text = text.replace(shown, taken)
    return text


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def files(page: Path) -> dict[str, str]:
    """The blocks that a line with a file's name stands above."""
    pattern = r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$"
    return dict(re.findall(pattern, page.read_text("utf-8"), re.M | re.S))


# --- the site --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages by name, built with warnings as errors, as ``make docs`` does."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", DOCS]
    environment = {k: v for k, v in os.environ.items() if k != "MIA_BENCH_STRICT"}
    built = subprocess.run(
        [*command, "-d", out / "doctrees", ROOT, out / "html"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (built.returncode, built.stderr) == (0, "")
    html = out / "html"
    return {str(path.relative_to(html)): path.read_text("utf-8") for path in html.rglob("*.html")}


@pytest.fixture(scope="module")
def places(site) -> dict[str, str]:
    """What stands around each id of the pages."""
    return generated.places(site.values())


def test_everything_in_the_code_is_on_a_page(places) -> None:
    items = generated.inventory()
    assert len(items) > 300
    assert generated.missing(places, items) == []


def test_the_site_has_a_front_page_and_every_markdown_file(site) -> None:
    assert "docs/README.html" in site["index.html"]
    for page in (
        "README",
        "docs/tutorial",
        "docs/contract",
        "leaderboards/lfw",
        "docs/hooks/README",
    ):
        assert f"{page}.html" in site
    written = {str(path.relative_to(ROOT).with_suffix(".html")) for path in DOCS.rglob("*.md")}
    assert written <= site.keys()


def test_nothing_is_loaded_from_the_network(site) -> None:
    loaded = r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"'](?:https?:)?//"
    assert [name for name, text in site.items() if re.search(loaded, text)] == []


def test_links_between_the_files_lead_to_files() -> None:
    """As they are read without the site."""
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "plugins/examples").rglob("*.md")]
    broken = []
    for page in [path for path in pages if "_build" not in path.parts]:
        text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path = link.partition("#")[0]
            if path and "://" not in path and not (page.parent / path).exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_metrics_of_the_published_records_are_described() -> None:
    families = generated._families(host().registry)
    described = {metric for _, _, metrics, _ in families for metric in metrics}
    boards = ROOT / "leaderboards"
    published = {
        metric
        for track in records.track_names(boards)
        for record in records.load(boards, track)
        for metric in record.metrics
    }
    assert published
    assert published - described == set()


def test_explanations_name_what_they_explain() -> None:
    caching, threats = ((DOCS / name).read_text("utf-8") for name in ("caching.md", "threat-models.md"))
    assert [stage for stage in STAGE_VERSIONS if f"`{stage}`" not in caching] == []
    seen = ("labels", "probabilities", "logits", "answers", "activations", "model")
    assert [name for name in (*LEVELS, *seen) if f"`{name}" not in threats] == []


# --- the check can fail ----------------------------------------------------------------------


class _Silent(Defense):
    """One option with a description, one without."""

    summary = "a defense that no page knows"

    class Options(Options):
        strength: float = 1.0

    options: Options


class _Unsaid(TargetMetric):
    """A metric without a line of its own."""

    summary = "a metric that no page knows"
    quantities = {"unsaid": Quantity("")}  # noqa: RUF012

    def compute(self, evidence):
        raise NotImplementedError


def _module_with_a_hook() -> ModuleType:
    @hookspec
    def mia_bench_undocumented(cell: int) -> None:
        """A hook that no page knows."""

    module = ModuleType("hookspecs")
    module.mia_bench_undocumented = mia_bench_undocumented
    return module


def test_what_is_undocumented_is_found(places) -> None:
    registry = Registry()
    ours = PluginInfo("x", generated.DISTRIBUTION, "1", "x")
    registry.add("defense", "silent", _Silent, "", ours)
    registry.add("metric", "unsaid", _Unsaid, "", ours)

    @click.group()
    def root() -> None:
        """Compare defenses against model inversion attacks."""

    @root.command("unheard")
    @click.option("--of")
    def unheard(of: str) -> None:
        """A command that no page knows."""

    for command in (root, unheard):
        command.callback.__module__ = "mia_bench.cli.test"
    items = generated.inventory(registry, root, _module_with_a_hook())
    found = [line for line in generated.missing(places, items) if not line.startswith(("record", "track"))]
    assert found == [
        "hook-mia-bench-undocumented: no page shows it",
        "command-unheard: no page shows it",
        "command-option-unheard-of: the code does not say what it is",
        "defense-silent: no page shows it",
        "option-defense-silent-strength: the code does not say what it is",
        "metric-unsaid: no page shows it",
        "metric-unsaid-unsaid: the code does not say what it is",
    ]


def test_a_page_that_says_something_else_is_found(places) -> None:
    other = [generated.Item("option-defense-neg-ls-alpha", "another meaning")]
    (line,) = generated.missing(places, other)
    assert line.endswith("its page does not say what the code says")


def test_a_field_without_a_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    source = generated.inspect.getsource(record_module)
    texts = generated.field_texts(record_module.Cost)
    assert all(texts.values())
    without = source.replace('    """Time to train the target."""\n', "")
    monkeypatch.setattr(generated.inspect, "getsource", lambda module: without)
    assert generated.field_texts(record_module.Cost) == {**texts, "train_seconds": ""}


def test_generated_parts_that_stand_in_the_files_are_what_the_code_says() -> None:
    """``python docs/generated.py`` writes them anew."""
    pages = {page: page.read_text("utf-8") for page in DOCS.rglob("*.md")}
    assert sum(text.count(generated.END) for text in pages.values()) > len(HOOK_PAGES)
    assert [page for page, text in pages.items() if generated.renew(text) != text] == []


def test_a_generated_part_in_a_file_is_written_anew_and_others_are_not() -> None:
    mark, other = "<!-- generated: levels -->", "<!-- generated: cli -->"
    text = f"{other}\n\n{mark}\nold\n{generated.END}\n\nmine\n"
    new = generated.renew(text)
    assert new.startswith(f"{other}\n\n{mark}\n\n| level |")
    assert "old" not in new
    assert new.endswith(f"{generated.END}\n\nmine\n")
    filled = generated.fill(new)
    assert generated.END not in filled
    assert filled.count("| level |") == 1


def test_a_mark_that_nothing_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="'nonsense'"):
        generated.fill("# Page\n\n<!-- generated: nonsense -->\n")


# --- the examples of the hooks ---------------------------------------------------------------

HOOK_PAGES = sorted(path for path in (DOCS / "hooks").glob("*.md") if path.name != "README.md")


def _hook_of(page: Path) -> str:
    (name,) = re.findall(r"^<!-- generated: hook (\w+) -->$", page.read_text("utf-8"), re.M)
    return name


def test_every_hook_has_one_page() -> None:
    assert sorted(map(_hook_of, HOOK_PAGES)) == sorted(generated.hooks())


@pytest.fixture
def forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None) or ""
        if "/example-site/" in path:
            del sys.modules[name]


@pytest.mark.parametrize("page", HOOK_PAGES, ids=lambda page: page.stem)
def test_the_example_of_a_hook_runs(
    page: Path, sites, toy_site, store, cli, tmp_path, monkeypatch, forget_modules
) -> None:
    site = tmp_path / "example-site"
    site.mkdir()
    written = {smaller(name): smaller(text) for name, text in files(page).items()}
    for name, text in written.items():
        (site / name).write_text(text, "utf-8")
    module = next(iter(written)).removesuffix(".py")
    install_by_hand(site, module)
    store(*SHARED)
    sites(toy_site, site)
    monkeypatch.chdir(tmp_path)
    (plugin,) = [info for info in host().plugins if info.distribution == "example"]
    assert plugin.status == "ok", plugin.error
    assert f"def {_hook_of(page)}(" in written[f"{module}.py"]

    (shell,) = blocks(page, "sh")
    lines = smaller(shell).splitlines()
    assert any(line.startswith("mia-bench") for line in lines)
    for line in lines:
        words = shlex.split(line)
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("=", 1))
        elif words[0] == "cat":
            assert len((tmp_path / words[1]).read_text("utf-8").splitlines()) == 1
        else:
            assert words[0] == "mia-bench"
            done = cli(*words[1:])
            assert done.code == 0, done.err
            assert done.out.strip()
            assert "warning: plugin" not in done.err


def install_by_hand(site: Path, module: str) -> None:
    """What pip leaves of a distribution with one entry point."""
    folder = site / "example-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n", "utf-8")
    (folder / "entry_points.txt").write_text(f"[mia_bench]\n{module} = {module}\n", "utf-8")


# --- the tutorial ----------------------------------------------------------------------------

TUTORIAL = DOCS / "tutorial.md"


@pytest.fixture
def shell(tmp_path: Path, toy_site: Path, sites, cli, monkeypatch, forget_modules) -> Callable[[str], str]:
    """Run a line in an empty folder, ``mia-bench`` in this process; ``pip`` installs elsewhere."""
    installed = tmp_path / "example-site"
    installed.mkdir()
    for name in [name for name in os.environ if name.startswith("MIA_BENCH")]:
        monkeypatch.delenv(name)
    sites(installed, toy_site)
    monkeypatch.setenv("MIA_BENCH_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    options = ["-q", "--no-deps", "--no-build-isolation", "--target", str(installed)]

    def run(line: str) -> str:
        program, *words = shlex.split(line)
        if program == "mia-bench":
            done = cli(*words)
            lines = done.out.splitlines()
            # That the checkout which runs the tests is changed is for its author to know.
            if not (lines and all("made from a changed checkout" in line for line in lines)):
                assert done.code == 0, f"{line}\n{done.out}\n{done.err}"
            return done.out
        module = {"python": words, "pip": ["-m", "pip", *words, *options]}[program]
        done = subprocess.run([sys.executable, *module], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if program == "pip":
            importlib.invalidate_caches()
            host.cache_clear()
        return done.stdout

    return run


def test_the_tutorial(shell, undisturbed, tmp_path: Path) -> None:
    for folder in ("store", "tuning"):
        undisturbed.copy(tmp_path / folder, SHARED)
    ((module, source),) = files(TUTORIAL).items()
    ran = []
    for block in blocks(TUTORIAL, "sh"):
        for line in smaller(block).replace("\\\n", "").splitlines():
            if line.startswith(SETS_UP):
                continue
            if " KEY " in line:
                keys = shell("mia-bench results --format csv").splitlines()
                chosen = next(row for row in keys if ",my-defense," in row)
                (key,) = re.findall(r"\b[0-9a-f]{20}\b", chosen)
                line = line.replace("KEY", key[:8])
            ran.append(line)
            shell(line)
            if "plugins new" in line:
                assert (tmp_path / module).is_file()
                (tmp_path / module).write_text(source, "utf-8")
                shell("python -m ruff check --no-cache mia-bench-my-defense")
                shell("python -m ruff format --no-cache --check mia-bench-my-defense")
    assert len(ran) >= 13
    page = (tmp_path / "board" / "toy.md").read_text("utf-8")
    assert "\n- defense `my-defense`: `beta=0.1`\n" in page
    assert re.search(r"^\| `my-defense` \| 2 † \| \d", page, re.M)
    assert re.search(r"^\| `my-defense` \| [+-]\d", page, re.M)
    assert (tmp_path / "my-defense.png").read_bytes().startswith(b"\x89PNG")


def test_the_shown_files_are_found() -> None:
    assert list(files(TUTORIAL)) == ["mia-bench-my-defense/mia_bench_my_defense.py"]

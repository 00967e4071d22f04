"""The conformance kit: what is wrong is found by the check meant for it, what is right passes."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

import heavy_plugin
import wrong_plugins
from mia_bench.cli.plugins import command
from mia_bench.errors import UsageError
from mia_bench.registry import BASES
from mia_bench.testing import (
    Conformance,
    check_component,
    check_track,
    checks_of,
    shared,
)
from mia_bench.testing.checks import CHECKS
from mia_bench.testing.conformance import kind_of
from mia_bench.testing.world import world
from mia_bench_plugins.attacks.ppa import PlugAndPlay
from wrong_plugins import WRONG

pytestmark = pytest.mark.slow

UNTESTABLE = {"gpu"}
"""Checks that need a GPU to fail."""


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(("component", "check"), WRONG, ids=lambda x: getattr(x, "__name__", x))
def test_a_wrong_plugin_trips_the_check_meant_for_it_and_no_other(component: type, check: str) -> None:
    findings = check_component(component)
    assert {finding.check for finding in findings} == {check}, "\n".join(map(str, findings))
    assert all(f.problem and f.advice and "\n" not in str(f) for f in findings)


def test_heavy_imports_are_found() -> None:
    (finding,) = check_component(heavy_plugin.Heavy)
    assert finding.check == "light-import"
    assert "torch" in finding.problem


def test_every_check_has_a_plugin_that_trips_it() -> None:
    tripped = {(kind_of(component), check) for component, check in WRONG}
    common = {"summary", "paper", "options", "overrides", "light-import", *UNTESTABLE}
    for kind, base in BASES.items():
        missing = set(checks_of(base)) - common - {c for k, c in tripped if k == kind}
        assert not missing


@pytest.mark.parametrize(
    "component",
    [
        wrong_plugins.RightDefense,
        wrong_plugins.KeepsItsSteps,
        wrong_plugins.RightAttack,
        wrong_plugins.RightPrior,
        wrong_plugins.Stepping,
        wrong_plugins.RightMetric,
        wrong_plugins.RightDataset,
        wrong_plugins.RightModel,
        wrong_plugins.RightEncoder,
    ],
)
def test_what_is_right_passes(component: type) -> None:
    assert check_component(component) == []


def test_the_kit_leaves_global_state_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    check_component(wrong_plugins.NumpyNoise)
    check_component(wrong_plugins.ChangesThreads)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.is_grad_enabled()
    assert torch.manual_seed.__module__ == "torch.random"


def test_the_toy_target_learns_its_classes() -> None:
    from mia_bench.models.inference import predict_probabilities

    cpu, part = torch.device("cpu"), world().splits.test
    answers = predict_probabilities(world().target(cpu), part.images, device=cpu)
    assert (answers.argmax(1) == part.labels).float().mean() > 0.8


# --- how it is asked -----------------------------------------------------------------------------


def test_wrong_options_and_unknown_checks_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="no option"):
        check_component(PlugAndPlay, options={"sarch": 1})
    with pytest.raises(UsageError, match="no check"):
        Conformance(PlugAndPlay, skip={"speed": "slow"})
    with pytest.raises(UsageError, match="not a subclass"):
        checks_of(int)
    with pytest.raises(UsageError, match="has no hook mia_bench_cell_finished"):
        checks_of(pytest)


def test_a_check_that_is_left_out_says_why() -> None:
    conformance = Conformance(wrong_plugins.Raising, skip={"paper": "it has none"})
    findings, left_out = conformance.findings()
    assert {finding.check for finding in findings} == {"runs"}
    assert left_out["paper"] == "it has none"
    assert "it does not run: RuntimeError: no" in left_out["saved"]


def test_every_check_says_in_a_sentence_what_it_asks_for() -> None:
    assert all(re.fullmatch(r"[^\n]{15,140}\.", part.words) for part in CHECKS)
    assert {kind for part in CHECKS for kind in part.kinds} == {*BASES, "reporter"}


def test_importing_the_kit_and_the_pytest_plugin_imports_no_torch() -> None:
    code = (
        "import sys, mia_bench.testing, mia_bench.testing.pytest_plugin; "
        "assert not {'torch', 'scipy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- pytest --------------------------------------------------------------------------------------


def test_each_check_is_a_test_and_a_finding_is_its_failure(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        dedent("""
        from mia_bench import Defense

        class Mine(Defense):
            summary = "mine"

            def loss(self, step):
                return 2 * super().loss(step)
        """)
    )
    (tmp_path / "test_mine.py").write_text(
        dedent("""
        from mia_bench.testing import Conformance
        from mine import Mine

        test_conformance = Conformance(Mine)
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    for check in set(checks_of(BASES["defense"])) - {"paper", "gpu"}:
        assert f"test_mine.py::test_conformance[{check}] PASSED" in done.stdout
    assert "test_conformance[paper] FAILED" in done.stdout
    assert "paper: it names no paper. Set the class attribute paper" in done.stdout
    assert "Traceback" not in done.stdout


# --- the command ---------------------------------------------------------------------------------


def test_check_prints_what_is_fine_and_what_could_not_be_made(cli) -> None:
    outcome = cli("plugins", "check", "prior-sample")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == "attack prior-sample: fine"


def test_check_prints_findings_and_exits_1(cli, toy) -> None:
    outcome = cli("plugins", "check", "toy-noise")
    assert outcome.code == 1
    assert "defense toy-noise: 1 finding\n  paper: it names no paper." in outcome.out


def test_a_plugin_or_distribution_means_all_its_components(cli, toy) -> None:
    listed = cli("plugins", "check", "label-smoothing")
    assert re.findall(r"^defense (\S+): fine", listed.out, re.MULTILINE) == ["neg-ls", "pos-ls"]
    options = ("-o", "toy-hungry.fits=1000")
    assert cli("plugins", "check", "attack:toy-hungry", *options).out.count("finding") == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("nothing-such",), "nothing is called"),
        (("pluggy",), "has no entry point of the group mia_bench"),
        (("neg-ls", "--device", "gpu"), "no device"),
        (("neg-ls", "-o", "neg-ls.alpha=1"), "less than 0"),
        (("neg-ls", "-o", "neg-ls.alpha"), "not PLUGIN.KEY=VALUE"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(cli, given: tuple[str, ...], why: str) -> None:
    outcome = cli("plugins", "check", *given)
    assert outcome.code == 2
    assert why in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_broken_plugin_is_one_line(cli, broken) -> None:
    outcome = cli("plugins", "check", "raises-at-import")
    assert outcome.code == 2
    assert "is broken: ImportError" in outcome.err


def test_tracks(toy) -> None:
    assert check_track("synth-faces") == []
    assert check_track("toy") == []


def test_the_group_has_its_commands() -> None:
    assert set(command.commands) == {"new", "check"}


@pytest.mark.parametrize(
    ("component", "problem"),
    [
        (wrong_plugins.RightDefense, None),
        (wrong_plugins.RightAttack, None),
        (wrong_plugins.RightPrior, None),
        (wrong_plugins.RightMetric, None),
        (wrong_plugins.RightModel, None),
        (wrong_plugins.RightEncoder, None),
        (wrong_plugins.OnceOnly, "it raised RuntimeError: a second time (wrong_plugins.py:"),
    ],
)
def test_the_gpu_check_runs_it_again(
    monkeypatch: pytest.MonkeyPatch, component: type, problem: str | None
) -> None:
    """On a CPU that stands in for the GPU: there may be none here."""
    monkeypatch.setattr(shared, "gpu_device", lambda: torch.device("cpu"))
    found = [finding.problem for finding in Conformance(component).check("gpu")]
    assert len(found) == (problem is not None)
    assert all(line.startswith(problem) for line in found)

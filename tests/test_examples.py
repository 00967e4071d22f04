"""The distributions of ``plugins/examples``, really installed; their own tests lie beside them."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SHARED = ("data", "prior", "evaluator", "gallery")
EXAMPLES = Path(__file__).parent.parent / "plugins" / "examples"


@pytest.fixture
def examples(sites, toy_site: Path, examples_site: Path) -> None:
    """The examples beside the toy track."""
    sites(examples_site, toy_site)


def test_pip_installs_them_and_their_entry_points_are_found(spawn, examples) -> None:
    process = spawn("plugins")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    for name in ("midre", "mi-face", "tensorboard"):
        assert re.search(rf"{name} +mia-bench-{name} 0\.1\.0 +ok", out)


def test_listing_them_imports_no_torch(spawn, examples) -> None:
    process = spawn("list")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    for name in ("midre", "mi-face"):
        assert re.search(rf"^ +{name} .*mia-bench-{name}", out, re.MULTILINE)
    assert err.splitlines()[-1] == "imported:"


def test_a_run_with_all_three(spawn, examples, store, tmp_path: Path) -> None:
    store(*SHARED)
    process = spawn(
        "run", "--track", "toy", "--defense", "midre", "--attack", "mi-face", "--device", "cpu",
        "--format", "json", "-o", "midre.area=[0.1,0.2]", "-o", "mi-face.steps=3",
        MIA_BENCH_TENSORBOARD=str(tmp_path / "events"),
    )  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (record,) = json.loads(out)
    assert record["status"] == "done"
    assert record["defense"]["distribution"] == "mia-bench-midre"
    assert record["defense"]["options"]["area"] == [0.1, 0.2]
    assert record["attack"]["distribution"] == "mia-bench-mi-face"
    assert record["cost"]["target_queries"] == 6 * 2 * 3  # classes, images of each, steps
    (folder,) = (tmp_path / "events" / "toy").iterdir()
    assert folder.name == f"midre-mi-face-eigenfaces-seed0-{record['key']}"
    assert list(folder.glob("events.out.tfevents.*"))
    assert "warning: plugin" not in err


def test_the_host_imports_none_of_them() -> None:
    modules = [path.stem for path in EXAMPLES.glob("*/mia_bench_*.py")]
    assert len(modules) == 3
    root = EXAMPLES.parent.parent
    for source in [
        *root.glob("mia_bench/**/*.py"),
        *root.glob("plugins/mia_bench_plugins/**/*.py"),
    ]:
        text = source.read_text("utf-8")
        assert [module for module in modules if module in text] == []

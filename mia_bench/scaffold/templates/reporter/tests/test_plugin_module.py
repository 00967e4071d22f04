import json
from pathlib import Path

from mia_bench.testing import Conformance, finished_cell

import plugin_module as plugin

test_conformance = Conformance(plugin)


def test_a_cell_is_a_line(tmp_path: Path) -> None:
    cell = finished_cell(tmp_path)
    plugin.mia_bench_cell_finished(cell)
    (line,) = (cell.store.root / plugin.NAME).read_text("utf-8").splitlines()
    assert json.loads(line)["cell"] == cell.key

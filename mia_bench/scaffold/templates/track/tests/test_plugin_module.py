from mia_bench.testing import check_track


def test_track() -> None:
    assert [str(finding) for finding in check_track("plugin_name")] == []

"""Published weight files: local ones win, downloads resume, and only the right file appears."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mia_bench import fetch
from mia_bench.api.component import Published
from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.fetch import obtain
from mia_bench.plugins import host
from mia_bench.registry import PluginInfo
from mia_bench_plugins.priors.stylegan2 import StyleGAN2Prior

CONTENT = bytes(range(256)) * 20_000  # 5 MB
HASH = hashlib.sha256(CONTENT).hexdigest()


class Site:
    """A web site on this machine; says what it was asked and can break off."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.breaks_off_after: int | None = None
        self.knows_ranges = True
        self.content = CONTENT
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                site.asked.append(wanted)
                if self.path != "/weights.pt":
                    self.send_error(404)
                    return
                start = 0
                if wanted and site.knows_ranges:
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(site.content):
                        self.send_error(416)
                        return
                body = site.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: site.breaks_off_after])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setattr(fetch, "weights_cache", lambda: tmp_path / "cache")
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def file(site: Site, sha256: str = HASH[:8], name: str = "weights.pt") -> Published:
    return Published(name, f"{site.url}/{name}", sha256)


def quiet(done: int, total: int, unit: str) -> None:
    pass


def test_a_download_appears_under_its_name(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    path = obtain(file(site), tmp_path / "w", lambda *what: seen.append(what))
    assert path == tmp_path / "w" / "weights.pt"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.glob("[!.]*")] == ["weights.pt"]
    assert seen[-1] == (4, 4, "MiB")
    assert obtain(file(site), tmp_path / "w", quiet) == path
    assert site.asked == [None]  # once


def test_of_two_that_download_at_once_one_waits(site: Site, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: obtain(file(site), tmp_path / "w", quiet), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert site.asked == [None]


def test_without_a_folder_it_goes_to_the_cache(site: Site, tmp_path: Path) -> None:
    assert obtain(file(site), None, quiet) == tmp_path / "cache" / "weights.pt"
    # What is in the cache is taken where a folder lacks it.
    assert obtain(file(site), tmp_path / "w", quiet) == tmp_path / "cache" / "weights.pt"


def test_a_local_file_wins(site: Site, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"mine")
    assert obtain(file(site, sha256=""), tmp_path, quiet).read_bytes() == b"mine"
    assert site.asked == []


def test_a_local_file_of_another_hash_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"mine")
    with pytest.raises(MiaBenchError, match=rf"weights\.pt is not the file .*not {HASH[:8]}"):
        obtain(file(site), tmp_path, quiet)
    assert (tmp_path / "weights.pt").read_bytes() == b"mine"  # not ours to delete


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_download_that_broke_off_goes_on(site: Site, tmp_path: Path, knows_ranges: bool) -> None:
    site.breaks_off_after, site.knows_ranges = 3_000_000, knows_ranges
    with pytest.raises(Unavailable, match=r"after 3000000 of 5120000 bytes.*give the command again"):
        obtain(file(site), tmp_path, quiet)
    assert not (tmp_path / "weights.pt").exists()
    site.breaks_off_after = None
    assert obtain(file(site), tmp_path, quiet).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=3000000-"]


def test_a_complete_part_is_fetched_anew_where_its_file_changed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "weights.pt.part").write_bytes(b"x" * len(CONTENT))
    assert obtain(file(site), tmp_path, quiet).read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(CONTENT)}-", None]


def test_what_was_sent_is_checked(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT[:-1] + b"?"
    with pytest.raises(MiaBenchError, match="is not the file published"):
        obtain(file(site), tmp_path, quiet)
    assert list(tmp_path.glob("weights*")) == []


def test_a_missing_page_and_a_machine_without_network_say_what_to_do(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"gone\.pt can't be downloaded .*put the file"):
        obtain(file(site, name="gone.pt"), tmp_path, quiet)
    closed = Published("weights.pt", "http://127.0.0.1:9/weights.pt")
    with pytest.raises(Unavailable, match=r"weights\.pt can't be downloaded"):
        obtain(closed, tmp_path, quiet)


def test_fetch_by_command(site: Site, cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(StyleGAN2Prior, "published", (file(site),))
    monkeypatch.setenv("MIA_BENCH_WEIGHTS", str(tmp_path))
    result = cli("prior", "fetch", "weights.pt")
    assert (result.code, result.out.strip()) == (0, str(tmp_path / "weights.pt"))
    wrong = cli("prior", "fetch", "weight.pt")
    assert wrong.code == 2
    assert "did you mean 'weights.pt'?" in wrong.err
    monkeypatch.setattr(StyleGAN2Prior, "published", (Published("a", "http://127.0.0.1:9/a"),))
    offline = cli("prior", "fetch", "a")
    assert offline.code == 1
    assert "put the file into" in offline.err.splitlines()[-1]


def test_a_prior_that_can_not_be_loaded_hides_no_other(site: Site, cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(StyleGAN2Prior, "published", (file(site),))
    monkeypatch.setenv("MIA_BENCH_WEIGHTS", str(tmp_path))
    host.cache_clear()
    host().registry.add("prior", "other", "no.such:Thing", "", PluginInfo("made", "made-dist", "1", "made"))
    fetched = cli("prior", "fetch", "weights.pt")
    host.cache_clear()
    assert (fetched.code, fetched.out.strip()) == (0, str(tmp_path / "weights.pt")), fetched.err


def test_a_folder_that_can_not_be_written_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "w").write_text("a file")
    with pytest.raises(MiaBenchError, match="can't be written"):
        obtain(file(site), tmp_path / "w", quiet)

"""Fetching TU sets: mirrors, sites that fail, archives that lie, and a cache that is whole or absent."""

from __future__ import annotations

import io
import os
import resource
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets import tu
from readouts.commands.tu import download, fetch, unzip
from readouts.commands.tu.errors import DataError
from tests.tu_files import Site, archive_of, publish, serving, write_set


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("READOUTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("READOUTS_TU_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "SITE", "http://127.0.0.1:9")
    monkeypatch.setattr(download, "FIRST_PAUSE", 0)
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive alone in its folder."""
    (tmp_path / "zips").mkdir()
    return archive_of(write_set(tmp_path / "made")).rename(tmp_path / "zips" / "TINY.zip")


@pytest.fixture
def site(archive: Path) -> Iterator[Site]:
    with serving({"/TINY.zip": archive.read_bytes()}) as site:
        yield site


def nodes(mirror: str | Path | None = None) -> int:
    return sum(graph.num_nodes for graph in tu.load("TINY", mirror=mirror))


def left_in(cache: Path) -> list[str]:
    """What lies in the cache, but for locks; sources are left out of the names."""
    return sorted(path.name.split("@")[0] for path in cache.iterdir() if path.suffix != ".lock")


def mirror_of(tmp_path: Path, content: bytes) -> Path:
    mirror = tmp_path / "mirror"
    mirror.mkdir(exist_ok=True)
    (mirror / "TINY.zip").write_bytes(content)
    return mirror


def zip_of(members: dict[str | zipfile.ZipInfo, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in members.items():
            bundle.writestr(name, text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def started(*lines: str) -> subprocess.Popen[str]:
    """Run these lines in another process, where `readouts` is a mere folder: importing torch is slow."""
    bare_package = (
        "import os, sys, types",
        "sys.modules['readouts'] = types.ModuleType('readouts')",
        f"sys.modules['readouts'].__path__ = [{str(Path(fetch.__file__).parents[2])!r}]",
        "from readouts.commands.tu import fetch, unzip",
    )
    program = "\n".join([*bare_package, *lines])
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


class TestSources:
    def test_a_folder_of_archives(self, archive: Path, cache: Path) -> None:
        assert nodes(archive.parent) == 6

    def test_a_folder_of_unpacked_sets_is_read_in_place(self, tmp_path: Path, cache: Path) -> None:
        write_set(tmp_path / "mirror")
        assert nodes(tmp_path / "mirror") == 6
        assert not cache.exists()

    def test_the_layout_of_pyg(self, tmp_path: Path) -> None:
        write_set(tmp_path / "elsewhere").rename(tmp_path / "raw")
        (tmp_path / "mirror" / "TINY").mkdir(parents=True)
        (tmp_path / "raw").rename(tmp_path / "mirror" / "TINY" / "raw")
        assert nodes(tmp_path / "mirror") == 6

    def test_an_archive_with_folders_around_its_folder(self, tmp_path: Path) -> None:
        folder = write_set(tmp_path / "made")
        members = {f"data/sets/TINY/raw/{path.name}": path.read_text() for path in folder.iterdir()}
        assert nodes(mirror_of(tmp_path, zip_of({**members, "data/old/v1/TINY/raw/TINY_A.txt": ""}))) == 6

    def test_an_archive_without_a_folder_in_it(self, tmp_path: Path) -> None:
        texts = write_set(tmp_path / "made")
        content = zip_of({path.name: path.read_text() for path in texts.iterdir()})
        assert nodes(mirror_of(tmp_path, content)) == 6

    def test_a_url_is_asked_once(self, site: Site, cache: Path) -> None:
        assert nodes(site.address + "/") == nodes(site.address) == 6
        assert site.asked == [("/TINY.zip", None)]
        assert left_in(cache) == ["TINY"]

    def test_a_file_url(self, archive: Path) -> None:
        assert nodes(archive.parent.as_uri()) == 6

    def test_the_environment_names_the_mirror(self, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("READOUTS_TU_MIRROR", str(archive.parent))
        assert nodes() == 6

    def test_without_a_mirror_the_tu_site(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetch, "SITE", site.address)
        assert nodes() == 6
        assert site.asked == [("/TINY.zip", None)]

    def test_a_known_set_in_the_cache_needs_no_source(
        self, tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path / "made" / "TINY", monkeypatch)
        mirror = mirror_of(tmp_path, archive.read_bytes())
        assert nodes(mirror) == 6
        (mirror / "TINY.zip").unlink()
        assert nodes(mirror) == nodes("http://127.0.0.1:9") == nodes() == 6

    def test_an_unknown_set_is_not_mistaken_for_its_namesake(self, tmp_path: Path, archive: Path) -> None:
        eight = archive_of(
            write_set(tmp_path, A="1, 3\n", edge_labels=None, node_labels=None, graph_indicator="1\n2\n" * 4)
        )
        elsewhere = mirror_of(tmp_path, archive.read_bytes())
        assert nodes(elsewhere) == nodes(archive.parent) == 6
        eight.replace(archive)
        assert (nodes(elsewhere), nodes(archive.parent)) == (6, 8)

    def test_two_places_are_two_sets(self, tmp_path: Path, site: Site, archive: Path, cache: Path) -> None:
        twin = mirror_of(tmp_path, archive.read_bytes())
        for path in (archive, twin / "TINY.zip"):
            os.utime(path, (1, 1))
        assert nodes(archive.parent) == nodes(twin) == nodes(site.address) == 6
        assert left_in(cache) == ["TINY"] * 3

    @pytest.mark.parametrize(
        ("settings", "place"),
        [
            ({"READOUTS_CACHE": "{}/mine"}, "mine"),
            ({"READOUTS_CACHE": "", "XDG_CACHE_HOME": "{}/xdg"}, "xdg/readouts/tu"),
            ({"READOUTS_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "{}"}, ".cache/readouts/tu"),
        ],
    )
    def test_where_the_cache_is(
        self,
        tmp_path: Path,
        archive: Path,
        monkeypatch: pytest.MonkeyPatch,
        settings: dict[str, str],
        place: str,
    ) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(name, value.format(tmp_path))
        nodes(archive.parent)
        assert left_in(tmp_path / place) == ["TINY"]

    def test_the_argument_names_the_cache(self, tmp_path: Path, archive: Path, cache: Path) -> None:
        tu.load("TINY", mirror=archive.parent, cache=tmp_path / "here")
        assert left_in(tmp_path / "here") == ["TINY"]
        assert not cache.exists()


class TestWhatIsNotThere:
    def test_a_folder_says_what_it_holds(self, tmp_path: Path, archive: Path) -> None:
        write_set(archive.parent, "OTHER")
        with pytest.raises(DataError, match=r"no data set 'TINNY' .* holds OTHER, TINY; did you mean TINY\?"):
            tu.load("TINNY", mirror=archive.parent)

    def test_a_site_has_names_that_are_close(self, site: Site) -> None:
        with pytest.raises(DataError, match=r"no data set 'mutga' at .*; did you mean MUTAG"):
            tu.load("mutga", mirror=site.address)
        assert len(site.asked) == 1

    def test_a_mirror_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="neither a folder nor"):
            nodes(tmp_path / "nowhere")

    @pytest.mark.parametrize("name", ["../TINY", "/etc", "", "a.b", "TINY\n"])
    def test_a_name_is_no_path(self, archive: Path, name: str) -> None:
        with pytest.raises(DataError, match="is not the name of a data set"):
            tu.load(name, mirror=archive.parent)

    def test_an_archive_of_something_else(self, tmp_path: Path, cache: Path) -> None:
        with pytest.raises(DataError, match=r"holds no file TINY_A\.txt"):
            nodes(mirror_of(tmp_path, zip_of({"TINY/readme.txt": "hello"})))
        assert left_in(cache) == []


class TestDownloads:
    @pytest.mark.parametrize("tag", ['"1"', 'W/"1"', None])
    def test_what_breaks_off_is_resumed(self, site: Site, tag: str | None) -> None:
        site.tag, site.cuts = tag, [300, 200]
        assert nodes(site.address) == 6
        assert [wanted for _, wanted in site.asked] == [None, "bytes=300-", "bytes=500-"]
        assert site.sent == [200, 206, 206]

    def test_what_breaks_off_for_good_is_resumed_by_the_next_load(self, site: Site, cache: Path) -> None:
        site.cuts = [300, 0, 0, 0]
        with pytest.raises(
            DataError, match=r"ended after 300 of \d+ bytes\); try again later, or .*--mirror"
        ):
            nodes(site.address)
        assert left_in(cache) == ["TINY", "TINY"]  # .part and .part.json
        assert nodes(site.address) == 6
        assert site.asked[-1] == ("/TINY.zip", "bytes=300-")
        assert left_in(cache) == ["TINY"]

    def test_a_server_without_ranges_starts_again(self, site: Site) -> None:
        site.ranges, site.cuts = False, [300]
        assert nodes(site.address) == 6
        assert [wanted for _, wanted in site.asked] == [None, "bytes=300-"]

    def test_a_beginning_of_an_older_version_is_not_completed(self, site: Site) -> None:
        self.begin_another(site, b"\0" * len(site.files["/TINY.zip"]), tag='"0"')
        assert nodes(site.address) == 6
        assert site.sent == [200]

    def test_nor_where_only_its_length_tells(self, site: Site) -> None:
        self.begin_another(site, b"\0" * (len(site.files["/TINY.zip"]) + 100), tag=None)
        assert nodes(site.address) == 6
        assert [wanted for _, wanted in site.asked] == ["bytes=400-", None]

    @pytest.mark.parametrize("tag", ['W/"0"', None])
    def test_where_nothing_tells_the_damage_does(self, site: Site, tag: str | None) -> None:
        self.begin_another(site, b"\0" * len(site.files["/TINY.zip"]), tag=tag)
        assert nodes(site.address) == 6
        assert site.sent == [206, 200]

    @staticmethod
    def begin_another(site: Site, content: bytes, tag: str | None) -> None:
        """Have the first 400 bytes of this content lie in the cache, then put the site's own back."""
        own = site.files["/TINY.zip"], site.tag
        site.files["/TINY.zip"], site.tag, site.cuts = content, tag, [400, 0, 0, 0]
        with pytest.raises(DataError, match="ended after 400"):
            nodes(site.address)
        site.files["/TINY.zip"], site.tag, site.sent = *own, []
        site.asked.clear()

    def test_a_beginning_is_completed_by_its_own_site(
        self, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path / "made" / "TINY", monkeypatch)
        with serving(site.files) as other:
            other.cuts = [400, 0, 0, 0]
            with pytest.raises(DataError, match="ended after 400"):
                nodes(other.address)
        assert nodes(site.address) == 6
        assert site.asked == [("/TINY.zip", None)]

    def test_a_beginning_longer_than_the_file_is_dropped(self, site: Site) -> None:
        whole = site.files["/TINY.zip"]
        site.tag, site.files["/TINY.zip"], site.cuts = None, whole * 3, [2 * len(whole), 0, 0, 0]
        with pytest.raises(DataError, match="ended after"):
            nodes(site.address)
        site.files["/TINY.zip"] = whole
        assert nodes(site.address) == 6

    def test_a_length_that_promises_too_much(self, site: Site, cache: Path) -> None:
        site.claims = len(site.files["/TINY.zip"]) + 50
        with pytest.raises(DataError, match=r"\.zip \("):
            nodes(site.address)
        assert len(site.asked) == download.ATTEMPTS
        assert not list(cache.glob("*/TINY_A.txt"))

    def test_a_length_that_promises_too_little(self, site: Site, cache: Path) -> None:
        site.claims = len(site.files["/TINY.zip"]) - 50
        with pytest.raises(DataError, match=r"/TINY\.zip is refused: it is damaged or not a zip archive"):
            nodes(site.address)
        assert left_in(cache) == []

    def test_a_web_page_in_place_of_an_archive(self, site: Site) -> None:
        site.files["/TINY.zip"] = b"<html>please log in</html>"
        with pytest.raises(DataError, match="not a zip archive"):
            nodes(site.address)

    def test_passing_failures_are_waited_out(self, site: Site) -> None:
        site.answers = [503, 429, 500]
        assert nodes(site.address) == 6
        assert len(site.asked) == 4

    def test_a_lasting_failure_ends_it(self, site: Site) -> None:
        site.answers = [503] * 9
        with pytest.raises(DataError, match="503 Service Unavailable"):
            nodes(site.address)
        assert len(site.asked) == download.ATTEMPTS

    @pytest.mark.parametrize("claims", [None, 10**12], ids=["sent", "announced"])
    def test_more_bytes_than_any_set_end_it(
        self, site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch, claims: int | None
    ) -> None:
        monkeypatch.setattr(download, "MOST_BYTES", 500)
        site.claims = claims
        with pytest.raises(DataError, match="more than any data set"):
            nodes(site.address)
        assert len(site.asked) == 1
        assert sum(path.stat().st_size for path in cache.rglob("*.part")) <= 500

    def test_too_much_time_ends_it_and_the_next_attempt_continues(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(download, "LONGEST", 0.0)
            patch.setattr(download, "CHUNK", 300)
            with pytest.raises(DataError, match="is too slow: 300 bytes after 0 minutes"):
                nodes(site.address)
        assert nodes(site.address) == 6
        assert site.asked == [("/TINY.zip", None), ("/TINY.zip", "bytes=300-")]

    def test_a_refusal_is_not_repeated(self, site: Site) -> None:
        site.answers = [403]
        with pytest.raises(DataError, match="is refused: 403 Forbidden"):
            nodes(site.address)
        assert len(site.asked) == 1

    def test_nobody_answers(self, archive: Path) -> None:
        with serving({}) as gone:
            pass
        with pytest.raises(DataError, match=r"cannot download .*refused.*--mirror"):
            nodes(gone.address)

    def test_an_address_that_is_none(self) -> None:
        with pytest.raises(DataError, match="is not an address that can be fetched"):
            nodes("http://127.0.0.1:port")


class TestArchives:
    @pytest.mark.parametrize("keep", [0, 10, 300])
    def test_a_truncated_archive(self, tmp_path: Path, archive: Path, cache: Path, keep: int) -> None:
        with pytest.raises(DataError, match="is refused: it is damaged or not a zip archive"):
            nodes(mirror_of(tmp_path, archive.read_bytes()[:keep]))
        assert left_in(cache) == []

    def test_a_flipped_bit(self, tmp_path: Path, archive: Path, cache: Path) -> None:
        content = bytearray(archive.read_bytes())
        content[60] ^= 1
        with pytest.raises(DataError, match=r"it is damaged at 'TINY/TINY_A\.txt'"):
            nodes(mirror_of(tmp_path, bytes(content)))
        assert left_in(cache) == []

    @pytest.mark.parametrize(
        "name", ["../escaped.txt", "TINY/../../escaped.txt", "/escaped.txt", "..\\escaped.txt"]
    )
    def test_a_member_that_escapes(self, tmp_path: Path, cache: Path, name: str) -> None:
        with pytest.raises(DataError, match="outside its folder"):
            nodes(mirror_of(tmp_path, zip_of({"TINY/TINY_A.txt": "1, 2\n", name: "out"})))
        assert not list(tmp_path.rglob("*escaped.txt"))
        assert left_in(cache) == []

    def test_a_drive_letter(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="outside its folder"):
            nodes(mirror_of(tmp_path, zip_of({"C:/escaped.txt": "out"})))

    def test_a_symbolic_link(self, tmp_path: Path, cache: Path) -> None:
        link = zipfile.ZipInfo("TINY/TINY_A.txt")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with pytest.raises(DataError, match="is a link or a device"):
            nodes(mirror_of(tmp_path, zip_of({link: "/etc/passwd"})))
        assert left_in(cache) == []

    @pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
    def test_a_member_that_comes_twice(self, tmp_path: Path) -> None:
        twice = zip_of(
            {zipfile.ZipInfo("TINY/TINY_A.txt"): "1, 2\n", zipfile.ZipInfo("TINY/TINY_A.txt"): "2, 1\n"}
        )
        with pytest.raises(DataError, match="comes twice"):
            nodes(mirror_of(tmp_path, twice))

    def test_a_bomb(self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unzip, "ALWAYS_ALLOWED", 1 << 16)
        bomb = zip_of({f"TINY/{part}.txt": "0" * (1 << 20) for part in range(3)})
        assert unzip.MOST_EXPANSION * len(bomb) < 3 << 20
        with pytest.raises(DataError, match="more bytes than its size explains"):
            nodes(mirror_of(tmp_path, bomb))
        assert left_in(cache) == []

    def test_a_member_many_folders_deep(self, tmp_path: Path, cache: Path) -> None:
        deep = zip_of({"TINY/TINY_A.txt": "1, 2\n", "a/" * 1500 + "TINY_A.txt": "1, 2\n"})
        with pytest.raises(DataError, match="lies 1500 folders deep"):
            nodes(mirror_of(tmp_path, deep))
        assert left_in(cache) == []

    def test_a_bomb_of_plain_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unzip, "MOST_BYTES", 1000)
        with pytest.raises(DataError, match="more bytes than its size explains"):
            nodes(mirror_of(tmp_path, zip_of({"TINY/a": "0" * 600, "TINY/b": "0" * 600})))

    def test_a_bomb_of_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unzip, "MOST_MEMBERS", 20)
        with pytest.raises(DataError, match="it holds 21 files"):
            nodes(mirror_of(tmp_path, zip_of({f"TINY/{number}": "" for number in range(21)})))


class TestWholeOrAbsent:
    def test_an_interrupted_unpack_leaves_nothing(
        self, archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(archive: Path, folder: Path) -> None:
            (folder / "TINY").mkdir()
            (folder / "TINY" / "TINY_A.txt").write_text("1, 2\n")
            raise KeyboardInterrupt

        monkeypatch.setattr(fetch, "unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            nodes(archive.parent)
        assert left_in(cache) == []
        monkeypatch.undo()
        assert tu.load("TINY", mirror=archive.parent, cache=cache).classes == 2

    def test_what_a_killed_process_left_is_swept_away(self, archive: Path, cache: Path) -> None:
        killed = started(
            "unzip._chunks = lambda *_: os._exit(9)", f"fetch.raw_folder('TINY', {str(archive.parent)!r})"
        )
        killed.communicate()
        assert killed.returncode == 9
        (leftover,) = cache.glob("TINY@*.tmp")
        assert (leftover / "TINY" / "TINY_A.txt").exists()
        assert nodes(archive.parent) == 6
        assert left_in(cache) == ["TINY"]

    @pytest.mark.parametrize("from_url", [False, True])
    def test_a_full_disk(self, tmp_path: Path, cache: Path, from_url: bool) -> None:
        big = zip_of({"TINY/TINY_A.txt": os.urandom(1 << 15).hex()})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        mirror = mirror_of(tmp_path, big)
        with serving({"/TINY.zip": big}) as site:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, limits[1]))
            try:
                with pytest.raises(
                    DataError, match=r"cannot keep TINY.*too large.*make room there.*READOUTS_CACHE"
                ):
                    nodes(site.address if from_url else mirror)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not [path for path in cache.iterdir() if path.is_dir()]

    def test_a_cache_that_cannot_be(self, archive: Path, cache: Path) -> None:
        cache.write_text("a file where the folder should be")
        with pytest.raises(DataError, match="cannot keep TINY"):
            nodes(archive.parent)

    def test_threads_share_one_download(self, site: Site, cache: Path) -> None:
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(nodes(site.address))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [6] * 4
        assert len(site.asked) == 1
        assert left_in(cache) == ["TINY"]

    def test_processes_share_one_download(self, site: Site, cache: Path) -> None:
        both = [started(f"print(fetch.raw_folder('TINY', {site.address!r}))") for _ in range(2)]
        places = {process.communicate()[0].strip() for process in both}
        assert len(places) == 1
        assert (Path(places.pop()) / "TINY_A.txt").is_file()
        assert len(site.asked) == 1

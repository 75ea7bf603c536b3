"""Updates over the running hub: what reaches a recorder, what is refused, and that no bad pair ever runs (P9)."""

from __future__ import annotations

import errno
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from edge import update_install
from edge.bundle import Bundle
from edge.bundle_pair import pair_target, parse_pair
from edge.downlink import Downlink, DownlinkQuery, encode_downlink
from edge.errors import BundleError, CodeSpaceError, FieldcubeError, HubError
from edge.update_check import self_test
from edge.update_downlink import take_downlinks
from edge.update_state import Trial
from edge.watchlist import read_watchlist
from hub.api_updates import router
from hub.app import create_app
from hub.archive_sqlite import SqliteArchive
from hub.ingest import Ingest
from hub.publisher import Publisher
from hub.serving import running
from hub.settings import Settings
from hub.store_registry import Registry
from tests.hub.conftest import NOW_NS
from tests.hub.published import (
    TINY,
    FieldRecorder,
    no_encoder,
    now,
    other_space,
    publish,
    watchlist_for,
    wrong_codes,
)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "updates", now)


@pytest.fixture
def url(tmp_path: Path, publisher: Publisher) -> Iterator[str]:
    """Serve what is published as it lies, by a server that checks nothing."""
    (tmp_path / "site" / "v1").mkdir(parents=True)
    (tmp_path / "site" / "v1" / "updates").symlink_to(publisher.folder)

    class Quiet(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionResetError):  # whoever has seen enough hangs up
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site"))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def hub_url(
    tmp_path: Path, publisher: Publisher, registry: Registry, archive: SqliteArchive, ingest: Ingest
) -> Iterator[str]:
    settings = Settings(tmp_path, port=0)
    app = create_app(registry, archive, None, settings, ingest, lambda: NOW_NS, "t" * 20, [router])
    with running(app, settings) as found:
        yield found


@pytest.fixture
def field(tmp_path: Path, url: str, publisher: Publisher) -> FieldRecorder:
    return FieldRecorder(tmp_path / "recorder", url, publisher.root)


@pytest.fixture
def second(tmp_path: Path) -> Bundle:
    return other_space(tmp_path / "second")


def keys(publisher: Publisher) -> list[Path]:
    return sorted((publisher.folder / "keys").iterdir())


def test_keys_are_made_once_and_are_the_hubs_alone(publisher: Publisher) -> None:
    assert [path.stem for path in keys(publisher)] == ["downlink", "root", "snapshot", "targets", "timestamp"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys(publisher)} == {0o600}
    before = [path.read_bytes() for path in keys(publisher)]
    again = Publisher(publisher.folder, now)
    assert [path.read_bytes() for path in keys(again)] == before
    assert again.root == publisher.root
    keys(publisher)[1].chmod(0o640)
    with pytest.raises(HubError, match="chmod 600"):
        Publisher(publisher.folder, now)


def test_what_is_published_again_keeps_its_number(publisher: Publisher, second: Bundle) -> None:
    tiny = Bundle.load(TINY)
    first = publish(publisher, tiny, "owl")
    assert publish(publisher, tiny, "owl") == first
    assert publish(publisher, tiny, "frog", watchlist="pond") > first
    assert publish(publisher, second, "owl") > first
    assert [(each.watchlist, each.bundle) for each in publisher.pairs()] == [
        ("default", "tiny 2"),
        ("pond", "tiny 1"),
    ]
    with pytest.raises(CodeSpaceError, match="pond"):
        publisher.publish(second, watchlist_for(tiny, "owl"), "pond", 1)


def test_the_hub_serves_what_is_published_and_never_its_keys(
    hub_url: str, publisher: Publisher, second: Bundle, tmp_path: Path
) -> None:
    number = publish(publisher, second, "owl")
    field = FieldRecorder(tmp_path / "recorder", hub_url, publisher.root)
    assert field.visit() == f"pair {number} is on trial"
    with httpx.Client(base_url=hub_url, trust_env=False) as client:
        assert client.get("/v1/updates/metadata/timestamp.json").status_code == 200
        for path in (
            "metadata/..%2fkeys%2froot.pem",
            "targets/..%2fkeys%2froot.pem",
            "targets/keys/root.pem",
            "lock",
        ):
            answer = client.get(f"/v1/updates/{path}")
            assert answer.status_code == 404
            assert b"PRIVATE" not in answer.content


def test_a_pair_is_fetched_tested_tried_and_confirmed(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    assert field.visit() == "nothing is published"
    number = publish(publisher, second, "owl")
    field.test = self_test
    assert field.visit() == f"pair {number} is on trial"
    assert field.runs() == ("2", "owl")
    assert field.restarts == ["2"]
    assert field.installed.report() == {
        "watchlist": "default",
        "watchlist_version": 1,
        "bundle": "tiny 2",
        "pair": number,
        "on_trial": True,
    }
    assert field.visit() == "on trial"
    field.record(12, second.manifest.code_space)
    field.now_ns += 3601 * 10**9
    assert field.visit() == "confirmed"
    assert field.visit() == "up to date"
    assert field.installed.report()["on_trial"] is False


def test_only_what_changed_is_fetched(field: FieldRecorder, publisher: Publisher) -> None:
    publish(publisher, Bundle.load(TINY), "owl")
    fetched: list[str] = []
    client_files = field.folder / "tuf" / "files"
    field.test = lambda pair: fetched.extend(path.name for path in client_files.iterdir()) or []
    field.visit()
    # the description, the manifest and the list; every encoder is there already
    assert len(fetched) == 3
    assert field.runs() == ("1", "owl")


@pytest.mark.parametrize("make", [wrong_codes, no_encoder])
def test_a_bundle_that_fails_its_self_test_never_runs(
    field: FieldRecorder, publisher: Publisher, tmp_path: Path, make: Callable[[Path], Bundle]
) -> None:
    number = publish(publisher, make(tmp_path / "bad"), "owl")
    field.test = self_test
    with pytest.raises(BundleError, match="(?s)self-test, found (golden|encoder).*tries it again"):
        field.visit()
    field.test = lambda pair: ["golden audio: still wrong"]
    with pytest.raises(BundleError):
        field.visit()
    with pytest.raises(BundleError, match="refused from now on"):
        field.visit()
    assert field.visit() == "refused before"
    assert field.runs() == ("1", "first")
    assert field.restarts == []
    assert number in field.installed.state.refused


def test_a_self_test_that_hangs_or_dies_fails(tmp_path: Path) -> None:
    hanging, dying = tmp_path / "hanging", tmp_path / "dying"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    for script in (hanging, dying):
        script.chmod(0o755)
    assert "within 0.2 s" in self_test(tmp_path, timeout_s=0.2, python=str(hanging))[0]
    assert "exit -9" in self_test(tmp_path, python=str(dying))[0]
    assert "to start" in self_test(tmp_path, python=str(tmp_path / "missing"))[0]


def test_a_pair_without_codes_is_tried_three_times_and_never_runs_again(
    field: FieldRecorder, publisher: Publisher, second: Bundle, tmp_path: Path
) -> None:
    bad = publish(publisher, second, "owl")
    for n_trials in range(1, 4):
        assert field.visit() == f"pair {bad} is on trial"
        field.record(9, second.manifest.code_space)  # one less than it must make
        field.record(50, "tiny-of-another-space")
        field.now_ns += 3601 * 10**9
        assert field.visit() == "on trial"  # looked at once at least: the clock may have been set ahead
        assert field.visit() == "rolled back"
        assert field.restarts == ["2", "1"] * n_trials
        assert field.runs() == ("1", "first")
        field.record(10, Bundle.load(TINY).manifest.code_space)
    assert field.visit() == "refused before"
    assert bad in field.installed.state.refused
    third = publish(publisher, other_space(tmp_path / "third", "3"), "owl")
    assert field.visit() == f"pair {third} is on trial"


def later(field: FieldRecorder) -> list[str]:
    """Return what two visits say after the time of a trial: the first of them looks, the second decides."""
    field.visit()
    field.now_ns += 3601 * 10**9
    return [field.visit(), field.visit()]


def test_codes_of_what_ran_before_confirm_nothing(field: FieldRecorder, publisher: Publisher) -> None:
    tiny = Bundle.load(TINY)  # the new pair has the code space of the old one
    field.start()
    publish(publisher, tiny, "owl")
    field.runs_anew = False
    field.visit()
    for n_restarts in (4, 7):  # asked for with every visit
        field.record(20, tiny.manifest.code_space)
        assert later(field) == ["on trial", "on trial"]
        assert len(field.restarts) == n_restarts
    field.start()  # by hand
    field.record(9, tiny.manifest.code_space)
    assert field.visit() == "on trial"
    field.record(1, tiny.manifest.code_space)
    assert later(field)[0] == "confirmed"
    assert len(field.restarts) == 7


def test_a_visit_that_was_killed_before_the_restart_is_made_up_for(
    field: FieldRecorder, publisher: Publisher, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(publisher, second, "owl")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def killed(_: FieldRecorder) -> bool:
            raise KeyboardInterrupt

        patched.setattr(FieldRecorder, "_restart", killed)
        field.visit()
    assert field.restarts == []
    assert field.visit() == "on trial"
    assert field.restarts == ["2"]
    field.record(10, second.manifest.code_space)
    assert later(field)[0] == "confirmed"
    assert field.restarts == ["2"]


def test_a_good_pair_is_taken_after_a_time_without_a_microphone(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    number = publish(publisher, second, "owl")
    field.visit()
    assert later(field)[0] == "rolled back"
    waits = f"pair {number} is tried again when codes are made without it"
    assert later(field) == [waits, waits]  # however long it takes
    assert field.restarts == ["2", "1"]
    field.record(10, Bundle.load(TINY).manifest.code_space)
    assert field.visit() == f"pair {number} is on trial"
    field.record(10, second.manifest.code_space)
    assert later(field)[0] == "confirmed"


def test_a_pair_with_which_nothing_begins_is_rolled_back(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    publish(publisher, second, "owl")
    field.runs_anew = False  # what ran ends, and what is to run never begins
    field.visit()
    assert later(field)[0] == "rolled back"
    assert field.runs() == ("1", "first")


def test_queries_by_radio_stay_with_the_next_pair_and_the_one_before(
    field: FieldRecorder, publisher: Publisher
) -> None:
    tiny = Bundle.load(TINY)
    space, key = tiny.manifest.code_space, publisher.hub_key
    for at_s, name in enumerate(("saw", "elk"), 1000):
        said = encode_downlink(key, "owl-1", space, Downlink(at_s, (DownlinkQuery(name, bytes(32)),)))
        assert take_downlinks(field.installed, "owl-1", key.public, [said])[0] == 1
        if name == "saw":
            publish(publisher, tiny, "owl")
        field.visit()
        path = field.installed.current / "watchlist.json"
        assert read_watchlist(path).queries[-1].name == name  # also in what the new pair begins with
    assert [each.name for each in read_watchlist(path).queries] == ["owl", "saw", "elk"]
    field.now_ns += 3601 * 10**9
    assert field.visit() == "rolled back"
    assert [each.name for each in read_watchlist(path).queries] == ["first", "saw", "elk"]


def test_who_never_begins_anew_is_not_asked_for_ever(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    publish(publisher, second, "owl")
    field.runs_anew = False
    assert [field.visit() for _ in range(20)][1:] == ["on trial"] * 19
    assert len(field.restarts) == 1 + update_install.MAX_REQUESTS


def test_a_monitor_that_does_not_start_is_given_its_pair_back(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    publish(publisher, second, "owl")
    field.starts = False
    assert field.visit() == "rolled back"
    assert field.restarts == ["2", "1"]
    assert field.runs() == ("1", "first")


def test_a_clock_that_is_set_back_does_not_end_the_trial(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    publish(publisher, second, "owl")
    field.visit()
    field.now_ns -= 10**6 * 10**9
    assert field.visit() == "on trial"
    trial = field.installed.state.trial
    assert trial is not None
    assert trial.since_ns == field.now_ns


# --- attacks: whoever serves the files has no keys, but may send whatever was signed at any time, and anything else


def refused(field: FieldRecorder, before: tuple[str, str] = ("1", "first")) -> str:
    with pytest.raises(FieldcubeError) as error:
        field.visit()
    assert field.runs() == before
    assert field.restarts in ([], [before[0]])
    return str(error.value)


def served_files(publisher: Publisher, pattern: str = "targets/files/*") -> list[Path]:
    found = sorted(publisher.folder.glob(pattern))
    assert found
    return found


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda content: content[:-7], lambda content: b"", lambda content: content + b"more"],
    ids=["tampered", "truncated", "empty", "longer"],
)
@pytest.mark.parametrize("part", ["targets/files/*", "targets/pairs/*", "metadata/*"])
def test_changed_bytes_are_refused(
    field: FieldRecorder,
    publisher: Publisher,
    second: Bundle,
    part: str,
    damage: Callable[[bytes], bytes],
) -> None:
    publish(publisher, second, "owl")
    if part == "metadata/*":  # the newest of each, not the root that the recorder has
        paths = served_files(publisher, "metadata/2.*") + served_files(publisher, "metadata/timestamp.json")
    else:
        paths = served_files(publisher, part)
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
    assert refused(field)


def test_an_endless_answer_is_cut(field: FieldRecorder, publisher: Publisher) -> None:
    (publisher.metadata_folder / "timestamp.json").write_bytes(b" " * 10**6)
    assert "exceeding the maximum" in refused(field)


def test_what_another_hub_signed_is_refused(
    field: FieldRecorder, publisher: Publisher, second: Bundle, tmp_path: Path
) -> None:
    other = Publisher(tmp_path / "other", now)
    publish(other, second, "owl")
    publish(publisher, Bundle.load(TINY), "old")
    for folder in ("metadata", "targets"):
        shutil.rmtree(publisher.folder / folder)
        shutil.copytree(other.folder / folder, publisher.folder / folder)
    assert "signed" in refused(field)


def test_an_older_state_of_the_hub_is_refused(
    field: FieldRecorder, publisher: Publisher, second: Bundle, tmp_path: Path
) -> None:
    publish(publisher, Bundle.load(TINY), "old")
    shutil.copytree(publisher.metadata_folder, tmp_path / "older")
    publish(publisher, second, "owl")
    field.visit()
    shutil.rmtree(publisher.metadata_folder)
    shutil.copytree(tmp_path / "older", publisher.metadata_folder)
    field.record(12, second.manifest.code_space)
    field.now_ns += 3601 * 10**9
    field.visit()
    assert field.visit() == "confirmed"
    assert "timestamp" in refused(field, ("2", "owl"))


def test_an_older_pair_is_not_installed_where_the_memory_of_metadata_is_lost(
    field: FieldRecorder, publisher: Publisher, second: Bundle, tmp_path: Path
) -> None:
    publish(publisher, Bundle.load(TINY), "old")
    shutil.copytree(publisher.metadata_folder, tmp_path / "older")
    publish(publisher, second, "owl")
    field.visit()
    field.record(12, second.manifest.code_space)
    field.now_ns += 3601 * 10**9
    field.visit()
    assert field.visit() == "confirmed"
    shutil.rmtree(publisher.metadata_folder)
    shutil.copytree(tmp_path / "older", publisher.metadata_folder)
    shutil.rmtree(field.folder / "tuf")
    assert field.visit() == "up to date"
    assert field.runs() == ("2", "owl")


@pytest.mark.parametrize("role", ["targets", "snapshot"])
def test_metadata_of_two_states_is_not_mixed(
    field: FieldRecorder, publisher: Publisher, second: Bundle, role: str
) -> None:
    publish(publisher, Bundle.load(TINY), "old")
    publish(publisher, second, "owl")
    folder = publisher.metadata_folder
    shutil.copyfile(folder / f"2.{role}.json", folder / f"3.{role}.json")
    assert role in refused(field)


def test_a_watchlist_of_one_pair_is_not_taken_with_the_bundle_of_another(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    publish(publisher, Bundle.load(TINY), "old")
    publish(publisher, second, "owl")
    lists = {each: each for each in served_files(publisher) if b'"queries": [' in each.read_bytes()}
    old, new = sorted(lists, key=lambda path: b"a owl" in path.read_bytes())
    shutil.copyfile(old, new)
    assert refused(field)


def test_a_pair_that_names_a_list_of_another_code_space_is_refused(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    publish(publisher, Bundle.load(TINY), "old", watchlist="other")
    publish(publisher, second, "owl")
    mixed = {each.watchlist: each for each in publisher.pairs()}
    wrong = replace(mixed["default"], compiled=mixed["other"].compiled)  # as a hub with a fault would sign it
    paths = {each.name.split(".")[0]: each for each in served_files(publisher)}
    with pytest.raises(CodeSpaceError):
        field.installed.stage(wrong, lambda described: paths[described.sha256])
    field.installed.recover()
    assert field.runs() == ("1", "first")


def test_a_file_that_the_manifest_does_not_name_is_refused(
    field: FieldRecorder, publisher: Publisher, second: Bundle
) -> None:
    publish(publisher, second, "owl")
    (pair,) = publisher.pairs()
    paths = {each.name.split(".")[0]: each for each in served_files(publisher)}
    wrong = replace(pair, files={**pair.files, "audio.onnx": pair.files["text.onnx"]})
    with pytest.raises(BundleError, match=r"audio\.onnx"):
        field.installed.stage(wrong, lambda described: paths[described.sha256])


@pytest.mark.parametrize("age", [timedelta(days=8), timedelta(days=4000)])
def test_a_hub_that_is_frozen_in_time_is_refused(
    tmp_path: Path, url: str, publisher: Publisher, second: Bundle, age: timedelta
) -> None:
    shutil.rmtree(publisher.folder)
    frozen = Publisher(publisher.folder, lambda: now() - age)
    publish(frozen, second, "owl")
    field = FieldRecorder(tmp_path / "recorder", url, frozen.root)
    assert "valid" in refused(field)
    if age < timedelta(days=365):  # a hub that is back signs again, and all is well
        assert Publisher(publisher.folder, now).renew()
        assert field.visit().endswith("on trial")


def test_what_is_half_used_up_is_signed_again(tmp_path: Path, second: Bundle) -> None:
    clock = [now() - timedelta(days=20)]

    def at() -> datetime:
        return clock[0]

    publisher = Publisher(tmp_path / "hub", at)
    publish(publisher, second, "owl")
    assert not publisher.renew()
    for days, expected in ((4, {"timestamp.json"}), (16, {"3.snapshot.json", "timestamp.json"})):
        before = {
            path.name: path.stat().st_mtime_ns for path in served_files(publisher, "metadata/*") if path
        }
        clock[0] += timedelta(days=days)
        assert publisher.renew()
        after = {path.name: path.stat().st_mtime_ns for path in served_files(publisher, "metadata/*")}
        assert {name for name in after if after[name] != before.get(name)} == expected
    (pair,) = publisher.pairs()
    assert pair.bundle == "tiny 2"


def test_a_repository_that_was_changed_is_not_signed_over(publisher: Publisher, second: Bundle) -> None:
    publish(publisher, Bundle.load(TINY), "old")
    path = publisher.metadata_folder / "2.targets.json"
    path.write_bytes(path.read_bytes().replace(b'"version":2', b'"version":9'))
    with pytest.raises(HubError, match="signed"):
        publish(publisher, second, "owl")


# --- power cuts


def test_a_power_cut_at_any_moment_leaves_a_whole_pair(
    field: FieldRecorder, publisher: Publisher, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(publisher, second, "owl")
    (pair,) = publisher.pairs()
    paths = {each.name.split(".")[0]: each for each in served_files(publisher)}
    seen = set()
    start = field.folder / "start"
    shutil.copytree(field.folder / "updates", start, symlinks=True)
    for n_steps in range(100):
        shutil.rmtree(field.folder / "updates")
        shutil.copytree(start, field.folder / "updates", symlinks=True)
        left = [n_steps]

        def cut(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt  # nothing catches it, as nothing catches a power cut

        with monkeypatch.context() as patched:
            for module, name in (
                (update_install, "write_file"),
                (update_install, "sync_folder"),
                (update_install.os, "replace"),
                (update_install.shutil, "rmtree"),
                (update_install.shutil, "copyfile"),
            ):
                real = getattr(module, name)

                def step(*args: object, _real: Callable[..., object] = real, **more: object) -> object:
                    cut()
                    return _real(*args, **more)

                patched.setattr(module, name, step)
            try:
                staged = field.installed.stage(pair, lambda described: paths[described.sha256])
                field.installed.switch(staged, pair, Trial(field.now_ns, 0, 0), None)
                is_done = True
            except KeyboardInterrupt:
                is_done = False
        assert field.runs() in (("1", "first"), ("2", "owl"))  # what edge-monitor would find at once
        state = field.installed.recover()
        assert field.runs() == (("2", "owl") if state.active else ("1", "first"))
        assert (state.trial is None) == (state.active == 0)
        hidden = list((field.folder / "updates" / "pairs").glob(".*"))
        assert hidden == []
        seen.add((state.active != 0, is_done))
        if is_done:
            break
    assert n_steps > 20
    assert seen == {(False, False), (True, False), (True, True)}


def test_the_description_of_a_pair_is_read_as_it_was_written(publisher: Publisher, second: Bundle) -> None:
    publish(publisher, second, "owl")
    (path,) = served_files(publisher, "targets/pairs/*")
    content = path.read_bytes()
    assert [parse_pair(content, "pair")] == publisher.pairs()
    for wrong in (
        content.replace(b'"number": 2', b'"number": 0'),
        content.replace(b'"watchlist": "default"', b'"watchlist": "../keys"'),
        content.replace(b'"audio.onnx"', b'"../audio.onnx"'),
        content.replace(b'"manifest.json"', b'"other.json"'),
        content.replace(b'"format_version": 1', b'"format_version": 2'),
        content[:-40],
        b"[" * 10_000,
    ):
        assert wrong != content
        with pytest.raises(BundleError):
            parse_pair(wrong, "pair")
    with pytest.raises(BundleError):
        pair_target("../default")


def test_a_full_disk_leaves_what_runs(
    field: FieldRecorder, publisher: Publisher, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(publisher, second, "owl")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(update_install.shutil, "copyfile", full)
        assert "room" in refused(field)
    assert field.visit().endswith("on trial")

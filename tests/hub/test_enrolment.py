from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from edge.errors import HubError, WireError
from hub.enrolment import enrol, new_code
from hub.ingest import Ingest
from hub.refusal import TooLargeError, UnauthorizedError, UnknownError
from hub.store_registry import Registry
from hub.store_registry_devices import MAX_PENDING
from tests.hub.conftest import NOW_NS
from tests.simulate.recorder import Recorder

DAY_NS = 86_400 * 10**9


def test_a_code_lets_one_recorder_in_once(registry: Registry) -> None:
    code = new_code(registry, None, NOW_NS)
    assert enrol(registry, Recorder("owl-1").enrolment(code), NOW_NS).status == "enrolled"
    assert enrol(registry, Recorder("owl-2", seed=2).enrolment(code), NOW_NS).status == "pending"
    assert enrol(registry, Recorder("owl-1").enrolment(code), NOW_NS).status == "enrolled"  # a lost answer
    assert [device.status for device in registry.devices.all()] == ["enrolled", "pending"]


@pytest.mark.parametrize("code", ["aaaa-bbbb-cccc-dddd", "", "not a code"])
def test_a_guessed_code_enters_nobody(registry: Registry, code: str) -> None:
    new_code(registry, None, NOW_NS)
    with suppress(WireError):
        enrol(registry, Recorder("owl-1").enrolment(code), NOW_NS)
    assert [device.status for device in registry.devices.all()] in ([], ["pending"])


def test_a_code_expires_and_keeps_to_its_name(registry: Registry) -> None:
    old, named = new_code(registry, None, NOW_NS, 86_400), new_code(registry, "fox-1", NOW_NS)
    assert enrol(registry, Recorder("owl-1").enrolment(old), NOW_NS + DAY_NS).status == "pending"
    assert enrol(registry, Recorder("owl-1").enrolment(named), NOW_NS).status == "pending"
    assert enrol(registry, Recorder("fox-1").enrolment(named), NOW_NS).status == "enrolled"


def test_a_hub_that_forgot_an_enrolment_can_approve_the_recorder(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code, recorder = new_code(registry, "owl-1", NOW_NS), Recorder("owl-1")
    enrol(registry, recorder.enrolment(code), NOW_NS)
    with Registry.open(tmp_path / "restored.sqlite") as restored:  # from before the code was made
        for _ in range(2):
            assert enrol(restored, recorder.enrolment(code), NOW_NS).status == "pending"
        assert [
            record.getMessage()
            for record in caplog.records
            if "owl-1 waits for approval" in record.getMessage()
        ]
        assert len(caplog.records) == 1
        restored.devices.set_status("owl-1", "enrolled")
        assert enrol(restored, recorder.enrolment(code), NOW_NS).status == "enrolled"


def test_the_registry_does_not_keep_codes_themselves(registry: Registry) -> None:
    code = new_code(registry, None, NOW_NS)
    registry.close()
    content = b"".join(path.read_bytes() for path in registry.database.path.parent.iterdir())
    assert code.replace("-", "").encode() not in content


def test_another_key_does_not_take_a_name(registry: Registry) -> None:
    enrol(registry, Recorder("owl-1").enrolment(), NOW_NS)
    thief = Recorder("owl-1", seed=9)
    with pytest.raises(UnauthorizedError, match="another key"):
        enrol(registry, thief.enrolment(), NOW_NS)
    registry.devices.set_status("owl-1", "enrolled")
    for code in (None, new_code(registry, None, NOW_NS)):
        with pytest.raises(UnauthorizedError):
            enrol(registry, thief.enrolment(code), NOW_NS)
    assert registry.devices.named("owl-1").public == Recorder("owl-1").key.public


def test_a_refused_attempt_uses_up_no_code(registry: Registry) -> None:
    enrol(registry, Recorder("owl-1").enrolment(new_code(registry, None, NOW_NS)), NOW_NS)
    code = new_code(registry, None, NOW_NS)
    with pytest.raises(UnauthorizedError):
        enrol(registry, Recorder("owl-1", seed=9).enrolment(code), NOW_NS)
    assert enrol(registry, Recorder("owl-2", seed=9).enrolment(code), NOW_NS).status == "enrolled"


def test_a_code_made_for_a_name_gives_it_to_a_new_card(registry: Registry) -> None:
    enrol(registry, Recorder("owl-1").enrolment(new_code(registry, None, NOW_NS)), NOW_NS)
    number = registry.devices.named("owl-1").number
    new = Recorder("owl-1", seed=9)
    device = enrol(registry, new.enrolment(new_code(registry, "owl-1", NOW_NS)), NOW_NS)
    assert (device.number, device.public, device.status) == (number, new.key.public, "enrolled")


def test_a_revoked_recorder_comes_back_only_by_a_person(registry: Registry) -> None:
    recorder = Recorder("owl-1")
    enrol(registry, recorder.enrolment(new_code(registry, None, NOW_NS)), NOW_NS)
    registry.devices.set_status("owl-1", "revoked")
    for code in (None, new_code(registry, None, NOW_NS)):
        with pytest.raises(UnauthorizedError):
            enrol(registry, recorder.enrolment(code), NOW_NS)
    named = new_code(registry, "owl-1", NOW_NS)
    assert enrol(registry, recorder.enrolment(named), NOW_NS).status == "enrolled"


def test_a_request_must_be_signed_by_the_key_it_brings(registry: Registry) -> None:
    recorder, other = Recorder("owl-1"), Recorder("owl-1", seed=3)
    with pytest.raises(UnauthorizedError):
        enrol(registry, recorder.enrolment(public=other.key.public), NOW_NS)
    with pytest.raises(WireError, match="fox-1"):
        enrol(registry, recorder.enrolment(device="fox-1"), NOW_NS)
    with pytest.raises(WireError, match="32 bytes"):
        enrol(registry, recorder.enrolment(public=b"short"), NOW_NS)
    for name in ("x" * 201, "a\nb"):
        with pytest.raises(WireError, match="printable"):
            enrol(registry, Recorder(name).enrolment(), NOW_NS)
    assert registry.devices.all() == []


def test_a_request_that_is_too_long_is_refused_unread(registry: Registry) -> None:
    with pytest.raises(TooLargeError):
        enrol(registry, Recorder("owl-1").enrolment("x" * 8000), NOW_NS)
    with pytest.raises(WireError, match="in one another"):
        enrol(registry, Recorder("owl-1").enrolment(later=[]), NOW_NS)


def test_where_too_many_wait_for_approval_the_oldest_goes(registry: Registry) -> None:
    key = Recorder("owl-1").key.public
    with registry.database.writing() as connection:
        connection.executemany(
            "INSERT INTO device (name, title, status, public, added_ns) VALUES (?, '', ?, ?, ?)",
            [
                ("old", "enrolled", key, 0),
                ("older", "revoked", key, 0),
                *((f"waiting-{i}", "pending", key, 1000 - i) for i in range(MAX_PENDING)),
            ],
        )
    assert enrol(registry, Recorder("owl-1").enrolment(), NOW_NS).status == "pending"
    names = {device.name for device in registry.devices.all()}
    assert len(names) == MAX_PENDING + 2
    assert {"owl-1", "old", "older", "waiting-0"} <= names
    assert f"waiting-{MAX_PENDING - 1}" not in names
    code = new_code(registry, None, NOW_NS)
    assert enrol(registry, Recorder("owl-2").enrolment(code), NOW_NS).status == "enrolled"
    assert {device.name for device in registry.devices.all()} == names | {"owl-2"}


def test_only_what_sent_nothing_can_be_forgotten(registry: Registry, ingest: Ingest, owl: Recorder) -> None:
    enrol(registry, Recorder("fox-1").enrolment(), NOW_NS)
    registry.devices.forget("fox-1")
    ingest.take(owl.envelope(owl.batch(health={"at_ns": 5})))
    with pytest.raises(HubError, match="revoke it first"):
        registry.devices.forget("owl-1")
    registry.devices.set_status("owl-1", "revoked")
    registry.devices.forget("owl-1")
    assert registry.devices.all() == []
    with pytest.raises(UnknownError):
        registry.devices.forget("owl-1")
    enrol(registry, owl.enrolment(new_code(registry, None, NOW_NS)), NOW_NS)
    ingest.take(owl.sent(0, 3))
    registry.devices.set_status("owl-1", "revoked")
    with pytest.raises(HubError, match="what it sent stays"):
        registry.devices.forget("owl-1")
    assert registry.devices.named("owl-1").number == 3  # never another one's

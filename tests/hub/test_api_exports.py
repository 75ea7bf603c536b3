from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pyarrow.parquet as pq
import pytest
from frictionless import Package, system

from edge.bundle import Bundle
from tests.hub.page_hub import PageHub, page_hub

DATA = Path(__file__).parents[1] / "data"
PROFILE = DATA / "camtrap-dp-1.0.2"
NAMES = {"taxon": ["owl=Strix aluco"]}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageHub]:
    bundle = Bundle.load(DATA / "tiny_bundle")
    with page_hub(tmp_path_factory.mktemp("hub"), bundle, n_days=5) as running:
        client = httpx.Client(base_url=running.url + "/api", trust_env=False)
        found = client.get("/detections", params={"query": "owl"}).json()["detections"]
        for each, answer in zip(found, ("right", "wrong", "unsure"), strict=False):
            body = {"uid": each["uid"], "query": "owl", "answer": answer, "note": "=1+1"}
            assert client.post("/verdicts", json=body).status_code == 200
        client.close()
        yield running


@pytest.fixture
def ask(fleet: PageHub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fleet.url + "/api/exports", trust_env=False, timeout=60) as client:
        yield client


def total(fleet: PageHub, **asked: str) -> int:
    return int(httpx.get(fleet.url + "/api/detections", params=asked, trust_env=False).json()["total"])


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_every_detection_once_in_the_order_of_time(fleet: PageHub, ask: httpx.Client) -> None:
    rows = table(ask.get("/csv").text)
    assert len(rows) == total(fleet) > 1000
    assert len({(row["observation"], row["query"]) for row in rows}) == len(rows)
    assert [row["started_at"] for row in rows] == sorted(row["started_at"] for row in rows)
    owls = table(ask.get("/csv", params={"query": "owl", "device": "spring"}).text)
    assert {(row["query"], row["recorder"]) for row in owls} == {("owl", "spring")}
    said = table(ask.get("/csv", params={"verdict": "wrong"}).text)
    assert [(row["verdict"], row["note"]) for row in said] == [("wrong", "'=1+1")]  # shown, not run


def test_parquet_has_the_rows_of_csv_with_types(fleet: PageHub, ask: httpx.Client) -> None:
    rows = table(ask.get("/csv").text)
    found = pq.read_table(io.BytesIO(ask.get("/parquet").content))
    assert found.num_rows == len(rows)
    assert str(found.schema.field("started_at").type) == "timestamp[ns, tz=UTC]"
    for name in ("observation", "query", "recorder"):
        assert found.column(name).to_pylist() == [row[name] for row in rows]
    assert found.column("probability").to_pylist() == [float(row["probability"]) for row in rows]
    assert found.column("verdict").null_count == len(rows) - 3


@pytest.mark.parametrize(
    ("form", "ending"), [("raven", ".Table.1.selections.txt"), ("audacity", ".labels.txt")]
)
def test_tables_of_recordings_hold_all_their_detections(
    fleet: PageHub, ask: httpx.Client, form: str, ending: str
) -> None:
    archive = zipfile.ZipFile(io.BytesIO(ask.get(f"/{form}").content))
    names = archive.namelist()
    assert len(names) == 5
    assert all(name.endswith(ending) for name in names)
    n_rows = 0
    for name in names:
        lines = archive.read(name).decode().splitlines()
        rows = [line.split("\t") for line in lines[form == "raven" :]]
        start, end = (3, 4) if form == "raven" else (0, 1)
        assert {round(float(row[end]) - float(row[start]), 6) for row in rows} == {5.0}
        assert [float(row[start]) for row in rows] == sorted(float(row[start]) for row in rows)
        n_rows += len(rows)
    assert n_rows == total(fleet)


def test_occurrences_leave_out_what_people_called_wrong(fleet: PageHub, ask: httpx.Client) -> None:
    rows = table(ask.get("/dwc", params=NAMES).text)
    assert len(rows) == total(fleet) - 1
    assert len({row["occurrenceID"] for row in rows}) == len(rows)
    assert {(row["verbatimIdentification"], row["scientificName"]) for row in rows} == {
        ("an owl hooting", "Strix aluco"),
        ("birds singing", ""),
        ("a chainsaw", ""),
    }
    verified = [row for row in rows if row["identificationVerificationStatus"] == "verified by human"]
    assert len(verified) == 1
    assert ask.get("/dwc", params={"taxon": "owl"}).status_code == 422


def test_effort_tells_the_minutes_of_every_hour(ask: httpx.Client) -> None:
    rows = table(ask.get("/effort", params={"device": "north-ridge"}).text)
    assert {row["recorder"] for row in rows} == {"north-ridge"}
    assert 1 <= min(int(row["minutes"]) for row in rows) < max(int(row["minutes"]) for row in rows) == 60
    # five days but for a gap of 20,000 s
    assert abs(sum(int(row["minutes"]) for row in rows) - (5 * 1440 - 20_000 / 60)) <= 2


def camtrap(ask: httpx.Client, folder: Path, **asked: object) -> Path:
    answer = ask.get("/camtrap", params={**NAMES, **asked})  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(folder)
    return folder


def check(folder: Path) -> list[str]:
    """Return what frictionless finds wrong with a package, its schemas taken from a copy of the standard."""
    found = json.loads((folder / "datapackage.json").read_text())
    del found["profile"]
    for resource in found["resources"]:
        resource["schema"] = json.loads((PROFILE / resource["schema"].rsplit("/", 1)[1]).read_text())
    with system.use_context(trusted=True):
        report = Package.from_descriptor(found, basepath=str(folder)).validate()
    return [error.type for task in report.tasks for error in task.errors] + [
        error.type for error in report.errors
    ]


def test_camtrap_dp_is_valid(fleet: PageHub, ask: httpx.Client, tmp_path: Path) -> None:
    folder = camtrap(ask, tmp_path)
    assert check(folder) == []
    profile = json.loads((PROFILE / "camtrap-dp-profile.json").read_text())
    profile["allOf"][0] = {}  # the general profile, and GeoJSON's, are elsewhere
    profile["allOf"][1]["properties"]["spatial"] = {"type": "object", "required": ["type", "coordinates"]}
    package = json.loads((folder / "datapackage.json").read_text())
    jsonschema.Draft4Validator(profile).validate(package)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(profile).validate(
            {**package, "contributors": [{"title": "x", "role": "boss"}]}
        )
    observations = table((folder / "observations.csv").read_text())
    assert len(observations) == total(fleet) - 1
    assert {row["scientificName"] for row in observations} == {"Strix aluco", ""}
    human = [row for row in observations if row["classificationMethod"] == "human"]
    assert [row["classificationProbability"] for row in human] == [""]
    media = table((folder / "media.csv").read_text())
    assert media
    assert all((folder / row["filePath"]).read_bytes()[:4] == b"fLaC" for row in media)
    assert package["taxonomic"] == [{"scientificName": "Strix aluco"}]


def test_the_check_of_camtrap_dp_sees_what_is_wrong(ask: httpx.Client, tmp_path: Path) -> None:
    folder = camtrap(ask, tmp_path, device="spring")
    path = folder / "observations.csv"
    whole = path.read_text()
    path.write_text(whole.replace("unclassified", "no such type", 1))
    assert check(folder) == ["constraint-error"]
    path.write_text(whole.replace(",spring,", ",elsewhere,", 1))
    assert check(folder) == ["foreign-key"]


def test_a_package_needs_the_place_of_each_recorder(fleet: PageHub, ask: httpx.Client) -> None:
    where = fleet.hub.registry.devices.named("ford")
    fleet.hub.registry.devices.set_place("ford", None, None)
    answer = ask.get("/camtrap")
    fleet.hub.registry.devices.set_place("ford", where.latitude, where.longitude)
    assert answer.status_code == 422
    assert "ford" in answer.json()["error"]
    assert ask.get("/camtrap", params={"query": "nothing"}).status_code == 422

from __future__ import annotations

import pickle

import pytest

from edge import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("FieldcubeError", 1),
        ("UsageError", 2),
        ("ConfigError", 2),
        ("WatchlistError", 2),
        ("BundleError", 1),
        ("CodeSpaceError", 1),
        ("ObservationError", 1),
        ("AudioError", 1),
        ("EncoderError", 1),
        ("StoreError", 1),
        ("MissingDependencyError", 1),
    ],
)
def test_every_error_is_a_fieldcube_error_with_its_exit_code(kind: str, code: int) -> None:
    error = getattr(errors, kind)("what happened")
    assert isinstance(error, errors.FieldcubeError)
    assert error.exit_code == code
    assert kind in (errors.__doc__ or "")


def test_a_wrong_code_space_is_a_bundle_error() -> None:
    assert issubclass(errors.CodeSpaceError, errors.BundleError)


def test_errors_survive_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(errors.StoreError("store.sqlite: full")))
    assert isinstance(error, errors.StoreError)
    assert str(error) == "store.sqlite: full"

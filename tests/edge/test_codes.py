from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge import codes as codes_module
from edge.codes import (
    TopK,
    asymmetric_distance,
    asymmetric_distance_planes,
    distances,
    from_planes,
    hamming,
    pack,
    popcount,
    prefix,
    to_planes,
    top_k,
    unpack,
)
from edge.errors import CodeSpaceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "codes-v1.bin"


def golden_logits() -> NDArray[np.float32]:
    """Return [4, 256] logits of a plain formula, zeros among them (a zero is a 1 bit)."""
    row, bit = np.mgrid[0:4, 0:256]
    return np.asarray((bit * 37 + row * 11 + bit // 9) % 7 - 3, dtype=np.float32)


def random_codes(n: int, n_bytes: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, n_bytes), dtype=np.uint8)


def slow_distances(query: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[Any]:
    return np.asarray((np.unpackbits(codes, axis=1) != np.unpackbits(query)[None]).sum(axis=1))


def slow_top_k(query: NDArray[np.uint8], codes: NDArray[np.uint8], k: int) -> tuple[list[int], list[int]]:
    ranked = sorted((int(d), i) for i, d in enumerate(slow_distances(query, codes)))[:k]
    return [d for d, _ in ranked], [i for _, i in ranked]


def scanned(query: NDArray[np.uint8], k: int, codes: NDArray[np.uint8]) -> TopK:
    search = TopK(query, k)
    search.scan(to_planes(codes), 0)
    return search


def found(search: TopK) -> tuple[list[int], list[int]]:
    near, rows = search.result()
    return near.tolist(), rows.tolist()


def test_packing_gives_the_golden_bytes() -> None:
    assert pack(golden_logits(), 256).tobytes() == GOLDEN.read_bytes()


def test_bit_i_lies_in_byte_i_over_8_at_position_i_mod_8() -> None:
    logits = np.full(64, -1.0)
    logits[[0, 9, 63]] = 0.0  # zero counts as set
    assert pack(logits).tolist() == [1, 2, 0, 0, 0, 0, 0, 128]


def test_unpack_is_the_inverse_of_pack() -> None:
    logits = np.random.default_rng(1).standard_normal((5, 3, 128))
    assert np.array_equal(unpack(pack(logits)), (logits >= 0).astype(np.uint8))


@pytest.mark.parametrize("width", [0, 8, 63, 255, 320])
def test_pack_refuses_a_width_that_no_code_has(width: int) -> None:
    with pytest.raises(CodeSpaceError, match=f"expected 64, 128, 192 or 256 bits, found {width}"):
        pack(np.zeros((2, width)))


def test_pack_refuses_another_width_than_asked_for() -> None:
    with pytest.raises(CodeSpaceError, match="expected 256 a code, found 128"):
        pack(np.zeros(128), 256)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_pack_refuses_logits_that_are_not_finite(wrong: float) -> None:
    logits = np.ones(256, np.float32)
    logits[17] = wrong
    with pytest.raises(CodeSpaceError, match="expected finite numbers, found 1 of 256"):
        pack(logits)


def test_a_prefix_is_the_code_of_the_first_logits() -> None:
    logits = np.random.default_rng(2).standard_normal((4, 256))
    assert np.array_equal(prefix(pack(logits), 64), pack(logits[:, :64]))
    with pytest.raises(CodeSpaceError, match="at least 256 bits, found 128"):
        prefix(pack(logits[:, :128]), 256)


def test_both_popcounts_count_the_same() -> None:
    words = np.random.default_rng(3).integers(0, 2**64, (3, 1000), dtype=np.uint64)
    words[0, :3] = [0, 2**64 - 1, 1 << 63]
    expected = np.array([[int(word).bit_count() for word in row] for row in words], np.uint8)
    assert np.array_equal(popcount(words), expected)
    assert np.array_equal(codes_module._popcount_swar(words), expected)
    out = np.empty(1000, np.uint8)
    assert codes_module._popcount_swar(words[1], out) is out
    assert np.array_equal(out, expected[1])
    many = np.tile(words, (1, 20))  # several chunks, the last one short
    assert np.array_equal(codes_module._popcount_swar(many), np.tile(expected, (1, 20)))


@pytest.mark.parametrize("n_bytes", [8, 16, 24, 32])
def test_distances_count_the_bits_that_differ(n_bytes: int) -> None:
    codes = random_codes(300, n_bytes)
    planes = to_planes(codes)
    assert planes.shape == (n_bytes // 8, 300)
    assert planes.flags.c_contiguous
    assert np.array_equal(from_planes(planes), codes)
    expected = slow_distances(codes[7], codes)
    queries: tuple[Any, ...] = (codes[7], codes[7].tobytes(), planes[:, 7])
    for given in queries:
        assert np.array_equal(distances(given, planes), expected)
    result = hamming(codes[7], codes)
    assert result.dtype == np.uint16
    assert np.array_equal(result, expected)


def test_the_exact_complement_is_256_away() -> None:
    codes = random_codes(2)
    codes[1] = ~codes[0]
    assert hamming(codes[0], codes).tolist() == [0, 256]
    assert distances(codes[0], to_planes(codes)).tolist() == [0, 256]
    assert found(scanned(codes[0], 2, codes)) == ([0, 256], [0, 1])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make blocks of 64 rows, so that few codes cross many of them."""
    monkeypatch.setattr(codes_module, "_ROWS_PER_BLOCK", 64)
    return 64


@pytest.mark.parametrize("k", [1, 10, 100, 5000])
@pytest.mark.parametrize("n_bytes", [8, 32])
def test_top_k_is_exact_over_many_blocks(small_blocks: int, k: int, n_bytes: int) -> None:
    codes = random_codes(3000, n_bytes)
    query = random_codes(1, n_bytes, seed=9)[0]
    assert found(scanned(query, k, codes)) == slow_top_k(query, codes, k)


@pytest.mark.parametrize("use_swar", [False, True])
def test_top_k_is_exact_with_either_popcount(
    small_blocks: int, use_swar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if use_swar:
        monkeypatch.setattr(codes_module, "_popcount", codes_module._popcount_swar)
    codes = random_codes(500)
    assert found(scanned(codes[3], 20, codes)) == slow_top_k(codes[3], codes, 20)


def test_ties_go_to_the_smaller_index(small_blocks: int) -> None:
    codes = np.repeat(random_codes(4), 100, axis=0)
    assert found(scanned(codes[250], 130, codes)) == slow_top_k(codes[250], codes, 130)


def test_ties_go_to_the_smaller_index_in_any_order_of_scans(small_blocks: int) -> None:
    codes = np.repeat(random_codes(1), 300, axis=0)
    planes = to_planes(codes)
    search = TopK(random_codes(1, seed=5)[0], 70)
    for start in (200, 0, 100):
        search.scan(planes[:, start : start + 100], start)
    assert found(search)[1] == list(range(70))


@pytest.mark.parametrize("nearest_first", [False, True])
def test_complements_never_pass_for_equals(small_blocks: int, nearest_first: bool) -> None:
    codes = random_codes(400)
    codes[100:300] = ~codes[0]
    if not nearest_first:
        codes = codes[::-1].copy()
    query = codes[0] if nearest_first else codes[-1]
    for k in (5, 250, 400):
        assert found(scanned(query, k, codes)) == slow_top_k(query, codes, k)


def test_only_complements_are_all_256_away(small_blocks: int) -> None:
    codes = np.repeat(random_codes(1), 200, axis=0)
    near, rows = top_k(~codes[0], to_planes(codes), 10)
    assert near.dtype == np.uint16
    assert rows.dtype == np.int64
    assert near.tolist() == [256] * 10
    assert rows.tolist() == list(range(10))


def test_scans_in_pieces_give_the_result_of_one(small_blocks: int) -> None:
    codes = random_codes(1000)
    planes = to_planes(codes)
    search = TopK(codes[5], 30)
    for start, end in ((0, 1), (1, 500), (500, 500), (500, 1000)):
        search.scan(planes[:, start:end], 10**12 + start)
        search.result()  # asking in between changes nothing
    near, rows = slow_top_k(codes[5], codes, 30)
    assert found(search) == (near, [10**12 + row for row in rows])


def test_fewer_codes_than_k_are_all_returned() -> None:
    codes = random_codes(3)
    assert found(scanned(codes[2], 100, codes)) == slow_top_k(codes[2], codes, 100)
    assert found(TopK(codes[2], 100)) == ([], [])


def test_a_result_belongs_to_the_caller() -> None:
    codes = random_codes(200)
    search = scanned(codes[150], 5, codes)
    for part in search.result():
        part[:] = 9
    assert found(search) == slow_top_k(codes[150], codes, 5)


def test_top_k_refuses_other_widths_and_shapes() -> None:
    codes = random_codes(10)
    with pytest.raises(CodeSpaceError, match="expected 256 bits like the codes, found 128"):
        top_k(codes[0, :16], to_planes(codes), 3)
    with pytest.raises(CodeSpaceError, match="expected 256 bits like the codes, found 64"):
        hamming(codes[0, :8], codes)
    with pytest.raises(CodeSpaceError, match="found 40"):
        to_planes(codes[:, :5])
    with pytest.raises(CodeSpaceError, match=r"expected uint8 \[n, n_bytes\], found int64"):
        hamming(codes[0], codes.astype(np.int64))
    with pytest.raises(CodeSpaceError, match="expected one code"):
        distances(codes[:2], to_planes(codes))
    with pytest.raises(ValueError, match="k: expected at least 1, found 0"):
        TopK(codes[0], 0)


@pytest.mark.parametrize("n_bits", [64, 256])
def test_asymmetric_distance_sums_the_logits_that_disagree(n_bits: int) -> None:
    logits = np.random.default_rng(4).standard_normal(n_bits).astype(np.float32)
    codes = random_codes(200, n_bits // 8)
    disagree = unpack(codes) != (logits >= 0)
    expected = (disagree * np.abs(logits.astype(np.float64))).sum(axis=1)
    for result in (asymmetric_distance(logits, codes), asymmetric_distance_planes(logits, to_planes(codes))):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)
    assert asymmetric_distance(logits, pack(logits)[None]).tolist() == [0.0]


def test_asymmetric_distance_refuses_another_width_and_nan() -> None:
    with pytest.raises(CodeSpaceError, match="expected 256 a code, found 128"):
        asymmetric_distance(np.zeros(128), random_codes(2))
    with pytest.raises(CodeSpaceError, match="finite"):
        asymmetric_distance(np.full(256, np.nan), random_codes(2))

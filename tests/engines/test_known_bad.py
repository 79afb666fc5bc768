"""The list of known-bad combinations: well formed, and matching exactly what it states."""

from __future__ import annotations

import dataclasses

import pytest

from mvde.engines.known_bad import Combination, all_known_bad, check_combination
from mvde.errors import BackendError
from mvde.precision import Precision

ORIN = Combination("tensorrt", "10.3.0", ("8.7",), Precision.FP16, 1)


def test_every_entry_has_a_source_a_range_and_what_to_do() -> None:
    ids = [entry.id for entry in all_known_bad()]
    assert len(ids) == len(set(ids)) > 0
    for entry in all_known_bad():
        assert entry.level in {"refuse", "warn"}
        assert entry.batches in {"any", "one", "several"}
        assert all(isinstance(precision, Precision) for precision in entry.precisions)
        assert all(source.startswith("https://github.com/") for source in entry.sources)
        assert entry.sources
        assert entry.advice
        assert entry.concerns_library(entry.backend, entry.first)
        assert not entry.concerns_library(entry.backend, entry.before)


def test_jetpack_6_is_refused_with_its_sources_until_it_is_accepted() -> None:
    with pytest.raises(BackendError, match=r"trt-10\.3-vit.*TensorRT/issues/4723.*--accept-known-bad"):
        check_combination(ORIN, accepted=False)
    assert any(warning.startswith("trt-10.3-vit") for warning in check_combination(ORIN, accepted=True))


@pytest.mark.parametrize("version", ["10.3.0", "10.4.0", "10.4.9.post1"])
def test_a_range_holds_its_versions(version: str) -> None:
    with pytest.raises(BackendError):
        check_combination(dataclasses.replace(ORIN, version=version), accepted=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "10.5.0"},
        {"version": "10.16.1.11"},
        {"backend": "tensorrt-rtx", "version": "1.7.1"},
        {"backend": "openvino", "version": "2026.1"},
    ],
)
def test_what_the_list_does_not_name_is_free(changes: dict[str, str]) -> None:
    assert check_combination(dataclasses.replace(ORIN, **changes), accepted=False) == []


def test_gpu_precision_and_batch_decide_where_an_entry_names_them() -> None:
    blackwell = Combination("tensorrt", "10.16.1", ("12.0",), Precision.FP16, 1)
    with pytest.raises(BackendError, match="trt-blackwell-attention"):
        check_combination(blackwell, accepted=False)
    assert check_combination(dataclasses.replace(blackwell, precision=Precision.FP32), accepted=False) == []
    assert check_combination(dataclasses.replace(blackwell, compute_capabilities=("8.9",)), accepted=False) == []
    thor = Combination("tensorrt", "10.13.3.9", ("11.0",), Precision.FP32, 1)
    with pytest.raises(BackendError, match="trt-thor"):
        check_combination(thor, accepted=False)
    assert not any("thor" in warning for warning in check_combination(dataclasses.replace(thor, batch=2), False))


def test_a_warning_does_not_refuse() -> None:
    warnings = check_combination(Combination("tensorrt", "11.1.0", ("8.9",), Precision.FP32, 4), accepted=False)
    assert [warning.split(":")[0] for warning in warnings] == ["trt-batched-transformer"]

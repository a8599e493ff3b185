import pytest

from ownlm.model.quantised import Scheme
from ownlm.runtime.errors import OwnLMError


@pytest.mark.parametrize(
    ("text", "bits", "group", "written"),
    [("int8", 8, None, "int8"), ("int4", 4, 64, "int4:64"), ("int4:32", 4, 32, "int4:32")],
)
def test_schemes_are_read_from_text(text: str, bits: int, group: int | None, written: str) -> None:
    scheme = Scheme.parse(text)
    assert (scheme.bits, scheme.group, str(scheme)) == (bits, group, written)
    assert Scheme.parse(str(scheme)) == scheme


@pytest.mark.parametrize("text", ["", "int", "int3", "int4:", "int4:48", "int8:64", "INT8", "fp8"])
def test_other_text_is_an_error_that_lists_the_valid_ones(text: str) -> None:
    with pytest.raises(OwnLMError, match="int8, int4, int4:32, int4:64, int4:128"):
        Scheme.parse(text)


def test_impossible_schemes_are_refused() -> None:
    for bits, group in ((8, 64), (4, None), (4, 16)):
        with pytest.raises(OwnLMError, match="no quantisation to"):
            Scheme(bits, group)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "inputs", "fitting"),
    [
        ("int4:128", 4864, "int4:128"), ("int4:128", 192, "int4:64"), ("int4:128", 96, "int4:32"),
        ("int4:64", 256, "int4:64"), ("int4:32", 128, "int4:32"), ("int4:64", 80, "int8"), ("int8", 80, "int8"),
    ],
)  # fmt: skip
def test_a_group_that_does_not_divide_gives_way(text: str, inputs: int, fitting: str) -> None:
    assert str(Scheme.parse(text).fitting(inputs)) == fitting


def test_bits_per_weight_count_the_scales() -> None:
    assert Scheme.parse("int4:64").bits_per_weight == 4.25 and Scheme.parse("int8").bits_per_weight == 8

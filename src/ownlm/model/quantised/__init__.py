"""Weight-only quantisation: int8 by channel and int4 by groups, at load and on disk."""

from ownlm.model.quantised.layers import QuantisedEmbedding, QuantisedLinear, QuantisedWeight
from ownlm.model.quantised.measure import Crossover, measure_crossover
from ownlm.model.quantised.quantise import describe, quantise, quantise_module, schemes_of, set_packed_rows
from ownlm.model.quantised.scheme import Scheme

__all__ = [
    "Crossover", "QuantisedEmbedding", "QuantisedLinear", "QuantisedWeight", "Scheme", "describe", "measure_crossover",
    "quantise", "quantise_module", "schemes_of", "set_packed_rows",
]  # fmt: skip

"""Targets whose loss is known in closed form: the exact expectation over a population, no rows."""

import math
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic.dataclasses import dataclass

from lambda_hat.config import STRICT, Float, NonNegativeFloat, NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from jaxtyping import Array
    from jaxtyping import Float as F

    from lambda_hat.targets.base import Arrays

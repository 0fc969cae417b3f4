"""The problem of the sampler tests: a quadratic with unequal curvatures, off-centre, whose loss counts its gradients.

    L(w) = 1/2 sum_i h_i (w_i - c_i)^2 + fault,    w0 = 0,    minibatch noise of variance s^2 a row

A symmetric target would hide a wrong sign of the gradient or of the localiser; here either moves the mean.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base.array import array_stats
from jaxtyping import Array, Key

from lambda_hat.posterior import Posterior, localise
from lambda_hat.samplers.base import Sampler
from lambda_hat.sampling.ensemble import Ensemble
from lambda_hat.targets.base import Curvature, Target


@dataclass
class Tally:
    """Per-row gradients evaluated while ``arrays["counted"]`` was 1, and traces of the loss."""

    gradients: int = 0
    traces: int = 0

    def add(self, rows: int, chain: np.ndarray) -> None:
        del chain  # an argument that differs between chains makes JAX call once for each
        self.gradients += int(rows)


TALLY = Tally()


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tick(rows: int, w: Array, is_counted: Array) -> Array:
    """``w``; its backward pass, taken once a gradient, counts ``rows`` gradients."""
    del rows, is_counted
    return w


def _backward(rows: int, is_counted: Array, cotangent: Array) -> tuple[Array, None]:
    jax.lax.cond(is_counted > 0, lambda: jax.debug.callback(TALLY.add, rows, cotangent), lambda: None)
    return cotangent, None


def _forward(rows: int, w: Array, is_counted: Array) -> tuple[Array, Array]:
    del rows
    return w, is_counted


_tick.defvjp(_forward, _backward)


def _one(rows: int, w: np.ndarray) -> np.ndarray:
    """1; counts ``rows`` gradients. Unlike a debugging callback, it is left out where nobody reads the 1."""
    TALLY.add(rows, w)
    return np.ones((), "float32")  # JAX calls it from a thread of its own, where it may know no wider one


@dataclass(frozen=True)
class CountedQuadratic:
    """The model of the module's docstring; ``num_rows`` gradients make one of the full loss.

    It is also a linear regression on ``num_inputs`` inputs: one layer, each of whose rows has the first curvatures.
    """

    num_rows: int = 1000
    num_inputs: int = 3

    def _value(self, arrays: dict[str, Array], w: Array) -> Array:
        TALLY.traces += 1
        return 0.5 * jnp.sum(arrays["h"] * (w - arrays["c"]) ** 2) + arrays["fault"]

    def loss(self, arrays: dict[str, Array], w: Array) -> Array:
        return self._value(arrays, _tick(self.num_rows, w, arrays["counted"]))

    def minibatch(self, key: Key[Array, ""], target: Target, batch_size: int) -> Array:
        """The mean of the rows' noise, once a row: to draw each row's would be most of what the tests cost."""
        mean = target.data["s"] / batch_size**0.5 * jax.random.normal(key, (target.dim,), target.w0.dtype)
        return jnp.broadcast_to(mean, (batch_size, target.dim))

    def minibatch_loss(self, arrays: dict[str, Array], w: Array, batch: Array) -> Array:
        w = _tick(batch.shape[0], w, arrays["counted"])
        return self._value(arrays, w) + jnp.dot(batch[0], w)

    def unravel(self, arrays: dict[str, Array], w: Array) -> Array:
        del arrays
        return w

    layered_data: ClassVar[tuple[type, ...]] = (dict,)

    def nonlinear(self, data: Any) -> None:
        del data

    def layers(self, arrays: dict[str, Array], w: Array) -> list[Array]:
        del arrays
        return [w.reshape(-1, self.num_inputs)]

    def flat(self, layers: Sequence[Array]) -> Array:
        return layers[0].ravel()

    def curvature(self, arrays: dict[str, Array], layers: Sequence[Array], index: int) -> Curvature:
        """A pass over the rows, counted where its left factor is read: the right one does not depend on w."""
        w, shape = layers[index], jax.ShapeDtypeStruct((), "float32")
        one = jax.lax.cond(
            arrays["counted"] > 0,
            lambda: jax.pure_callback(partial(_one, self.num_rows), shape, w, vmap_method="sequential"),
            lambda: jnp.ones((), "float32"),
        )
        return Curvature(one.astype(w.dtype) * jnp.eye(len(w), dtype=w.dtype), jnp.diag(arrays["h"][: self.num_inputs]))


@dataclass(frozen=True)
class Problem:
    """Curvatures ``h``, minimum ``c``, noise ``s``, and the posterior's ``nbeta`` and ``gamma``."""

    h: tuple[float, ...] = (2.0, 0.5, 0.1)
    c: tuple[float, ...] = (0.05, -0.1, 0.2)
    s: float = 0.0
    nbeta: float = 400.0
    gamma: float = 40.0

    def posterior(self, dtype: str, *, counted: bool = False, fault: float = 0.0) -> Posterior:
        values = {"h": np.array(self.h), "c": np.array(self.c), "s": np.array(self.s), "fault": np.array(fault)}
        arrays = {name: jnp.asarray(value, dtype) for name, value in values.items()}
        arrays["counted"] = jnp.asarray(int(counted), jnp.int32)
        model = CountedQuadratic(num_inputs=len(set(self.h)))
        return localise(Target(jnp.zeros(len(self.h), dtype), arrays, model, model.num_rows), self.nbeta, self.gamma)

    @property
    def precision(self) -> np.ndarray:
        return self.nbeta * np.array(self.h) + self.gamma

    def llc(self, variance: np.ndarray | None = None) -> float:
        """nbeta (E[L] - L(w0)) under the posterior, or under its mean and another ``variance``."""
        h, c, p = np.array(self.h), np.array(self.c), self.precision
        variance = 1 / p if variance is None else variance
        return float(0.5 * self.nbeta * np.sum(h * (variance + (self.gamma * c / p) ** 2 - c**2)))

    def virial(self, variance: np.ndarray) -> float:
        """E[u . grad U] under the posterior's mean and ``variance``; d under the posterior itself."""
        return float(np.sum(self.precision * variance))

    @property
    def log_normaliser(self) -> float:
        """log of the integral of pi(u) / pi(0)."""
        p, pull = self.precision, self.nbeta * np.array(self.h) * np.array(self.c)
        return float(np.sum(0.5 * np.log(2 * np.pi / p) + 0.5 * pull**2 / p))


def to_host(state: Any) -> Any:
    """What a checkpoint does: every leaf a numpy array, and back."""
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, [jnp.asarray(np.array(leaf)) for leaf in leaves])


class Run:
    """Drives an ensemble as the host loop does, with a checkpoint between any two calls."""

    def __init__(self, sampler: Sampler, posterior: Posterior, num_chains: int = 3, seed: int = 0):
        self.ensemble = Ensemble(sampler, posterior, num_chains, seed)
        self.state, self.first = self.ensemble.init()

    def advance(self, phase: Any, *lengths: int) -> dict[str, np.ndarray]:
        start, traces = 0, []
        for length in lengths:
            self.state, trace = self.ensemble.advance(to_host(self.state), phase, start, length)
            traces.append(trace)
            start += length
        return {name: np.concatenate([np.asarray(trace[name]) for trace in traces]) for name in traces[0]}

    def go_on_as(self, sampler: Sampler) -> None:
        """Let the state be another sampler's, whose own would look the same, so that its programs are shared."""
        self.ensemble = dataclasses.replace(self.ensemble, sampler=sampler)

    def finish(self) -> None:
        self.state = self.ensemble.finish(self.state)

    def sample(self, draws: int) -> dict[str, np.ndarray]:
        """A whole warm-up, then ``draws`` draws."""
        if self.ensemble.sampler.num_warmup > 0:  # or its program would be compiled for nothing
            self.advance("warmup", self.ensemble.sampler.num_warmup)
        self.finish()
        return self.advance("sampling", draws)


def assert_mean(samples: np.ndarray, expected: float, *, min_ess: float = 300.0) -> None:
    """|mean - expected| < 4 Monte Carlo standard errors, once the effective sample is large enough to tell."""
    chains = np.asarray(samples, float).T
    ess: Any = array_stats.ess(chains, chain_axis=0, draw_axis=1, method="mean")
    error: Any = array_stats.mcse(chains, chain_axis=0, draw_axis=1, method="mean")
    assert ess > min_ess
    assert abs(chains.mean() - expected) < 4 * error, f"{chains.mean():.4f} +- {error:.4f}, expected {expected:.4f}"


def float_fields(sampler: Any) -> dict[str, float]:
    fields = {field.name: getattr(sampler, field.name) for field in dataclasses.fields(sampler)}
    return {name: value for name, value in fields.items() if isinstance(value, float)}

"""ZOOptimizer: a ``torch.optim.Optimizer`` that needs values of the objective and no gradients."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NoReturn, overload

import torch

from zoopt import optimizer_state, registry
from zoopt.directions.kernel.fused import KERNEL_VERSION
from zoopt.engines.choice import engine_name
from zoopt.engines.shared_prefix import SharedPrefix
from zoopt.estimators import ZOEstimator
from zoopt.estimators.base import recorded
from zoopt.interfaces import (
    Direction,
    Displacement,
    Engine,
    Evaluate,
    GradientEstimate,
    Probe,
    Slot,
    StepRecord,
    UpdateRule,
    UpdateStep,
)
from zoopt.parameters import groups
from zoopt.parameters.masters import Vectors
from zoopt.parameters.placement import refuse_spread
from zoopt.parameters.selection import Select, groups_of, slots_of
from zoopt.parameters.validity import ParameterCheck
from zoopt.probes.closure import Closure, ProbedClosure
from zoopt.probes.ranks import Compare
from zoopt.probes.surroundings import same_surroundings
from zoopt.seeds import direction_seeds, fold
from zoopt.support.signals import deferred_signals, watched_signals

log = logging.getLogger("zoopt")


class ZOOptimizer(torch.optim.Optimizer):
    """Tunes parameters against any number that a closure returns, with forward passes alone.

    θ is the trainable parameters of ``source``, or those selected by ``params``. Every step draws
    directions z(s) from ``seed`` and the step number, evaluates the closure at probes
    θ + Σ a z(s), and moves θ along the estimated gradient. The memory used beyond the weights
    depends on the engine and the update rule: none for the in-place engine with SGD.

    Given a model, the closure runs with it in eval mode; modes and buffers are restored after.
    Given bare parameters, the caller manages modes and buffers. All probes of a step see the same
    random state. If the closure raises, is interrupted, or returns a number that is not finite, θ
    is restored to its value before the step (bit for bit with the overlay and copy engines, within
    2 ulp of max(|θ|, ε|z|) with the in-place engine in fp32).

    Args:
        source: a module, parameters, (name, parameter) pairs, or parameter group dicts, which may
            have their own ``lr``, ``eps``, ``weight_decay`` and ``decay_1d``.
        lr: learning rate η.
        estimator: which probes to evaluate; a name (``zoopt list estimators``) or an object.
        direction: the distribution of z; overrides the estimator's.
        engine: how probes are evaluated; overrides the estimator's. ``"auto"`` is in-place in fp32
            and overlay if any parameter is in half precision (copy if the model has compiled or
            scripted modules). Vectors in half precision (norms, biases) are perturbed and updated
            in fp32 by every engine; the model keeps them in their own dtype.
        update: the update rule, by name or as an object.
        eps: perturbation scale ε; overrides the estimator's.
        weight_decay: decoupled decay λ: θ ← (1 − ηλ) θ at each update.
        decay_1d: whether tensors of fewer than two dimensions (biases, norms) decay as well.
        params: name patterns, a predicate ``(name, parameter) -> bool``, or patterns with their
            own options, ``{"*lora*": {"lr": 1e-4, "eps": 1e-2}}``.
        maximize: treat the closure's number as higher-is-better.
        seed: the seed from which all directions are derived.
        share_prefix: compute the part of the forward before the first tuned parameter once per
            step, and reuse it for the other probes; see
            :class:`zoopt.engines.shared_prefix.SharedPrefix`. Results are identical without it,
            unless a skipped module counts its calls or has a random generator of its own. It needs
            a model, and keeps the outputs of the skipped modules in memory for the step.

    Raises:
        ValueError: nothing to tune, or a setting out of range.

    Example:
        >>> import torch, zoopt
        >>> model = torch.nn.Linear(4, 1)
        >>> x, y = torch.eye(4), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
        >>> opt = zoopt.ZOOptimizer(model, lr=0.1, estimator=zoopt.MeZO(eps=1e-3), seed=0)
        >>> first = opt.step(lambda: ((model(x) - y) ** 2).mean())
        >>> for _ in range(300):
        ...     last = opt.step(lambda: ((model(x) - y) ** 2).mean())
        >>> last < 0.01 * first
        True
    """

    def __init__(
        self,
        source: Any,
        lr: float = 1e-6,
        estimator: str | ZOEstimator = "mezo",
        direction: str | Direction | None = None,
        engine: str | None = None,
        update: str | UpdateRule = "sgd",
        *,
        eps: float | None = None,
        weight_decay: float = 0.0,
        decay_1d: bool = False,
        params: Select = None,
        maximize: bool = False,
        seed: int = 0,
        share_prefix: bool = True,
    ) -> None:
        self.model = source if isinstance(source, torch.nn.Module) else None
        self.estimator = registry.make_estimator(estimator)
        self.direction = registry.make_direction(direction or self.estimator.direction)
        self.update = registry.make_update(update)
        self.maximize = maximize
        self.seed = int(seed)
        self.steps = 0
        self.recorder: Callable[[StepRecord], None] | None = None
        self.clip: float | None = None
        """Bound on the magnitude of the estimate's coefficients; larger ones are clipped to it."""
        self._share_prefix = share_prefix
        self._wanted_engine = engine or self.estimator.engine
        self._pending: tuple[Displacement, StepRecord] | None = None
        self._settled = False
        self.estimated: GradientEstimate | None = None
        """The most recent gradient estimate; None before the first."""
        self._ready = False
        self.slots: tuple[Slot, ...] = ()
        defaults = {
            "lr": lr,
            "eps": self.estimator.eps if eps is None else eps,
            "weight_decay": weight_decay,
            "decay_1d": decay_1d,
        }
        super().__init__([g for g in groups_of(source, params) if g["params"]], defaults)
        self._ready = True
        self._assemble()

    def _assemble(self) -> None:
        self.slots = slots_of(self.param_groups, self.slots)
        self._vectors = Vectors(self.slots)
        refuse_spread(self.model, {slot.name: slot.tensor for slot in self.slots})
        self.direction.bind(self.slots)
        engine = registry.engine_class(engine_name(self._wanted_engine, self.slots, self.model))
        self.engine: Engine = engine(self.slots, self.direction, self.model)
        self._prefix = SharedPrefix(self.model if self._share_prefix else None, self.slots)
        self._checked = ParameterCheck(self.model, self.slots)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; the existing tensors keep their positions in θ, and so their z.

        A pending estimate is dropped, because it does not cover the new tensors.
        """
        for name in ("lr", "eps", "weight_decay"):
            groups.number(name, param_group.get(name, self.defaults[name]))
        if self._ready:
            self._pending = None
            self.engine.settle()
            (param_group,) = groups_of([param_group], start=len(self.slots))
        super().add_param_group(param_group)
        if self._ready:
            self._assemble()

    @property
    def d(self) -> int:
        """The number of tuned scalars."""
        return sum(slot.tensor.numel() for slot in self.slots)

    @overload
    def estimate(self, closure: Closure) -> float: ...

    @overload
    def estimate(self, closure: Closure, compare: Compare | None) -> float | None: ...

    @watched_signals()
    def estimate(self, closure: Closure, compare: Compare | None = None) -> float | None:
        """Evaluates the probes and keeps the estimate, which :meth:`step` without closure applies.

        With the in-place engine θ holds the last probe until then, because restoring and updating
        share one pass: call :meth:`settle` before anything reads θ in between. A discarded
        estimate leaves that engine's rounding error in θ and nothing in the log.

        Args:
            closure: returns the objective's value at the current θ, as a float or 0-d tensor, and
                is called once per probe, always on the same minibatch, which is therefore chosen
                before the step; or takes a :class:`zoopt.Population` of K probes and
                returns K values. Either runs without autograd. Return a GPU tensor rather than its
                ``.item()``, so that the next probe can be queued before the value is computed.
            compare: for objectives that only rank: ``compare(a, b)`` is positive if the closure's
                output a is better than b, negative if b is better, 0 for a tie; or a bool, whether
                a is better. Which probe is a is drawn from the seed and the step. It requires an
                estimator that uses only the order of its probes.

        Returns:
            The mean of the probed values, with the closure's own sign; None with ``compare``.

        Raises:
            NonFiniteLossError: a value was NaN or infinite.
            ValueError: parameters were replaced, or moved or cast after the first step.
            TypeError: the closure returned something that is not one number, or the estimator
                needs numbers and ``compare`` is given.
        """
        if compare is not None and not self.estimator.compares:
            raise TypeError(
                f"{self.estimator!r} needs the difference between the probes' values, and compare "
                "gives only their order: use estimator='dueling' or 'ranking'"
            )
        if self._pending is not None:
            self._pending = None
            self.engine.settle()
        self._catch_up()
        chained = self.engine.waiting
        devices = {slot.tensor.device for slot in self.slots}

        def evaluate(probes: Sequence[Probe]) -> list[float]:
            displacements = [self._displace(probe) for probe in probes]
            return probed.losses(self.engine.evaluate(displacements, probed))

        with torch.no_grad():
            try:
                with same_surroundings(self.model, devices) as rewind, self._prefix.step():
                    probed = ProbedClosure(
                        closure=closure,
                        engine=self.engine,
                        rewind=rewind,
                        probe=self._prefix.probe,
                        maximize=self.maximize,
                        where=f"step {self.steps} (lr {self.param_groups[0]['lr']:g})",
                        compare=compare,
                        group=self.estimator.compares,
                        sides=fold(self.seed, self.steps),
                    )
                    estimate = self._run_estimator(evaluate)
            except BaseException:
                self.engine.settle()
                raise
        self._pending = self._gradient(estimate), self._record(estimate, chained)
        self._settled = False
        self.estimated = estimate
        if compare is not None:
            return None
        mean = sum(estimate.losses) / len(estimate.losses)
        return -mean if self.maximize else mean

    @watched_signals()
    def step(  # type: ignore[override]
        self, closure: Closure | None = None, compare: Compare | None = None
    ) -> float | None:
        """Estimates and updates; without a closure, applies the pending estimate.

        Args:
            closure: as for :meth:`estimate`.
            compare: as for :meth:`estimate`.

        Returns:
            What :meth:`estimate` returned, or None without a closure.

        Raises:
            RuntimeError: there is neither a closure nor a pending estimate.
        """
        try:
            value = self.estimate(closure, compare) if closure is not None else None
            if self._pending is None:
                raise RuntimeError(
                    "step() without a closure applies a pending estimate, and none is pending: a "
                    "zeroth-order step needs values of the objective. Write opt.step(closure), or "
                    "opt.estimate(closure) and then opt.step(). loss.backward() is not used."
                )
            (gradient, record), self._pending = self._pending, None
            with deferred_signals():
                if self.recorder is not None:
                    self.recorder(self._as_applied(record))
                self._apply(gradient)
        except BaseException:
            self.engine.settle()
            raise
        return value

    def repeat(self, record: StepRecord) -> None:
        """Repeats a recorded step, using its losses instead of the objective.

        The arithmetic and its rounding are those of the step. Parameter groups take the recorded
        lr, eps and weight decay. Call it within :meth:`chain`, so that passes are shared as in
        the run.
        """
        if record.step != self.steps:
            raise ValueError(f"the record is of step {record.step}; expected step {self.steps}")
        self.clip, self.estimator.n = record.clip, record.n or self.estimator.n
        seeds = direction_seeds(self.seed, self.steps, self.estimator.n)
        if not set(record.seeds) <= set(seeds):
            raise ValueError(
                f"the record's directions are not those of seed {self.seed}: it comes from a run "
                "with another seed or another number of directions"
            )
        for name in ("lr", "eps", "weight_decay"):
            values = getattr(record, name)
            for group, value in zip(self.param_groups, values, strict=True):
                group[name] = value
        if not record.chained:
            self.engine.settle()
        self._catch_up()
        known = recorded(record.losses)

        def evaluate(probes: Sequence[Probe]) -> list[float]:
            for probe in probes:
                self.engine.revisit(self._displace(probe))
            return known(probes)

        self.estimated = self._run_estimator(evaluate)
        if self.estimated.losses != record.losses:
            raise ValueError(
                f"the record of step {record.step} has {len(record.losses)} losses, but "
                f"{self.estimator!r} takes {len(self.estimated.losses)}"
            )
        if record.settled:
            self.engine.settle()
        self._apply(self._gradient(self.estimated))

    def chain(self) -> AbstractContextManager[None]:
        """Defers an update to the next step's first probe, so that both share a pass over θ.

        With the in-place engine a step then takes two passes over θ instead of three. Use it only
        in a loop that you control: call :meth:`settle` before anything but a step reads θ.
        """
        return self.engine.chain()

    def settle(self) -> None:
        """Finishes pending work on θ: undoes an active probe and applies a deferred update.

        After a step outside :meth:`chain` nothing is pending.
        """
        self._settled = True
        self.engine.settle()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears ``.grad`` of the tuned parameters. ZOOptimizer itself never sets it."""
        super().zero_grad(set_to_none)

    def __getstate__(self) -> NoReturn:
        """Refuses to be pickled or copied, because θ belongs to the model.

        Raises:
            TypeError: always, saying what to do instead.
        """
        raise TypeError(
            "a ZOOptimizer cannot be pickled or copied, because its parameters belong to a model: "
            "create one for the copied model and call load_state_dict(optimizer.state_dict()) on it"
        )

    def state_dict(self) -> dict[str, Any]:
        """Torch's state dict, with zoopt's own state under ``"zoopt"``."""
        self.settle()
        own = {
            "steps": self.steps,
            "seed": self.seed,
            "kernel": KERNEL_VERSION,
            "direction": self.direction.name,
            "settings": self._settings(),
            "clip": self.clip,
            "masters": optimizer_state.masters_of(self.slots),
        }
        return {**super().state_dict(), "zoopt": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state dict returned by :meth:`state_dict`.

        As with torch's optimizers, options of groups (lr, eps, weight decay) are then the saved
        ones; the estimator and the update rule stay this optimizer's own. If they or eps differ
        from the saved run's, a warning lists them.

        Raises:
            ValueError: it was saved by another optimizer, kernel version or direction family.
        """
        own = optimizer_state.own_part(state_dict, self.direction)
        differing = optimizer_state.contradictions(state_dict, self.param_groups, self._settings())
        self.settle()
        self._pending = None
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "zoopt"})
        optimizer_state.restore(state_dict, self.slots, self.state)
        self.steps, self.seed, self.clip = own["steps"], own["seed"], own.get("clip") or self.clip
        if differing:
            log.warning("the loaded state was saved with other settings. %s", differing)

    def _settings(self) -> dict[str, str]:
        return optimizer_state.settings_of(self.estimator, self.update, self.maximize)

    def _run_estimator(self, evaluate: Evaluate) -> GradientEstimate:
        seeds = direction_seeds(self.seed, self.steps, self.estimator.n)
        eps = float(self.param_groups[0]["eps"])
        return self.estimator.estimate(evaluate, seeds, eps).clipped(self.clip)

    def _gradient(self, estimate: GradientEstimate) -> Displacement:
        return groups.estimated(self.param_groups, estimate.terms)

    def _apply(self, gradient: Displacement) -> None:
        self.update.apply(
            UpdateStep(
                slots=self.slots,
                gradient=gradient,
                lr=groups.each(self.param_groups, "lr"),
                decay=groups.decays(self.param_groups, self.slots),
                engine=self.engine,
                direction=self.direction,
                state=lambda slot: self.state[slot.tensor],
            )
        )
        self.steps += 1

    def _catch_up(self) -> None:
        """Adopts or refuses changes made to θ since the last step."""
        self._checked.refuse_lost()
        if self._checked.moved():
            if self.steps:
                self._checked.refuse_moved()
            self._assemble()
        self._vectors.adopt()

    def _displace(self, probe: Probe) -> Displacement:
        return groups.probed(self.param_groups, probe.terms)

    def _as_applied(self, record: StepRecord) -> StepRecord:
        """The record with what may have changed since the estimate."""
        return replace(
            record,
            settled=self._settled,
            lr=groups.each(self.param_groups, "lr"),
            weight_decay=groups.each(self.param_groups, "weight_decay"),
        )

    def _record(self, estimate: GradientEstimate, chained: bool) -> StepRecord:
        return StepRecord(
            step=self.steps,
            seeds=estimate.seeds,
            losses=estimate.losses,
            lr=groups.each(self.param_groups, "lr"),
            eps=groups.each(self.param_groups, "eps"),
            weight_decay=groups.each(self.param_groups, "weight_decay"),
            chained=chained,
            n=self.estimator.n,
            clip=self.clip,
        )

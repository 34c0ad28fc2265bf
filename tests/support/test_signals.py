"""Signals are passed on, but deferred in critical sections; the program's handlers stay."""

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
import torch

import zoopt
from zoopt.support.signals import deferred_signals, watched_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_between_critical_sections_a_signal_is_passed_on_at_once() -> None:
    done = []

    @watched_signals()
    def work() -> None:
        with deferred_signals():
            done.append("first")
        ctrl_c()
        done.append("second")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_within_a_critical_section_it_waits_for_its_end() -> None:
    done = []

    @watched_signals()
    def work() -> None:
        with deferred_signals():
            ctrl_c()
            done.append("first")
        done.append("second")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_ends_the_process_at_once_is_left_alone() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with watched_signals(), deferred_signals():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_objective_interrupts_a_step_and_may_set_a_handler() -> None:
    x = torch.zeros(3, requires_grad=True)
    optimizer = zoopt.ZOOptimizer([x], lr=0.1)
    caught: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    def interrupted() -> float:
        ctrl_c()
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(interrupted)
    assert optimizer.steps == 0
    torch.testing.assert_close(x, torch.zeros(3), rtol=0, atol=1e-8)

    def handling() -> float:
        signal.signal(signal.SIGINT, handler)
        return float(x.sum())

    optimizer.step(handling)
    assert signal.getsignal(signal.SIGINT) is handler
    ctrl_c()
    assert caught == [signal.SIGINT]

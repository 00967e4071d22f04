"""Signals that interrupt a run, each once, whatever swallows the KeyboardInterrupt."""

from __future__ import annotations

import os
import signal

import pytest

from commands import TOY_RUN
from mia_bench.engine import stages as stages_module
from mia_bench.interruption import held_back, interrupted, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_raises_once_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruptible():
        assert not interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert interrupted()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):  # the ending can be hurried up
            os.kill(os.getpid(), signal.SIGINT)
    assert not interrupted()
    assert signal.getsignal(number) == before


def test_a_signal_that_was_ignored_stays_so(monkeypatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_held_back(number: signal.Signals) -> None:
    reached = []

    def interrupt() -> None:
        with held_back():
            os.kill(os.getpid(), number)
            reached.append("the end of the part")
        reached.append("what comes after it")

    with interruptible(), pytest.raises(KeyboardInterrupt):
        interrupt()
    assert reached == ["the end of the part"]


@pytest.mark.parametrize("error", [None, ImportError])
def test_a_swallowed_interruption_ends_the_run_after_the_stage(cli, toy, store, monkeypatch, error) -> None:
    store("data", "prior", "gallery", "evaluator", "train", "assess")
    compute = stages_module.COMPUTE["invert"]

    def swallowing(*given: object) -> object:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            if error is not None:
                raise error("initialization failed") from None
        return compute(*given)

    with monkeypatch.context() as patch:
        patch.setitem(stages_module.COMPUTE, "invert", swallowing)
        outcome = cli(*TOY_RUN)
    assert outcome.code == 1
    assert "error: interrupted; what is finished is kept" in outcome.err
    assert [record["status"] for record in outcome.records] == ["interrupted"]
    assert cli(*TOY_RUN).code == 0

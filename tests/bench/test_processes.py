"""Tasks in processes: answers as they come, and processes that end without one."""

import os
import signal

import pytest
import torch

from zoopt.bench.processes import Died, TaskError, forked


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_is_answered_once_in_a_process_of_its_own(workers: int) -> None:
    answers = dict(forked([lambda k=k: (k, os.getpid()) for k in range(5)], workers))
    assert [answers[k][0] for k in range(5)] == list(range(5))
    assert len({pid for _, pid in answers.values()} | {os.getpid()}) == 6


def test_a_process_that_is_killed_is_an_answer_and_the_others_go_on() -> None:
    tasks = [
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
        lambda: os._exit(3),
        lambda: "done",
    ]
    answers = dict(forked(tasks, workers=2))
    assert answers[0] == Died(-signal.SIGKILL)
    assert "memory" in str(answers[0])
    assert str(answers[1]) == "ended by SIGTERM"
    assert str(answers[2]) == "exit status 3"
    assert answers[3] == "done"


def test_what_a_task_raises_is_raised_with_where_it_was() -> None:
    def broken() -> None:
        raise KeyError("the label")

    with pytest.raises(TaskError, match=r"in broken[\s\S]*KeyError: 'the label'"):
        list(forked([broken]))


def test_a_task_has_the_threads_it_is_given() -> None:
    assert dict(forked([torch.get_num_threads], threads=2)) == {0: 2}

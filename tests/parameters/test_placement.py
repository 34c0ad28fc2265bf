"""Several processes or devices are refused, with what there is and what to do."""

import os
import socket
import subprocess
import sys

import pytest
import torch

import zoopt

RANK = """
import torch, zoopt
torch.distributed.init_process_group("gloo")
try:
    zoopt.ZOOptimizer(torch.nn.Linear(2, 1))
except RuntimeError as error:
    print(torch.distributed.get_rank(), error)
torch.distributed.destroy_process_group()
"""


def test_two_processes_are_refused_on_every_rank():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK],
            env={
                **os.environ,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": "2",
                "RANK": str(rank),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank, process in enumerate(ranks):
        said, _ = process.communicate(timeout=60)
        assert said.startswith(f"{rank} there are 2 processes")


def test_ranks_that_have_not_met_yet_are_refused_too(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    zoopt.ZOOptimizer(torch.nn.Linear(2, 1))  # without a rank it is another launcher's
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RuntimeError, match="there are 4 processes"):
        zoopt.ZOOptimizer(torch.nn.Linear(2, 1))


def test_a_model_on_several_devices_is_refused():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1, device="meta"))
    with pytest.raises(ValueError, match=r"0\.weight on cpu, 1\.weight on meta"):
        zoopt.ZOOptimizer(model, params="0.*")


def test_a_device_map_over_several_devices_is_refused():
    model = torch.nn.Linear(2, 1)
    model.hf_device_map = {"": "cpu"}
    zoopt.ZOOptimizer(model)
    model.hf_device_map = {"embed": 0, "layers.0": "cpu", "layers.1": "disk"}
    with pytest.raises(ValueError, match=r"layers\.1 on disk.* load it without device_map"):
        zoopt.ZOOptimizer(model)

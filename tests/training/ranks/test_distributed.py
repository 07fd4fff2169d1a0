"""Collectives match a single process; rendezvous reads the launchers' environments."""

from __future__ import annotations

import os
import re
import stat
from types import SimpleNamespace

import helpers_ranks
import pytest
import torch

from patchmill.cluster.job import process
from patchmill.loaders.common.errors import MillError
from patchmill.training.ranks import distributed, failures, rendezvous
from patchmill.training.ranks.reasons import reason

SLURM = dict(
    SLURM_NTASKS="4",
    SLURM_PROCID="3",
    SLURM_LOCALID="1",
    SLURM_JOB_ID="4711",
    SLURM_STEP_ID="0",
    SLURM_JOB_NODELIST="gpu[07-08]",
)


def test_collectives_of_one_process_are_the_identity():
    world = distributed.connect("cpu")
    assert world == distributed.World() == distributed.current()
    x = torch.randn(4, 3, requires_grad=True)
    assert distributed.gather(x) is x
    assert not distributed.gather_no_grad(x).requires_grad
    assert distributed.all_reduce(x) is x
    mixed, order = distributed.shuffle(x)
    assert distributed.unshuffle(mixed, order) is x
    assert distributed.mean(x) is x
    assert distributed.any_rank(True) and not distributed.any_rank(False)
    assert distributed.gather_objects("mine") == ["mine"]
    distributed.close()


def test_two_ranks(tmp_path):
    first, second = helpers_ranks.run_well(
        """
        world = distributed.connect("cpu")
        from torch.nn.parallel import DistributedDataParallel

        # Gathered rows, and gradients as one process with all rows has them.
        torch.manual_seed(0)
        everything = torch.randn(6, 4)
        linear = torch.nn.Linear(4, 5)
        whole = torch.nn.Linear(4, 5)
        whole.load_state_dict(linear.state_dict())
        def losses(z, mine):  # of each row of `mine`, against all of z
            return (mine @ z.T).logsumexp(1) - z.square().sum()
        trained = DistributedDataParallel(linear)
        mine = trained(everything[3 * world.rank : 3 * world.rank + 3])
        z = distributed.gather(mine)
        torch.testing.assert_close(z, whole(everything))
        losses(z, mine).mean().backward()
        out = whole(everything)
        losses(out, out).mean().backward()
        for one, other in zip(linear.parameters(), whole.parameters()):
            torch.testing.assert_close(one.grad, other.grad)
        assert not distributed.gather_no_grad(mine).requires_grad

        # The mean over all rows, and gradients as one process has them.
        for network in (trained, whole):
            network.zero_grad()
        mine = trained(everything[3 * world.rank : 3 * world.rank + 3])
        mean = distributed.all_reduce(mine.cos().sum(0)) / 6
        torch.testing.assert_close(mean, whole(everything).cos().mean(0))
        mean.square().sum().backward()
        whole(everything).cos().mean(0).square().sum().backward()
        for one, other in zip(linear.parameters(), whole.parameters()):
            torch.testing.assert_close(one.grad, other.grad)
        x = torch.full((2, 3), float(world.rank), dtype=torch.float64, requires_grad=True)
        weights = torch.arange(12.0, dtype=torch.float64).view(4, 3)
        (distributed.gather(x) * weights * (1 + world.rank)).sum().backward()
        assert torch.equal(x.grad, 3 * weights[2 * world.rank : 2 * world.rank + 2])

        # Every row is somewhere else, and comes back.
        rows = torch.arange(6.0).view(6, 1)[3 * world.rank : 3 * world.rank + 3]
        torch.manual_seed(world.rank)  # only rank 0 draws
        mixed, order = distributed.shuffle(rows)
        assert sorted(order.tolist()) == list(range(6))
        assert torch.equal(mixed.flatten().long(), order[3 * world.rank : 3 * world.rank + 3])
        assert torch.equal(distributed.unshuffle(mixed * 10, order), rows * 10)

        assert distributed.mean(torch.tensor([world.rank, 4.0])).tolist() == [0.5, 4.0]
        assert distributed.any_rank(world.rank == 1) and not distributed.any_rank(False)
        assert distributed.gather_objects(world.rank) == [0, 1]
        buffer = torch.tensor([float(world.rank)])
        distributed.broadcast_from_rank0([buffer])
        assert buffer == 0
        distributed.close()
        assert distributed.current().size == 1
        print("rank", world.rank, "of", world.size)
        """,
        tmp_path,
    )
    assert first == "rank 0 of 2\n" and second == "rank 1 of 2\n"


# ------------------------------------------------------------------------------------ rendezvous


def test_alone_without_a_launcher_or_in_a_batch_script():
    assert rendezvous.find({}) is None
    assert rendezvous.find(dict(RANK="0", WORLD_SIZE="1")) is None
    assert rendezvous.find(SLURM | dict(SLURM_NTASKS="1")) is None
    script = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}
    assert rendezvous.find(script) is None


def test_torchrun_takes_precedence_over_slurm():
    torchrun = dict(
        RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", MASTER_ADDR="node0", MASTER_PORT="29500"
    )
    assert rendezvous.find(SLURM | torchrun) == (5, 8, 1, "node0", 29500)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A scontrol that answers like SLURM's."""
    program = tmp_path / "scontrol"
    program.write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames gpu[07-08]" ] && printf "gpu07\\ngpu08\\n"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_slurm_names_the_first_host_and_the_job_a_port(scontrol):
    info = rendezvous.find(SLURM)
    assert info[:4] == (3, 4, 1, "gpu07") and info.port in rendezvous.PORTS
    assert rendezvous.find(SLURM | dict(SLURM_JOB_ID="4712")).port != info.port
    named = rendezvous.find(SLURM | dict(MASTER_ADDR="other", MASTER_PORT="1234"))
    assert (named.host, named.port) == ("other", 1234)


def test_missing_variables_are_named(scontrol):
    with pytest.raises(MillError, match=r"first host of SLURM_JOB_NODELIST=nowhere.*MASTER_ADDR"):
        rendezvous.find(SLURM | dict(SLURM_JOB_NODELIST="nowhere"))
    with pytest.raises(MillError, match=r"MASTER_ADDR is missing.*torchrun or srun"):
        rendezvous.find(dict(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0"))


def test_a_rank_that_cannot_join_is_an_error(monkeypatch):
    import datetime

    monkeypatch.setattr(distributed, "JOIN_TIMEOUT", datetime.timedelta(seconds=1))
    environ = dict(
        RANK="1", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="9"
    )
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MillError, match=r"rank 1 of 2 could not join the others at 127.0.0.1:9"):
        distributed.connect("cpu")
    assert distributed.current().size == 1


def test_missing_devices_are_errors():
    if not torch.cuda.is_available():
        assert distributed.connect("auto").device.type == "cpu"
        with pytest.raises(MillError, match=r"train.device=cuda.*torch sees 0 GPUs"):
            distributed.connect("cuda")
    with pytest.raises(MillError, match=r"train.device=cuda:99"):
        distributed.connect("cuda:99")
    for name in ("gpu", "tpu", "cuda:", "cuda:-1", "cuda:x", "", "mps"):
        sentence = f"train.device must be auto, cpu, cuda or cuda:N, not {name!r}; GPUs are cuda"
        with pytest.raises(MillError, match=re.escape(sentence)):
            distributed.connect(name)


def test_gloos_errors_are_shortened():
    said = (
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer "
        "[127.0.0.1]:25311. This is typically caused by a remote worker crashing. Check the logs "
        "of the remote worker before reporting an error. GLHF! \N{CAMPING}\ufe0f"
    )
    assert reason(RuntimeError(said)) == "Connection closed by peer [127.0.0.1]:25311"
    told = str(failures._explain(RuntimeError(said)))
    assert told.startswith("rank 0 lost the others (Connection closed by peer [127.0.0.1]:25311): ")
    assert reason(RuntimeError("[c10d] The client socket has failed\nException raised from a")) == (
        "[c10d] The client socket has failed"
    )
    assert reason(RuntimeError("")) == ""


def test_a_task_that_sees_one_gpu_takes_it(monkeypatch: pytest.MonkeyPatch):
    """The second of two tasks, as under srun --gpus-per-task=1."""
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(MillError, match=r"which is cuda:1 for this rank, .* torch sees 1 GPUs"):
        distributed._device("auto", 1, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert distributed._device("auto", 1, 2) == torch.device("cuda:0")
    assert taken == [torch.device("cuda:0")]
    properties = SimpleNamespace(name="NVIDIA H200", uuid="8f2e")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    assert process._device(1) == "GPU 0 (NVIDIA H200, 8f2e)"


def test_two_ranks_with_one_gpu_are_an_error():
    store = torch.distributed.HashStore()
    store.set("0", "8f2e")
    store.set("2", "91aa")
    with pytest.raises(MillError, match="ranks 1 and 2 have the same GPU"):
        distributed._check_gpus(store, "91aa", 1, 3)
    distributed._check_gpus(store, "c3d0", 1, 3)

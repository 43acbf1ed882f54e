"""The instrument: the walk through a backward pass is autograd's, and what is planted on the fake GPU is seen.

Every family is played by ``make gpu-dry``; here one of them, where torch is a CUDA build.
"""

import pytest
import torch
from places import ROOT

from gpu_dry import controls
from gpu_dry.backward import gradients
from gpu_dry.fake_cuda import FakeCuda, HostSync, WrongDevice, pretended
from gpu_dry.parts import GPU, Base, answer, evaluate, holders, speak, train
from gpu_dry.values import known, on_gpu
from svco.basics.dist import World
from svco.basics.progress import silent
from svco.model.load import load_tuned
from svco.model.recompute import set_recompute
from svco.recipe.read import load_recipe
from svco.run.job import make_job

fake_gpu = pytest.mark.skipif(
    torch.version.cuda is None or torch.cuda.is_available(),
    reason="NOT TESTED: needs a CUDA build of torch, and no GPU: make gpu-dry",
)


@pytest.mark.parametrize("recipe", ["tiny", "tiny_full"])
def test_the_walk_gives_autograds_gradients(recipe, tmp_path):
    """Bit for bit, some layers recomputed."""
    overrides = ["optim.global_batch=2", "optim.steps=1", "data.workers=0", f"data.cache_dir={tmp_path}"]
    config = load_recipe(ROOT / "launchers" / "recipes" / f"{recipe}.yaml", overrides)
    job = make_job(config, World(), silent)
    tuned = load_tuned(job.config, job.family, torch.float32, job.reference, torch.device("cpu"), progress=False)
    set_recompute(tuned.scorer.layers, 1)
    batch = next(iter(job.loader(World(), 0, None))).batches[0]

    def loss():
        return job.objective(*tuned.scorer(batch))[0].mean()

    walked = gradients(loss())
    loss().backward()
    assert len(walked) > 10
    for name, parameter in tuned.trainable.items():
        assert (parameter.grad is None) == (parameter not in walked), name
        assert parameter.grad is None or torch.equal(parameter.grad, walked[parameter]), name


def tied():
    """A model two of whose modules hold one parameter and two hold equal ones, and a module outside with a part of it."""
    model, outside = torch.nn.ModuleList(torch.nn.Linear(3, 3, bias=False) for _ in range(4)), torch.nn.Linear(3, 3)
    model[1].weight = outside.weight = model[0].weight
    model[3].load_state_dict(model[2].state_dict())
    return model, outside


@fake_gpu
def test_a_move_leaves_parameters_the_objects_they_were():
    """On the fake GPU as with real tensors, and what was two stays two; torch's way with fake tensors is the control."""
    model, outside = tied()
    before = holders(model, outside)
    model.to(torch.float64)
    assert holders(model, outside) == before, "real tensors"

    model, outside = tied()
    before = holders(model, outside)
    with FakeCuda():
        model.to(GPU, non_blocking=True)
    assert holders(model, outside) == before and on_gpu(outside.weight)
    assert model[0].weight is model[1].weight and model[2].weight is not model[3].weight
    assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad and p.is_leaf for p in model.parameters())

    model, outside = tied()
    with FakeCuda():
        torch.__future__.set_swap_module_params_on_conversion(False)
        model.to(GPU, non_blocking=True)
    assert model[0].weight is not model[1].weight and not on_gpu(outside.weight)


@fake_gpu
def test_what_is_known_is_what_a_gpu_would_read():
    """Through views and writes as on the host, until something is written that nothing on the host tells."""

    def played(device):
        """Whatever is read of it, with a view of the same memory."""
        ids = torch.tensor([[3, 1, 2], [0, 5, 4]], device=device)
        row = ids[1]
        row += torch.arange(3, device=device)
        ids[:, 0].copy_(torch.tensor([7, 8], device=device))
        mask = ids > 4
        parts = [ids.sum(), ids[mask], *ids.unbind(1), torch.tensor([ids.max(), len(ids[mask])], device=device)]
        scores = torch.zeros(2, 3, device=device)
        scores[mask] = 1.5
        return [*(part.tolist() for part in parts), scores.tolist()], ids, row

    with FakeCuda() as cuda, cuda.waiting(99):
        read, ids, row = played(GPU)
        assert read == played("cpu")[0] and on_gpu(ids)
        weight = torch.nn.Linear(3, 3).to(GPU).weight
        assert known(weight) is None and known(weight[:, :1] * ids[0]) is None
        row.copy_(weight[0])
        assert known(row) is None and ids[0, 1].item() == 99 and torch.zeros(2, device=GPU).tolist() == [0, 0]
        assert known(torch.rand(3, device=GPU)) is None, "what is drawn is another on a GPU"


@fake_gpu
def test_an_index_of_the_host_is_taken_only_where_the_host_may_wait():
    with FakeCuda() as cuda:
        with cuda.waiting():
            hidden, index = torch.nn.Linear(3, 3).to(GPU).weight, torch.tensor([2, 0])
            assert hidden[index].shape == (2, 3) and hidden[torch.tensor([True, False, True])].shape == (2, 3)
        assert cuda.blocking
        with pytest.raises(WrongDevice):
            hidden[index]
        with pytest.raises(HostSync):
            hidden[hidden > 0]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Base("llava15", tmp_path_factory.mktemp("llava15"))


@fake_gpu
def test_a_step_an_evaluation_and_an_answer(base):
    with pretended():
        played = train(base, "lora", "varlen", torch.bfloat16)
        assert played.gradients > 20 and played.operations > 1000
        # The norm, read by the engine; the sums, read when a step is logged.
        assert all(place.startswith(("(svco/engine/plain.py", "(svco/basics/dist.py")) for place in played.waits)
        assert evaluate(base, "sdpa", torch.float16).operations > 1000
        assert answer(base, torch.bfloat16).operations > 1000
        assert {device for _, device in speak().collectives} == {"cuda"}


@fake_gpu
@pytest.mark.parametrize("mistake", controls.MISTAKES)
def test_what_is_planted_is_seen(base, mistake):
    with pretended():
        seen, said = controls.seen(base, *controls.MISTAKES[mistake])
    assert seen, said


@fake_gpu
def test_a_collective_of_the_host_is_seen():
    with pretended():
        seen, said = controls.collective_on_the_host()
    assert seen, said

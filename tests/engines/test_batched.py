"""The batched engine: K probes of one forward against explicit perturbation, one by one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoopt
from zoopt.engines import Batched
from zoopt.interfaces import Change, Place
from zoopt.seeds import key_table, key_words

TEXT = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL = {**TEXT, "intermediate_size": 64}


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=True))


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, **ends))


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**SMALL))


def opt():
    from transformers import OPTConfig, OPTForCausalLM

    return OPTForCausalLM(
        OPTConfig(**TEXT, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64)
    )


def gemma():
    from transformers import GemmaConfig, GemmaForCausalLM

    return GemmaForCausalLM(GemmaConfig(**SMALL, num_key_value_heads=2, head_dim=8))


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {name: size for name, size in SMALL.items() if name != "vocab_size"}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(1568, 3)
    )


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.LayerNorm(8), nn.Linear(8, 3))


class Scaled(nn.Module):
    """Parameters used by arithmetic, transposed, cast, and with a batch dimension of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.token = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(1, 1, 4))
        self.weight, self.temperature = nn.Parameter(torch.eye(4)), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :12].view(-1, 3, 4)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = (1.0 + self.gain.double().float()) * x @ self.weight.t()
        return x / self.temperature - self.gain


MODELS = {f.__name__: f for f in (llama, gpt2, bert, opt, gemma, vit, convolutions, mlp, Scaled)}
IMAGES = {"vit", "convolutions", "mlp", "Scaled"}


def make(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return model, torch.randn(3, 3, 16, 16) if name in IMAGES else torch.randint(0, 61, (3, 7))


def losses_of(model, inputs, engine, direction="lowrank", n=3, eps=0.1, groups=None):
    def closure(population):
        out = model(population.expand(inputs))
        values = getattr(out, "logits", out).float().square()
        return population.per_probe(values).flatten(1).mean(1)

    optimizer = zoopt.ZOOptimizer(
        groups or model, 0.01, zoopt.NSPSA(eps=eps, n=n), direction, engine, seed=1
    )
    records = []
    optimizer.recorder = records.append
    optimizer.step(closure)
    return torch.tensor(records[0].losses), optimizer


@pytest.mark.parametrize(("direction", "n"), [("lowrank", 3), ("lowrank", 33), ("lowrank:3", 32)])
@pytest.mark.parametrize("name", MODELS)
def test_a_population_gives_the_losses_of_probes_one_by_one(name, direction, n):
    """With few directions by products of all rows with all factors, or with many each its own."""
    model, inputs = make(name)
    other = copy.deepcopy(model)
    expected, single = losses_of(model, inputs, "overlay", direction, n)
    found, batched = losses_of(other, inputs, "batched", direction, n)
    assert expected.std() > 1e-3 * expected.mean(), "the probes do not differ"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    assert single.steps == batched.steps == 1


@pytest.mark.parametrize("most", [1, 2, 4, 5])
def test_a_population_in_parts_is_the_same_population(most):
    model, inputs = make("llama")
    expected, _ = losses_of(copy.deepcopy(model), inputs, "batched")
    optimizer = zoopt.ZOOptimizer(
        model, 0.0, zoopt.NSPSA(eps=0.1, n=3), "lowrank", "batched", seed=1
    )
    optimizer.engine.most = most
    sizes, records = [], []
    optimizer.recorder = records.append

    def closure(population):
        sizes.append(population.size)
        values = model(population.expand(inputs)).logits.square()
        return population.per_probe(values).flatten(1).mean(1)

    optimizer.step(closure)
    assert max(sizes) <= most
    assert sum(sizes) == 6
    torch.testing.assert_close(torch.tensor(records[0].losses), expected, rtol=1e-5, atol=0)


def test_groups_have_their_own_scale_and_frozen_parameters_none():
    def groups(model):
        model[1].weight.requires_grad_(False)
        return [
            {"params": [model[1].bias, model[2].weight], "eps": 0.3},
            {"params": [model[3].weight, model[3].bias], "eps": 0.05},
        ]

    model, inputs = make("mlp")
    other = copy.deepcopy(model)
    expected, _ = losses_of(model, inputs, "overlay", groups=groups(model))
    found, _ = losses_of(other, inputs, "batched", groups=groups(other))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_the_exact_perturbation(dtype):
    model, inputs = make("llama")
    expected, _ = losses_of(copy.deepcopy(model), inputs, "overlay")
    found, _ = losses_of(model.to(dtype), inputs, "batched")
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", [nn.RMSNorm(8), nn.LayerNorm(8), nn.GroupNorm(2, 8)], ids=repr)
def test_in_half_precision_a_norm_of_ones_is_rounded_once(norm, dtype):
    """A normalized number times 1 ± ε rounds to itself where it was rounded before."""
    model, inputs = copy.deepcopy(norm).to(dtype), torch.randn(3, 8).to(dtype)
    other = copy.deepcopy(model)
    expected, _ = losses_of(other, inputs, "overlay", eps=1e-3, groups=[other.weight])
    found, _ = losses_of(model, inputs, "batched", eps=1e-3, groups=[model.weight])
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


class Parted(nn.Module):
    """Parameters in parts: what one operation makes of them is several tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.gates = nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        up, down = self.weight.chunk(2)
        y = F.linear(x, up) * F.linear(x, self.weight)[:, 4:] + F.linear(x, down)
        y = y * self.gates.split(4)[1] + sum(gate * x for gate in self.gates[:3])
        y[:, 2:] = self.gates[:2]
        return y


def test_what_is_made_of_parameters_in_parts_is_perturbed_part_by_part():
    torch.manual_seed(0)
    model, inputs = Parted(), torch.randn(3, 4)
    expected, _ = losses_of(copy.deepcopy(model), inputs, "overlay")
    found, _ = losses_of(model, inputs, "batched")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_states_whose_batch_comes_second_are_refused(kind):
    model = kind(4, 5, batch_first=True)
    optimizer = zoopt.ZOOptimizer(model, 0.1, "spsa", "lowrank", "batched")
    with pytest.raises(NotImplementedError, match="engine='overlay', which evaluates one probe"):
        optimizer.step(
            lambda population: population.per_probe(
                model(population.expand(torch.randn(3, 2, 4)))[0]
            ).mean((1, 2, 3))
        )


def test_under_autocast_the_losses_are_those_of_overlay():
    model, inputs = make("llama")
    with torch.autocast("cpu", torch.bfloat16):
        expected, _ = losses_of(copy.deepcopy(model), inputs, "overlay")
        found, _ = losses_of(model, inputs, "batched")
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)


def test_the_peak_of_a_probe_decides_how_many_fit(monkeypatch):
    monkeypatch.setattr("zoopt.engines.batched.available_bytes", lambda device: 1 << 20)
    model, inputs = make("llama")
    _, optimizer = losses_of(model, inputs, "batched")
    few = optimizer.engine.most
    monkeypatch.setattr("zoopt.engines.batched.available_bytes", lambda device: 1 << 24)
    model, inputs = make("llama")
    _, optimizer = losses_of(model, inputs, "batched")
    assert 1 <= few < optimizer.engine.most
    assert optimizer.engine.most == pytest.approx(16 * few, rel=0.5, abs=16)


# ------------------------------------------------------------------------------------- generation


def texts(model, prompt, engine, eps, sample):
    said = []

    def closure(population):
        torch.manual_seed(3)
        out = model.generate(
            population.expand(prompt), max_new_tokens=6, do_sample=sample, pad_token_id=0
        )
        said.append(population.per_probe(out))
        return population.per_probe(out.float()).flatten(1).mean(1)

    optimizer = zoopt.ZOOptimizer(model, 0.0, zoopt.NSPSA(eps=eps, n=2), "lowrank", engine, seed=1)
    optimizer.estimate(closure)
    return said[-1] if engine == "batched" else torch.cat(said)


def test_a_population_generates_what_its_probes_generate_alone():
    model, _ = make("llama")
    prompt = torch.randint(1, 61, (2, 4))
    alone = texts(model, prompt, "overlay", 0.3, sample=False)
    together = texts(model, prompt, "batched", 0.3, sample=False)
    assert torch.equal(together, alone)
    assert len({tuple(text.flatten().tolist()) for text in together}) > 1


def test_probes_sample_with_the_same_noise():
    model, _ = make("llama")
    prompt = torch.randint(1, 61, (1, 4)).repeat(5, 1)
    said = texts(model, prompt, "batched", 1e-9, sample=True)
    assert all(torch.equal(text, said[0]) for text in said)
    assert len({tuple(text.tolist()) for text in said[0]}) > 1, "examples draw independently"


def test_shared_choices_follow_the_distribution():
    from zoopt.engines.batching.sampling import Noise, shared_choice

    population = zoopt.Population(2)
    population.declare(2 * 20_000)
    weights = torch.tensor([0.5, 1.0, 2.5]).expand(population.rows, 3)
    drawn = shared_choice(population, Noise(), (weights, 1), {})
    shares = torch.bincount(drawn[:20_000, 0], minlength=3) / 20_000
    assert torch.equal(drawn[:20_000], drawn[20_000:])
    torch.testing.assert_close(shares, torch.tensor([0.125, 0.25, 0.625]), rtol=0, atol=0.02)
    with pytest.raises(NotImplementedError, match="one sample for each"):
        shared_choice(population, Noise(), (weights, 2), {})


# ---------------------------------------------------------------------------------- what it refuses


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


class Mixing(nn.Module):
    """Standardizes over the batch, so that a probe's rows feel the others'."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        return self.last(x - x.mean(0))


def step(model, inputs, **options):
    options = {"direction": "lowrank", "engine": "batched", **options}
    optimizer = zoopt.ZOOptimizer(model, 0.01, zoopt.NSPSA(eps=0.1, n=2), **options)
    return optimizer.step(
        lambda population: population.per_probe(model(population.expand(inputs))).flatten(1).mean(1)
    )


class Contrasting(nn.Module):
    """Compares each row with all rows of the batch, as CLIP does with in-batch negatives."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.inner(x)
        return -(rows @ rows.T).log_softmax(1).diagonal()


def test_probes_that_are_mixed_after_the_last_parameter_are_refused():
    before = torch.get_rng_state()
    model, rows = Contrasting(), torch.randn(5, 4)
    with pytest.raises(RuntimeError, match=r"beside other probes: the objective mixes .*per_probe"):
        step(model, rows)
    optimizer = zoopt.ZOOptimizer(
        model, 0.0, zoopt.NSPSA(eps=0.1, n=2), direction="lowrank", engine="batched"
    )

    def apart(population):
        parts = population.per_probe(model.inner(population.expand(rows)))
        return [-(part @ part.T).log_softmax(1).diagonal().mean() for part in parts]

    optimizer.step(apart)
    one_by_one = zoopt.ZOOptimizer(
        model, 0.0, zoopt.NSPSA(eps=0.1, n=2), direction="lowrank", engine="overlay"
    )
    one_by_one.step(lambda: model(rows).mean())
    assert optimizer.estimated.losses == pytest.approx(one_by_one.estimated.losses, rel=1e-5)
    torch.set_rng_state(before)


def test_dense_directions_are_refused_with_the_alternatives():
    with pytest.raises(TypeError, match="use direction='lowrank', or engine='overlay'"):
        zoopt.ZOOptimizer(nn.Linear(2, 2), direction="gaussian", engine="batched")


def test_a_closure_without_population_is_told_what_to_write():
    optimizer = zoopt.ZOOptimizer(nn.Linear(2, 2), direction="lowrank", engine="batched")
    with pytest.raises(TypeError, match=r"opt\.step\(lambda population"):
        optimizer.step(lambda: 0.0)


def test_a_closure_that_does_not_expand_is_told_to():
    model = nn.Linear(4, 1)
    optimizer = zoopt.ZOOptimizer(model, direction="lowrank", engine="batched")
    with pytest.raises(NotImplementedError, match=r"0 rows|population\.expand"):
        optimizer.step(lambda population: model(torch.ones(2, 4)).view(-1))


@pytest.mark.parametrize("tokens", [5, 8, 2])
def test_a_batch_that_is_not_first_is_refused(tokens):
    """5 tokens fit nowhere; 8 are as many as the rows of the population, 2 as those of a probe."""
    before = nn.Linear(4, 4).state_dict()
    model = TimeFirst()
    model.inner.load_state_dict(before)
    with pytest.raises((NotImplementedError, RuntimeError), match="first dimension"):
        step(model, torch.randn(2, tokens, 4))
    assert all(torch.equal(model.inner.state_dict()[k], v) for k, v in before.items())


def test_a_model_that_mixes_rows_is_refused():
    with pytest.raises(RuntimeError, match="mixes rows of its batch"):
        step(Mixing(), torch.randn(2, 4))


def test_a_number_read_from_a_tuned_parameter_is_refused():
    """It would be that of no probe; a penalty on weights, say."""
    model = nn.Linear(4, 1)

    def penalized(population):
        out = population.per_probe(model(population.expand(torch.ones(2, 4)))).flatten(1).mean(1)
        return out + model.weight.norm().item()

    optimizer = zoopt.ZOOptimizer(model, direction="lowrank", engine="batched")
    with pytest.raises(NotImplementedError, match=r"was read from weight .* engine='overlay'"):
        optimizer.step(penalized)


def test_a_parameter_that_meets_no_activation_counts_as_unused():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.scale = nn.Linear(4, 1), nn.Parameter(torch.ones(3))
            self.never = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.scale.square().sum()
            return self.inner(x)

    with pytest.raises(zoopt.UnseenParameterError, match=r"scale, never\.weight, never\.bias"):
        step(Constant(), torch.randn(2, 4))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda population: 0.0, "returned 1 values for a population of"),
        (lambda population: torch.zeros(population.size, 2), "expected one number"),
        (lambda population: torch.zeros(population.size + 1), "expected one per probe"),
    ],
)
def test_a_closure_that_returns_something_else_is_told_so(returned, message):
    model = nn.Linear(4, 1)
    optimizer = zoopt.ZOOptimizer(
        model, 0.0, zoopt.NSPSA(n=2), direction="lowrank", engine="batched"
    )

    def closure(population):
        model(population.expand(torch.ones(2, 4)))
        return returned(population)

    optimizer.engine.most = 4
    with pytest.raises(TypeError, match=message):
        optimizer.step(closure)


def test_an_error_in_the_closure_leaves_theta_and_the_next_step_works():
    model, inputs = make("mlp")
    before = copy.deepcopy(model.state_dict())
    optimizer = zoopt.ZOOptimizer(model, 0.01, direction="lowrank", engine="batched")

    def broken(population):
        model(population.expand(inputs))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(broken)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert isinstance(optimizer.engine, Batched)
    step(model, inputs)


# -------------------------------------------------------------------------------------- populations


def test_every_engine_calls_a_closure_with_a_population(engine_name, direction_name):
    x = nn.Parameter(torch.ones(3))
    sizes = []

    def closure(population):
        sizes.append(population.size)
        return x.square().sum()

    zoopt.ZOOptimizer([x], 0.01, "mezo", direction_name, engine_name).step(closure)
    assert sizes == [1, 1]


def test_expand_takes_containers_and_refuses_unequal_lengths():
    population = zoopt.Population(3)
    out = population.expand({"a": torch.arange(2), "b": (torch.ones(2, 4), "text")})
    assert out["a"].tolist() == [0, 1, 0, 1, 0, 1]
    assert out["b"][0].shape == (6, 4)
    assert out["b"][1] == "text"
    assert population.rows == 6
    assert torch.equal(population.per_probe(out["a"]), torch.arange(2).expand(3, 2))
    with pytest.raises(ValueError, match=r"\[2, 3\] rows"):
        population.expand([torch.ones(2), torch.ones(3)])
    with pytest.raises(ValueError, match="do not divide"):
        population.declare(4)


def test_a_linear_probe_of_rank_one_is_an_outer_product():
    direction = zoopt.LowRank()
    z = torch.zeros(40, 30)
    direction.add_(Change.of(z, 0, ((5, 1.0),)))
    assert set(z.unique().tolist()) == {-1.0, 1.0}
    assert int(torch.linalg.matrix_rank(z)) == 1
    x = torch.randn(2, 30)
    ((a, b),) = direction.factors([Place(z, 0)], [5])
    torch.testing.assert_close(F.linear(x, z), x @ b @ a.T)


@pytest.mark.parametrize("rank", [1, 3])
def test_factors_of_many_tensors_are_those_of_each_under_each_seed(rank):
    direction, seeds = zoopt.LowRank(rank), [3, 2**64 - 1, 0]
    shapes = [(40, 30), (600,), (2, 700), (5, 3, 4), (3,)]
    places = [Place(torch.empty(*shape), 7 * i) for i, shape in enumerate(shapes)]
    together = direction.factors(places, seeds)
    for place, (left, right) in zip(places, together, strict=True):
        m, n = len(place.tensor), place.tensor.numel() // len(place.tensor)
        assert left.shape[0] == m
        assert right.shape[0] == n
        for s, (a, b) in enumerate(zip(left.chunk(3, dim=1), right.chunk(3, dim=1), strict=True)):
            ((alone_a, alone_b),) = direction.factors([place], [seeds[s]])
            assert torch.equal(a, alone_a)
            assert torch.equal(b, alone_b)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_factors_of_matrices_are_rounded_to_their_dtype_and_those_of_vectors_are_not(rank, dtype):
    direction, seeds = zoopt.LowRank(rank), [4, 9]
    tensors = [torch.empty(40, 30, dtype=dtype), torch.empty(7), torch.empty(20, 5)]
    places = [Place(tensor, i) for i, tensor in enumerate(tensors)]
    exact = direction.factors(places, seeds)
    found = direction.factors(places, seeds, rounded=True)
    for place, whole, rounded in zip(places, exact, found, strict=True):
        for side, other in zip(whole, rounded, strict=True):
            assert other.dtype == place.tensor.dtype
            assert torch.equal(side.to(other.dtype), other)
    ((vector, _),) = direction.factors([Place(torch.empty(9, dtype=dtype), 0)], seeds, rounded=True)
    assert vector.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1])
@pytest.mark.parametrize("path", [(0, 0, 2), (7, 1 << 31, 3)])
def test_a_table_of_keys_has_the_key_of_each(seed, path):
    table = key_table([1, seed], [(3, 4, 5), path])
    assert table[1, 1].tolist() == list(key_words(seed, *path))
    assert table[0, 1].tolist() == list(key_words(seed, 3, 4, 5))


@pytest.mark.parametrize(("name", "rank"), [("lowrank", 1), ("lowrank:4", 4)])
def test_a_rank_is_part_of_the_name(name, rank):
    optimizer = zoopt.ZOOptimizer(nn.Linear(8, 8), direction=name)
    assert optimizer.direction.rank == rank
    assert optimizer.direction.name == name


@pytest.mark.parametrize("name", ["lowrank:x", "lowrank:", "rademacher:2"])
def test_a_number_that_means_nothing_is_refused(name):
    with pytest.raises(ValueError, match="as parameter"):
        zoopt.ZOOptimizer(nn.Linear(2, 2), direction=name)


def test_a_run_with_the_batched_engine_learns_resumes_and_replays(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 4, generator=generator)
    rows = [{"x": r.tolist(), "label": "yes" if r[0] > 0 else "no"} for r in x]

    def made():
        torch.manual_seed(1)
        task = zoopt.HeadClassification(
            rows[:60],
            rows[60:],
            labels=["no", "yes"],
            collate=lambda batch: torch.tensor([row["x"] for row in batch]),
        )
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), task

    options = {
        "objective": "cross_entropy", "estimator": "nspsa", "n": 4, "eps": 0.01, "lr": 0.2,
        "direction": "lowrank", "engine": "batched", "batch_size": 16, "eval_every": 20,
        "steps": 60, "run_dir": tmp_path, "quiet": True,
    }  # fmt: skip
    model, task = made()
    result = zoopt.tune(model, task=task, **options)
    base, _ = made()
    zoopt.replay(base, tmp_path, step=result.best_step)
    for p, q in zip(model.parameters(), base.parameters(), strict=True):
        assert torch.equal(p, q)
    assert result.best_score < 0.6

"""Adapters of PEFT: the engines agree on them, a prefix begins with real tokens, and they save."""

import copy

import peft
import pytest
import torch
from peft import PeftModel, TaskType

import zoopt

CAUSAL = {"task_type": TaskType.CAUSAL_LM}
ADAPTERS = {
    "lora": peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **CAUSAL),
    "ia3": peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **CAUSAL
    ),
    "prompt": peft.PromptTuningConfig(num_virtual_tokens=3, **CAUSAL),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=3, **CAUSAL),
}


def adapted(model, adapter):
    torch.manual_seed(1)
    made = peft.get_peft_model(copy.deepcopy(model), ADAPTERS[adapter])
    for name, parameter in made.named_parameters():
        if "lora_B" in name:  # zero in a new adapter, which hides lora_A
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def losses(model, batch, engine, direction="gaussian"):
    estimator = zoopt.NSPSA(eps=1e-2, n=2, direction=direction)
    optimizer = zoopt.ZOOptimizer(model, lr=1e-3, estimator=estimator, engine=engine)

    def each(probes):
        out = model(input_ids=probes.expand(batch)).logits
        return probes.per_probe(out).square().mean((1, 2, 3))

    optimizer.estimate(each)
    optimizer.settle()
    return optimizer.estimated.losses


@pytest.fixture
def batch(texts):
    return torch.stack([row["input_ids"] for row in texts[:4]])


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_the_engines_agree(decoder, batch, adapter):
    model = adapted(decoder, adapter)
    expected = losses(model, batch, "copy")
    for engine in ("inplace", "overlay"):
        assert losses(model, batch, engine) == pytest.approx(expected, rel=1e-5)
    assert len(set(expected)) == 4


@pytest.mark.parametrize("adapter", ["lora", "ia3", "prefix"])
def test_the_batched_engine_agrees(decoder, batch, adapter):
    model = adapted(decoder, adapter)
    expected = losses(model, batch, "copy", "lowrank")
    assert losses(model, batch, "batched", "lowrank") == pytest.approx(expected, rel=1e-4)


def test_the_batched_engine_refuses_a_prompt_that_is_repeated(decoder, batch):
    with pytest.raises(TypeError, match=r"PROMPT_TUNING.*engine='overlay'"):
        losses(adapted(decoder, "prompt"), batch, "batched", "lowrank")


@pytest.mark.parametrize("ids", [[3, 7, 11], None])
def test_a_prefix_from_tokens_answers_as_if_they_came_first(decoder, batch, ids):
    model = adapted(decoder, "prefix")
    zoopt.prefix_from_tokens(model, ids, seed=4)
    drawn = torch.randint(20, (3,), generator=torch.Generator().manual_seed(4))
    tokens = torch.tensor(ids) if ids else drawn
    with torch.no_grad():
        found = model(input_ids=batch).logits
        whole = decoder(input_ids=torch.cat([tokens.expand(4, 3), batch], dim=1)).logits
    torch.testing.assert_close(found, whole[:, 3:], rtol=1e-4, atol=1e-5)


def test_a_prefix_of_another_length_or_kind_is_refused(decoder):
    with pytest.raises(ValueError, match="got 2 ids for a prefix of 3 tokens"):
        zoopt.prefix_from_tokens(adapted(decoder, "prefix"), [1, 2])
    with pytest.raises(ValueError, match="LORA, expected PREFIX_TUNING"):
        zoopt.prefix_from_tokens(adapted(decoder, "lora"), [1, 2, 3])


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_a_trainer_tunes_the_adapter_alone_and_saves_it_alone(
    decoder, texts, make_trainer, tmp_path, batch, adapter
):
    trainer = make_trainer(adapted(decoder, adapter), texts, learning_rate=1e-1)
    trainer.train()
    tuned = trainer.model
    expected_eps = {"lora": 1e-2, "prefix": 1e-1}.get(adapter, 1e-3)
    assert trainer.zo_optimizer.param_groups[0]["eps"] == expected_eps
    base = dict(decoder.named_parameters())
    for name, parameter in tuned.get_base_model().named_parameters():
        if name in base:
            assert torch.equal(parameter, base[name])

    trainer.save_model(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(copy.deepcopy(decoder), tmp_path / "adapter")
    before = adapted(decoder, adapter)
    with torch.no_grad():
        said, told = tuned.eval()(input_ids=batch).logits, loaded(input_ids=batch).logits
        began = before.eval()(input_ids=batch).logits
    torch.testing.assert_close(told, said)
    assert not torch.equal(said, began)


def test_a_merged_model_answers_as_the_adapted_one(decoder, texts, make_trainer, tmp_path, batch):
    trainer = make_trainer(adapted(decoder, "lora"), texts, learning_rate=1e-1)
    trainer.train()
    with torch.no_grad():
        said = trainer.model.eval()(input_ids=batch).logits
        trainer.model.merge_and_unload().save_pretrained(tmp_path / "merged")
        merged = type(decoder).from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(merged(input_ids=batch).logits, said, rtol=1e-4, atol=1e-5)


def test_an_adapters_checkpoint_resumes(decoder, texts, make_trainer, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "engine": "overlay"}
    whole = make_trainer(adapted(decoder, "lora"), texts, **settings)
    whole.train()
    resumed = make_trainer(adapted(decoder, "lora"), texts, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_is_tuned_beside_an_adapter_has_an_eps_of_its_own(decoder, texts, make_trainer):
    def tuned(config, **options):
        model = peft.get_peft_model(copy.deepcopy(decoder), config)
        trainer = make_trainer(model, texts, max_steps=1, **options)
        trainer.train()
        groups = trainer.zo_optimizer.param_groups
        slots = trainer.zo_optimizer.slots
        return {slot.name: groups[slot.group]["eps"] for slot in slots}

    lora = {"r": 2, "target_modules": ["q_proj"], **CAUSAL}
    beside = peft.LoraConfig(**lora, modules_to_save=["lm_head"])
    eps = tuned(beside)
    assert {scale for name, scale in eps.items() if "lora" in name} == {1e-2}
    assert [scale for name, scale in eps.items() if "lm_head" in name] == [1e-3]
    assert len(eps) == 5
    assert set(tuned(beside, zo=zoopt.MeZO(eps=0.5)).values()) == {0.5}
    assert len(tuned(beside, params="*lora*")) == 4
    assert set(tuned(peft.LoraConfig(**lora)).values()) == {1e-2}


def test_tune_keeps_the_adapter_alone(decoder, tmp_path):
    rows = [{"x": [3 + k, 5, 7], "label": "ab"[k % 2]} for k in range(8)]

    class Last(torch.nn.Module):
        """A classifier by the logits of two tokens."""

        def __init__(self, model):
            super().__init__()
            self.model = model
            self.save_pretrained = model.save_pretrained

        def forward(self, ids):
            return self.model(input_ids=ids).logits[:, -1, :2]

    task = zoopt.HeadClassification(
        rows,
        labels=["a", "b"],
        collate=lambda batch: torch.tensor([row["x"] for row in batch]),
    )
    model = Last(adapted(decoder, "lora"))
    options = {"objective": "cross_entropy", "steps": 2, "batch_size": 4, "quiet": True}
    zoopt.tune(model, task=task, run_dir=tmp_path / "run", **options)
    saved = {path.name for path in (tmp_path / "run" / "best").iterdir()}
    assert "adapter_model.safetensors" in saved
    assert "model.safetensors" not in saved

"""A checkpoint folder from a trained pipeline."""

import json

import pytest
import torch

from pipelines import ARDragPipeline
from training.export import ExportConfig, main
from training.run.runtime import add_lora, save_lora


@pytest.fixture
def trained(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "runs" / "pipeline")
    return tmp_path / "runs" / "pipeline"


def decoder_trained_further(pipeline, folder, part):
    """A VAE folder whose `part` differs from the pipeline's."""
    vae = type(pipeline.vae).from_config(pipeline.vae.config)
    vae.load_state_dict(pipeline.vae.state_dict())
    with torch.no_grad():
        next(getattr(vae, part).parameters()).add_(1)
    vae.register_to_config(latents_mean=[9.0] * vae.config.z_dim)
    vae.save_pretrained(folder)
    return vae


def test_a_checkpoint_does_not_name_the_folder_where_it_was_trained(trained, tmp_path):
    main(ExportConfig(pipeline=str(trained), output_dir=str(tmp_path / "out" / "mine"), num_inference_steps=2))
    files = list((tmp_path / "out" / "mine").rglob("*.json"))
    assert files and not [file for file in files if str(tmp_path) in file.read_text()]
    assert json.loads((tmp_path / "out" / "mine" / "model_index.json").read_text())["_name_or_path"] == "mine"
    saved = ARDragPipeline.from_pretrained(tmp_path / "out" / "mine")
    assert saved.scheduler.config.num_inference_steps == 2


def test_half_the_size_is_loaded_as_precise_as_ever(make_pipeline, outline, tmp_path):
    """Also a network of outlines that comes from elsewhere."""
    whole = make_pipeline()
    whole.save_pretrained(tmp_path / "runs" / "pipeline")
    outline.save_pretrained(tmp_path / "runs" / "pipeline" / "outline")
    given = {"pipeline": str(tmp_path / "runs" / "pipeline"), "output_dir": str(tmp_path / "out")}
    main(
        ExportConfig(**given, outline=str(tmp_path / "runs" / "pipeline" / "outline"), half=["transformer", "outline"])
    )
    whole.register_modules(outline=outline)
    saved = ARDragPipeline.from_pretrained(tmp_path / "out")
    for name in ("transformer", "outline"):
        state = whole.components[name].state_dict()
        for key, value in saved.components[name].state_dict().items():
            assert value.dtype == torch.float32 and torch.equal(value, state[key].half().float()), key
        size = sum(file.stat().st_size for file in (tmp_path / "out" / name).glob("*.safetensors"))
        before = sum(file.stat().st_size for file in (tmp_path / "runs" / "pipeline" / name).glob("*.safetensors"))
        assert size < 0.75 * before
    assert not [file for file in (tmp_path / "out").rglob("*.json") if str(tmp_path) in file.read_text()]


def test_only_what_is_there_and_can_be_halved_is(trained, tmp_path):
    with pytest.raises(ValueError, match="half: vae is not written in half precision; only transformer and outline"):
        ExportConfig(pipeline=str(trained), output_dir=str(tmp_path / "out"), half=["vae"])
    with pytest.raises(ValueError, match="half: .* has no outline; leave it out"):
        main(ExportConfig(pipeline=str(trained), output_dir=str(tmp_path / "out"), half=["outline"]))


def test_a_decoder_may_be_another_one_and_the_statistics_stay(pipeline, trained, tmp_path):
    other = decoder_trained_further(pipeline, tmp_path / "vae", "decoder")
    main(ExportConfig(pipeline=str(trained), output_dir=str(tmp_path / "out"), vae=str(tmp_path / "vae")))
    saved = ARDragPipeline.from_pretrained(tmp_path / "out")
    assert saved.vae.config.latents_mean == pipeline.vae.config.latents_mean
    assert all(torch.equal(a, b) for a, b in zip(saved.vae.parameters(), other.parameters(), strict=True))


def test_an_adapter_becomes_part_of_the_weights(make_pipeline, trained, tmp_path):
    learnt = make_pipeline()
    learnt.transformer.load_state_dict(ARDragPipeline.from_pretrained(trained).transformer.state_dict())
    add_lora(learnt.transformer, 2, alpha=2)
    for name, p in learnt.transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    save_lora(learnt, tmp_path / "lora")
    main(ExportConfig(pipeline=str(trained), output_dir=str(tmp_path / "out"), lora=str(tmp_path / "lora")))
    saved = ARDragPipeline.from_pretrained(tmp_path / "out").transformer
    plain = ARDragPipeline.from_pretrained(trained).transformer
    assert saved.state_dict().keys() == plain.state_dict().keys()
    inputs = torch.randn(1, 12, 2, 8, 8), torch.tensor([500.0]), torch.randn(1, 5, 64), torch.randn(1, 65, 64)
    one, other, before = (model(*inputs, return_dict=False)[0] for model in (learnt.transformer, saved, plain))
    torch.testing.assert_close(other, one)
    assert not torch.allclose(other, before)


def test_another_encoder_is_refused(pipeline, trained, tmp_path):
    decoder_trained_further(pipeline, tmp_path / "vae", "encoder")
    with pytest.raises(ValueError, match="vae: encoder.* differs from the pipeline's; only the decoder may"):
        main(ExportConfig(pipeline=str(trained), output_dir=str(tmp_path / "out"), vae=str(tmp_path / "vae")))
    assert not (tmp_path / "out").exists()

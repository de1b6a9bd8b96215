"""Every way of offloading is seen."""

import pytest

from pipelines.inputs.hooks import is_hooked


WAYS = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "sequential": lambda pipe: pipe.enable_sequential_cpu_offload(device="cpu"),
    "leaves": lambda pipe: pipe.enable_group_offload("cpu", offload_type="leaf_level"),
    "blocks": lambda pipe: pipe.enable_group_offload("cpu", offload_type="block_level", num_blocks_per_group=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_offloading_hangs_hooks_on_models(make_pipeline, way):
    pipe = make_pipeline()
    models = [pipe.transformer, pipe.vae, pipe.text_encoder, pipe.image_encoder]
    assert not any(map(is_hooked, models))
    WAYS[way](pipe)
    assert all(map(is_hooked, models))
    assert pipe._execution_device.type == "cpu"

"""diffusers' own test suites on our classes, and on Wan's as a control, with components that need no download.

This file is no test by itself: `tests/upstream/run.py` puts it into a copy of diffusers' tests, whose mixins it fills.
Three things are ours to choose. The pipeline runs in one chunk of three latents and makes its first frame, so that a
clip is one denoising loop, as the suites think of it. Where a suite asks for pickles, it gets safetensors.
And the pipeline is entered among diffusers' own, where one test looks for its source.
"""

import unittest

import diffusers.pipelines
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from PIL import Image

from ardrag.flow import FewStepScheduler
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from pipelines.hub.mixin import HubMixin
from training.run import tiny

from ..models.testing_utils import AttentionTesterMixin, BaseModelTesterConfig, ModelTesterMixin, TrainingTesterMixin
from ..models.testing_utils import LoraTesterMixin as ModelLoraTesterMixin
from ..models.testing_utils import MemoryTesterMixin as ModelMemoryTesterMixin
from ..pipelines.test_pipelines_common import PipelineTesterMixin as UnittestPipelineMixin
from ..pipelines.testing_utils import BasePipelineTesterConfig, MemoryTesterMixin, PipelineTesterMixin
from ..pipelines.testing_utils.lora import LoraTesterMixin
from ..schedulers.test_schedulers import SchedulerCommonTest
from ..testing_utils import torch_device


saved_without_pickles = HubMixin.save_pretrained


def save_pretrained(self, save_directory, safe_serialization=True, **kwargs):
    saved_without_pickles(self, save_directory, **kwargs)


HubMixin.save_pretrained = save_pretrained
diffusers.pipelines.ARDragPipeline = ARDragPipeline  # where one test looks up the source of encode_prompt
SIZES = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "freq_dim": 256,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}
SIDE = 16
CALL = ["image", "prompt", "negative_prompt", "guidance_scale", "prompt_embeds", "negative_prompt_embeds"]
OPTIONAL = ["num_inference_steps", "num_videos_per_prompt", "generator", "latents", "output_type", "return_dict"]


class ModelConfig(BaseModelTesterConfig):
    model_class = None
    output_shape = input_shape = (4, 2, 16, 16)
    main_input_name = "hidden_states"

    def get_init_dict(self):
        return {**SIZES, "in_channels": 4, "out_channels": 4, "text_dim": 16}

    def get_dummy_inputs(self):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(shape, generator=generator).to(torch_device, self.torch_dtype)

        timestep = torch.randint(0, 1000, (1,), generator=generator).to(torch_device)
        return {
            "hidden_states": draw(1, 4, 2, 16, 16),
            "encoder_hidden_states": draw(1, 12, 16),
            "timestep": timestep,
        }


class OurModel(ModelConfig):
    model_class = CausalWanTransformer


class WanModel(ModelConfig):
    model_class = WanTransformer3DModel


class Training(TrainingTesterMixin):
    def test_gradient_checkpointing_is_applied(self):
        super().test_gradient_checkpointing_is_applied(expected_set={self.model_class.__name__})


def build_components(**classes):
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    tokenizer = tiny.train_tokenizer(["dance monkey", "negative", "very long"], vocab_size=300)
    image_encoder, image_processor = tiny.build_image_encoder(SIDE * 2)
    parts = {
        "vae": vae.eval(),
        "text_encoder": tiny.build_text_encoder(len(tokenizer)).eval(),
        "tokenizer": tokenizer,
        "image_encoder": image_encoder.eval(),
        "image_processor": image_processor,
    }
    torch.manual_seed(0)
    return {**{name: build() for name, build in classes.items()}, **parts}


def our_components():
    layout = {"latents": 16, "motion": 16, "image": 16}
    options = {**SIZES, "in_channels": 48, "out_channels": 16, "text_dim": tiny.TEXT_WIDTH}
    options |= {"image_dim": tiny.IMAGE_WIDTH, "added_kv_proj_dim": 24, "image_context": "first", "chunk_frames": 3}
    return build_components(
        transformer=lambda: CausalWanTransformer(**options, input_layout=layout).eval(),
        scheduler=lambda: FewStepScheduler(first_frame="generate", num_inference_steps=2, sigmas=None),
    ) | {"outline": None}


def wan_components():
    options = {**SIZES, "in_channels": 36, "out_channels": 16, "text_dim": tiny.TEXT_WIDTH}
    options |= {"image_dim": tiny.IMAGE_WIDTH}
    return build_components(
        transformer=lambda: WanTransformer3DModel(**options).eval(),
        scheduler=lambda: FlowMatchEulerDiscreteScheduler(shift=7.0),
    ) | {"transformer_2": None}


def call_inputs(generator, output_type):
    return {
        "image": Image.new("RGB", (SIDE, SIDE)),
        "prompt": "dance monkey",
        "negative_prompt": "negative",
        "height": SIDE,
        "width": SIDE,
        "generator": generator,
        "num_inference_steps": 2,
        "guidance_scale": 6.0,
        "num_frames": 9,
        "max_sequence_length": 16,
        "output_type": output_type,
    }


class PipelineConfig(BasePipelineTesterConfig):
    required_input_params_in_call_signature = frozenset(CALL)
    optional_input_params = frozenset(OPTIONAL)
    batch_input_params = frozenset(["prompt"])
    output_shape = (9, 3, SIDE, SIDE)

    def get_dummy_inputs(self):
        return call_inputs(self.get_generator(0), "pt")


class OurPipeline(PipelineConfig):
    pipeline_class = ARDragPipeline

    def get_dummy_components(self):
        return our_components()


class WanPipeline(PipelineConfig):
    pipeline_class = WanImageToVideoPipeline

    def get_dummy_components(self):
        return wan_components()


class UnittestConfig:
    params = frozenset(CALL)
    batch_params = frozenset(["prompt"])
    required_optional_params = frozenset(OPTIONAL)
    test_xformers_attention = False

    def get_dummy_inputs(self, device, seed=0):
        return call_inputs(torch.Generator(device).manual_seed(seed), "np")


def case(name, *bases, **members):
    """A test class, under the name that the table of results is made from: suite, then whose."""
    globals()[name] = type(name, bases, {"__module__": __name__, **members})


for owner, model, pipeline in (("Ours", OurModel, OurPipeline), ("Wan", WanModel, WanPipeline)):
    case(f"TestModels{owner}", model, ModelTesterMixin)
    case(f"TestModelsMemory{owner}", model, ModelMemoryTesterMixin)
    case(f"TestModelsTraining{owner}", model, Training)
    case(f"TestModelsAttention{owner}", model, AttentionTesterMixin)
    case(f"TestModelsLora{owner}", model, ModelLoraTesterMixin)
    case(f"TestPipelines{owner}", pipeline, PipelineTesterMixin)
    case(f"TestPipelinesMemory{owner}", pipeline, MemoryTesterMixin)
    case(f"TestLora{owner}", pipeline, LoraTesterMixin)
    made = {
        "pipeline_class": property(lambda self, kind=pipeline.pipeline_class: kind),
        "get_dummy_components": lambda self, build=pipeline: build().get_dummy_components(),
    }
    case(f"TestUnittestPipelines{owner}", UnittestConfig, UnittestPipelineMixin, unittest.TestCase, **made)


class TestSchedulersOurs(SchedulerCommonTest):
    scheduler_classes = (FewStepScheduler,)

    def get_scheduler_config(self, **kwargs):
        return {"num_inference_steps": 10, "sigmas": None, "eta": 0.0, **kwargs}


class TestSchedulersWan(SchedulerCommonTest):
    scheduler_classes = (FlowMatchEulerDiscreteScheduler,)

    def get_scheduler_config(self, **kwargs):
        return {"num_train_timesteps": 1000, "shift": 3.0, **kwargs}

"""Real pipelines of diffusers with small random weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderOobleck,
    CosineDPMSolverMultistepScheduler,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)


def words() -> PreTrainedTokenizerFast:
    known = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[END]", "a", "cat", "bell", "photo", "of"])}
    tokenizer = Tokenizer(models.WordLevel(known, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]",
                                   model_max_length=8)


def clip(kind: type = CLIPTextModel, width: int = 16) -> CLIPTextModel:
    return kind(CLIPTextConfig(vocab_size=8, hidden_size=width, intermediate_size=16, num_hidden_layers=2,
                               num_attention_heads=2, max_position_embeddings=8, projection_dim=width, pad_token_id=0,
                               bos_token_id=1, eos_token_id=2)).eval()


def t5(width: int) -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=8, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).eval()


def autoencoder(**settings: object) -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
                         up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=2,
                         latent_channels=4, sample_size=16, **settings).eval()  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def stable_diffusion() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
                                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=16,
                                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=2).eval()
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=True, timestep_spacing="trailing")
    return StableDiffusionPipeline(autoencoder(), clip(), words(), unet, scheduler, None, None,  # type: ignore
                                   requires_safety_checker=False)


@pytest.fixture(scope="session")
def stable_diffusion_3() -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8,
                                        num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=32,
                                        pooled_projection_dim=32, out_channels=4, pos_embed_max_size=8).eval()
    vae = autoencoder(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False)
    return StableDiffusion3Pipeline(transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), vae,
                                    clip(CLIPTextModelWithProjection), words(), clip(CLIPTextModelWithProjection),
                                    words(), None, None)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def flux() -> FluxPipeline:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
                                         num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=16,
                                         guidance_embeds=True, axes_dims_rope=(4, 4, 8)).eval()
    vae = autoencoder(scaling_factor=0.36, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0, max_shift=1.15)
    return FluxPipeline(scheduler, vae, clip(), words(), t5(32), words(), transformer)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def stable_audio() -> StableAudioPipeline:
    torch.manual_seed(0)
    transformer = StableAudioDiTModel(sample_size=16, in_channels=4, num_layers=1, attention_head_dim=8,
                                      num_attention_heads=2, num_key_value_attention_heads=2, out_channels=4,
                                      cross_attention_dim=16, time_proj_dim=8, global_states_input_dim=32,
                                      cross_attention_input_dim=16).eval()
    vae = AutoencoderOobleck(encoder_hidden_size=8, downsampling_ratios=[2, 4], channel_multiples=[1, 2],
                             decoder_channels=4, decoder_input_channels=4, audio_channels=2, sampling_rate=100).eval()
    projection = StableAudioProjectionModel(16, 16, 0, 2).eval()
    scheduler = CosineDPMSolverMultistepScheduler(sigma_min=0.3, sigma_max=500, prediction_type="v_prediction")
    return StableAudioPipeline(vae, t5(16), projection, words(), transformer, scheduler)  # type: ignore[arg-type]

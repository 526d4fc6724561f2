"""Writes what transformers makes of SAM's tensors: global.huggingface.safetensors, and huggingface.vit_b.names.

    pip install -r crates/segmenter/tests/parity/requirements.txt transformers==5.23.0
    python crates/segmenter/tests/parity/huggingface.py

global.safetensors, which make_fixtures.py wrote, is loaded into a `SamModel` of the same sizes, which saves it. The model's answers are
compared with the official ones first, so that what its names stand for is not taken on trust. The names and sizes are those of
`SamModel(SamConfig())`, which is ViT-B.
"""

import re
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from make_fixtures import CASES, HERE


# Official to transformers; on the left regular expressions.
NAMES = [
    (r"^image_encoder\.blocks", "vision_encoder.layers"),
    (r"^image_encoder", "vision_encoder"),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"neck\.0", "neck.conv1"),
    (r"neck\.1", "neck.layer_norm1"),
    (r"neck\.2", "neck.conv2"),
    (r"neck\.3", "neck.layer_norm2"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"point_embeddings", "point_embed"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.0", r"\1.proj_in"),
    (r"(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.1", r"\1.layers.0"),
    (r"(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.2", r"\1.proj_out"),
    (r"\.norm", ".layer_norm"),
]


def transformers_name(name):
    for official, theirs in NAMES:
        name = re.sub(official, theirs, name)
    return name


def sam_model():
    case = next(case for case in CASES if case.name == "global")
    size = case.grid * case.patch
    vision = SamVisionConfig(
        hidden_size=case.dim, output_channels=case.neck, num_hidden_layers=case.depth, num_attention_heads=case.heads, image_size=size,
        patch_size=case.patch, mlp_dim=int(case.dim * case.mlp_ratio), window_size=case.window, global_attn_indexes=list(case.global_blocks),
        num_pos_feats=case.neck // 2)
    prompt = SamPromptEncoderConfig(
        hidden_size=case.neck, image_size=size, patch_size=case.patch, mask_input_channels=case.mask_in_chans)
    decoder = SamMaskDecoderConfig(
        hidden_size=case.neck, mlp_dim=case.decoder_mlp, num_hidden_layers=case.decoder_depth,
        attention_downsample_rate=case.downsample_rate, num_multimask_outputs=case.multimask, iou_head_depth=case.iou_depth,
        iou_head_hidden_dim=case.iou_hidden)
    return SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)).eval()


def main():
    model = sam_model()
    state = {transformers_name(name): tensor for name, tensor in load_file(HERE / "global.safetensors").items()}
    state["shared_image_embedding.positional_embedding"] = state["prompt_encoder.shared_embedding.positional_embedding"]
    model.load_state_dict(state, strict=True)
    expected = load_file(HERE / "global.expected.safetensors")
    with torch.no_grad():
        embedding = model.get_image_embeddings(expected["pixels"])
        masks = model(image_embeddings=embedding, multimask_output=False).pred_masks[0, 0]
    for name, found, official in (("embedding", embedding, expected["embedding"]), ("mask", masks, expected["null"][0, :1])):
        error = (found - official).abs().max() / official.abs().max()
        print(f"{name}: transformers is {error:.1e} off the official implementation")
        assert error < 1e-4
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        (HERE / "global.huggingface.safetensors").write_bytes((Path(folder) / "model.safetensors").read_bytes())

    with torch.device("meta"):
        vit_b = SamModel(SamConfig())
    lines = [" ".join([name, *map(str, tensor.shape)]) for name, tensor in vit_b.state_dict().items()]
    (HERE / "huggingface.vit_b.names").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()

"""SAM at nano's size, out of the official classes, and a forward for batches and for crops."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

IMAGE, PATCH, TOKENS, WINDOW = 512, 8, 64, 16
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DIM, DEPTH, HEADS, NECK = 96, 4, 2, 96


def build(checkpoint: Path | None = None) -> Sam:
    """The official `Sam` with nano's sizes; tensor names are those of the official checkpoints."""
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=IMAGE,
            patch_size=PATCH,
            embed_dim=DIM,
            depth=DEPTH,
            num_heads=HEADS,
            mlp_ratio=4,
            out_chans=NECK,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=WINDOW,
            global_attn_indexes=(),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=NECK, image_embedding_size=(TOKENS, TOKENS), input_image_size=(IMAGE, IMAGE), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=NECK, num_heads=8, mlp_dim=256),
            transformer_dim=NECK,
            iou_head_depth=3,
            iou_head_hidden_dim=96,
        ),
        pixel_mean=list(MEAN),
        pixel_std=list(STD),
    )
    if checkpoint is not None:
        sam.load_state_dict(load_file(checkpoint), strict=True)
    return sam


def normalise(image: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..255 to SAM's input range."""
    return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def encode(sam: Sam, image: Tensor, row: int = 0, column: int = 0) -> Tensor:
    """Neck features (B, 96, h, w) of a normalised crop whose first token lies at (row, column) of the full image."""
    encoder = sam.image_encoder
    x = encoder.patch_embed(image)  # B h w C
    x = x + encoder.pos_embed[:, row : row + x.shape[1], column : column + x.shape[2]]
    for block in encoder.blocks:
        x = block(x)
    return encoder.neck(x.permute(0, 3, 1, 2))


def decode(sam: Sam, features: Tensor, sparse: Tensor, dense: Tensor, row: int = 0, column: int = 0) -> tuple[Tensor, Tensor]:
    """`MaskDecoder.predict_masks` with an image of its own for every prompt: logits (B, 4, 4h, 4w), scores (B, 4)."""
    decoder, (b, c, h, w) = sam.mask_decoder, features.shape
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(b, -1, -1)
    tokens = torch.cat([tokens, sparse], 1)
    where = sam.prompt_encoder.get_dense_pe()[:, :, row : row + h, column : column + w].expand(b, -1, -1, -1)
    tokens, source = decoder.transformer(features + dense, where, tokens)
    upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(b, c, h, w))
    weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1)
    logits = torch.einsum("bmc,bchw->bmhw", weights, upscaled)
    return logits, decoder.iou_prediction_head(tokens[:, 0])


def no_mask(sam: Sam, features: Tensor) -> Tensor:
    """The dense prompt that says: no mask given."""
    return sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(features)

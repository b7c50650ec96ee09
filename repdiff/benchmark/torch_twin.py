"""The same networks and training step in PyTorch, for `repdiff.benchmark` to compare with.

In its usual fast idioms: fused scaled-dot-product attention, fused AdamW, multi-tensor EMA; eager
or, as `How` says, compiled, under autocast and on a GPU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from repdiff.models.dit import DiT
from repdiff.models.vit import ViT
from repdiff.objectives.denoise import Pretrain, Tune

EPS = 1e-6


@dataclass(frozen=True)
class How:
    """Where the twin runs, the dtype of its products, and whether `torch.compile` is used."""

    device: str
    dtype: torch.dtype
    compiled: bool

    def autocast(self) -> torch.autocast:
        """The context that a step runs in."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)


EAGER = How('cpu', torch.float32, False)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


def mlp(width: int, gelu: str) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, 4 * width), nn.GELU(approximate=gelu), nn.Linear(4 * width, width)
    )


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, layer_scale: float):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attention, self.mlp = Attention(width, heads), mlp(width, 'none')
        self.ls1 = nn.Parameter(torch.full((width,), layer_scale))
        self.ls2 = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x):
        x = x + self.ls1 * self.attention(self.norm1(x))
        return x + self.ls2 * self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """The twin of a `ViT` without registers; returns the normalised patch tokens."""

    def __init__(self, vit: ViT, channels: int):
        super().__init__()
        tokens = vit.grid[0] * vit.grid[1]
        self.patch_embed = nn.Conv2d(channels, vit.width, vit.patch, vit.patch)
        self.cls = nn.Parameter(torch.zeros(vit.width))
        self.mask = nn.Parameter(torch.zeros(vit.width))  # unused in training, as in the ViT
        self.positions = nn.Parameter(torch.randn(1 + tokens, vit.width) * 0.02)
        self.blocks = nn.Sequential(*(
            EncoderBlock(vit.width, vit.heads, vit.layer_scale) for _ in range(vit.depth)))
        self.norm = nn.LayerNorm(vit.width, eps=EPS)

    def forward(self, z0):
        x = self.patch_embed(z0).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], 1) + self.positions
        return self.norm(self.blocks(x))[:, 1:]


def modulate(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale[:, None]) + shift[:, None]


class DenoiserBlock(nn.Module):
    def __init__(self, width: int, heads: int, mix: int):
        super().__init__()
        self.mix = nn.Linear(mix, width) if mix else None
        self.adaln = nn.Linear(width, 6 * width)
        self.attention, self.mlp = Attention(width, heads), mlp(width, 'tanh')

    def forward(self, x, c, r):
        if self.mix is not None:
            x = self.mix(F.silu(x if r is None else torch.cat([x, r], -1)))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln(F.silu(c)).chunk(6, 1)
        x = x + gate1[:, None] * self.attention(modulate(x, shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(x, shift2, scale2))


class Denoiser(nn.Module):
    """The twin of a `DiT` whose r, if any, is as wide as the network."""

    def __init__(self, dit: DiT, grid: tuple[int, int]):
        super().__init__()
        width, features = dit.width, dit.patch**2 * dit.channels
        self.patch, self.grid = dit.patch, grid
        self.labels = dit.conditioning == 'label'
        self.kind = dit.representation if dit.conditioning == 'representation' else None
        with_r = self.kind == 'tokens'
        self.patch_embed = nn.Conv2d(dit.channels * (1 + with_r), width, dit.patch, dit.patch)
        self.register_buffer('positions', torch.randn(grid[0] * grid[1], width))
        self.register_buffer('frequencies', torch.exp(-math.log(10000) * torch.arange(128) / 128))
        self.t_embed = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        if self.labels:
            self.label_embed = nn.Embedding(dit.classes + 1, width)
        if self.kind:
            self.null = nn.Parameter(torch.zeros(width))
        if self.kind == 'pooled':
            self.r_embed = nn.Linear(width, width)
        if with_r:
            self.decode = nn.Sequential(nn.LayerNorm(width, eps=EPS), nn.Linear(width, features))
        mix = width * (1 + with_r) if dit.mix or with_r else 0
        self.blocks = nn.ModuleList(
            DenoiserBlock(width, dit.heads, mix) for _ in range(dit.depth))
        self.adaln, self.linear = nn.Linear(width, 2 * width), nn.Linear(width, features)

    def forward(self, z_t, t, condition, drop):
        r = None
        if self.kind == 'tokens':
            r = torch.where(drop[:, None, None], self.null, condition)
            z_t = torch.cat([z_t, self.unpatchify(self.decode(r))], 1)
        x = self.patch_embed(z_t).flatten(2).transpose(1, 2) + self.positions
        angles = t[:, None] * self.frequencies
        c = self.t_embed(torch.cat([angles.cos(), angles.sin()], -1))
        if self.labels:
            c = c + self.label_embed(condition)
        if self.kind == 'pooled':
            c = c + torch.where(drop[:, None], self.null, self.r_embed(condition))
        for block in self.blocks:
            x = block(x, c, r)
        return self.unpatchify(self.linear(modulate(x, *self.adaln(F.silu(c)).chunk(2, 1))))

    def unpatchify(self, x):
        (h, w), p = self.grid, self.patch
        x = x.reshape(len(x), h, w, p, p, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(len(x), -1, h * p, w * p)


class Twin(nn.Module):
    """The networks of an objective, and its loss on clean latents (B, C, H, W) and labels (B,)."""

    def __init__(self, objective: Pretrain | Tune, z_shape: tuple[int, int, int]):
        super().__init__()
        dit, encoder = objective.denoiser, getattr(objective, 'encoder', None)
        self.denoiser = Denoiser(dit, (z_shape[0] // dit.patch, z_shape[1] // dit.patch))
        self.encoder = Encoder(encoder, z_shape[2]) if encoder else None
        for name in ('gamma', 'delta'):
            self.register_buffer(name, torch.tensor(getattr(objective.schedule, name).tolist()))
        self.t_range = getattr(objective, 't_range', (0, objective.schedule.steps))
        self.drop_rate = getattr(objective, 'drop_rate', 0.0)
        self.paired = getattr(objective, 'paired_weight', 0.0)
        self.paired_scale = getattr(objective, 'paired_scale', 0.0)

    def errors(self, z0, t, eps, condition, drop):
        """Mean squared error of each example (B,)."""
        shape = (-1, 1, 1, 1)
        z_t = self.gamma[t].reshape(shape) * z0 + self.delta[t].reshape(shape) * eps
        return (self.denoiser(z_t, t, condition, drop) - eps).square().mean((1, 2, 3))

    def forward(self, z0, labels):
        t = torch.randint(*self.t_range, (len(z0),), device=z0.device)
        eps, drop = torch.randn_like(z0), torch.rand(len(z0), device=z0.device) < self.drop_rate
        condition = labels
        if self.encoder is not None:
            condition = self.encoder(z0)
            condition = condition.mean(1) if self.denoiser.kind == 'pooled' else condition
        right = self.errors(z0, t, eps, condition, drop)
        if not self.paired:
            return right.mean()
        margin = right - self.errors(z0, t, eps, 1 - labels, drop)
        paired = F.softplus(margin * (self.paired_scale * z0[0].numel())).mean()
        return right.mean() + self.paired * paired


def train_step(
    twin: Twin, batch: int, z_shape: tuple[int, int, int], how: How = EAGER
) -> Callable[[], None]:
    """A step of clipping, AdamW and EMA on random latents; returns once it is done."""
    h, w, c = z_shape
    twin.to(how.device)
    z0 = torch.randn(batch, c, h, w, device=how.device)
    labels = torch.randint(0, 2, (batch,), device=how.device)
    parameters = list(twin.parameters())
    ema = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    compute = torch.compile(twin) if how.compiled else twin

    def step():
        with how.autocast():
            loss = compute(z0, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        torch._foreach_lerp_(ema, [parameter.detach() for parameter in parameters], 0.01)
        loss.item()

    return step


def score_step(
    twin: Twin, batch: int, z_shape: tuple[int, int, int], how: How = EAGER
) -> Callable[[], None]:
    """Errors of one draw under both labels, without gradients; returns once they are there."""
    h, w, c = z_shape
    twin.to(how.device)
    z0 = torch.randn(batch, c, h, w, device=how.device).repeat(2, 1, 1, 1)
    t = torch.full((2 * batch,), 100, device=how.device)
    labels = torch.arange(2, device=how.device).repeat_interleave(batch)
    errors = torch.compile(twin.errors) if how.compiled else twin.errors

    @torch.inference_mode()
    def step():
        eps = torch.randn(batch, c, h, w, device=how.device).repeat(2, 1, 1, 1)
        with how.autocast():
            found = errors(z0, t, eps, labels, None)
        found.sum().item()

    return step

#!/usr/bin/env python3
# Copyright 2026 The Trireme authors
# SPDX-License-Identifier: Apache-2.0
"""One GPT-2 training step after another in PyTorch, timed: the peer of `trireme bench step`.

A plain GPT-2 as people write it: torch.nn layers, one product for q, k and v, the fused attention
that this torch offers, tied head, AdamW (fused or by lists of tensors, where there is), gradients
clipped to norm 1. Independent of Trireme's code.

    bench/peers/torch_step.py --batch 4 --seq 256 --dtype bf16 --threads 2 --steps 5

Under a launcher that sets torchrun's environment it trains by DistributedDataParallel over Gloo,
each rank on sequences of its own:

    trireme launch -n 2 -- /usr/bin/python3 bench/peers/torch_step.py --dtype bf16 --seq 128

Rank 0 prints one JSON object per line: first what ran (torch, BLAS, oneDNN, attention, optimizer), then
each step's {"step", "warm_up", "ms", "loss"}, last {"peak_bytes"}. dtype f32, or bf16: autocast,
the weights f32. Runs under Debian's python3 with python3-torch (apt-packages-parity.txt).
"""
import argparse
import contextlib
import ctypes
import json
import math
import os
import re
import time

import torch
import torch.distributed
import torch.nn.functional as F
from torch import nn

MODELS = {
    "gpt2-124m": dict(layers=12, width=768, heads=12, vocabulary=50257),
    "gpt2-350m": dict(layers=24, width=1024, heads=16, vocabulary=50257),
    "tiny": dict(layers=2, width=48, heads=4, vocabulary=211),
}


# --- what this torch offers -----------------------------------------------------------------------

def attention(q, k, v):
    """Causal, on [batch, heads, tokens, head width]."""
    if hasattr(F, "scaled_dot_product_attention"):  # torch 2
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F._scaled_dot_product_attention(q, k, v, None, 0.0, False, True)[0]  # torch 1.13


def attention_name():
    return ("scaled_dot_product_attention" if hasattr(F, "scaled_dot_product_attention")
            else "_scaled_dot_product_attention (not fused on the CPU)")


def make_adamw(model):
    """The fastest AdamW of this torch that works on the CPU, and its name."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    options = dict(lr=1e-4, betas=(0.9, 0.95), eps=1e-8)
    for name, extra in (("fused", {"fused": True}), ("foreach", {"foreach": True}), ("plain", {})):
        with contextlib.suppress(TypeError, RuntimeError, ValueError):
            return torch.optim.AdamW(groups, **options, **extra), name
    raise SystemExit("torch.optim.AdamW cannot be made")


def blas_in_use():
    with open("/proc/self/maps", encoding="utf-8") as maps:
        libraries = sorted(set(re.findall(r"/\S*(?:blas|mkl_core|blis)\S*\.so\S*", maps.read())))
    for path in libraries:
        with contextlib.suppress(AttributeError):
            library = ctypes.CDLL(path)
            config, core = library.openblas_get_config, library.openblas_get_corename
            config.restype = core.restype = ctypes.c_char_p
            kind = ("serial", "pthread", "openmp")[library.openblas_get_parallel()]
            name = " ".join(config().decode().split()[:2])
            return f"{name} ({kind}, kernels of {core().decode()})"
    return ", ".join(libraries) or "unknown"


def setting(pattern):
    found = re.search(pattern, torch.__config__.show())
    return found.group(1) if found else "unknown"


def description(arguments, optimizer_name):
    return {"torch": torch.__version__, "blas": blas_in_use(),
            "onednn": setting(r"(?:MKL-DNN|oneDNN) (v\S+)"),
            "vector_units": setting(r"CPU capability usage: (\S+)"),
            "threads": torch.get_num_threads(), "attention": attention_name(),
            "optimizer": optimizer_name, "model": arguments.model, "dtype": arguments.dtype,
            "batch": arguments.batch, "seq": arguments.seq, "accumulate": arguments.accumulate,
            "ranks": ranks()}


# --- the model ------------------------------------------------------------------------------------

class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        split = lambda y: y.view(batch, tokens, self.heads, -1).transpose(1, 2)
        q, k, v = self.qkv(self.attention_norm(x)).split(width, dim=2)
        joined = attention(split(q), split(k), split(v)).transpose(1, 2).reshape(x.shape)
        x = x + self.out(joined)
        return x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, layers, width, heads, vocabulary, context):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * layers) if residual else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, inputs, targets):  # the loss
        x = self.tokens(inputs) + self.positions.weight[: inputs.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# --- steps ----------------------------------------------------------------------------------------

def ranks():
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first():
    return os.environ.get("RANK", "0") == "0"


def distributed(model):
    """The model, replicated where there are several ranks."""
    if ranks() == 1:
        return model
    torch.distributed.init_process_group("gloo")
    return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)


def step(model, optimizer, micro_batches, bf16):
    optimizer.zero_grad(set_to_none=True)
    for i, tokens in enumerate(micro_batches):
        last = i + 1 == len(micro_batches)
        with contextlib.nullcontext() if last or ranks() == 1 else model.no_sync():
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(tokens[:, :-1], tokens[:, 1:])
            (loss / len(micro_batches)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def peak_bytes():
    with open("/proc/self/status", encoding="utf-8") as status:
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1))


def say(record):
    if is_first():
        print(json.dumps(record), flush=True)


def main():
    parser = argparse.ArgumentParser(description="GPT-2 training steps in PyTorch, timed")
    parser.add_argument("--model", choices=MODELS, default="gpt2-124m")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1234)
    config = MODELS[arguments.model]
    model = distributed(Gpt2(context=arguments.seq, **config))
    torch.manual_seed(1234 + int(os.environ.get("RANK", "0")))
    optimizer, optimizer_name = make_adamw(model)
    say(description(arguments, optimizer_name))
    for number in range(arguments.warm_up + arguments.steps):
        micro_batches = torch.randint(config["vocabulary"],
                                      (arguments.accumulate, arguments.batch, arguments.seq + 1))
        begin = time.perf_counter()
        loss = step(model, optimizer, micro_batches, arguments.dtype == "bf16")
        say({"step": number, "warm_up": number < arguments.warm_up,
             "ms": 1e3 * (time.perf_counter() - begin), "loss": loss})
    say({"peak_bytes": peak_bytes()})


if __name__ == "__main__":
    main()

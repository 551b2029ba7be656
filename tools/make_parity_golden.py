#!/usr/bin/env python3
# Copyright 2026 The Trireme authors
# SPDX-License-Identifier: Apache-2.0
"""The same GPT-2 and Llama in PyTorch: 20 AdamW steps, the loss and gradient norm of each.

Independent of Trireme's code: models from torch.nn.functional, torch.optim.AdamW, clip_grad_norm_,
and the initial weights from numpy's own rendering of Philox4x32-10 and Box-Muller. Only the names
of the parameters, the formula of the batches and the settings below are shared.

    tools/make_parity_golden.py --write tests/golden
        writes parity_gpt2.json and parity_llama.json
    tools/make_parity_golden.py --check tests/golden --program build/release/tests/numerics_test
        trains live in PyTorch and in Trireme (the program's Parity tests, which write their figures
        into the folder that TRIREME_PARITY_OUT names), compares both with each other and with the
        golden files, prints the table, and fails beyond 2e-5 relative

Runs under Debian's python3 with python3-torch and python3-numpy (apt-packages-parity.txt).
"""
import argparse
import ctypes
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F

TOLERANCE = 2e-5  # relative, loss and gradient norm; see tests/train/parity_test.cc
SEED = 1234

# Sizes share no factor where the model allows it.
MODELS = {
    "gpt2": dict(family="gpt2", layers=3, width=48, heads=6, kv_heads=6, mlp_width=192, context=33,
                 vocab_size=211, norm_epsilon=1e-5, rope_theta=10000.0, tie_head="yes"),
    "llama": dict(family="llama", layers=3, width=48, heads=6, kv_heads=2, mlp_width=136,
                  context=33, vocab_size=211, norm_epsilon=1e-5, rope_theta=500.0, tie_head="no"),
}
# The learning rate is high, so that within 20 steps every part of the model weighs on the figures.
TRAINING = dict(seed=SEED, steps=20, micro_batches=2, sequences=3, learning_rate=4e-3,
                warmup_steps=5, final_fraction=0.1, beta1=0.9, beta2=0.95, epsilon=1e-8,
                weight_decay=0.1, max_norm=1.0)


# --- initial weights ------------------------------------------------------------------------------

def philox4x32(counter, key):
    """Salmon et al. 2011, figure 2: ten rounds on four arrays of 32-bit words."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = [np.asarray(word, dtype=np.uint64) for word in counter]
    for round_number in range(10):
        k0 = np.uint64((key[0] + round_number * 0x9E3779B9) & 0xFFFFFFFF)
        k1 = np.uint64((key[1] + round_number * 0xBB67AE85) & 0xFFFFFFFF)
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> shift) ^ c[1] ^ k0, p1 & low, (p0 >> shift) ^ c[3] ^ k1, p0 & low]
    return c


def stream_of(name):
    xxhash = ctypes.CDLL("libxxhash.so.0")
    xxhash.XXH3_64bits.restype = ctypes.c_uint64
    xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    return xxhash.XXH3_64bits(name.encode(), len(name))


def normal(seed, name, count):
    index, stream = np.arange(count, dtype=np.uint64), stream_of(name)
    ones = np.ones(count, dtype=np.uint64)
    words = philox4x32([index & np.uint64(0xFFFFFFFF), index >> np.uint64(32),
                        ones * np.uint64(stream & 0xFFFFFFFF), ones * np.uint64(stream >> 32)],
                       [seed & 0xFFFFFFFF, seed >> 32])
    unit = lambda low, high: ((low | (high << np.uint64(32))) >> np.uint64(11)) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(1.0 - unit(words[0], words[1])))
    return radius * np.cos(2.0 * np.pi * unit(words[2], words[3]))


def initial_weights(c, seed):
    width, hidden = c["width"], c["mlp_width"]
    kv_width = c["kv_heads"] * (width // c["heads"])
    gpt2 = c["family"] == "gpt2"
    residual = 0.02 / math.sqrt(2.0 * c["layers"])
    weights = {}

    def matrix(name, rows, columns, deviation=0.02, bias=gpt2):
        values = deviation * normal(seed, name + ".weight", rows * columns)
        weights[name + ".weight"] = torch.tensor(values.astype(np.float32)).view(rows, columns)
        if bias:
            weights[name + ".bias"] = torch.zeros(rows)

    def norm(name):
        weights[name + ".weight"] = torch.ones(width)
        if gpt2:
            weights[name + ".bias"] = torch.zeros(width)

    matrix("token_embedding", c["vocab_size"], width, bias=False)
    if gpt2:
        matrix("position_embedding", c["context"], width, bias=False)
    for layer in range(c["layers"]):
        block = f"blocks.{layer}."
        norm(block + "attn_norm")
        matrix(block + "attn.q", width, width)
        matrix(block + "attn.k", kv_width, width)
        matrix(block + "attn.v", kv_width, width)
        matrix(block + "attn.out", width, width, residual)
        norm(block + "mlp_norm")
        if not gpt2:
            matrix(block + "mlp.gate", hidden, width)
        matrix(block + "mlp.up", hidden, width)
        matrix(block + "mlp.down", width, hidden, residual)
    norm("final_norm")
    if c["tie_head"] == "no":
        matrix("head", c["vocab_size"], width, bias=False)
    return {name: value.requires_grad_() for name, value in weights.items()}


# --- the models -----------------------------------------------------------------------------------

class Model:
    def __init__(self, c, weights):
        self.c, self.w, self.gpt2 = c, weights, c["family"] == "gpt2"

    def linear(self, name, x):
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def norm(self, name, x):
        weight = self.w[name + ".weight"]
        if self.gpt2:
            return F.layer_norm(x, weight.shape, weight, self.w[name + ".bias"],
                                self.c["norm_epsilon"])
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.c["norm_epsilon"]))

    def rotate(self, x):  # [B, heads, T, D], halves rotated as in Hugging Face's Llama
        tokens, width = x.shape[-2:]
        frequency = self.c["rope_theta"] ** (-torch.arange(0, width, 2).double() / width)
        angle = torch.outer(torch.arange(tokens).double(), frequency)
        angle = torch.cat([angle, angle], -1)
        first, second = x[..., : width // 2], x[..., width // 2 :]
        turned = torch.cat([-second, first], -1)
        return x * angle.cos().float() + turned * angle.sin().float()

    def attention(self, block, x):
        batch, tokens, width = x.shape
        heads, kv_heads, head_width = self.c["heads"], self.c["kv_heads"], width // self.c["heads"]
        split = lambda y, n: y.view(batch, tokens, n, head_width).transpose(1, 2)
        q = split(self.linear(block + "attn.q", x), heads)
        k = split(self.linear(block + "attn.k", x), kv_heads)
        v = split(self.linear(block + "attn.v", x), kv_heads)
        if not self.gpt2:
            q, k = self.rotate(q), self.rotate(k)
        k = k.repeat_interleave(heads // kv_heads, 1)
        v = v.repeat_interleave(heads // kv_heads, 1)
        scores = q @ k.transpose(-2, -1) / math.sqrt(head_width)
        visible = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        weights = F.softmax(scores.masked_fill(~visible, float("-inf")), -1)
        joined = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
        return self.linear(block + "attn.out", joined)

    def mlp(self, block, x):
        up = self.linear(block + "mlp.up", x)
        hidden = (F.gelu(up, approximate="tanh") if self.gpt2
                  else F.silu(self.linear(block + "mlp.gate", x)) * up)
        return self.linear(block + "mlp.down", hidden)

    def loss(self, inputs, targets):
        x = F.embedding(inputs, self.w["token_embedding.weight"])
        if self.gpt2:
            x = x + self.w["position_embedding.weight"][: inputs.shape[1]]
        for layer in range(self.c["layers"]):
            block = f"blocks.{layer}."
            x = x + self.attention(block, self.norm(block + "attn_norm", x))
            x = x + self.mlp(block, self.norm(block + "mlp_norm", x))
        head = "head.weight" if self.c["tie_head"] == "no" else "token_embedding.weight"
        logits = F.linear(self.norm("final_norm", x), self.w[head])
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# --- training -------------------------------------------------------------------------------------

def batch(c, t, step, micro_batch):
    """Straight lines through the vocabulary, of few slopes: learnable only by looking back."""
    rows = []
    for s in range(t["sequences"]):
        number = (step * t["micro_batches"] + micro_batch) * t["sequences"] + s
        rows.append([(number * 37 + (number % 3 * 4 + 1) * i) % c["vocab_size"]
                     for i in range(c["context"] + 1)])
    tokens = torch.tensor(rows)
    return tokens[:, :-1], tokens[:, 1:]


def learning_rate(t, step):
    if step < t["warmup_steps"]:
        return t["learning_rate"] * (step + 1) / t["warmup_steps"]
    progress = (step - t["warmup_steps"]) / (t["steps"] - 1 - t["warmup_steps"])
    falling = 0.5 * (1.0 + math.cos(math.pi * progress))
    return t["learning_rate"] * (t["final_fraction"] + (1.0 - t["final_fraction"]) * falling)


def train(c, t):
    weights = initial_weights(c, t["seed"])
    model = Model(c, weights)
    optimizer = torch.optim.AdamW(
        [{"params": [w for w in weights.values() if w.dim() == 2], "weight_decay": t["weight_decay"]},
         {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0}],
        betas=(t["beta1"], t["beta2"]), eps=t["epsilon"])
    losses, norms = [], []
    for step in range(t["steps"]):
        optimizer.zero_grad()
        total = 0.0
        for micro_batch in range(t["micro_batches"]):
            loss = model.loss(*batch(c, t, step, micro_batch)) / t["micro_batches"]
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), t["max_norm"])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(t, step)
        optimizer.step()
        losses.append(total)
        norms.append(norm.item())
    return {"losses": losses, "gradient_norms": norms}


# --- the program ----------------------------------------------------------------------------------

def golden_path(folder, name):
    return pathlib.Path(folder) / f"parity_{name}.json"


def write(folder):
    for name, config in MODELS.items():
        golden = {"made_by": "tools/make_parity_golden.py with PyTorch " + torch.__version__,
                  "model": config, "training": TRAINING, **train(config, TRAINING)}
        golden_path(folder, name).write_text(json.dumps(golden, indent=1) + "\n")
        print(f"{name}: loss {golden['losses'][0]:.4f} to {golden['losses'][-1]:.4f}, gradient norm "
              f"{golden['gradient_norms'][0]:.4f} to {golden['gradient_norms'][-1]:.4f}")


def run_program(program):
    with tempfile.TemporaryDirectory() as folder:
        # Not what the test thinks of the golden files but its figures are judged here.
        done = subprocess.run([program, "--gtest_filter=*Parity*", "--gtest_brief=1"],
                              env={**os.environ, "TRIREME_PARITY_OUT": folder}, check=False,
                              stdout=subprocess.DEVNULL, timeout=300)
        try:
            return {name: json.loads(golden_path(folder, name).read_text()) for name in MODELS}
        except FileNotFoundError as error:
            sys.exit(f"{program} (exit status {done.returncode}) wrote no {error.filename}")


def check(folder, program):
    trireme = run_program(program)
    worst = 0.0
    for name, config in MODELS.items():
        golden = json.loads(golden_path(folder, name).read_text())
        if golden["model"] != config or golden["training"] != TRAINING:
            sys.exit(f"{golden_path(folder, name)} was made with other settings; run --write {folder}")
        live = train(config, TRAINING)
        print(f"\n{name}, PyTorch {torch.__version__}\n"
              f"{'step':>4}  {'loss PyTorch':>12} {'Trireme':>12} {'relative':>9}  "
              f"{'norm PyTorch':>12} {'Trireme':>12} {'relative':>9}")
        for step in range(TRAINING["steps"]):
            row = []
            for key in ("losses", "gradient_norms"):
                expected, got = live[key][step], trireme[name][key][step]
                difference = abs(got / expected - 1.0)
                worst = max(worst, difference, abs(golden[key][step] / expected - 1.0))
                row.append(f"{expected:12.7f} {got:12.7f} {difference:9.1e}")
            print(f"{step:4}  {row[0]}  {row[1]}")
    print(f"\nlargest relative difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    if not worst <= TOLERANCE:
        sys.exit("parity with PyTorch is broken")


def main():
    parser = argparse.ArgumentParser(description="PyTorch's figures for the parity tests")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", metavar="FOLDER", help="write the golden files")
    mode.add_argument("--check", metavar="FOLDER", help="compare live runs with the golden files")
    parser.add_argument("--program", default="build/release/tests/numerics_test",
                        help="Trireme's numerics_test (default: %(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.write:
        write(arguments.write)
    else:
        check(arguments.check, arguments.program)


if __name__ == "__main__":
    main()

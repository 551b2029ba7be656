// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// An encoder in the manner of BERT (Devlin et al. 2019): it reads C++ headers in which tokens are
// hidden, and tells which.
//
// Run alone:           ./06_masked_language_model [FOLDER WITH TEXT]
// Run on two ranks:    torchrun --no-python --nproc-per-node 2 ./06_masked_language_model
// Prints, on rank 0:   step 100  loss 2.15
//                      held out: 56 % of the hidden tokens right, loss 1.67, by frequency ...

#include <torch/nn.h>
#include <torch/optim.h>

#include <algorithm>
#include <cstdio>

#include "examples/support/encoder_block.h"
#include "examples/support/masked_text.h"
#include "examples/support/rank_share.h"
#include "examples/support/shared_folder.h"
#include "trireme/base/error.h"
#include "trireme/data/corpus.h"
#include "trireme/data/token_shards.h"
#include "trireme/launch/init.h"
#include "trireme/parallel/data/replica.h"

namespace nn = torch::nn;
using namespace trireme::examples;
constexpr std::int64_t kSteps = 300, kBatch = 32, kContext = 64, kWidth = 64, kVocab = 260;

struct EncoderImpl : nn::Module {
  EncoderImpl()
      : tokens(kVocab + 1, kWidth),  // the last one is [MASK]
        neighbours(nn::Conv1dOptions(kWidth, kWidth, 9).padding(4)),
        blocks(EncoderBlock(kWidth, 4), EncoderBlock(kWidth, 4),
               nn::LayerNorm(nn::LayerNormOptions({kWidth}))),
        head(kWidth, kVocab) {
    register_module("tokens", tokens), register_module("neighbours", neighbours);
    register_module("blocks", blocks), register_module("head", head);
  }
  // Logits [N, kVocab] of the N tokens of x [B, T] that hidden [B, T] marks.
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& hidden) {
    const auto embedded = tokens(x);  // [B, T, C]
    const auto near = neighbours(embedded.transpose(1, 2)).transpose(1, 2);
    const auto placed = embedded + torch::gelu(near);  // of the view: docs/compute.md, traps
    return head(blocks->forward(placed.transpose(0, 1)).transpose(0, 1).index({hidden}));
  }
  nn::Embedding tokens;
  nn::Conv1d neighbours;  // says where tokens stand, as in wav2vec 2.0
  nn::Sequential blocks;
  nn::Linear head;
};
TORCH_MODULE(Encoder);
int main(int argc, char** argv) try {
  share_cores();
  torch::manual_seed(1);
  const auto world = trireme::init();
  const SharedFolder folder(*world);
  if (world->rank() == 0) {
    trireme::prepare_tokens({.text = argc > 1 ? argv[1] : "/usr/include/c++",
                             .output = folder.path() + "/tokens",
                             .train = {.vocab_size = kVocab}},
                            nullptr);
  }
  world->barrier();
  const trireme::TokenShards train(folder.path() + "/tokens", "train");
  const trireme::TokenShards held_out(folder.path() + "/tokens", "validation");
  Encoder encoder;
  auto replica = trireme::replicate(*encoder, *world);
  torch::optim::AdamW optimizer(encoder->parameters(), torch::optim::AdamWOptions(2e-3));
  const SampleShares shares(train.num_tokens() / kContext, kBatch, *world, 1);

  for (std::int64_t step = 1; step <= kSteps; ++step) {
    const MaskedText sample = mask(train, shares.of_step(step), kContext, step);
    optimizer.zero_grad();
    const auto loss = nn::functional::cross_entropy(encoder(sample.shown, sample.hidden),
                                                    sample.text.index({sample.hidden}));
    replica.backward(loss, sample.hidden.sum().item<double>());
    replica.finish_gradients();
    optimizer.step();
    if (step % 100 == 0 && world->rank() == 0)
      std::printf("step %ld  loss %.2f\n", step, loss.item<double>());
  }
  const torch::NoGradGuard no_gradients;
  const auto count = std::min<std::int64_t>(512, held_out.num_tokens() / kContext);
  const MaskedText sample = mask(held_out, torch::arange(count), kContext, 0);
  const auto answers = sample.text.index({sample.hidden});
  const auto logits = encoder(sample.shown, sample.hidden);
  if (world->rank() == 0)
    std::printf(
        "held out: %.0f %% of the hidden tokens right, loss %.2f, by frequency alone %.2f\n",
        100 * logits.argmax(1).eq(answers).to(torch::kDouble).mean().item<double>(),
        nn::functional::cross_entropy(logits, answers).item<double>(),
        trireme::unigram_entropy(held_out));
  world->close();
} catch (const trireme::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 2;
}

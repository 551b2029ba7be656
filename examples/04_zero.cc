// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ZeRO-3: a GPT of which each rank keeps its share alone. Weights come together block by block
// while they are needed; gradients and the optimizer's state never do.
//
// Run:  trireme launch -n 2 -- ./04_zero TEXT     (mpirun, torchrun and srun do as well; or alone)
//
// TEXT: any file of text, /usr/include/stdio.h if none is given; its bytes are the tokens. Rank 0
// prints, for any number of ranks:
//   held-out loss below 2.5 nats: yes (a guess: 5.55; 2.12 was seen)
//   the ranks keep 16.0 bytes for each parameter between them

#include <c10/core/GradMode.h>

#include <cstdio>
#include <span>

#include "examples/support/text_batches.h"
#include "trireme/launch/init.h"
#include "trireme/nn/transformer.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/shard/sharded_model.h"

using trireme::examples::Batch, trireme::examples::TextBatches;

constexpr std::int64_t kBatch = 8, kContext = 64, kSteps = 120, kMicroBatches = 4;

int main(int argc, char** argv) {
  const TextBatches text(argc > 1 ? argv[1] : "/usr/include/stdio.h", kBatch, kContext);
  if (text.too_short()) return std::fprintf(stderr, "too little text\n"), 2;

  const auto world = trireme::init();
  trireme::nn::ModelConfig config{.family = "gpt2", .layers = 4, .width = 64, .heads = 4};
  config.context = kContext;
  config.vocab_size = 256;
  config.resolve(256);
  trireme::nn::Transformer model(config);  // a plain module, that knows nothing of ranks
  trireme::nn::initialize(*model, 1);

  trireme::ShardedModel sharded(
      *model, *world, {.stage = 3, .micro_batches = kMicroBatches, .units = model->blocks()});
  model->set_block_runner([&](const auto& block, const auto& inputs, const auto& f) {
    return sharded.run(block, inputs, f);
  });
  const auto optimizer = trireme::optim::make_optimizer({.name = "adamw"}, sharded.space());
  const auto loss_of = [&](const Batch& batch) {
    return sharded.forward([&] { return model->loss(batch.inputs, batch.targets); });
  };

  for (std::int64_t step = 0; step < kSteps; ++step) {
    for (const std::int64_t m : sharded.micro_batches()) {
      sharded.backward(loss_of(text.train(step * kMicroBatches + m)));
    }
    sharded.finish_gradients();
    const double norm = sharded.gradient_norm() / kMicroBatches;
    sharded.step(*optimizer, 3e-3, trireme::optim::clip_scale(norm, 1.0) / kMicroBatches);
  }
  const c10::NoGradGuard no_grad;
  const double last = loss_of(text.held_out(0)).item<double>();  // all ranks: weights are gathered
  double kept = 0;  // weights, their gradients, two moments of the optimizer: f32
  for (const auto& piece : sharded.pieces()) kept += 16.0 * piece.weights.numel();
  world->all_reduce(trireme::buffer_of(std::span(&kept, 1)));
  if (world->rank() == 0) {
    std::printf("held-out loss below 2.5 nats: %s\n", last < 2.5 ? "yes" : "no");
    std::printf("the ranks keep %.1f bytes for each parameter between them\n",
                kept / static_cast<double>(sharded.layout().size));
    std::fprintf(stderr, "held-out loss %.4f nats\n", last);
  }
  world->close();
}

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A GPT whose matrices are cut across ranks: pairs of them compute each sample together, a part of
// every matrix each, and the pairs have other samples.
//
// Run:  trireme launch -n 2 -- ./10_tensor_parallel TEXT     (or mpirun, torchrun, srun; or alone)
//
// TEXT: any file of text, /usr/include/stdio.h if none is given; its bytes are the tokens. Rank 0
// prints the same on 1, 2 and 4 ranks:
//   held-out loss below 2.5 nats: yes (a guess: 5.55; 2.00 was seen)

#include <c10/core/GradMode.h>

#include <cstdio>

#include "examples/support/text_batches.h"
#include "trireme/launch/init.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/parallel/tensor/parallelize.h"
#include "trireme/topology/mesh.h"

using trireme::examples::Batch, trireme::examples::TextBatches;

constexpr std::int64_t kBatch = 8, kContext = 64, kSteps = 120, kMicroBatches = 4;

int main(int argc, char** argv) {
  const TextBatches text(argc > 1 ? argv[1] : "/usr/include/stdio.h", kBatch, kContext);
  if (text.too_short()) return std::fprintf(stderr, "too little text\n"), 2;

  const auto world = trireme::init();
  const int tp_size = world->size() % 2 == 0 ? 2 : 1;
  const trireme::Mesh mesh({{"dp", world->size() / tp_size}, {"tp", tp_size}});
  const auto dp = world->split(mesh, "dp"), tp = world->split(mesh, "tp");
  trireme::nn::ModelConfig config{.family = "gpt2", .layers = 3, .width = 64, .heads = 4};
  config.context = kContext;
  config.resolve(256);
  auto model = [&] {
    const trireme::nn::ParametersWithoutMemory later;  // only the own part gets memory
    return trireme::nn::Transformer(config);
  }();
  const auto cut = trireme::parallelize(*model, *tp, {.sequence = true});
  trireme::nn::initialize(*model, 1);  // the same weights on any number of ranks
  trireme::ShardedModel sharded(*model, *dp,
                                {.stage = 1, .micro_batches = kMicroBatches, .parts = cut.parts()});
  const auto optimizer = trireme::optim::make_optimizer({.name = "adamw"}, sharded.space());

  for (std::int64_t step = 0; step < kSteps; ++step) {
    for (const std::int64_t m : sharded.micro_batches()) {
      const Batch batch = text.train(step * kMicroBatches + m);
      sharded.backward(sharded.forward([&] { return model->loss(batch.inputs, batch.targets); }));
    }
    sharded.finish_gradients();
    const double norm = sharded.gradient_norm() / kMicroBatches;  // of the whole model
    sharded.step(*optimizer, 3e-3, trireme::optim::clip_scale(norm, 1.0) / kMicroBatches);
  }
  const c10::NoGradGuard no_grad;
  const Batch batch = text.held_out(0);
  const double last = model->loss(batch.inputs, batch.targets).item<double>();  // all ranks
  if (world->rank() == 0) {
    std::printf("held-out loss below 2.5 nats: %s\n", last < 2.5 ? "yes" : "no");
    std::fprintf(stderr, "held-out loss %.4f nats\n", last);
  }
  world->close();
}

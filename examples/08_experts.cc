// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A GPT with 8 experts in each block, of which a token uses 2. Each rank keeps its share of the
// experts and trains on micro-batches of its own; tokens travel to their experts and back.
//
// Run:  trireme launch -n 2 -- ./08_experts TEXT     (mpirun, torchrun and srun do as well; or
// alone)
//
// TEXT: any file of text, /usr/include/stdio.h if none is given; its bytes are the tokens. Rank 0
// prints, for 1, 2 or 4 ranks:
//   held-out loss below 2.5 nats: yes (a guess: 5.55; 1.86 was seen)
//   the ranks keep 8 experts of each block between them

#include <c10/core/GradMode.h>

#include <cstdio>
#include <span>

#include "examples/support/text_batches.h"
#include "trireme/launch/init.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/expert/expert_parallel.h"
#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/topology/mesh.h"

using trireme::examples::Batch, trireme::examples::TextBatches;

constexpr std::int64_t kBatch = 8, kContext = 64, kSteps = 120, kMicroBatches = 4;

int main(int argc, char** argv) {
  const TextBatches text(argc > 1 ? argv[1] : "/usr/include/stdio.h", kBatch, kContext);
  if (text.too_short()) return std::fprintf(stderr, "too little text\n"), 2;

  const auto world = trireme::init();
  const trireme::Mesh mesh({{"dp", 1}, {"ep", world->size()}});
  const auto dp = world->split(mesh, "dp"), ep = world->split(mesh, "ep");
  trireme::nn::ModelConfig config{.family = "gpt2", .layers = 3, .width = 64, .heads = 4};
  config.context = kContext;
  config.experts = {.count = 8, .top_k = 2, .width = 64};
  config.resolve(256);
  auto model = [&] {
    const trireme::nn::ParametersWithoutMemory later;  // only the own experts get memory
    return trireme::nn::Transformer(config);
  }();
  const auto spread = trireme::expert_parallel(*model, *ep);
  trireme::nn::initialize(*model, 1);
  trireme::ShardedModel sharded(
      *model, *dp, {.micro_batches = kMicroBatches / ep->size(), .parts = spread.parts()});
  const auto optimizer = trireme::optim::make_optimizer({.name = "adamw"}, sharded.space());

  for (std::int64_t step = 0; step < kSteps; ++step) {
    for (const std::int64_t m : sharded.micro_batches()) {
      const Batch batch = text.train(step * kMicroBatches + m * ep->size() + ep->rank());
      sharded.backward(sharded.forward([&] { return model->loss(batch.inputs, batch.targets); }));
    }
    sharded.finish_gradients();
    const double norm = sharded.gradient_norm() / kMicroBatches;  // sums over dp and ep
    sharded.step(*optimizer, 3e-3, trireme::optim::clip_scale(norm, 1.0) / kMicroBatches);
  }
  const c10::NoGradGuard no_grad;
  const Batch batch = text.held_out(0);
  const double last = model->loss(batch.inputs, batch.targets).item<double>();  // all ranks
  auto experts = model->mixtures().front()->experts().parameters().front().size(0);
  world->all_reduce(trireme::buffer_of(std::span(&experts, 1)));
  if (world->rank() == 0) {
    std::printf("held-out loss below 2.5 nats: %s\n", last < 2.5 ? "yes" : "no");
    std::printf("the ranks keep %ld experts of each block between them\n",
                static_cast<long>(experts));
    std::fprintf(stderr, "held-out loss %.4f nats\n", last);
  }
  world->close();
}

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A torch::nn::Sequential whose layers are spread over the ranks: each computes its own, of one
// micro-batch while its neighbours have others.
//
// Run:  trireme launch -n 2 -- ./11_pipeline TEXT     (or mpirun, torchrun, srun; or alone)
//
// TEXT: any file of text, /usr/include/stdio.h if none is given; the net guesses the next byte from
// eight. Rank 0 prints the same on 1, 2 and 4 ranks, and of its loss, on stderr, every digit:
//   held-out loss below 2.4 nats: yes (a guess: 5.55; 2.02 was seen)

#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adamw.h>
#include <torch/utils.h>

#include <cstdio>

#include "examples/support/text_batches.h"
#include "trireme/launch/init.h"
#include "trireme/parallel/pipeline/pipeline.h"

using trireme::examples::Batch, trireme::examples::TextBatches;

constexpr std::int64_t kBatch = 8, kContext = 64, kSteps = 100, kMicroBatches = 8, kWindow = 8;
constexpr std::int64_t kWidth = 128, kBytes = 256, kEmbedded = 16;

torch::nn::Sequential make_net() {
  using namespace torch::nn;  // NOLINT
  torch::manual_seed(1);
  return Sequential(Embedding(kBytes, kEmbedded), Flatten(FlattenOptions().start_dim(2)),
                    Linear(kWindow * kEmbedded, kWidth), ReLU(), Linear(kWidth, kWidth), ReLU(),
                    Linear(kWidth, kWidth), ReLU(), Linear(kWidth, kBytes));
}

// [sequences, places, kWindow], and the byte behind each window.
at::Tensor windows(const Batch& batch) { return batch.inputs.unfold(1, kWindow, 1); }
at::Tensor loss(const at::Tensor& output, const Batch& batch) {
  const at::Tensor targets = batch.targets.narrow(1, kWindow - 1, kContext - kWindow + 1);
  return torch::nn::functional::cross_entropy(output.flatten(0, 1), targets.flatten());
}

int main(int argc, char** argv) {
  const TextBatches text(argc > 1 ? argv[1] : "/usr/include/stdio.h", kBatch, kContext);
  if (text.too_short()) return std::fprintf(stderr, "too little text\n"), 2;

  const auto world = trireme::init();
  trireme::Pipeline pipeline(make_net(), *world,
                             {.schedule = "1f1b", .micro_batches = kMicroBatches});
  torch::optim::AdamW optimizer(pipeline.parameters(), 3e-3);

  for (std::int64_t step = 0; step < kSteps; ++step) {
    const auto batch = [&](std::int64_t m) { return text.train(step * kMicroBatches + m); };
    optimizer.zero_grad();
    pipeline.step([&](std::int64_t m) { return windows(batch(m)); },
                  [&](const at::Tensor& y, std::int64_t m) { return loss(y, batch(m)); });
    optimizer.step();
  }
  const double last =  // on all ranks
      pipeline
          .evaluate(
              4, [&](std::int64_t m) { return windows(text.held_out(m)); },
              [&](const at::Tensor& y, std::int64_t m) { return loss(y, text.held_out(m)); })
          .mean();
  if (world->rank() == 0) {
    std::printf("held-out loss below 2.4 nats: %s\n", last < 2.4 ? "yes" : "no");
    std::fprintf(stderr, "held-out loss %.17g nats\n", last);
  }
  world->close();
}

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A LibTorch program made parallel: the lines with a star are what it takes.
//
// Run alone:                        ./03_data_parallel
// Run on two ranks, or four:        torchrun --no-python --nproc-per-node 4 ./03_data_parallel
// All print:                        loss 0.0063

#include <torch/torch.h>

#include <cstdio>

#include "trireme/launch/init.h"            // *
#include "trireme/parallel/data/replica.h"  // *

// 8 samples that are different for each step and micro-batch.
at::Tensor inputs(std::int64_t step, std::int64_t micro_batch) {
  const auto seed = static_cast<std::uint64_t>(4 * step + micro_batch);
  return torch::rand({8, 3}, at::make_generator<at::CPUGeneratorImpl>(seed));
}

int main() {
  const auto world = trireme::init();  // *
  torch::manual_seed(1);
  torch::nn::Sequential net(torch::nn::Linear(3, 16), torch::nn::Tanh(), torch::nn::Linear(16, 1));
  const auto loss = [&](const at::Tensor& x) {
    return torch::mse_loss(net->forward(x), x.prod(1, /*keepdim=*/true));
  };
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  auto replica = trireme::replicate(*net, *world, {.micro_batches = 4});  // *

  for (std::int64_t step = 0; step < 100; ++step) {
    optimizer.zero_grad();
    for (const std::int64_t micro_batch : replica.micro_batches()) {  // *
      replica.backward(loss(inputs(step, micro_batch)));              // *
    }
    replica.finish_gradients();  // *
    optimizer.step();
  }
  if (world->rank() == 0) std::printf("loss %.4f\n", loss(inputs(100, 0)).item<double>());  // *
  world->close();                                                                           // *
}

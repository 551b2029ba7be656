// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What one rank takes of what all share: of the samples of a step, and of the host's cores.
//
//   share_cores();
//   const SampleShares shares(train.size(0), 64, *world, seed);
//   for (std::int64_t step = 0; step < 500; ++step) {
//     const at::Tensor numbers = shares.of_step(step);
//     ...
//     replica.backward(loss(train.index_select(0, numbers)), numbers.size(0));
//   }
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trireme {
class Group;
}

namespace trireme::examples {

// Sets this rank's compute threads to its share of the host's cores, or to OMP_NUM_THREADS where
// that is less. Call it in main(), before the first tensor operation. Throws as launch_info() does.
void share_cores();

// The part of count things that is this rank's: [begin, end), in rank order; the first
// count % size ranks have one more.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
Range share_of(std::int64_t count, const Group& group);

// Which samples of a step are this rank's. All ranks' together are the same, in rank order, on any
// number of ranks. Each epoch visits every sample once, in an order of its own. Constant after
// construction; any thread may call it.
class SampleShares {
 public:
  // batch: samples of a step over all ranks. Throws ConfigError where there are fewer samples than
  // one, or fewer in a batch than ranks in group.
  SampleShares(std::int64_t num_samples, std::int64_t batch, const Group& group,
               std::uint64_t seed);

  // Numbers in [0, num_samples): [n] i64 with n = batch / size, one more on the first
  // batch % size ranks.
  at::Tensor of_step(std::int64_t step) const;

 private:
  std::int64_t num_samples_;
  std::int64_t batch_;
  Range share_;  // of a batch
  std::uint64_t seed_;
};

}  // namespace trireme::examples

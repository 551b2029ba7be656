// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/rank_share.h"

#include <ATen/ops/empty.h>
#include <omp.h>

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/base/process_cores.h"
#include "trireme/base/random.h"
#include "trireme/comm/group.h"
#include "trireme/launch/environment.h"
#include "trireme/ops/threads.h"

namespace trireme::examples {

void share_cores() {
  const LaunchInfo info = launch_info();
  const int cores = static_cast<int>(process_cores().size()) / info.local_size;
  set_compute_threads({.threads = std::max(1, std::min(cores, omp_get_max_threads())),
                       .local_rank = info.local_rank,
                       .local_size = info.local_size});
}

Range share_of(std::int64_t count, const Group& group) {
  const std::int64_t each = count / group.size();
  const std::int64_t more = count % group.size();
  const auto begin = [&](std::int64_t rank) { return rank * each + std::min(rank, more); };
  return {begin(group.rank()), begin(group.rank() + 1)};
}

SampleShares::SampleShares(std::int64_t num_samples, std::int64_t batch, const Group& group,
                           std::uint64_t seed)
    : num_samples_(num_samples), batch_(batch), share_(share_of(batch, group)), seed_(seed) {
  if (num_samples < 1) throw_error<ConfigError>("no samples to train on");
  if (batch < group.size()) {
    throw_error<ConfigError>("a batch of {} samples for {} ranks: each needs one at least", batch,
                             group.size());
  }
}

at::Tensor SampleShares::of_step(std::int64_t step) const {
  at::Tensor numbers = at::empty({share_.end - share_.begin}, at::kLong);
  auto* number = numbers.data_ptr<std::int64_t>();
  for (std::int64_t i = share_.begin; i < share_.end; ++i) {
    const auto visit = static_cast<std::uint64_t>(step * batch_ + i);
    const auto size = static_cast<std::uint64_t>(num_samples_);
    const RandomPermutation order(size, seed_, visit / size);
    *number++ = static_cast<std::int64_t>(order(visit % size));
  }
  return numbers;
}

}  // namespace trireme::examples

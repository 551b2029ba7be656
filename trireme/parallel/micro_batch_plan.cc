// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/micro_batch_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

bool is_power_of_two(std::int64_t n) { return std::has_single_bit(static_cast<std::uint64_t>(n)); }

bool fits(std::int64_t micro_batches, std::int64_t ranks) {
  return micro_batches % ranks == 0 &&
         (is_power_of_two(ranks) || is_power_of_two(micro_batches / ranks));
}

}  // namespace

MicroBatchPlan::MicroBatchPlan(std::int64_t micro_batches, int ranks)
    : micro_batches_(micro_batches), ranks_(ranks) {
  if (micro_batches < 1) {
    throw_error<ConfigError>("batch.micro_batches is {}: a step needs at least one", micro_batches);
  }
  TRIREME_CHECK_LE(1, ranks, "a plan has ranks");
  if (!fits(micro_batches, ranks)) {
    throw_error<ConfigError>(
        "{} workers cannot share {} micro-batches a step: use {} workers, or change "
        "batch.micro_batches",
        ranks, micro_batches, fmt::join(fitting_ranks(micro_batches), ", "));
  }
}

std::vector<MicroBatchRange> MicroBatchPlan::rounds(int rank) const {
  TRIREME_CHECK_LT(rank, ranks_, "rank of a plan");
  const auto per_rank = static_cast<std::uint64_t>(micro_batches_ / ranks_);
  std::vector<MicroBatchRange> rounds;
  std::int64_t begin = 0;
  for (std::uint64_t size = std::bit_floor(per_rank); size > 0; size >>= 1) {
    if ((per_rank & size) == 0) continue;
    const auto count = static_cast<std::int64_t>(size);
    rounds.push_back({begin + rank * count, begin + (rank + 1) * count});
    begin += ranks_ * count;
  }
  return rounds;
}

std::vector<std::int64_t> MicroBatchPlan::fitting_ranks(std::int64_t micro_batches) {
  std::vector<std::int64_t> result;
  for (std::int64_t ranks = 1; ranks <= micro_batches; ++ranks) {
    if (fits(micro_batches, ranks)) result.push_back(ranks);
  }
  return result;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/parameter_sums.h"

#include <algorithm>
#include <span>

#include "trireme/comm/group.h"
#include "trireme/optim/tree_sum.h"

namespace trireme::optim {

ParameterSums::ParameterSums(const std::vector<OptimizerParameter>& parameters, std::size_t kinds)
    : kinds_(kinds) {
  std::int64_t count = 0;
  for (const OptimizerParameter& parameter : parameters) {
    const FlatEntry& entry = parameter.entry;
    const std::int64_t first = entry.offset / kShardBlock;
    const std::int64_t end = (entry.offset + entry.count + kShardBlock - 1) / kShardBlock;
    leaves_.push_back({first, count, entry.count == 0 ? 0 : end - first});
    count += leaves_.back().count;
  }
  sums_.assign(static_cast<std::size_t>(count) * kinds_, 0.0);
}

void ParameterSums::clear() { std::fill(sums_.begin(), sums_.end(), 0.0); }

void ParameterSums::set(const ParameterPart& part, std::initializer_list<double> leaves) {
  const Leaves& own = leaves_[part.parameter];
  const std::int64_t leaf = own.begin + part.begin / kShardBlock - own.first_block;
  std::copy(leaves.begin(), leaves.end(), sums_.begin() + leaf * static_cast<std::int64_t>(kinds_));
}

void ParameterSums::exchange(Group* group) {
  // Exact: all but one summand of each leaf are zero.
  if (group != nullptr && !sums_.empty()) group->all_reduce(buffer_of(std::span(sums_)));
}

double ParameterSums::of(std::size_t parameter, std::size_t kind) const {
  const Leaves& leaves = leaves_[parameter];
  std::vector<double> own;
  own.reserve(static_cast<std::size_t>(leaves.count));
  for (std::int64_t i = leaves.begin; i < leaves.begin + leaves.count; ++i) {
    own.push_back(sums_[static_cast<std::size_t>(i) * kinds_ + kind]);
  }
  return detail::tree_sum(own.data(), leaves.count);
}

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/stage_norm.h"

#include <ATen/ops/zeros.h>

#include <cmath>
#include <map>
#include <unordered_map>

#include "trireme/comm/group.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

// Segments of the whole model's row: parameters of no unit and units, each by the number of its
// first parameter.
StageNorm::StageNorm(const std::vector<const ModuleLayout*>& own,
                     const std::vector<std::string>& names, Group* group)
    : group_(group != nullptr && group->size() > 1 ? group : nullptr) {
  std::unordered_map<std::string, std::size_t> number;
  for (std::size_t i = 0; i < names.size(); ++i) number[names[i]] = i;
  // By parameter, those of no unit first.
  std::vector<std::int64_t> blocks(2 * names.size(), 0);
  std::map<std::size_t, BlockRun> own_runs;
  const auto add = [&](std::size_t buffer, std::size_t segment, std::int64_t begin,
                       std::int64_t end) {
    const std::int64_t first = begin / kShardBlock;
    const std::int64_t count = (end + kShardBlock - 1) / kShardBlock - first;
    blocks[segment] = count;
    own_runs[segment] = {buffer, first, count, 0};
  };
  for (std::size_t buffer = 0; buffer < own.size(); ++buffer) {
    const ModuleLayout& layout = *own[buffer];
    const bool has_units = layout.units.size() > 1;
    std::vector<bool> seen(layout.units.size(), false);
    for (std::size_t i = 0; i < layout.entries.size(); ++i) {
      const FlatEntry& entry = layout.entries[i];
      const std::size_t unit = layout.unit_of[i], first = number.at(entry.name);
      if (unit == 0 && has_units) {
        add(buffer, first, entry.offset, entry.offset + entry.count);
      } else if (!seen[unit]) {
        seen[unit] = true;
        add(buffer, unit == 0 ? first : names.size() + first, layout.units[unit].begin,
            layout.units[unit].end);
      }
    }
  }
  if (group_ != nullptr) group_->all_reduce(buffer_of(std::span(blocks)));
  for (std::size_t segment = 0; segment < blocks.size(); ++segment) {
    if (const auto run = own_runs.find(segment); run != own_runs.end()) {
      run->second.in_row = row_size_;
      runs_.push_back(run->second);
    }
    row_size_ += blocks[segment];
  }
}

double StageNorm::of(std::span<const GradientSquares> squares, Group* parts) const {
  // The last: what is counted elsewhere.
  const at::Tensor row = at::zeros({row_size_ + 1}, at::TensorOptions().dtype(at::kDouble));
  for (const BlockRun& run : runs_) {
    row.narrow(0, run.in_row, run.count)
        .copy_(squares[run.buffer].blocks.narrow(0, run.begin, run.count));
  }
  for (const GradientSquares& one : squares) row[row_size_] += one.elsewhere;
  // Exact, but for the last: all but one summand are zeros.
  if (group_ != nullptr) group_->all_reduce(buffer_of_tensor(row));
  const double elsewhere = row[row_size_].item<double>();
  const double norm = optim::norm_of_blocks(row.narrow(0, 0, row_size_));
  if (parts == nullptr) return norm;
  double sum = norm * norm - elsewhere;
  parts->all_reduce(buffer_of(std::span(&sum, 1)));
  return sum < 0 ? 0 : std::sqrt(sum);  // NaN stays NaN
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/whole_matrices.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme::optim {
namespace {

at::Tensor workspace(std::int64_t elements) {
  const MemoryScope scope(MemoryCategory::kWorkspace);
  return at::empty({elements}, at::kFloat);
}

ConstBuffer input_of(const at::Tensor& values) {
  return const_buffer_of(
      std::span<const float>(values.data_ptr<float>(), static_cast<std::size_t>(values.numel())));
}

Buffer output_of(const at::Tensor& values) {
  return buffer_of(
      std::span<float>(values.data_ptr<float>(), static_cast<std::size_t>(values.numel())));
}

void copy_values(const float* from, float* to, std::int64_t count) {
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
}

}  // namespace

WholeMatrices::WholeMatrices(const OptimizerSpace& space, std::vector<std::size_t> matrices)
    : group_(space.group != nullptr && space.group->size() > 1 ? space.group : nullptr),
      matrices_(std::move(matrices)) {
  for (const std::size_t p : matrices_) {
    const FlatEntry& entry = space.parameters[p].entry;
    if (entry.shape.size() < 2 || entry.count == 0) {
      throw_error<ShapeError>("parameter '{}' of {} elements and {} dims is no matrix", entry.name,
                              entry.count, entry.shape.size());
    }
    shapes_.push_back({p, entry.shape[0], entry.count / entry.shape[0], nullptr});
  }
  deal(space);
  if (alone()) {
    for (const Matrix& shape : shapes_) elements_ += shape.rows * shape.columns;
    owned_elements_ = elements_;
    return;
  }
  const int rank = group_->rank(), size = group_->size();
  const auto is_owned_by = [&](int owner) {
    return [this, owner](const Run& run) { return owners_[run.matrix] == owner; };
  };
  for (int other = 0; other < size; ++other) {
    const std::vector<Run> held = runs_of(space, shard_pieces(space.segments, other, size));
    std::int64_t from_other = 0;
    for (const Run& run : held) {
      if (!is_owned_by(rank)(run)) continue;
      received_.push_back(run);
      from_other += run.count;
    }
    receive_counts_.push_back(from_other);
    if (other != rank) continue;
    for (int owner = 0; owner < size; ++owner) {
      std::int64_t to_owner = 0;
      for (const Run& run : held) {
        if (!is_owned_by(owner)(run)) continue;
        sent_.push_back(run);
        to_owner += run.count;
      }
      send_counts_.push_back(to_owner);
      elements_ += to_owner;
    }
  }
}

// What those pieces hold of the matrices, in the order of the elements.
std::vector<WholeMatrices::Run> WholeMatrices::runs_of(
    const OptimizerSpace& space, const std::vector<ShardPiece>& pieces) const {
  std::vector<Run> runs;
  std::int64_t at = 0;
  std::size_t first = 0;  // the first matrix that may reach into the piece
  for (const ShardPiece& piece : pieces) {
    for (std::size_t m = first; m < matrices_.size(); ++m) {
      const FlatEntry& entry = space.parameters[matrices_[m]].entry;
      if (entry.offset >= piece.end) break;
      const std::int64_t begin = std::max(entry.offset, piece.begin);
      const std::int64_t end = std::min(entry.offset + entry.count, piece.end);
      if (entry.offset + entry.count <= piece.end) first = m + 1;
      if (begin >= end) continue;
      runs.push_back({m, begin - entry.offset, at, end - begin});
      at += end - begin;
    }
  }
  return runs;
}

void WholeMatrices::deal(const OptimizerSpace& space) {
  std::vector<std::size_t> order(matrices_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto count_of = [&](std::size_t m) { return space.parameters[matrices_[m]].entry.count; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return count_of(a) > count_of(b); });
  std::vector<std::int64_t> loads(static_cast<std::size_t>(alone() ? 1 : group_->size()), 0);
  owners_.resize(matrices_.size());
  for (const std::size_t m : order) {
    const auto least = std::min_element(loads.begin(), loads.end());
    owners_[m] = static_cast<int>(least - loads.begin());
    *least += count_of(m);
  }
  std::fill(loads.begin(), loads.end(), 0);
  for (std::size_t m = 0; m < matrices_.size(); ++m) {
    std::int64_t& load = loads[static_cast<std::size_t>(owners_[m])];
    place_.push_back(load);
    load += count_of(m);
  }
  if (!alone()) owned_elements_ = loads[static_cast<std::size_t>(group_->rank())];
}

std::vector<Matrix> WholeMatrices::bring(float* mine) {
  float* values = mine;
  if (!alone()) {
    const at::Tensor leaving = workspace(elements_), arriving = workspace(owned_elements_);
    auto* to = leaving.data_ptr<float>();
    for (const Run& run : sent_) {
      copy_values(mine + run.in_mine, to, run.count);
      to += run.count;
    }
    group_->all_to_all(input_of(leaving), output_of(arriving), send_counts_, receive_counts_);
    owned_ = workspace(owned_elements_);
    values = owned_.data_ptr<float>();
    const auto* from = arriving.data_ptr<float>();
    for (const Run& run : received_) {
      copy_values(from, values + place_[run.matrix] + run.in_matrix, run.count);
      from += run.count;
    }
  }
  std::vector<Matrix> owned;
  for (std::size_t m = 0; m < matrices_.size(); ++m) {
    if (!alone() && owners_[m] != group_->rank()) continue;
    owned.push_back(shapes_[m]);
    owned.back().values = values + place_[m];
  }
  return owned;
}

void WholeMatrices::give_back(float* mine) {
  if (alone()) return;
  const at::Tensor leaving = workspace(owned_elements_), arriving = workspace(elements_);
  const auto* values = owned_.data_ptr<float>();
  auto* to = leaving.data_ptr<float>();
  for (const Run& run : received_) {
    copy_values(values + place_[run.matrix] + run.in_matrix, to, run.count);
    to += run.count;
  }
  release();
  group_->all_to_all(input_of(leaving), output_of(arriving), receive_counts_, send_counts_);
  const auto* from = arriving.data_ptr<float>();
  for (const Run& run : sent_) {
    copy_values(from, mine + run.in_mine, run.count);
    from += run.count;
  }
}

}  // namespace trireme::optim

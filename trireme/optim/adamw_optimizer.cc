// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/adamw_optimizer.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme::optim {
namespace {

at::Tensor zero_moment(std::int64_t size, c10::Device device) {
  const MemoryScope scope(MemoryCategory::kOptimizer);
  return at::zeros({size}, at::TensorOptions().dtype(at::kFloat).device(device));
}

// What decays of a piece, counted from its beginning; neighbours as one range.
std::vector<DecayRange> decay_ranges(const OptimizerSpace& space, const ShardPiece& piece) {
  std::vector<DecayRange> ranges;
  for (const OptimizerParameter& parameter : space.parameters) {
    const FlatEntry& entry = parameter.entry;
    const std::int64_t begin = std::max(entry.offset, piece.begin) - piece.begin;
    const std::int64_t end = std::min(entry.offset + entry.count, piece.end) - piece.begin;
    if (!parameter.decays || begin >= end) continue;
    if (!ranges.empty() && ranges.back().end == begin) {
      ranges.back().end = end;
    } else {
      ranges.push_back({begin, end});
    }
  }
  return ranges;
}

}  // namespace

AdamWOptimizer::AdamWOptimizer(const AdamWConfig& config, const OptimizerSpace& space)
    : pieces_(own_pieces(space)),
      first_moment_(zero_moment(shard_size(pieces_), space.device)),
      second_moment_(zero_moment(shard_size(pieces_), space.device)) {
  for (const ShardPiece& piece : pieces_) {
    updates_.emplace_back(config, first_moment_.narrow(0, piece.local_begin, piece.count()),
                          second_moment_.narrow(0, piece.local_begin, piece.count()),
                          decay_ranges(space, piece));
  }
}

void AdamWOptimizer::check_pieces(std::span<const PieceUpdate> pieces) const {
  if (pieces.size() == pieces_.size()) return;
  throw_error<ShapeError>("an update of {} pieces, but the optimizer was made for {}",
                          pieces.size(), pieces_.size());
}

void AdamWOptimizer::step(const OptimizerUpdate& update) {
  check_pieces(update.pieces);
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const PieceUpdate& piece = update.pieces[i];
    updates_[i].step({.weights = piece.weights,
                      .gradients = piece.gradients,
                      .learning_rate = update.learning_rate,
                      .gradient_scale = update.gradient_scale,
                      .working_copy = piece.working_copy,
                      .clear_gradients = update.clear_gradients,
                      .first_element = pieces_[i].begin});
  }
  ++steps_;
}

void AdamWOptimizer::round(std::span<const PieceUpdate> pieces) const {
  check_pieces(pieces);
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    if (!pieces[i].working_copy.defined()) continue;
    updates_[i].round(pieces[i].weights, pieces[i].working_copy, pieces_[i].begin);
  }
}

std::vector<OptimizerState> AdamWOptimizer::state() {
  return {{"first_moment", first_moment_}, {"second_moment", second_moment_}};
}

void AdamWOptimizer::set_steps(std::int64_t steps) {
  steps_ = steps;
  for (AdamW& update : updates_) update.set_steps(steps);
}

}  // namespace trireme::optim

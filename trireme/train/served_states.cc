// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/served_states.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <span>

#include "trireme/base/error.h"

namespace trireme {
namespace {

using optim::OptimizerState;

// The part of the whole that one of a range belongs to; a new one where there is none yet.
OptimizerState& whole_of(const ps::JobLayout& layout, const OptimizerState& part,
                         WholeState& state) {
  const auto found = std::find_if(
      state.optimizer.begin(), state.optimizer.end(), [&](const OptimizerState& other) {
        return other.name == part.name && other.elementwise == part.elementwise &&
               (part.elementwise || other.parameters == part.parameters);
      });
  if (found != state.optimizer.end()) return *found;
  OptimizerState whole = part;
  whole.parameters.clear();
  const std::int64_t size = layout.dense.size;
  if (part.elementwise) {
    whole.values = at::zeros({size}, at::kFloat);
    whole.pieces = {{0, size, 0}};
  } else {
    whole.values = at::zeros(part.values.sizes(), at::kFloat);
  }
  return state.optimizer.emplace_back(std::move(whole));
}

void add_names(const std::vector<std::string>& names, std::vector<std::string>& to) {
  for (const std::string& name : names) {
    if (std::find(to.begin(), to.end(), name) == to.end()) to.push_back(name);
  }
}

// The state of an optimizer of the range; its values lie in the optimizer or are of their own.
struct RangeState {
  RangeState(const ps::JobLayout& layout, std::size_t range)
      : segment(layout.dense_ranges().at(range)),
        optimizer(optim::make_optimizer(layout.dense.optimizer, layout.dense_space(range))),
        parts(optimizer->state()) {}

  FlatSegment segment;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::vector<OptimizerState> parts;
};

// Calls act(memory, bytes) for all that the bytes of a range's state are made of, in their order
// (ps/dense_storage.cc): the steps, the weights, the parts.
void walk(RangeState& range, std::int64_t& steps, const at::Tensor& weights,
          const std::function<void(void*, std::size_t)>& act) {
  act(&steps, sizeof(steps));
  const auto count = static_cast<std::size_t>(range.segment.end - range.segment.begin);
  act(weights.data_ptr<float>() + range.segment.begin, count * sizeof(float));
  for (const OptimizerState& part : range.parts) {
    act(part.values.data_ptr<float>(),
        static_cast<std::size_t>(part.values.numel()) * sizeof(float));
  }
}

// Elements of a part that are also in the whole, one way or the other.
void copy_part(const OptimizerState& part, const OptimizerState& whole, bool to_whole) {
  if (!part.elementwise) {
    (to_whole ? whole : part).values.copy_((to_whole ? part : whole).values);
    return;
  }
  for (const ShardPiece& piece : part.pieces) {
    const at::Tensor own = part.values.narrow(0, piece.local_begin, piece.count());
    const at::Tensor other = whole.values.narrow(0, piece.begin, piece.count());
    (to_whole ? other : own).copy_(to_whole ? own : other);
  }
}

}  // namespace

WholeState zero_state(const ps::JobLayout& layout) {
  WholeState state;
  state.weights = at::zeros({layout.dense.size}, at::kFloat);
  for (std::size_t i = 0; i < layout.dense_ranges().size(); ++i) {
    const RangeState range(layout, i);
    for (const OptimizerState& part : range.parts) {
      add_names(part.parameters, whole_of(layout, part, state).parameters);
    }
  }
  return state;
}

WholeState gather_states(ps::Worker& worker) {
  const ps::JobLayout& layout = worker.layout();
  WholeState state = zero_state(layout);
  for (std::size_t i = 0; i < worker.num_dense_ranges(); ++i) {
    const std::vector<std::byte> bytes = worker.dense_state(i);
    std::span<const std::byte> rest = bytes;
    RangeState range(layout, i);
    std::int64_t steps = 0;
    walk(range, steps, state.weights, [&](void* memory, std::size_t size) {
      if (size > rest.size()) {
        throw_error<CommError>("the state of range {} has {} bytes: too few", i, bytes.size());
      }
      std::memcpy(memory, rest.data(), size);
      rest = rest.subspan(size);
    });
    state.steps = std::max(state.steps, steps);
    for (const OptimizerState& part : range.parts) {
      copy_part(part, whole_of(layout, part, state), true);
    }
  }
  return state;
}

std::int64_t optimizer_steps(ps::Worker& worker) {
  const std::vector<std::byte> bytes = worker.dense_state(0);
  std::int64_t steps = 0;
  if (bytes.size() < sizeof(steps)) throw_error<CommError>("the state of range 0 is empty");
  std::memcpy(&steps, bytes.data(), sizeof(steps));
  return steps;
}

std::vector<std::vector<std::byte>> range_states(const ps::JobLayout& layout,
                                                 const WholeState& state) {
  std::vector<std::vector<std::byte>> all(layout.dense_ranges().size());
  WholeState whole = state;
  for (std::size_t i = 0; i < all.size(); ++i) {
    RangeState range(layout, i);
    for (const OptimizerState& part : range.parts) {
      copy_part(part, whole_of(layout, part, whole), false);
    }
    walk(range, whole.steps, whole.weights, [&](void* memory, std::size_t size) {
      const auto* bytes = static_cast<const std::byte*>(memory);
      all[i].insert(all[i].end(), bytes, bytes + size);
    });
  }
  return all;
}

}  // namespace trireme

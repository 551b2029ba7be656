// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/unit_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/shard/segment_counts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

UnitWeights::UnitWeights(ModuleLayout& layout, const at::Tensor& masters, Group& group,
                         WeightStoreOptions options)
    : layout_(layout),
      options_(std::move(options)),
      own_(masters, shard_pieces(layout.units, group.rank(), group.size()), options_.dtype, group,
           options_.link),
      nothing_(at::empty(
          {0},
          at::TensorOptions().dtype(options_.dtype).device(layout.parameters.front().device()))),
      units_(layout.units.size()),
      pool_(computing_memory(group, options_.dtype, options_.link)),
      thread_(group.duplicate("weights")) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < layout_.entries.size(); ++i) {
    at::Tensor& parameter = layout_.parameters[i];
    parameter.mutable_grad().reset();
    parameter.set_data(parameter.to(options_.dtype));
    units_[layout_.unit_of[i]].entries.push_back(i);
  }
  for (at::Tensor& parameter : layout_.frozen) parameter.set_data(parameter.to(options_.dtype));
  if (options_.link != nullptr) gather_.emplace(*options_.link, options_.dtype, layout.units);
  std::int64_t largest = 0;
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    if (unit > 0) largest = std::max(largest, unit_bytes(unit));
  }
  const std::int64_t least = unit_bytes(0) + largest;
  if (options_.gather_budget_bytes > 0 && options_.gather_budget_bytes < least) {
    throw_error<ConfigError>(
        "the budget of gathered weights is {} bytes, but the weights of no unit and the largest "
        "unit take {}: raise it, or make smaller units",
        options_.gather_budget_bytes, least);
  }
}

std::int64_t UnitWeights::unit_bytes(std::size_t unit) const {
  const FlatSegment& segment = layout_.units[unit];
  return (segment.end - segment.begin) * static_cast<std::int64_t>(nothing_.element_size());
}

void UnitWeights::shrink() {
  for (at::Tensor& parameter : layout_.parameters) parameter.set_data(nothing_);
}

void UnitWeights::begin_pass() {
  if (held_) return;
  end_pass();
  if (!seen_.empty()) order_ = std::exchange(seen_, {});
  enter(0, false);
}

void UnitWeights::start_gather(std::size_t unit) {
  Unit& u = units_[unit];
  if (u.buffer.defined()) return;
  const FlatSegment& segment = layout_.units[unit];
  gathered_bytes_ += unit_bytes(unit);
  u.buffer = pool_.take(segment.end - segment.begin);
  const DevicePoint computed = options_.link != nullptr ? options_.link->queued() : DevicePoint();
  u.ticket = thread_.post([this, unit, buffer = u.buffer, computed](Group& wire) {
    gather(wire, unit, buffer, computed);
  });
}

void UnitWeights::gather(Group& wire, std::size_t unit, const at::Tensor& buffer,
                         const DevicePoint& computed) {
  const FlatSegment& segment = layout_.units[unit];
  const at::Tensor own = own_.computing(unit);
  if (gather_) {
    units_[unit].copied = gather_->start(wire, segment, own, buffer, computed);
  } else {
    wire.all_gather(buffer_of_tensor(own), buffer_of_tensor(buffer),
                    segment_counts(segment, wire.size()));
  }
}

void UnitWeights::attach(std::size_t unit) {
  Unit& u = units_[unit];
  if (u.attached) return;
  start_gather(unit);
  thread_.wait(u.ticket);
  u.copied.hold_device();
  const at::NoGradGuard no_grad;
  if (!u.full.defined()) {
    u.full = at::for_blob(u.buffer.data_ptr(), u.buffer.sizes())
                 .options(u.buffer.options())
                 .target_device(u.buffer.device())
                 .make_tensor();
    for (const std::size_t entry : u.entries) {
      const FlatEntry& e = layout_.entries[entry];
      u.places.push_back(
          u.full.narrow(0, e.offset - layout_.units[unit].begin, e.count).view(e.shape));
    }
  } else {
    u.full.storage().set_data_ptr(at::DataPtr(u.buffer.data_ptr(), u.buffer.device()));
  }
  for (std::size_t i = 0; i < u.entries.size(); ++i) {
    layout_.parameters[u.entries[i]].set_data(u.places[i]);
  }
  u.attached = true;
}

void UnitWeights::detach(std::size_t unit) {
  Unit& u = units_[unit];
  if (!u.buffer.defined()) return;
  if (u.attached) {
    for (const std::size_t entry : u.entries) layout_.parameters[entry].set_data(nothing_);
    u.full.storage().set_data_ptr(at::DataPtr(nullptr, u.buffer.device()));
    u.attached = false;
  } else {
    thread_.wait(u.ticket);
  }
  gathered_bytes_ -= unit_bytes(unit);
  pool_.give_back(std::exchange(u.buffer, {}));
}

void UnitWeights::enter(std::size_t unit, bool backward) {
  if (held_ || layout_.units[unit].begin == layout_.units[unit].end) return;
  if (!backward) seen_.push_back(unit);
  attach(unit);
  gather_ahead(unit, backward);
}

// The units next to come, as long as they fit the budget.
void UnitWeights::gather_ahead(std::size_t unit, bool backward) {
  const std::vector<std::size_t>& order = backward ? seen_ : order_;
  std::vector<std::size_t> next;
  if (backward) {
    const auto here = std::find(order.rbegin(), order.rend(), unit);
    if (here != order.rend()) next.assign(here + 1, order.rend());
  } else {
    const std::size_t here = seen_.size() - 1;
    if (here < order.size() && order[here] == unit) {
      next.assign(order.begin() + static_cast<std::ptrdiff_t>(here) + 1, order.end());
    }
  }
  int ahead = 0;
  for (const std::size_t one : next) {
    if (ahead++ == options_.prefetch) break;
    const bool there = units_[one].buffer.defined();
    const bool fits = options_.gather_budget_bytes == 0 ||
                      gathered_bytes_ + unit_bytes(one) <= options_.gather_budget_bytes;
    if (!there && !fits) break;
    start_gather(one);
  }
}

// The last unit of a pass is the first that its backward pass needs.
void UnitWeights::leave(std::size_t unit, bool backward_follows) {
  if (held_) return;
  if (backward_follows && !order_.empty() && order_.back() == unit) return;
  detach(unit);
}

void UnitWeights::release(std::size_t unit) {
  if (!held_) detach(unit);
}

// Pieces may be changed from here on.
void UnitWeights::end_pass() {
  if (held_) return;
  for (std::size_t unit = 0; unit < units_.size(); ++unit) detach(unit);
  for (const Unit& unit : units_) unit.copied.wait();
}

// All are on their way before the first is waited for.
void UnitWeights::hold(bool held) {
  if (held == held_) return;
  if (held) {
    for (std::size_t unit = 0; unit < units_.size(); ++unit) {
      if (layout_.units[unit].begin < layout_.units[unit].end) start_gather(unit);
    }
    for (std::size_t unit = 0; unit < units_.size(); ++unit) {
      if (layout_.units[unit].begin < layout_.units[unit].end) attach(unit);
    }
  }
  held_ = held;
  if (!held) end_pass();
}

}  // namespace trireme

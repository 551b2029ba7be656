// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/sharded_gradients.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full_like.h>

#include <bit>
#include <exception>
#include <string>
#include <unordered_map>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/shard/segment_counts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

// Units whose gradients may be on their way while another's are summed.
constexpr std::size_t kMostInFlight = 2;

std::vector<std::int64_t> interleaved(std::int64_t micro_batches, const Group& group) {
  if (micro_batches == 0) micro_batches = group.size();
  check_interleaved_micro_batches(micro_batches, group.size());
  std::vector<std::int64_t> numbers;
  for (std::int64_t m = group.rank(); m < micro_batches; m += group.size()) numbers.push_back(m);
  return numbers;
}

}  // namespace

void check_interleaved_micro_batches(std::int64_t micro_batches, int ranks) {
  const bool power_of_two = std::has_single_bit(static_cast<unsigned>(ranks));
  if (micro_batches % ranks == 0 && (micro_batches == ranks || power_of_two)) return;
  throw_error<ConfigError>(
      "{} ranks cannot share {} micro-batches a step in ZeRO stages 2 and 3: use a number of "
      "ranks that is a power of two and divides them, {} micro-batches, or stage 1",
      ranks, micro_batches, ranks);
}

ShardedGradients::ShardedGradients(const ModuleLayout& layout, Group& group,
                                   std::int64_t micro_batches, OnUnit on_unit)
    : layout_(layout),
      pieces_(shard_pieces(layout.units, group.rank(), group.size())),
      entries_of_(layout.units.size()),
      micro_batches_(interleaved(micro_batches, group)),
      on_unit_(std::move(on_unit)),
      pool_(group, at::kFloat),
      queue_(layout.entries, layout.units),
      tree_(shard_size(pieces_)),
      open_(layout.units.size()),
      account_(names_of(layout.entries)),
      thread_(group.duplicate("gradients")),
      hooks_(layout.parameters, [this](std::size_t entry) { on_gradient(entry); }) {
  for (std::size_t i = 0; i < layout.entries.size(); ++i) {
    entries_of_[layout.unit_of[i]].push_back(i);
  }
}

// Others may be waiting for what this rank will not send.
ShardedGradients::~ShardedGradients() {
  if (computing_ || position_ > 0) thread_.group().abandon("it ended in the middle of a step");
}

void ShardedGradients::backward(const at::Tensor& loss, double weight) {
  begin_micro_batch(weight);
  {
    std::unordered_map<const c10::TensorImpl*, std::size_t> units;
    for (std::size_t i = 0; i < layout_.entries.size(); ++i) {
      units[layout_.parameters[i].unsafeGetTensorImpl()] = layout_.unit_of[i];
    }
    const ops::DirectGradients direct([&](const at::Tensor& parameter) {
      const auto unit = units.find(parameter.unsafeGetTensorImpl());
      if (unit != units.end() && !open_[unit->second].defined()) open(unit->second);
    });
    try {
      loss.backward(weight == 1 ? at::Tensor() : at::full_like(loss.detach(), weight));
    } catch (const CommError&) {  // which all ranks get
      throw;
    } catch (const std::exception& error) {
      thread_.group().abandon(std::string("a backward pass ended with: ") + error.what());
      throw;
    }
  }
  end_micro_batch();
}

void ShardedGradients::begin_micro_batch(double weight) {
  if (computing_ || position_ == micro_batches_.size()) {
    throw_error<Error>(
        "a step has {} backward pass{} on each rank, and this is one more before "
        "finish_gradients()",
        micro_batches_.size(), micro_batches_.size() == 1 ? "" : "es");
  }
  account_.add_weight(weight);
  leaf_ = tree_.buffer();
  queue_.begin();
  computing_ = true;
}

at::Tensor ShardedGradients::view_in(const at::Tensor& buffer, std::size_t entry) const {
  const FlatEntry& e = layout_.entries[entry];
  const std::int64_t begin = layout_.units[layout_.unit_of[entry]].begin;
  return buffer.narrow(0, e.offset - begin, e.count).view(e.shape);
}

void ShardedGradients::open(std::size_t unit) {
  const at::NoGradGuard no_grad;
  const FlatSegment& segment = layout_.units[unit];
  if (in_flight_.size() > kMostInFlight) {
    thread_.wait(in_flight_.front());
    in_flight_.pop_front();
  }
  open_[unit] = pool_.take(segment.end - segment.begin).zero_();
  for (const std::size_t entry : entries_of_[unit]) {
    const at::Tensor home = view_in(open_[unit], entry);
    at::Tensor& gradient = layout_.parameters[entry].mutable_grad();
    if (gradient.defined()) home.copy_(gradient);
    gradient = home;
  }
}

void ShardedGradients::on_gradient(std::size_t entry) {
  if (!computing_) {
    throw_error<Error>(
        "loss.backward() outside of ShardedModel::backward(): gradients have no place there");
  }
  account_.saw(entry);
  const std::size_t unit = layout_.unit_of[entry];
  if (!open_[unit].defined()) {
    open(unit);  // takes what autograd has left in the parameter
  } else {
    const at::NoGradGuard no_grad;
    const at::Tensor home = view_in(open_[unit], entry);
    at::Tensor& gradient = layout_.parameters[entry].mutable_grad();
    if (gradient.defined() && gradient.data_ptr() != home.data_ptr()) {
      home.copy_(gradient);
      gradient = home;
    }
  }
  launch(queue_.arrive(entry));
}

void ShardedGradients::launch(const std::vector<std::size_t>& units) {
  for (const std::size_t unit : units) {
    const FlatSegment& segment = layout_.units[unit];
    if (segment.begin == segment.end) continue;
    if (!open_[unit].defined()) open(unit);  // had no gradient: zeros travel
    for (const std::size_t entry : entries_of_[unit]) {
      layout_.parameters[entry].mutable_grad().reset();
    }
    in_flight_.push_back(
        thread_.post([this, unit, gradients = std::exchange(open_[unit], {}),
                      leaf = leaf_](Group& wire) { scatter(wire, unit, gradients, leaf); }));
    if (on_unit_) on_unit_(unit);
  }
}

// On the communication thread.
void ShardedGradients::scatter(Group& wire, std::size_t unit, const at::Tensor& gradients,
                               const at::Tensor& leaf) {
  const ShardPiece& piece = pieces_[unit];
  wire.reduce_scatter(buffer_of_tensor(gradients),
                      buffer_of_tensor(leaf.narrow(0, piece.local_begin, piece.count())),
                      ReduceOp::kSum, segment_counts(layout_.units[unit], wire.size()));
  pool_.give_back(gradients);
}

void ShardedGradients::end_micro_batch() {
  launch(queue_.finish());
  push_last_leaf();
  last_leaf_ = std::move(leaf_);
  last_ticket_ = thread_.post([](Group&) {});
  ++position_;
  computing_ = false;
}

void ShardedGradients::push_last_leaf() {
  if (!last_leaf_.defined()) return;
  thread_.wait(last_ticket_);
  tree_.push(std::exchange(last_leaf_, {}));
}

void ShardedGradients::finish() {
  while (position_ < micro_batches_.size()) {
    begin_micro_batch(0);
    end_micro_batch();
  }
  {
    const TimedPart part("wait for gradients");
    account_.close(thread_);
  }
  in_flight_.clear();
  push_last_leaf();
  position_ = 0;
  sum_ = tree_.take();
  if (account_.steps() == 1) {
    queue_.set_order(roots_order(thread_.group(), queue_.completion_order()));
  }
}

std::vector<at::Tensor> ShardedGradients::pieces() {
  std::vector<at::Tensor> result;
  for (const ShardPiece& piece : pieces_) {
    result.push_back(sum_.narrow(0, piece.local_begin, piece.count()));
  }
  return result;
}

void ShardedGradients::clear(bool pieces_are_zeros) {
  const at::NoGradGuard no_grad;
  if (!pieces_are_zeros) sum_.zero_();
  tree_.give_back(std::exchange(sum_, {}));
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/sharded_gradients.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full_like.h>

#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

// Units whose gradients may be on their way while another's are summed.
constexpr std::size_t kMostInFlight = 2;

std::vector<ShardPiece> pieces_of(const ModuleLayout& layout, const ShardPlan& plan, int rank) {
  return shard_pieces(layout.units, plan.index_of(rank), plan.shard_ranks());
}

}  // namespace

ShardedGradients::ShardedGradients(const ModuleLayout& layout, Group& group, const ShardPlan& plan,
                                   ShardedGradientsOptions options)
    : layout_(layout),
      options_(std::move(options)),
      leaf_plan_(options_.stage < 2 ? ShardPlan(group.size(), 1) : plan),
      leaf_pieces_(pieces_of(layout, leaf_plan_, group.rank())),
      pieces_(options_.stage == 0 ? leaf_pieces_ : pieces_of(layout, plan, group.rank())),
      entries_of_(layout.units.size()),
      entry_of_(entries_by_parameter(layout)),
      groups_(group, plan, "gradients"),
      pool_(computing_memory(group, at::kFloat, options_.link)),
      host_pool_(host_memory(group, at::kFloat, options_.link)),
      queue_(layout.entries, layout.units),
      tree_(leaf_is_own() ? GradientTree(shard_size(leaf_pieces_),
                                         host_memory(group, at::kFloat, options_.link))
                          : GradientTree(shard_size(leaf_pieces_))),
      open_(layout.units.size()),
      account_(names_of(layout.entries)),
      thread_(group.duplicate("gradients")),
      hooks_(layout.parameters, [this](std::size_t entry, bool) { on_gradient(entry); }) {
  TRIREME_ASSERT(options_.stage >= 2 || options_.link != nullptr,
                 "gradients that the host computes are reduced in buckets in stage {}",
                 options_.stage);
  for (std::size_t i = 0; i < layout.entries.size(); ++i) {
    entries_of_[layout.unit_of[i]].push_back(i);
  }
  for (const std::vector<std::int64_t>& round :
       leaf_plan_.rounds(options_.micro_batches, group.rank())) {
    micro_batches_.insert(micro_batches_.end(), round.begin(), round.end());
    ends_round_.insert(ends_round_.end(), round.size() - 1, false);
    ends_round_.push_back(true);
  }
}

// Others may be waiting for what this rank will not send.
ShardedGradients::~ShardedGradients() {
  if (computing_ || position_ > 0) thread_.group().abandon("it ended in the middle of a step");
}

void ShardedGradients::backward(const at::Tensor& loss, double weight) {
  add(weight,
      [&] { loss.backward(weight == 1 ? at::Tensor() : at::full_like(loss.detach(), weight)); });
}

void ShardedGradients::add(double weight, const std::function<void()>& f) {
  begin_micro_batch(weight);
  {
    const auto find = [&](const at::Tensor& parameter) {
      return entry_of_.find(parameter.unsafeGetTensorImpl());
    };
    const ops::DirectGradients direct({.home =
                                           [&](const at::Tensor& parameter) {
                                             const auto entry = find(parameter);
                                             if (entry == entry_of_.end()) return;
                                             const std::size_t unit =
                                                 layout_.unit_of[entry->second];
                                             if (!open_[unit].defined()) open(unit);
                                           },
                                       .before_addition =
                                           [&](const at::Tensor& parameter) {
                                             const auto entry = find(parameter);
                                             if (entry != entry_of_.end())
                                               account_.saw(entry->second);
                                           }});
    try {
      f();
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
  // The tree stays as it is while the communication thread works on it.
  if (options_.link != nullptr || ends_round() || last_ended_round_) settle_last_leaf();
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
        thread_.post([this, parcel = pack(unit)](Group& wire) { deliver(wire, parcel); }));
    if (options_.on_unit) options_.on_unit(unit);
  }
}

ShardedGradients::Parcel ShardedGradients::pack(std::size_t unit) {
  Parcel parcel{.unit = unit,
                .computed = std::exchange(open_[unit], {}),
                .host = {},
                .copied = {},
                .leaf = leaf_,
                .ends_round = ends_round()};
  if (options_.link == nullptr) {
    parcel.host = parcel.computed;
  } else {
    parcel.host = leaf_is_own() ? piece_of(leaf_, unit) : host_pool_.take(parcel.computed.numel());
    parcel.copied =
        options_.link->start_copy(parcel.host, parcel.computed, options_.link->queued());
  }
  return parcel;
}

void ShardedGradients::deliver(Group& wire, const Parcel& parcel) {
  parcel.copied.wait();
  const bool offloaded = options_.link != nullptr;
  if (offloaded) pool_.give_back(parcel.computed);
  if (!leaf_is_own()) {
    groups_.scatter(wire, layout_.units[parcel.unit], parcel.host,
                    piece_of(parcel.leaf, parcel.unit));
    (offloaded ? host_pool_ : pool_).give_back(parcel.host);
  }
  std::optional<ops::RunTasksAlone> alone;
  if (!offloaded || options_.link->device().is_cpu()) alone.emplace();  // the pool computes
  if (parcel.ends_round) return end_round_of(wire, parcel);
  const ShardPiece& piece = leaf_pieces_[parcel.unit];
  if (offloaded) tree_.merge(parcel.leaf, piece.local_begin, piece.local_begin + piece.count());
}

void ShardedGradients::end_round_of(Group& wire, const Parcel& parcel) {
  const ShardPiece& in_leaf = leaf_pieces_[parcel.unit];
  at::Tensor sum =
      tree_.fold(parcel.leaf, in_leaf.local_begin, in_leaf.local_begin + in_leaf.count());
  if (options_.stage == 0) return wire.all_reduce(buffer_of_tensor(sum));
  if (options_.stage == 1) {
    const ShardPiece& own = pieces_[parcel.unit];
    const at::Tensor whole = sum;
    sum = whole.narrow(0, own.begin - in_leaf.begin, own.count());
    groups_.scatter(wire, layout_.units[parcel.unit], whole, sum);
  }
  groups_.add_replicas(sum);
}

at::Tensor ShardedGradients::piece_of(const at::Tensor& leaf, std::size_t unit) const {
  return leaf.narrow(0, leaf_pieces_[unit].local_begin, leaf_pieces_[unit].count());
}

void ShardedGradients::end_micro_batch() {
  launch(queue_.finish());
  settle_last_leaf();
  last_leaf_ = std::move(leaf_);
  last_ended_round_ = ends_round();
  last_ticket_ = thread_.post([](Group&) {});
  ++position_;
  computing_ = false;
}

void ShardedGradients::settle_last_leaf() {
  if (!last_leaf_.defined()) return;
  thread_.wait(last_ticket_);
  at::Tensor leaf = std::exchange(last_leaf_, {});
  if (std::exchange(last_ended_round_, false)) {
    rounds_.push_back(tree_.take(std::move(leaf)));
  } else if (options_.link != nullptr) {
    tree_.push_merged(std::move(leaf));
  } else {
    tree_.push(std::move(leaf));
  }
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
  settle_last_leaf();
  position_ = 0;
  sum_ = sum_of_rounds();
  if (account_.steps() == 1) {
    queue_.set_order(roots_order(thread_.group(), queue_.completion_order()));
  }
}

// The last round is added to what comes before it: the top of the tree.
at::Tensor ShardedGradients::sum_of_rounds() {
  for (std::size_t i = 1; i < rounds_.size(); ++i) {
    add_gradients(rounds_[i], rounds_[i - 1]);
    tree_.give_back(std::move(rounds_[i - 1]));
  }
  at::Tensor sum = std::move(rounds_.back());
  rounds_.clear();
  return sum;
}

std::vector<at::Tensor> ShardedGradients::pieces() {
  std::vector<at::Tensor> result;
  for (std::size_t unit = 0; unit < pieces_.size(); ++unit) {
    const ShardPiece& piece = pieces_[unit];
    result.push_back(
        piece_of(sum_, unit).narrow(0, piece.begin - leaf_pieces_[unit].begin, piece.count()));
  }
  return result;
}

void ShardedGradients::clear(bool pieces_are_zeros) {
  const at::NoGradGuard no_grad;
  // What the reduction has left in other ranks' pieces (stage 1) may stay: leaves are overwritten.
  if (!pieces_are_zeros) sum_.zero_();
  tree_.give_back(std::exchange(sum_, {}));
}

}  // namespace trireme

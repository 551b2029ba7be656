// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/late_rows.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>

#include <algorithm>
#include <span>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/embedding.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/gradient_tree.h"

namespace trireme {
namespace {

// The numbers of the marks that are not 0: i64, ascending.
at::Tensor marked(const std::vector<std::uint8_t>& marks) {
  const auto count = std::count_if(marks.begin(), marks.end(), [](auto mark) { return mark != 0; });
  at::Tensor numbers = at::empty({count}, at::kLong);
  auto* next = numbers.data_ptr<std::int64_t>();
  for (std::size_t i = 0; i < marks.size(); ++i) {
    if (marks[i] != 0) *next++ = static_cast<std::int64_t>(i);
  }
  return numbers;
}

}  // namespace

MatrixTravel::MatrixTravel(std::vector<at::Tensor> chain, std::vector<std::uint8_t> marks)
    : marks_(std::move(marks)) {
  const auto rows = static_cast<std::int64_t>(marks_.size());
  for (const at::Tensor& link : chain) chain_.push_back(link.view({rows, -1}));
}

void MatrixTravel::agree(Group& group) {
  group.all_reduce(buffer_of(std::span(marks_)), ReduceOp::kMax);
  rows_ = marked(marks_);
  at_the_end_ = 2 * rows_.numel() > static_cast<std::int64_t>(marks_.size());
  if (at_the_end_) return;
  const at::NoGradGuard no_grad;
  const ops::RunTasksAlone alone;  // the pool computes
  const MemoryScope scope(MemoryCategory::kGradients);
  for (const at::Tensor& link : chain_) late_.push_back(link.index_select(0, rows_));
}

void MatrixTravel::send(Group& group, std::vector<at::Tensor> bucket, Exchange exchange) {
  if (at_the_end_) return waiting_.push_back({std::move(bucket), std::move(exchange)});
  const ops::RunTasksAlone alone;
  exchange(group, fold(bucket));
}

void MatrixTravel::finish(Group& group, const at::Tensor& rows, const at::Tensor& sums,
                          const Exchange& exchange_rows) {
  const at::NoGradGuard no_grad;
  const ops::RunTasksAlone alone;
  if (at_the_end_) {
    if (sums.defined()) chain_.front().index_copy_(0, rows, sums);
    for (const Bucket& bucket : waiting_) bucket.exchange(group, fold(bucket.chain));
    return;
  }
  if (rows_.numel() == 0) return;
  if (sums.defined()) late_.front().index_copy_(0, at::searchsorted(rows_, rows), sums);
  std::vector<at::Tensor> flat;
  for (const at::Tensor& link : late_) flat.push_back(link.view({-1}));
  exchange_rows(group, fold(flat));
  chain_.back().index_copy_(0, rows_, late_.back());
}

std::optional<std::size_t> LateRows::find(const at::Tensor& loss, const ModuleLayout& layout,
                                          std::int64_t least_elements) {
  std::optional<std::size_t> found;
  for (std::size_t i = 0; i < layout.entries.size(); ++i) {
    const FlatEntry& entry = layout.entries[i];
    const bool large =
        entry.count >= least_elements && (!found || entry.count > layout.entries[*found].count);
    if (entry.shape.size() != 2 || !large || !layout.parameters[i].is_cpu()) continue;
    if (!ops::uses_in_graph(loss, layout.parameters[i]).lookups.empty()) found = i;
  }
  return found;
}

LateRows::LateRows(const ModuleLayout& layout, std::size_t entry)
    : entry_(entry), place_(layout.entries[entry]), parameter_(layout.parameters[entry]) {
  home_.place = at::empty({place_.shape[0]}, at::kLong);
}

void LateRows::begin(const at::Tensor& loss) {
  begin_empty();
  known_ = false;
  if (!loss.defined()) return;
  const ops::GraphUses uses = ops::uses_in_graph(loss, parameter_);
  others_ = uses.others;
  known_ = !uses.lookups.empty();
  std::vector<std::uint8_t> marks(static_cast<std::size_t>(place_.shape[0]));
  for (const at::Tensor& lookup : uses.lookups) {
    const auto* index = lookup.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < lookup.numel(); ++i) marks[static_cast<std::size_t>(index[i])] = 1;
  }
  rows_ = marked(marks);
}

void LateRows::begin_empty() {
  known_ = true;
  others_ = additions_ = lookups_ = 0;
  by_autograd_ = false;
  rows_ = at::empty({0}, at::kLong);
  home_.sums.reset();
}

ops::DirectGradients::Rules LateRows::rules() {
  const auto is_ours = [this](const at::Tensor& parameter) {
    return parameter.unsafeGetTensorImpl() == parameter_.unsafeGetTensorImpl();
  };
  return {.home = {},
          .before_addition =
              [this, is_ours](const at::Tensor& parameter) {
                if (!is_ours(parameter)) return;
                check_order();
                ++additions_;
              },
          .row_home =
              [this, is_ours](const at::Tensor& parameter) -> const ops::DirectGradients::RowHome* {
            if (!is_ours(parameter)) return nullptr;
            if (has_rows_apart()) return &home_;
            ++lookups_;  // which is going to be an addition
            return nullptr;
          }};
}

bool LateRows::is_complete_but_rows() const {
  return known_ && !by_autograd_ && additions_ - lookups_ == others_;
}

void LateRows::set_rows_apart(const at::Tensor& gradients) {
  const at::NoGradGuard no_grad;
  const MemoryScope scope(MemoryCategory::kGradients);
  home_.place.fill_(-1).index_copy_(0, rows_, at::arange(rows_.numel(), at::kLong));
  home_.sums =
      gradients.narrow(0, place_.offset, place_.count).view(place_.shape).index_select(0, rows_);
}

void LateRows::check_order() const {
  if (!has_rows_apart()) return;
  throw_error<Error>(
      "something was added to the gradient of {} that the loss's graph does not have (an operation "
      "inside of checkpoint()?), after that gradient had left",
      place_.name);
}

void LateRows::added_by_autograd() {
  check_order();
  by_autograd_ = true;
}

std::vector<std::uint8_t> LateRows::marks() const {
  std::vector<std::uint8_t> marks(static_cast<std::size_t>(place_.shape[0]), known_ ? 0 : 1);
  const auto* row = rows_.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; known_ && i < rows_.numel(); ++i) {
    marks[static_cast<std::size_t>(row[i])] = 1;
  }
  return marks;
}

}  // namespace trireme

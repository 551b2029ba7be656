// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/whole_layout.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "trireme/comm/group.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

constexpr int kPiecesTag = 1;

std::int64_t elements_of(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

at::Tensor new_buffer(std::int64_t elements) {
  return at::empty({elements}, at::TensorOptions().dtype(at::kFloat));
}

}  // namespace

WholeLayout::WholeLayout(const ModuleLayout& own, Group* group)
    : group_(group != nullptr && group->size() > 1 ? group : nullptr) {
  std::vector<std::int64_t> places{own.size};
  for (std::size_t i = 0; i < own.entries.size(); ++i) {
    FlatEntry entry = own.entries[i];
    const nn::ParameterPart& part = own.parts[i];
    places.insert(places.end(), {entry.offset, part.begin, part.size});
    dims_.push_back(part.dim);
    if (part.dim >= 0) entry.shape[static_cast<std::size_t>(part.dim)] = part.whole;
    entry.count = elements_of(entry.shape);
    entry.offset = layout_.size;
    layout_.size += entry.count;
    layout_.entries.push_back(std::move(entry));
  }
  if (group_ == nullptr) {
    // As it lies, gaps and all.
    layout_.entries = own.entries;
    layout_.size = own.size;
    return;
  }
  std::vector<std::int64_t> all(places.size() * static_cast<std::size_t>(group_->size()));
  group_->all_gather(buffer_of(std::span(places)), buffer_of(std::span(all)));
  for (std::size_t at = 0; at < all.size();) {
    RankLayout rank{.size = all[at++], .places = {}};
    for (std::size_t i = 0; i < own.entries.size(); ++i, at += 3) {
      rank.places.push_back({all[at], all[at + 1], all[at + 2]});
    }
    ranks_.push_back(std::move(rank));
  }
}

void WholeLayout::put(const at::Tensor& own, int rank, const at::Tensor& whole) const {
  const RankLayout& there = ranks_[static_cast<std::size_t>(rank)];
  for (std::size_t i = 0; i < layout_.entries.size(); ++i) {
    const FlatEntry& entry = layout_.entries[i];
    const Place& place = there.places[i];
    at::Tensor to = whole.narrow(0, entry.offset, entry.count).view(entry.shape);
    if (dims_[i] >= 0) to = to.narrow(dims_[i], place.begin, place.size);
    to.copy_(own.narrow(0, place.offset, to.numel()).view(to.sizes()));
  }
}

at::Tensor WholeLayout::gather(const at::Tensor& own) const {
  if (group_ == nullptr) return own;
  const at::NoGradGuard no_grad;
  if (group_->rank() != 0) {
    group_->send(buffer_of_tensor(own.contiguous()), 0, kPiecesTag);
    return {};
  }
  const at::Tensor whole = new_buffer(layout_.size);
  for (int rank = group_->size() - 1; rank > 0; --rank) {
    const at::Tensor parts = new_buffer(ranks_[static_cast<std::size_t>(rank)].size);
    group_->recv(buffer_of_tensor(parts), rank, kPiecesTag);
    put(parts, rank, whole);
  }
  put(own, 0, whole);
  return whole;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/stage_layouts.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

constexpr int kBufferTag = 1;
constexpr std::size_t kMostDims = 4;
// Of a parameter: how many have it, its rank, buffer, offset there, that buffer's size, its dims.
constexpr std::size_t kFields = 6 + kMostDims;

at::Tensor new_buffer(std::int64_t elements) {
  return at::empty({elements}, at::TensorOptions().dtype(at::kFloat));
}

void sum_over(Group* group, std::vector<std::int64_t>& numbers) {
  if (group != nullptr) group->all_reduce(buffer_of(std::span(numbers)));
}

}  // namespace

StageLayouts::StageLayouts(const std::vector<const ModuleLayout*>& own,
                           const std::vector<std::string>& names, Group* group)
    : group_(group != nullptr && group->size() > 1 ? group : nullptr) {
  if (group_ == nullptr && own.size() == 1) {
    // As it lies, gaps and all.
    layout_.entries = own[0]->entries;
    layout_.size = own[0]->size;
    return;
  }
  std::unordered_map<std::string, std::size_t> number;
  for (std::size_t i = 0; i < names.size(); ++i) number[names[i]] = i;
  std::vector<std::int64_t> fields(names.size() * kFields, 0);
  for (std::size_t buffer = 0; buffer < own.size(); ++buffer) {
    for (const FlatEntry& entry : own[buffer]->entries) {
      const auto found = number.find(entry.name);
      if (found == number.end() || entry.shape.size() > kMostDims) {
        throw_error<ConfigError>("{} is no parameter of the whole model", entry.name);
      }
      std::int64_t* field = fields.data() + found->second * kFields;
      field[0] += 1;
      field[1] = group_ == nullptr ? 0 : group_->rank();
      field[2] = static_cast<std::int64_t>(buffer);
      field[3] = entry.offset;
      field[4] = own[buffer]->size;
      field[5] = static_cast<std::int64_t>(entry.shape.size());
      std::copy(entry.shape.begin(), entry.shape.end(), field + 6);
    }
  }
  sum_over(group_, fields);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::int64_t* field = fields.data() + i * kFields;
    if (field[0] != 1) {
      throw_error<ConfigError>("parameter {} is in {} parts of the model, and not in one", names[i],
                               field[0]);
    }
    FlatEntry entry{.name = names[i], .shape = {field + 6, field + 6 + field[5]}};
    entry.count = std::accumulate(entry.shape.begin(), entry.shape.end(), std::int64_t{1},
                                  std::multiplies<>());
    entry.offset = layout_.size;
    layout_.size += entry.count;
    layout_.entries.push_back(std::move(entry));
    places_.push_back({field[1], field[2], field[3], field[4]});
  }
}

at::Tensor StageLayouts::gather(const std::vector<at::Tensor>& own) const {
  if (places_.empty()) return own[0];
  const at::NoGradGuard no_grad;
  if (group_ != nullptr && group_->rank() != 0) {
    for (const at::Tensor& buffer : own) {
      if (buffer.numel() == 0) continue;  // of which rank 0 knows no parameter
      group_->send(buffer_of_tensor(buffer.contiguous()), 0, kBufferTag);
    }
    return {};
  }
  const at::Tensor whole = new_buffer(layout_.size);
  const auto put = [&](const at::Tensor& buffer, std::int64_t rank, std::int64_t number) {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      const Place& place = places_[i];
      if (place.rank != rank || place.buffer != number) continue;
      const FlatEntry& entry = layout_.entries[i];
      whole.narrow(0, entry.offset, entry.count).copy_(buffer.narrow(0, place.offset, entry.count));
    }
  };
  for (std::size_t i = 0; i < own.size(); ++i) put(own[i], 0, static_cast<std::int64_t>(i));
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> others;
  for (const Place& place : places_) {
    if (place.rank != 0) others[{place.rank, place.buffer}] = place.buffer_size;
  }
  for (const auto& [from, size] : others) {
    const at::Tensor buffer = new_buffer(size);
    group_->recv(buffer_of_tensor(buffer), static_cast<int>(from.first), kBufferTag);
    put(buffer, from.first, from.second);
  }
  return whole;
}

}  // namespace trireme

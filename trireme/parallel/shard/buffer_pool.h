// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// BufferPool: flat tensors for what is there for a moment.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace trireme {

class DeviceLink;
class Group;

// Any thread.
class BufferPool {
 public:
  // A new tensor [elements].
  using Make = std::function<at::Tensor(std::int64_t elements)>;

  explicit BufferPool(Make make) : make_(std::move(make)) {}

  // [elements], of any content: the smallest free one that is large enough, or a new one, counted
  // as workspace.
  at::Tensor take(std::int64_t elements);
  // A tensor of take(), or a part of one from its beginning.
  void give_back(const at::Tensor& buffer);

 private:
  const Make make_;
  std::mutex mutex_;
  std::vector<at::Tensor> all_;   // guarded by mutex_
  std::vector<at::Tensor> free_;  // guarded by mutex_
};

// Memory in which the model computes: the device's, or without a link the host's, which the group's
// collectives use where it is. Both must outlive the use of the function.
BufferPool::Make computing_memory(Group& group, at::ScalarType dtype, const DeviceLink* link);
// Memory of the host, for collectives and for copies by the link, if there is one.
BufferPool::Make host_memory(Group& group, at::ScalarType dtype, const DeviceLink* link);

}  // namespace trireme

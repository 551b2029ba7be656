// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// BufferPool: flat tensors for what is there for a moment, in memory that collectives use where it
// is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <mutex>
#include <vector>

namespace trireme {

class Group;

// Any thread.
class BufferPool {
 public:
  // The group must outlive the pool's use. Counted as workspace.
  BufferPool(Group& group, at::ScalarType dtype) : group_(group), dtype_(dtype) {}

  // [elements], of any content: the smallest free one that is large enough, or a new one.
  at::Tensor take(std::int64_t elements);
  // A tensor of take(), or a part of one from its beginning.
  void give_back(const at::Tensor& buffer);

 private:
  Group& group_;
  const at::ScalarType dtype_;
  std::mutex mutex_;
  std::vector<at::Tensor> all_;   // guarded by mutex_
  std::vector<at::Tensor> free_;  // guarded by mutex_
};

}  // namespace trireme

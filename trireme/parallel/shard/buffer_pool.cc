// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/buffer_pool.h"

#include "trireme/base/check.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/shard/device_link.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

at::Tensor BufferPool::take(std::int64_t elements) {
  const std::lock_guard lock(mutex_);
  auto best = free_.end();
  for (auto one = free_.begin(); one != free_.end(); ++one) {
    const bool fits = one->numel() >= elements;
    if (fits && (best == free_.end() || one->numel() < best->numel())) best = one;
  }
  if (best == free_.end()) {
    const MemoryScope scope(MemoryCategory::kWorkspace);
    all_.push_back(make_(elements));
    return all_.back();
  }
  const at::Tensor found = *best;
  free_.erase(best);
  return found.narrow(0, 0, elements);
}

void BufferPool::give_back(const at::Tensor& buffer) {
  const std::lock_guard lock(mutex_);
  for (const at::Tensor& one : all_) {
    if (one.data_ptr() == buffer.data_ptr()) return free_.push_back(one);
  }
  TRIREME_ASSERT(false, "a buffer comes back to the pool that it was taken from");
}

BufferPool::Make computing_memory(Group& group, at::ScalarType dtype, const DeviceLink* link) {
  if (link == nullptr) return host_memory(group, dtype, nullptr);
  return [link, dtype](std::int64_t elements) { return link->device_memory(elements, dtype); };
}

BufferPool::Make host_memory(Group& group, at::ScalarType dtype, const DeviceLink* link) {
  return [&group, link, dtype](std::int64_t elements) {
    return link != nullptr ? link->host_zeros(group, {elements}, dtype)
                           : shared_zeros(group, {elements}, dtype);
  };
}

}  // namespace trireme

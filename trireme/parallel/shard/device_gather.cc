// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/device_gather.h"

#include <algorithm>

#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/shard/segment_counts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

DeviceGather::DeviceGather(DeviceLink& link, at::ScalarType dtype,
                           std::span<const FlatSegment> segments)
    : link_(link), dtype_(dtype) {
  for (const FlatSegment& segment : segments) {
    largest_ = std::max(largest_, segment.end - segment.begin);
  }
}

DevicePoint DeviceGather::start(Group& group, const FlatSegment& segment, const at::Tensor& own,
                                const at::Tensor& to, const DevicePoint& after) {
  if (group.size() == 1) return link_.start_copy(to, own, after);
  Buffer& buffer = buffers_[next_];
  next_ = (next_ + 1) % buffers_.size();
  buffer.copied.wait();
  if (!buffer.memory.defined()) {
    const MemoryScope scope(MemoryCategory::kWorkspace);
    buffer.memory = link_.host_zeros(group, {largest_}, dtype_);
  }
  const at::Tensor whole = buffer.memory.narrow(0, 0, segment.end - segment.begin);
  group.all_gather(buffer_of_tensor(own), buffer_of_tensor(whole),
                   segment_counts(segment, group.size()));
  buffer.copied = link_.start_copy(to, whole, after);
  return buffer.copied;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/device_weights.h"

#include <utility>

#include "trireme/comm/group.h"

namespace trireme {

DeviceWeights::DeviceWeights(FlatParameters& flat, const at::Tensor& masters, Group& group,
                             WeightStoreOptions options)
    : flat_(flat),
      options_(std::move(options)),
      group_(group),
      own_(masters,
           options_.sharded_optimizer ? shard_pieces(options_.segments, group.rank(), group.size())
                                      : shard_pieces(options_.segments, 0, 1),
           options_.dtype, group, options_.link),
      gather_(*options_.link, options_.dtype, options_.segments) {}

void DeviceWeights::publish() {
  const DevicePoint computed = options_.link->queued();
  std::vector<DevicePoint> copies;
  for (std::size_t i = 0; i < options_.segments.size(); ++i) {
    const FlatSegment& segment = options_.segments[i];
    if (segment.begin == segment.end) continue;
    const at::Tensor own = own_.computing(i);
    const at::Tensor to = flat_.data().narrow(0, segment.begin, segment.end - segment.begin);
    copies.push_back(options_.sharded_optimizer ? gather_.start(group_, segment, own, to, computed)
                                                : options_.link->start_copy(to, own, computed));
  }
  for (const DevicePoint& copied : copies) copied.wait();
}

}  // namespace trireme

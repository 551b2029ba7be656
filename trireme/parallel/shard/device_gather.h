// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// DeviceGather: brings the weights of a segment from the ranks' pieces in host memory to this
// rank's device: an all_gather in the host's memory, then a copy, which goes on while the next
// segment is gathered. A rank that has the whole segment copies it from where it is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "trireme/comm/group.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/parallel/shard/device_link.h"

namespace trireme {

// One thread at a time.
class DeviceGather {
 public:
  // The link must outlive it. Segments are those that will be gathered, of dtype.
  DeviceGather(DeviceLink& link, at::ScalarType dtype, std::span<const FlatSegment> segments);

  // own: this rank's piece, in memory of the link; to: the whole segment, on the device, which is
  // written once the device has reached `after`. Neither is to be changed before the end of the
  // copy, which is returned. Blocks until the segment is gathered. Collective over the group, in
  // one order. Throws CommError; what DevicePoint::wait() throws.
  DevicePoint start(Group& group, const FlatSegment& segment, const at::Tensor& own,
                    const at::Tensor& to, const DevicePoint& after);

 private:
  // Two: one is gathered while the other is copied.
  struct Buffer {
    at::Tensor memory;  // from the first gather on
    DevicePoint copied;
  };

  DeviceLink& link_;
  const at::ScalarType dtype_;
  std::int64_t largest_ = 0;  // elements of a segment
  std::array<Buffer, 2> buffers_;
  std::size_t next_ = 0;
};

}  // namespace trireme

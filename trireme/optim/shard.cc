// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/shard.h"

#include <ATen/Parallel.h>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/kernels/tasks.h"

namespace trireme::optim {
namespace {

void check_space(const OptimizerSpace& space) {
  std::int64_t end = 0;
  for (const FlatSegment& segment : space.segments) {
    if (segment.begin < end || segment.end < segment.begin || segment.begin % kShardBlock != 0 ||
        end % kShardBlock != 0) {
      throw_error<ShapeError>(
          "segment [{}, {}) of the optimizer's space, the one before ends at {}: segments ascend, "
          "and begin and end at multiples of {}",
          segment.begin, segment.end, end, kShardBlock);
    }
    end = segment.end;
  }
  const std::int64_t size = end;
  end = 0;
  for (const OptimizerParameter& parameter : space.parameters) {
    const FlatEntry& entry = parameter.entry;
    if (entry.offset < end || entry.count < 0 || entry.offset + entry.count > size) {
      throw_error<ShapeError>(
          "parameter '{}' at [{}, {}) of the optimizer's space: parameters ascend, and lie in its "
          "{} elements",
          entry.name, entry.offset, entry.offset + entry.count, size);
    }
    end = entry.offset + entry.count;
  }
}

std::vector<ShardPiece> pieces_of(const OptimizerSpace& space) {
  if (space.group != nullptr) {
    return shard_pieces(space.segments, space.group->rank(), space.group->size());
  }
  std::vector<ShardPiece> pieces;
  std::int64_t local = 0;
  for (const FlatSegment& segment : space.segments) {
    pieces.push_back({segment.begin, segment.end, local});
    local += pieces.back().count();
  }
  return pieces;
}

}  // namespace

Shard::Shard(const OptimizerSpace& space) : device_(space.device) {
  check_space(space);
  pieces_ = pieces_of(space);
  size_ = shard_size(pieces_);
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const ShardPiece& piece = pieces_[i];
    for (std::int64_t at = 0; at < piece.count(); at += kRange) {
      const std::int64_t end = std::min(at + kRange, piece.count());
      ranges_.push_back({i, piece.begin + at, piece.begin + end, at, piece.local_begin + at});
    }
  }
}

void Shard::for_each_range(const std::function<void(const ShardRange&)>& f) const {
  at::parallel_for(0, static_cast<std::int64_t>(ranges_.size()), 1,
                   [&](std::int64_t begin, std::int64_t end) {
                     const ops::FlushDenormals flush;
                     for (std::int64_t i = begin; i < end; ++i) {
                       f(ranges_[static_cast<std::size_t>(i)]);
                     }
                   });
}

void Shard::check_buffer(const char* what, std::size_t piece, const at::Tensor& buffer,
                         at::ScalarType dtype) const {
  const std::int64_t count = pieces_[piece].count();
  if (!buffer.defined() || buffer.scalar_type() != dtype || buffer.dim() != 1 ||
      buffer.numel() != count || !buffer.is_contiguous() || buffer.device() != device_) {
    throw_error<ShapeError>(
        "piece {} of the shard has {} elements on {}: its {} must be a contiguous {} [{}]", piece,
        count, device_.str(), what, c10::toString(dtype), count);
  }
}

void Shard::check(std::span<const PieceUpdate> buffers, bool with_gradients) const {
  if (buffers.size() != pieces_.size()) {
    throw_error<ShapeError>("the shard has {} pieces, an update of {} was given", pieces_.size(),
                            buffers.size());
  }
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    check_buffer("weights", i, buffers[i].weights, at::kFloat);
    if (with_gradients) check_buffer("gradients", i, buffers[i].gradients, at::kFloat);
    if (buffers[i].working_copy.defined() != buffers[0].working_copy.defined()) {
      throw_error<ShapeError>("all pieces have a working copy, or none: piece {} differs", i);
    }
    if (buffers[i].working_copy.defined()) {
      check_buffer("working copy", i, buffers[i].working_copy, at::kBFloat16);
    }
  }
}

std::vector<ElementRange> decaying_ranges(const std::vector<OptimizerParameter>& parameters) {
  std::vector<ElementRange> ranges;
  for (const OptimizerParameter& parameter : parameters) {
    const std::int64_t begin = parameter.entry.offset, end = begin + parameter.entry.count;
    if (!parameter.decays || begin == end) continue;
    if (!ranges.empty() && ranges.back().end == begin) {
      ranges.back().end = end;
    } else {
      ranges.push_back({begin, end});
    }
  }
  return ranges;
}

}  // namespace trireme::optim

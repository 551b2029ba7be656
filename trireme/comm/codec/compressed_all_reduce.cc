// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/codec/compressed_all_reduce.h"

#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/codec/all_reduces.h"
#include "trireme/comm/codec/block_codecs.h"

namespace trireme {
namespace {

struct Maker {
  Group& group;
  std::int64_t count;
  bool error_feedback;

  using Made = std::unique_ptr<CompressedAllReduce>;
  Made operator()(Bf16Compression) const { return block(std::make_unique<Bf16Codec>()); }
  Made operator()(Int8Compression) const { return block(std::make_unique<Int8Codec>()); }
  Made operator()(const TopKCompression& options) const {
    return detail::make_sparse_all_reduce(group, count, options, error_feedback);
  }
  Made operator()(const LowRankCompression& options) const {
    return detail::make_low_rank_all_reduce(group, count, options, error_feedback);
  }
  Made block(std::unique_ptr<Codec> codec) const {
    return detail::make_block_all_reduce(group, count, std::move(codec), error_feedback);
  }
};

}  // namespace

std::unique_ptr<CompressedAllReduce> make_compressed_all_reduce(Group& group, std::int64_t count,
                                                                const CompressionOptions& options) {
  if (count < 0) throw_error<ConfigError>("compressed all_reduce of {} elements", count);
  return std::visit(Maker{group, count, options.error_feedback}, options.codec);
}

namespace detail {

void check_count(std::span<const float> values, std::int64_t count, const Codec& codec) {
  if (static_cast<std::int64_t>(values.size()) != count) {
    throw_error<ShapeError>("compressed all_reduce ({}): made for {} elements, not for {}",
                            codec.name(), count, values.size());
  }
}

void check_op(ReduceOp op) {
  if (op != ReduceOp::kSum && op != ReduceOp::kMean) {
    throw ShapeError("compressed all_reduce: sum and mean only; use Group::all_reduce");
  }
}

void encode(std::optional<ErrorFeedback>& feedback, Codec& codec, std::span<const float> values,
            std::span<std::byte> encoded, std::int64_t begin) {
  if (feedback) {
    feedback->encode(codec, values, encoded, begin);
  } else {
    codec.encode(values, encoded);
  }
}

}  // namespace detail
}  // namespace trireme

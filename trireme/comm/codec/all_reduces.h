// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The three ways in which codecs take part in a sum; see compressed_all_reduce.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "trireme/comm/codec/compressed_all_reduce.h"
#include "trireme/comm/codec/error_feedback.h"

namespace trireme::detail {

// Both throw ShapeError.
void check_count(std::span<const float> values, std::int64_t count, const Codec& codec);
void check_op(ReduceOp op);

// Encodes with what feedback holds, where there is one.
void encode(std::optional<ErrorFeedback>& feedback, Codec& codec, std::span<const float> values,
            std::span<std::byte> encoded, std::int64_t begin = 0);

// codec can be cut.
std::unique_ptr<CompressedAllReduce> make_block_all_reduce(Group& group, std::int64_t count,
                                                           std::unique_ptr<Codec> codec,
                                                           bool error_feedback);
std::unique_ptr<CompressedAllReduce> make_sparse_all_reduce(Group& group, std::int64_t count,
                                                            const TopKOptions& options,
                                                            bool error_feedback);
std::unique_ptr<CompressedAllReduce> make_low_rank_all_reduce(Group& group, std::int64_t count,
                                                              const LowRankOptions& options,
                                                              bool error_feedback);

}  // namespace trireme::detail

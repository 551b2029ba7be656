// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The direct exchange of docs/collectives.md with encoded parts. Rank r is responsible for part r.
// 1. Every rank encodes everything and sends part j to rank j.
// 2. Rank r decodes part r of all ranks, adds in tree order, and encodes the sum.
// 3. The encoded sums are gathered; every rank decodes them all, its own, too.
// Both encodings lose; each has its own error feedback. The cuts between parts lie where the codec
// can be cut, so that parts of the encoding are the encodings of parts.

#include <algorithm>
#include <utility>
#include <vector>

#include "trireme/comm/codec/all_reduces.h"
#include "trireme/comm/reduction_tree.h"

namespace trireme::detail {
namespace {

// Elements per rank that are decoded and added at a time, to stay in a cache.
constexpr std::int64_t kPiece = 4096;

class BlockAllReduce final : public CompressedAllReduce {
 public:
  BlockAllReduce(Group& group, std::int64_t count, std::unique_ptr<Codec> codec,
                 bool error_feedback)
      : group_(group), count_(count), codec_(std::move(codec)) {
    const auto n = static_cast<std::size_t>(group.size());
    const auto mine = static_cast<std::size_t>(group.rank());
    const std::int64_t grain = codec_->granularity();
    const std::int64_t grains = (count + grain - 1) / grain;
    std::int64_t begin = 0;
    for (std::int64_t rank = 1; rank <= group.size(); ++rank) {
      const std::int64_t end = std::min(count, grains * rank / group.size() * grain);
      parts_.push_back(static_cast<std::int64_t>(codec_->encoded_bytes(end - begin)));
      if (rank - 1 < group.rank()) own_offset_ += parts_.back();
      if (rank - 1 == group.rank()) own_count_ = end - begin;
      begin = end;
    }
    received_counts_.assign(n, parts_[mine]);
    wire_.resize(codec_->encoded_bytes(count));
    received_.resize(n * static_cast<std::size_t>(parts_[mine]));
    piece_ = std::max<std::int64_t>(1, kPiece / grain) * grain;
    decoded_.resize(n * static_cast<std::size_t>(std::min(piece_, own_count_)));
    if (error_feedback) {
      feedback_.emplace(count);
      combined_feedback_.emplace(own_count_);
    }
  }

  void all_reduce(std::span<float> values, ReduceOp op) override {
    check_count(values, count_, *codec_);
    check_op(op);
    encode(feedback_, *codec_, values, wire_);
    group_.all_to_all(bytes_of(wire_), bytes_of(received_), parts_, received_counts_);
    combine(op);
    group_.all_gather(bytes_of(own()), bytes_of(wire_), parts_);
    codec_->decode(wire_, values);
  }

  const Codec& codec() const override { return *codec_; }

  std::vector<CompressionState> state() override {
    if (!feedback_) return {};
    return {{"residual", feedback_->residual()},
            {"combined_residual", combined_feedback_->residual()}};
  }

 private:
  static Buffer bytes_of(std::span<std::byte> bytes) {
    return {bytes.data(), static_cast<std::int64_t>(bytes.size()), DType::kU8};
  }
  // This rank's part of the wire.
  std::span<std::byte> own() {
    return std::span(wire_).subspan(static_cast<std::size_t>(own_offset_),
                                    static_cast<std::size_t>(received_counts_[0]));
  }

  void combine(ReduceOp op) {
    for (std::int64_t at = 0; at < own_count_; at += piece_) {
      combine_piece(at, std::min(piece_, own_count_ - at), op);
    }
  }

  void combine_piece(std::int64_t at, std::int64_t count, ReduceOp op) {
    const std::size_t from = codec_->encoded_bytes(at);
    const std::size_t bytes = codec_->encoded_bytes(count);
    const auto n = static_cast<std::size_t>(count);
    std::vector<const void*> inputs;
    for (std::size_t rank = 0; rank < parts_.size(); ++rank) {
      const std::size_t part = rank * own().size();
      const std::span<float> values = std::span(decoded_).subspan(rank * n, n);
      codec_->decode(std::span(received_).subspan(part + from, bytes), values);
      inputs.push_back(values.data());
    }
    const std::span<float> sum = std::span(decoded_).first(n);
    reduce_tree(inputs, sum.data(), count, DType::kF32, op);
    encode(combined_feedback_, *codec_, sum, own().subspan(from, bytes), at);
  }

  // Constant after construction.
  Group& group_;
  const std::int64_t count_;
  const std::unique_ptr<Codec> codec_;
  std::vector<std::int64_t> parts_;            // bytes, by rank
  std::vector<std::int64_t> received_counts_;  // bytes of this rank's part, once for each rank
  std::int64_t own_offset_ = 0;                // bytes
  std::int64_t own_count_ = 0;                 // elements
  std::int64_t piece_ = 0;                     // elements

  std::vector<std::byte> wire_;
  std::vector<std::byte> received_;
  std::vector<float> decoded_;
  std::optional<ErrorFeedback> feedback_;
  std::optional<ErrorFeedback> combined_feedback_;
};

}  // namespace

std::unique_ptr<CompressedAllReduce> make_block_all_reduce(Group& group, std::int64_t count,
                                                           std::unique_ptr<Codec> codec,
                                                           bool error_feedback) {
  return std::make_unique<BlockAllReduce>(group, count, std::move(codec), error_feedback);
}

}  // namespace trireme::detail

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// P and Q are linear in the matrix, so the ranks add those instead. All use the same start; P of
// the sum is the sum of the Ps; once it is orthonormal, and the same on all ranks, Q of the sum is
// the sum of the Qs. What a rank keeps as residual is what its own Q leaves of its own values: over
// all ranks these add up to what P Q^T leaves of the sum, and ranks whose values differ for ever do
// not pile up their differences.

#include <utility>
#include <vector>

#include "trireme/comm/codec/all_reduces.h"
#include "trireme/comm/codec/low_rank_codec.h"

namespace trireme::detail {
namespace {

class LowRankAllReduce final : public CompressedAllReduce {
 public:
  LowRankAllReduce(Group& group, std::int64_t count, const LowRankOptions& options,
                   bool error_feedback)
      : group_(group), count_(count), codec_(count, options) {
    p_.resize(codec_.p_size());
    q_.resize(codec_.q_size());
    if (error_feedback) feedback_.emplace(count);
  }

  void all_reduce(std::span<float> values, ReduceOp op) override {
    check_count(values, count_, codec_);
    check_op(op);
    if (feedback_ && all_finite(values)) add(values, feedback_->residual());
    codec_.project(values, p_);
    group_.all_reduce(buffer_of(std::span(p_)), ReduceOp::kSum);
    codec_.orthonormalize(p_);
    codec_.project_back(values, p_, q_);
    own_q_ = q_;
    group_.all_reduce(buffer_of(std::span(q_)), op);
    // P and Q are the same everywhere: either all ranks take in what they lost or none does.
    if (feedback_ && all_finite(p_) && all_finite(q_)) {
      codec_.subtract(values, p_, own_q_, feedback_->residual());
    }
    codec_.keep(q_);
    codec_.expand(p_, q_, values);
  }

  const Codec& codec() const override { return codec_; }

  std::vector<CompressionState> state() override {
    std::vector<CompressionState> spans;
    if (feedback_) spans.push_back({"residual", feedback_->residual()});
    spans.push_back({"start", codec_.start()});
    return spans;
  }

 private:
  Group& group_;
  const std::int64_t count_;
  LowRankCodec codec_;
  std::vector<float> p_;
  std::vector<float> q_;
  std::vector<float> own_q_;
  std::optional<ErrorFeedback> feedback_;
};

}  // namespace

std::unique_ptr<CompressedAllReduce> make_low_rank_all_reduce(Group& group, std::int64_t count,
                                                              const LowRankOptions& options,
                                                              bool error_feedback) {
  return std::make_unique<LowRankAllReduce>(group, count, options, error_feedback);
}

}  // namespace trireme::detail

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Every rank gets the elements that every rank sends, and adds the lists by merging them in tree
// order. An element that a rank does not send takes no part in the sum.

#include <algorithm>
#include <utility>
#include <vector>

#include "trireme/comm/codec/all_reduces.h"
#include "trireme/comm/codec/top_k_codec.h"
#include "trireme/comm/reduction_tree.h"

namespace trireme::detail {
namespace {

using Elements = std::vector<SparseElement>;

// Both ascending by index, as is the result.
Elements merged(const Elements& left, const Elements& right) {
  Elements sum;
  sum.reserve(left.size() + right.size());
  auto a = left.begin();
  auto b = right.begin();
  while (a != left.end() && b != right.end()) {
    if (a->index == b->index) {
      sum.push_back({a->index, a->value + b->value});
      ++a;
      ++b;
    } else {
      sum.push_back(a->index < b->index ? *a++ : *b++);
    }
  }
  sum.insert(sum.end(), a, left.end());
  sum.insert(sum.end(), b, right.end());
  return sum;
}

class SparseAllReduce final : public CompressedAllReduce {
 public:
  SparseAllReduce(Group& group, std::int64_t count, const TopKOptions& options, bool error_feedback)
      : group_(group), count_(count), codec_(options), own_(codec_.encoded_bytes(count)) {
    gathered_.resize(own_.size() * static_cast<std::size_t>(group.size()));
    if (error_feedback) feedback_.emplace(count);
  }

  void all_reduce(std::span<float> values, ReduceOp op) override {
    check_count(values, count_, codec_);
    check_op(op);
    encode(feedback_, codec_, values, own_);
    group_.all_gather({own_.data(), static_cast<std::int64_t>(own_.size()), DType::kU8},
                      {gathered_.data(), static_cast<std::int64_t>(gathered_.size()), DType::kU8});
    const Elements sum = sum_of(0, group_.size());
    const auto divisor = op == ReduceOp::kMean ? static_cast<float>(group_.size()) : 1.0F;
    std::fill(values.begin(), values.end(), 0.0F);
    for (const SparseElement& element : sum) values[element.index] = element.value / divisor;
  }

  const Codec& codec() const override { return codec_; }

  std::vector<CompressionState> state() override {
    if (!feedback_) return {};
    return {{"residual", feedback_->residual()}};
  }

 private:
  // Of ranks [begin, end).
  Elements sum_of(int begin, int end) const {
    if (end - begin == 1) {
      return codec_.decode_sparse(
          std::span(gathered_).subspan(static_cast<std::size_t>(begin) * own_.size(), own_.size()),
          count_);
    }
    const int middle = tree_split(begin, end);
    return merged(sum_of(begin, middle), sum_of(middle, end));
  }

  Group& group_;
  const std::int64_t count_;
  TopKCodec codec_;
  std::vector<std::byte> own_;
  std::vector<std::byte> gathered_;
  std::optional<ErrorFeedback> feedback_;
};

}  // namespace

std::unique_ptr<CompressedAllReduce> make_sparse_all_reduce(Group& group, std::int64_t count,
                                                            const TopKOptions& options,
                                                            bool error_feedback) {
  return std::make_unique<SparseAllReduce>(group, count, options, error_feedback);
}

}  // namespace trireme::detail

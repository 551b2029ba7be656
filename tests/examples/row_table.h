// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rows by id in this process: what a test has in the place of a parameter server.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "trireme/base/random.h"

namespace trireme::testing {

struct RowTableOptions {
  std::int64_t width = 16;
  float init = 0.01F;  // rows begin uniform in [-init, init), each by its id
  float learning_rate = 0.1F;
  // Adagrad, with this much in its sums to begin with; below 0: plain SGD.
  float adagrad = 0;
};

class RowTable {
 public:
  explicit RowTable(const RowTableOptions& options) : options_(options) {}

  void set_learning_rate(float rate) { options_.learning_rate = rate; }
  std::int64_t size() const { return static_cast<std::int64_t>(places_.size()); }

  // Row i, for ids[i]: f32 [N, width].
  at::Tensor pull(const at::Tensor& ids) {
    at::Tensor rows = at::empty({ids.size(0), options_.width}, at::kFloat);
    auto* out = rows.data_ptr<float>();
    for (std::int64_t i = 0; i < ids.size(0); ++i) {
      const float* row = find(ids.data_ptr<std::int64_t>()[i]);
      for (std::int64_t j = 0; j < options_.width; ++j) *out++ = row[j];
    }
    return rows;
  }
  // ids: distinct; gradients f32 [N, width].
  void push(const at::Tensor& ids, const at::Tensor& gradients) {
    const auto* gradient = gradients.data_ptr<float>();
    for (std::int64_t i = 0; i < ids.size(0); ++i) {
      float* row = find(ids.data_ptr<std::int64_t>()[i]);
      float* sums = row + options_.width;
      for (std::int64_t j = 0; j < options_.width; ++j, ++gradient) {
        float step = options_.learning_rate * *gradient;
        if (options_.adagrad >= 0) {
          sums[j] += *gradient * *gradient;
          step /= std::sqrt(sums[j] + options_.adagrad) + 1e-10F;
        }
        row[j] -= step;
      }
    }
  }

 private:
  // The row's weights, then its sums.
  float* find(std::int64_t id) {
    const std::int64_t next = size();
    const std::int64_t place = places_.try_emplace(id, next).first->second;
    const auto begin = static_cast<std::size_t>(place * 2 * options_.width);
    if (place == next) {
      values_.resize(begin + static_cast<std::size_t>(2 * options_.width));
      const RandomStream stream(1, static_cast<std::uint64_t>(id));
      for (std::int64_t j = 0; j < options_.width; ++j) {
        const double uniform = stream.uniform(static_cast<std::uint64_t>(j));
        values_[begin + static_cast<std::size_t>(j)] =
            options_.init * static_cast<float>(2 * uniform - 1);
      }
    }
    return values_.data() + begin;
  }

  RowTableOptions options_;
  std::unordered_map<std::int64_t, std::int64_t> places_;
  std::vector<float> values_;
};

}  // namespace trireme::testing

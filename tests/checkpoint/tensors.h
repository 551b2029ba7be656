// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Tensors for the tests of checkpoint/: no two bytes at the same place agree between tensors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "trireme/checkpoint/safetensors.h"

namespace trireme::testing {

// Owns the bytes of the tensors that it makes.
class TensorSet {
 public:
  void add(const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
    std::size_t bytes = dtype_bytes(dtype);
    for (const std::int64_t dim : shape) bytes *= static_cast<std::size_t>(dim);
    std::vector<std::byte> data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
      data[i] = static_cast<std::byte>((17 * storage_.size() + 31 * i + i / 251 + seed_) % 256);
    }
    storage_.push_back(std::move(data));
    tensors_.emplace_back(name, TensorView{dtype, std::move(shape), storage_.back()});
  }
  explicit TensorSet(std::size_t seed = 0) : seed_(seed) {}

  const std::vector<std::pair<std::string, TensorView>>& tensors() const { return tensors_; }

 private:
  std::size_t seed_;
  std::vector<std::vector<std::byte>> storage_;
  std::vector<std::pair<std::string, TensorView>> tensors_;
};

inline bool same_tensor(const TensorView& left, const TensorView& right) {
  return left.dtype == right.dtype && left.shape == right.shape &&
         std::equal(left.bytes.begin(), left.bytes.end(), right.bytes.begin(), right.bytes.end());
}

}  // namespace trireme::testing

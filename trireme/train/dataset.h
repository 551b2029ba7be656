// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Dataset: numbered samples, each an input and a target, for Model (model.h). Every rank has a way
// to all of them and reads only its own.
//
//   const Dataset data(x, y);                                             // two tensors in memory
//   const Dataset files(size, [&](std::span<const std::int64_t> numbers) { ...; return Samples{};
//   });
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>

namespace trireme {

struct Samples {
  at::Tensor inputs;   // [n, ...]
  at::Tensor targets;  // [n, ...]
};

// Constant after construction.
class Dataset {
 public:
  // The samples of the numbers, in that order. A pure function of them: the same on every rank.
  using Reader = std::function<Samples(std::span<const std::int64_t> numbers)>;

  // Row i of both is sample i. Not copied. Throws ShapeError: scalars, or different numbers of
  // rows.
  Dataset(const at::Tensor& inputs, const at::Tensor& targets);
  // Throws ConfigError for a negative size or no reader.
  Dataset(std::int64_t size, Reader reader);

  std::int64_t size() const { return size_; }
  // Numbers in [0, size()). Throws ShapeError when the reader gives another number of rows.
  Samples samples(std::span<const std::int64_t> numbers) const;

 private:
  std::int64_t size_;
  Reader reader_;
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// WorkerSums: what the workers of a strategy tell one another beside gradients: losses, who wants
// to stop, predictions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "trireme/comm/group.h"

namespace trireme {

// All workers call the same in the same order, with as many values. Blocking. Throws CommError.
class WorkerSums {
 public:
  virtual ~WorkerSums() = default;

  // Each worker goes its own way, and a sum is of this one alone: bounded(k) and async of parameter
  // servers.
  virtual bool alone() const = 0;
  // Values become their sum over the workers, but for those who were lost. Exact where one of them
  // has all that is not 0. The values of each row, so many that follow one another, are of the same
  // workers. False: what the others have is lost to this one, and values are as they were.
  virtual bool sum(std::span<double> values, std::size_t row = 1) = 0;
  // The same of bytes of any kind, all of them 0 but on one worker.
  virtual bool sum(std::span<std::byte> bytes) = 0;
};

// Over the ranks of a group, which outlives this.
class GroupSums final : public WorkerSums {
 public:
  explicit GroupSums(Group& group) : group_(group) {}
  bool alone() const override { return false; }
  bool sum(std::span<double> values, std::size_t) override {
    group_.all_reduce(buffer_of(values));
    return true;
  }
  bool sum(std::span<std::byte> bytes) override {
    group_.all_reduce(Buffer{bytes.data(), static_cast<std::int64_t>(bytes.size()), DType::kU8});
    return true;
  }

 private:
  Group& group_;
};

}  // namespace trireme

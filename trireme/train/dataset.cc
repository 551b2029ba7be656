// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/dataset.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <utility>

#include "trireme/base/error.h"

namespace trireme {
namespace {

std::int64_t rows_of(const at::Tensor& tensor) { return tensor.dim() > 0 ? tensor.size(0) : -1; }

Dataset::Reader rows_reader(const at::Tensor& inputs, const at::Tensor& targets) {
  return [inputs, targets](std::span<const std::int64_t> numbers) {
    const at::Tensor index = at::from_blob(const_cast<std::int64_t*>(numbers.data()),
                                           {static_cast<std::int64_t>(numbers.size())}, at::kLong);
    return Samples{inputs.index_select(0, index), targets.index_select(0, index)};
  };
}

}  // namespace

Dataset::Dataset(const at::Tensor& inputs, const at::Tensor& targets)
    : size_(inputs.defined() ? rows_of(inputs) : -1), reader_(rows_reader(inputs, targets)) {
  const std::int64_t targets_size = targets.defined() ? rows_of(targets) : -1;
  if (size_ < 0 || size_ != targets_size) {
    throw_error<ShapeError>("a dataset of {} inputs and {} targets: one row of both for a sample",
                            size_, targets_size);
  }
}

Dataset::Dataset(std::int64_t size, Reader reader) : size_(size), reader_(std::move(reader)) {
  if (size_ < 0) throw_error<ConfigError>("a dataset of {} samples", size_);
  if (!reader_) throw_error<ConfigError>("a dataset of {} samples has no reader", size_);
}

Samples Dataset::samples(std::span<const std::int64_t> numbers) const {
  Samples samples = reader_(numbers);
  const auto count = static_cast<std::int64_t>(numbers.size());
  if (!samples.inputs.defined() || !samples.targets.defined() || rows_of(samples.inputs) != count ||
      rows_of(samples.targets) != count) {
    throw_error<ShapeError>("the dataset's reader was asked for {} samples and gave other numbers",
                            count);
  }
  return samples;
}

}  // namespace trireme

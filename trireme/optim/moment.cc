// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/moment.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "trireme/base/check.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme::optim {
namespace {

using detail::kCodeBlock;

// Elements that a task codes.
constexpr std::int64_t kGrain = 16384;

at::Tensor zeros_of(std::int64_t size, at::ScalarType dtype, c10::Device device) {
  const MemoryScope scope(MemoryCategory::kOptimizer);
  return at::zeros({size}, at::TensorOptions().dtype(dtype).device(device));
}

}  // namespace

Moment::Moment(std::string name, Storage storage, std::int64_t size, c10::Device device)
    : name_(std::move(name)), storage_(storage), size_(size) {
  if (storage == Storage::kF32) {
    values_ = zeros_of(size, at::kFloat, device);
    return;
  }
  TRIREME_ASSERT(device.is_cpu(), "8-bit state of {} lies on the CPU", name_);
  codes_ = zeros_of(size, at::kByte, device);
  scales_ = zeros_of((size + kCodeBlock - 1) / kCodeBlock, at::kFloat, device);
}

std::int64_t Moment::bytes(Storage storage, std::int64_t size) {
  constexpr std::int64_t kF32Bytes = 4;
  if (storage == Storage::kF32) return kF32Bytes * size;
  return size + kF32Bytes * ((size + kCodeBlock - 1) / kCodeBlock);
}

float* Moment::open(std::int64_t begin, std::int64_t count, float* scratch) const {
  if (storage_ == Storage::kF32) return values_.data_ptr<float>() + begin;
  const auto decode =
      storage_ == Storage::kSigned8bit ? detail::decode_signed : detail::decode_unsigned;
  decode(count, codes_.data_ptr<std::uint8_t>() + begin,
         scales_.data_ptr<float>() + begin / kCodeBlock, scratch);
  return scratch;
}

void Moment::close(std::int64_t begin, std::int64_t count, const float* values,
                   const detail::CodeRounding& rounding) const {
  if (storage_ == Storage::kF32) return;
  const auto encode =
      storage_ == Storage::kSigned8bit ? detail::encode_signed : detail::encode_unsigned;
  encode(count, values, codes_.data_ptr<std::uint8_t>() + begin,
         scales_.data_ptr<float>() + begin / kCodeBlock, rounding);
}

at::Tensor Moment::values() const {
  if (storage_ == Storage::kF32) return values_;
  const at::Tensor all = at::empty({size_}, at::kFloat);
  auto* to = all.data_ptr<float>();
  ops::run_ranges(size_, kGrain, [&](std::int64_t begin, std::int64_t end) {
    open(begin, end - begin, to + begin);
  });
  return all;
}

void Moment::set_values(const at::Tensor& values) {
  if (storage_ == Storage::kF32) {
    if (!values.is_same(values_)) values_.copy_(values);
    return;
  }
  const at::Tensor all = values.contiguous();
  const auto* from = all.data_ptr<float>();
  ops::run_ranges(size_, kGrain, [&](std::int64_t begin, std::int64_t end) {
    close(begin, end - begin, from + begin);
  });
}

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Moment: a running mean of an optimizer for each element of a shard, in f32 or in a byte (Dettmers
// et al. 2022, "8-bit Optimizers via Block-wise Quantization"). Internal to the optimizers.
//
// 8-bit: blocks of 256 elements, each with its largest absolute value in f32 and a byte for each
// element, a code of the share of that largest value (byte_codes.h). Blocks begin at multiples of
// 256 of the flat buffer, as pieces do, so that the bytes do not depend on how it is cut. 1 + 4/256
// bytes for each element.
//
//   float* values = moment.open(begin, count, scratch);  // f32, to be changed
//   ...
//   moment.close(begin, count, values, rounding);
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <string>

#include "trireme/optim/byte_codes.h"

namespace trireme::optim {

class Moment {
 public:
  enum class Storage { kF32, kSigned8bit, kUnsigned8bit };  // unsigned: no value is below 0

  // Zeros. 8-bit: on the CPU. Counted as the optimizer's memory.
  Moment(std::string name, Storage storage, std::int64_t size, c10::Device device = at::kCPU);

  // What `size` elements take.
  static std::int64_t bytes(Storage storage, std::int64_t size);

  const std::string& name() const { return name_; }
  std::int64_t size() const { return size_; }
  bool is_8bit() const { return codes_.defined(); }

  // Elements [begin, begin + count) as f32. 8-bit: in scratch, of count floats; begin is a multiple
  // of 256, and count too unless the elements are the last. Disjoint parts from any threads.
  float* open(std::int64_t begin, std::int64_t count, float* scratch) const;
  void close(std::int64_t begin, std::int64_t count, const float* values,
             const detail::CodeRounding& rounding = {}) const;

  // f32 [size]: the state itself, or a copy of 8-bit state.
  at::Tensor values() const;
  void set_values(const at::Tensor& values);

 private:
  std::string name_;
  Storage storage_;
  std::int64_t size_;
  at::Tensor values_;  // f32 [size]; or
  at::Tensor codes_;   // u8 [size]
  at::Tensor scales_;  // f32 [ceil(size / 256)]
};

}  // namespace trireme::optim

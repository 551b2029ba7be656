// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <hwy/targets.h>

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/ops/kernels/matrix_kernels.h"

namespace trireme::testing {

// The kernels run on one set of vector units, from construction to destruction.
class VectorUnits {
 public:
  explicit VectorUnits(std::int64_t target) { hwy::SetSupportedTargetsForTest(target); }
  ~VectorUnits() { hwy::SetSupportedTargetsForTest(0); }
  VectorUnits(const VectorUnits&) = delete;
  VectorUnits& operator=(const VectorUnits&) = delete;

  // All sets that this processor has and the kernels were compiled for.
  static std::vector<std::int64_t> all() { return hwy::SupportedAndGeneratedTargets(); }
  static std::string name(std::int64_t target) { return hwy::TargetName(target); }
  // Whether a multiply-add is rounded once there, on which the bits of the kernels rest. Of what is
  // compiled, the plain form alone has none.
  static bool fuses(std::int64_t target) { return target != HWY_EMU128 && target != HWY_SCALAR; }
};

// Products of bf16 use the processor's bf16 dot product, where it has one, or never do, from
// construction to destruction: whatever pays here.
class Bf16DotProducts {
 public:
  explicit Bf16DotProducts(bool used) {
    ops::detail::set_bf16_dot(used ? ops::detail::Bf16Dot::kAlways : ops::detail::Bf16Dot::kNever);
  }
  ~Bf16DotProducts() { ops::detail::set_bf16_dot(ops::detail::Bf16Dot::kMeasured); }
  Bf16DotProducts(const Bf16DotProducts&) = delete;
  Bf16DotProducts& operator=(const Bf16DotProducts&) = delete;
};

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ErrorFeedback: what an encoding lost of one buffer is added to the buffer's next values, so that
// over many steps everything arrives: the sum of what was decoded is the sum of what was given,
// less one residual, which stays bounded. Source: Karimireddy et al., "Error feedback fixes
// SignSGD", ICML 2019.
//
//   ErrorFeedback feedback(count);
//   for (...) feedback.encode(codec, gradients, wire);
//
// The residual belongs to a checkpoint like an optimizer's state: without it a resumed run forgets
// what it owes.
#pragma once

#include <vector>

#include "trireme/comm/codec/codec.h"

namespace trireme {

class ErrorFeedback {
 public:
  explicit ErrorFeedback(std::int64_t count);

  // encoded becomes the encoding of values + residual, the residual what that loses. Values that
  // are not all finite are encoded by themselves and leave the residual as it was; for codecs that
  // may be cut, that goes for pieces of about 16384 elements.
  //
  // For codecs that may be cut, values may be a part of the buffer that starts at element begin.
  // Errors: ShapeError for sizes that do not fit.
  void encode(Codec& codec, std::span<const float> values, std::span<std::byte> encoded,
              std::int64_t begin = 0);

  std::span<float> residual() { return residual_; }

 private:
  std::vector<float> residual_;
};

namespace detail {

bool all_finite(std::span<const float> values);
// values += addend.
void add(std::span<float> values, std::span<const float> addend);

}  // namespace detail
}  // namespace trireme

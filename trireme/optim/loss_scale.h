// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// LossScale: keeps f16 gradients inside f16's range (Micikevicius et al. 2018). f16 reaches from
// 6e-8 to 65504; gradients of a large model lie below it and would become zeros. So the loss is
// multiplied by a large power of two before backward, all gradients with it, and the update divides
// by it, in f32, where no bit is lost. The factor finds itself: it halves after a step whose
// gradients overflowed, which is passed over, and doubles after growth_interval good ones.
//
//   optim::LossScale scale;
//   for (...) {
//     for (std::int64_t m : sharded.micro_batches())
//       sharded.backward(scale.scaled(sharded.forward([&] { return loss(net, samples(m)); })));
//     sharded.finish_gradients();
//     const double norm = sharded.gradient_norm();  // of the scaled gradient
//     const double unscale = scale.inverse();       // before update() changes it
//     if (scale.update(norm)) {
//       sharded.step(*optimizer, rate, unscale * optim::clip_scale(norm * unscale, 1.0));
//     } else {
//       sharded.drop_gradients();
//     }
//   }
//
// bf16 and f32 have f32's range and need none. Pure but for scaled(): ranks that are given the same
// norms have the same scale.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace trireme::optim {

struct LossScaleConfig {
  double initial = 65536;               // 2^16
  std::int64_t growth_interval = 2000;  // good steps in a row before it doubles; 0: it stays fixed
  double minimum = 1;                   // a dynamic scale goes no lower
  // Overflows in a row at the minimum, or of a fixed scale, that are passed over; one more is an
  // error.
  std::int64_t max_consecutive = 5;

  // Throws ConfigError: scales that are not powers of two (other factors would round gradients), or
  // a minimum above the initial one.
  void validate() const;
};

// All that it remembers.
struct LossScaleState {
  double scale = 65536;
  std::int64_t good_steps = 0;       // since the last change of the scale
  std::int64_t overflows = 0;        // steps passed over, in all
  std::int64_t stuck_overflows = 0;  // in a row, with nothing left to lower

  bool operator==(const LossScaleState&) const = default;
};

// Not thread-safe.
class LossScale {
 public:
  // Throws ConfigError as LossScaleConfig::validate() does.
  explicit LossScale(const LossScaleConfig& config = {});

  // loss times the scale, in f32 (an f16 loss would overflow by itself). loss: floating point,
  // scalar. Gradient: times the scale.
  at::Tensor scaled(const at::Tensor& loss) const;
  double scale() const { return state_.scale; }
  double inverse() const { return 1 / state_.scale; }  // exact

  // Ends a step. norm: of the summed scaled gradient, the same on all ranks. True: it is finite and
  // is to be applied. False: it overflowed; the step is to be passed over, and the scale is lower
  // than before. Throws Error when more than max_consecutive steps in a row overflow and the scale
  // cannot fall.
  bool update(double norm);

  const LossScaleState& state() const { return state_; }
  // To go on where another was. Throws CheckpointError for a scale that is no power of two.
  void set_state(const LossScaleState& state);

 private:
  void count_overflow();

  LossScaleConfig config_;  // constant after construction
  LossScaleState state_;
};

// A state as one line of text and back, bit for bit: for checkpoints. Throws CheckpointError for
// text that is none.
std::string to_text(const LossScaleState& state);
LossScaleState loss_scale_state_from_text(std::string_view text);

}  // namespace trireme::optim

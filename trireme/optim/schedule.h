// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Learning-rate schedules: pure functions of the step.
//
//   const ScheduleConfig schedule{.learning_rate = 3e-4, .decay = "inverse_sqrt",
//                                 .warmup_steps = 4000};
//   const double rate = learning_rate_at(schedule, step, total_steps);
//
// All warm up in a straight line from 0 to the peak and then differ by `decay`:
//   cosine        half a cosine down to final_fraction x the peak (Loshchilov and Hutter 2017)
//   linear        a straight line down to final_fraction x the peak
//   wsd           stays, then a straight line down (warm-up, stable, decay; Hu et al. 2024)
//   inverse_sqrt  peak x sqrt(warmup_steps / (step + 1)) (Vaswani et al. 2017, section 5.3)
//   constant      stays
// The last two do not depend on total_steps, wsd only in its last part: a run with them can be made
// longer without a jump.
#pragma once

#include <cstdint>
#include <string>

#include "trireme/base/config.h"

namespace trireme::optim {

struct ScheduleConfig {
  double learning_rate = 1e-3;   // the peak
  std::string decay = "cosine";  // cosine, linear, wsd, inverse_sqrt, constant
  std::int64_t warmup_steps = 20;
  double final_fraction = 0.1;  // cosine, linear, wsd: of the peak, at the last step
  double decay_fraction = 0.2;  // wsd: the share of all steps that decays

  void visit(ConfigFields& f);
  void validate() const;
};

// Learning rate of step 0 <= step < total_steps, a positive number (0 where final_fraction is 0, at
// the last step). Step s < warmup_steps has peak x (s + 1) / warmup_steps; inverse_sqrt takes
// warmup_steps of 0 as 1. Throws InternalError for a step outside.
double learning_rate_at(const ScheduleConfig& config, std::int64_t step, std::int64_t total_steps);

}  // namespace trireme::optim

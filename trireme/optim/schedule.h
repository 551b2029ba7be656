// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Learning-rate schedules: pure functions of the step.
#pragma once

#include <cstdint>
#include <string>

#include "trireme/base/config.h"

namespace trireme::optim {

struct ScheduleConfig {
  double learning_rate = 1e-3;  // the peak
  std::string decay =
      "cosine";  // cosine, wsd (warm-up, stable, linear decay; Hu et al. 2024), constant
  std::int64_t warmup_steps = 20;
  double final_fraction = 0.1;  // of the peak, at the last step
  double decay_fraction = 0.2;  // wsd: the share of all steps that decays

  void visit(ConfigFields& f);
  void validate() const;
};

// Learning rate of step 0 <= step < total_steps. Linear warm-up: step s < warmup_steps has peak x
// (s + 1) / warmup_steps.
double learning_rate_at(const ScheduleConfig& config, std::int64_t step, std::int64_t total_steps);

}  // namespace trireme::optim

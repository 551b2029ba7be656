// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/optimizer.h"

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/optim/adafactor.h"
#include "trireme/optim/elementwise.h"
#include "trireme/optim/lamb.h"
#include "trireme/optim/muon.h"

namespace trireme::optim {

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config,
                                          const OptimizerSpace& space) {
  config.validate();
  const OptimizerConfig all = config.with_defaults();
  for (const OptimizerParameter& parameter : space.parameters) {
    if (parameter.is_part) {
      config.check_takes_parts("of " + parameter.entry.name + " this rank has a part");
      break;
    }
  }
  if (auto elementwise = make_elementwise(all, space)) return elementwise;
  if (!space.device.is_cpu()) {
    throw_error<ShapeError>("the optimizer {} has no kernels for buffers on {}: adamw has",
                            config.name, space.device.str());
  }
  if (config.name == "lamb") return make_lamb(all, space);
  if (config.name == "muon") return make_muon(all, space);
  TRIREME_ASSERT(config.name == "adafactor", "a method for each name: {}", config.name);
  return make_adafactor(all, space);
}

std::int64_t optimizer_state_bytes(const OptimizerConfig& config, const StateElements& elements) {
  config.validate();
  const OptimizerConfig all = config.with_defaults();
  constexpr std::int64_t kF32Bytes = 4;
  const std::int64_t whole = elements.hidden_matrices + elements.other_matrices + elements.vectors;
  if (config.name == "lamb") return 2 * kF32Bytes * whole;
  if (config.name == "muon") {
    return kF32Bytes *
           (elements.hidden_matrices + 2 * (elements.other_matrices + elements.vectors));
  }
  if (config.name == "adafactor") {
    return kF32Bytes * (elements.vectors + (*all.momentum > 0 ? whole : 0));
  }
  return elementwise_state_bytes(all, whole);
}

std::int64_t replicated_state_bytes(const OptimizerConfig& config, const StateElements& elements) {
  constexpr std::int64_t kF32Bytes = 4;
  return config.name == "adafactor" ? kF32Bytes * elements.rows_and_columns : 0;
}

}  // namespace trireme::optim

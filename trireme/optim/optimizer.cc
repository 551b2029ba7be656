// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/optimizer.h"

#include "trireme/base/error.h"
#include "trireme/optim/elementwise.h"

namespace trireme::optim {

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config,
                                          const OptimizerSpace& space) {
  config.validate();
  const OptimizerConfig all = config.with_defaults();
  if (auto elementwise = make_elementwise(all, space)) return elementwise;
  throw_error<ConfigError>("optimizer.name is '{}', which this version does not have yet",
                           config.name);
}

std::int64_t optimizer_state_bytes(const OptimizerConfig& config, const OptimizerSpace& space) {
  config.validate();
  const std::int64_t elements = space.segments.empty() ? 0 : space.segments.back().end;
  return elementwise_state_bytes(config.with_defaults(), elements);
}

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The settings of an optimizer: which method, and what it is told.
//
//   optim::OptimizerConfig config{.name = "lion", .weight_decay = 0.5};
//   *config.with_defaults().beta2;  // 0.99, lion's own
//
//   option        sgd  adagrad  adam   adamw  lamb   lion  adafactor  muon
//   beta1         -    -        0.9    0.9    0.9    0.9   -          0.9   of the AdamW beside it
//   beta2         -    -        0.999  0.95   0.999  0.99  -          0.95  of the AdamW beside it
//   momentum      0.9  -        -      -      -      -     0          0.95
//   epsilon       -    1e-10    1e-8   1e-8   1e-6   -     1e-30      1e-8
//   weight_decay  0    0        0      0.1    0.01   1     0          0.1
//   8-bit state   yes  no       yes    yes    no     yes   no         no
//
// weight_decay is added to the gradient by sgd, adagrad and adam, and taken off the weight, times
// the learning rate, by the others; of matrices and embeddings alone, not of norms and biases.
#pragma once

#include <optional>
#include <string>

#include "trireme/base/config.h"

namespace trireme::optim {

struct OptimizerConfig {
  std::string name = "adamw";  // sgd, adagrad, adam, adamw, lamb, lion, adafactor, muon
  // Unset: the method's own, see above. One that the method does not have is refused.
  std::optional<double> beta1 = {};
  std::optional<double> beta2 = {};
  std::optional<double> momentum = {};
  std::optional<double> epsilon = {};
  std::optional<double> weight_decay = {};
  std::string state = "f32";  // or "8bit": moments in blocks of 256 codes of a byte
  // Of the bf16 working copy. Rounded to nearest, changes below half a bf16 step are not seen by
  // the next forward pass: a model learns visibly slower (docs/compute.md).
  bool stochastic_rounding = true;

  void visit(ConfigFields& f);
  // Throws ConfigError: a value with its range, an unknown method, an option that the method does
  // not have with the methods that do.
  void validate() const;
  // Throws ConfigError, with why and the methods that fit, for one whose update of an element needs
  // more of its parameter than is here: lamb its norm, adafactor and muon its rows and columns.
  void check_takes_parts(const std::string& why) const;
  // With all options that the method has. Throws ConfigError for an unknown method.
  OptimizerConfig with_defaults() const;
};

}  // namespace trireme::optim

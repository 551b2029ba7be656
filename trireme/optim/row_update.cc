// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/row_update.h"

#include <string>

#include "trireme/base/error.h"

namespace trireme::optim {
namespace {

// Two powers take some 50 ns, longer than the update of a short row: those of the first steps are
// kept. 1 MiB at the most.
constexpr std::int64_t kKeptCorrections = 65'536;

constexpr detail::UpdateExtras kNoExtras{};

}  // namespace

RowUpdate::RowUpdate(const OptimizerConfig& given) : config_(given) {
  config_.validate();
  config_ = config_.with_defaults();
  const std::string& name = config_.name;
  if (name == "sgd") {
    method_ = Method::kSgd;
    moments_ = *config_.momentum > 0 ? 1 : 0;
  } else if (name == "adam" || name == "adamw") {
    method_ = name == "adam" ? Method::kAdam : Method::kAdamW;
    moments_ = 2;
  } else if (name == "lion") {
    method_ = Method::kLion;
    moments_ = 1;
  } else if (name == "adagrad") {
    method_ = Method::kAdagrad;
    moments_ = 1;
  } else {
    throw_error<ConfigError>(
        "optimizer.name is {}, whose update of a row needs the whole matrix; rows are updated one "
        "by one: take sgd, adagrad, adam, adamw or lion",
        name);
  }
  if (config_.state != "f32") {
    throw_error<ConfigError>(
        "optimizer.state is {}, whose blocks of 256 values are longer than rows: take f32",
        config_.state);
  }
  decay_ = static_cast<float>(*config_.weight_decay);
}

void RowUpdate::begin(const Scalars& scalars) {
  const auto scale = static_cast<float>(scalars.gradient_scale);
  learning_rate_ = scalars.learning_rate;
  keep_ = kept_by_decay(learning_rate_, *config_.weight_decay);
  const StepScalars step{learning_rate_, scale, 1};
  if (method_ == Method::kSgd) sgd_ = sgd_scalars(config_, step);
  if (method_ == Method::kAdagrad) adagrad_ = adagrad_scalars(config_, step);
  if (method_ == Method::kLion) lion_ = lion_scalars(config_, step);
  if (moments_ == 2) adam_ = adam_scalars(config_, step);
}

AdamCorrection RowUpdate::correction(std::int64_t steps) {
  if (steps >= kKeptCorrections) return adam_correction(config_, steps);
  const auto at = static_cast<std::size_t>(steps);
  if (at >= corrections_.size()) corrections_.resize(at + 1 + at / 2);
  if (corrections_[at].first == 0) corrections_[at] = adam_correction(config_, steps);
  return corrections_[at];
}

detail::AdamWScalars RowUpdate::adam_scalars_at(std::int64_t steps) {
  const AdamCorrection c = correction(steps);
  detail::AdamWScalars s = adam_;
  s.inverse_sqrt_correction2 = c.inverse_sqrt_second;
  s.step_size = static_cast<float>(learning_rate_ / c.first);
  return s;
}

void RowUpdate::apply(std::int64_t count, float* weights, const float* given, float* state,
                      std::int64_t steps) {
  auto* const gradients = const_cast<float*>(given);  // kernels write only if told to clear them
  switch (method_) {
    case Method::kSgd:
      return detail::sgd_update(sgd_, decay_, count, weights, gradients,
                                moments_ > 0 ? state : nullptr, kNoExtras);
    case Method::kAdagrad:
      return detail::adagrad_update(adagrad_, decay_, count, weights, gradients, state, kNoExtras);
    case Method::kLion:
      return detail::lion_update(lion_, keep_, count, weights, gradients, state, kNoExtras);
    case Method::kAdam:
      return detail::adam_update(adam_scalars_at(steps), decay_, count, weights, gradients, state,
                                 state + count, kNoExtras);
    case Method::kAdamW:
      return detail::adamw_update(adam_scalars_at(steps), keep_, count, weights, gradients, state,
                                  state + count, kNoExtras);
  }
}

}  // namespace trireme::optim

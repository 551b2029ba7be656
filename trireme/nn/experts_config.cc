// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/experts_config.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "trireme/base/error.h"

namespace trireme::nn {
namespace {

void check_at_least(std::string_view key, std::int64_t value, std::int64_t least) {
  if (value < least) {
    throw_error<ConfigError>("model.experts.{} is {}; it must be at least {}", key, value, least);
  }
}

void check_not_negative(std::string_view key, double value) {
  if (!(value >= 0.0) || !std::isfinite(value)) {
    throw_error<ConfigError>("model.experts.{} is {}; it must be 0 or above", key, value);
  }
}

void check_above_zero(std::string_view key, double value) {
  if (!(value > 0.0) || !std::isfinite(value)) {
    throw_error<ConfigError>("model.experts.{} is {}; it must be above 0", key, value);
  }
}

}  // namespace

void ExpertsConfig::visit(ConfigFields& f) {
  f.field("count", count, "experts of a layer; 0: a dense model");
  f.field("top_k", top_k, "experts that a token uses");
  f.field("width", width, "hidden elements of an expert; 0: mlp_width");
  f.field("shared", shared, "experts that every token uses beside its own");
  f.field("first_dense", first_dense, "layers before the first that may have experts");
  f.field("every", every, "of the layers after those, the last of every so many has experts");
  f.field("score", score, "of experts: softmax over all, or a sigmoid for each",
          {"softmax", "sigmoid"});
  f.field("normalize", normalize, "a token's weights of its experts are divided by their sum");
  f.field("scale", scale, "times which the weights count");
  f.field("capacity_factor", capacity_factor,
          "rows that an expert takes, over its equal share; tokens beyond are dropped; 0: all");
  f.field("balance", balance,
          "keeps experts equally busy: a loss, a bias of the choice that moves after each step, or "
          "nothing",
          {"loss", "bias", "none"});
  f.field("balance_coefficient", balance_coefficient, "of the loss with balance loss");
  f.field("bias_speed", bias_speed, "of a step, with balance bias");
  f.field("z_coefficient", z_coefficient, "of the loss of large router outputs; 0: none");
}

void ExpertsConfig::resolve(std::int64_t layers, std::int64_t mlp_width) {
  if (count == 0) {
    if (*this == ExpertsConfig()) return;
    throw_error<ConfigError>(
        "model.experts.count is 0, a dense model, but other settings of model.experts are given: "
        "set count, or leave them out");
  }
  check_at_least("count", count, 1);
  check_at_least("top_k", top_k, 1);
  if (top_k > count) {
    throw_error<ConfigError>(
        "model.experts.top_k is {}, but there are {} experts; at most {} can be chosen", top_k,
        count, count);
  }
  width = width == 0 ? mlp_width : width;
  check_at_least("width", width, 1);
  check_at_least("shared", shared, 0);
  check_at_least("first_dense", first_dense, 0);
  check_at_least("every", every, 1);
  if (num_layers(layers) == 0) {
    throw_error<ConfigError>(
        "model.experts.first_dense {} and model.experts.every {} leave none of {} layers with "
        "experts; their sum must be at most {}",
        first_dense, every, layers, layers);
  }
  if (score != "softmax" && score != "sigmoid") {
    throw_error<ConfigError>("model.experts.score is '{}'; known: softmax, sigmoid", score);
  }
  if (balance != "loss" && balance != "bias" && balance != "none") {
    throw_error<ConfigError>("model.experts.balance is '{}'; known: loss, bias, none", balance);
  }
  check_above_zero("scale", scale);
  check_not_negative("capacity_factor", capacity_factor);
  check_not_negative("balance_coefficient", balance_coefficient);
  check_above_zero("bias_speed", bias_speed);
  check_not_negative("z_coefficient", z_coefficient);
}

bool ExpertsConfig::in_layer(std::int64_t layer) const {
  return count > 0 && layer >= first_dense && (layer - first_dense + 1) % every == 0;
}

std::int64_t ExpertsConfig::num_layers(std::int64_t layers) const {
  return count > 0 ? std::max<std::int64_t>(0, layers - first_dense) / every : 0;
}

std::int64_t ExpertsConfig::capacity(std::int64_t tokens) const {
  if (capacity_factor == 0.0) return tokens;
  const double share =
      static_cast<double>(tokens * top_k) / static_cast<double>(count) * capacity_factor;
  return share < static_cast<double>(tokens) ? static_cast<std::int64_t>(std::ceil(share)) : tokens;
}

}  // namespace trireme::nn

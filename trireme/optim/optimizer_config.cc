// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/optimizer_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <vector>

#include "trireme/base/error.h"

namespace trireme::optim {
namespace {

// A method's options by their defaults; unset ones it does not have.
struct Method {
  std::string_view name;
  std::optional<double> beta1 = {};
  std::optional<double> beta2 = {};
  std::optional<double> momentum = {};
  std::optional<double> epsilon = {};
  std::optional<double> weight_decay = {};
  bool has_8bit_state = false;
  bool by_parameter = false;
};

// The papers' values, but for adamw and muon: those of language models, whose gradients change too
// fast for a beta2 of 0.999.
constexpr std::array kMethods = {
    Method{.name = "sgd", .momentum = 0.9, .weight_decay = 0.0, .has_8bit_state = true},
    Method{.name = "adagrad", .epsilon = 1e-10, .weight_decay = 0.0},
    Method{.name = "adam",
           .beta1 = 0.9,
           .beta2 = 0.999,
           .epsilon = 1e-8,
           .weight_decay = 0.0,
           .has_8bit_state = true},
    Method{.name = "adamw",
           .beta1 = 0.9,
           .beta2 = 0.95,
           .epsilon = 1e-8,
           .weight_decay = 0.1,
           .has_8bit_state = true},
    Method{.name = "lamb",
           .beta1 = 0.9,
           .beta2 = 0.999,
           .epsilon = 1e-6,
           .weight_decay = 0.01,
           .by_parameter = true},
    Method{
        .name = "lion", .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 1.0, .has_8bit_state = true},
    Method{.name = "adafactor",
           .momentum = 0.0,
           .epsilon = 1e-30,
           .weight_decay = 0.0,
           .by_parameter = true},
    Method{.name = "muon",
           .beta1 = 0.9,
           .beta2 = 0.95,
           .momentum = 0.95,
           .epsilon = 1e-8,
           .weight_decay = 0.1,
           .by_parameter = true},
};

struct Option {
  std::string_view name;
  std::string_view help;
  std::optional<double> OptimizerConfig::*given;
  std::optional<double> Method::*own;
  enum { kBelowOne, kAboveZero, kAtLeastZero } range;
};

constexpr std::array kOptions = {
    Option{"beta1", "decay of the gradient's running mean", &OptimizerConfig::beta1, &Method::beta1,
           Option::kBelowOne},
    Option{"beta2", "decay of the squared gradient's running mean; lion: of the gradient's",
           &OptimizerConfig::beta2, &Method::beta2, Option::kBelowOne},
    Option{"momentum", "decay of the sum of gradients; adafactor: of the mean of updates, 0: none",
           &OptimizerConfig::momentum, &Method::momentum, Option::kBelowOne},
    Option{"epsilon",
           "added to the root of the squared gradient's mean or sum; adafactor: to the square",
           &OptimizerConfig::epsilon, &Method::epsilon, Option::kAboveZero},
    Option{"weight_decay", "share of a matrix that a step removes, times learning rate",
           &OptimizerConfig::weight_decay, &Method::weight_decay, Option::kAtLeastZero},
};

template <class Predicate>
std::string names_of_methods(Predicate predicate) {
  std::vector<std::string_view> names;
  for (const Method& method : kMethods) {
    if (predicate(method)) names.push_back(method.name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

const Method& method_of(const std::string& name) {
  const auto* found = std::find_if(kMethods.begin(), kMethods.end(),
                                   [&](const Method& method) { return method.name == name; });
  if (found == kMethods.end()) {
    throw_error<ConfigError>("optimizer.name is '{}'; known: {}", name,
                             names_of_methods([](const Method&) { return true; }));
  }
  return *found;
}

std::string refusal(const Option& option, const Method& method) {
  return fmt::format(
      "is an option of {}, but optimizer.name is {}: leave it out, or take another method",
      names_of_methods([&](const Method& m) { return (m.*option.own).has_value(); }), method.name);
}

void check_range(const Option& option, double value) {
  const bool fits =
      std::isfinite(value) && (option.range == Option::kBelowOne    ? value >= 0.0 && value < 1.0
                               : option.range == Option::kAboveZero ? value > 0.0
                                                                    : value >= 0.0);
  if (fits) return;
  throw_error<ConfigError>("optimizer.{} is {}; it must {}", option.name, value,
                           option.range == Option::kBelowOne    ? "lie in [0, 1)"
                           : option.range == Option::kAboveZero ? "be above 0"
                                                                : "be at least 0");
}

}  // namespace

void OptimizerConfig::visit(ConfigFields& f) {
  f.field("name", name, "the method; lion wants a learning rate some ten times lower than adamw",
          {"sgd", "adagrad", "adam", "adamw", "lamb", "lion", "adafactor", "muon"});
  const Method& method = method_of(name);
  for (const Option& option : kOptions) {
    std::optional<double>& given = this->*option.given;
    if (!(method.*option.own)) {
      f.refuse(option.name, refusal(option, method));
      continue;
    }
    double value = given.value_or(*(method.*option.own));
    f.field(option.name, value, option.help);
    given = value;
  }
  f.field("state", state, "how moments are kept: 8bit takes a quarter of the memory",
          {"f32", "8bit"});
  f.field("stochastic_rounding", stochastic_rounding,
          "bf16: round the weights that the model computes with up or down by chance, so that "
          "small changes are not lost; the f32 weights are not touched");
}

void OptimizerConfig::validate() const {
  const Method& method = method_of(name);
  for (const Option& option : kOptions) {
    const std::optional<double>& given = this->*option.given;
    if (!given) continue;
    if (!(method.*option.own)) {
      throw_error<ConfigError>("optimizer.{} {}", option.name, refusal(option, method));
    }
    check_range(option, *given);
  }
  if (state != "f32" && state != "8bit") {
    throw_error<ConfigError>("optimizer.state is '{}'; known: f32, 8bit", state);
  }
  if (state == "8bit" && !method.has_8bit_state) {
    throw_error<ConfigError>("optimizer.state is 8bit, which {} have, but optimizer.name is {}",
                             names_of_methods([](const Method& m) { return m.has_8bit_state; }),
                             name);
  }
}

OptimizerConfig OptimizerConfig::with_defaults() const {
  const Method& method = method_of(name);
  OptimizerConfig all = *this;
  for (const Option& option : kOptions) {
    if (!(all.*option.given)) all.*option.given = method.*option.own;
  }
  return all;
}

void OptimizerConfig::check_takes_parts(const std::string& why) const {
  if (!method_of(name).by_parameter) return;
  throw_error<ConfigError>(
      "optimizer.name is {}, which works on whole parameters, but {}: take one of {}", name, why,
      names_of_methods([](const Method& method) { return !method.by_parameter; }));
}

}  // namespace trireme::optim

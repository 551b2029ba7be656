// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Operations on tensors seen as functions, and what every one of them must fulfil: its gradients
// are those of finite differences, and its kernels follow its definition in f64.
//
// In f64 the operations of ops/ are compositions of LibTorch's. So these serve as the reference for
// the kernels, once a test has compared them with the definition and with finite differences.
#pragma once

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/support/devices.h"
#include "trireme/base/random.h"

namespace trireme::testing {

using Tensors = std::vector<at::Tensor>;

struct Operation {
  std::string name;
  // f64, all of them differentiated: activations first, then parameters.
  Tensors inputs;
  std::size_t num_activations = 0;
  std::function<Tensors(const Tensors&)> run;
};

// Standard normal values, f64; other values for another stream.
inline at::Tensor normal(at::IntArrayRef shape, std::uint64_t stream) {
  at::Tensor values = torch::empty(shape, at::kDouble);
  const RandomStream random(29, stream);
  auto* data = values.data_ptr<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    data[i] = random.normal(static_cast<std::uint64_t>(i));
  }
  return values;
}

// The same values in memory of another order; of a vector, as they are.
inline at::Tensor strided(const at::Tensor& x) {
  return x.dim() < 2 ? x : x.transpose(0, -1).contiguous().transpose(0, -1);
}

inline at::Tensor leaf(const at::Tensor& values, at::ScalarType dtype,
                       c10::Device device = at::kCPU) {
  return values.detach().to(device, dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
}

// The kernels' dtypes, and how far they may be from f64, as a share of a tensor's largest value.
struct Precision {
  at::ScalarType dtype;
  double tolerance;
};
// f32: sums of a thousand products err by about sqrt(1000) 2^-24 = 2e-6 of a term.
inline constexpr Precision kF32{at::kFloat, 1e-5};
// bf16: a result and up to four tensors on the way to it are rounded to 8 bits, by 2^-9 at most
// each.
inline constexpr Precision kBf16{at::kBFloat16, 5 * 0x1p-9};
// On a CUDA device results are rounded between a product and what follows it, as often again, and
// f32 sums come in other orders.
inline double tolerance_on(c10::Device device, const Precision& precision) {
  return device.is_cpu() ? precision.tolerance : 2 * precision.tolerance;
}

enum class Layout { kPlain, kStrided, kExpandedGradients };

// Outputs of an operation and the gradients, at its inputs, of the sum of outputs x cotangents.
struct Evaluation {
  Tensors outputs;
  Tensors gradients;

  Tensors all() const {
    Tensors both = outputs;
    both.insert(both.end(), gradients.begin(), gradients.end());
    return both;
  }
};

// As LibTorch makes it of .sum(), no memory behind the elements, or of normal values.
inline at::Tensor cotangent(const at::Tensor& output, std::uint64_t stream, Layout layout) {
  const at::Tensor values = layout == Layout::kExpandedGradients
                                ? normal({1}, 500 + stream).squeeze(0).to(at::kBFloat16)
                                : normal(output.sizes(), 500 + stream).to(at::kBFloat16);
  const at::Tensor rounded = values.to(output.options());
  if (layout == Layout::kExpandedGradients) return rounded.expand(output.sizes());
  return layout == Layout::kStrided ? strided(rounded) : rounded;
}

// Runs the operation on leaves, whose gradients are those of this run unless they had some before.
inline Evaluation evaluate_at(const Operation& operation, const Tensors& leaves, Layout layout) {
  Evaluation result{operation.run(leaves), {}};
  Tensors cotangents;
  for (const at::Tensor& output : result.outputs) {
    cotangents.push_back(cotangent(output, cotangents.size(), layout));
  }
  torch::autograd::backward(result.outputs, cotangents);
  for (const at::Tensor& input : leaves) result.gradients.push_back(input.grad());
  return result;
}

inline Tensors leaves_of(const Tensors& values, at::ScalarType dtype,
                         c10::Device device = at::kCPU) {
  Tensors leaves;
  for (const at::Tensor& each : values) leaves.push_back(leaf(each, dtype, device));
  return leaves;
}

// Runs the operation on the values of given (any dtype) in dtype, on the device.
inline Evaluation evaluate(const Operation& operation, const Tensors& given, at::ScalarType dtype,
                           Layout layout = Layout::kPlain, c10::Device device = at::kCPU) {
  Tensors values;
  for (const at::Tensor& each : given) {
    values.push_back(layout == Layout::kStrided ? strided(each) : each);
  }
  return evaluate_at(operation, leaves_of(values, dtype, device), layout);
}

// A tensor whose values are all smaller is one whose terms cancel: a gradient that is zero but for
// rounding. Of terms of about 4, f32 sums leave less than this.
inline constexpr double kCancelled = 0x1p-18;

// |actual - expected| <= tolerance x the largest |expected|, everywhere.
inline void expect_close(const at::Tensor& actual, const at::Tensor& expected, double tolerance,
                         const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  if (expected.numel() == 0) return;
  const at::Tensor wide = expected.detach().to(at::kDouble);
  const double difference =
      (actual.detach().to(at::kCPU, at::kDouble) - wide).abs().max().item<double>();
  const double largest = wide.abs().max().item<double>();
  EXPECT_LE(difference, largest < kCancelled ? kCancelled : tolerance * largest) << what;
}

inline void expect_close(const Evaluation& actual, const Evaluation& expected, double tolerance,
                         const std::string& what) {
  for (std::size_t i = 0; i < expected.outputs.size(); ++i) {
    expect_close(actual.outputs.at(i), expected.outputs[i], tolerance,
                 what + ", output " + std::to_string(i));
  }
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    expect_close(actual.gradients.at(i), expected.gradients[i], tolerance,
                 what + ", gradient " + std::to_string(i));
  }
}

inline bool same_bits(const Tensors& a, const Tensors& b) {
  bool same = a.size() == b.size();
  for (std::size_t i = 0; same && i < a.size(); ++i) same = a[i].equal(b[i]);
  return same;
}

// The kernels of a dtype, on every device, against the composition in f64 on the CPU, of the same
// rounded inputs.
inline void expect_follows_f64(const Operation& operation, const Precision& precision,
                               Layout layout = Layout::kPlain) {
  Tensors rounded;
  for (const at::Tensor& input : operation.inputs) rounded.push_back(input.to(precision.dtype));
  const Layout plain = layout == Layout::kStrided ? Layout::kPlain : layout;
  const Evaluation expected = evaluate(operation, rounded, at::kDouble, plain);
  for (const c10::Device device : devices()) {
    const Evaluation actual = evaluate(operation, rounded, precision.dtype, layout, device);
    const std::string what = operation.name + " in " + c10::toString(precision.dtype) +
                             ", layout " + std::to_string(static_cast<int>(layout)) + ", on " +
                             device.str();
    expect_close(actual, expected, tolerance_on(device, precision), what);
    for (const at::Tensor& gradient : actual.gradients) {
      EXPECT_EQ(gradient.scalar_type(), precision.dtype) << what;
      EXPECT_EQ(gradient.device(), device) << what;
    }
  }
}

// The gradients in f64 against central differences along a random direction for each input.
inline void expect_gradients_of_differences(const Operation& operation) {
  // Truncation, step^2, and rounding, 2^-53 / step, are both below 1e-9 of a sum of outputs.
  constexpr double kStep = 1e-5, kTolerance = 1e-7;
  const Evaluation at_inputs = evaluate(operation, operation.inputs, at::kDouble);
  const auto weighted_sum = [&](std::size_t input, const at::Tensor& change) {
    const at::NoGradGuard no_grad;
    Tensors moved = operation.inputs;
    moved[input] = moved[input] + change;
    double sum = 0;
    const Tensors outputs = operation.run(moved);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      sum += (outputs[i] * cotangent(outputs[i], i, Layout::kPlain)).sum().item<double>();
    }
    return sum;
  };
  for (std::size_t i = 0; i < operation.inputs.size(); ++i) {
    const at::Tensor direction = normal(operation.inputs[i].sizes(), 900 + i);
    const double difference =
        (weighted_sum(i, direction * kStep) - weighted_sum(i, direction * -kStep)) / (2 * kStep);
    const at::Tensor products = at_inputs.gradients[i] * direction;
    EXPECT_NEAR(products.sum().item<double>(), difference,
                kTolerance * (1 + products.abs().sum().item<double>()))
        << operation.name << ", input " << i;
  }
}

// All of the above, for every operation given.
inline void expect_gradients_of_differences(const std::vector<Operation>& operations) {
  for (const Operation& operation : operations) expect_gradients_of_differences(operation);
}
inline void expect_follow_f64(const std::vector<Operation>& operations,
                              std::vector<Layout> layouts = {Layout::kPlain}) {
  for (const Operation& operation : operations) {
    for (const Layout layout : layouts) {
      expect_follows_f64(operation, kF32, layout);
      expect_follows_f64(operation, kBf16, layout);
    }
  }
}

}  // namespace trireme::testing

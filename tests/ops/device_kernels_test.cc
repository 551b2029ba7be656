// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Operations on every device. What they compute there, the operations' own tests say
// (expect_follows_f64 runs on all devices); here is what else holds.
#include "trireme/ops/device_kernels.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/support/devices.h"
#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"
#include "trireme/ops/checkpoint.h"
#include "trireme/ops/flat_sums.h"
#include "trireme/ops/parameter_gradient.h"

namespace trireme {
namespace {

using testing::Evaluation;
using testing::Layout;
using testing::leaf;
using testing::normal;
using testing::Operation;
using testing::Tensors;

class OnDevice : public ::testing::TestWithParam<c10::Device> {
 protected:
  c10::Device device() const { return GetParam(); }
  at::Tensor zeros(at::IntArrayRef shape) const {
    return torch::zeros(shape, at::TensorOptions().dtype(at::kFloat).device(device()));
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, OnDevice, ::testing::ValuesIn(testing::devices()),
                         testing::device_name);

TEST_P(OnDevice, OperationsHaveTheSameBitsEveryTime) {
  for (const Operation& operation : testing::operations_of_training()) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const auto run = [&] {
        return testing::evaluate(operation, operation.inputs, dtype, Layout::kPlain, device())
            .all();
      };
      EXPECT_TRUE(testing::same_bits(run(), run())) << operation.name << ", " << dtype;
    }
  }
}

// Also where LibTorch runs the backward pass on a thread of the device's.
TEST_P(OnDevice, GradientsOfParametersAreAddedInPlace) {
  for (const Operation& operation : testing::operations_of_training()) {
    Tensors rounded;
    for (const at::Tensor& input : operation.inputs) rounded.push_back(input.to(at::kBFloat16));
    const Evaluation expected = testing::evaluate(operation, rounded, at::kDouble);
    const Tensors leaves = testing::leaves_of(rounded, at::kBFloat16, device());
    for (std::size_t i = operation.num_activations; i < leaves.size(); ++i) {
      at::Tensor(leaves[i]).mutable_grad() = zeros(leaves[i].sizes());
    }
    std::vector<void*> places;
    for (const at::Tensor& each : leaves) {
      places.push_back(each.grad().defined() ? each.grad().data_ptr() : nullptr);
    }
    const ops::DirectGradients direct;
    const Evaluation actual = testing::evaluate_at(operation, leaves, Layout::kPlain);
    for (std::size_t i = operation.num_activations; i < leaves.size(); ++i) {
      EXPECT_EQ(leaves[i].grad().data_ptr(), places[i]) << operation.name << ", " << i;
      EXPECT_EQ(leaves[i].grad().scalar_type(), at::kFloat);
      testing::expect_close(actual.gradients[i], expected.gradients[i],
                            testing::tolerance_on(device(), testing::kBf16), operation.name);
    }
  }
}

// To the last bit, as on the CPU.
TEST_P(OnDevice, GradientsOfRowsAreSumsInOrder) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto table = leaf(torch::zeros({5, 19}), dtype, device());
    const auto indices = testing::indices_below({700}, 5);
    const auto gradient = normal({700, 19}, 1).to(dtype), wide = gradient.to(at::kFloat);
    ops::embedding(table, indices.to(device())).backward(gradient.to(device()));
    auto expected = torch::zeros({5, 19});
    for (std::int64_t i = 0; i < 700; ++i) expected[indices[i].item<std::int64_t>()] += wide[i];
    EXPECT_TRUE(table.grad().to(at::kCPU).equal(expected.to(dtype))) << dtype;
  }
}

TEST_P(OnDevice, TheLossTakesTheIncomingFactor) {
  const auto targets = testing::indices_below({300}, 61).to(device());
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto run = [&](double factor, bool directly) {
      const auto x = leaf(normal({300, 20}, 1), dtype, device()),
                 weight = leaf(normal({61, 20}, 2), dtype, device());
      if (directly) at::Tensor(weight).mutable_grad() = zeros({61, 20});
      c10::optional<ops::DirectGradients> direct;
      if (directly) direct.emplace();
      (ops::linear_cross_entropy(x, weight, targets) * factor).backward();
      return Tensors{x.grad(), weight.grad()};
    };
    const Tensors one = run(1.0, false);
    for (const bool directly : {false, true}) {
      const Tensors scaled = run(0.25, directly);  // a power of two: exact
      EXPECT_TRUE(scaled[0].equal(one[0] / 4)) << dtype;
      testing::expect_close(scaled[1], one[1].to(at::kCPU) / 4, 0x1p-8, "the weight's");
    }
  }
}

TEST_P(OnDevice, AddAndClearMovesASum) {
  const auto to = normal({70'001}, 1).to(device(), at::kFloat),
             from = normal({70'001}, 2).to(device(), at::kFloat);
  const auto expected = to + from;
  ops::add_and_clear(to, from);
  EXPECT_TRUE(to.equal(expected));
  EXPECT_TRUE(from.equal(torch::zeros_like(from)));
}

// The random numbers of a device are put back too.
TEST_P(OnDevice, ACheckpointedSegmentIsComputedAgainAlike) {
  const auto x = normal({40, 9}, 1).to(device(), at::kFloat);
  const auto weight = leaf(normal({9, 9}, 2), at::kFloat, device());
  const auto segment = [&](const Tensors& in) {
    return Tensors{torch::dropout(ops::linear(in[0], weight, {}), 0.5, true)};
  };
  const auto run = [&](bool checkpointed) {
    torch::manual_seed(5);
    at::Tensor(weight).mutable_grad().reset();
    const Tensors out = checkpointed ? ops::checkpoint(segment, {x}) : segment({x});
    out[0].square().sum().backward();
    return weight.grad();
  };
  EXPECT_TRUE(run(true).equal(run(false)));
}

// On a device that has no kernels (LibTorch's meta device, which has no memory either) operations
// are compositions of LibTorch's: none hands memory to a kernel of the CPU.
TEST(WithoutKernels, OperationsAreComposed) {
  int composed = 0;
  for (const Operation& operation : testing::operations_of_training()) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const Tensors on_cpu = operation.run(testing::leaves_of(operation.inputs, dtype));
      const at::NoGradGuard no_grad;
      Tensors results;
      try {
        results = operation.run(testing::leaves_of(operation.inputs, dtype, at::kMeta));
      } catch (const c10::Error&) {  // LibTorch 1.13 has not all of its operations there
        continue;
      }
      ++composed;
      ASSERT_EQ(results.size(), on_cpu.size()) << operation.name;
      for (std::size_t i = 0; i < results.size(); ++i) {
        EXPECT_TRUE(results[i].is_meta()) << operation.name;
        EXPECT_EQ(results[i].sizes(), on_cpu[i].sizes()) << operation.name;
      }
    }
  }
  EXPECT_GE(composed, 16);  // of 26, by LibTorch 1.13
  const auto none = torch::empty({8}, at::TensorOptions().dtype(at::kFloat).device(at::kMeta));
  EXPECT_THROW(ops::add_and_clear(none, none), ShapeError);
  EXPECT_THROW(ops::activate(none.device(), {}), InternalError);
}

// Tensors on two devices: no kernel gets them.
TEST(WithoutKernels, KernelsWantAllTensorsOnOneDevice) {
  const auto here = torch::ones({2, 2});
  const auto elsewhere = torch::ones({2, 2}, at::TensorOptions().device(at::kMeta));
  EXPECT_TRUE(ops::has_kernels(here));
  EXPECT_TRUE(ops::has_kernels(here, here, at::Tensor()));
  EXPECT_FALSE(ops::has_kernels(here, elsewhere));
  EXPECT_FALSE(ops::has_kernels(elsewhere, here));
  EXPECT_FALSE(ops::has_kernels(here.to(at::kDouble)));
}

}  // namespace
}  // namespace trireme

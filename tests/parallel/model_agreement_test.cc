// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/model_agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

using testing::error_text;
using ::testing::HasSubstr;
using testing::run_threads;

using Add = std::function<void(torch::nn::Module&)>;

void add_parameter(torch::nn::Module& module, const std::string& name,
                   std::vector<std::int64_t> shape, at::ScalarType dtype = at::kFloat,
                   bool requires_grad = true) {
  module.register_parameter(name, torch::zeros(shape, dtype), requires_grad);
}

// What each of three ranks is told where rank 2's model is made by `other`.
std::vector<std::string> told(const Add& usual, const Add& other) {
  std::vector<std::string> errors(3);
  run_threads(3, [&](Group& group) {
    torch::nn::Module module;
    group.rank() == 2 ? other(module) : usual(module);
    try {
      check_same_model(group, module);
    } catch (const std::exception& error) {
      errors[static_cast<std::size_t>(group.rank())] = error_text(error);
    }
    group.barrier();
  });
  return errors;
}

void expect_told(const Add& usual, const Add& other, const std::string& difference) {
  for (const std::string& error : told(usual, other)) {
    EXPECT_THAT(error, HasSubstr("ConfigError: the ranks' models differ: " + difference));
  }
}

void usual(torch::nn::Module& module) {
  add_parameter(module, "fc", {5, 3});
  add_parameter(module, "bias", {3});
  module.register_buffer("mean", torch::zeros({3}));
}

TEST(CheckSameModel, IsSilentWhereAllAreAlike) {
  for (const std::string& error : told(usual, usual)) EXPECT_EQ(error, "");
  const Add nothing = [](torch::nn::Module&) {};
  for (const std::string& error : told(nothing, nothing)) EXPECT_EQ(error, "");
}

TEST(CheckSameModel, NamesTheFirstDifferenceOnAllRanks) {
  expect_told(
      usual,
      [](torch::nn::Module& module) {
        add_parameter(module, "fc", {5, 4});
        add_parameter(module, "bias", {4});
        module.register_buffer("mean", torch::zeros({3}));
      },
      "at place 0 rank 2 has parameter fc Float [5, 4], rank 0 has parameter fc Float [5, 3]");
  expect_told(
      usual,
      [](torch::nn::Module& module) {
        add_parameter(module, "fc", {5, 3});
        add_parameter(module, "bias", {3}, at::kDouble);
        module.register_buffer("mean", torch::zeros({3}));
      },
      "at place 1 rank 2 has parameter bias Double [3], rank 0 has parameter bias Float");
  expect_told(
      usual,
      [](torch::nn::Module& module) {
        add_parameter(module, "bias", {3});
        add_parameter(module, "fc", {5, 3});
        module.register_buffer("mean", torch::zeros({3}));
      },
      "at place 0 rank 2 has parameter bias");
  expect_told(
      usual,
      [](torch::nn::Module& module) {
        usual(module);
        module.register_buffer("more", torch::zeros({1}));
      },
      "at place 3 rank 2 has buffer more Float [1], rank 0 has nothing more");
  expect_told(
      usual,
      [](torch::nn::Module& module) {
        add_parameter(module, "fc", {5, 3});
        add_parameter(module, "bias", {3});
      },
      "at place 2 rank 2 has nothing more, rank 0 has buffer mean Float [3]");
  expect_told(
      usual,
      [](torch::nn::Module& module) {
        add_parameter(module, "fc", {5, 3});
        add_parameter(module, "bias", {3}, at::kFloat, false);
        module.register_buffer("mean", torch::zeros({3}));
      },
      "at place 1 rank 2 has parameter bias Float [3] without gradient, rank 0 has");
}

// The same names and shapes, but fewer numbers to train.
TEST(CheckSameModel, SeesWhatIsTied) {
  const auto tie = [](bool tied) {
    return [tied](torch::nn::Module& module) {
      const at::Tensor in = module.register_parameter("in", torch::zeros({5, 3}));
      module.register_parameter("out", tied ? in : torch::zeros({5, 3}));
    };
  };
  expect_told(
      tie(false), tie(true),
      "at place 1 rank 2 has parameter out Float [5, 3] tied to in, rank 0 has parameter out");
  for (const std::string& error : told(tie(true), tie(true))) EXPECT_EQ(error, "");
}

// Of every dtype, without elements, not contiguous, undefined: all but the last become the root's.
TEST(BroadcastModel, MakesEverythingTheRoots) {
  for (const int root : {0, 2}) {
    run_threads(3, [&](Group& group) {
      const double mine = 1.0 + group.rank();
      torch::nn::Module module;
      const at::Tensor weight = module.register_parameter("weight", torch::full({3, 5}, mine));
      module.register_parameter("again", weight);
      const at::Tensor across = torch::full({4, 7}, mine).t();
      module.register_parameter("across", across);
      module.register_parameter("frozen", torch::full({3}, mine, at::kDouble), false);
      module.register_parameter("empty", torch::zeros({0, 3}));
      module.register_parameter("none", at::Tensor(), false);
      module.register_buffer("mean", torch::full({3}, mine));
      module.register_buffer("batches", torch::full({}, 7 + group.rank(), at::kLong));
      module.register_buffer("mask", torch::full({5}, group.rank() == root, at::kBool));
      module.register_buffer("half", torch::full({3}, mine, at::kBFloat16));
      module.register_buffer("no_buffer", at::Tensor());
      const void* place = weight.data_ptr();
      broadcast_model(group, module, root);
      const double roots = 1.0 + root;
      EXPECT_EQ(weight.data_ptr(), place);
      for (const auto& item : module.named_parameters()) {
        EXPECT_TRUE(item.value().eq(roots).all().item<bool>()) << item.key();
      }
      EXPECT_FALSE(module.named_parameters()["across"].is_contiguous());
      const auto buffers = module.named_buffers();
      EXPECT_EQ(buffers["mean"].sum().item<double>(), 3 * roots);
      EXPECT_EQ(buffers["batches"].item<std::int64_t>(), 7 + root);
      EXPECT_EQ(buffers["mask"].sum().item<std::int64_t>(), 5);
      EXPECT_EQ(buffers["half"].sum().item<double>(), 3 * roots);
      EXPECT_TRUE(weight.requires_grad());
    });
  }
}

TEST(BroadcastModuleBuffers, LeavesParametersAlone) {
  run_threads(2, [](Group& group) {
    torch::nn::Module module;
    const at::Tensor weight = module.register_parameter("w", torch::full({3}, 1.0 * group.rank()));
    const at::Tensor mean = module.register_buffer("mean", torch::full({3}, group.rank() + 5.0));
    broadcast_module_buffers(group, module, 1);
    EXPECT_EQ(weight.sum().item<double>(), 3 * group.rank());
    EXPECT_EQ(mean.sum().item<double>(), 18);
  });
}

}  // namespace
}  // namespace trireme

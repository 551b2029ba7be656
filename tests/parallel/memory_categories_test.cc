// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Who makes long-lived memory says what it is for.

#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <memory>

#include "trireme/comm/world.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/gradient_tree.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

using enum MemoryCategory;

struct MemoryCategories : ::testing::Test {
  MemoryCategories() { install_caching_allocator(); }
  std::int64_t added(MemoryCategory category) const {
    return process_memory().report().current[category] - before_.current[category];
  }
  MemoryReport before_ = process_memory().report();
};

struct OneMatrix : torch::nn::Module {
  OneMatrix() { weight = register_parameter("weight", torch::ones({20, 32})); }
  at::Tensor weight;
};

TEST_F(MemoryCategories, FlatParameters) {
  OneMatrix module;
  {
    const FlatParameters flat(module, at::kBFloat16);
    EXPECT_EQ(added(kWeights), 2 * kShardBlock) << "a block of elements";
    EXPECT_EQ(added(kGradients), 4 * kShardBlock);
  }
  module.weight.mutable_grad().reset();
  EXPECT_EQ(added(kGradients), 0);
}

TEST_F(MemoryCategories, GradientSumsInTheHeapAndInSharedMemory) {
  const std::unique_ptr<Group> world = join_world({});
  for (Group* group : {static_cast<Group*>(nullptr), world.get()}) {
    GradientTree tree(1000, group);
    for (int leaf = 0; leaf < 4; ++leaf) tree.push(tree.buffer());
    EXPECT_EQ(added(kGradients), 3 * 4000) << "a sum of two, of one, and the leaf";
  }
  EXPECT_EQ(added(kGradients), 0);
}

TEST_F(MemoryCategories, SharedMemoryIsOfTheScopeItWasMadeIn) {
  const std::unique_ptr<Group> world = join_world({});
  at::Tensor zeros;
  {
    const MemoryScope scope(kWorkspace);
    zeros = shared_zeros(*world, {3, 100}, at::kFloat);
  }
  EXPECT_EQ(added(kWorkspace), 1200);
  zeros.reset();
  EXPECT_EQ(added(kWorkspace), 0);
}

}  // namespace
}  // namespace trireme

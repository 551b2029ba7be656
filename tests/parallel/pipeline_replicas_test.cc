// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Pipelines beside one another, each on micro-batches of its own: with Replica and ShardedModel.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "tests/support/pipeline_nets.h"
#include "tests/support/ranks.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/data/replica.h"
#include "trireme/parallel/pipeline/pipeline.h"
#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/topology/mesh.h"

namespace trireme {
namespace {

using testing::make_net;
using testing::net_inputs;
using testing::net_loss;
using testing::net_output;
using testing::run_threads;

constexpr int kReplicas = 2, kEach = 4, kAll = kReplicas * kEach;
const std::string kKind = "plain";

// By name.
using Tensors = std::map<std::string, at::Tensor>;

void expect_same(const Tensors& found, const Tensors& expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(found.contains(name)) << what << ": " << name;
    EXPECT_TRUE(found.at(name).equal(tensor)) << what << ": " << name;
  }
}

// Micro-batches of the step, of a pipeline's own.
template <typename Model>
void run_step_of(Pipeline& pipeline, const Model& model) {
  const auto number = [&](std::int64_t m) {
    return model.micro_batches()[static_cast<std::size_t>(m)];
  };
  pipeline.step([&](std::int64_t m) { return net_inputs(kKind, number(m)); },
                [&](const at::Tensor& y, std::int64_t m) { return net_loss(y, number(m)); });
}

TEST(PipelineReplicas, ReplicasTakeTheMeanThatOneRankTakes) {
  Tensors expected;
  run_threads(1, [&](Group& world) {
    torch::nn::Sequential net = make_net(kKind);
    Replica replica(*net, world, {.micro_batches = kAll});
    for (const std::int64_t m : replica.micro_batches()) {
      replica.backward(net_loss(net_output(net, kKind, m), m));
    }
    replica.finish_gradients();
    for (const auto& item : net->named_parameters()) expected[item.key()] = item.value().grad();
  });
  for (const std::string schedule : {"1f1b", "zbv"}) {
    Tensors found;
    std::mutex mutex;
    run_threads(2 * kReplicas, [&](Group& world) {
      const Mesh mesh({{"dp", kReplicas}, {"pp", 2}});
      const auto dp = world.split(mesh, "dp"), pp = world.split(mesh, "pp");
      Pipeline pipeline(make_net(kKind), *pp,
                        {.schedule = schedule, .micro_batches = kEach, .loss_weight = 1});
      std::map<int, Replica> replicas;
      for (const int stage : pipeline.stages()) {
        Replica& own = replicas
                           .emplace(stage, Replica(pipeline.module(stage), *dp,
                                                   {.micro_batches = kAll, .bucket_bytes = 500}))
                           .first->second;
        pipeline.set_add(stage, [&own](const auto& pass) { own.add(1, pass); });
      }
      run_step_of(pipeline, replicas.begin()->second);
      for (auto& [stage, own] : replicas) own.finish_gradients();
      const std::lock_guard lock(mutex);
      for (const auto& [name, parameter] : pipeline.named_parameters()) {
        const auto [other, is_new] = found.try_emplace(name, parameter.grad().clone());
        if (!is_new) {
          EXPECT_TRUE(parameter.grad().equal(other->second)) << name;
        }
      }
    });
    expect_same(found, expected, schedule);
  }
}

// Weights after two steps.
Tensors sharded_on_one_rank() {
  Tensors result;
  run_threads(1, [&](Group& world) {
    torch::nn::Sequential net = make_net(kKind);
    ShardedModel sharded(*net, world, {.stage = 0, .micro_batches = kAll});
    const auto optimizer = optim::make_optimizer({.name = "adamw"}, sharded.space());
    for (int step = 0; step < 2; ++step) {
      for (const std::int64_t m : sharded.micro_batches()) {
        sharded.backward(sharded.forward([&] { return net_loss(net_output(net, kKind, m), m); }));
      }
      sharded.finish_gradients();
      sharded.step(*optimizer, 0.01, 1.0 / kAll);
    }
    for (const auto& item : net->named_parameters()) result[item.key()] = item.value().clone();
  });
  return result;
}

void train_sharded(Group& world, const std::string& schedule, int zero, Tensors& found,
                   std::mutex& mutex) {
  const Mesh mesh({{"dp", kReplicas}, {"pp", 2}});
  const auto dp = world.split(mesh, "dp"), pp = world.split(mesh, "pp");
  Pipeline pipeline(make_net(kKind), *pp,
                    {.schedule = schedule, .micro_batches = kEach, .loss_weight = 1});
  std::map<int, ShardedModel> sharded;
  std::map<int, std::unique_ptr<optim::Optimizer>> optimizers;
  for (const int stage : pipeline.stages()) {
    ShardedModel& own = sharded
                            .emplace(stage, ShardedModel(pipeline.module(stage), *dp,
                                                         {.stage = zero, .micro_batches = kAll}))
                            .first->second;
    optimizers[stage] = optim::make_optimizer({.name = "adamw"}, own.space());
    pipeline.set_add(stage, [&own](const auto& pass) { own.add(1, pass); });
  }
  const auto hold = [&](bool held) {
    for (auto& [stage, own] : sharded) own.hold_weights(held);
  };
  for (int step = 0; step < 2; ++step) {
    hold(true);
    run_step_of(pipeline, sharded.begin()->second);
    hold(false);
    for (auto& [stage, own] : sharded) {
      own.finish_gradients();
      own.step(*optimizers[stage], 0.01, 1.0 / kAll);
    }
  }
  hold(true);
  {
    const std::lock_guard lock(mutex);
    for (const auto& [name, weight] : pipeline.named_parameters()) {
      const auto [other, is_new] = found.try_emplace(name, weight.clone());
      if (!is_new) {
        EXPECT_TRUE(weight.equal(other->second)) << name;
      }
    }
  }
  hold(false);
}

TEST(PipelineReplicas, AllStagesOfZeroTrainTheWeightsThatOneRankTrains) {
  const Tensors expected = sharded_on_one_rank();
  for (const std::string schedule : {"1f1b", "zb-h1", "dualpipev"}) {
    for (const int zero : {0, 1, 2, 3}) {
      Tensors found;
      std::mutex mutex;
      run_threads(2 * kReplicas,
                  [&](Group& world) { train_sharded(world, schedule, zero, found, mutex); });
      expect_same(found, expected, fmt::format("{}, ZeRO-{}", schedule, zero));
    }
  }
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Offload from a device that works later than it is told: nothing may be read, written or freed
// before its copy, nor copied before it is computed.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/fakes/late_device.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "trireme/comm/world.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/shard/device_link.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::run_threads;

constexpr std::int64_t kCount = 5003;

struct LateDevice : ::testing::Test {
  LateDevice() { late_device::take_violations(); }
  ~LateDevice() override { EXPECT_THAT(late_device::take_violations(), IsEmpty()); }

  at::Tensor on_device(double value) {
    const at::Tensor result = link.device_memory(kCount, at::kFloat);
    return result.fill_(value);
  }
  at::Tensor on_host(double value) {
    return link.host_zeros(*world, {kCount}, at::kFloat).fill_(value);
  }
  static double last_of(const at::Tensor& values) { return values.cpu()[kCount - 1].item<float>(); }

  const std::unique_ptr<Group> world = join_world({});
  DeviceLink link{late_device::device_of(0)};
};

TEST_F(LateDevice, CopiesToTheHostHappenWhenTheyAreWaitedFor) {
  const at::Tensor device = on_device(3), host = on_host(1);
  const DevicePoint there = link.start_copy(host, device, link.queued());
  EXPECT_EQ(last_of(host), 1);
  there.wait();
  EXPECT_EQ(last_of(host), 3);
}

TEST_F(LateDevice, CopiesToTheDeviceHappenWhenItIsHeld) {
  const at::Tensor device = on_device(3), host = on_host(1);
  const DevicePoint there = link.start_copy(device, host, link.queued());
  there.hold_device();
  EXPECT_EQ(last_of(device), 1);
}

TEST_F(LateDevice, CopiesWaitForEachOther) {
  const at::Tensor from = on_device(3), between = on_host(1), to = on_device(2);
  const DevicePoint first = link.start_copy(between, from, link.queued());
  link.start_copy(to, between, first).wait();
  EXPECT_EQ(last_of(to), 3);
}

TEST_F(LateDevice, NotesWhoDoesNotWait) {
  const at::Tensor device = on_device(3), host = on_host(1);
  const DevicePoint there = link.start_copy(host, device, DevicePoint());
  EXPECT_THAT(late_device::take_violations(), ElementsAre(HasSubstr("not ordered behind")));
  device.add_(1);
  EXPECT_THAT(late_device::take_violations(), ElementsAre(HasSubstr("a copy is under way")));
  there.wait();
  EXPECT_EQ(last_of(host), 4);
}

TEST_F(LateDevice, NotesWhoWritesTooEarly) {
  const at::Tensor device = on_device(3), host = on_host(1);
  link.start_copy(device, host, link.queued()).hold_device();
  host.fill_(2);  // the device may still be copying
  EXPECT_EQ(last_of(device), 1);
  EXPECT_THAT(late_device::take_violations(),
              ElementsAre(HasSubstr("host memory that has changed")));
}

TEST_F(LateDevice, TensorsLiveUntilTheyAreCopied) {
  const at::Tensor host = on_host(1);
  DevicePoint there;
  {
    const at::Tensor device = on_device(3);
    there = link.start_copy(host, device, link.queued());
  }
  there.wait();
  EXPECT_EQ(last_of(host), 3);
  {
    DeviceLink short_lived(late_device::device_of(0));
    const at::Tensor device = on_device(4);
    short_lived.start_copy(host, device, short_lived.queued());
  }
  EXPECT_EQ(last_of(host), 4);
}

constexpr int kUnits = 5;
constexpr std::int64_t kMicroBatches = 4;

// Two layers w x + b with tanh after each.
struct Layers : torch::nn::Module {
  static constexpr std::int64_t kWidth = 67;

  static at::Tensor rows(std::int64_t first, std::int64_t count) {
    return testing::formula_samples(first, count, kWidth);
  }
  Layers(std::int64_t salt, at::ScalarType dtype, c10::Device device) {
    const auto there = [&](const at::Tensor& values) {
      return (values * 0.2).to(dtype).to(device);
    };
    for (int i = 0; i < 2; ++i) {
      weights.push_back(
          register_parameter(fmt::format("weight{}", i), there(rows(100 * salt + 70 * i, kWidth))));
      biases.push_back(register_parameter(fmt::format("bias{}", i),
                                          there(rows(100 * salt + 70 * i + 68, 1)[0])));
    }
  }
  at::Tensor forward(at::Tensor x) const {
    for (std::size_t i = 0; i < 2; ++i) x = (x.matmul(weights[i]) + biases[i]).tanh();
    return x;
  }
  std::vector<at::Tensor> weights, biases;
};

// Units, and layers that belong to none.
struct Net : torch::nn::Module {
  explicit Net(c10::Device device_in) : device(device_in) {
    for (int i = 0; i < kUnits; ++i) {
      blocks.push_back(
          register_module(std::to_string(i), std::make_shared<Layers>(i, at::kFloat, device)));
      units.push_back(blocks.back().get());
    }
    head = register_module("head", std::make_shared<Layers>(9, at::kFloat, device));
  }
  at::Tensor loss(ShardedModel& sharded, std::int64_t m) {
    const at::Tensor target = Layers::rows(3 * m, 3).to(at::kFloat).to(device);
    at::Tensor x = target.to(head->biases[0].scalar_type());
    for (const auto& block : blocks) {
      x = x + sharded.run(*block, x, [&](const at::Tensor& y) { return block->forward(y); });
    }
    return (head->forward(x).to(at::kFloat) - target).square().mean();
  }
  const c10::Device device;
  std::vector<std::shared_ptr<Layers>> blocks;
  std::shared_ptr<Layers> head;
  std::vector<const torch::nn::Module*> units;
};

struct Run {
  int stage = 1;
  at::ScalarType dtype = at::kFloat;
  int prefetch = 1;
  bool on_device = true;
};

struct Result {
  std::vector<double> norms;
  std::vector<double> losses;  // of samples that are not trained on, after each step
  at::Tensor weights;          // on rank 0
};

// Between steps the weights are looked at, and changed, as soon as one may.
Result train(Group& group, const Run& run) {
  Net net(run.on_device ? late_device::device_of(group.rank()) : c10::Device(at::kCPU));
  ShardedModel sharded(net, group,
                       {.stage = run.stage,
                        .dtype = run.dtype,
                        .micro_batches = kMicroBatches,
                        .units = net.units,
                        .prefetch = run.prefetch,
                        .offload = run.on_device});
  const auto adamw = optim::make_optimizer({.name = "adamw"}, sharded.space());
  Result result;
  const auto look = [&] {
    const at::NoGradGuard no_grad;
    result.losses.push_back(
        sharded.forward([&] { return net.loss(sharded, 1000); }).item<double>());
  };
  for (std::int64_t step = 0; step < 3; ++step) {
    for (const std::int64_t m : sharded.micro_batches()) {
      sharded.backward(sharded.forward([&] { return net.loss(sharded, 10 * step + m); }));
    }
    sharded.finish_gradients();
    result.norms.push_back(sharded.gradient_norm());
    sharded.step(*adamw, 0.01, 1.0 / kMicroBatches);
    look();
    const at::NoGradGuard no_grad;
    sharded.forward([&] { return net.loss(sharded, 1001); });  // which nobody waits for
    for (const optim::PieceUpdate& piece : sharded.pieces()) piece.weights.mul_(0.9);
    sharded.publish_weights();
    look();
  }
  result.weights = sharded.gather_weights();
  if (group.rank() == 0) result.weights = result.weights.clone();
  return result;
}

TEST_F(LateDevice, TrainsAsTheCpuDoes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    Result expected;
    run_threads(
        1, [&](Group& group) { expected = train(group, {.dtype = dtype, .on_device = false}); });
    for (const int stage : {0, 1, 2, 3}) {
      for (const int ranks : {1, 2, 4}) {
        for (const int prefetch : {0, 1, 3}) {
          if (prefetch != 1 && (stage < 3 || ranks != 2)) continue;
          const std::string what = fmt::format("stage {}, {} ranks, prefetch {}, {}", stage, ranks,
                                               prefetch, c10::toString(dtype));
          const std::int64_t late_before = late_device::late_copies();
          run_threads(ranks, [&](Group& group) {
            const Result result =
                train(group, {.stage = stage, .dtype = dtype, .prefetch = prefetch});
            EXPECT_EQ(result.losses, expected.losses) << what;
            EXPECT_EQ(result.norms, expected.norms) << what;
            if (group.rank() == 0) {
              EXPECT_TRUE(result.weights.equal(expected.weights)) << what;
            }
          });
          EXPECT_GT(late_device::late_copies() - late_before, 3 * ranks * kUnits) << what;
          EXPECT_THAT(late_device::take_violations(), IsEmpty()) << what;
        }
      }
    }
  }
}

// Bytes on the device at the peak, and what the header promises of them.
TEST_F(LateDevice, HoldsWhatTheHeaderSays) {
  for (const int stage : {0, 1, 2, 3}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const std::string what = fmt::format("stage {}, {}", stage, c10::toString(dtype));
      const std::int64_t before = late_device::bytes();
      run_threads(1, [&](Group& group) {
        Net net(late_device::device_of(0));
        ShardedModel sharded(net, group,
                             {.stage = stage,
                              .dtype = dtype,
                              .micro_batches = 2,
                              .units = net.units,
                              .offload = true});
        const auto adamw = optim::make_optimizer({.name = "adamw"}, sharded.space());
        const std::int64_t element = dtype == at::kFloat ? 4 : 2;
        const std::int64_t all = sharded.layout().size * element;
        EXPECT_EQ(late_device::bytes() - before, stage < 3 ? all : 0) << what;
        late_device::reset_peak();
        for (int step = 0; step < 2; ++step) {
          for (const std::int64_t m : sharded.micro_batches()) {
            sharded.backward(sharded.forward([&] { return net.loss(sharded, m); }));
          }
          sharded.finish_gradients();
          sharded.step(*adamw, 0.01);
        }
        const std::vector<FlatSegment>& units = sharded.layout().units;
        const std::int64_t no_unit = units[0].end - units[0].begin;
        const std::int64_t unit = units[1].end - units[1].begin;
        // Gradients: of no unit, of the unit at hand, of three on their way. Weights in stage 3: of
        // no unit, of the unit at hand, of one ahead.
        const std::int64_t gradients = 4 * (no_unit + 4 * unit);
        const std::int64_t weights = stage < 3 ? all : element * (no_unit + 2 * unit);
        const std::int64_t activations = std::int64_t{40} * 3 * Layers::kWidth * 8;
        EXPECT_LE(late_device::peak_bytes() - before, weights + gradients + activations) << what;
        EXPECT_GE(late_device::peak_bytes() - before, weights) << what;
      });
      EXPECT_EQ(late_device::bytes(), before) << what;
    }
  }
}

}  // namespace
}  // namespace trireme

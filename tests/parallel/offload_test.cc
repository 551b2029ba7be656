// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ShardedModel with offload. On the CPU the weights that compute are other memory than the host's,
// and all copies are made, so that what is true there must be true of a GPU, but for its
// arithmetic.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/devices.h"
#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "tests/support/sharded_training.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/optim/optimizer.h"
#include "trireme/optim/weight_average.h"
#include "trireme/parallel/data/replica.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::run_sharded;
using testing::run_threads;
using testing::ShardedResult;

ShardedResult run_alone(const std::string& family, const testing::ShardedRun& run,
                        at::ScalarType dtype) {
  ShardedResult result;
  run_threads(1, [&](Group& group) { result = run_sharded(group, family, run, dtype); });
  return result;
}

TEST(Offload, EveryStageTrainsTheSameModelAsWithout) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const ShardedResult expected = run_alone(family, {}, dtype);
      EXPECT_GT(expected.norms.back(), 0.0);
      for (const int stage : {0, 1, 2, 3}) {
        for (const int ranks : {1, 2, 4}) {
          run_threads(ranks, [&](Group& group) {
            const ShardedResult result =
                run_sharded(group, family, {.stage = stage, .offload = true}, dtype);
            expect_same_training(result, expected, group.rank(),
                                 fmt::format("{} stage {}, {} ranks, {}", family, stage, ranks,
                                             c10::toString(dtype)));
          });
        }
      }
    }
  }
}

TEST(Offload, NeitherRecomputationNorPrefetchChangesAnything) {
  const ShardedResult expected = run_alone("llama", {}, at::kFloat);
  for (const int prefetch : {0, 1, 3}) {
    for (const auto recompute : {nn::Recompute::kNone, nn::Recompute::kBlocks}) {
      run_threads(2, [&](Group& group) {
        const ShardedResult result =
            run_sharded(group, "llama",
                        {.stage = 3, .recompute = recompute, .prefetch = prefetch, .offload = true},
                        at::kFloat);
        expect_same_training(result, expected, group.rank(), fmt::format("prefetch {}", prefetch));
      });
    }
  }
}

struct Spread {
  int stage;
  int ranks;
  int shard_ranks;
  std::int64_t micro_batches;
};

// Three ranks, and steps of several rounds: 28 micro-batches of two copies are 8, 4 and 2 each.
const std::vector<Spread> kSpreads = {{0, 3, 0, 6},  {1, 3, 0, 3},  {2, 3, 0, 3},  {1, 4, 2, 8},
                                      {2, 4, 2, 8},  {3, 4, 2, 28}, {1, 4, 2, 28}, {1, 6, 2, 12},
                                      {3, 6, 2, 12}, {0, 2, 0, 14}};

// And a rank sends what it does without.
TEST(Offload, CopiesAndRoundsTrainTheSameModelAsWithout) {
  for (const Spread& spread : kSpreads) {
    const testing::ShardedRun run{.stage = spread.stage,
                                  .micro_batches = spread.micro_batches,
                                  .shard_ranks = spread.shard_ranks,
                                  .steps = 2};
    run_threads(spread.ranks, [&](Group& group) {
      const ShardedResult expected = run_sharded(group, "gpt2", run, at::kBFloat16);
      testing::ShardedRun offloaded = run;
      offloaded.offload = true;
      const ShardedResult result = run_sharded(group, "gpt2", offloaded, at::kBFloat16);
      const std::string what =
          fmt::format("stage {}, {} ranks, {} to a copy, {} micro-batches, rank {}", spread.stage,
                      spread.ranks, spread.shard_ranks, spread.micro_batches, group.rank());
      expect_same_training(result, expected, group.rank(), what);
      EXPECT_EQ(result.across, expected.across) << what;
      // But for which order buckets go in: 8 bytes for each of them, and for the matrix that leaves
      // early.
      EXPECT_NEAR(static_cast<double>(result.inside), static_cast<double>(expected.inside), 200)
          << what;
    });
  }
}

// A unit's first weight is the whole model's first one as well, its second has no part in the loss,
// and what is frozen never has a gradient.
struct Oddities : torch::nn::Module {
  Oddities() {
    const auto values = [](std::int64_t first, std::int64_t rows) {
      return testing::formula_samples(first, rows, 19, at::kFloat) * 0.3;
    };
    tied = register_parameter("tied", values(1, 19));
    bias = register_parameter("bias", values(31, 1)[0]);
    frozen = register_parameter("frozen", values(47, 19), /*requires_grad=*/false);
    unit = register_module("unit", std::make_shared<torch::nn::Module>());
    unit->register_parameter("tied", tied);
    unused = unit->register_parameter("unused", values(83, 7));
    inner = unit->register_parameter("inner", values(97, 19));
    means = register_buffer("means", values(131, 1));
  }
  at::Tensor loss(ShardedModel& sharded, std::int64_t first) {
    const at::Tensor x = testing::formula_samples(first, 5, 19, at::kFloat).to(tied.device());
    const auto like_weights = [&](const at::Tensor& y) { return y.to(tied.scalar_type()); };
    const at::Tensor hidden = like_weights(x).matmul(frozen) + bias;
    const at::Tensor y = sharded.run(*unit, hidden.tanh(), [&](const at::Tensor& h) {
      return h.matmul(tied).tanh().matmul(inner);
    });
    return (y.to(at::kFloat) - x.flip({1}) + means).square().mean();
  }
  at::Tensor tied, bias, frozen, unused, inner, means;
  std::shared_ptr<torch::nn::Module> unit;
};

// Tied weights belong to the unit alone, as the layout has it: other parts may not use them.
TEST(Offload, TiedUnusedAndFrozenParametersAreAsWithout) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int stage : {0, 1, 2, 3}) {
      run_threads(2, [&](Group& group) {
        std::vector<double> losses[2];
        at::Tensor weights[2], frozen[2];
        for (const bool offload : {false, true}) {
          Oddities model;
          if (group.rank() == 1) model.frozen.add_(1);  // rank 0's counts
          ShardedModel sharded(model, group,
                               {.stage = stage,
                                .dtype = dtype,
                                .micro_batches = 4,
                                .units = {model.unit.get()},
                                .offload = offload});
          const auto adamw =
              optim::make_optimizer({.name = "adamw", .weight_decay = 0.1}, sharded.space());
          for (std::int64_t step = 0; step < 3; ++step) {
            for (const std::int64_t m : sharded.micro_batches()) {
              const at::Tensor loss =
                  sharded.forward([&] { return model.loss(sharded, 400 * step + 100 * m); });
              sharded.backward(loss, 1.0 + static_cast<double>(m));
              losses[offload].push_back(loss.item<double>());
            }
            sharded.finish_gradients();
            EXPECT_THAT(sharded.report().unused, ElementsAre("unit.unused"));
            EXPECT_EQ(sharded.report().weight, 1 + 2 + 3 + 4);
            losses[offload].push_back(sharded.gradient_norm());
            if (step == 1) {
              sharded.drop_gradients();
            } else {
              sharded.step(*adamw, 0.02, 0.1);
            }
          }
          weights[offload] = sharded.gather_weights();
          frozen[offload] = model.frozen;
        }
        const std::string what = fmt::format("stage {}, {}", stage, c10::toString(dtype));
        EXPECT_EQ(losses[1], losses[0]) << what;
        EXPECT_TRUE(frozen[1].equal(frozen[0])) << what;
        if (group.rank() == 0) {
          EXPECT_TRUE(weights[1].equal(weights[0])) << what;
        }
      });
    }
  }
}

at::Tensor formula(std::int64_t elements, double phase) {
  return (torch::arange(elements, torch::kDouble) * 0.37 + phase).sin().to(at::kFloat);
}

class OffloadOnDevice : public ::testing::TestWithParam<c10::Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, OffloadOnDevice, ::testing::ValuesIn(testing::devices()),
                         testing::device_name);

// The weights that compute, gathered by a forward pass in stage 3: entries one after the other.
at::Tensor computing_weights(testing::Chain& chain, ShardedModel& sharded) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> all;
  sharded.forward([&] {
    for (const at::Tensor& parameter : sharded.layout().parameters) {
      all.push_back(parameter.reshape({-1}).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true));
    }
    return chain.weights[0].sum();
  });
  return torch::cat(all).cpu();
}

at::Tensor entries_of(const ShardedModel& sharded, const at::Tensor& whole) {
  std::vector<at::Tensor> all;
  for (const FlatEntry& entry : sharded.layout().entries) {
    all.push_back(whole.narrow(0, entry.offset, entry.count));
  }
  return torch::cat(all);
}

TEST_P(OffloadOnDevice, WeightsThatAreSetComputeAndComeBack) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int stage : {0, 1, 2, 3}) {
      run_threads(3, [&](Group& group) {
        testing::Chain chain(3, at::kFloat);
        chain.to(GetParam());
        ShardedModel sharded(chain, group, {.stage = stage, .dtype = dtype, .offload = true});
        const std::string what = fmt::format("stage {}, {}", stage, c10::toString(dtype));
        const auto expect_weights = [&](const at::Tensor& whole) {
          const at::Tensor rounded = entries_of(sharded, whole).to(dtype).to(at::kFloat);
          EXPECT_TRUE(computing_weights(chain, sharded).equal(rounded)) << what;
          const at::Tensor gathered = sharded.gather_weights();
          EXPECT_EQ(gathered.defined(), group.rank() == 0) << what;
          if (group.rank() == 0) {
            EXPECT_TRUE(gathered.is_cpu());
            EXPECT_TRUE(gathered.equal(whole)) << what;
          }
        };
        EXPECT_EQ(sharded.layout().parameters[0].device(), GetParam());
        optim::WeightAverage average(0.9, sharded.pieces());
        at::Tensor first = sharded.gather_weights();
        if (group.rank() != 0) first = torch::zeros({sharded.layout().size});
        group.broadcast(
            buffer_of(std::span(first.data_ptr<float>(), static_cast<std::size_t>(first.numel()))),
            0);
        expect_weights(first);
        // At once one after the other: the second must not meet the copies of the first.
        const at::Tensor second = formula(sharded.layout().size, 0.3);
        sharded.set_weights(formula(sharded.layout().size, 0.9));
        sharded.set_weights(second);
        expect_weights(second);
        average.swap(sharded.pieces());
        sharded.publish_weights();
        expect_weights(first);
      });
    }
  }
}

// Where they lie: pieces with masters and gradients on the host, what computes on the device.
TEST_P(OffloadOnDevice, TheHostHasWhatIsUpdated) {
  for (const int stage : {0, 1, 2, 3}) {
    run_threads(GetParam().is_cpu() ? 2 : 1, [&](Group& group) {
      testing::Chain chain(2, at::kFloat);
      chain.to(GetParam());
      ShardedModel sharded(chain, group, {.stage = stage, .dtype = at::kBFloat16, .offload = true});
      EXPECT_EQ(sharded.space().device, c10::Device(at::kCPU));
      sharded.backward(sharded.forward([&] {
        const at::Tensor x = testing::formula_samples(group.rank(), 4, chain.kWidth, at::kBFloat16);
        return chain.forward(x.to(GetParam())).to(at::kFloat).square().mean();
      }));
      sharded.finish_gradients();
      for (const optim::PieceUpdate& piece : sharded.pieces()) {
        EXPECT_TRUE(piece.weights.is_cpu());
        EXPECT_TRUE(piece.gradients.is_cpu());
        EXPECT_TRUE(piece.working_copy.is_cpu());
        EXPECT_EQ(piece.weights.scalar_type(), at::kFloat);
        EXPECT_EQ(piece.gradients.scalar_type(), at::kFloat);
        EXPECT_EQ(piece.working_copy.scalar_type(), at::kBFloat16);
      }
      for (const at::Tensor& parameter : chain.parameters()) {
        EXPECT_EQ(parameter.device(), GetParam());
        EXPECT_FALSE(parameter.grad().defined());
        for (const optim::PieceUpdate& piece : sharded.pieces()) {
          EXPECT_NE(parameter.data_ptr(), piece.working_copy.data_ptr());
        }
      }
      sharded.drop_gradients();
    });
  }
}

// All layouts give the same bits on a device too, and follow the CPU.
TEST_P(OffloadOnDevice, LayoutsAgreeAndFollowTheCpu) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const ShardedResult on_cpu = run_alone("llama", {}, dtype);
    const ShardedResult expected =
        run_alone("llama", {.stage = 1, .offload = true, .device = GetParam()}, dtype);
    const double tolerance = dtype == at::kFloat ? 1e-4 : 3e-2;
    for (const auto& [when, loss] : on_cpu.losses) {
      EXPECT_NEAR(expected.losses.at(when), loss, tolerance * loss);
    }
    for (const int stage : {0, 2, 3}) {
      // Ranks that are threads want a device each.
      run_threads(GetParam().is_cpu() ? 2 : 1, [&](Group& group) {
        const ShardedResult result = run_sharded(
            group, "llama", {.stage = stage, .offload = true, .device = GetParam()}, dtype);
        expect_same_training(result, expected, group.rank(), fmt::format("stage {}", stage));
      });
    }
  }
}

// What the header says of each stage, for one rank of two: bytes for each element of the flat
// buffers.
struct Bytes {
  int stage;
  at::ScalarType dtype;
  double weights;    // on the device (none in stage 3) and on the host
  double gradients;  // on the host, with one micro-batch
};

TEST(Offload, MemoryIsWhatTheHeaderSays) {
  install_caching_allocator();
  const std::vector<Bytes> table = {
      {0, at::kFloat, 4 + 4, 4},    {0, at::kBFloat16, 2 + 6, 4}, {1, at::kFloat, 4 + 2, 4},
      {1, at::kBFloat16, 2 + 3, 4}, {2, at::kFloat, 4 + 2, 2},    {2, at::kBFloat16, 2 + 3, 2},
      {3, at::kFloat, 2, 2},        {3, at::kBFloat16, 3, 2},
  };
  for (const Bytes& bytes : table) {
    const MemoryReport before = process_memory().report();
    const auto added = [&](MemoryCategory category) {
      return process_memory().report().current[category] - before.current[category];
    };
    run_threads(2, [&](Group& group) {
      const std::string what = fmt::format("stage {}, {}", bytes.stage, c10::toString(bytes.dtype));
      struct Net : torch::nn::Module {
        explicit Net(int units) {
          for (int i = 0; i < units; ++i) {
            chains.push_back(register_module(std::to_string(i),
                                             std::make_shared<testing::Chain>(2, at::kFloat, i)));
            all.push_back(chains.back().get());
          }
        }
        std::vector<std::shared_ptr<testing::Chain>> chains;
        std::vector<const torch::nn::Module*> all;
      };
      constexpr int kUnits = 8;
      Net net(kUnits);
      ShardedModel sharded(
          net, group,
          {.stage = bytes.stage, .dtype = bytes.dtype, .units = net.all, .offload = true});
      const auto step = [&] {
        at::Tensor x =
            testing::formula_samples(group.rank(), 3, testing::Chain::kWidth, bytes.dtype);
        sharded.backward(sharded.forward([&] {
          for (const auto& chain : net.chains) {
            x = sharded.run(*chain, x, [&](const at::Tensor& y) { return chain->forward(y); });
          }
          return x.to(at::kFloat).square().mean();
        }));
        sharded.finish_gradients();
        sharded.drop_gradients();
      };
      step();
      step();
      group.barrier();
      if (group.rank() == 0) {
        const auto both_ranks = 2 * static_cast<double>(sharded.layout().size);
        EXPECT_EQ(added(MemoryCategory::kWeights), bytes.weights * both_ranks) << what;
        EXPECT_EQ(added(MemoryCategory::kGradients), bytes.gradients * both_ranks) << what;
        // Units: gradients of the one that is computed and three on their way on the device, four
        // on the host (stages 2 and 3); weights of two on the host (not stage 0), and on the device
        // those of stage 3: this one, the next, and the one before.
        const auto unit = both_ranks / kUnits;
        const double width = bytes.dtype == at::kFloat ? 4 : 2;
        const double most = 4 * 4 + (bytes.stage >= 2 ? 4 * 4 : 0) +
                            (bytes.stage >= 1 ? 2 * width : 0) + (bytes.stage == 3 ? 3 * width : 0);
        EXPECT_LE(added(MemoryCategory::kWorkspace), most * unit) << what;
        EXPECT_GT(added(MemoryCategory::kWorkspace), 4 * unit) << what;
      }
      group.barrier();
    });
    EXPECT_EQ(added(MemoryCategory::kWeights), 0);
    EXPECT_EQ(added(MemoryCategory::kGradients), 0);
    EXPECT_EQ(added(MemoryCategory::kWorkspace), 0);
  }
}

TEST(Offload, AFailureEndsAllRanksByName) {
  for (const int stage : {0, 1, 2, 3}) {
    run_threads(3, [&](Group& group) {
      testing::Chain chain(3, at::kFloat);
      ShardedModel sharded(chain, group, {.stage = stage, .offload = true});
      const auto run_step = [&](bool fails) {
        for (const std::int64_t m : sharded.micro_batches()) {
          sharded.backward(sharded.forward([&] {
            const at::Tensor loss = chain.loss(3 * m, 3);
            if (fails) {
              loss.register_hook(
                  [](const at::Tensor&) -> at::Tensor { throw std::runtime_error("out of luck"); });
            }
            return loss;
          }));
        }
        sharded.finish_gradients();
        sharded.drop_gradients();
      };
      run_step(false);
      group.barrier();
      const std::string error = failure_of([&] {
        run_step(group.rank() == 1);
        run_step(false);
      });
      EXPECT_THAT(error, HasSubstr("out of luck")) << "stage " << stage;
      if (group.rank() != 1) {
        EXPECT_THAT(error, AllOf(HasSubstr("CommError"), HasSubstr("rank 1 left")));
      }
    });
  }
}

// A model on a device is not trained by chance: with offload, or not at all.
TEST(Offload, ModelsOnDevicesWithoutItAreRefused) {
  run_threads(1, [](Group& group) {
    const at::TensorOptions elsewhere = at::TensorOptions().device(at::kMeta);
    torch::nn::Module model;
    model.register_parameter("weight", torch::ones({5, 7}, elsewhere));
    for (const int stage : {0, 1, 2, 3}) {
      EXPECT_THAT(failure_of([&] { const ShardedModel sharded(model, group, {.stage = stage}); }),
                  AllOf(HasSubstr("ConfigError"), HasSubstr("parameters lie on meta"),
                        HasSubstr("ShardOptions::offload")));
    }
    EXPECT_THAT(failure_of([&] {
                  const ShardedModel sharded(model, group, {.stage = 2, .offload = true});
                }),
                AllOf(HasSubstr("ConfigError"), HasSubstr("meta")));
    EXPECT_THAT(
        failure_of([&] { replicate(model, group, {}); }),
        AllOf(HasSubstr("ConfigError"), HasSubstr("parameters lie on meta"), HasSubstr("offload")));
  });
}

}  // namespace
}  // namespace trireme
